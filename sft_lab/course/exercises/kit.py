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

A mistake is named when it explains every draw. `same` knows one draw; `same_for_all` asks a
function for many inputs, and `same_in_all` judges answers that were got in another way. The
deciding inputs (ties, empty rows, token id 0) are among the draws of every call, not left to luck.
"""

import contextlib
import functools
import inspect
import math
import numbers
import random
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sft_lab.course.progress import sort_key
from sft_lab.examples import IGNORE_INDEX

CHECKS: dict[str, "Check"] = {}
COUNTS = ("no", "one", "two", "three", "four", "five")

Hints = Sequence[tuple[Any, str]]  # (the value that a usual mistake gives, the name of the mistake)


def checks(
    exercise_id: str, *, may_return_none: bool = False, may_train: bool = False
) -> Callable[[Callable], Callable]:
    """Make the decorated function the check of an exercise.

    `may_return_none=True` where None can be a right answer. Everywhere else a function that returns
    None is told that its `return` is missing. `may_train=True` where the answer trains a model that
    it is given: elsewhere a changed weight is a mistake. ValueError when two checks claim one id.
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
        CHECKS[exercise_id] = Check(function, may_return_none, may_train)
        return function

    return register


# how answers are watched and compared


def watch(attempt: Any, *, may_return_none: bool = False, may_train: bool = False) -> Any:
    """The same function, which raises Mistake when it changes an argument or returns None; a class
    or a value as it is. With `may_train` it may change the models among its arguments."""
    if not (inspect.isroutine(attempt) or isinstance(attempt, functools.partial)):
        return attempt

    @functools.wraps(attempt)
    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            given = inspect.signature(attempt).bind(*args, **kwargs).arguments
        except (TypeError, ValueError):  # a built-in without a signature, or a call that must fail
            given = {"its input": (args, kwargs)}
        if may_train:
            given = {
                name: value
                for name, value in given.items()
                if not isinstance(value, torch.nn.Module)
            }
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


@dataclass(frozen=True)
class Case:
    """One draw: what was answered, what is right, what usual mistakes give, and for which input."""

    actual: Any
    expected: Any
    hints: Hints = ()
    given: str = ""


def same_in_all(
    cases: Iterable[Case], *, what: str = "your answer", rtol: float = 1e-4, atol: float = 1e-6
) -> None:
    """Raise `Mistake` unless every case is right; compared as in `same`.

    A usual mistake is named only when the answer is what this mistake gives in **all** cases, where
    it stands at the same place among the hints; otherwise the first wrong case is shown, with its
    input.
    """
    cases = list(cases)
    wrong = [case for case in cases if not _equal(case.actual, case.expected, rtol, atol)]
    if not wrong:
        return
    explained = [
        {
            (number, name)  # two mistakes of one name do not explain a third between them
            for number, (value, name) in enumerate(case.hints)
            if _equal(case.actual, value, rtol, atol)
        }
        for case in cases
    ]
    names = [name for number, name in sorted(set.intersection(*explained))]
    if names:
        raise Mistake("; or: ".join(dict.fromkeys(names)))
    first = wrong[0]
    place = f", for {first.given}" if first.given else ""
    raise Mistake(_difference(first.actual, first.expected, what) + place)


