"""Chapter 14: likelihood with and without unlikelihood (four minutes)."""

from sft_lab.course.repeat_runs import run_unlikely
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "14_unlikelihood"
ARMS = (
    ("before", 0.0),
    ("none", 0.0),
    ("token", 1.0),
    ("sequence", 0.1),
    ("sequence", 0.3),
    ("sequence", 1.0),
)


def points() -> list[dict]:
    return [
        {"level": level, "strength": strength, "seed": seed}
        for seed in range(3)
        for level, strength in ARMS
    ]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    sweep(NAME, points(), lambda point: run_unlikely(base, tokenizer, **point), model=base)
