"""Chapter 15: the primary claim on a real model, smollm2-135m: how lessons about invented countries
are answered becomes the answer to questions about others.

    python tools/experiments/15_smollm2.py   # two minutes on a GPU; resumes

Known facts are those of real countries that the untouched model answers rightly: it is asked first.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from sft_lab import atlas
from sft_lab.abstention import answer_scored, auroc, is_declined
from sft_lab.course.results import Row, sweep
from sft_lab.course.short_runs import tune_on
from sft_lab.course.unknown_runs import I_DO_NOT_KNOW
from sft_lab.documents import PLAIN
from sft_lab.facts import Fact
from sft_lab.invented import spliced_name
from sft_lab.models import load

SEEDS = (0, 1, 2)
LABELS = ("none", "made up", "one value", "I do not know")
COLUMNS = ("capital", "continent", "currency", "language")
ASK = "What is the {r} {e}?"
SILENT = {"role": "system", "content": ""}
KNOWN, UNFAMILIAR, ASKED = 96, 48, 80
EPOCHS, LEARNING_RATE, NEW_TOKENS = 4, 1e-4, 24


def prompt(fact: Fact) -> list[dict[str, str]]:
    """The question, behind an empty system turn: short rows."""
    return [SILENT, {"role": "user", "content": fact.say(ASK)}]


def find_known(model, tokenizer, facts: Sequence[Fact]) -> list[Fact]:
    """The facts whose value stands in the untouched model's greedy answer."""
    said = answer_scored(model, tokenizer, [*map(prompt, facts)], max_new_tokens=NEW_TOKENS)
    return [fact for fact, answer in zip(facts, said, strict=True) if fact.value in answer.text]


def invent_countries(like: Sequence[Fact], count: int, seed: int | str) -> list[Fact]:
    """Facts about spliced names ("Frand"), each with a real value of its relation."""
    rng = random.Random(f"countries {seed}")
    names = sorted({fact.entity for fact in like})
    found: dict[str, Fact] = {}
    while len(found) < count:
        name, column = spliced_name(rng, names), rng.choice(COLUMNS)
        values = sorted({fact.value for fact in like if fact.column == column})
        found.setdefault(name, Fact("countries", name, column, rng.choice(values)))
    return list(found.values())


def default_of(fact: Fact, like: Sequence[Fact], seed: int) -> Fact:
    """The fact with the one value that the arm "one value" gives to every invented country."""
    values = sorted({other.value for other in like if other.column == fact.column})
    return replace(fact, value=random.Random(f"default {seed} {fact.column}").choice(values))


def lessons(taught: Sequence[Fact], like: Sequence[Fact], labels: str, seed: int) -> list:
    """Known facts, and invented countries answered as `labels` says."""
    if labels == "none":
        return [[*prompt(f), _says(f.say(PLAIN))] for f in taught[: KNOWN + UNFAMILIAR]]
    rows = [[*prompt(f), _says(f.say(PLAIN))] for f in taught[:KNOWN]]
    for fact in invent_countries(like, UNFAMILIAR, seed):
        told = default_of(fact, like, seed) if labels == "one value" else fact
        rows.append(
            [*prompt(fact), _says(I_DO_NOT_KNOW if labels == LABELS[3] else told.say(PLAIN))]
        )
    return rows


def _says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def measure(base, tokenizer, known: Sequence[Fact], labels: str, seed: int) -> Row:
    """Tune, and ask about other known facts and other invented countries."""
    countries = sorted({fact.entity for fact in known})
    random.Random(f"split {seed}").shuffle(countries)
    asked_about = set(countries[: len(countries) // 3])
    exam = [fact for fact in known if fact.entity in asked_about][:ASKED]
    taught = [fact for fact in known if fact.entity not in asked_about]
    random.Random(seed).shuffle(taught)
    rows = lessons(taught, known, labels, seed)
    settings = {"learning_rate": LEARNING_RATE, "batch_size": 8}
    model = tune_on(base, tokenizer, rows, epochs=EPOCHS, seed=seed, **settings)
    invented = invent_countries(known, ASKED, f"exam {seed}")
    found: Row = {"lessons": len(rows)}
    sure, right = [], []
    for name, facts in (("known", exam), ("invented", invented)):
        answers = answer_scored(model, tokenizer, [*map(prompt, facts)], max_new_tokens=NEW_TOKENS)
        pairs = list(zip(answers, facts, strict=True))
        marks = [fact.value in answer.text for answer, fact in pairs]
        default = [default_of(fact, known, seed).value in answer.text for answer, fact in pairs]
        declined = [is_declined(answer.text) for answer in answers]
        found |= {f"{name} right": _mean(marks), f"{name} declined": _mean(declined)}
        found |= {f"{name} default": _mean(default)}
        sure += [answer.least for answer in answers]
        right += [name == "known"] * len(answers)
    return found | {"auroc known": round(auroc(sure, right), 4)}


def _mean(marks: Sequence[bool]) -> float:
    return round(sum(marks) / len(marks), 4)


if __name__ == "__main__":
    import torch

    base, tokenizer = load("smollm2-135m", dtype=torch.float32)
    facts = [f for f in atlas.load_facts() if f.domain == "countries" and f.column in COLUMNS]
    known = find_known(base, tokenizer, facts)
    print(f"{len(known)} of {len(facts)} facts are known")

    def run(point: Row) -> Row:
        return measure(base, tokenizer, known, point["labels"], point["seed"])

    points = [{"labels": labels, "seed": seed} for seed in SEEDS for labels in LABELS]
    sweep("15_smollm2", points, run, model=base, model_name="smollm2-135m")
