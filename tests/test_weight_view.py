"""The view of a token's weight: pulls are gradients of torch's own losses, and the controls move
picture and words."""

import re

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

matplotlib.use("Agg")
from sft_lab.course.views.weight import (
    CHOICES,
    VOCABULARY,
    cost_of,
    describe_weight,
    draw_answers,
    draw_calibration,
    draw_weight,
    draw_weights,
    explore_weight,
    make_loss,
    pull_of,
)

ANSWERS = {
    "right answer": [("The", 1e-8), (" Kabul", 0.2), (".", 0.999)],
    "wrong answer": [("The", 1e-8), (" Lima", 1e-5), (".", 0.9)],
}
SOME = [0.001, 0.05, 0.4, 0.9, 0.99]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def scores_of(p: float) -> torch.Tensor:
    """Scores of one position, (1, V), that give entry 0 the probability p."""
    scores = torch.zeros(1, VOCABULARY, dtype=torch.float64)
    scores[0, 0] = np.log(p / (1 - p)) + np.log(VOCABULARY - 1)
    return scores.requires_grad_()


def slope_of(cost: torch.Tensor, scores: torch.Tensor) -> float:
    return -torch.autograd.grad(cost, scores)[0][0, 0].item()


@pytest.mark.parametrize("p", SOME)
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
def test_cost_and_pull_of_smoothing_are_those_of_torch(p, epsilon):
    scores, loss = scores_of(p), make_loss("smoothed", epsilon)
    cost = F.cross_entropy(scores, torch.tensor([0]), label_smoothing=epsilon)
    assert cost_of(loss, p) == pytest.approx(cost.item())
    assert pull_of(loss, [p])[0] == pytest.approx(slope_of(cost, scores), abs=1e-9)


@pytest.mark.parametrize("p", SOME)
def test_pulls_are_what_autograd_gives(p):
    by_hand = {
        ("cross-entropy", 0.0): lambda q: -q.log(),
        ("weighted", 3.0): lambda q: -3 * q.log(),
        ("focal", 2.0): lambda q: -((1 - q) ** 2) * q.log(),
        ("DFT", 0.0): lambda q: -q.detach() * q.log(),
        ("DFT", 0.1): lambda q: -q.detach().clamp(min=0.1) * q.log(),
    }
    for (kind, number), cost in by_hand.items():
        scores = scores_of(p)
        pull = slope_of(cost(scores.softmax(-1)[0, 0]), scores)
        assert pull_of(make_loss(kind, number), [p])[0] == pytest.approx(pull, abs=1e-9)


def test_words_name_the_loss_its_number_and_the_weight():
    said = describe_weight("DFT", 0.0, 0.01, ANSWERS)
    for part in (
        "DFT, floor 0",
        "p = 0.01",
        "0.0461 nats, 4.61 under cross-entropy",
        "weight 0.01",
    ):
        assert part in said
    assert "'·Kabul' is pulled hardest, by +0.16" in said
    assert "cross-entropy: a token" in describe_weight("cross-entropy", 0.0, 0.01, ANSWERS)


def test_every_loss_with_a_number_has_equally_many_to_choose_from():
    assert len({len(numbers) for letter, _, numbers in CHOICES.values() if letter}) == 1


def test_every_choice_can_be_drawn_at_its_ends():
    for kind, (_, _, numbers) in CHOICES.items():
        for number in (numbers[0], numbers[-1]):
            draw_weight(kind, number, 0.999, ANSWERS)
            matplotlib.pyplot.close("all")


def test_the_mark_and_the_bars_stand_at_the_pulls():
    curve, right, wrong = draw_weight("focal", 2.0, 0.01, ANSWERS).axes
    (mark,) = curve.collections[-1].get_offsets().tolist()
    assert mark == pytest.approx([0.01, pull_of(make_loss("focal", 2.0), [0.01])[0]])
    for ax, tokens in ((right, ANSWERS["right answer"]), (wrong, ANSWERS["wrong answer"])):
        filled, hollow = ([bar.get_width() for bar in group] for group in ax.containers)
        p = [q for _, q in tokens]
        assert filled == pytest.approx(pull_of(make_loss("focal", 2.0), p))
        assert hollow == pytest.approx([1 - q for q in p])


def test_the_figure_of_weights_has_one_line_a_loss_and_they_cross():
    losses = {"focal": ("focal", 2.0), "DFT": ("DFT", 0.0)}
    focal, dft = (line.get_ydata() for line in draw_weights(losses).axes[0].lines[:2])
    assert focal[0] > 1 > dft[0] and focal[-1] < dft[-1] <= 1


def test_the_table_of_an_answer_has_a_row_a_loss_and_a_column_a_token():
    axes = draw_answers(ANSWERS, {"plain": ("cross-entropy", 0.0), "DFT": ("DFT", 0.0)}).axes
    assert [ax.images[0].get_array().shape for ax in axes] == [(2, 3), (2, 3)]
    np.testing.assert_allclose(axes[0].images[0].get_array()[0], [1.0, 0.8, 0.001], atol=1e-7)


def test_a_calibration_curve_goes_through_its_bins():
    ax = draw_calibration({"smoothed": [(4, 0.2, 0.5), (9, 0.8, 0.9)]}).axes[0]
    assert ax.lines[1].get_xydata().tolist() == [[0.2, 0.5], [0.8, 0.9]]
    few, many = ax.collections[0].get_sizes()
    assert few < many


def test_the_controls_move_picture_and_words():
    controls, pair, picture, words = explore_weight(ANSWERS, "focal").children
    numbers, chosen = pair.children
    assert describe_weight("focal", 2.0, 0.01, ANSWERS).replace("'", "&#x27;") in words.value
    seen = {picture.value}
    chosen.value = 0.9
    seen.add(picture.value)
    assert "at p = 0.9" in words.value
    numbers.value = 5.0
    seen.add(picture.value)
    assert "focal, γ 5" in words.value
    controls.value = "DFT"  # its numbers are floors
    seen.add(picture.value)
    assert numbers.value == 0.0 and "DFT, floor 0: a token at p = 0.9" in words.value
    assert len(seen) == 4
    assert re.match(r'<img alt="DFT, floor 0', picture.value)


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="no answer"):
        explore_weight({})
    with pytest.raises(ValueError, match="no loss 'hinge'"):
        make_loss("hinge", 1.0)
