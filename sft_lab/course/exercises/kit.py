"""What the checks of all chapters share: how a check is declared, how answers are watched and
compared, what is asked of their form, and the random inputs they get.

A check is a function in `chNN.py`, decorated with `@checks("N.k")`. It takes the reader's answer (a
function, a class or a value), raises `Mistake` when a property fails, and returns one line of what
was shown:

    @checks("1.2")
    def surprise(attempt: Callable) -> str:
        p = random.uniform(0.1, 0.9)
        missing = "the minus sign is missing: a loss is never negative"
        same(attempt(p), -math.log(p), [(math.log(p), missing)])
        return "-ln p, for a random p"

Every function that a reader hands in is watched: it may not change its arguments, nor return None.
So a check states only the property and the usual mistakes.
"""

import contextlib
import functools
import inspect
import math
import random
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sft_lab.course.progress import sort_key
from sft_lab.examples import IGNORE_INDEX

CHECKS: dict[str, "Check"] = {}
COUNTS = ("no", "one", "two", "three", "four", "five")

Hints = Sequence[tuple[Any, str]]  # (the value that a usual mistake gives, the name of the mistake)


def checks(exercise_id: str, *, may_return_none: bool = False) -> Callable[[Callable], Callable]:
    """Make the decorated function the check of an exercise.

    `may_return_none=True` where None can be a right answer. Everywhere else a function that returns
    None is told that its `return` is missing. ValueError when two checks claim one id.
    """
    sort_key(exercise_id)  # ValueError for an id that is not CHAPTER.NUMBER

    def register(function: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
        other = CHECKS[exercise_id].run if exercise_id in CHECKS else function
        # a module that is loaded again replaces its own checks
        if (other.__module__, other.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(
                f"exercise {exercise_id} has two checks: {other.__qualname__}, "
                f"{function.__qualname__}"
            )
        CHECKS[exercise_id] = Check(function, may_return_none)
        return function

    return register


# how answers are watched and compared


def watch(attempt: Any, *, may_return_none: bool = False) -> Any:
    """The same function, which raises Mistake when it changes an argument or returns None; a class
    or a value as it is."""
    if not (inspect.isroutine(attempt) or isinstance(attempt, functools.partial)):
        return attempt

    @functools.wraps(attempt)
    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            given = inspect.signature(attempt).bind(*args, **kwargs).arguments
        except (TypeError, ValueError):  # a built-in without a signature, or a call that must fail
            given = {"its input": (args, kwargs)}
        before = {name: _copy(value) for name, value in given.items()}
        result = attempt(*args, **kwargs)
        for name, value in given.items():
            if not _is_unchanged(value, before[name]):
                raise Mistake(
                    f"your function changed `{name}` in place: leave what is given as it is, and "
                    "make new lists and tensors"
                )
        if result is None and not may_return_none:
            name = getattr(attempt, "__name__", "your function")
            raise Mistake(f"{name} returns None: did you forget `return`?")
        return result

    return watched


def same(
    actual: Any,
    expected: Any,
    hints: Hints = (),
    *,
    what: str = "your answer",
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> None:
    """Raise `Mistake` unless `actual` equals `expected`; `what` names the compared thing.

    Floating-point numbers, also those inside lists and dicts, are compared to the tolerance;
    integers, truth values and texts exactly. `hints` are compared in the same way: see
    `name_mistake`.
    """
    if _equal(actual, expected, rtol, atol):
        return
    name_mistake(actual, expected, hints, rtol=rtol, atol=atol)
    raise Mistake(_difference(actual, expected, what))


def name_mistake(
    actual: Any, expected: Any, hints: Hints, *, rtol: float = 1e-4, atol: float = 1e-6
) -> None:
    """Raise `Mistake` with the hints whose values `actual` equals.

    Two mistakes may give one value: then both are named, because nobody can tell which was made. A
    mistake may give the right value: then it is not named.
    """
    found = [
        mistake
        for wrong, mistake in hints
        if _equal(actual, wrong, rtol, atol) and not _equal(wrong, expected, rtol, atol)
    ]
    if found:
        raise Mistake("; or: ".join(dict.fromkeys(found)))


def _difference(actual: Any, expected: Any, what: str) -> str:
    """Where and how two values differ, in one line."""
    if actual is None:
        return f"{what} is None: did you forget `return`?"
    if isinstance(actual, str) and isinstance(expected, str):
        pairs = enumerate(zip(actual, expected, strict=False))
        shorter = min(len(actual), len(expected))
        place = next((i for i, (one, other) in pairs if one != other), shorter)
        return (
            f"{what} is {shorten(actual[place : place + 24])} from character {place} on, expected "
            f"{shorten(expected[place : place + 24])}, after "
            f"{shorten(expected[max(place - 16, 0) : place])}"
        )
    got, want = _to_numbers(actual), _to_numbers(expected)
    if got is None or want is None:
        return f"{what} is {shorten(actual)}, expected {shorten(expected)}"
    if got.shape != want.shape:
        return f"{what} has shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    if got.isnan().any() and not want.isnan().any():
        return f"{what} contains nan: look for 0/0, log of a negative number, or inf - inf"
    error = (got.double() - want.double()).abs().nan_to_num(nan=math.inf)
    index = tuple(int(i) for i in (error == error.max()).nonzero()[0])
    place = f" at index {index[0] if len(index) == 1 else index}" if index else ""
    one, other = (
        f"{number:.6g}" if isinstance(number, float) else str(number)
        for number in (got[index].item(), want[index].item())
    )
    return f"{what} is {one}{place}, expected {other}"


def _equal(actual: Any, expected: Any, rtol: float, atol: float) -> bool:
    got, want = _to_numbers(actual), _to_numbers(expected)
    if got is not None and want is not None:
        if got.shape != want.shape:
            return False
        if not want.is_floating_point():  # whole numbers: a relative tolerance would forgive some
            rtol = atol = 0.0
        return bool(got.double().isclose(want.double(), rtol, atol, equal_nan=True).all())
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        return actual.keys() == expected.keys() and all(
            _equal(actual[key], expected[key], rtol, atol) for key in actual
        )
    if isinstance(actual, list | tuple) and isinstance(expected, list | tuple):
        return len(actual) == len(expected) and all(
            _equal(one, other, rtol, atol) for one, other in zip(actual, expected, strict=True)
        )
    return got is None and want is None and bool(actual == expected)


def _to_numbers(value: Any) -> torch.Tensor | None:
    """A tensor of the value, or None when it is not made of numbers."""
    if value is None or isinstance(value, str | bytes | Mapping):
        return None
    try:
        if isinstance(value, list | tuple) and any(map(_is_array, value)):
            value = torch.stack([torch.as_tensor(item).detach() for item in value])
        tensor = torch.as_tensor(value).detach().cpu()
        if not hasattr(value, "dtype") and tensor.is_floating_point():
            tensor = torch.as_tensor(value, dtype=torch.float64)  # as exact as Python's own
        return tensor
    except (TypeError, ValueError, RuntimeError):  # texts, rows of different lengths, objects
        return None


def _copy(value: Any) -> Any:
    """A copy of numbers and of what holds them; anything else (a tokenizer, a model) as it is."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return value.copy() if _is_array(value) else value


def _is_unchanged(value: Any, before: Any) -> bool:
    """Whether a value is still what `_copy` made of it."""
    if isinstance(value, Mapping):
        return value.keys() == before.keys() and all(
            _is_unchanged(item, before[key]) for key, item in value.items()
        )
    if isinstance(value, list | tuple):
        return len(value) == len(before) and all(map(_is_unchanged, value, before))
    if _is_array(value):
        return _equal(value, before, rtol=0, atol=0)
    return value is before or value == before


def _is_array(value: Any) -> bool:
    """True for tensors and for what numpy makes."""
    return hasattr(value, "__array__")


def shorten(value: Any, width: int = 60) -> str:
    """How the value is written in Python, in one line of at most so many characters."""
    return textwrap.shorten(" ".join(repr(value).split()), width, placeholder=" …")


# what is asked of the form of an answer


def unpack(found: Any, *names: str) -> Sequence[Any]:
    """The parts of an answer that has one part for each name."""
    if not isinstance(found, tuple | list) or len(found) != len(names):
        wanted = f"{', '.join(names[:-1])} and {names[-1]}"
        size = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        this = f"this is one {type(found).__name__}{size}"
        raise Mistake(f"return {COUNTS[len(names)]} things, {wanted}; {this}")
    return found


def need_list(found: Any, kind: type | tuple[type, ...], wanted: str) -> list[Any]:
    """The answer as a list, when all of its items are of one type; `wanted` says what they are."""
    if not isinstance(found, list | tuple) or not all(isinstance(item, kind) for item in found):
        raise Mistake(f"return a list of {wanted}, not {shorten(found)}")
    return list(found)


def need_whole(found: Any, what: str, *, low: int, high: float = math.inf) -> int:
    """The answer as an int, when it is a whole number from low to high."""
    try:
        whole = int(found)
    except (TypeError, ValueError, OverflowError):  # no number, nan, inf
        whole = None
    if whole is None or whole != found:
        raise Mistake(f"{what} is a whole number, not {shorten(found)}")
    if not low <= whole <= high:
        limits = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise Mistake(f"{what} is {limits}, not {whole}")
    return whole


def need_word(found: Any, *words: str) -> str:
    """The answer, when it is one of the words."""
    if found not in words:
        listed = ", ".join(f'"{word}"' for word in words)
        raise Mistake(f"return one of {listed}, not {shorten(found)}")
    return found


def need_finite(found: Any, mistake: str) -> torch.Tensor:
    """The answer as a tensor, when it holds neither inf nor nan."""
    tensor = torch.as_tensor(found)
    if not tensor.isfinite().all():
        raise Mistake(mistake)
    return tensor


def need_dtype(found: torch.Tensor, dtype: torch.dtype, what: str, why: str) -> None:
    """Nothing, when the tensor has this type."""
    if found.dtype != dtype:
        raise Mistake(f"{what} is {found.dtype}, expected {dtype}: {why}")


def need_gradient(found: Any, what: str) -> torch.Tensor:
    """The answer, when it is a tensor through which a gradient flows."""
    if not (torch.is_tensor(found) and found.requires_grad):
        raise Mistake(
            f"no gradient flows through {what}: stay in torch, without .item(), .detach() and "
            "copies of the numbers"
        )
    return found


@contextlib.contextmanager
def named(error: type[Exception], mistake: str) -> Iterator[None]:
    """Inside this block, an error of that type is the named mistake."""
    try:
        yield
    except error:
        raise Mistake(mistake) from None


# random inputs


def normal(*shape: int) -> torch.Tensor:
    """Standard normal numbers; in float64, so that rounding hides no mistake."""
    return torch.randn(shape, dtype=torch.float64)


def random_ids(count: int) -> list[int]:
    """Different token ids, none of them among the first ten, where checks put control tokens."""
    return random.sample(range(10, 2000), count)


def random_labels(rows: int, length: int, vocabulary: int) -> torch.Tensor:
    """Labels (B, T), graded in the middle: in every row another number of tokens, so that a mean of
    the rows' means is not the mean.

    One row in two ends with padding. Token id 0, which is a token like any other, is graded in
    every row.
    """
    labels = torch.randint(1, vocabulary, (rows, length))
    for row, count in enumerate(random.sample(range(3, length - 3), rows)):
        end = length - row % 2
        labels[row, end - 2] = 0
        labels[row, : end - count] = IGNORE_INDEX
        labels[row, end:] = IGNORE_INDEX
    return labels


def random_conversation(rounds: int, *, system: bool = True) -> list[dict[str, str]]:
    """A system turn and `rounds` questions with answers. Contents begin and end with blanks and
    line breaks, and hold what a template or a tokenizer could trip over."""
    stumbling_blocks = ["Why", "我爱你", "2026", "<b>", "{{ x }}", "naïve", "so\nit", "😀"]

    def say() -> str:
        words = [*random.choices(stumbling_blocks, k=3), str(random.randrange(10**6))]
        return random.choice([" ", "  "]) + " ".join(words) + random.choice([" ", "\n"])

    roles = ["system"] * system + ["user", "assistant"] * rounds
    return [{"role": role, "content": say()} for role in roles]


@dataclass(frozen=True)
class Check:
    """The check of an exercise, and whether None may be an answer to it."""

    run: Callable[[Any], str | None]
    may_return_none: bool


class Mistake(AssertionError):
    """A wrong answer, named: `raise Mistake("you dropped the minus sign")`. The text is what the
    reader sees."""
