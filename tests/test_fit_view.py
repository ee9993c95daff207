"""The view "will it fit my card?": it draws and says the need, and its controls move both."""

import base64
import re

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab.cards import CARDS, find_changes, needed_gib
from sft_lab.course.views.fit import describe_fit, draw_fit, explore_fit
from sft_lab.memory import METHODS
from sft_lab.shapes import SHAPES

SMALL = ("Qwen3-0.6B", "T4", "lora", 8, 1024, False, "all")
FITS = ("Qwen3-0.6B", "T4", "lora", 1, 1024, False, "all")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def need(model: str, card: str, *settings: object) -> float:
    return sum(needed_gib(model, *settings).values())


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


def test_the_words_advise_what_helps_and_say_when_nothing_does(monkeypatch):
    (change,) = find_changes(*SMALL)
    assert describe_fit(*SMALL).endswith(f"It would fit if you {change}.")
    monkeypatch.setitem(CARDS, "an old card", 1.5)
    hopeless = ("Qwen2.5-7B", "an old card", "full", 32, 8192, False, "all")
    assert find_changes(*hopeless) == []
    assert "no change here is enough" in describe_fit(*hopeless)


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
