"""Chapter 03b: what the prompt weighs, for four kinds of prompt and answer (15 minutes)."""

from sft_lab.course.mask_runs import KINDS, RATE, WEIGHTS, run_point
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "03b_mask"
SEEDS = range(5)


def points() -> list[dict]:
    """Every kind with every weight; the graded long prompt at a lower rate too."""
    settings = [
        {"kind": kind, "weight": weight, "rate": RATE} for kind in KINDS for weight in WEIGHTS
    ]
    return [{**setting, "seed": seed} for setting in settings for seed in SEEDS]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    sweep(NAME, points(), lambda point: run_point(base, tokenizer, **point), model=base)
