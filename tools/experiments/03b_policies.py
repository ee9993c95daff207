"""Chapter 03b: four policies, the same steps, five seeds (2 minutes)."""

from sft_lab.course.mask_runs import POLICIES, run_policy
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "03b_policies"
SEEDS = range(5)


def points() -> list[dict]:
    """Every policy with every seed."""
    return [{"policy": policy, "seed": seed} for policy in POLICIES for seed in SEEDS]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    sweep(NAME, points(), lambda point: run_policy(base, tokenizer, **point), model=base)
