"""Invented facts in a passage, read by smollm2-135m (chapter 15b).

    python tools/experiments/15b_smollm2.py   # a minute on a GPU, an hour on one thread; resumes

The passages control what can be read: none, the right one, three with the right one among them,
three about other places, one of the same relation about another place. Each with and without an
instruction, and both of the model as it is and after 96 lessons that show the instruction.
"""

import random
from collections.abc import Sequence

import torch

from sft_lab import lessons
from sft_lab.chat import generate_responses
from sft_lab.course.lookup_runs import DECLINED, PROMPTS, share, talk
from sft_lab.course.results import Row, sweep
from sft_lab.course.short_runs import tune_on
from sft_lab.documents import PLAIN, in_some_wording
from sft_lab.facts import Fact
from sft_lab.models import load
from sft_lab.retrieval import write_prompt

ASKED, TAUGHT, EPOCHS, LEARNING_RATE, BATCH_SIZE = 60, 96, 2, 1e-4, 8
SEEDS = (0, 1, 2)
REFUSALS = ("not known", "do not know", "don't know", "not mentioned", "not provided", "unknown")
STATES = ("as it is", "taught")
SHOWN = ("nothing", "right", "right of three", "three others", "same relation")
base, tokenizer = load("smollm2-135m", dtype=torch.float32)


def told(shown: str, fact: Fact, facts: Sequence[Fact], rng: random.Random) -> list[str]:
    """The passages in front of a question about `fact`."""
    others = [f for f in facts if f.entity != fact.entity]
    some = {
        "nothing": [],
        "right": [fact],
        "right of three": [fact, *rng.sample(others, 2)],
        "three others": rng.sample(others, 3),
        "same relation": rng.sample([f for f in others if f.column == fact.column], 1),
    }[shown]
    rng.shuffle(some)
    return [in_some_wording(rng, note, plain=0.4) for note in some]


def teach(seed: int, taught: int) -> list:
    """Lessons under the instruction about other invented places, a third of them declined."""
    rng, facts = random.Random(f"teach {seed}"), lessons.invent_places(taught, seed=1000 + seed)
    rows = []
    for place, fact in enumerate(rng.sample(facts, taught)):
        shown = ("right", "right of three", "three others" if place % 2 else "same relation")
        kind = shown[place % 3]
        answer = fact.say(PLAIN) if kind.startswith("right") else fact.say(DECLINED)
        prompt = write_prompt(told(kind, fact, facts, rng), fact.say(lessons.PLAIN_QUESTION))
        rows.append(talk(prompt, answer, system=PROMPTS["instruction"]))
    return rows


def run(point: Row, *, asked: int = ASKED, taught: int = TAUGHT) -> Row:
    """Shares of answers that hold the right name, another name of the passages, or decline."""
    seed, model = point["seed"], base
    if point["model"] == "taught":
        how = {"epochs": EPOCHS, "learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE}
        model = tune_on(base, tokenizer, teach(seed, taught), seed=seed, **how)
    rng = random.Random(f"ask {seed}")
    facts = lessons.invent_places(asked, seed=seed)
    some, row = rng.sample(facts, asked), {}
    for shown in SHOWN:
        notes = [told(shown, fact, facts, rng) for fact in some]
        prompts = [
            write_prompt(note, fact.say(lessons.PLAIN_QUESTION))
            for note, fact in zip(notes, some, strict=True)
        ]
        for name, system in (("no instruction", None), ("instruction", PROMPTS["instruction"])):
            said = generate_responses(model, tokenizer, prompts, system=system, max_new_tokens=32)
            right = [fact.value in text for text, fact in zip(said, some, strict=True)]
            declined = [any(word in text for word in REFUSALS) for text in said]
            row[f"{shown}, {name}: right"] = share(right)
            row[f"{shown}, {name}: declined"] = share(declined)
            row[f"{shown}, {name}: another name"] = share(
                [
                    not ok and any(f.value in text and f.value in " ".join(note) for f in facts)
                    for text, ok, note in zip(said, right, notes, strict=True)
                ]
            )
    return row


if __name__ == "__main__":
    points = [{"model": state, "seed": seed} for seed in SEEDS for state in STATES]
    sweep("15b_smollm2", points, run, model=base, model_name="smollm2-135m")
