"""Chapter 04 in the browser: sliders train anew and show what the plain functions say."""

import random

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect

from sft_lab import atlas, plots
from sft_lab.course.head_training import make_head_task, train_head
from sft_lab.course.views.schedule import describe_schedule, draw_schedule
from sft_lab.labels import encode_conversations

SCHEDULE = 0


@pytest.fixture(scope="module")
def page(open_chapter):
    plots.style()
    return open_chapter(4)


@pytest.fixture(scope="module")
def task(model, tokenizer):
    known = random.Random(0).sample(
        atlas.split(atlas.load_facts())["train"], 200
    )  # as the chapter draws them
    return make_head_task(
        model, tokenizer, encode_conversations(atlas.ask(known, seed=0), tokenizer)
    )


def expect_run(view, task, *, previous=None, **settings):
    """The view says and draws this run over the one before; returns the run."""
    run = train_head(task, **{"peak": 1e-2, "warmup_ratio": 0.1, "steps": 100, **settings})
    sentence = describe_schedule(run)
    view.expect_text(sentence)
    view.expect_picture(draw_schedule(run, previous))
    assert view.root.locator("img").get_attribute("alt") == sentence
    return run


def press(view, label: str, key: str, times: int) -> None:
    view.tab_to(view.slider(label))
    for _ in range(times):
        view.page.keyboard.press(key)


def test_running_all_cells_shows_the_view(page, task):
    expect_run(find_view(page, SCHEDULE), task)


def test_each_slider_trains_anew_and_keeps_the_run_before(page, task):
    view = fresh_view(page, SCHEDULE)
    first = expect_run(view, task)
    press(view, "learning rate", "ArrowLeft", 1)
    lower = expect_run(view, task, previous=first, peak=10**-2.25)
    press(view, "warm-up", "ArrowRight", 1)
    warmer = expect_run(view, task, previous=lower, peak=10**-2.25, warmup_ratio=0.15)
    press(view, "steps", "ArrowLeft", 1)
    expect_run(view, task, previous=warmer, peak=10**-2.25, warmup_ratio=0.15, steps=90)


def test_the_largest_rate_diverges_and_the_view_says_so(page):
    view = fresh_view(page, SCHEDULE)
    press(view, "learning rate", "End", 1)
    expect(view.root).to_contain_text("It diverged")


def test_the_view_is_sound_after_all_this(page):
    find_view(page, SCHEDULE).check("ch04")
