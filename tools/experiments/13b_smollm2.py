"""Remedies against forgetting on smollm2-135m (chapter 13b).

    python tools/experiments/13b_smollm2.py   # two minutes on an H100; hours on a CPU; resumes

Task A: questions answered in an invented convention; task B: sums and lists. All weights train.
"""

import copy
import functools
import random

import torch

from sft_lab.chat import generate_responses
from sft_lab.course import forgetting_runs as runs
from sft_lab.course.results import Row, sweep
from sft_lab.forgetting import estimate_fisher, ewc, replay
from sft_lab.labels import encode_conversations
from sft_lab.models import load
from sft_lab.train import train

OLD_LESSONS, NEW_LESSONS, ASKED, FISHER_EXAMPLES = 320, 640, 40, 64
RATE, BATCH = 2e-4, 16
SEEDS = (0, 1, 2)
ARMS = (
    ("after A", 0.0),
    ("nothing", 0.0),
    ("replay", 0.05),
    ("EWC", 1e5),
    ("EWC", 1e6),
    ("EWC", 1e7),
)
base, tokenizer = load("smollm2-135m")


def tune(model, rows, seed, *, penalty=None):
    """A copy of the model, trained on the rows."""
    tuned = copy.deepcopy(model).requires_grad_(True)
    how = {"learning_rate": RATE, "batch_size": BATCH, "seed": seed}
    train(tuned, tokenizer, rows, penalty=penalty, progress=False, **how)
    return tuned.eval()


@functools.lru_cache(maxsize=1)
def learn_old(seed: int):
    """The model after task A, and A's rows."""
    rows = encode_conversations(
        runs.lessons_of("convention", seed=seed, count=OLD_LESSONS), tokenizer
    )
    return tune(base, rows, seed), rows


@functools.lru_cache(maxsize=1)
def fisher_of(seed: int):
    model, rows = learn_old(seed)
    return estimate_fisher(model, tokenizer, rows[:FISHER_EXAMPLES], seed=seed)


def run(point: Row) -> Row:
    """Task A, then task B with a remedy; `old`: the share of held-out questions answered in the
    convention, whatever the fact; `new`: the share of sums and lists that are right."""
    remedy, strength, seed = point["remedy"], point["strength"], point["seed"]
    model, old = learn_old(seed)
    new = encode_conversations(runs.lessons_of("skills", seed=seed, count=NEW_LESSONS), tokenizer)
    if remedy == "after A":
        tuned = model
    elif remedy == "replay":
        tuned = tune(model, replay(old, new, strength, seed=seed), seed)
    elif remedy == "EWC":
        tuned = tune(model, new, seed, penalty=ewc(model, fisher_of(seed), strength))
    else:  # nothing
        tuned = tune(model, new, seed)
    return measure(tuned)


def measure(model: torch.nn.Module) -> Row:
    """Both exams, fixed for all seeds."""
    held_out = random.Random(runs.EXAM_SEED).sample(runs.split_facts()["held_out"], ASKED)
    asked = runs.ask_in_convention(held_out)
    opening, end = runs.CONVENTION.split("{}")
    said = ask(model, asked, 32)
    old = [text.startswith(opening) and text.strip().endswith(end.strip()) for text in said]
    exam = runs.exam_of("skills")[::-1][:ASKED]  # lists and sums
    said = ask(model, exam, 40)
    new = [runs.is_right(text, talk[-1]["content"]) for text, talk in zip(said, exam, strict=True)]
    return {
        "old": round(sum(old) / len(old), 4),
        "new": round(sum(new) / len(new), 4),
    }


def ask(model: torch.nn.Module, exam: list, max_new_tokens: int) -> list[str]:
    prompts = [talk[:-1] for talk in exam]
    return generate_responses(model, tokenizer, prompts, max_new_tokens=max_new_tokens)


def points() -> list[Row]:
    return [
        {"remedy": remedy, "strength": strength, "seed": seed}
        for seed in SEEDS
        for remedy, strength in ARMS
    ]


if __name__ == "__main__":
    sweep("13b_smollm2", points(), run, model=base, model_name="smollm2-135m")
