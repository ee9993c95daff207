"""The clinic: its words say what the file holds, and a diagnosis is judged."""

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab.course.results import read_results
from sft_lab.course.views.clinic import (
    NOT_CHOSEN,
    TABS,
    describe_case,
    draw_chain,
    draw_clinic,
    draw_table,
    explore_clinic,
    show_case,
)
from sft_lab.course.zoo_bugs import BUGS, DECOYS
from sft_lab.course.zoo_files import CLINIC
from sft_lab.course.zoo_table import BATTERY
from sft_lab.models import load


@pytest.fixture(scope="module")
def results():
    return read_results("18c_zoo")


@pytest.fixture(scope="module")
def tokenizer():
    return load("atlas-base")[1]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("tab", TABS)
@pytest.mark.parametrize("letter", "AEX")
def test_every_tab_shows_something(results, tokenizer, letter, tab):
    shown = show_case(results, tokenizer, letter, tab)
    assert shown.sentence.startswith(f"Case {letter}:")
    assert (shown.figure is None) != (shown.below == "")


def test_words_name_no_cause(results):
    for letter, name in CLINIC.items():
        for tab in TABS:
            assert name not in describe_case(results, letter, tab)


def test_a_loss_that_is_no_number_is_said(results):
    lettered = {name: letter for letter, name in CLINIC.items()}
    words = describe_case(results, lettered["nothing graded"], "log")
    assert "from 0.00 to 0.00" in words


def test_texts_of_a_model_are_shown_as_text(results, tokenizer):
    shown = show_case(results, tokenizer, "J", "outputs")
    assert "&lt;|im_end|&gt;" in shown.below and "<|im_end|>" not in shown.below


def test_a_cause_is_judged_and_counted(results, tokenizer):
    view = explore_clinic(results, tokenizer)
    letters, tabs, causes = view.children[:3]
    words = view.children[-1]
    assert f"0 of {len(CLINIC)} named, in 0 tries" in words.value
    letters.value = "X"
    causes.value = "typed control"
    assert "contradicts you" in words.value and "in 1 tries" in words.value
    causes.value = CLINIC["X"]
    assert "Right." in words.value and f"1 of {len(CLINIC)} named" in words.value
    letters.value = "A"
    assert causes.value == NOT_CHOSEN
    tabs.value = "probes"
    assert f"of {len(BATTERY)} probes" in words.value


def test_pictures_are_drawn(results):
    assert len(draw_chain(BUGS).texts) > 9
    labels = [text.get_text() for text in draw_table(results).axes[0].get_yticklabels()]
    assert labels == [case.name for case in (*BUGS, *DECOYS)]
    assert draw_clinic(results, "A").axes
