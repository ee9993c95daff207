"""Checks of chapter 00, what happens when we SFT."""

import random
from collections.abc import Callable

from sft_lab.course.exercises.kit import Mistake, checks, named, random_ids, same
from sft_lab.examples import IGNORE_INDEX


@checks("0.1")
def graded_share(attempt: Callable) -> str:
    for _ in range(20):
        labels = [IGNORE_INDEX] * random.randint(5, 9) + [0, *random_ids(random.randint(1, 3))]
        random.shuffle(labels)
        ignored, size = labels.count(IGNORE_INDEX), len(labels)
        graded = size - ignored
        zero_left_out = "token id 0 is a real token: compare with IGNORE_INDEX, not with 0"
        hints = [
            ((graded - 1) / size, zero_left_out),
            (ignored / size, "this is the share that is ignored"),
            (graded, "this counts the graded tokens: divide by all of them"),
            (graded / ignored, "divide by all tokens, not by the ignored ones"),
        ]
        same(attempt(labels), graded / size, hints)
    return "a label is graded when it is not IGNORE_INDEX"


@checks("0.2")
def stop_rate(attempt: Callable) -> str:
    stop, *words = random_ids(9)
    stops, goes_on, passes = [*words[:4], stop], words[4:], [*words[:2], stop, *words[2:]]
    rate = attempt([stops, goes_on], stop)
    same(rate, 0.5, what="for one response that stops and one that does not, your answer")
    not_the_end = (
        "a response that goes on after the stop token did not stop: only the last token counts"
    )
    same(attempt([goes_on, passes], stop), 0.0, [(0.5, not_the_end)])
    with named(IndexError, "a response may be empty, and then has no ids[-1]: use ids[-1:]"):
        with_empty = attempt([stops, []], stop)
    left_out = "an empty response counts too: divide by the number of responses"
    same(with_empty, 0.5, [(1.0, left_out)])
    not_divided = "this counts the responses: divide by how many there are"
    same(attempt([stops, stops, goes_on, [stop]], stop), 0.75, [(3, not_divided)])
    return "only the last token tells whether a response stopped"


@checks("0.3")
def broken_step(attempt: dict[str, int]) -> str:
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
