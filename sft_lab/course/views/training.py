"""Pictures of chapters 04 and 04b: the loop and its three functions, what a sweep of rates found,
a run that memorises, a run that is cut and goes on."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from sft_lab.course.results import Results
from sft_lab.course.views.widgets import show_widget
from sft_lab.plots import (
    ANSWER,
    BLUE,
    GRID,
    INK,
    MUTED,
    PROMPT,
    VERMILLION,
    new_figure,
    title_figure,
)

PALE_BLUE, PALE_ORANGE = "#E3EEF7", "#FBEBD0"


def draw_rungs() -> Figure:
    """The three functions of the loop, each inside the one that calls it."""
    figure = new_figure((11.0, 3.3))
    ax = figure.subplots()
    _box(ax, 0.0, 0.0, 11.0, 3.0, "white", "sft: a run", "the order of the examples")
    ax.text(0.25, 1.7, "the learning rate of every step", color=MUTED, fontsize=12)
    ax.text(0.25, 0.25, "an evaluation after every epoch", color=MUTED, fontsize=12)
    _box(ax, 3.6, 0.2, 7.2, 2.45, PALE_BLUE, "step: one update", "counts the graded tokens")
    ax.text(3.85, 0.4, "clips · sets the rate · AdamW", color=MUTED, fontsize=12)
    _box(ax, 6.9, 0.4, 3.7, 1.6, PALE_ORANGE, "run_batch: a loss", "forward, shift, mask,")
    ax.text(7.15, 0.65, "sum of the losses", color=MUTED, fontsize=12)
    ax.set(xlim=(-0.05, 11.05), ylim=(-0.05, 3.05))
    ax.axis("off")
    title_figure(figure, "Three functions, each called by the next")
    return figure


def draw_state() -> Figure:
    """What a run consists of between two steps."""
    parts = {
        "weights": "all parameters\nand buffers",
        "averages": "AdamW's m and v,\nand its step count t",
        "schedule": "which step it is:\nthe next rate",
        "order": "which rows\ncome next",
    }
    figure = new_figure((11.0, 2.0))
    ax = figure.subplots()
    for place, (name, words) in enumerate(parts.items()):
        _box(ax, 2.75 * place, 0.0, 2.5, 1.6, PALE_BLUE, name, "")
        ax.text(2.75 * place + 0.25, 0.3, words, color=INK, fontsize=12)
    ax.set(xlim=(-0.05, 10.8), ylim=(-0.05, 1.65))
    ax.axis("off")
    title_figure(figure, "A run between two steps")
    return figure


def draw_rates(results: Results, here: float) -> Axes:
    """Held-out loss after a short run, against its peak learning rate: a dot for every seed, a line
    through the means, and the run of this moment.

    results: rows with `rate`, `seed`, `loss` and `before` (the base's loss). here: the loss at
    1e-3.
    """
    rates = sorted({row["rate"] for row in results.rows})
    means = [np.mean(results.measured("loss", rate=rate)) for rate in rates]
    ax = new_figure((9.5, 4.6)).subplots()
    ax.plot(rates, means, color=BLUE, zorder=2)
    for rate in rates:
        losses = results.measured("loss", rate=rate)
        ax.scatter([rate] * len(losses), losses, s=26, color="white", edgecolor=BLUE, zorder=3)
    ax.scatter([1e-3], [here], s=110, color=ANSWER, edgecolor=INK, zorder=4, label="run here")
    before = results.rows[0]["before"]
    ax.axhline(before, color=VERMILLION, linestyle=":", linewidth=1.8)
    ax.annotate(
        "before training", (rates[0], before), (0, 6), textcoords="offset points", color=VERMILLION
    )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="peak learning rate",
        ylabel="held-out nats per graded token",
    )
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_yticks([], minor=True)
    ax.set_title("Too low: nothing happens. Too high: the model breaks")
    ax.legend(loc="lower right")
    return ax


def draw_two_accuracies(
    steps: Sequence[int], tokens: Sequence[float], answers: Sequence[float]
) -> Axes:
    """Token accuracy and the share of right answers, as a run goes on."""
    ax = new_figure((9.0, 4.2)).subplots()
    for name, shares, colour in (
        ("a token, after the right tokens", tokens, BLUE),
        ("a whole answer, after its own tokens", answers, ANSWER),
    ):
        ax.plot(steps, shares, color=colour, marker="o", label=name)
        ax.annotate(
            f"{shares[0]:.0%}",
            (steps[0], shares[0]),
            (0, 9),
            textcoords="offset points",
            fontweight="bold",
            color=colour,
        )
    ax.set(xlabel="step", ylabel="right", ylim=(-0.03, 1.08))
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    ax.set_title("Most tokens are right long before an answer is")
    ax.legend(loc="lower right")
    return ax


def draw_fit(seen: Sequence[Sequence[float]], unseen: Sequence[Sequence[float]]) -> Axes:
    """Training and validation loss of every epoch, a line a seed; the lowest validation losses are
    dots. seen has no value before training, unseen has."""
    ax = new_figure((9.0, 4.2)).subplots()
    for runs, colour, name, first in (
        (seen, BLUE, "training", 1),
        (unseen, VERMILLION, "validation", 0),
    ):
        for number, run in enumerate(runs):
            places = range(first, first + len(run))
            ax.plot(places, run, color=colour, linewidth=2.0, label="" if number else name)
    for run in unseen:
        best = int(np.argmin(run))
        ax.scatter([best], [run[best]], s=80, color=ANSWER, edgecolor=INK, zorder=3)
    ax.set(xlabel="epoch (24 examples)", ylabel="nats per graded token", ylim=(0, None))
    ax.set_title("The training loss goes on falling, the validation loss turns up")
    ax.legend(loc="upper right")
    return ax


def draw_cut(limits: Sequence[int], shares: Mapping[str, Sequence[float]]) -> Axes:
    """What a length limit leaves of the examples: shares that add up to 1 at every limit."""
    ax = new_figure((9.0, 3.8)).subplots()
    ax.stackplot(limits, *shares.values(), colors=[BLUE, ANSWER, PROMPT], labels=list(shares))
    ax.set(xlim=(limits[0], limits[-1]), ylim=(0, 1))
    ax.set(xlabel="length limit (tokens)", ylabel="share of the examples")
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.set_title("A cut takes the end of the answer first")
    return ax


def draw_events(events: Any) -> Figure:
    """The two losses of a run, from its TensorBoard events."""
    figure = new_figure((9.0, 3.8))
    ax = figure.subplots()
    for tag, colour in {"train/loss": BLUE, "eval/loss": VERMILLION}.items():
        points = events.Scalars(tag)
        steps = [point.step for point in points]
        ax.plot(steps, [point.value for point in points], color=colour, label=tag)
    ax.set(xlabel="step", ylabel="nats per graded token", ylim=(0, None))
    ax.set_title("The gap between the two is the over-fitting")
    ax.legend()
    return figure


def draw_resume(runs_of: Mapping[str, Sequence[Sequence[Mapping]]], cut: int) -> Figure:
    """Runs that were cut and went on, with their averages and without: left how far each step moved
    the weights, right the losses. runs_of: "nothing" and "averages" were lost; a run a seed."""
    figure = new_figure((11.5, 4.2))
    looks = {
        "nothing": ("whole state", BLUE),
        "averages": ("averages lost", VERMILLION),
    }
    panels = {"moved": "learning rates per weight", "loss": "nats per graded token"}
    for ax, (measure, unit) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for lost, (name, colour) in looks.items():
            for number, run in enumerate(runs_of[lost]):
                values = [one[measure] for one in run]
                line = "-" if lost == "nothing" else "--"
                label = "" if number else name
                ax.plot(range(len(run)), values, line, color=colour, linewidth=1.6, label=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.axvline(cut, color=MUTED, linestyle=":", linewidth=1.6)
        ax.set(xlabel="step", ylabel=unit, ylim=(0, None))
        ax.legend()
    figure.axes[0].set_title("mean move of a weight")
    figure.axes[1].set_title("training loss")
    title_figure(figure, "Without its averages the update leaps; the loss does not tell")
    return figure


def open_tensorboard(folder: Path, still: Figure) -> None:
    """Show TensorBoard inside the notebook, and `still` where no kernel runs."""
    if "google.colab" in sys.modules:
        get_ipython().run_line_magic("load_ext", "tensorboard")
        get_ipython().run_line_magic("tensorboard", f"--logdir {folder}")
        return
    from tensorboard import program

    server = program.TensorBoard()
    server.configure(argv=[None, "--logdir", str(folder), "--port", "0", "--load_fast", "false"])
    # the losses alone, as they are
    address = f"{server.launch()}?tagFilter=%2Floss&smoothing=0#timeseries"
    frame = f'<iframe src="{address}" title="TensorBoard" width="100%" height="620"></iframe>'
    show_widget(ipywidgets.HTML(frame, layout={"width": "100%"}), still)


def _box(
    ax: Axes, x: float, y: float, wide: float, tall: float, colour: str, name: str, words: str
) -> None:
    """A rounded box with a name in its upper left corner, and words below it."""
    shape = "round,pad=0,rounding_size=0.15"
    box = FancyBboxPatch((x, y), wide, tall, boxstyle=shape, facecolor=colour, edgecolor=GRID)
    ax.add_patch(box)
    ax.text(x + 0.25, y + tall - 0.48, name, fontweight="bold", fontsize=14, color=INK)
    ax.text(x + 0.25, y + tall - 0.9, words, fontsize=12, color=MUTED)
