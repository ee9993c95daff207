"""Exercise checks: `check("1.2", answer)` says in one line whether an answer holds and, if not,
which mistake it is.

A check is a function in `sft_lab/course/exercises/chNN.py`, decorated with `@checks("N.k")`. It
takes the reader's answer (a function, a class or a value), raises `Mistake` when a property fails,
and returns one line of what was shown:

    @checks("1.2")
    def _surprise(attempt):
        p = random.uniform(0.1, 0.9)
        same(attempt(p), -math.log(p), hints={math.log(p): "the minus sign is missing: a loss is
        never negative"}) return "-ln p, for a random p"

SFT_LAB_STRICT=1 turns every line but ✓ into an AssertionError and records nothing (this is how
solutions are run). SFT_LAB_PROGRESS names the file of the reader's progress; without it,
`~/.sft_lab/progress.json`.
"""

import ast
import contextlib
import dis
import functools
import importlib
import inspect
import os
import random
import sys
import textwrap
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sft_lab.course.progress import (
    ATTEMPTED,
    NOT_ATTEMPTED,
    SOLVED,
    ProgressError,
    progress,
    record,
    sort_key,
)

__all__ = ["Mistake", "check", "checks", "is_untouched", "progress", "same"]

_CHECKS: dict[
    str, tuple[Callable[[Any], str | None], bool]
] = {}  # id -> (check, may the answer return None)


def checks(exercise_id: str, *, returns_none: bool = False) -> Callable[[Callable], Callable]:
    """Make the decorated function the check of an exercise.

    `returns_none=True` for an answer that rightly returns nothing, because it works in place;
    otherwise a function that returns None is told that its `return` is missing. ValueError when two
    checks claim one id.
    """
    sort_key(exercise_id)

    def register(function: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
        known = _CHECKS.get(exercise_id, (function, False))[0]
        if (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(
                f"exercise {exercise_id} has two checks: {known.__qualname__}, "
                f"{function.__qualname__}"
            )
        _CHECKS[exercise_id] = (function, returns_none)
        return function

    return register


def check(exercise_id: str, attempt: Any) -> None:
    """Print one line: `1.2 ✓ what was shown`, `1.2 ✗ the mistake`, or `1.2 not attempted yet`.

    The check sees new random numbers at every call, and the notebook gets its own random state
    back. ValueError when there is no such exercise. With SFT_LAB_STRICT=1 all but ✓ raises
    `Mistake`.
    """
    run, returns_none = _find_check(exercise_id)
    strict = os.environ.get("SFT_LAB_STRICT", "0") not in ("", "0")
    cause: Exception | None = None
    if is_untouched(attempt):
        state, line = NOT_ATTEMPTED, f"{exercise_id} not attempted yet"
    else:
        try:
            with _fresh_random_numbers():
                shown = run(attempt if returns_none else _refuse_none(attempt))
            state, line = SOLVED, f"{exercise_id} ✓ {shown or inspect.getdoc(run) or 'right'}"
        except Exception as error:  # whatever the reader's code raises becomes one line
            state, line, cause = ATTEMPTED, f"{exercise_id} ✗ {_explain(error, attempt)}", error
    if strict and state != SOLVED:
        raise Mistake(line) from cause
    print(line)
    if not strict and state != NOT_ATTEMPTED:
        try:
            record(exercise_id, state)
        except ProgressError as error:
            print(f"Progress not saved: {error}")


def same(
    actual: Any,
    expected: Any,
    *,
    hints: Mapping[Any, str] | None = None,
    what: str = "your answer",
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> None:
    """Raise `Mistake` unless `actual` equals `expected`: numbers and tensors to a tolerance,
    anything else exactly.

    `hints` maps the value that a usual mistake gives to the name of that mistake; `what` names the
    compared thing.
    """
    if _equal(actual, expected, rtol, atol):
        return
    for wrong, mistake in (hints or {}).items():
        if _equal(actual, wrong, rtol, atol):
            raise Mistake(mistake)
    if actual is None:
        raise Mistake(f"{what} is None: did you forget `return`?")
    got, want = _numbers(actual), _numbers(expected)
    if got is None or want is None:
        raise Mistake(f"{what} is {_one_line(repr(actual))}, expected {_one_line(repr(expected))}")
    if got.shape != want.shape:
        raise Mistake(f"{what} has shape {tuple(got.shape)}, expected {tuple(want.shape)}")
    if got.isnan().any() and not want.isnan().any():
        raise Mistake(f"{what} contains nan: look for 0/0, log of a negative number, or inf - inf")
    error = (got - want).abs().nan_to_num(nan=float("inf"))
    index = tuple(int(i) for i in (error == error.max()).nonzero()[0])
    place = f" at index {index[0] if len(index) == 1 else index}" if index else ""
    raise Mistake(f"{what} is {got[index].item():.6g}{place}, expected {want[index].item():.6g}")


def is_untouched(attempt: Any) -> bool:
    """True for a stub as shipped: `...`, a function with only a docstring and `...`, or a class
    with such a method.

    A function that does nothing but `return None` is an attempt: a wrong one.
    """
    if attempt is ...:
        return True
    if isinstance(attempt, (tuple, list)):
        return any(item is ... for item in attempt)
    if inspect.isclass(attempt):
        methods = [value for value in vars(attempt).values() if inspect.isfunction(value)]
        return any(is_untouched(method) for method in methods)
    code = _code(attempt)
    if code is None:
        return False
    # The bytecode cannot be stale, the source tells `...` from `return None`: both must agree where
    # both are there.
    skip = {"RESUME", "NOP", "CACHE", "COPY_FREE_VARS", "MAKE_CELL"}
    steps = [
        (step.opname, step.argval) for step in dis.get_instructions(code) if step.opname not in skip
    ]
    if (
        len(steps) > 2
        or steps[0][0] not in ("LOAD_CONST", "RETURN_CONST")
        or steps[0][1] not in (None, ...)
    ):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code))).body[0]
    except (OSError, SyntaxError, IndexError):
        return True
    if (
        getattr(tree, "name", "") != code.co_name
    ):  # a lambda: the source is that of the statement around it
        return True
    constants = [
        s for s in tree.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
    ]
    return len(constants) + sum(isinstance(s, ast.Pass) for s in tree.body) == len(tree.body)


