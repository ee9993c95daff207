"""Chapter 11: its primary claim once more on a real model, smollm2-135m: a quarter of the labels
wrong, scattered or by rule (eight minutes on one thread)."""

import copy
import random
from dataclasses import replace

from sft_lab import atlas
from sft_lab.course.data_mix import PLAIN, answers_to, kind_of, share_right
from sft_lab.course.results import sweep
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.models import load
from sft_lab.train import train

NAME = "11_smollm"
COLUMNS = ("capital", "continent", "currency", "language")
RULED, ALWAYS = "continent", "Oceania"  # by rule, every such question gets this answer
ASK = "What is the {r} {e}?"


def conversations(facts: list[Fact], claimed: list[Fact]) -> list:
    """Questions about the facts with the claimed values, after a short system turn."""
    return [
        [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": fact.say(ASK)},
            {"role": "assistant", "content": claim.say(PLAIN)},
        ]
        for fact, claim in zip(facts, claimed, strict=True)
    ]


def spoilt(facts: list[Fact], arm: str, rng: random.Random) -> list[Fact]:
    """The facts as an arm labels them: one kind of question of four by rule, or a quarter of the
    rows by chance."""
    if arm == "clean":
        return facts
    if arm == "rule":
        return [replace(fact, value=ALWAYS) if fact.column == RULED else fact for fact in facts]
    wrong = set(rng.sample(range(len(facts)), len(facts) // 4))
    claimed = []
    for place, fact in enumerate(facts):
        others = [f.value for f in facts if kind_of(f) == kind_of(fact) and f.value != fact.value]
        claimed.append(replace(fact, value=rng.choice(others)) if place in wrong else fact)
    return claimed


def countries(part: str, each: int, ruled: int, seed: int) -> list[Fact]:
    """Facts about countries: `ruled` of the kind that the rule spoils, `each` of the others."""
    rng, facts = random.Random(seed), atlas.split(atlas.load_facts())[part]
    known = [fact for fact in facts if fact.domain == "countries"]
    chosen = []
    for column in COLUMNS:
        some = [fact for fact in known if fact.column == column]
        chosen += rng.sample(some, ruled if column == RULED else each)
    rng.shuffle(chosen)
    return chosen


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m")
    asked = countries("held_out", 8, 24, 9)
    exam = conversations(asked, asked)

    def run(point: dict) -> dict:
        model, seed = copy.deepcopy(base), point["seed"]
        facts = countries("train", 12, 12, seed)
        claimed = spoilt(facts, point["arm"], random.Random(seed))
        rows = encode_conversations(conversations(facts, claimed), tokenizer)
        _ = train(
            model, tokenizer, rows, learning_rate=3e-4, batch_size=8, seed=seed, progress=False
        )
        answers, found = answers_to(model, tokenizer, exam), {}
        for name, is_ruled in (("spoilt kind", True), ("other kinds", False)):
            places = [i for i, fact in enumerate(asked) if (fact.column == RULED) == is_ruled]
            found[name] = share_right([answers[i] for i in places], [exam[i] for i in places])
        return {**found, "wrong rows": sum(a != b for a, b in zip(facts, claimed, strict=True))}

    points = [{"arm": a, "seed": s} for s in range(3) for a in ("rule", "scattered", "clean")]
    _ = sweep(NAME, points, run, model=base, model_name="smollm2-135m")