def same_for_all(
    attempt: Callable,
    inputs: Iterable[tuple],
    right: Callable,
    mistakes: Sequence[tuple[Callable, str]] = (),
    *,
    form: Callable[[Any], Any] = lambda found: found,
    what: str = "your answer",
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> None:
    """Raise `Mistake` unless `attempt` gives what `right` gives, for each of the inputs.

    inputs: the arguments of each call. mistakes: functions of the same arguments, with the name of
    the mistake; one that raises an error or gives the right value everywhere names nothing.
    form: looks at an answer and returns it, or raises `Mistake` (the `need_…` below).
    """
    draws = []
    for given in inputs:
        try:
            found = attempt(*given)
        except Mistake:
            raise
        except Exception as error:
            error.add_note(f"for {describe_input(attempt, given)}")
            raise
        draws.append((given, form(found), right(*given)))
    if all(_equal(found, expected, rtol, atol) for _, found, expected in draws):
        return
    cases = []
    for given, found, expected in draws:
        hints = []
        for mistake, name in mistakes:
            value = object()  # equals no answer: a mistake that ends in an error gives none
            with contextlib.suppress(Exception):
                value = mistake(*given)
            hints.append((value, name))
        is_right = _equal(found, expected, rtol, atol)
        cases.append(
            Case(found, expected, hints, "" if is_right else describe_input(attempt, given))
        )
    same_in_all(cases, what=what, rtol=rtol, atol=atol)


def describe_input(attempt: Callable, given: Sequence[Any]) -> str:
    """The arguments of a call as the reader would write them, in one line."""
    try:
        names = list(inspect.signature(attempt).bind(*given).arguments)
    except (TypeError, ValueError):  # a built-in, or other arguments than the stub has
        names = []
    if len(names) != len(given):  # *args
        return ", ".join(map(_short_value, given))
    pairs = zip(names, given, strict=True)
    return ", ".join(f"{name} = {_short_value(value)}" for name, value in pairs)


def _short_value(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        if value.numel() > 12:
            return f"a tensor of shape {tuple(value.shape)}"
        value = value.detach()
        value = value.tolist() if not value.is_floating_point() else _rounded(value.tolist())
    if isinstance(value, list) and any(map(torch.is_tensor, value)):
        return textwrap.shorten(f"[{', '.join(map(_short_value, value))}]", 100, placeholder=" …")
    return shorten(value, 100)


def _rounded(value: Any) -> Any:
    return [*map(_rounded, value)] if isinstance(value, list) else float(f"{value:.4g}")


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
        if isinstance(value, list | tuple) and value and not tensor.numel():
            return None  # torch takes [[], [1]] for (2, 0): the first row decides
        if not hasattr(value, "dtype") and tensor.is_floating_point():
            tensor = torch.as_tensor(value, dtype=torch.float64)  # as exact as Python's own
        return tensor
    except (TypeError, ValueError, RuntimeError):  # texts, rows of different lengths, objects
        return None


def _copy(value: Any) -> Any:
    """A copy of numbers and of what holds them; of a model its weights and flags, of any other
    object (a tokenizer, a config) its size and its plain public attributes."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if _is_array(value) or isinstance(value, set | bytearray):
        return value.copy()
    if isinstance(value, torch.nn.Module):
        return _copy(_flat(value))
    return _attributes(value) if _is_object(value) else value


def _flat(model: torch.nn.Module) -> list[Any]:
    return [dict(model.named_parameters()), dict(model.named_buffers()), model.training]


def _attributes(value: Any) -> dict[str, Any]:
    size = len(value) if hasattr(value, "__len__") else None
    public = {name: item for name, item in vars(value).items() if not name.startswith("_")}
    return {"len": size} | {name: item for name, item in public.items() if _is_plain(item)}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | bytes)


def _is_object(value: Any) -> bool:
    """True for what has attributes of its own and is no function or class."""
    return hasattr(value, "__dict__") and not (inspect.isroutine(value) or inspect.isclass(value))


def _is_unchanged(value: Any, before: Any) -> bool:
    """Whether a value is still what `_copy` made of it, with the same types inside."""
    if isinstance(value, Mapping):
        return value.keys() == before.keys() and all(
            _is_unchanged(item, before[key]) for key, item in value.items()
        )
    if isinstance(value, list | tuple):
        return len(value) == len(before) and all(map(_is_unchanged, value, before))
    if _is_array(value):
        flags = [(x.dtype, getattr(x, "requires_grad", False)) for x in (value, before)]
        return flags[0] == flags[1] and _equal(value, before, rtol=0, atol=0)
    if isinstance(value, torch.nn.Module):
        return _is_unchanged(_flat(value), before)
    if _is_object(value):
        return _is_unchanged(_attributes(value), before)
    return value is before or (type(value) is type(before) and value == before)


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
    """The answer as a list, when all of its items are of one type; `wanted` says what they are.
    A truth value is no number here."""
    if not isinstance(found, list | tuple) or not all(
        isinstance(item, kind) and (kind is bool or not isinstance(item, bool)) for item in found
    ):
        raise Mistake(f"return a list of {wanted}, not {shorten(found)}")
    return list(found)


def need_own_labels(found: Any, input_ids: Sequence[int]) -> list[int]:
    """The answer as the labels of a row, when each is the token's own id or -100 and at least one
    behind the first, which nothing predicts, is graded."""
    labels = need_list(found, numbers.Integral, "token ids and -100, one for each token")
    if len(labels) != len(input_ids):
        raise Mistake(f"{len(input_ids)} input_ids, {len(labels)} labels: one label for each token")
    for place, (label, token_id) in enumerate(zip(labels, input_ids, strict=True)):
        if label not in (token_id, IGNORE_INDEX):
            raise Mistake(
                f"label {place} of a row is {label}, and its token is {token_id}: a label is the "
                "token's own id or -100"
            )
    if all(label == IGNORE_INDEX for label in labels[1:]):
        raise Mistake("a row has no graded token behind its first: there is nothing to learn")
    return [int(label) for label in labels]


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


def need_number(found: Any, what: str = "your answer") -> float:
    """The answer, when it is a number of Python's or numpy's: no tensor, text or truth value."""
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        advice = ": float(x) makes one of it" if torch.is_tensor(found) else ""
        raise Mistake(f"{what} is a {type(found).__name__}, expected a float{advice}")
    return float(found)


def need_tensor(found: Any, what: str = "your answer", *, whole: bool = False) -> torch.Tensor:
    """The answer, when it is a tensor; of whole numbers if `whole`, otherwise of fractions."""
    if not torch.is_tensor(found):
        raise Mistake(f"{what} is a {type(found).__name__}, expected a tensor")
    if whole and (found.is_floating_point() or found.is_complex()):
        raise Mistake(f"{what} is {found.dtype}, expected whole numbers, such as torch.long")
    if not whole and not found.is_floating_point():
        raise Mistake(f"{what} is {found.dtype}, expected floating-point numbers")
    return found


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


# what a statement rules out


@contextlib.contextmanager
def without(*names: str, why: str) -> Iterator[None]:
    """Inside this block, torch functions of these names raise `Mistake`, however they are called
    (`torch.softmax`, `x.softmax`, `F.softmax`, `torch.special.softmax`)."""
    with _Forbidden(names, why):
        yield


class _Forbidden(TorchFunctionMode):
    def __init__(self, names: Sequence[str], why: str) -> None:
        super().__init__()
        self.names, self.why = names, why

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "").removeprefix("special_")
        if name in self.names:
            raise Mistake(f"{name} is not to be used here: {self.why}")
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def without_autograd(why: str) -> Iterator[None]:
    """Inside this block, a graph that autograd records raises `Mistake`."""

    def refuse(tensor: torch.Tensor) -> None:
        raise Mistake(f"autograd is not to be used here: {why}")

    try:
        with torch.autograd.graph.saved_tensors_hooks(refuse, refuse):
            yield
    except RuntimeError as error:  # torch.func.grad cannot run with the hooks, and says so
        if "saved tensor hooks" not in str(error):
            raise
        refuse(torch.empty(0))


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
    """The check of an exercise; whether None may be an answer to it, and whether the answer trains
    a model that it is given."""

    run: Callable[[Any], str | None]
    may_return_none: bool
    may_train: bool = False


class Mistake(AssertionError):
    """A wrong answer, named: `raise Mistake("you dropped the minus sign")`. The text is what the
    reader sees."""
