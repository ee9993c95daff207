"""Under the views: one answer at a time, with figures that belong to the view alone
(`sft_lab.plots.new_figure`)."""

import functools
import threading
from collections.abc import Callable

from sft_lab.plots import answering

_turn = threading.RLock()


def one_at_a_time(answer: Callable[..., None]) -> Callable[..., None]:
    """A view's answer to its controls: never beside another one, and with figures of its own.

    An answer reads the controls when its turn has come, so the last one shows what they say then.
    """

    @functools.wraps(answer)
    def waiting(*arguments: object) -> None:
        with _turn:
            before, answering.now = getattr(answering, "now", False), True
            try:
                answer(*arguments)
            finally:
                answering.now = before

    return waiting
