"""How much of task B was learned, and what is left of task A (chapter 13)."""

from collections.abc import Sequence

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from sft_lab.course.results import Results
from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.plots import ANSWER, BLUE, GREEN, INK, PROMPT, VERMILLION, new_figure

LENGTHS = {steps: f"{16 * steps} lessons once" for steps in (2, 4, 8, 16, 32)} | {76: "plain"}
SHARES = {
    "old": "task A, all of it",
    "convention": "its convention alone",
    "fact": "its fact alone",
    "facts": "known facts, as plain text",
    "new": "task B",
}
COLOURS = {"old": VERMILLION, "convention": ANSWER, "fact": ANSWER, "facts": PROMPT, "new": GREEN}


def describe_overwrite(results: Results, steps: int) -> str:
    """What `draw_overwrite` shows, in words: means over the seeds."""
    mean = {name: np.mean(_seeds(results, steps, name)) for name in (*SHARES, "text_loss")}
    said = ", ".join(f"{label} {mean[name]:.0%}" for name, label in SHARES.items())
    return (
        f"After {steps} steps of task B: {said}. Plain text: {mean['text_loss']:.2f} nats a token."
    )


def draw_overwrite(results: Results, steps: int) -> Figure:
    """The shares after so many steps of task B, a dot a seed; on the right their way there.

    results: the recorded sweep 13_causes. Each length is a run of its own, with its own schedule.
    """
    figure = new_figure((12.0, 4.6))
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    for row, name in enumerate(SHARES):
        seeds = _seeds(results, steps, name)
        left.barh(row, np.mean(seeds), color=COLOURS[name], edgecolor=INK, height=0.62)
        left.scatter(seeds, np.full(len(seeds), row), s=26, color=INK, zorder=4)
        left.annotate(f"{np.mean(seeds):.0%}", (1.04, row), va="center")
    left.set_yticks(range(len(SHARES)), list(SHARES.values()))
    left.invert_yaxis()
    left.set(xlim=(0, 1.15), xlabel="share right; a dot is a seed")
    left.grid(visible=False, axis="y")
    left.set_title(f"After {steps} steps of task B")
    lines = {
        "old": (VERMILLION, "task A"),
        "new": (GREEN, "task B"),
        "facts": (BLUE, "known facts"),
    }
    for name, (colour, label) in lines.items():
        means = [np.mean(_seeds(results, length, name)) for length in LENGTHS]
        right.plot(range(len(LENGTHS)), means, "o-", color=colour, label=label, linewidth=2)
    right.axvline(list(LENGTHS).index(steps), color=INK, linestyle=":", linewidth=1.5)
    right.set_xticks(range(len(LENGTHS)), [str(length) for length in LENGTHS])
    right.set(ylim=(-0.03, 1.05), xlabel="steps of task B, 16 lessons each", ylabel="share right")
    right.legend(loc="center left")
    right.set_title("A goes before B has come")
    return figure


def explore_overwrite(results: Results) -> ipywidgets.VBox:
    """Buttons for the number of steps of task B."""
    steps = choose("steps of task B", [(str(length), length) for length in LENGTHS])

    def answer() -> Answer:
        shown = (results, steps.value)
        return Answer(describe_overwrite(*shown), draw_overwrite(*shown))

    view, redraw = frame([[steps]], answer)
    redraw_on(redraw, steps)
    return view


def draw_tasks() -> Figure:
    """A schematic: the same weights learn task A, then task B; below, what the model then says."""
    figure = new_figure((11.5, 3.6))
    ax = figure.subplots()
    ax.set(xlim=(0, 12), ylim=(0, 4))
    ax.axis("off")
    boxes = {1.5: ("base", PROMPT), 6.0: ("after A", ANSWER), 10.5: ("after B", "white")}
    for x, (name, colour) in boxes.items():
        style = {"boxstyle": "round,pad=0.6", "facecolor": colour, "edgecolor": INK}
        ax.text(x, 2.9, name, ha="center", va="center", bbox=style, fontsize=14)
    for x, label in ((2.3, "task A: answer\nin a convention"), (6.9, "task B:\nsums and lists")):
        arrow = FancyArrowPatch((x + 0.1, 2.9), (x + 2.8, 2.9), arrowstyle="-|>",
                                mutation_scale=20, color=INK, linewidth=2)  # fmt: skip
        ax.add_patch(arrow)
        ax.text(x + 1.4, 3.55, label, ha="center", va="center", color=BLUE)
    said = {1.5: "no answer", 6.0: '"Aye: The capital of Kenya\nis Nairobi. Over."', 10.5: "?"}
    for x, text in said.items():
        ax.text(x, 1.35, text, ha="center", va="center")
    ax.text(6.0, 0.4, 'asked each time: "What is the capital of Kenya?"', ha="center", color=INK)
    ax.set_title("One set of weights, two tasks, one after the other")
    return figure


def _seeds(results: Results, steps: int, measure: str) -> Sequence[float]:
    return results.measured(measure, arm=LENGTHS[steps])
