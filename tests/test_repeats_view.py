"""The view of a text that is said again: its numbers are the model's own, and the controls move
picture and words."""

import re

import matplotlib
import pytest
import torch
from torch.testing import assert_close

matplotlib.use("Agg")
from sft_lab.course.repeat_runs import read_repeats
from sft_lab.course.views.repeats import (
    Copies,
    describe_repeats,
    draw_induction,
    draw_repeats,
    draw_text,
    explore_repeats,
    read_copies,
)
from sft_lab.models import load
from sft_lab.plots import ANSWER

KENYA = " The capital of Kenya is Nairobi."


@pytest.fixture(scope="module")
def atlas():
    return load("atlas-base")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def made_up(copies: int = 3) -> Copies:
    rng = torch.Generator().manual_seed(0)
    p, look = torch.rand(copies, 2, generator=rng), torch.rand(copies, 4, generator=rng)
    return Copies([" a", "b"], p, look)


def test_probabilities_are_those_of_the_copies(atlas):
    base, tokenizer = atlas
    read = read_copies(base, tokenizer, KENYA, 3)
    ids, start = tokenizer(KENYA).input_ids, [tokenizer.pad_token_id]
    assert_close(read.p, read_repeats(base, ids, 3, start).exp(), rtol=1e-3, atol=1e-4)
    assert "".join(read.tokens) == KENYA and read.look.shape == (3, 16)


def test_the_attention_of_a_copy_is_a_share_and_the_first_has_none(atlas):
    base, tokenizer = atlas
    look = read_copies(base, tokenizer, " Mifo colour glass.", 4).look
    assert look[0].eq(0).all() and look.min() >= 0 and look.max() <= 1
    assert look[1].max() > 0.3  # an induction head


def test_the_words_say_what_the_picture_shows():
    read = made_up()
    words = describe_repeats(read)
    assert "2 tokens" in words and f"copy 3 {read.p[2].mean():.2f}" in words
    assert f"{read.look[2].max():.0%}" in words and f"{read.look[2].mean():.0%}" in words
    assert "no earlier copy" in describe_repeats(made_up(1))


def test_the_picture_holds_the_probabilities_and_a_line_for_each_measure():
    read = made_up()
    table, lines, *_ = draw_repeats(read).axes
    assert_close(torch.tensor(table.images[0].get_array().data), read.p)
    assert len([line for line in lines.lines if len(line.get_xdata()) == 3]) == 3
    draw_repeats(made_up(1))


def test_repeated_tokens_of_a_text_are_orange():
    ax = draw_text(list("abcdxabcd"), title="a text")
    colours = [patch.get_facecolor() for patch in ax.patches]
    orange = matplotlib.colors.to_rgba(ANSWER)
    assert [colour == orange for colour in colours] == [False] * 5 + [True] * 4


def test_the_schematic_points_behind_the_first_of_its_tokens():
    shown = [text.get_text() for text in draw_induction().texts]
    assert shown.count("A") == 2 and "?" in shown


def test_what_cannot_be_read_is_refused(atlas):
    base, tokenizer = atlas
    with pytest.raises(ValueError, match="nothing to read"):
        read_copies(base, tokenizer, "", 3)
    with pytest.raises(ValueError, match="positions"):
        read_copies(base, tokenizer, KENYA, 500)
    with pytest.raises(ValueError, match="no text"):
        explore_repeats(base, tokenizer, {})
    with pytest.raises(ValueError, match="copies is 11"):
        explore_repeats(base, tokenizer, {"true": KENYA}, copies=11)


def test_the_controls_move_picture_and_words(atlas):
    base, tokenizer = atlas
    texts = {"true": KENYA, "list": "\n- 12"}
    controls, picture, words = explore_repeats(base, tokenizer, texts, copies=3).children
    names, slider = controls.children
    seen = {picture.value}
    assert "10 tokens" in words.value and "in copy 3" in words.value
    slider.value = 5
    seen.add(picture.value)
    assert "in copy 5" in words.value
    names.value = "list"
    seen.add(picture.value)
    assert len(seen) == 3 and "10 tokens" not in words.value
    assert re.search(r'alt="[^"]*in copy 5', picture.value)
