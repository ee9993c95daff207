"""The one grader: white space and final punctuation do not matter, letters do."""

import pytest

from sft_lab.metrics import is_right, normalise


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Paris", True),
        ("  Paris .\n", True),
        ("Paris。", True),
        ("paris", False),
        ("Paris, France", False),
        ("", False),
    ],
)
def test_white_space_and_final_punctuation_do_not_matter_and_letters_do(answer, right):
    assert is_right(answer, "Paris.") == right


def test_white_space_inside_an_answer_is_one_space():
    assert is_right("The\n capital  is\tLima.", "The capital is Lima.")
    assert not is_right("Thecapital is Lima.", "The capital is Lima.")


def test_punctuation_inside_an_answer_counts():
    assert not is_right("red green", "red, green")


def test_two_ways_to_write_an_accent_are_one():
    assert normalise("Yaounde\u0301") == normalise("Yaound\u00e9")


@pytest.mark.parametrize("reference", ["", " ", "?!", "。"])
def test_a_reference_that_every_empty_answer_would_meet_is_refused(reference):
    with pytest.raises(ValueError, match="every empty answer would be right"):
        is_right("Paris", reference)
