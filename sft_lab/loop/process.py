"""Under "learn": what the loop asks of the process it runs in: memory and signals."""

import contextlib
import ctypes
import platform
import signal
import threading
from collections.abc import Iterator


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
