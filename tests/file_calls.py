"""A kill before any call that changes files below a folder, without a process of its own."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.symlink")
_watch: dict = {"folder": None}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@contextlib.contextmanager
def killed_before_call(number: int | None, folder: Path) -> Iterator[list[str]]:
    """Raise Killed at call `number` (from 0) that changes something in `folder`, and at all that
    follow: what is killed does not clean up. Yields the names of the calls; None only counts."""
    calls: list[str] = []
    _watch.update(folder=str(folder), number=number, calls=calls)
    try:
        yield calls
    finally:
        _watch["folder"] = None


def _hook(event: str, arguments: tuple) -> None:
    folder = _watch["folder"]
    if folder is None or not (event in CHANGES or event == "open"):
        return
    path = arguments[0]
    if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(folder):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    _watch["calls"].append(event)
    if _watch["number"] is not None and len(_watch["calls"]) > _watch["number"]:
        raise Killed


sys.addaudithook(_hook)  # cannot be taken away again: it looks at nothing while no folder is set
