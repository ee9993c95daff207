"""Checks of chapter 00, what happens when we SFT."""

import numbers
import random
from collections.abc import Callable
from typing import Any

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    named,
    need_number,
    random_ids,
    same_for_all,
    shorten,
)
from sft_lab.examples import IGNORE_INDEX

Responses = list[list[int]]

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


@checks("0.2")
def stop_rate(attempt: Callable) -> str:
    mistakes = [
        (
            lambda generated, stop: sum(stop in ids for ids in generated) / len(generated),
            "a response that goes on after the stop token did not stop: only the last token counts",
        ),
        (
            lambda generated, stop: _rate([ids for ids in generated if ids], stop),
            "an empty response counts too: divide by the number of responses",
        ),
        (
            lambda generated, stop: _rate(generated, stop) * len(generated),
            "this counts the responses: divide by how many there are",
        ),
        (
            lambda generated, stop: 0.0 if stop == 0 else _rate(generated, stop),
            "token id 0 is a token like any other, and may be the stop token",
        ),
    ]
    inputs = [case for stop in (random.randrange(1000, 2000), 0) for case in _responses(stop)]
    with named(IndexError, "a response may be empty, and then has no ids[-1]: use ids[-1:]"):
        same_for_all(attempt, inputs, _rate, mistakes, form=need_number, rtol=1e-6)
    return "only the last token tells whether a response stopped"


def _rate(generated: Responses, stop: int) -> float:
    return sum(ids[-1:] == [stop] for ids in generated) / len(generated)


def _responses(stop: int) -> list[tuple[Responses, int]]:
    """Responses that stop, go on, pass the stop token, stop after passing it, and are empty."""
    words = [word for word in random_ids(9) if word != stop]
    stops, goes_on = [*words[:3], int(str(stop))], words[3:6]  # another object of the same number
    passes, twice = [words[0], stop, *words[6:]], [words[1], stop, words[2], stop]
    second_to_last = [words[5], stop, words[4]]
    mixed = [stops, goes_on, passes, twice, [], second_to_last, [stop]]
    random.shuffle(mixed)
    return [
        ([stops, goes_on], stop),
        ([goes_on, passes], stop),
        ([stops, []], stop),
        (mixed, stop),
        ([stops, twice, list(stops), [], [stop]], stop),  # two equal responses
    ]


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
