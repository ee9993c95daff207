"""The view of chapter 07: its picture and its words say the same about two runs, and every button
redraws it."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from sft_lab.course.views.ladder import (
    FLOOR,
    SMALLEST,
    TOLERANCE,
    describe_ladder,
    differences,
    draw_differences,
    draw_ladder,
    explore_ladder,
)
from sft_lab.plots import BLUE, MUTED, VERMILLION

REFERENCE = [3.0, 2.5, 2.0, 1.5]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def test_differences_are_taken_over_the_steps_that_both_runs_have():
    assert differences(REFERENCE, [3.0, 2.75]).tolist() == [0.0, 0.25]
    assert differences(REFERENCE[:1], [2.0, 9.0]).tolist() == [1.0]
    with pytest.raises(ValueError, match="4 steps against 0: there is no step"):
        differences(REFERENCE, [])


def test_rounding_is_called_the_same_run_and_more_is_called_another():
    close = [loss + 1e-6 for loss in REFERENCE]
    apart = [3.0, 2.5, 2.25, 1.75]
    assert "at most 1e-06 nats" in describe_ladder("Trainer", REFERENCE, close)
    assert "the same run" in describe_ladder("Trainer", REFERENCE, close)
    said = describe_ladder("bf16", REFERENCE, apart)
    assert "at most 0.2 nats per graded token (step 3)" in said
    assert "another run" in said and "differs from step 3 on" in said and "25,000 times" in said


def test_a_run_that_was_cut_short_says_so():
    assert "Only 2 of 4 steps were run." in describe_ladder("bf16", REFERENCE, REFERENCE[:2])
    assert "Only" not in describe_ladder("bf16", REFERENCE, REFERENCE)


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(0.0, "the same run"), (TOLERANCE / 2, "the same run"), (1e-3, "another run")],
)
def test_the_picture_shows_both_curves_and_their_difference(shift, verdict):
    losses = [loss + shift for loss in REFERENCE]
    figure = draw_ladder("a switch", REFERENCE, losses)
    left, right = figure.axes
    assert [line.get_ydata().tolist() for line in left.lines] == [REFERENCE, losses]
    assert right.get_yscale() == "log"
    shown = right.lines[0].get_ydata()
    assert np.allclose(shown, np.maximum(np.abs(np.array(losses) - REFERENCE), FLOOR))
    assert verdict in figure.get_suptitle() and "a switch" in figure.get_suptitle()
    assert verdict in describe_ladder("a switch", REFERENCE, losses)


def test_bars_are_sorted_and_begin_at_the_limit():
    largest = {"far": 2.0, "near": 3e-7, "equal": 0.0, "elsewhere": 0.5, "off": 1e-3}
    figure = draw_differences(largest, "a finding", grey=["elsewhere"])
    (ax,) = figure.axes
    names = ["equal", "near", "off", "elsewhere", "far"]
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    assert ax.get_xscale() == "log" and figure.get_suptitle() == "a finding"
    for bar, name in zip(ax.patches, names, strict=True):
        end = max(largest[name], SMALLEST)
        assert bar.get_x() == TOLERANCE
        assert bar.get_x() + bar.get_width() == pytest.approx(end, rel=1e-6)
        usual = MUTED if name == "elsewhere" else BLUE if end < TOLERANCE else VERMILLION
        assert matplotlib.colors.same_color(bar.get_facecolor(), usual)
    assert ax.lines[0].get_xdata()[0] == TOLERANCE
    with pytest.raises(ValueError, match="no run to compare"):
        draw_differences({}, "nothing")


def test_every_button_draws_its_run_and_says_it():
    runs = {"Trainer": REFERENCE, "bf16": [3.1, 2.6], "linear": [3.0, 2.4, 1.9, 1.6]}
    buttons, picture, words = explore_ladder(REFERENCE, runs).children
    assert [name for name, _ in buttons.options] == list(runs)
    seen = set()
    for name, losses in runs.items():
        buttons.value = name
        sentence = describe_ladder(name, REFERENCE, losses)
        assert sentence in words.value and f'alt="{sentence}"' in picture.value
        seen.add(picture.value)
    assert len(seen) == 3


def test_a_view_without_runs_is_refused():
    with pytest.raises(ValueError, match="no run to compare"):
        explore_ladder(REFERENCE, {})