def _find_check(exercise_id: str) -> tuple[Callable[[Any], str | None], bool]:
    chapter, _ = sort_key(exercise_id)
    name = f"sft_lab.course.exercises.ch{chapter:02d}"
    if exercise_id not in _CHECKS:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # the chapter's checks are there, and need something that is not
                raise
    if exercise_id not in _CHECKS:
        known = sorted((i for i in _CHECKS if sort_key(i)[0] == chapter), key=sort_key)
        raise ValueError(
            f"no exercise {exercise_id} in {name}: known there: {', '.join(known) or 'none'}"
        )
    return _CHECKS[exercise_id]


def _refuse_none(attempt: Any) -> Any:
    """The same function, but a None that it returns is named as what it nearly always is: a
    forgotten `return`."""
    if not inspect.isfunction(attempt):
        return attempt

    @functools.wraps(attempt)
    def watched(*args: Any, **kwargs: Any) -> Any:
        result = attempt(*args, **kwargs)
        if result is None:
            raise Mistake(f"{attempt.__name__} returns None: did you forget `return`?")
        return result

    return watched


def _explain(error: Exception, attempt: Any) -> str:
    """One line for the reader: the named mistake, or the line of their own code that raised."""
    message = _one_line(str(error))
    if isinstance(error, Mistake):
        return message
    frames = traceback.extract_tb(error.__traceback__)
    code = _code(attempt)
    own_file = code.co_filename if code else ""
    own = [
        frame for frame in frames if frame.filename == own_file or "ipykernel_" in frame.filename
    ]
    if own:
        return (
            f"line {own[-1].lineno} of your code, `{own[-1].line}`: {type(error).__name__}: "
            f"{message}"
        )
    if isinstance(error, AssertionError):
        return message or f"this does not hold: `{frames[-1].line}`"
    kept = "keep the arguments and the type of the result that the stub names"
    return f"the check could not use your answer: {type(error).__name__}: {message}; {kept}"


@contextlib.contextmanager
def _fresh_random_numbers() -> Iterator[None]:
    torch = sys.modules.get("torch")  # a check that needs torch has imported it by now
    state, torch_state = random.getstate(), torch.get_rng_state() if torch else None
    random.seed()
    if torch:
        torch.default_generator.seed()
    try:
        yield
    finally:
        random.setstate(state)
        if torch:
            torch.set_rng_state(torch_state)


def _code(attempt: Any) -> types.CodeType | None:
    """The code that the reader wrote: a function's, or that of a class's first method."""
    if inspect.isclass(attempt):
        attempt = next(
            (value for value in vars(attempt).values() if inspect.isfunction(value)), None
        )
    return getattr(inspect.unwrap(attempt), "__code__", None) if callable(attempt) else None


def _equal(actual: Any, expected: Any, rtol: float, atol: float) -> bool:
    got, want = _numbers(actual), _numbers(expected)
    if got is None or want is None:
        return got is None and want is None and bool(actual == expected)
    return got.shape == want.shape and bool(got.isclose(want, rtol=rtol, atol=atol).all())


def _numbers(value: Any) -> Any:
    """A float64 tensor of the value, or None when it is not made of numbers."""
    import torch

    if value is None or isinstance(value, (str, bytes, Mapping)):
        return None
    try:
        return torch.as_tensor(value).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None


def _one_line(text: str) -> str:
    return textwrap.shorten(" ".join(text.split()), 300, placeholder=" …")


class Mistake(AssertionError):
    """A wrong answer, named: `raise Mistake("you dropped the minus sign")`. The text is what the
    reader sees."""
