"""Chapter 14: what the base repeats in open text, by ways of decoding (a minute and a half)."""

from sft_lab.course.repeat_runs import WAYS, run_open
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "14_open_text"


def points() -> list[dict]:
    ways = ("the text itself", *WAYS)
    return [{"way": way, "seed": seed} for seed in range(5) for way in ways]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    sweep(NAME, points(), lambda point: run_open(base, tokenizer, **point), model=base)
