"""Station "doctor": many rows are shared between two processes.

The second one is `python -m sft_lab.doctor.worker`, which reads rows as JSON from its input and
writes what it gathered to its output. So nothing is forked, nothing is imported from the reader's
own program, and it works alike on Linux, macOS and Windows. Each takes the next batch when it is
done with one; what a process that fails had taken is done again here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import Lock, Thread
from typing import Any

from tqdm import tqdm

from sft_lab.findings import RowCheck
from sft_lab.records import Conversation

BATCH = 200
# the second process needs about four seconds to start, in which the first reads as many rows
SHARED_FROM = 15_000


class Helper:
    """The second process, and the thread that feeds it. batches: those still to do, shared with the
    caller; whoever pops one does it."""

    def __init__(
        self, setup: dict[str, Any], batches: list[Sequence[Conversation]], bar: tqdm, lock: Lock
    ) -> None:
        self.batches, self.bar, self.lock = batches, bar, lock
        self.taken: list[Sequence[Conversation]] = []
        self.states: list[dict[str, Any]] | None = None  # None: it failed
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sft_lab.doctor.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self.thread = Thread(target=self._feed, args=(setup,), daemon=True)
        self.thread.start()

    def _feed(self, setup: dict[str, Any]) -> None:
        # a process that ends early closes its pipes, and json finds nothing to read
        with suppress(OSError, ValueError):
            self._ask(setup)  # it is ready: it takes no rows before, or the caller would wait
            while (batch := take(self.batches, self.lock)) is not None:
                self.taken.append(batch)
                self._ask([[turns.place, list(turns)] for turns in batch])
                with self.lock:
                    self.bar.update(len(batch))
            self.states = self._ask(None)

    def _ask(self, value: Any) -> Any:
        self.process.stdin.write(json.dumps(value).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def finish(self) -> list[dict[str, Any]] | None:
        """What its checks gathered; None where it failed, and `taken` is to be done again."""
        self.thread.join()
        return self.states

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.thread.join(timeout=5)
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()


def take(batches: list[Sequence[Conversation]], lock: Lock) -> Sequence[Conversation] | None:
    with lock:
        return batches.pop() if batches else None


def look_at_all(
    conversations: Sequence[Conversation],
    make: Callable[[], list[RowCheck]],
    setup: dict[str, Any],
    *,
    progress: bool,
    shared: bool,
) -> Iterator[list[RowCheck]]:
    """Have the checks that `make` makes look at every row. A generator of two steps: up to its
    first `yield` a second process starts, so that the caller can do something else meanwhile; the
    second step does the rest and gives the checks again, which then know all.

    shared: whether there is a second process at all, which makes its own from `setup`.
    """
    batches = [conversations[at : at + BATCH] for at in range(0, len(conversations), BATCH)]
    batches.reverse()  # popped from the end: each process goes through the rows in their order
    lock, order = Lock(), {turns.place: rank for rank, turns in enumerate(conversations)}
    bar = tqdm(
        total=len(conversations), desc="rows", unit=" rows", disable=not progress, leave=False
    )
    helper = Helper(setup, batches, bar, lock) if shared else None
    try:
        checks = make()
        yield checks
        _look(batches, checks, bar, lock)
        if helper:
            states = helper.finish()
            if states is None:
                again = make()
                _look(helper.taken[::-1], again, bar, lock)
                states = [check.state() for check in again]
            for check, state in zip(checks, states, strict=True):
                check.absorb(state, order)
        yield checks
    finally:
        if helper:
            helper.end()
        bar.close()


def _look(
    batches: list[Sequence[Conversation]], checks: Sequence[RowCheck], bar: tqdm, lock: Lock
) -> None:
    while (batch := take(batches, lock)) is not None:
        for turns in batch:
            for check in checks:
                check.look(turns.place, turns)
        with lock:
            bar.update(len(batch))
