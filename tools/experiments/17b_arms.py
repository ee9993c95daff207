"""Chapter 17b: five ways to learn one task from one start, and what each forgets (ten minutes)."""

from sft_lab.course.results import sweep
from sft_lab.course.reward_runs import ARMS, run_arm
from sft_lab.models import load

NAME, SEEDS = "17b_arms", range(5)

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    points = [{"arm": arm, "seed": seed} for seed in SEEDS for arm in ARMS]
    sweep(NAME, points, lambda point: run_arm(base, tokenizer, **point), model=base)
