"""Loss curves as pictures: without names and with them, raw and smoothed, and a table of what each
curve tells (chapter 18)."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_lab.course.curve_runs import Curves
from sft_lab.plots import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    VERMILLION,
    new_figure,
    title_figure,
)

TOP = 7.0  # nats: higher losses leave the picture at its upper edge
BAND = "#B8BEC8"
LETTERS = "ABCDEFGHIJKLMNOPQRST"


def draw_ladder(losses: Mapping[str, float]) -> Axes:
    """The losses of some predictors as bars on one scale, the highest above."""
    ax = new_figure((8.0, 0.55 * len(losses) + 1.1)).subplots()
    order = sorted(losses.items(), key=lambda item: item[1])
    colours = [BLUE if name.startswith("base") else MUTED for name, _ in order]
    bars = ax.barh([name for name, _ in order], [loss for _, loss in order], color=colours)
    ax.bar_label(bars, fmt="%.2f", padding=4)
    ax.set(xlabel="loss (nats per graded token)", title="What to expect before the first step")
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.1)
    return ax


def draw_gallery(
    runs: Mapping[str, Curves], band: Sequence[Sequence[float]], *, names: bool
) -> Figure:
    """The losses of the runs as small pictures. Without names: a letter each. With names, and the
    band of healthy runs behind: `band` holds one curve a seed."""
    rows = math.ceil(len(runs) / 4)
    figure = new_figure((11.0, 2.25 * rows + 0.5))
    panels = figure.subplots(rows, 4, sharex=True, sharey=True).flat
    for letter, (cause, run), ax in zip(LETTERS, runs.items(), panels, strict=False):
        losses = np.array(run.losses, dtype=float)
        steps = np.arange(len(losses))
        if names:
            ax.fill_between(steps, np.min(band, 0), np.max(band, 0), color=BAND, linewidth=0)
        ax.plot(steps, losses, color=BLUE, linewidth=1.9, clip_on=True)
        ends = np.flatnonzero(~np.isfinite(losses))
        if len(ends):
            ax.text(steps[ends[0]] + 1, 3.2, "no number", color=VERMILLION, fontsize=11)
            ax.axvline(steps[ends[0]], color=VERMILLION, linewidth=1.2, linestyle=":")
        title = f"{letter} · {cause}" if names else letter
        ax.set_title(title, fontsize=12, pad=4)
        ax.set(ylim=(-0.25, TOP), xlim=(-1, len(losses)))
        ax.tick_params(labelsize=10)
    finding = "The same twelve runs, named; grey: five healthy runs" if names else "Twelve runs"
    title_figure(figure, finding)
    figure.supxlabel("step", fontsize=12)
    figure.supylabel("loss (nats per graded token)", fontsize=12)
    return figure


def draw_smoothing(losses: Sequence[float], smoothed: Mapping[str, Sequence[float]]) -> Axes:
    """The raw curve in grey, and averages of it in colour."""
    ax = new_figure((8.5, 4.0)).subplots()
    ax.plot(losses, color=BAND, linewidth=2, label="raw")
    for (name, values), colour in zip(smoothed.items(), (VERMILLION, ORANGE, BLUE), strict=False):
        ax.plot(values, color=colour, label=name)
    ax.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    ax.set_title("Where an average begins decides how it looks")
    ax.legend(loc="upper right")
    return ax


def draw_table(words: Mapping[str, Sequence[str]], columns: Sequence[str], title: str) -> Axes:
    """A table of short texts, a row a cause. A cell that begins with "held" is filled: the curve
    tells the cause from a healthy run."""
    figure = new_figure((10.5, 0.42 * len(words) + 1.2))
    ax = figure.subplots()
    for row, (cause, cells) in enumerate(words.items()):
        ax.text(-0.55, row, cause, ha="right", va="center", fontsize=12)
        for column, text in enumerate(cells):
            told = text.startswith("held")
            colour = (GREEN if column < len(columns) - 1 else VERMILLION) if told else GRID
            box = {"boxstyle": "square,pad=0.25", "facecolor": colour, "edgecolor": "none"}
            ax.text(
                column,
                row,
                f"{text:^19}",
                ha="center",
                va="center",
                fontsize=10,
                family="monospace",
                color="white" if told else INK,
                bbox=box,
            )
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(words) - 0.4, -0.6))
    ax.set_xticks(range(len(columns)), columns)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set_yticks([])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(title, pad=12)
    return ax
