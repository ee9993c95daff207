"""Chapter 13: task A, then task B in every arm of `cause_runs` (12 minutes on one core; resumes).

python tools/experiments/13_causes.py
"""

from sft_lab.course.cause_runs import ARMS, run_arm
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME, SEEDS = "13_causes", range(3)

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    points = [{"arm": arm, "seed": seed} for seed in SEEDS for arm in ARMS]
    sweep(NAME, points, lambda point: run_arm(base, tokenizer, **point), model=base)
