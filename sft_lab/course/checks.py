"""Exercise checks: `check("1.2", answer)` says in one line whether an answer holds and, if not,
which mistake it is. The checks themselves stand in `sft_lab/course/exercises`.

SFT_LAB_STRICT=1 turns every line but ✓ into an AssertionError and records nothing (this is how
solutions are run). SFT_LAB_PROGRESS names the file of the reader's progress; without it,
`~/.sft_lab/progress.json`.
"""

import contextlib
import importlib
import inspect
import os
import random
import textwrap
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from sft_lab.course.exercises.kit import CHECKS, Check, Mistake, watch
from sft_lab.course.progress import (
    ATTEMPTED,
    NOT_ATTEMPTED,
    SOLVED,
    ProgressError,
    progress,
    record,
    sort_key,
)

__all__ = ["check", "is_untouched", "progress"]


def check(exercise_id: str, attempt: Any) -> None:
    """Print one line: `1.2 ✓ what was shown`, `1.2 ✗ the mistake`, or `1.2 not attempted yet`.

    The check sees new random numbers at every call, and the notebook gets its own random state
    back. ValueError when there is no such exercise. With SFT_LAB_STRICT=1 all but ✓ raises
    `Mistake`.
    """
    chosen = _find_check(exercise_id)
    strict = os.environ.get("SFT_LAB_STRICT", "0") not in ("", "0")
    state, text, cause = _judge(chosen, attempt)
    line = f"{exercise_id} {text}"
    if strict and state != SOLVED:
        raise Mistake(line) from cause
    print(line)
    if not strict and state != NOT_ATTEMPTED:
        try:
            record(exercise_id, state)
        except ProgressError as error:
            print(f"Progress not saved: {error}")


def is_untouched(attempt: Any, error: Exception | None = None) -> bool:
    """True for a stub as shipped: `...`, a tuple or list with `...` in it, or code of the reader's
    that ended its check (with `error`) by a bare `raise NotImplementedError`.

    A stub is known by what happens when it is called: its text may be gone or older than the code.
    """
    if error is None:
        items = attempt if isinstance(attempt, tuple | list) else [attempt]
        return any(item is ... for item in items)
    # Libraries raise this error too: with a message, or from a file of theirs.
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1:] == _own_frames(frames, attempt)[-1:]
    return isinstance(error, NotImplementedError) and not error.args and last


def _judge(chosen: Check, attempt: Any) -> tuple[str, str, Exception | None]:
    """The state of the exercise, the line for the reader, and the exception behind it."""
    if is_untouched(attempt):
        return NOT_ATTEMPTED, "not attempted yet", None
    try:
        with _fresh_random_numbers():
            watched = watch(
                attempt, may_return_none=chosen.may_return_none, may_train=chosen.may_train
            )
            shown = chosen.run(watched)
    except Exception as error:  # whatever the reader's code raises becomes one line
        if is_untouched(attempt, error):
            return NOT_ATTEMPTED, "not attempted yet", error
        return ATTEMPTED, f"✗ {_explain(error, attempt)}", error
    return SOLVED, f"✓ {shown or inspect.getdoc(chosen.run) or 'right'}", None


def _find_check(exercise_id: str) -> Check:
    chapter, _ = sort_key(exercise_id)
    name = f"sft_lab.course.exercises.ch{chapter}"
    if exercise_id not in CHECKS:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # the chapter's checks are there, and need something that is not
                raise
    if exercise_id not in CHECKS:
        known = sorted((i for i in CHECKS if sort_key(i)[0] == chapter), key=sort_key)
        raise ValueError(
            f"no exercise {exercise_id} in {name}: known there: {', '.join(known) or 'none'}"
        )
    return CHECKS[exercise_id]


def _explain(error: Exception, attempt: Any) -> str:
    """One line for the reader: the named mistake, or the line of their own code that raised."""
    message = textwrap.shorten(" ".join(str(error).split()), 300, placeholder=" …")
    if isinstance(error, Mistake):
        return message
    message = ", ".join([message, *getattr(error, "__notes__", [])])  # for which input
    frames = traceback.extract_tb(error.__traceback__)
    kind = type(error).__name__
    if own := _own_frames(frames, attempt):
        return f"line {own[-1].lineno} of your code, `{own[-1].line}`: {kind}: {message}"
    if isinstance(error, AssertionError):
        return message or f"this does not hold: `{frames[-1].line}`"
    kept = "keep the arguments and the type of the result that the stub names"
    return f"the check could not use your answer: {kind}: {message}; {kept}"


def _own_frames(frames: list[traceback.FrameSummary], attempt: Any) -> list[traceback.FrameSummary]:
    """The frames that lie in the reader's own code: in the file of the answer, or in a cell."""
    if inspect.isclass(attempt):  # the file of its first method
        attempt = next((item for item in vars(attempt).values() if inspect.isfunction(item)), None)
    code = getattr(inspect.unwrap(attempt), "__code__", None) if callable(attempt) else None
    own_file = code.co_filename if code else ""
    return [
        frame for frame in frames if frame.filename == own_file or "ipykernel_" in frame.filename
    ]


@contextlib.contextmanager
def _fresh_random_numbers() -> Iterator[None]:
    state, torch_state = random.getstate(), torch.get_rng_state()
    random.seed()
    torch.default_generator.seed()
    try:
        yield
    finally:
        random.setstate(state)
        torch.set_rng_state(torch_state)
