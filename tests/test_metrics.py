"""The one grader: white space and final punctuation do not matter, letters do. Repetition equals a
count place by place on random rows."""

import random
import re

import pytest

from sft_lab.metrics import (
    distinct_n,
    is_right,
    list_ngrams,
    longest_run,
    normalise,
    repeated_share,
    repeated_units,
    split_paragraphs,
    split_sentences,
)


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


# repetition


def random_ids(rng: random.Random) -> list[int]:
    """Up to thirty ids of a small alphabet, so that repeats are common; 0 is among them."""
    return rng.choices(range(rng.randint(1, 4)), k=rng.randint(0, 30))


def count_repeats(ids: list[int], n: int) -> tuple[int, int]:
    """How many n-grams stand in `ids`, and how many of them stood at an earlier place: every place
    is compared with every earlier one."""
    places = [i for i in range(len(ids)) if i + n <= len(ids)]
    later = [i for i in places if any(ids[j : j + n] == ids[i : i + n] for j in range(i))]
    return len(places), len(later)


def test_repeated_share_and_distinct_n_equal_a_count_place_by_place_on_500_rows():
    rng = random.Random(0)
    for _ in range(500):
        ids, n = random_ids(rng), rng.randint(1, 5)
        places, later = count_repeats(ids, n)
        assert len(list_ngrams(ids, n)) == places
        assert repeated_share(ids, n) == pytest.approx(later / places if places else 0.0)
        if places:
            assert distinct_n([ids], n) == pytest.approx(1 - later / places)
            words = " ".join(f"w{token_id}" for token_id in ids)
            assert repeated_share(words, n) == repeated_share(ids, n)


def test_the_longest_run_equals_a_regular_expression_on_500_rows():
    rng = random.Random(1)
    for _ in range(500):
        ids = random_ids(rng)
        runs = re.finditer(r"(.)\1*", "".join(map(str, ids)))
        assert longest_run(ids) == max((len(run[0]) for run in runs), default=0)


def test_the_last_ngram_counts():
    assert repeated_share([1, 2, 3, 1, 2], 2) == pytest.approx(1 / 4)
    assert list_ngrams([1, 2, 3], 3) == [(1, 2, 3)] and list_ngrams([1, 2], 3) == []


def test_no_ngram_reaches_from_one_text_into_the_next():
    assert distinct_n([[1, 2], [1, 2]], 2) == 0.5
    assert distinct_n(["a b", "b c"], 2) == 1.0 and distinct_n(["a", "b c"], 2) == 1.0


def test_sentences_and_paragraphs_are_counted_as_wholes():
    text = "It is Lima.  It is Rome! It is Lima.\nWhy?\n\nIt is Rome!\n \nWhy?"
    sentences = split_sentences(text)
    assert sentences == ["It is Lima.", "It is Rome!", "It is Lima.", "Why?", "It is Rome!", "Why?"]
    assert repeated_units(sentences) == 0.5
    assert split_sentences("我爱你。我爱你。他来了！") == ["我爱你。", "我爱你。", "他来了！"]
    assert split_paragraphs(text)[1:] == ["It is Rome!", "Why?"]
    assert repeated_units(split_paragraphs(text)) == 0.0 == repeated_units([])
    assert split_sentences("It costs 3.50 today") == ["It costs 3.50 today"]


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="n is 0"):
        repeated_share([1, 2], 0)
    with pytest.raises(ValueError, match="give a list of texts"):
        distinct_n("one text", 2)
    with pytest.raises(ValueError, match="no text has 3 tokens"):
        distinct_n(["a b", ""], 3)
    with pytest.raises(ValueError, match="give its parts"):
        repeated_units("It is Lima. It is Lima.")
