"""In how many ways a fact was told, in which way it is asked, and what is recalled (chapter
11b)."""

from collections.abc import Sequence

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from sft_lab.course.results import Results
from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.plots import ANSWER, BLUE, GREEN, INK, MUTED, PROMPT, VERMILLION, new_figure

FORMS = ("trained wording", "near wording", "own words", "backwards")
KNOWN = "known facts"
STARTS = ("base", "tuned")
EPOCHS = 5  # of the recorded arms that are shown


def describe_wordings(results: Results, start: str, wordings: int) -> str:
    """What `draw_wordings` shows, in words: the mean recall of each form over the seeds."""
    shares = {form: np.mean(_measure(results, start, wordings, form)) for form in (*FORMS, KNOWN)}
    ways = "1 wording" if wordings == 1 else f"{wordings} wordings"
    said = ", ".join(f"{form} {shares[form]:.0%}" for form in FORMS)
    return (
        f"From the {start} model, new facts taught in {ways}. Recalled: {said}. "
        f"Known facts that it answers rightly: {shares[KNOWN]:.0%}."
    )


def draw_wordings(results: Results, start: str, wordings: int) -> Figure:
    """Recall of the taught facts by form of the question, a dot a seed; hollow: one wording alone.

    results: the recorded sweep 11b_wordings. The last bar is of facts that were not taught here and
    that the base has read.
    """
    figure = new_figure((9.5, 4.4))
    ax = figure.subplots()
    for row, form in enumerate((*FORMS, KNOWN)):
        shares = _measure(results, start, wordings, form)
        colour = ANSWER if form in FORMS else PROMPT
        ax.barh(row, np.mean(shares), color=colour, edgecolor=INK, linewidth=0.8, height=0.62)
        ax.scatter(shares, np.full(len(shares), row), s=30, color=INK, zorder=4)
        alone = np.mean(_measure(results, start, 1, form))
        label = None if row else "mean with 1 wording"
        ax.scatter([alone], [row], s=150, marker="D", c="none", ec=BLUE, lw=2.2, label=label)
        ax.annotate(f"{np.mean(shares):.0%}", (1.04, row), va="center")
    ax.set_yticks(range(len(FORMS) + 1), [*FORMS, f"{KNOWN}\n(not taught here)"])
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.12), xlabel="share of right answers; a dot is a seed")
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    own = np.mean(_measure(results, start, wordings, "own words"))
    told = "one wording" if wordings == 1 else f"{wordings} wordings"
    ax.set_title(f"Told in {told}: {own:.0%} recalled when asked in other words")
    return figure


def explore_wordings(results: Results) -> ipywidgets.VBox:
    """Buttons for the model that the run began from and for the number of wordings."""
    starts = choose("begins from", [(start, start) for start in STARTS])
    counts = choose("wordings", _counts(results, "base"))

    def answer() -> Answer:
        start, count = starts.value, counts.value
        if (str(count), count) not in _counts(results, start):
            recorded = " and ".join(name for name, _ in _counts(results, start))
            return Answer(
                f"From the {start} model only {recorded} wordings were recorded: choose one of "
                "these.",
                None,
            )
        shown = (results, start, count)
        return Answer(describe_wordings(*shown), draw_wordings(*shown))

    view, redraw = frame([[starts, counts]], answer)
    redraw_on(redraw, starts, counts)
    return view


def draw_paths() -> Figure:
    """A schematic: questions in several wordings lead to one fact; the fact is stored one way."""
    figure = new_figure((10.0, 3.6))
    ax = figure.subplots()
    ax.set(xlim=(0, 10), ylim=(0, 4))
    ax.axis("off")
    questions = ("What is the capital of Tavoru?", "Tell me the capital of Tavoru.",
                 "Which city is the capital of Tavoru?")  # fmt: skip
    for height, (question, taught) in zip(
        (3.4, 2.3, 1.2), zip(questions, (True, True, False), strict=True), strict=True
    ):
        _box(ax, (2.1, height), question, ANSWER if taught else "white")
        _arrow(ax, (3.75, height), (5.3, 2.3), INK, "-" if taught else "--")
    _box(ax, (6.0, 2.3), "Tavoru,\ncapital", PROMPT)
    _box(ax, (9.1, 2.3), "Belidu", PROMPT)
    _arrow(ax, (6.8, 2.45), (8.6, 2.45), GREEN, "-")
    _arrow(ax, (8.6, 1.95), (6.8, 1.95), VERMILLION, "--")
    ax.text(7.7, 2.75, "taught", ha="center", color=GREEN)
    ax.text(7.7, 1.35, "never taught:\nWhose capital is Belidu?", ha="center", va="center",
            color=VERMILLION)  # fmt: skip
    ax.text(2.1, 0.45, "orange: wordings of the lessons; white: a new wording", ha="center",
            color=MUTED)  # fmt: skip
    ax.set_title("A fact has many questions, and a direction")
    return figure


def _counts(results: Results, start: str) -> list[tuple[str, int]]:
    """The numbers of wordings that were recorded from this start, as options of buttons."""
    counts = {
        row["wordings"] for row in results.select(start=start, taught="new facts", epochs=EPOCHS)
    }
    return [(str(count), count) for count in sorted(counts)]


def _measure(results: Results, start: str, wordings: int, form: str) -> Sequence[float]:
    return results.measured(form, start=start, taught="new facts", epochs=EPOCHS, wordings=wordings)


def _box(ax: Axes, at: tuple[float, float], text: str, colour: str) -> None:
    style = {"boxstyle": "round,pad=0.4", "facecolor": colour, "edgecolor": INK}
    ax.text(*at, text, ha="center", va="center", bbox=style, fontsize=12)


def _arrow(
    ax: Axes, tail: tuple[float, float], head: tuple[float, float], colour: str, line: str
) -> None:
    arrow = FancyArrowPatch(
        tail, head, arrowstyle="-|>", mutation_scale=18, color=colour, linestyle=line, linewidth=2
    )
    ax.add_patch(arrow)
