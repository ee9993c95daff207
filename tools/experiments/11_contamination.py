"""Chapter 11: the score in an exam that leaked into the tuning set, and in one that did not (two
minutes)."""

from sft_lab.course.data_runs import LEAKS, measure_leak
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "11_contamination"

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    points = [{"arm": arm, "seed": seed} for arm in LEAKS for seed in range(3)]

    def run(point: dict) -> dict:
        return measure_leak(base, tokenizer, point["arm"], seed=point["seed"])

    _ = sweep(NAME, points, run, model=base)
