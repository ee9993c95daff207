"""What is asked after training was not learned, and can be judged."""

import random
import string

import pytest

from sft_lab.kept_back import (
    MOST_NEW_TOKENS,
    NEW_TOKENS,
    answer_limit,
    commonest_answer,
    keep_back,
    why_not_asked,
)
from sft_lab.records import Conversation


def ask(*texts: str) -> Conversation:
    """Questions and answers by turns."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def plain(text: str) -> str:
    """As much of a text as makes it the same question: letters and digits, without case."""
    return "".join(text.split()).rstrip(string.punctuation).casefold()


def prompts_of(turns: Conversation) -> set[tuple[str, ...]]:
    """What stands before each answer of a conversation."""
    return {
        tuple(plain(turn["content"]) for turn in turns[:end])
        for end, turn in enumerate(turns)
        if turn["role"] == "assistant"
    }


def random_rows(rng: random.Random) -> list[Conversation]:
    """Few questions, so that many repeat; some in other case or punctuation, some in two rounds."""
    rows = []
    for _ in range(rng.randint(2, 60)):
        texts = []
        for _ in range(rng.choice((1, 1, 1, 2))):
            question = f"question {rng.randint(0, 40)}"
            texts += [rng.choice((f"{question}?", question, f" {question.upper()} ?", question))]
            texts += [rng.choice(("yes", "no", "!!!"))]
        rows.append(ask(*texts))
    return rows


def test_no_question_that_is_asked_stands_in_what_is_learned_in_300_random_files():
    asked_in_all = 0
    for seed in range(300):
        rows = random_rows(random.Random(seed))
        asked, learned, _ = keep_back(
            rows, lambda turns: "mute" if turns[-1]["content"] == "!!!" else "", seed
        )
        taught = set().union(*(prompts_of(rows[index]) for index in learned), set())
        for index in asked:
            question = tuple(plain(turn["content"]) for turn in rows[index][:-1])
            assert question not in taught, (seed, question)
            assert rows[index][-1]["content"] != "!!!"
        assert len(set(asked)) == len(asked) and not {*asked} & {*learned} and learned
        questions = {tuple(plain(turn["content"]) for turn in turns[:-1]) for turns in rows}
        assert len(asked) <= max(1, len(questions) // 10)
        asked_in_all += len(asked)
    assert asked_in_all > 300  # nothing asked would be nothing tested


def test_of_questions_that_all_differ_a_tenth_is_asked_and_all_others_are_learned():
    rows = [ask(f"What is {number}?", "A number.") for number in range(60)]
    drawn = set()
    for seed in range(5):
        asked, learned, notes = keep_back(rows, lambda turns: "", seed)
        assert len(asked) == 6 and sorted(asked + learned) == list(range(60)) and not notes
        drawn.add(tuple(asked))
    assert len(drawn) == 5


@pytest.mark.parametrize(
    "rows",
    [
        [ask("Why?", "So.")],
        [ask("Why?", "So."), ask("why ", "Because."), ask("WHY?!", "So.")],
        [ask("Why?", "!!!"), ask("How?", "...")],
        [ask("Why?", "So."), ask("Why?", "So.", "Really?", "!!!")],
    ],
    ids=["one row", "one question", "no answer to compare", "one inside the other"],
)
def test_where_nothing_can_be_asked_nothing_is(rows):
    asked, learned, _ = keep_back(
        rows, lambda turns: "" if turns[-1]["content"].strip("!. ") else "mute", 0
    )
    assert asked == [] and learned == list(range(len(rows)))


def test_what_becomes_of_rows_that_were_drawn_is_counted():
    rows = [ask("Why?", "So."), ask("Why", "Yes."), *[ask(f"{n}?", "!!!") for n in range(20)]]
    for seed in range(4):
        asked, learned, notes = keep_back(
            rows, lambda turns: "mute" if turns[-1]["content"] == "!!!" else "", seed
        )
        # two are wanted, but there is one that can be judged: all others are drawn in vain
        assert asked == [0] and learned == list(range(2, 22))
        assert notes == {
            "mute": 20,
            "repeat a question that is asked: neither learned nor asked": 1,
        }


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (ask("Why?", "So."), ""),
        (ask("Why?", "word " * 200), ""),
        (ask("Why?", "!!!"), "no word"),
        (ask("Why?", " … "), "no word"),
        (ask("Why?", "word " * 600), f"{MOST_NEW_TOKENS} tokens or more"),
        (ask("why " * 900, "So."), "question too long"),
        (ask("Why?", "So.", "why " * 900, "So."), "question too long"),
        ([*ask("Why?"), {"role": "assistant", "content": "So.", "weight": 0}], "not to be graded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_is_not_asked_when_no_answer_to_it_could_be_judged(turns, reason, model, tokenizer):
    found = why_not_asked(turns, model, tokenizer)
    assert reason in found and bool(found) == bool(reason)


@pytest.mark.parametrize("words", [1, 30, 60, 120])
def test_every_reference_can_be_written_within_the_limit(words, model, tokenizer):
    questions = [ask("Why?", "So."), ask("How?", " ".join(["Santiago"] * words))]
    longest = len(tokenizer(questions[1][-1]["content"]).input_ids)
    limit = answer_limit(questions, model, tokenizer)
    assert limit == max(NEW_TOKENS, longest + 1) or longest >= MOST_NEW_TOKENS == limit


def test_the_commonest_answer_is_that_of_what_is_learned():
    learned = [ask("a?", "Yes."), ask("b?", " yes"), ask("c?", "Yes!"), ask("d?", "No.")]
    asked = [ask("e?", "Yes"), ask("f?", "No."), ask("g?", "No."), ask("h?", "Maybe.")]
    assert commonest_answer(learned, asked) == ("Yes", 0.25)
