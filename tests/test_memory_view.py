"""The pictures of chapter 08: a step over time, a card and its prediction, answers in columns."""

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab.course.views import memory as view
from sft_lab.memory import PARTS
from sft_lab.memory_meter import Moment, measure_memory
from sft_lab.shapes import named_config


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def moment(phase: str, logits: int, activations: int = 0) -> Moment:
    return Moment(phase, dict.fromkeys(PARTS, 0) | {"logits": logits, "activations": activations})


def test_a_step_is_split_where_the_scores_begin_and_where_only_those_that_stay_are_left():
    step = [
        *(moment("forward", logits) for logits in (0, 0, 3, 5)),
        *(moment("backward", logits) for logits in (7, 1, 1)),
        *(moment("optimizer step", 1) for _ in range(2)),
    ]
    spans = view.split_step(step)
    logits = [[one.held["logits"] for one in span] for span in spans]
    assert logits == [[0, 0], [3, 5, 7], [1, 1], [1, 1]]


def test_the_areas_reach_the_peak_and_the_peak_is_written():
    config, timeline = named_config("Qwen3-0.6B"), []
    peak = sum(measure_memory(config, method="lora", length=64, timeline=timeline).values())
    figure = view.draw_timeline({"LoRA": timeline}, "a finding")
    tops = [
        path.vertices[:, 1].max()
        for ax in figure.axes
        for area in ax.collections
        for path in area.get_paths()
    ]
    assert max(tops) == pytest.approx(peak / 2**30)
    words = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert words == [f"peak {peak / 2**30:.1f}"]
    assert [ax.get_xlabel() for ax in figure.axes] == list(view.SPANS)


def test_a_size_has_the_colour_of_the_smallest_card_that_holds_it_with_the_allowance():
    sizes = [13.6, 13.8, 22.7, 38.3, 78.0, 78.2]  # T4: 14.7, 4090: 23.6, A100: 39.4 and 79.1
    ax = view.draw_cards_needed({"a model": sizes}, list("abcdef"), "a finding")
    hues = [matplotlib.colors.to_hex(bar.get_facecolor()) for bar in ax.patches[: len(sizes)]]
    ladder = [hue.lower() for _, hue in view.LADDER]
    expected = [ladder[0], ladder[1], ladder[2], ladder[2], ladder[3], "#ffffff"]
    assert hues == expected


def test_the_largest_step_and_the_fastest_run_stand_above():
    ax = view.draw_card([("small", 2.0, 1.9), ("large", 9.0, 9.1)], "a finding")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["small", "large"]
    ax = view.draw_speeds({"slow": (1e3, 5.0), "as it is": (9e3, 20.0)}, "a finding")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["slow", "as it is"]
    assert [text.get_text() for text in ax.texts] == ["1.0 k, 5 GiB", "9.0 k, 20 GiB"]


def test_a_claim_and_a_run_are_drawn_with_their_numbers():
    curves = {"all": [17.0, 30.0], "chunks": [16.0, 18.0]}
    ax = view.draw_claim([256, 512], curves, claim=(16, 20), title="a finding")
    assert [list(line.get_ydata()) for line in ax.lines] == list(curves.values())
    evaluations = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]
    ax = view.draw_run([2.5, 1.5], evaluations, "a finding")
    assert [list(line.get_ydata()) for line in ax.lines] == [[2.5, 1.5], [3.0, 2.0]]


def test_long_answers_are_wrapped_and_an_empty_one_is_said():
    text = view.answer_table(["Why?"], [""], ["word " * 12], width=20)
    lines = text.splitlines()
    assert lines[0].split() == ["question", "│", "base", "│", "tuned"]
    assert "(nothing)" in lines[2] and text.count("word") == 12
    assert max(map(len, lines)) <= 3 * 20 + 6
