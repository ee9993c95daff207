"""Chapter 14: the base without some of its attention heads (two minutes)."""

import random

from sft_lab.course.repeat_runs import run_heads
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "14_heads"
INDUCTION = [[2, 2], [2, 3]]  # layer and number of the heads whose induction score is high


def points() -> list[dict]:
    """No head off, each alone, the induction heads together, and as many others by chance."""
    alone = [[[layer, head]] for layer in range(4) for head in range(4)]
    found = []
    for seed in range(5):
        others = [head for (head,) in alone if head not in INDUCTION]
        by_chance = sorted(random.Random(seed).sample(others, len(INDUCTION)))
        arms = {"none": [], "induction": INDUCTION, "by chance": by_chance}
        found += [{"arm": arm, "off": off, "seed": seed} for arm, off in arms.items()]
        found += [{"arm": "alone", "off": off, "seed": seed} for off in alone]
    return found


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: dict) -> dict:
        return run_heads(base, tokenizer, off=point["off"], seed=point["seed"])

    sweep(NAME, points(), run, model=base)
