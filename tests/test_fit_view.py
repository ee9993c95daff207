"""The view "will it fit my card?": its numbers are the prediction's, its advice is true, its
controls move both."""

import base64
import random
import re

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab.course.views.fit import (
    ALLOWANCE,
    BATCH_SIZES,
    CARDS,
    GIB,
    GRADED,
    LENGTHS,
    RANK,
    describe_fit,
    draw_fit,
    explore_fit,
    find_changes,
    needed_gib,
)
from sft_lab.memory import METHODS, PARTS, predict_memory
from sft_lab.shapes import SHAPES, named_config

SMALL = ("Qwen3-0.6B", "T4", "lora", 8, 1024, False, "all")
FITS = ("Qwen3-0.6B", "T4", "lora", 1, 1024, False, "all")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


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


def test_the_words_say_the_need_the_card_and_what_is_left_or_missing():
    has = CARDS["T4"]
    fits, not_fits = describe_fit(*FITS), describe_fit(*SMALL)
    assert f"{need(*FITS):.1f} GiB, most of it" in fits and f"It fits the T4 ({has} GiB)" in fits
    assert f"{has - need(*FITS):.1f} GiB are left" in fits
    missing = need(*SMALL) - has
    assert (
        f"It does not fit the T4 ({has} GiB): {missing:.1f} GiB are missing. It would fit if you"
        in not_fits
    )


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


def test_what_the_view_advises_makes_the_step_fit_and_one_change_is_named_when_one_is_enough():
    advised = alone = hopeless = 0
    for seed in range(300):
        setup = random_setup(random.Random(seed))
        has = CARDS[setup[1]]
        if need(*setup) <= has:
            continue
        changes = find_changes(*setup)
        if not changes:
            hopeless += 1
            assert "no change here is enough" in describe_fit(*setup)
            smallest = ("qlora", 1, setup[4] // 2, True, "graded")
            assert need(setup[0], setup[1], *smallest) > has
            continue
        advised += 1
        alone += len(changes) == 1
        assert need(*apply(setup, changes)) <= has, (setup, changes)
        if len(changes) > 1:
            assert all(need(*apply(setup, [words])) > has for words in changes), (setup, changes)
    assert advised > 60 and alone > 30, (advised, alone, hopeless)


def test_no_change_is_named_that_is_already_made():
    setup = ("Qwen3-4B", "T4", "qlora", 1, 8192, True, "graded")
    assert all(words.startswith("cut the rows") for words in find_changes(*setup))


def test_the_bars_have_the_heights_of_the_parts_and_colour_is_not_the_only_mark_of_the_method():
    figure = draw_fit(*SMALL)
    (ax,) = figure.axes
    widths = [[bar.get_width() for bar in container] for container in ax.containers]
    for row, method in enumerate(METHODS):
        parts = list(needed_gib(SMALL[0], method, *SMALL[3:]).values())
        assert [
            width for (width,) in widths[row * len(parts) : (row + 1) * len(parts)]
        ] == pytest.approx(parts)
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "full tuning",
        "▶ LoRA",
        "QLoRA",
    ]
    assert len({bar.patches[0].get_hatch() for bar in ax.containers[:6]}) >= 5
    words = [text.get_text() for text in ax.texts]
    assert sum("does not fit" in text for text in words) == 3 and "T4: 14.7 GiB" in words
    line = ax.lines[0].get_xdata()
    assert set(line) == {CARDS["T4"]}


@pytest.mark.parametrize("model", SHAPES)
def test_every_model_method_and_extreme_can_be_drawn(model):
    for method, rows, length in (("full", 32, 8192), ("qlora", 1, 256)):
        title = draw_fit(model, "T4", method, rows, length, False, "all").get_suptitle()
        assert title.startswith(model) and ("too much for the T4" in title or "it fits" in title)


def test_an_unknown_card_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="no card named 'GTX 970'; known: T4.*add its GiB"):
        describe_fit("Qwen3-0.6B", "GTX 970", "lora", 1, 256, False, "all")
    with pytest.raises(ValueError, match="no card named"):
        explore_fit(card="GTX 970")


def test_the_controls_move_picture_and_words():
    box = explore_fit(*SMALL)
    controls, picture, words = box.children
    by_name = {control.description: control for control in controls.children}
    assert list(by_name) == [
        "model",
        "card",
        "method",
        "rows",
        "tokens a row",
        "checkpointing",
        "scores of",
    ]
    assert describe_fit(*SMALL) in words.value
    seen, setup = {picture.value}, list(SMALL)
    for place, name, value in (
        (2, "method", "qlora"),
        (3, "rows", 1),
        (4, "tokens a row", 2048),
        (1, "card", "L4"),
        (5, "checkpointing", True),
        (6, "scores of", "graded"),
        (0, "model", "Qwen3-4B"),
    ):
        by_name[name].value = setup[place] = value
        assert describe_fit(*setup) in words.value
        seen.add(picture.value)
    assert len(seen) == 8
    alt, source = re.match(
        r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', picture.value
    ).groups()
    assert alt == describe_fit(*setup) and base64.b64decode(source).startswith(b"\x89PNG")
