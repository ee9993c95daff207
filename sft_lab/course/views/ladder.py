"""The ladder of chapter 07 as a picture: one run with one switch moved, over the run it should
equal."""

from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.plots import BLUE, GRID, INK, MUTED, PROMPT, VERMILLION, new_figure, title_figure

# nats per graded token: float32 rounding over some twenty steps of the same computation
TOLERANCE = 1e-5
SMALLEST = 1e-8  # what the shortest bar of `draw_differences` stands for
FLOOR = 1e-9  # what a difference of exactly 0 is drawn as: a logarithmic axis has no 0


def differences(reference: Sequence[float], losses: Sequence[float]) -> np.ndarray:
    """|loss - reference loss| of every step that both runs have, in nats per graded token.

    Raises ValueError when they have no step in common.
    """
    steps = min(len(reference), len(losses))
    if steps == 0:
        raise ValueError(
            f"{len(reference)} steps against {len(losses)}: there is no step to compare"
        )
    return np.abs(np.asarray(losses[:steps]) - np.asarray(reference[:steps]))


def describe_ladder(name: str, reference: Sequence[float], losses: Sequence[float]) -> str:
    """What `draw_ladder` shows, in words: the largest difference, its step, and whether rounding
    explains it."""
    apart = differences(reference, losses)
    step = int(apart.argmax())
    verdict = (
        "That is rounding: the same run"
        if apart[step] <= TOLERANCE
        else f"That is {apart[step] / TOLERANCE:,.0f} times the limit of {TOLERANCE:g}: another run"
    )
    first = next((index + 1 for index, value in enumerate(apart) if value > TOLERANCE), None)
    since = f" It differs from step {first} on." if first else ""
    rest = (
        f" Only {len(apart)} of {len(reference)} steps were run."
        if len(apart) < len(reference)
        else ""
    )
    return (
        f"{name}: over {len(apart)} steps the losses differ by at most {apart[step]:.1g} nats "
        f"per graded token (step {step + 1}). {verdict}.{since}{rest}"
    )


def draw_ladder(name: str, reference: Sequence[float], losses: Sequence[float]) -> Figure:
    """Left both loss curves, right their difference in every step on a logarithmic axis, with the
    limit of rounding."""
    apart = differences(reference, losses)
    steps = np.arange(1, len(apart) + 1)
    same = apart.max() <= TOLERANCE
    colour = BLUE if same else VERMILLION
    figure = new_figure((11.0, 3.9))
    left, right = figure.subplots(1, 2)
    left.plot(
        np.arange(1, len(reference) + 1), reference, color=PROMPT, linewidth=7.0, label="reference"
    )
    left.plot(
        steps,
        losses[: len(apart)],
        color=colour,
        marker="o",
        markersize=4,
        linewidth=1.6,
        label=name,
    )
    left.set(xlabel="step", ylabel="nats per graded token", xlim=(0.5, len(reference) + 0.5))
    left.set_ylim(0, 1.12 * max(*reference, *losses))
    left.set_xticks([1, *range(5, len(reference) + 1, 5)])
    left.legend(loc="lower left", labelcolor=INK)
    right.plot(
        steps, np.maximum(apart, FLOOR), color=colour, marker="o", markersize=5, linewidth=1.6
    )
    right.axhline(TOLERANCE, color=INK, linewidth=1.5, linestyle="--")
    right.annotate(
        f"limit {TOLERANCE:g}: below it, rounding",
        (1.0, TOLERANCE),
        (-4, 5),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        color=MUTED,
    )
    right.set(xlabel="step", ylabel="|difference|, nats", yscale="log", ylim=(FLOOR, 20.0))
    right.set_xlim(left.get_xlim())
    right.set_xticks(left.get_xticks())
    right.set_yticks([1e-8, 1e-6, 1e-4, 1e-2, 1.0])
    right.set_yticks([], minor=True)
    finding = (
        f"{name}: {'the same run' if same else 'another run'}, at most {apart.max():.1g} nats apart"
    )
    title_figure(figure, finding)
    return figure


def draw_differences(
    largest: Mapping[str, float], finding: str, *, grey: Sequence[str] = ()
) -> Figure:
    """A bar for each run, sorted: its largest difference to the reference, in nats per graded
    token, on a logarithmic axis. Bars begin at TOLERANCE: to the left the same run, to the right
    another. grey: runs whose losses do not compare number by number. ValueError without a run.
    """
    if not largest:
        raise ValueError("no run to compare with the reference")
    runs = sorted(largest.items(), key=lambda item: item[1])
    figure = new_figure((9.0, 1.5 + 0.42 * len(runs)))
    ax = figure.subplots()
    for row, (name, value) in enumerate(runs):
        usual = BLUE if value <= TOLERANCE else VERMILLION
        end = max(value, SMALLEST)  # a logarithmic axis has no 0
        ax.barh(
            row,
            end - TOLERANCE,
            left=TOLERANCE,
            height=0.62,
            color=MUTED if name in grey else usual,
        )
        side = 1 if value > TOLERANCE else -1
        ax.annotate(
            f"{value:.1g}".replace("e-0", "e-"),
            (end, row),
            (6 * side, 0),
            textcoords="offset points",
            va="center",
            ha="left" if side > 0 else "right",
        )
    ax.axvline(TOLERANCE, color=INK, linewidth=1.5)
    ax.set(
        xscale="log",
        xlim=(SMALLEST / 8, 20 * max(10 * TOLERANCE, runs[-1][1])),
        ylim=(len(runs) - 0.4, -1.2),
    )
    ax.text(TOLERANCE / 1.3, -0.8, "← rounding", ha="right", va="center", color=MUTED)
    ax.text(TOLERANCE * 1.3, -0.8, "another run →", va="center", color=MUTED)
    ax.set_xticks([], minor=True)
    ax.set_yticks(range(len(runs)), [name for name, _ in runs])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=GRID)
    ax.set_xlabel("largest difference to the reference (nats per graded token)")
    title_figure(figure, finding)
    return figure


def explore_ladder(
    reference: Sequence[float], runs: Mapping[str, Sequence[float]]
) -> ipywidgets.VBox:
    """Buttons, one for each run of `runs` (its switch and its losses), that draw `draw_ladder`
    below them.

    reference: the losses that every run should show. Returns the box of buttons, picture and words.
    Raises ValueError without a run.
    """
    if not runs:
        raise ValueError("no run to compare with the reference")
    buttons = choose("one switch", [(name, name) for name in runs])
    buttons.layout.flex_flow = "row wrap"

    def answer() -> Answer:
        shown = (buttons.value, reference, runs[buttons.value])
        return Answer(describe_ladder(*shown), draw_ladder(*shown))

    view, redraw = frame([buttons], answer)
    redraw_on(redraw, buttons)
    return view
