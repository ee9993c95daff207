"""The schedule of chapter 04: its picture shows the run, and its sliders train anew."""

import matplotlib
import pytest
from tiny import make_examples, make_model, make_tokenizer
from torch.testing import assert_close

matplotlib.use("Agg")
from sft_lab.course.head_training import HeadRun, describe_outcome, make_head_task, train_head
from sft_lab.course.views.schedule import (
    MOST_NATS,
    describe_schedule,
    draw_schedule,
    explore_schedule,
    smooth,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def task():
    return make_head_task(make_model(), make_tokenizer(), make_examples(40))


def run_of(losses, before=3.0, after=1.0) -> HeadRun:
    return HeadRun([0.0, *[0.1] * (len(losses) - 1)], losses, before, after)


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
    assert verdict in describe_outcome(run)
    assert describe_outcome(run) in describe_schedule(run)
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
