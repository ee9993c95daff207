"""The view of remedies: points are means of recorded rows, and the controls move both."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import torch

from sft_lab.course.results import Results, read_results
from sft_lab.course.views import forgetting as plane

RESULTS = read_results("13b_plane")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def made_up(*arms: tuple[str, float, float, float]) -> Results:
    """Two seeds around each arm (remedy, strength, old, new)."""
    rows = [
        {"remedy": name, "strength": at, "seed": seed, "old": old + move, "new": new + move,}
        for name, at, old, new in arms
        for seed, move in enumerate((-0.02, 0.02))
    ]  # fmt: skip
    return Results("", "", "", "", "", rows)


@pytest.mark.parametrize("remedy", [*plane.UNITS])
def test_a_ring_stands_at_the_mean_of_the_seeds(remedy):
    strength = plane.strengths_of(RESULTS, remedy)[-1]
    ax = plane.draw_remedy(RESULTS, remedy, strength).axes[0]
    rows = RESULTS.select(remedy=remedy, strength=strength)
    wanted = [np.mean([row["new"] for row in rows]), np.mean([row["old"] for row in rows])]
    np.testing.assert_allclose(ax.collections[-1].get_offsets()[0], wanted)
    sentence = plane.describe_remedy(RESULTS, remedy, strength)
    assert f"old task {wanted[1]:.0%}, new task {wanted[0]:.0%}" in sentence


def test_the_best_point_must_have_learned_the_new_task():
    results = made_up(
        ("SI", 1.0, 0.2, 0.95), ("SI", 10.0, 0.5, 0.86), ("SI", 100.0, 0.9, 0.80),
        ("L2 to the start", 1.0, 0.9, 0.2),
    )  # fmt: skip
    assert plane.best_point(results, "SI") == pytest.approx((10.0, 0.5, 0.86))
    assert plane.best_point(results, "L2 to the start") is None
    assert plane.working_strengths(results, "SI", 0.15) == [1.0, 10.0]
    assert plane.working_strengths(results, "SI", 0.6) == []
    assert plane.balanced_point(results, "SI") == pytest.approx((100.0, 0.8))


@pytest.mark.parametrize(
    ("remedy", "strength", "work"),
    [
        ("replay, stored", 0.2, 1.2),
        ("distillation, T 2", 0.3, 4 / 3),
        ("EWC, true labels", 1e4, 1.0),
        ("joint from the start", 0.5, 1.8),
        ("columns", 64.0, 3.0),
    ],
)
def test_work_is_told_as_a_multiple_of_plain_training(remedy, strength, work):
    assert plane.work_of(remedy, strength) == pytest.approx(work)
    sentence = plane.describe_remedy(made_up((remedy, strength, 0.5, 0.9)), remedy, strength)
    assert f"{work:.1f} times the work" in sentence


@pytest.mark.parametrize(
    ("remedy", "kept"),
    [
        ("EWC, true labels", "2 numbers a weight"),
        ("SI", "3 numbers a weight"),
        ("L2 to the start", "1 number a weight"),
        ("distillation, T 4", "1 number a weight"),
        ("averaging", "1 number a weight"),
        ("small rate", "nothing"),
        ("replay, stored", "old rows"),
        ("replay, own questions", "nothing"),
        ("columns", "new weights a task"),
    ],
)
def test_what_a_remedy_stores(remedy, kept):
    assert plane.describe_storage(remedy).startswith(kept)


def test_the_controls_move_picture_and_words():
    view = plane.explore_remedies(RESULTS)
    remedies, strengths, picture, words = view.children
    before = picture.value
    strengths.value = plane.strengths_of(RESULTS, remedies.value)[-1]
    assert picture.value != before
    remedies.value = "replay, stored"
    assert "replay, stored" in words.value
    assert [at for _, at in strengths.options] == plane.strengths_of(RESULTS, "replay, stored")


def test_planes_show_every_remedy_of_their_group():
    figure = plane.draw_planes(RESULTS, {"one": plane.GROUPS["weights"], "two": ("SI",)})
    shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert shown == list(plane.GROUPS["weights"]) and len(figure.axes) == 2


def test_bowls_and_fishers_show_what_they_are_given():
    path = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    ones = torch.ones(2)
    figure = plane.draw_bowls({"EWC": path}, torch.zeros(2), 2 * ones, ones, ones)
    losses = figure.axes[1].lines[0].get_xydata()
    np.testing.assert_allclose(losses, [[4.0, 0.0], [0.5, 2.5]])
    gradients = torch.tensor([[1.0, 0.5], [1.0, -0.5]])
    figure = plane.draw_fishers(gradients, {"true labels": ones}, ones)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), [[1.0, 0.0]])
    assert [bar.get_height() for bar in figure.axes[1].patches] == [1.0, 1.0]


def test_the_schematic_names_every_remedy():
    words = " ".join(text.get_text() for text in plane.draw_schematic().axes[0].texts)
    for name in ("replay", "distillation", "L2", "EWC", "SI", "columns"):
        assert name in words
