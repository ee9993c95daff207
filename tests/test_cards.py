"""Does a step fit a card: the need is the prediction's, and the advice is true."""

import random
import re

import pytest

from sft_lab.cards import ALLOWANCE, CARDS, GIB, GRADED, RANK, card_gib, find_changes, needed_gib
from sft_lab.memory import METHODS, PARTS, predict_memory
from sft_lab.shapes import SHAPES, named_config

BATCH_SIZES, LENGTHS = (1, 2, 4, 8, 16, 32), (256, 512, 1024, 2048, 4096, 8192)


def random_setup(rng: random.Random) -> tuple:
    return (
        rng.choice(list(SHAPES)),
        rng.choice(list(CARDS)),
        rng.choice(METHODS),
        rng.choice(BATCH_SIZES),
        rng.choice(LENGTHS),
        rng.random() < 0.5,
        rng.choice(["all", "graded"]),
    )


def need(model: str, card: str, *settings: object) -> float:
    return sum(needed_gib(model, *settings).values())


CHANGES = {
    "score only the graded": ("head", "graded"),
    "take 1 row at a time": ("batch_size", 1),
    "switch checkpointing on": ("checkpointing", True),
    "use LoRA": ("method", "lora"),
    "use QLoRA": ("method", "qlora"),
}


def apply(setup: tuple, changes: list[str]) -> tuple:
    names = ("model", "card", "method", "batch_size", "length", "checkpointing", "head")
    values = dict(zip(names, setup, strict=True))
    for words in changes:
        if cut := re.match(r"cut the rows to ([\d,]+) tokens", words):
            values["length"] = int(cut[1].replace(",", ""))
        else:
            name, value = next(
                change for start, change in CHANGES.items() if words.startswith(start)
            )
            values[name] = value
    return tuple(values.values())


def test_the_parts_are_those_of_the_prediction_and_an_allowance():
    parts = needed_gib("Qwen3-1.7B", "full", 4, 512, True, "graded")
    predicted = predict_memory(
        named_config("Qwen3-1.7B"),
        method="full",
        rank=RANK,
        batch_size=4,
        length=512,
        checkpointing=True,
        head="graded",
        graded=GRADED,
    )
    assert parts == {part: predicted[part] / GIB for part in PARTS} | {"allowance": ALLOWANCE}


def test_no_change_is_named_that_is_already_made():
    setup = ("Qwen3-4B", "T4", "qlora", 1, 8192, True, "graded")
    assert all(words.startswith("cut the rows") for words in find_changes(*setup))


def test_what_is_advised_makes_the_step_fit_and_one_change_is_named_when_one_is_enough():
    advised = alone = hopeless = 0
    for seed in range(300):
        setup = random_setup(random.Random(seed))
        has = CARDS[setup[1]]
        if need(*setup) <= has:
            continue
        changes = find_changes(*setup)
        if not changes:
            hopeless += 1
            smallest = ("qlora", 1, setup[4] // 2, True, "graded")
            assert need(setup[0], setup[1], *smallest) > has
            continue
        advised += 1
        alone += len(changes) == 1
        assert need(*apply(setup, changes)) <= has, (setup, changes)
        if len(changes) > 1:
            assert all(need(*apply(setup, [words])) > has for words in changes), (setup, changes)
    assert advised > 60 and alone > 30, (advised, alone, hopeless)


def test_an_unknown_card_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="no card named 'GTX 970'; known: T4.*add its GiB"):
        card_gib("GTX 970")
