"""The schedule of chapter 04: its picture shows what torch and transformers compute, and its
sliders train anew."""

import math

import matplotlib
import pytest
import torch
import torch.nn.functional as F
from tiny import make_examples, make_model, make_tokenizer
from torch.testing import assert_close
from transformers import get_cosine_schedule_with_warmup

matplotlib.use("Agg")
from sft_lab.course.views.schedule import (
    MOST_NATS,
    HeadRun,
    describe_schedule,
    draw_schedule,
    explore_schedule,
    head_loss,
    judge,
    make_head_task,
    smooth,
    train_head,
)
from sft_lab.examples import IGNORE_INDEX, Example


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def task():
    return make_head_task(make_model(), make_tokenizer(), make_examples(40))


def run_of(losses, before=3.0, after=1.0) -> HeadRun:
    return HeadRun([0.0, *[0.1] * (len(losses) - 1)], losses, before, after)


def test_the_head_on_its_hidden_states_has_the_loss_of_the_model(task):
    model, nll = make_model(), []
    with torch.no_grad():
        for example in make_examples(40):
            logits, labels = (
                model(torch.tensor([example.input_ids])).logits[0, :-1],
                torch.tensor(example.labels[1:]),
            )
            nll.append(F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum"))
    assert_close(
        head_loss(task, task.head), (sum(nll) / len(task.targets)).item(), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(("warmup_ratio", "steps"), [(0.0, 25), (0.1, 25), (0.5, 40)])
def test_a_run_is_that_of_a_plain_loop_with_transformers_schedule(task, warmup_ratio, steps):
    run = train_head(
        task, peak=0.03, warmup_ratio=warmup_ratio, steps=steps, tokens_a_step=16, seed=3
    )
    head = task.head.clone().requires_grad_()
    optimizer = torch.optim.AdamW([head], lr=0.03, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(warmup_ratio * steps), steps)
    generator, rates, losses = torch.Generator().manual_seed(3), [], []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        chosen = torch.randint(len(task.targets), (16,), generator=generator)
        loss = F.cross_entropy(F.linear(task.hidden[chosen], head), task.targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([head], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert_close(run.rates, rates)
    assert_close(run.losses, losses, rtol=0, atol=1e-5)
    assert run.after < run.before, "nothing was learned, so equal losses would show little"
    assert_close(run.after, head_loss(task, head.detach()), rtol=0, atol=1e-5)


def test_training_leaves_the_task_as_it_is_and_repeats_itself(task):
    before = task.head.clone()
    runs = [train_head(task, peak=0.1, warmup_ratio=0.1, steps=20) for _ in range(2)]
    assert runs[0] == runs[1]
    assert torch.equal(task.head, before)


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (run_of([3.0, 5.0], after=3.1), "It diverged"),
        (run_of([3.0, 3.0], after=2.9), "It barely learned"),
        (run_of([3.0, 9.0, 1.0]), "after a loss spike"),
        (run_of([3.0, 2.0, 1.0]), "It learned"),
    ],
)
def test_the_verdict_follows_the_loss_before_and_after(run, verdict):
    assert verdict in judge(run)
    assert judge(run) in describe_schedule(run)
    assert verdict in draw_schedule(run).get_suptitle()


def test_the_picture_shows_rates_losses_and_the_run_before(task):
    run = train_head(task, peak=0.03, warmup_ratio=0.1, steps=30)
    left, right = draw_schedule(run, previous=run_of([3.0, 2.0])).axes
    assert_close(left.lines[1].get_ydata().tolist(), run.rates)
    assert_close(right.lines[1].get_ydata().tolist(), run.losses)
    assert left.lines[0].get_linestyle() == "--" and len(left.lines[0].get_ydata()) == 2
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "the setting before",
        "this run",
    ]


def test_a_loss_above_the_axis_is_said():
    assert "above the axis" in draw_schedule(run_of([3.0, MOST_NATS + 1, 2.0])).axes[1].get_xlabel()
    assert "above" not in draw_schedule(run_of([3.0, 2.0])).axes[1].get_xlabel()


@pytest.mark.parametrize("count", [1, 5, 9, 40])
def test_the_running_mean_of_a_constant_is_the_constant(count):
    assert smooth([2.0] * count).tolist() == pytest.approx([2.0] * count)


def test_the_running_mean_takes_nine_steps_around_each():
    losses = [float(step**2) for step in range(30)]
    assert smooth(losses)[10] == pytest.approx(sum(losses[6:15]) / 9)


def test_the_words_name_peak_warm_up_steps_and_losses(task):
    run = train_head(task, peak=0.02, warmup_ratio=0.25, steps=40)
    said = describe_schedule(run)
    assert "rises to 0.02 in 10 steps" in said and "of 40 steps" in said
    assert f"from {run.before:.2f} to {run.after:.2f} nats" in said
    assert "starts at 0.02" in describe_schedule(
        train_head(task, peak=0.02, warmup_ratio=0.0, steps=40)
    )


def test_every_slider_trains_anew_and_the_words_follow(task):
    box = explore_schedule(task, peak=1e-2, warmup_ratio=0.1, steps=30)
    rate, warmup, count, picture, words = box.children
    settings = {"peak": 1e-2, "warmup_ratio": 0.1, "steps": 30}
    for slider, name, value in [
        (rate, "peak", 1e-4),
        (warmup, "warmup_ratio", 0.5),
        (count, "steps", 60),
    ]:
        before = picture.value
        slider.value = settings[name] = value
        sentence = describe_schedule(train_head(task, **settings))
        assert sentence in words.value and f'alt="{sentence}"' in picture.value
        assert picture.value != before


@pytest.mark.parametrize(("steps", "warmup_ratio"), [(0, 0.1), (10, -0.1), (10, 1.1)])
def test_a_schedule_that_makes_no_run_is_refused(task, steps, warmup_ratio):
    with pytest.raises(ValueError, match=f"steps is {steps} and warmup_ratio {warmup_ratio}"):
        train_head(task, peak=0.1, warmup_ratio=warmup_ratio, steps=steps)


def test_examples_without_a_graded_token_are_refused():
    with pytest.raises(ValueError, match="no graded token"):
        make_head_task(make_model(), make_tokenizer(), [Example([5, 6], [IGNORE_INDEX] * 2)])
