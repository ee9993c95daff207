"""Station "ground": files that are there whole or not at all.

What is written stands under another name until it is complete and then takes its name in one step.
A process that is killed at any moment leaves the old content or the new one, never half of it. No
other module renames files.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield a path to write to; when the block ends without an error, that file becomes `path`.

    Makes the folder of `path`. After an error `path` is as it was and the new file is gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the process in the name: two notebooks that save their progress do not write into one file
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        yield new
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write a whole text file in UTF-8."""
    with whole_file(path) as new, new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        # a rename can reach the disk before the content does: a power cut would leave it empty
        os.fsync(file.fileno())


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as a whole JSON file."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def whole_folder(folder: Path | str) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends without an error, it becomes `folder`.

    What stood in `folder` before is deleted then. A folder cannot be renamed onto a full one, so
    the old one steps aside first; a kill between the two renames is mended by `recover_folder`.
    """
    folder = Path(folder)
    new, old = _beside(folder)
    shutil.rmtree(new, ignore_errors=True)  # half a folder, where a kill left one
    new.mkdir(parents=True)
    yield new
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path | str) -> None:
    """Give `folder` its name back if a kill inside `whole_folder` left it aside."""
    folder = Path(folder)
    _, old = _beside(folder)
    if old.exists() and not folder.exists():
        os.replace(old, folder)


def remove_folder(folder: Path | str) -> None:
    """Delete `folder` and what kills may have left beside it; a kill leaves it whole or gone."""
    folder = Path(folder)
    new, old = _beside(folder)
    # the old one first, or recover_folder would bring it back after a kill
    for leftover in (old, new):
        shutil.rmtree(leftover, ignore_errors=True)
    if folder.exists():
        os.replace(folder, new)  # deleting takes many steps, and half a folder may look whole
    shutil.rmtree(new, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
