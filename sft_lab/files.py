"""Station "ground": files that are there whole or not at all, and nothing of the reader's lost.

What is written stands under another name until it is complete and then takes its name in one step.
A process that is killed at any moment leaves the old content or the new one, never half of it. No
other module renames files.

Whole folders are deleted and replaced, so each says whose it is: its file MARK lists what was
written into it. What has no mark, and what the mark does not list, is never renamed over or
deleted, and no symbolic link is followed to do so.
"""

import contextlib
import fnmatch
import itertools
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MARK = "written_files.json"
STAGING = "result.new"  # in a folder that is shared with files of others
_count = itertools.count()


ANOTHER_FOLDER = "give another folder"


class OutputError(OSError):
    """A file or folder that cannot be written, or is not ours to replace; it has not been
    touched.

    `what` is wrong, and the `advice` is for those who can choose where to write ("" where it stands
    in `what`).
    """

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(f"{what}: {advice}" if advice else what)
        self.what, self.advice = what, advice


@contextlib.contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield a path to write to; when the block ends without an error, that file becomes `path`.

    Makes the folder of `path`. After an error `path` is as it was and the new file is gone.
    OutputError where `path` is a folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise OutputError(f"{path} is a folder, and a file is to be written", "give another name")
    _remove_leftovers(path)
    # process and count in the name: two notebooks, or two threads, do not write into one file
    new = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}-{next(_count)}.new")
    try:
        yield new
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write a whole text file in UTF-8."""
    with whole_file(path) as new:
        new.write_text(text, encoding="utf-8")
        _sync(new)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as a whole JSON file."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def check_writable(path: Path | str) -> None:
    """Raise OutputError if the file `path` could not be written: now, and not after the work.

    Makes the folder of `path`.
    """
    path = Path(path)
    check_folder_writable(path.parent)
    if path.is_dir():
        raise OutputError(f"{path} is a folder, and a file is to be written", "give another name")


def check_folder_writable(folder: Path | str) -> None:
    """Make `folder` where there is none; raise OutputError if no file could be written in it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))  # opening alone works on a full disk
    except OSError as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "it, or what it lies in, is a file" if is_file else error.strerror
        raise OutputError(
            f"nothing can be written in {folder} ({reason})", ANOTHER_FOLDER
        ) from error


def as_folder(name: str, value: Path | str) -> Path:
    """`value`, which a caller gave as `name`, as the path of a folder; "~" is the home folder.
    OutputError for what no folder can be called."""
    try:
        if not isinstance(value, str | os.PathLike):
            raise TypeError("it must be the name of a folder, a text or a Path")
        folder = Path(value).expanduser()
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # there is none yet, or check_folder_writable says more
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(
            f"{name} is {value!r:.60}: no folder can be called that ({reason})"
        ) from error
    return folder


@contextlib.contextmanager
def whole_folder(folder: Path | str) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends without an error, it becomes `folder`.

    What was written in `folder` before is deleted then; files that somebody else put there stay. A
    folder cannot be renamed onto a full one, so the old one steps aside first; a kill between the
    two renames is mended by `recover_folder`. OutputError as in `check_folder`.
    """
    folder = Path(folder)
    recover_folder(folder)
    new, old = _beside(folder)
    for leftover in (new, old):  # half a folder, where a kill left one
        _discard(leftover, folder)
    try:
        _make(new)
        yield new
        names = _finish(new)
        there = set(os.listdir(folder)) if folder.exists() else set()
        theirs = there - _written(folder) - {MARK}
        if both := theirs & names:
            raise _not_ours(folder / min(both))
    except Exception:
        _discard(new, folder)  # after "no space left", half a folder would keep the space
        raise
    for name in theirs:
        os.replace(folder / name, new / name)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    _discard(old, folder)


def check_folder(folder: Path | str) -> None:
    """Raise OutputError if `folder`, or what `whole_folder` keeps beside it for a moment, is a
    file, a symbolic link, or a folder that `whole_folder` did not write."""
    for place in (Path(folder), *_beside(Path(folder))):
        if not os.path.lexists(place):
            continue
        real = place.is_dir() and not place.is_symlink()
        if not real or not _is_ours(place):
            kind = "folder" if real else "symbolic link" if place.is_symlink() else "file"
            raise _not_ours(place, f" is a {kind} that")


def recover_folder(folder: Path | str) -> None:
    """Give `folder` its name back if a kill inside `whole_folder` left it aside; OutputError as in
    `check_folder`."""
    folder = Path(folder)
    check_folder(folder)
    _, old = _beside(folder)
    if old.exists() and not folder.exists():
        os.replace(old, folder)


def remove_folder(folder: Path | str) -> None:
    """Delete what `whole_folder` wrote, and what kills may have left beside it; a kill leaves it
    whole or gone. Files that somebody else put into `folder` stay. OutputError as in
    `check_folder`."""
    folder = Path(folder)
    check_folder(folder)
    new, old = _beside(folder)
    # the old one first, or recover_folder would bring it back after a kill
    for leftover in (old, new):
        _discard(leftover, folder)
    if folder.exists():
        os.replace(folder, new)  # deleting takes many steps, and half a folder may look whole
        _discard(new, folder)
        if new.exists():
            os.replace(new, folder)  # with the files of somebody else alone


@contextlib.contextmanager
def whole_files(
    folder: Path | str, *, last: Sequence[str] = (), keep: bool = False
) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends without an error, its files take their
    places in `folder`, beside those of others.

    What an earlier call wrote in `folder` is replaced, or deleted if it is not written again (with
    `keep` it stays); the files named `last`, without which the others say nothing, go first and
    come last. After an error `folder` is as it was. OutputError where a file of somebody else would
    be replaced.
    """
    folder = Path(folder)
    check_files(folder, ())
    new = folder / STAGING
    _discard(new, folder)
    try:
        _make(new)
        yield new
        names = _finish(new)
        before = _written(folder)
        theirs = {name for name in names - before if os.path.lexists(folder / name)}
        # a folder below that is a link would lead the writing and deleting elsewhere
        below = {str(above) for name in names | before for above in Path(name).parents} - {"."}
        theirs |= {name for name in below if (folder / name).is_symlink()}
        if theirs:
            raise _not_ours(folder / min(theirs))
    except Exception:
        _discard(new, folder)
        raise
    _mark(folder, before | names)  # before they move: after a kill they are known to be ours
    kept = before - names if keep else set()
    for name in [*last, *(before - names - kept)]:
        if name in before:
            (folder / name).unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: (name in last, name)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(new / name, folder / name)
    _mark(folder, names | kept)
    _discard(new, folder)


