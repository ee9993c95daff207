"""The view of wordings: bars and words are the recorded rows, and the buttons move both."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from sft_lab.course.results import read_results
from sft_lab.course.views.wordings import (
    FORMS,
    KNOWN,
    describe_wordings,
    draw_paths,
    draw_wordings,
    explore_wordings,
)

RESULTS = read_results("11b_wordings")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize(("start", "count"), [("base", 1), ("base", 4), ("tuned", 8)])
def test_a_bar_is_the_mean_of_its_dots_and_a_dot_a_seed(start, count):
    ax = draw_wordings(RESULTS, start, count).axes[0]
    widths = [bar.get_width() for bar in ax.patches]
    dots = [each.get_offsets()[:, 0] for each in ax.collections[::2]]
    for form, width, seeds in zip((*FORMS, KNOWN), widths, dots, strict=True):
        rows = RESULTS.select(start=start, taught="new facts", epochs=5, wordings=count)
        np.testing.assert_allclose(sorted(seeds), sorted(row[form] for row in rows))
        assert width == pytest.approx(np.mean(seeds))


def test_the_words_name_start_wordings_and_every_form():
    sentence = describe_wordings(RESULTS, "base", 1)
    rows = RESULTS.select(start="base", taught="new facts", epochs=5, wordings=1)
    assert "From the base model, new facts taught in 1 wording." in sentence
    for form in FORMS:
        assert f"{form} {np.mean([row[form] for row in rows]):.0%}" in sentence


def test_the_buttons_move_picture_and_words():
    view = explore_wordings(RESULTS)
    controls, picture, words = view.children
    starts, counts = controls.children
    before = picture.value
    counts.value = 8
    assert "8 wordings" in words.value and picture.value != before
    starts.value = "tuned"
    assert "From the tuned model" in words.value


def test_what_was_not_recorded_is_said_and_not_drawn():
    view = explore_wordings(RESULTS)
    controls, picture, words = view.children
    starts, counts = controls.children
    counts.value = 4
    starts.value = "tuned"
    assert "only 1 and 8 wordings were recorded" in words.value and picture.value == ""


def test_the_schematic_shows_a_wording_that_is_not_taught():
    texts = [text.get_text() for text in draw_paths().axes[0].texts]
    assert any("never taught" in text for text in texts) and "taught" in texts
