"""Chapter 14: open text of a base that sees only its last tokens (three minutes)."""

from sft_lab.course.repeat_runs import run_window
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "14_window"


def points() -> list[dict]:
    """132 tokens are all there are."""
    return [
        {"window": window, "temperature": temperature, "seed": seed}
        for seed in range(5)
        for temperature in (0.0, 1.0)
        for window in (8, 16, 32, 64, 132)
    ]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    sweep(NAME, points(), lambda point: run_window(base, tokenizer, **point), model=base)