def check_files(folder: Path | str, patterns: Sequence[str]) -> None:
    """Raise OutputError if `folder` holds a file that `whole_files` did not write and would
    replace: its list, or one whose name matches one of `patterns` ("*" is any text)."""
    folder = Path(folder)
    check_folder(folder / STAGING)
    if os.path.lexists(folder / MARK) and not _read_mark(folder):
        raise _not_ours(folder / MARK)
    # by their names: Path.glob finds no link that leads nowhere
    names = set(os.listdir(folder)) - _written(folder) if folder.exists() else set()
    if theirs := [
        name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]:
        raise _not_ours(folder / min(theirs))


def _not_ours(place: Path, kind: str = "") -> OutputError:
    return OutputError(
        f"{place}{kind} was not written by this program, which would replace it",
        f"move it away, or {ANOTHER_FOLDER}",
    )


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")


def _make(folder: Path) -> None:
    """Make a folder that is ours as a whole until `_finish` lists its files."""
    folder.mkdir(parents=True)
    (folder / MARK).write_text(json.dumps({"written by": "sft_lab"}), encoding="utf-8")


def _finish(folder: Path) -> set[str]:
    """List the files of a filled folder in its mark; returns them as paths relative to it."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != MARK]
    for path in paths:
        _sync(path)
    names = {path.relative_to(folder).as_posix() for path in paths}
    _mark(folder, names)
    return names


def _mark(folder: Path, names: set[str]) -> None:
    write_json(folder / MARK, {"written by": "sft_lab", "files": sorted(names)})


def _read_mark(folder: Path) -> dict[str, Any]:
    """The content of a mark of ours, {} for anything else."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(mark, dict) or mark.get("written by") != "sft_lab":
        return {}
    names = mark.get("files", [])
    # a name that leads out of the folder is not from here, and nothing out there is ours
    inside = isinstance(names, list) and all(
        isinstance(name, str) and ".." not in Path(name).parts and not Path(name).is_absolute()
        for name in names
    )
    return mark if inside else {}


def _written(folder: Path) -> set[str]:
    return set(_read_mark(folder).get("files", []))


def _is_ours(folder: Path) -> bool:
    """Whether `_make` made it, or there is nothing in it (a kill can come before the mark)."""
    names = os.listdir(folder)
    empty_mark = names == [MARK] and not (folder / MARK).stat().st_size
    return not names or empty_mark or bool(_read_mark(folder))


def _discard(folder: Path, heir: Path) -> None:
    """Delete what we wrote in a folder of ours, the mark last, and the folder if nothing is left;
    files of others move into `heir` where there is one."""
    if not folder.exists():
        return
    files = _read_mark(folder).get("files")
    ours = set(os.listdir(folder)) if files is None else {name.split("/")[0] for name in files}
    for name in set(os.listdir(folder)) - {MARK}:
        path = folder / name
        if name in ours:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        elif heir.exists() and not os.path.lexists(heir / name):
            os.replace(path, heir / name)
    (folder / MARK).unlink(missing_ok=True)
    if not os.listdir(folder):
        folder.rmdir()


def _sync(path: Path) -> None:
    """Have the content on the disk: a rename can reach it before the content does, and a power cut
    would leave an empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _remove_leftovers(path: Path) -> None:
    """Delete what processes that were killed inside `whole_file(path)` on this machine left."""
    if os.name != "posix":  # elsewhere os.kill(…, 0) does not ask
        return
    pattern = rf"{re.escape(path.name)}\.{re.escape(socket.gethostname())}-(\d+)-\d+\.new"
    for name in os.listdir(path.parent):
        if (found := re.fullmatch(pattern, name)) and not _is_alive(int(found[1])):
            (path.parent / name).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # there, but another user's
    return True
