"""Chapter 16b: outputs of a base, a half-tuned and a tuned model for three kinds of tasks (four
minutes on one thread)."""

from sft_lab.course.results import sweep
from sft_lab.course.score_runs import KINDS, run_scores
from sft_lab.models import load

NAME = "16b_outputs"

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    points = [{"kind": kind, "seed": seed} for kind in KINDS for seed in range(5)]
    sweep(NAME, points, lambda point: run_scores(base, tokenizer, **point), model=base)
