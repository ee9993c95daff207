"""The ladder of chapter 07 as a picture: one run with one switch moved, over the run it should
equal."""

from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.plots import BLUE, INK, MUTED, PROMPT, VERMILLION, new_figure, title_figure

# nats per graded token: float32 rounding over some twenty steps of the same computation
TOLERANCE = 1e-5
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
    right.axhspan(FLOOR, TOLERANCE, color=PROMPT, alpha=0.45, linewidth=0)
    right.text(
        0.99,
        0.02,
        f"rounding: below {TOLERANCE:g}",
        transform=right.transAxes,
        ha="right",
        color=MUTED,
    )
    right.plot(
        steps, np.maximum(apart, FLOOR), color=colour, marker="o", markersize=5, linewidth=1.6
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
