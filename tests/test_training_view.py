"""The pictures of chapters 04 and 04b show the numbers they were given."""

from types import SimpleNamespace

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab.course.results import Results
from sft_lab.course.views import training
from sft_lab.course.views.schedule import draw_shape


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def lines_of(ax) -> list[list[float]]:
    return [[float(y) for y in line.get_ydata()] for line in ax.lines]


def test_the_curve_of_rates_goes_through_the_means_and_shows_every_seed():
    rows = [
        {"rate": rate, "seed": seed, "loss": loss + seed, "before": 9.0}
        for rate, loss in ((1e-4, 3.0), (1e-3, 1.0), (1e-2, 5.0))
        for seed in (0, 1)
    ]
    ax = training.draw_rates(Results("", "", "", "", "", rows), 1.4)
    assert lines_of(ax)[0] == [3.5, 1.5, 5.5]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    dots = [tuple(map(float, place)) for part in ax.collections for place in part.get_offsets()]
    assert len(dots) == 7 and (1e-3, 1.4) in dots


def test_two_accuracies_are_two_lines_that_begin_with_their_share():
    ax = training.draw_two_accuracies([0, 5], [0.68, 0.9], [0.0, 0.4])
    assert lines_of(ax) == [[0.68, 0.9], [0.0, 0.4]]
    assert [text.get_text() for text in ax.texts] == ["68%", "0%"]


def test_the_best_epoch_of_every_seed_is_marked():
    ax = training.draw_fit([[2.0, 1.0], [2.0, 1.0]], [[4.0, 2.0, 3.0], [4.0, 3.0, 2.5]])
    dots = [tuple(map(float, part.get_offsets()[0])) for part in ax.collections]
    assert dots == [(1.0, 2.0), (2.0, 2.5)]


def test_a_cut_run_is_drawn_in_both_measures():
    step = {"moved": 0.5, "loss": 1.0}
    figure = training.draw_resume({"nothing": [[step] * 3], "averages": [[step] * 3]}, cut=1)
    moved, loss = figure.axes
    assert lines_of(moved)[:2] == [[0.5] * 3] * 2 and lines_of(loss)[:2] == [[1.0] * 3] * 2


def test_events_become_two_curves():
    points = {
        "train/loss": [SimpleNamespace(step=1, value=2.0)],
        "eval/loss": [SimpleNamespace(step=3, value=4.0)],
    }
    figure = training.draw_events(SimpleNamespace(Scalars=points.__getitem__))
    assert lines_of(figure.axes[0]) == [[2.0], [4.0]]


def test_the_functions_and_the_state_are_named():
    for figure, names in (
        (training.draw_rungs(), ("sft", "step", "run_batch")),
        (training.draw_state(), ("weights", "averages", "schedule", "order")),
    ):
        words = " ".join(text.get_text() for text in figure.axes[0].texts)
        assert all(name in words for name in names)


def test_a_cut_leaves_shares_on_a_scale_to_1():
    ax = training.draw_cut([16, 20], {"whole": [0.2, 1.0], "no end": [0.8, 0.0]})
    assert ax.get_ylim() == (0, 1) and len(ax.collections) == 2


def test_the_schedule_marks_start_peak_and_middle():
    ax = draw_shape([0.0, 1.0, 0.75, 0.25], warmup=1)
    words = [text.get_text() for text in ax.texts]
    assert words[0] == "step 0: rate 0" and len(words) == 3
