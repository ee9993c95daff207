"""A learning-rate schedule and the run that it makes (chapter 04): sliders for peak, warm-up and
steps.

A view must answer at once, so it trains an output head alone (`sft_lab.course.head_training`): a
real run all the same, made anew at every move of a slider.
"""

from collections.abc import Sequence

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_lab.course.head_training import HeadRun, HeadTask, describe_outcome, train_head
from sft_lab.course.views.widgets import Answer, frame, redraw_on
from sft_lab.plots import ANSWER, BLUE, INK, MUTED, PROMPT, VERMILLION, new_figure, title_figure

# Ends of the axes, fixed: two settings can be compared by eye.
MOST_STEPS, LEAST_NATS, MOST_NATS = 150, 0.25, 50.0
SMOOTH = 9  # steps of the running mean


def describe_schedule(run: HeadRun) -> str:
    """What `draw_schedule` shows, in words: the schedule, and what became of the loss."""
    steps, top = len(run.rates), int(np.argmax(run.rates))
    rise = (
        f"rises to {run.rates[top]:.2g} in {top} steps and"
        if top
        else f"starts at {run.rates[0]:.2g} and"
    )
    return (
        f"The learning rate {rise} has fallen to {run.rates[-1]:.1g} in the last of {steps} "
        f"steps. Over all tokens the loss goes from {run.before:.2f} to {run.after:.2f} nats per "
        f"graded token; its highest step is {max(run.losses):.1f}. {describe_outcome(run)}."
    )


def draw_schedule(run: HeadRun, previous: HeadRun | None = None) -> Figure:
    """Left the learning rate of every step, right the loss of every step and its running mean;
    `previous` in grey."""
    figure = new_figure((11.0, 3.9))
    rates, losses = figure.subplots(1, 2, width_ratios=(1, 1.25))
    if previous is not None:
        _draw_run(rates, losses, previous, "the setting before", color=PROMPT, linestyle="--")
    losses.plot(_steps(run), run.losses, color=BLUE, alpha=0.25, linewidth=1.2)
    _draw_run(rates, losses, run, "this run", color=BLUE, linestyle="-")
    rates.set(xlim=(0, MOST_STEPS), xlabel="step", ylabel="learning rate")
    rates.set_ylim(0, 1.1 * max(run.rates) if max(run.rates) > 0 else 1)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    above = " (part lies above the axis)" if max(run.losses) > MOST_NATS else ""
    losses.set(xlim=(0, MOST_STEPS), yscale="log", ylim=(LEAST_NATS, MOST_NATS))
    losses.set(xlabel=f"step{above}", ylabel="nats per graded token")
    losses.set_yticks([0.5, 1, 2, 4, 8, 16, 32], ["0.5", "1", "2", "4", "8", "16", "32"])
    losses.set_yticks([], minor=True)
    _mark_ends(losses, run)
    if previous is not None:
        losses.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=11, labelcolor=MUTED
        )
    outcome, _, _ = describe_outcome(run).partition(":")
    title_figure(
        figure,
        f"{outcome}: {run.before:.2f} → {run.after:.2f} nats per token in {len(run.losses)} steps",
    )
    return figure


def draw_shape(rates: Sequence[float], warmup: int) -> Axes:
    """The learning rate of every step, with its start, its peak and its middle marked."""
    ax = new_figure((8.5, 3.4)).subplots()
    ax.plot(range(len(rates)), rates, color=BLUE)
    half = warmup + (len(rates) - warmup) // 2
    notes = {
        0: f"step 0: rate {rates[0]:g}",
        warmup: "warm-up ends: the peak",
        half: "half-way down: half the peak",
    }
    for step, words in notes.items():
        place = (step, rates[step])
        ax.scatter(*place, s=60, color=ANSWER, edgecolor=INK, zorder=3, clip_on=False)
        ax.annotate(words, place, (12, 2), textcoords="offset points")
    ax.set(xlabel="step", ylabel="learning rate", xlim=(-1, len(rates)))
    ax.set_ylim(0, 1.12 * max(rates))
    ax.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    ax.set_title("Rise in a line, fall along a cosine")
    return ax


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Centred running mean over SMOOTH steps; at the ends over those that there are."""
    weights = np.ones(min(SMOOTH, len(losses)))
    return np.convolve(losses, weights, "same") / np.convolve(np.ones(len(losses)), weights, "same")


def explore_schedule(
    task: HeadTask, *, peak: float = 1e-2, warmup_ratio: float = 0.1, steps: int = 100
) -> ipywidgets.VBox:
    """Sliders for peak learning rate, warm-up and steps; each move trains anew and draws
    `draw_schedule`.

    The run before the last move stays in grey. Returns the box of controls, picture and words.
    """
    looks = {
        "continuous_update": False,
        "style": {"description_width": "9em"},
        "layout": ipywidgets.Layout(width="36em"),
    }
    rate = ipywidgets.FloatLogSlider(
        value=peak,
        base=10,
        min=-5,
        max=0,
        step=0.25,
        readout_format=".1e",
        description="learning rate",
        **looks,
    )
    warmup = ipywidgets.FloatSlider(
        value=warmup_ratio,
        min=0.0,
        max=0.5,
        step=0.05,
        readout_format=".0%",
        description="warm-up",
        **looks,
    )
    count = ipywidgets.IntSlider(
        value=steps, min=20, max=MOST_STEPS, step=10, description="steps", **looks
    )
    runs: list[HeadRun] = []

    def answer() -> Answer:
        runs.append(train_head(task, peak=rate.value, warmup_ratio=warmup.value, steps=count.value))
        del runs[:-2]
        previous = runs[0] if len(runs) > 1 else None
        return Answer(describe_schedule(runs[-1]), draw_schedule(runs[-1], previous))

    view, redraw = frame([rate, warmup, count], answer)
    redraw_on(redraw, rate, warmup, count)
    return view


def _steps(run: HeadRun) -> np.ndarray:
    return np.arange(1, len(run.rates) + 1)


def _draw_run(rates: Axes, losses: Axes, run: HeadRun, name: str, **line: str) -> None:
    """The schedule of a run, and the running mean of its losses."""
    rates.plot(_steps(run), run.rates, **line)
    losses.plot(_steps(run), smooth(run.losses), label=name, **line)


def _mark_ends(ax: Axes, run: HeadRun) -> None:
    """The loss over all tokens before the run, as a line, and after it, as a point."""
    ax.axhline(run.before, color=VERMILLION, linestyle=":", linewidth=1.6)
    ax.annotate(
        f"before training {run.before:.2f}",
        (MOST_STEPS, run.before),
        (-2, 5),
        ha="right",
        textcoords="offset points",
        color=VERMILLION,
        fontsize=11,
    )
    end = (len(run.losses), min(run.after, MOST_NATS))
    ax.scatter(*end, s=70, color=BLUE, edgecolor=INK, zorder=3, clip_on=False)
    room = len(run.losses) < 120  # to the right of the point
    ax.annotate(
        f"{run.after:.2f} after",
        end,
        (6 if room else -6, 10),
        textcoords="offset points",
        fontweight="bold",
        ha="left" if room else "right",
    )
