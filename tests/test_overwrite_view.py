"""The view of chapter 13: bars and words are the recorded rows, and the buttons move both."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from sft_lab.course.results import read_results
from sft_lab.course.views.overwrite import (
    LENGTHS,
    SHARES,
    describe_overwrite,
    draw_overwrite,
    draw_tasks,
    explore_overwrite,
)

RESULTS = read_results("13_causes")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("steps", LENGTHS)
def test_a_bar_is_the_mean_of_the_seeds(steps):
    left, _ = draw_overwrite(RESULTS, steps).axes
    for bar, name in zip(left.patches, SHARES, strict=True):
        assert bar.get_width() == pytest.approx(np.mean(RESULTS.measured(name, arm=LENGTHS[steps])))


def test_a_line_is_the_means_of_all_lengths():
    _, right = draw_overwrite(RESULTS, 8).axes
    means = [np.mean(RESULTS.measured("old", arm=arm)) for arm in LENGTHS.values()]
    np.testing.assert_allclose(right.lines[0].get_ydata(), means)


def test_the_words_name_steps_and_every_share():
    sentence = describe_overwrite(RESULTS, 8)
    assert "After 8 steps of task B" in sentence
    for name, label in SHARES.items():
        assert f"{label} {np.mean(RESULTS.measured(name, arm=LENGTHS[8])):.0%}" in sentence


def test_the_buttons_move_picture_and_words():
    controls, picture, words = explore_overwrite(RESULTS).children
    (steps,) = controls.children
    before = picture.value
    steps.value = 76
    assert "After 76 steps" in words.value and picture.value != before


def test_the_schematic_names_both_tasks():
    texts = " ".join(text.get_text() for text in draw_tasks().axes[0].texts)
    assert "task A" in texts and "task B" in texts
