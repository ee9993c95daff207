"""The view of chapter 10: settings of a LLaMA-Factory run, its file and command, and the cards."""

import html
import itertools
import random

import matplotlib
import pytest
import yaml

matplotlib.use("Agg")
from sft_lab.cards import CARDS, needed_gib
from sft_lab.course.factory_keys import METHODS, MODELS
from sft_lab.course.views.factory import (
    ACCUMULATIONS,
    BATCH_SIZES,
    CUTOFFS,
    NAMES,
    WIDEST,
    describe_factory,
    draw_factory,
    explore_factory,
    predict_run,
    settings_file,
)

START = ("Qwen2.5-7B", "lora", 2048, 2, 8, True)  # the walk-through's
SMALL = ("Qwen3-0.6B", "qlora", 512, 1, 4, True)
LARGE = ("Qwen2.5-7B", "full", 8192, 16, 1, False)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def random_runs(count: int) -> list[tuple]:
    rng = random.Random(10)
    every = list(
        itertools.product(MODELS, METHODS, CUTOFFS, BATCH_SIZES, ACCUMULATIONS, (True, False))
    )
    return rng.sample(every, count)


def need(setup: tuple) -> float:
    model, method, cutoff_len, batch_size, _, checkpointing = setup
    return sum(predict_run(model, method, cutoff_len, batch_size, checkpointing).values())


def test_the_need_is_that_of_chapter_08_at_the_rank_of_the_file():
    parts = predict_run(*START[:4], True)
    assert parts == needed_gib("Qwen2.5-7B", "lora", 2, 2048, True, "all", rank=64)
    less = needed_gib("Qwen2.5-7B", "lora", 2, 2048, True, "all")
    assert less["optimizer"] == pytest.approx(parts["optimizer"] * 16 / 64)
    assert settings_file(*START)["lora_rank"] == 64


def test_the_words_say_the_rows_of_a_step_the_need_and_the_cards():
    words = describe_factory(*START)
    assert "2 × 8 = 16 rows of at most 2,048 tokens, checkpointing on" in words
    assert f"Predicted peak {need(START):.1f} GiB, most of it weights" in words
    # the walk-through says 16 to 20 GB, and names this card
    assert need(START) > CARDS["RTX 4090"] and "Too small: T4, L4, RTX 4090." in words
    assert "Large enough: T4, L4, RTX 4090, A100 40 GB, A100 80 GB, H100 80 GB." in (
        describe_factory(*SMALL)
    )
    assert "Too small" not in describe_factory(*SMALL)
    assert "Large enough: none of these cards." in describe_factory(*LARGE)


def test_accumulation_changes_the_rows_and_not_the_memory():
    once, often = (START[:4] + (times, True) for times in (1, 32))
    assert need(once) == need(often)
    assert "= 2 rows" in describe_factory(*once) and "= 64 rows" in describe_factory(*often)


@pytest.mark.parametrize("setup", random_runs(12), ids=str)
def test_bars_have_the_sizes_of_their_parts_and_a_cut_bar_says_so(setup):
    model, method, cutoff_len, batch_size, _, checkpointing = setup
    (ax,) = draw_factory(*setup).axes
    kinds = len(predict_run(*setup[:4], checkpointing))
    for row, kind in enumerate(METHODS):
        bars = ax.containers[row * kinds : (row + 1) * kinds]
        parts = predict_run(model, kind, cutoff_len, batch_size, checkpointing)
        assert [bar.patches[0].get_width() for bar in bars] == pytest.approx(list(parts.values()))
    totals = [need((model, kind, *setup[2:])) for kind in METHODS]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        f"{'▶ ' * (kind == method)}{NAMES[kind]}\n{total:,.1f} GiB"
        for kind, total in zip(METHODS, totals, strict=True)
    ]
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("▶") == sum(total > WIDEST for total in totals)
    assert {line.get_xdata()[0] for line in ax.lines} == set(CARDS.values())
    assert all(any(card in text for text in texts) for card in CARDS)


def test_unknown_names_and_empty_sizes_are_refused():
    with pytest.raises(ValueError, match="no model named 'GPT-2' here; known: Qwen3-0.6B"):
        describe_factory("GPT-2", *START[1:])
    with pytest.raises(ValueError, match="method is 'prefix'; choose one of lora, full"):
        describe_factory("Qwen3-0.6B", "prefix", *START[2:])
    with pytest.raises(ValueError, match="accumulation is 0; it must be at least 1"):
        describe_factory(*START[:4], 0, True)


def drawing(picture) -> str:
    """The image alone, without the words that it is read out with."""
    return picture.value.partition('src="')[2]


def test_the_controls_move_picture_words_file_and_command():
    box = explore_factory()
    controls, picture, words = box.children
    by_name = {control.description: control for control in controls.children}
    assert list(by_name) == [
        "model",
        "method",
        "cutoff_len",
        "batch",
        "accumulation",
        "checkpointing",
    ]
    setup, seen = list(START), {drawing(picture)}
    for place, name, value in (
        (1, "method", "qlora"),
        (2, "cutoff_len", 512),
        (3, "batch", 16),
        (4, "accumulation", 1),
        (5, "checkpointing", False),
        (0, "model", "Qwen3-0.6B"),
        (1, "method", "freeze"),
    ):
        by_name[name].value = setup[place] = value
        assert html.escape(describe_factory(*setup)) in words.value
        text = html.unescape(words.value.partition("<pre")[2].partition(">")[2].partition("<")[0])
        assert yaml.safe_load(text) == settings_file(*setup)
        assert text.startswith("# llamafactory-cli train my_sft.yaml\n")
        seen.add(drawing(picture))
    assert len(seen) == 7  # accumulation moves no bar
