"""The view of a data set to mix: guess, prediction and measurement, and its controls."""

import base64
import re
from itertools import product

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab.course.data_mix import Mix
from sft_lab.course.results import Results
from sft_lab.course.views.mix import (
    COPIES,
    ROWS,
    TASKS,
    WORDINGS,
    WRONG,
    describe_mix,
    draw_mix,
    draw_sources,
    explore_mix,
    mix_of,
)

SETTINGS = list(product(ROWS, COPIES, WRONG, WORDINGS, [value for _, value in TASKS]))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def results() -> Results:
    """Invented scores: more rows help, wrong labels hurt."""
    rows = []
    for mix in {mix_of(*setting): None for setting in SETTINGS}:
        for seed in range(3):
            score = 0.9 * (mix.distinct / 384) ** 0.2 * (1 - mix.wrong) - 0.01 * seed
            rows.append({**vars(mix), "seed": seed, "facts": score, "sums": 0.3 * (mix.tasks - 1)})
    return Results("today", "x", "here", "none", "0", rows)


def test_copies_add_nothing_that_differs():
    assert mix_of(96, 0.75, 0.0, 4, 1) == mix_of(24, 0.0, 0.0, 4, 1) == Mix(distinct=24)


def test_the_words_name_data_guess_prediction_and_every_seed(results):
    sentence = describe_mix(results, Mix(wrong=0.5, wordings=1, tasks=2), 30)
    for part in (
        "384 different rows, 50% of the labels wrong, 1 wording, 2 tasks",
        "you guess 30%",
        "measured 44% (3 runs: 45%, 44%, 43%)",
        "You are 14 points off",
        "Sums, measured: 30%",
    ):
        assert part in sentence, sentence


def test_a_single_knob_is_predicted_as_it_was_measured(results):
    assert "predict 44%, measured 44%" in describe_mix(results, Mix(wrong=0.5), 0)


def test_every_setting_of_the_sliders_was_recorded():
    from sft_lab.course.results import read_results

    recorded = read_results("11_data_mix")
    for setting in SETTINGS:
        assert len(recorded.measured("facts", **vars(mix_of(*setting)))) >= 3


def test_the_bars_are_guess_prediction_and_means(results):
    bars = draw_mix(results, Mix(wrong=0.5, tasks=2), 30).axes[1].patches
    assert [round(bar.get_width(), 2) for bar in bars] == [0.3, 0.44, 0.44, 0.3]


def test_the_rows_that_are_wrong_are_drawn(results):
    holds = draw_mix(results, Mix(wrong=0.25, tasks=2), 30).axes[0]
    assert [text.get_text() for text in holds.texts] == ["144 right, 48 wrong"] * 2


def test_the_map_names_every_source():
    texts = {text.get_text() for text in draw_sources().axes[0].texts}
    assert {"people", "a stronger model", "filter", "tuning set", "model"} <= texts


def test_the_controls_move_picture_and_words(results):
    *lines, picture, words = explore_mix(results).children
    controls = {control.description: control for line in lines for control in line.children}
    seen = {picture.value}
    for name, value in (
        ("rows", 96),
        ("copies", 0.75),
        ("wrong labels", 0.25),
        ("wordings", 1),
        ("tasks", 2),
        ("your guess, %", 80),
    ):
        controls[name].value = value
        seen.add(picture.value)
    assert len(seen) == 7
    sentence = describe_mix(results, mix_of(96, 0.75, 0.25, 1, 2), 80)
    assert sentence in words.value
    alt, source = re.match(
        r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', picture.value
    ).groups()
    assert alt == sentence and base64.b64decode(source).startswith(b"\x89PNG")
