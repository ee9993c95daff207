"""New facts in 1, 2, 4 and 8 wordings, and instruction tuning with as many lessons (chapter 11b).

    python tools/experiments/11b_wordings.py   # four minutes on one core; resumes

Begins from the base, or ("tuned") from a model that answers questions about known facts already.
Every arm learns 60 facts, each 8 times, for 1 or 5 epochs: 480 or 2,400 lessons.
"""

import random
from functools import cache

from sft_lab import atlas, lessons
from sft_lab.course.results import Row, sweep
from sft_lab.course.short_runs import answer, share_right, tune_on
from sft_lab.facts import Fact
from sft_lab.models import load

PLACES, TIMES, EPOCHS = 30, 8, 5
SEEDS = (0, 1, 2)
base, tokenizer = load("atlas-base")
facts = atlas.split(atlas.load_facts())


def points() -> list[Row]:
    """The arms, each with every seed."""
    injected = {"taught": "new facts", "epochs": EPOCHS}
    arms = [{"start": "base", "wordings": n, **injected} for n in (1, 2, 4, 8)]
    arms += [{"start": "tuned", "wordings": n, **injected} for n in (1, 8)]
    arms += [
        {"start": "base", "wordings": 8, "taught": taught, "epochs": 1}
        for taught in ("new facts", "known facts")
    ]
    arms += [{"start": "tuned", "wordings": 0, "taught": "nothing", "epochs": 0}]
    return [{**arm, "seed": seed} for seed in SEEDS for arm in arms]


def known(part: str) -> list[Fact]:
    """The capitals and currencies that the base has read, of one part of the split."""
    return [fact for fact in facts[part] if fact.column in lessons.INVENTED_COLUMNS]


@cache
def tuned_model(seed: int):
    """A model that answers questions about known facts."""
    return tune_on(base, tokenizer, atlas.ask(facts["train"] * 2, seed=seed), seed=seed)


def run(point: Row) -> Row:
    """Teach, and ask in five ways."""
    seed, count = point["seed"], point["wordings"]
    new = lessons.invent_places(PLACES, seed=seed)
    held_out = random.Random(seed).sample(known("held_out"), 100)
    model = tuned_model(seed) if point["start"] == "tuned" else base
    if point["taught"] != "nothing":
        taught = new if point["taught"] == "new facts" else known("train")[: len(new)]
        rows = lessons.ask_in_wordings(taught, lessons.WORDINGS[:count], TIMES)
        model = tune_on(model, tokenizer, rows, epochs=point["epochs"], seed=seed)
    backwards = [[{"role": "user", "content": fact.say(lessons.BACKWARDS)}, {}] for fact in new]
    named = zip(new, answer(model, tokenizer, backwards), strict=True)
    return {
        "trained wording": _right(model, lessons.ask_in_wordings(new, lessons.WORDINGS[:1], 1)),
        "near wording": _right(model, lessons.ask_in_wordings(new, [lessons.NEAR_WORDING], 1)),
        "own words": _right(model, lessons.ask_in_own_words(new)),
        "backwards": sum(fact.entity in said for fact, said in named) / len(new),
        "known facts": _right(model, lessons.ask_in_wordings(held_out, lessons.WORDINGS[:1], 1)),
        "known, own words": _right(model, lessons.ask_in_own_words(held_out)),
    }


def _right(model, exam) -> float:
    return round(share_right(model, tokenizer, exam, max_new_tokens=30), 4)


if __name__ == "__main__":
    sweep("11b_wordings", points(), run, model=base)
