"""Under "learn": what the loop asks of the process it runs in: memory, signals, and number formats."""

import contextlib
import ctypes
import platform
import signal
import threading
from collections.abc import Iterator, Sequence

import torch


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks for the next step instead of giving them back to the kernel.

    A training step frees and asks again for the same large temporaries; handing each back costs a page fault per
    4 KiB. Returns False where the C library is not glibc (macOS, Windows, musl): nothing is changed there.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    m_trim_threshold, m_mmap_threshold, one_gigabyte = -1, -3, 1 << 30  # constants of malloc.h
    return bool(mallopt(m_mmap_threshold, one_gigabyte) and mallopt(m_trim_threshold, one_gigabyte))


@contextlib.contextmanager
def interrupt_between_steps() -> Iterator[list[int]]:
    """Collect Ctrl-C instead of raising it in the middle of an update; the list is empty until then."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield received
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def float32_updates(parameters: Sequence[torch.nn.Parameter]) -> Iterator[torch.autocast]:
    """Hold bfloat16 parameters in float32 while they are trained; yields the autocast to run the model under.

    A bfloat16 number has 8 significant bits, so an update smaller than 1/256 of a weight is rounded away, and SFT's
    updates are smaller than that. The matrix products still run in bfloat16. Afterwards the parameters have their
    format back. Raises ValueError for float16, whose gradients also need a loss scale.
    """
    if any(parameter.dtype == torch.float16 for parameter in parameters):
        raise ValueError(
            "trainable weights are float16, in which small gradients and updates vanish: load the model in float32, "
            'load(name, dtype=torch.float32), or call model.float()'
        )
    half = [parameter for parameter in parameters if parameter.dtype == torch.bfloat16]
    for parameter in half:
        parameter.data = parameter.data.float()
    try:
        yield torch.autocast(parameters[0].device.type, dtype=torch.bfloat16, enabled=bool(half))
    finally:
        for parameter in half:
            parameter.data = parameter.data.bfloat16()
