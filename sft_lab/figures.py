"""Under the pictures: the figures that a notebook shows after its cell, and those that belong to a view alone."""

import functools
import threading
from collections.abc import Callable

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

_turn, _answering = threading.RLock(), threading.local()


def new_figure(figsize: tuple[float, float] | None = None) -> Figure:
    """plt.figure, which the notebook shows after the cell; or, inside a view's answer, a figure unknown to pyplot.

    JupyterLab answers every control in a thread of its own, and after each answer the notebook shows whatever figure
    pyplot knows: also one that another thread has half drawn, and that picture comes out in pieces.
    """
    return Figure(figsize=figsize) if getattr(_answering, "now", False) else plt.figure(figsize=figsize)


def one_at_a_time(answer: Callable[..., None]) -> Callable[..., None]:
    """A view's answer to its controls: never beside another one, and with figures of its own.

    An answer reads the controls when its turn has come, so the last one shows what they say then.
    """

    @functools.wraps(answer)
    def waiting(*arguments: object) -> None:
        with _turn:
            before, _answering.now = getattr(_answering, "now", False), True
            try:
                answer(*arguments)
            finally:
                _answering.now = before

    return waiting
