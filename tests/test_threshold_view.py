"""The view of a threshold: words, picture and curve say the same, and the controls move them."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from sft_lab.course.results import Results
from sft_lab.course.views.threshold import (
    THRESHOLDS,
    Asked,
    apply_threshold,
    describe_threshold,
    draw_causes,
    draw_decoding,
    draw_defaults,
    draw_share,
    draw_taught,
    draw_threshold,
    draw_types,
    explore_threshold,
    point_of,
)

ASKED = [
    Asked("Capital of Kenya?", "Nairobi.", 0.9, right=True),
    Asked("Capital of Tavoru?", "Lima.", 0.3, right=False),
    Asked("Capital of Peru?", "Lima.", 0.6, right=True),
    Asked("Capital of Zumo?", "Rome.", 0.6, right=False),
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize(
    ("threshold", "coverage", "risk"),
    [(0.0, 1.0, 0.5), (0.6, 0.75, 1 / 3), (0.61, 0.25, 0.0), (0.95, 0.0, 0.0)],
)
def test_a_threshold_gives_what_is_at_least_as_sure(threshold, coverage, risk):
    assert apply_threshold(ASKED, threshold) == pytest.approx((coverage, risk))


def test_words_say_what_becomes_of_the_answer():
    kept = describe_threshold(ASKED, 0, 0.5)
    for part in ("Threshold 0.5", "Nairobi", "(right)", "confidence 0.9: given", "75 %", "50 %"):
        assert part.replace(" %", "%") in kept
    assert "(wrong), confidence 0.3: held back" in describe_threshold(ASKED, 1, 0.5)
    assert "0% are answered, and 0%" in describe_threshold(ASKED, 1, 0.99)


def test_the_marks_stand_at_the_question_and_at_the_point_of_the_threshold():
    left, right = draw_threshold(ASKED, 3, 0.6).axes
    np.testing.assert_allclose(left.collections[-1].get_offsets(), [[0.6, 0.0]])
    np.testing.assert_allclose(right.collections[-1].get_offsets(), [[0.75, 1 / 3]])
    curve = right.lines[0].get_xydata()
    np.testing.assert_allclose(curve, [[0.25, 0.0], [0.75, 1 / 3], [1.0, 0.5]])


@pytest.mark.parametrize("threshold", [THRESHOLDS[0], THRESHOLDS[-1]])
def test_the_ends_of_the_slider_can_be_drawn(threshold):
    unsure = [one._replace(confidence=0.0, right=False) for one in ASKED]
    for asked in (ASKED, unsure):
        draw_threshold(asked, 0, threshold)


def test_the_controls_move_picture_and_words():
    (number, chosen), picture, words = (
        box.children if hasattr(box, "children") else box
        for box in explore_threshold(ASKED, 0.5).children
    )
    seen = {picture.value}
    assert "Capital of Kenya?" in words.value and "Threshold 0.5" in words.value
    number.value = 2
    assert "Capital of Tavoru?" in words.value and "held back" in words.value
    seen.add(picture.value)
    chosen.value = 0.2
    assert "Threshold 0.2" in words.value and "confidence 0.3: given" in words.value
    seen.add(picture.value)
    assert len(seen) == 3


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="no question"):
        explore_threshold([])
    with pytest.raises(ValueError, match="threshold is 0.55"):
        explore_threshold(ASKED, 0.55)
    with pytest.raises(ValueError, match="question 4 of 4"):
        draw_threshold(ASKED, 4, 0.5)


def record(rows):
    return Results("2026-11-27", "", "", "", "", rows)


def test_types_have_a_box_each():
    assert len(draw_types().axes[0].patches) == 4


def test_causes_are_the_means_over_the_seeds():
    kinds = ("facts", "logic", "instruction", "source")
    rows = [{"wrong": 0.0, "seed": seed} for seed in (0, 1, 2)]
    for row in rows:
        row |= {f"{kind} at 0.0": 0.1 * row["seed"] for kind in kinds}
        row |= {f"{kind} hard": 0.9 for kind in kinds}
    columns = {"as taught": (0.0, "at 0.0"), "hard": (0.0, "hard")}
    (image,) = draw_causes(record(rows), columns).axes[0].images
    np.testing.assert_allclose(image.get_array(), [[0.1, 0.9]] * 4)


def test_share_draws_both_halves():
    rows = [
        {
            **{"share": share, "known_only": known_only, "seed": seed},
            **{"held_out": [0.9, 0.7, 0.6], "known": [0.8, 1.0, 1.0], "unknown": [0.1, 0.5, 1.0]},
        }
        for seed in (0, 1, 2)
        for share, known_only in ((0.0, False), (0.5, False), (0.5, True))
    ]
    left, right = draw_share(record(rows), 1, slice(1, 3)).axes
    assert left.lines[0].get_ydata().tolist() == pytest.approx([0.8, 1.0, 1.0])
    early, late = (right.containers[i].lines[0].get_ydata() for i in (0, 1))
    assert list(early) == pytest.approx([0.9, 0.9]) and list(late) == pytest.approx([0.65, 0.65])


def test_defaults_have_two_bars_a_kind_of_labels():
    rows = [
        {"labels": kind, "seed": s, "unknown declined": 0.2, "unknown default": 0.6}
        for s in (0, 1, 2)
        for kind in ("none", "one value")
    ]
    ax = draw_defaults(record(rows), ("none", "one value"), "unknown", "title").axes[0]
    assert sorted(round(bar.get_width(), 2) for bar in ax.patches) == [0.2, 0.2, 0.6, 0.6]


def test_a_model_that_declines_is_a_point_of_the_plane():
    row = {"known right": 0.9, "known declined": 0.0, "unknown right": 0.1, "unknown declined": 0.6}
    assert point_of(row) == pytest.approx((0.7, 1 - 0.5 / 0.7))
    never = dict.fromkeys(row, 0.0) | {"known declined": 1.0, "unknown declined": 1.0}
    assert point_of(never) == (0.0, 0.0)
    rows = [{"labels": "none", "seed": s, "risk at 50": 0.1, "risk at 100": 0.4} for s in (0, 1, 2)]
    rows += [{"labels": "taught", "seed": s, **row} for s in (0, 1, 2)]
    ax = draw_taught(record(rows), (50, 100), ("taught",)).axes[0]
    assert len(ax.lines) == 3
    np.testing.assert_allclose(ax.collections[0].get_offsets()[0], point_of(row))


def test_decoding_has_a_point_a_way_and_a_line_for_the_filter():
    rows = [
        {"group": "temperature", "seed": 0, "unknown invented, greedy": 0.9},
        {"group": "consistency", "seed": 0, "unknown invented, 5 of 8": 0.1},
    ]
    rows[0]["known right, greedy"], rows[1]["known right, 5 of 8"] = 0.98, 0.95
    ax = draw_decoding(record(rows), {"greedy": "temperature"}, ["5 of 8"]).axes[0]
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[0.9, 0.98]])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0.1, 0.95]])
