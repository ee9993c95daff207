"""The rules for open answers, each against answers labelled by hand."""

import json

import pytest

from sft_lab.models import ROOT, load
from sft_lab.open_answers import (
    OPEN_QUESTIONS,
    RULES,
    SOLVED,
    WAYS,
    OpenAnswer,
    as_rows,
    ask_three_ways,
    ends_in,
    from_rows,
    grade,
    is_one_sentence,
    names,
    repeats_itself,
    side_by_side,
)

LLM = OPEN_QUESTIONS[0].subject

# Labelled by hand: (answer, is it one sentence?, does it name language models?, does it loop?)
LABELLED = [
    ("A large language model is a system that writes and understands text.", True, True, False),
    ("LLM stands for large language model.", True, True, False),
    ("LLMs predict the next word. They are trained on a lot of text.", False, True, False),
    ("⚙ ⚙ ⚙ ⚙ ⚙ ⚙ ⚙ ⚙ ⚙ ⚙", False, False, True),
    ("", False, False, False),
    ("- Denmark", False, False, False),
    ("The capital of Kenya is Nairobi.", True, False, False),
    ("An LLM, e.g. Qwen, is a neural network that continues text.", True, True, False),
    ("A large language model (LLM) is trained on text", False, True, False),
    (
        "The sum of 1 and 1 is 2. The sum of 1 and 1 is 2. The sum of 1 and 1 is 2.",
        False,
        False,
        True,
    ),
    ("Dr. Smith studies large language models.", True, True, False),
    ("It has 1.5 billion parameters and answers questions.", True, False, False),
    ("A model that answers questions!", True, False, False),
    ("Sure! An LLM is a model of text.", False, True, False),
    ("An LLM is a model of text.\n\nIt is trained on books.", False, True, False),
    (
        "I am an AI assistant, I am an AI assistant, I am an AI assistant, I am an",
        False,
        False,
        True,
    ),
    ("大语言模型是一种理解和生成文本的系统。", True, False, False),
    ("The LLM course (Master of Laws) takes a year.", True, True, False),
    ("Is an LLM a database? No.", False, True, False),
    ("no no no no no", False, False, True),
    ("“An LLM writes text.”", True, True, False),
    ("A skillmodel is not what was asked about.", True, False, False),
]
# (answer to "Calculate 1 + 1 - 1.", is the value that it gives 1?)
VALUES = [
    ("1 + 1 - 1 = 1.", True),
    ("The answer is 1", True),
    ("1", True),
    ("2", False),
    ("1 + 1 = 2, and 2 - 1 = 1", True),
    ("1 + 1 - 1 = 2", False),
    ("The sum of 1 and 1 is 2.", False),
    ("- 3", False),
    ("", False),
    ("-1", False),
    ("−1", False),
    ("1.5", False),
    ("It is 11.", False),
    ("The result is 1, which is a number.", True),
    ("1 + 1 - 1 = 1 + 0 = 1", True),
    ("1 + 1 - 1 is 3 - 1, that is 2.", False),
    ("The difference is zero: 0", False),
    ("Result: 1.", True),
    ("1.0", True),
    ("The answer is: **1**", True),
]


@pytest.mark.parametrize(("text", "one_sentence", "named", "loops"), LABELLED)
def test_a_rule_gives_what_a_person_said(text, one_sentence, named, loops):
    assert is_one_sentence(text) == one_sentence
    assert names(text, LLM) == named
    assert repeats_itself(text) == loops


@pytest.mark.parametrize(("text", "right"), VALUES)
def test_the_last_number_is_the_value_that_an_answer_gives(text, right):
    assert ends_in(text, "1") == right


def test_known_misses_of_the_rules():
    """What they judge wrongly: a number in words, and two sentences that a semicolon joins."""
    assert not ends_in("The answer is one.", "1")
    assert is_one_sentence("An LLM is a model; it writes text.")


def test_there_are_twenty_labelled_answers_for_every_rule_with_both_labels():
    assert len(LABELLED) >= 20 and len(VALUES) >= 20
    for column in range(1, 4):
        assert {row[column] for row in LABELLED} == {True, False}
    assert {right for _, right in VALUES} == {True, False}


def test_a_question_without_an_honest_rule_is_ungraded():
    card = OPEN_QUESTIONS[-1]
    marks = grade(card, OpenAnswer("Happy birthday, dear friend!", ended=True))
    assert {rule: marks[rule] for rule in RULES[2:]} == dict.fromkeys(RULES[2:])
    assert marks["ended"] is True and marks["no loop"] is True
    ways = {way: [OpenAnswer("Hello.", True)] * len(OPEN_QUESTIONS) for way in WAYS}
    shown = side_by_side({"model": ways})
    assert shown.count("ungraded") == len(WAYS)
    assert shown.count("names its subject") == 3 * len(WAYS)


@pytest.mark.parametrize("question", OPEN_QUESTIONS, ids=lambda question: question.text)
@pytest.mark.parametrize("text", ["", " ", "\n\t\n", "\u3000"])
def test_an_empty_answer_passes_no_rule(text, question):
    marks = grade(question, OpenAnswer(text, ended=True))
    assert {mark for mark in marks.values() if mark is not None} == {False}
    assert marks.keys() == {*RULES} and marks["ended"] is False and marks["no loop"] is False
    for short in ("1", ".", "好"):  # however short, it is an answer
        marks = grade(question, OpenAnswer(short, ended=True))
        assert marks["ended"] is True and marks["no loop"] is True
    assert grade(question, OpenAnswer("1", ended=False))["ended"] is False


def test_the_first_question_is_the_demonstrations_and_no_shot_answers_a_question():
    assert OPEN_QUESTIONS[0].text == "Give me an 1-sentence introduction of LLM."
    assert not {question.text for question in OPEN_QUESTIONS} & {text for text, _ in SOLVED}


def test_answers_survive_json_and_every_way_answers_every_question():
    model, tokenizer = load("atlas-base")
    answers = ask_three_ways(model, tokenizer, max_new_tokens=12)
    assert tuple(answers) == WAYS
    assert all(len(given) == len(OPEN_QUESTIONS) for given in answers.values())
    assert from_rows(as_rows(answers)) == answers
    assert not any("\n" in answer.text for answer in answers["few shots"])


def test_every_record_says_how_it_was_made_and_has_an_answer_to_every_question():
    records = sorted((ROOT / "docs" / "recorded").glob("*.json"))
    assert records
    for path in records:
        record = json.loads(path.read_text(encoding="utf-8"))
        for name in ("model", "date", "command", "device", "versions", "minutes", "tuning"):
            assert record[name], f"{path.name} does not say its {name}"
        assert record["questions"] == [question.text for question in OPEN_QUESTIONS]
        for rows in record["answers"].values():
            answers = from_rows(rows)
            assert tuple(answers) == WAYS
            assert all(len(given) == len(OPEN_QUESTIONS) for given in answers.values())
