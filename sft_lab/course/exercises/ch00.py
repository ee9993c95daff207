"""Checks of chapter 00, what happens when we SFT."""

import contextlib
import io
import numbers
import random
from collections.abc import Callable
from functools import cache
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_number,
    random_ids,
    same_for_all,
    shorten,
)
from sft_lab.course.moment_runs import ASKED, teach_form
from sft_lab.examples import IGNORE_INDEX
from sft_lab.models import load

STEPS = {"tokenise": 1, "tokenize": 1, "mask": 2, "forward": 3, "loss": 4, "update": 5}


@checks("0.1")
def graded_share(attempt: Callable) -> str:
    mistakes = [
        (
            lambda labels: sum(label not in (0, IGNORE_INDEX) for label in labels) / len(labels),
            "token id 0 is a real token: compare with IGNORE_INDEX, not with 0",
        ),
        (lambda labels: 1 - _share(labels), "this is the share that is ignored"),
        (
            lambda labels: _share(labels) * len(labels),
            "this counts the graded tokens: divide by all of them",
        ),
        (
            lambda labels: _share(labels) / (1 - _share(labels)),
            "divide by all tokens, not by the ignored ones",
        ),
    ]
    inputs = [(_random_labels(zero),) for zero in [True] * 18 + [False] * 2]
    same_for_all(attempt, inputs, _share, mistakes, form=need_number, rtol=1e-6)
    return "a label is graded when it is not IGNORE_INDEX"


def _share(labels: list[int]) -> float:
    return sum(label != IGNORE_INDEX for label in labels) / len(labels)


def _random_labels(zero: bool) -> list[int]:
    """A prompt, an answer with an id twice and, if `zero`, token id 0, a question and an answer
    more; a number of labels that gives no round share."""
    size = random.choice([11, 13, 17])
    first = [0 if zero else 7, *random_ids(random.randint(1, 2))]
    answers = random.sample(first, len(first)), [first[-1], *random_ids(random.randint(1, 2))]
    question = [IGNORE_INDEX] * random.randint(1, 2)
    rest = size - sum(map(len, (*answers, question)))
    behind = random.randint(0, 2)
    ignored = [IGNORE_INDEX] * (rest - behind), [IGNORE_INDEX] * behind
    return [*ignored[0], *answers[0], *question, *answers[1], *ignored[1]]


@checks("0.3")
def broken_step(attempt: dict[str, int]) -> str:
    if isinstance(attempt, list | tuple) and len(attempt) == 4:
        attempt = dict(zip("abcd", attempt, strict=True))
    if not isinstance(attempt, dict) or set(attempt) != set("abcd"):
        raise Mistake(
            f'write a dictionary with the keys "a", "b", "c", "d", not {shorten(attempt)}'
        )
    reasons = {
        "a": (2, "a model that never stops was never graded on its stop token"),
        "b": (5, "a loss that never changes belongs to weights that never change"),
        "c": (2, "a run that grades more tokens than the answers have was graded on prompts too"),
        "d": (1, "another template makes another token sequence of the same conversation"),
    }
    found = {letter: _step_number(letter, step) for letter, step in attempt.items()}
    for letter, (step, reason) in reasons.items():
        if found[letter] != step:
            raise Mistake(f"{letter} is not step {found[letter]}: {reason}")
    return "two of the four sit in the mask, one in the token sequence, one in the update"


def _step_number(letter: str, step: Any) -> int:
    """A step, given by its number, its name or both ("2 mask")."""
    word = step.split()[0].lower() if isinstance(step, str) and step.strip() else step
    number = STEPS.get(word, int(word) if word.isdecimal() else 0) if word is not step else step
    whole = isinstance(number, numbers.Real) and not isinstance(number, bool)
    if not whole or number not in range(1, 6):
        raise Mistake(f"{letter} is the number of a step, from 1 to 5, not {shorten(step)}")
    return int(number)


@checks("0.4")
def my_form(attempt: Callable) -> str:
    facts = atlas.load_facts()
    one_of_each = {fact.relation: fact for fact in random.sample(facts, len(facts))}
    statements = [fact.say(atlas.STATEMENTS[0]) for fact in one_of_each.values()]
    added = [_find_added(attempt, statement) for statement in statements]
    if len(set(added)) > 1:
        other = next(found for found in added if found != added[0])
        raise Mistake(
            f"what you add changes from statement to statement: {shorten(added[0])} and "
            f"{shorten(other)}. Make it the same for all"
        )
    _check_added("".join(added[0]))
    base, tokenizer = _load_base()
    asked = teach_form(base, tokenizer, attempt, seed=random.randrange(10**6))
    right = [(question, answer) for question, answer, wanted in asked if answer == wanted]
    if len(right) < ASKED / 2:
        question, answer, wanted = next(row for row in asked if row[1] != row[2])
        raise Mistake(
            f"only {len(right)} of {ASKED} answers have your form: to {question!r} the model says "
            f"{answer!r}, wanted was {wanted!r}. Try words that are easier to learn"
        )
    question, answer = right[0]
    return (
        f"{len(right)} of {ASKED} answers about other entities have your form, such as "
        f"{question!r}: {answer!r}"
    )


def _find_added(attempt: Callable, statement: str) -> tuple[str, str]:
    """What stands in front of the statement and behind it."""
    answer = attempt(statement)
    if not isinstance(answer, str):
        raise Mistake(f"return a text, not {shorten(answer)}")
    parts = answer.split(statement)
    if len(parts) != 2:
        times = "is not in your answer as it is" if len(parts) == 1 else "stands there twice"
        raise Mistake(
            f"{statement!r} {times}: keep it once and unchanged, with words around it, not "
            f"{shorten(answer)}"
        )
    return parts[0], parts[1]


def _check_added(added: str) -> None:
    if not added.strip():
        raise Mistake("this is the plain statement: add words of your own")
    if not any(character.isalpha() for character in added):
        raise Mistake(f"you add {added!r}, which has no letter: add words of your own")
    if not 4 <= len(added) <= 40:
        raise Mistake(f"you add {len(added)} characters, {added!r}: add 4 to 40, spaces included")


@cache
def _load_base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with contextlib.redirect_stdout(io.StringIO()):  # the chapter has said what it loads
        return load("atlas-base")
