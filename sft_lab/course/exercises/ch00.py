"""Checks of chapter 00, what happens when we SFT."""

import random
from collections.abc import Callable

from sft_lab.course.checks import Mistake, checks, same
from sft_lab.examples import IGNORE_INDEX


@checks("0.1")
def _graded_share(attempt: Callable[[list[int]], float]) -> str:
    for _ in range(20):
        labels = [IGNORE_INDEX] * random.randint(5, 9) + [
            0,
            *random.sample(range(1, 2048), random.randint(1, 3)),
        ]
        random.shuffle(labels)
        graded = sum(label != IGNORE_INDEX for label in labels)
        same(
            attempt(labels),
            graded / len(labels),
            hints={
                (graded - 1)
                / len(labels): "token id 0 is a real token: compare with IGNORE_INDEX, not with 0",
                1 - graded / len(labels): "this is the share that is ignored",
                graded: "this counts the graded tokens: divide by all of them",
                graded / (len(labels) - graded): "divide by all tokens, not by the ignored ones",
            },
        )
    return "a label is graded when it is not IGNORE_INDEX"


@checks("0.2")
def _stop_rate(attempt: Callable[[list[list[int]], int], float]) -> str:
    stop = random.randint(3, 2047)
    other = [token for token in range(3, 2047) if token != stop]

    def words() -> list[int]:
        return random.sample(other, random.randint(1, 4))

    stops, goes_on, passes, empty = [*words(), stop], words(), [*words(), stop, *words()], []
    same(
        attempt([stops, goes_on], stop),
        0.5,
        what="for one response that stops and one that does not, your answer",
    )
    if abs(attempt([goes_on, passes], stop)) > 1e-6:
        raise Mistake(
            "a response that goes on after the stop token did not stop: only the last token counts"
        )
    try:
        with_empty = attempt([stops, empty], stop)
    except IndexError:
        raise Mistake(
            "a response may be empty, and ids[-1] of an empty list is an error: use ids[-1:]"
        ) from None
    same(
        with_empty,
        0.5,
        hints={1.0: "an empty response counts too: divide by the number of responses"},
    )
    rate = attempt([stops, stops, goes_on, [stop]], stop)
    same(rate, 0.75, hints={3: "this counts the responses: divide by how many there are"})
    return "only the last token tells whether a response stopped"


@checks("0.3")
def _broken_step(attempt: dict[str, int]) -> str:
    if not isinstance(attempt, dict) or set(attempt) != set("abcd"):
        raise Mistake('write a dictionary with the keys "a", "b", "c" and "d"')
    reasons = {
        "a": (2, "a model that never stops was never graded on its stop token"),
        "b": (5, "a loss that never changes belongs to weights that never change"),
        "c": (2, "a run that grades more tokens than the answers have was graded on prompts too"),
        "d": (1, "another template makes another token sequence of the same conversation"),
    }
    for letter, (step, reason) in reasons.items():
        if attempt[letter] != step:
            raise Mistake(f"{letter} is not step {attempt[letter]}: {reason}")
    return "two of the four sit in the mask, one in the token sequence, one in the update"
