"""The view of one group of answers: pushes and probabilities are the model's own, and the controls
move picture and words."""

import re
import time

import matplotlib
import pytest
import torch
from torch.testing import assert_close

matplotlib.use("Agg")
from matplotlib.colors import to_rgba

from sft_lab.course.policy_runs import questions
from sft_lab.course.views.push import (
    MARKS,
    Push,
    describe_push,
    draw_averages,
    draw_clip,
    draw_push,
    draw_sources,
    explore_push,
    mark,
    read_push,
)
from sft_lab.course.views.widgets import to_png
from sft_lab.models import load
from sft_lab.plots import BLUE, VERMILLION
from sft_lab.policy import group_advantages
from sft_lab.rollouts import answer_log_probs, sample_groups

HALF = torch.tensor([1.0, 0.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def atlas():
    """The base, another model of its shape as reference, and four answers to one question."""
    base, tokenizer = load("atlas-base")
    rollout = sample_groups(base, tokenizer, [questions(1)[0][:-1]], 4, seed=0, max_new_tokens=9)
    return base, tokenizer, rollout


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def made_up(rewards: list[float]) -> Push:
    rewards = torch.tensor(rewards)
    advantages = group_advantages(rewards[None])[0]
    return Push(
        [["Nai", "robi", "."], ["Lima", "."], ["Lima", "."]],
        rewards,
        advantages,
        [a * torch.tensor([0.2, 0.1, 0.1][:n]) for a, n in zip(advantages, (3, 2, 2), strict=True)],
        torch.tensor([0.25, 0.5, 0.5]),
        torch.tensor([0.5, 0.25, 0.25]),
    )


@pytest.mark.parametrize("scale", ["std", "none"])
@pytest.mark.parametrize("average", ["token", "answer", "length"])
def test_without_a_kl_the_push_on_a_token_is_its_advantage_times_its_weight(atlas, average, scale):
    base, tokenizer, rollout = atlas
    push = read_push(base, base, tokenizer, rollout, HALF, average=average, scale=scale)
    counts = rollout.mask.sum(1)
    weight = {"token": 1 / counts.sum(), "answer": 1 / (4 * counts), "length": 1 / 160}[average]
    expected = group_advantages(HALF[None], scale=scale)[0] * weight
    for row, count in enumerate(counts):
        assert_close(push.pushes[row], expected[row].expand(count), rtol=1e-4, atol=1e-7)


def test_one_step_raises_the_right_answers_and_leaves_the_model_alone(atlas):
    base, tokenizer, rollout = atlas
    before = answer_log_probs(base, rollout).detach()
    push = read_push(base, base, tokenizer, rollout, HALF)
    assert_close(push.before, before.sum(1).exp())
    assert (push.after > push.before)[HALF == 1].all()
    assert (push.after < push.before)[HALF == 0].all()
    assert_close(answer_log_probs(base, rollout).detach(), before)
    texts = ["".join(tokens) for tokens in push.tokens]
    assert all(text.startswith(said) for text, said in zip(texts, rollout.texts, strict=True))


def test_equal_rewards_push_nothing_unless_the_kl_does(atlas):
    base, tokenizer, rollout = atlas
    none = torch.zeros(4)
    still = read_push(base, base, tokenizer, rollout, none, kl=1.0)
    assert max(row.abs().max() for row in still.pushes) < 1e-5  # its own reference
    other = load("atlas-base")[0]
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(1.1)
    pulled = read_push(base, other, tokenizer, rollout, none, kl=1.0)
    assert max(row.abs().max() for row in pulled.pushes) > 1e-3
    assert "No token is pushed" not in describe_push(pulled)


def test_marks_name_answers_by_their_length(atlas):
    rollout, counts = atlas[2], atlas[2].mask.sum(1)
    assert mark(rollout, HALF, "as graded").equal(HALF)
    assert mark(rollout, HALF, "the longest").bool().equal(counts == counts.max())
    assert mark(rollout, HALF, "the shortest").bool().equal(counts == counts.min())
    assert [mark(rollout, HALF, which).sum() for which in ("all", "none")] == [4, 0]
    with pytest.raises(ValueError, match="which is 'red'"):
        mark(rollout, HALF, "red")


def test_a_text_that_was_drawn_twice_counts_once():
    assert made_up([0.0, 1.0, 1.0]).chance_of_right() == (0.5, 0.25)
    assert made_up([1.0, 1.0, 1.0]).chance_of_right() == (0.0, 0.0)


def test_the_words_say_what_the_picture_shows():
    words = describe_push(made_up([1.0, 0.0, 0.0]))
    assert "1 of 3 answers are right" in words and "25.0% to 50.0%" in words
    assert "+0.231, is on “Nai” of answer 1" in words
    assert "No token is pushed" in describe_push(made_up([1.0, 1.0, 1.0]))


def test_the_picture_has_a_box_for_every_token_and_a_bar_for_every_answer():
    text, bars, *_ = draw_push(made_up([1.0, 0.0, 0.0])).axes
    assert [label.get_text() for label in text.texts] == ["Nai", "robi", ".", *["Lima", "."] * 2]
    assert [bar.get_width() > 0 for bar in bars.patches] == [True, False, False]
    colours = [bar.get_facecolor() for bar in bars.patches]
    assert colours == [to_rgba(BLUE), to_rgba(VERMILLION), to_rgba(VERMILLION)]
    assert "25.0% → 50.0%" in [label.get_text() for label in bars.texts]
    draw_push(made_up([1.0, 1.0, 1.0]))


def test_the_drawings_of_the_chapter():
    assert {"imitation", "reward"} <= {label.get_text() for label in draw_sources().texts}
    for ax, sign in zip(draw_clip().axes, (1, -1), strict=True):
        flat = ax.lines[2]  # cut: no gradient
        assert set(flat.get_ydata().round(6)) == {1.2 if sign > 0 else -0.8}
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    panels = draw_averages({"a": mask, "b": -mask}, mask, ["short", "long"]).axes
    assert [len(ax.patches) for ax in panels] == [5, 5]


def test_a_reward_for_each_answer_is_needed(atlas):
    base, tokenizer, rollout = atlas
    with pytest.raises(ValueError, match="one reward for each answer"):
        read_push(base, base, tokenizer, rollout, torch.ones(3))


def test_an_answer_is_quick(atlas):
    base, tokenizer, rollout = atlas

    def answer() -> float:
        start = time.perf_counter()
        to_png(draw_push(read_push(base, base, tokenizer, rollout, HALF, kl=1.0)))
        return time.perf_counter() - start

    assert min(answer() for _ in range(3)) < 0.6  # 0.2 s on a quiet machine


def test_the_controls_move_picture_and_words(atlas):
    base, tokenizer, rollout = atlas
    view = explore_push(base, base, tokenizer, rollout, HALF)
    (average, scale), (which, kl) = (row.children for row in view.children[:2])
    picture, words = view.children[2:]
    seen = {picture.value}
    assert "2 of 4 answers are right" in words.value
    for control, value in ((average, "answer"), (scale, "none"), (which, "the longest")):
        control.value = value
        seen.add(picture.value)
    kl.value = 1.0
    assert len(seen) == 4 and [name for name, _ in which.options] == list(MARKS)
    which.value = "none"
    assert "teaches nothing" in words.value
    assert re.search(r'alt="All 4 answers earn 0', picture.value)
