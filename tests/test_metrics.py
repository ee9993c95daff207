"""The one grader: white space and final punctuation do not matter, letters do. Classes have the
precision and recall of scikit-learn, answers the match and F1 of SQuAD's script, and repetition is
a count place by place, each on random draws."""

import collections
import random
import re
import string
import warnings

import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from sft_lab.metrics import (
    Score,
    accuracy,
    answer_f1,
    distinct_n,
    exact_match,
    is_right,
    list_ngrams,
    longest_run,
    normalise,
    normalise_answer,
    precision_recall_f1,
    repeated_share,
    repeated_units,
    self_consistency,
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


# answers as SQuAD's script grades them: its version 2.0, written down as a slow check

ANSWERS = [
    "the",
    "The",
    "a",
    "An",
    "Lima",
    "lima",
    "and",
    "Peru",
    "an.",
    "Peru,",
    "-",
    "'s",
    "",
    "theory",
]


def normalize_answer(text: str) -> str:
    exclude = set(string.punctuation)
    text = "".join(letter for letter in text.lower() if letter not in exclude)
    text = re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text)
    return " ".join(text.split())


def compute_f1(gold: str, guess: str) -> float:
    gold_tokens, guess_tokens = normalize_answer(gold).split(), normalize_answer(guess).split()
    common = collections.Counter(gold_tokens) & collections.Counter(guess_tokens)
    same = sum(common.values())
    if len(gold_tokens) == 0 or len(guess_tokens) == 0:
        return float(gold_tokens == guess_tokens)
    if same == 0:
        return 0.0
    precision, recall = same / len(guess_tokens), same / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def test_answers_are_graded_as_by_the_script_of_squad_on_2000_answers():
    rng = random.Random(2)

    def draw() -> str:
        space = rng.choice([" ", "  ", "\t", "-", ""])
        return space.join(rng.choices(ANSWERS, k=rng.randint(0, 5)))

    for _ in range(2000):
        answer, references = draw(), [draw() for _ in range(rng.randint(1, 3))]
        assert normalise_answer(answer) == normalize_answer(answer)
        found = exact_match(answer, references)
        assert found == any(normalize_answer(answer) == normalize_answer(r) for r in references)
        wanted = max(compute_f1(reference, answer) for reference in references)
        assert answer_f1(answer, references) == pytest.approx(wanted)
        if found:
            assert answer_f1(answer, references) == 1.0


def test_articles_case_and_punctuation_do_not_matter_to_an_exact_match():
    assert exact_match("The Golden-Gate bridge!", ["bridge", "goldengate  Bridge"])
    assert not exact_match("golden gate bridge", ["bridge"])
    assert answer_f1("the golden bridge", ["bridge"]) == pytest.approx(2 / 3)
    assert answer_f1("bridge bridge", ["a bridge"]) == pytest.approx(2 / 3)  # as often as both have


def test_an_answer_of_one_letter_may_be_nothing_to_squad():
    assert normalise_answer("A") == "" and exact_match("", ["A"]) and answer_f1("", ["A"]) == 1.0
    assert not is_right("", "A")


def test_chinese_answers_need_their_own_words_and_punctuation():
    answer, reference = "答案是利马。", "利马"
    assert answer_f1(answer, [reference]) == 0.0  # one word against another
    assert answer_f1(answer, [reference], language="zh") == pytest.approx(2 * 2 / (5 + 2))
    assert not exact_match("利马。", [reference]) and exact_match(
        "利马。", [reference], language="zh"
    )
    with pytest.raises(ValueError, match="language is 'fr'"):
        answer_f1("chat", ["chat"], language="fr")


def test_self_consistency_is_the_share_of_the_most_frequent_answer_on_1000_draws():
    rng = random.Random(3)
    for _ in range(1000):
        answers = rng.choices(["4", "4.", " 4 ", "5", "four", ""], k=rng.randint(1, 12))
        plain = [answer.strip(" .") for answer in answers]
        assert self_consistency(answers) == max(map(plain.count, plain)) / len(plain)
    assert self_consistency(["Au", "AU", "gold"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("call", [exact_match, answer_f1])
def test_one_reference_in_place_of_a_list_is_refused(call):
    for references in ("Lima", []):
        with pytest.raises(ValueError, match="give a list of texts"):
            call("Lima", references)
    with pytest.raises(ValueError, match="answers is 'Lima'"):
        self_consistency("Lima")


# classes


def draw_classes(rng: random.Random) -> tuple[list[str], list[str]]:
    """Predicted and true classes; some are in one of the two only."""
    names, size = "abcde"[: rng.randint(1, 5)], rng.randint(1, 12)
    return rng.choices(names, k=size), rng.choices(names, k=size)


@pytest.mark.parametrize("zero_division", [0.0, 1.0])
def test_classes_have_the_precision_recall_and_f1_of_scikit_learn_on_1000_draws(zero_division):
    rng = random.Random(4)
    for _ in range(1000):
        predicted, true = draw_classes(rng)
        names = sorted({*predicted, *true})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a class without a prediction
            each, macro, micro = (
                precision_recall_fscore_support(
                    true, predicted, average=average, zero_division=zero_division
                )
                for average in (None, "macro", "micro")
            )
        settings = {"zero_division": zero_division}
        found = precision_recall_f1(predicted, true, average=None, **settings)
        assert sorted(found) == names
        for name, *wanted in zip(names, *each[:3], strict=True):
            assert found[name] == pytest.approx(tuple(wanted))
        assert precision_recall_f1(predicted, true, **settings) == pytest.approx(macro[:3])
        micro_found = precision_recall_f1(predicted, true, average="micro", **settings)
        assert micro_found == pytest.approx(micro[:3])
        assert accuracy(predicted, true) == pytest.approx(accuracy_score(true, predicted))
        assert micro_found == pytest.approx((accuracy(predicted, true),) * 3)


def test_a_class_that_nobody_predicts_counts_in_the_mean_with_0():
    found = precision_recall_f1(["yes"] * 3, ["yes", "yes", "no"], average=None)
    assert found == {"yes": Score(2 / 3, 1.0, 0.8), "no": Score(0.0, 0.0, 0.0)}
    assert precision_recall_f1(["yes"] * 3, ["yes", "yes", "no"]).f1 == 0.4
    one = precision_recall_f1(["yes"] * 3, ["yes", "yes", "no"], average=None, zero_division=1)
    assert one["no"] == Score(1.0, 0.0, 0.0)  # its precision is 0/0, its recall is 0/1


def test_macro_f1_is_the_mean_of_f1s_and_not_the_f1_of_the_means():
    found = precision_recall_f1(["a", "a", "a", "b"], ["a", "b", "b", "b"])
    of_means = 2 * found.precision * found.recall / (found.precision + found.recall)
    assert found.f1 == pytest.approx((1 / 2 + 1 / 2) / 2) and of_means == pytest.approx(2 / 3)


def test_classes_that_cannot_be_counted_are_refused():
    for call in (accuracy, precision_recall_f1):
        with pytest.raises(ValueError, match="1 predicted and 2 true"):
            call(["a"], ["a", "b"])
        with pytest.raises(ValueError, match="at least one example"):
            call([], [])
    with pytest.raises(ValueError, match="average is 'weighted'"):
        precision_recall_f1(["a"], ["a"], average="weighted")


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
