"""Under "learn": what the loop asks of the process it runs in: memory, signals, and a folder for
itself alone."""

import contextlib
import ctypes
import errno
import os
import platform
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from sft_lab.files import ANOTHER_FOLDER, OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_FILE = "in_use.lock"
LOCK_WORDS = "sft_lab: "  # how the content begins, or it is somebody else's file
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_held: set[TextIO] = set()


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks for the next step instead of giving them back to the
    kernel.

    A training step frees and asks again for the same large temporaries; handing each back costs a
    page fault per 4 KiB. Returns False where the C library is not glibc (macOS, Windows, musl):
    nothing is changed there.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    m_trim_threshold, m_mmap_threshold, one_gigabyte = -1, -3, 1 << 30  # constants of malloc.h
    # Blocks below the first threshold come from the heap and not from a mapping of their own; the
    # heap's free end goes back to the kernel only beyond the second.
    return bool(mallopt(m_mmap_threshold, one_gigabyte) and mallopt(m_trim_threshold, one_gigabyte))


@contextlib.contextmanager
def interrupt_between_steps() -> Iterator[list[int]]:
    """Collect Ctrl-C instead of raising it in the middle of an update; the list is empty until
    then."""
    received: list[int] = []
    # signals reach the main thread only, and only there may a handler be set
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def lock_folder(folder: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold `folder` alone; OutputError, with who has it, when another run holds it longer than
    `wait_seconds`.

    The lock is the kernel's (flock), so a process that dies, however it dies, lets go of it, and so
    does a block that is left by an interrupt. Two runs in one process are two as well. A forked
    child does not inherit it. Warns where the system (Windows) or the file system knows no locks.
    """
    if fcntl is None:
        _warn_of_no_lock(folder, "this system has no flock")
        yield
        return
    path, last_try = folder / LOCK_FILE, time.monotonic() + wait_seconds
    while True:
        with _open_lock(path) as file:
            if not _take(file, path):
                if time.monotonic() < last_try:
                    time.sleep(0.01)
                    continue
                owner = file.read().removeprefix(LOCK_WORDS) or "another process"
                raise OutputError(
                    f"{folder} is in use by another run ({owner})",
                    f"wait for its end, or {ANOTHER_FOLDER}",
                )
            # the run before may have deleted its lock between our opening and our locking it
            if not _is_at(file, path):
                continue
            _sign(file, path)
            _held.add(file)
            try:
                yield
            finally:
                _held.discard(file)
                if not file.closed:  # closed in a forked child, which leaves the lock alone
                    path.unlink(missing_ok=True)
            return


def _open_lock(path: Path) -> TextIO:
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    try:
        return open(path, "a+", encoding="utf-8", opener=opener)
    except OSError as error:
        raise OutputError(f"{path} cannot be opened ({error.strerror}): move it away") from error


def _take(file: TextIO, path: Path) -> bool:
    """Lock an open file, or say that somebody else has; leaves it at its beginning."""
    file.seek(0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _warn_of_no_lock(path.parent, error.strerror)
    return True


def _warn_of_no_lock(folder: Path, reason: str) -> None:
    warnings.warn(
        f"{folder} cannot be locked ({reason}): see to it that no other run writes there",
        stacklevel=2,
    )


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(file: TextIO, path: Path) -> None:
    """Say in a locked file who holds it."""
    content = file.read(len(LOCK_WORDS))
    if content and content != LOCK_WORDS:
        raise OutputError(f"{path} was not written by a run: move it away")
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"{LOCK_WORDS}process {os.getpid()} on {socket.gethostname()}, since {since}")
    file.flush()


def _let_go_in_child() -> None:
    """A forked child, such as a data loader's worker, may outlive its parent: it closes its copy of
    the lock, which leaves the parent's as it is."""
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
