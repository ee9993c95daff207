"""The view of costs: it draws and says what `sft_lab.costs` counts, and its controls move both."""

import base64
import re

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab.adapters import METHODS
from sft_lab.costs import method_cost
from sft_lab.course.views.choice import (
    MODELS,
    describe_choice,
    draw_choice,
    explore_choice,
    find_config,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def test_the_words_name_all_five_costs():
    sentence = describe_choice("atlas-base", "prefix", 16)
    for part in (
        "atlas-base, prefix with 16 positions",
        "trains 8.19 k of 1.05 M parameters (0.78 %)",
        "AdamW keeps 65.5 kB",
        "file of a task takes 32.8 kB",
        "16.4 kB of cache",
        "1.6 % more operations",
    ):
        assert part in sentence
    of_lora = describe_choice("atlas-base", "LoRA", 8)
    assert "LoRA of rank 8:" in of_lora and "(none once merged)" in of_lora
    assert "no cache and no more operations" in describe_choice("atlas-base", "BitFit", 1)


def values_in(ax):
    """What the dots of an axis stand at, from the lowest row to the highest."""
    return [dot.get_xdata()[0] for dot in ax.lines]


def test_the_chosen_method_is_marked_by_more_than_colour():
    figure = draw_choice("Qwen3-0.6B", "adapter", 16)
    parameters, cache, operations = figure.axes
    names = [text.get_text() for text in parameters.get_yticklabels()]
    assert [name for name in names if "▶" in name] == ["▶ adapter"]
    sizes = [dot.get_markersize() for dot in parameters.lines]
    assert max(sizes) == sizes[names.index("▶ adapter")] > 1.3 * min(sizes)
    assert sizes.count(max(sizes)) == 1
    assert (len(parameters.lines), len(cache.lines), len(operations.lines)) == (6, 2, 4)
    assert all(ax.get_xscale() == "log" for ax in figure.axes)


@pytest.mark.parametrize("model", MODELS)
def test_the_dots_stand_at_their_values_the_largest_first(model):
    parameters = draw_choice(model, "LoRA", 16).axes[0]
    assert values_in(parameters) == sorted(
        (method_cost(method, 16, find_config(model)).trained for method in METHODS), reverse=True
    )
    for text, value in zip(parameters.get_yticklabels(), values_in(parameters), strict=True):
        name = text.get_text().removeprefix("▶ ")
        assert method_cost(name, 16, find_config(model)).trained == value


def test_a_cost_of_nothing_is_said():
    cache = draw_choice("Qwen3-0.6B", "LoRA", 16).axes[1]
    assert [text.get_text() for text in cache.texts].count("0") == 4


@pytest.mark.parametrize("size", [1, 256], ids=["least", "most"])
@pytest.mark.parametrize("model", MODELS)
def test_both_ends_of_the_slider_can_be_drawn(model, size):
    assert f"LoRA of rank {size} trains" in draw_choice(model, "LoRA", size).get_suptitle()


def test_the_controls_move_picture_and_words():
    models, methods, slider, picture, words = explore_choice("Qwen3-0.6B", "LoRA", 16).children
    assert describe_choice("Qwen3-0.6B", "LoRA", 16) in words.value
    seen = {picture.value}
    slider.value = 64
    assert describe_choice("Qwen3-0.6B", "LoRA", 64) in words.value
    seen.add(picture.value)
    methods.value = "prefix"
    assert describe_choice("Qwen3-0.6B", "prefix", 64) in words.value
    seen.add(picture.value)
    models.value = "Qwen3-8B"
    assert describe_choice("Qwen3-8B", "prefix", 64) in words.value
    seen.add(picture.value)
    assert len(seen) == 4
    alt, source = re.match(
        r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', picture.value
    ).groups()
    assert alt == describe_choice("Qwen3-8B", "prefix", 64)
    assert base64.b64decode(source).startswith(b"\x89PNG")


def test_what_is_not_there_is_refused_with_what_is():
    with pytest.raises(ValueError, match="method is 'IA3'; there are full, LoRA"):
        explore_choice(method="IA3")
    with pytest.raises(ValueError, match="model is 'gpt2'; shown are atlas-base"):
        explore_choice("gpt2")
    with pytest.raises(ValueError, match="size is 3; the slider has 1, 2"):
        explore_choice(size=3)
