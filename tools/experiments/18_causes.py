"""Chapter 18: short runs with one planted cause each, their curves and their answers (five
minutes)."""

from sft_lab.course.curve_runs import CAUSES, MIXED, run_cause
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "18_causes"


def points() -> list[dict]:
    planted = [{"cause": cause, "seed": seed} for seed in range(5) for cause in CAUSES]
    return planted + [{"cause": cause, "seed": seed} for seed in range(3) for cause in MIXED]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: dict) -> dict:
        return run_cause(base, tokenizer, **point)

    sweep(NAME, points(), run, model=base)
