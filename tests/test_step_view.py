"""The view of one prediction step shows the right numbers, and its controls move it."""

import math
import re

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.text import Annotation

matplotlib.use("Agg")
from sft_lab.course.views.step import (
    LEAST,
    describe_step,
    draw_step,
    explore_step,
    set_probability,
)

TOKENS, Q = ["Paris", "Rome", "Lima", "Oslo"], [0.5, 0.25, 0.125, 0.125]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def texts_of(ax) -> list[str]:
    return [
        child.get_text().replace("−", "-")
        for child in ax.get_children()
        if isinstance(child, Annotation)
    ]


def test_the_others_keep_their_proportions():
    moved = set_probability(Q, 1, 0.4)
    assert moved.sum() == pytest.approx(1.0)
    assert moved[1] == pytest.approx(0.4)
    assert moved[0] / moved[2] == pytest.approx(Q[0] / Q[2])


def test_setting_the_probability_that_it_has_changes_nothing():
    assert set_probability(Q, 2, Q[2]) == pytest.approx(Q)


@pytest.mark.parametrize("q", [[0.5, 0.6], [1.5, -0.5], [1.0, 0.0]])
def test_what_is_no_distribution_or_cannot_be_shared_is_refused(q):
    with pytest.raises(ValueError, match="not a distribution|no proportions"):
        set_probability(q, 0, 0.5)


def test_the_picture_shows_pytorchs_loss_and_the_distribution():
    loss = F.cross_entropy(torch.tensor(Q).log(), torch.tensor(1)).item()
    curve, bars, _ = draw_step(TOKENS, Q, 1).axes
    (dot,) = curve.collections
    assert dot.get_offsets()[0].tolist() == pytest.approx([0.25, loss])
    assert f"{loss:.2f} nats" in texts_of(curve)
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(Q)
    assert [label.get_text() for label in bars.get_yticklabels()] == [
        "Paris",
        "Rome\n(true)",
        "Lima",
        "Oslo",
    ]


def test_the_arrows_are_minus_pytorchs_gradient():
    logits = torch.tensor(Q).log().requires_grad_()
    F.cross_entropy(logits, torch.tensor(1)).backward()
    arrows = [
        child
        for child in draw_step(TOKENS, Q, 1).axes[2].get_children()
        if isinstance(child, Annotation)
    ]
    drawn = [arrow.xy[0] for arrow in arrows if arrow.arrow_patch is not None]
    assert drawn == pytest.approx((-logits.grad).tolist())


def test_certainty_costs_nothing_and_can_be_drawn():
    q = set_probability(Q, 0, 1.0)
    assert "The loss is 0.00 nats (0.00 bits)" in describe_step(TOKENS, q, 0)
    assert (
        draw_step(TOKENS, q, 0).get_suptitle()
        == "Paris at p = 1 costs 0.00 nats and is pulled up by 0.000"
    )


@pytest.mark.parametrize(("tokens", "q"), [(TOKENS[:3], Q), (TOKENS, [0.5, 0.0, 0.25, 0.25])])
def test_a_picture_that_would_lie_is_refused(tokens, q):
    with pytest.raises(ValueError, match="probabilities|probability 0"):
        draw_step(tokens, q, 1)


def test_the_words_name_loss_and_pushes():
    said = describe_step(TOKENS, Q, 1)
    assert "1.39 nats (2.00 bits)" in said
    assert "Rome up by 0.75" in said


def controls(box):
    (menu, slider), (picture, words) = box.children[0].children, box.children[1:]
    return menu, slider, picture, words


def shown_loss(words) -> float:
    return float(re.search(r"loss is ([\d.]+) nats", words.value)[1])


def test_four_steps_of_the_slider_halve_the_probability_and_cost_ln_2():
    menu, slider, picture, words = controls(explore_step(TOKENS, Q, target=1))
    before, old_picture = shown_loss(words), picture.value
    slider.value = slider.base ** (math.log2(slider.value) - 4 * slider.step)
    assert shown_loss(words) - before == pytest.approx(math.log(2), abs=0.011)
    assert picture.value != old_picture


def test_another_true_token_starts_at_its_own_probability():
    menu, slider, _, words = controls(explore_step(TOKENS, Q, target=1))
    menu.value = 3
    assert slider.value == pytest.approx(0.125)
    assert "The true token, Oslo, has probability 0.125" in words.value


@pytest.mark.parametrize("value", [LEAST, 1.0])
def test_both_ends_of_the_slider_can_be_reached(value):
    _, slider, _, words = controls(explore_step(TOKENS, Q, target=0))
    slider.value = value
    assert shown_loss(words) == pytest.approx(-math.log(value), abs=0.005)


def test_the_picture_is_also_said_in_words():
    _, _, picture, words = controls(explore_step(["<a>", "b"], [0.5, 0.5]))
    assert 'alt="The true token, &lt;a&gt;' in picture.value
    assert "<a>" not in words.value


def test_probabilities_may_be_any_sequence():
    assert np.allclose(set_probability(tuple(Q), 0, 0.5), Q)
