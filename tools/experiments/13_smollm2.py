"""Chapter 13: the phenomenon on a real model, smollm2-135m (a minute or two on a GPU).

    python tools/experiments/13_smollm2.py

Task A is the invented convention about facts; task B a fact as a row of a table; replay mixes a
share of A's lessons into B's.
"""

import functools
import random

import torch

from sft_lab import lessons
from sft_lab.course import forgetting_runs as runs
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

NAME, SEEDS = "13_smollm2", range(3)
COUNT, RATE, BATCH, ASKED = 256, 2e-4, 16, 48
ARMS = {"base": None, "after A": None, "B": 0.0, "B, 1 %": 0.01, "B, 5 %": 0.05, "B, 20 %": 0.2}
SILENT = {"role": "system", "content": ""}  # no system turn of the template's own: short rows

known, held_out = runs.split_facts()["train"], runs.split_facts()["held_out"]
old_exam = [[SILENT, *talk] for talk in runs.exam_of("convention")[:ASKED]]
new_exam = [
    [SILENT, *talk]
    for talk in lessons.ask_in_form("fact as a row", held_out, ASKED, seed=runs.EXAM_SEED)
]


def starts_as(said: list[str], opening: str, end: str) -> float:
    """The share of answers that begin and end so."""
    return sum(t.strip().startswith(opening) and t.strip().endswith(end) for t in said) / len(said)


def measure(model, tokenizer) -> Row:
    """Shares of A's exam answered in its convention, and of B's exam answered as a row."""
    old = runs.answer_exam(model, tokenizer, old_exam)
    new = runs.answer_exam(model, tokenizer, new_exam)
    return {"convention": starts_as(old, "Aye:", "Over."), "new": starts_as(new, "|", "|")}


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)

    def learn(model, talks, seed: int):
        """A tuned copy."""
        talks = [[SILENT, *talk] for talk in talks]
        how = {"rate": RATE, "epochs": 2, "batch_size": BATCH, "seed": seed}
        return runs.learn(model, tokenizer, talks, **how)

    @functools.lru_cache(maxsize=1)
    def after_a(seed: int):
        """The model after task A."""
        return learn(base, runs.lessons_of("convention", seed=seed, count=COUNT), seed)

    def run(point: Row) -> Row:
        """Measure one arm with one seed."""
        seed, share = point["seed"], ARMS[point["arm"]]
        if point["arm"] == "base":
            return measure(base, tokenizer)
        if share is None:
            return measure(after_a(seed), tokenizer)
        old = runs.lessons_of("convention", seed=seed, count=COUNT)[: round(share * COUNT)]
        mixed = lessons.ask_in_form("fact as a row", known, COUNT, seed=seed) + old
        random.Random(seed).shuffle(mixed)
        return measure(learn(after_a(seed), mixed, seed), tokenizer)

    points = [{"arm": arm, "seed": seed} for seed in SEEDS for arm in ARMS]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
