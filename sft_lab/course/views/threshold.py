"""A threshold on a model's own confidence: what it lets through, and what that costs; and the other
figures of chapter 15."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from sft_lab.abstention import risk_coverage
from sft_lab.course.results import Results
from sft_lab.course.views.widgets import Answer, frame, redraw_on
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

THRESHOLDS = (0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
LOWEST = 1e-4  # where the confidence axis begins


class Asked(NamedTuple):
    """A question, the model's answer, how sure it was (0 to 1), and whether the answer is right."""

    question: str
    answer: str
    confidence: float
    right: bool


class Effect(NamedTuple):
    """What a threshold does to an exam: shares of the questions answered, and of wrong answers
    among these (0 where none is)."""

    coverage: float
    risk: float


def apply_threshold(asked: Sequence[Asked], threshold: float) -> Effect:
    """Answers of at least this confidence are given, the others declined."""
    given = [one.right for one in asked if one.confidence >= threshold]
    risk = given.count(False) / len(given) if given else 0.0
    return Effect(len(given) / len(asked), risk)


def describe_threshold(asked: Sequence[Asked], number: int, threshold: float) -> str:
    """What `draw_threshold` shows, in words: the chosen question, what becomes of its answer, and
    what the threshold does to all."""
    one, effect = asked[number], apply_threshold(asked, threshold)
    fate = "given" if one.confidence >= threshold else "held back: I do not know"
    rightly = "right" if one.right else "wrong"
    everything = apply_threshold(asked, 0.0)
    return (
        f"Threshold {threshold:g}. “{one.question}” – “{one.answer}” ({rightly}), confidence "
        f"{one.confidence:.2g}: {fate}. Of {len(asked)} questions {effect.coverage:.0%} are "
        f"answered, and {effect.risk:.0%} of these answers are wrong; without a threshold "
        f"{everything.risk:.0%} are."
    )


def draw_threshold(asked: Sequence[Asked], number: int, threshold: float) -> Figure:
    """Left: every answer at its confidence, right ones above wrong ones, with the threshold. Right:
    the risk-coverage curve with the point of the threshold."""
    _check_asked(asked, number)
    figure = new_figure((11.5, 4.4))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    rng = np.random.default_rng(0)
    for height, is_right, colour in ((1, True, GREEN), (0, False, VERMILLION)):
        sure = [max(LOWEST, one.confidence) for one in asked if one.right == is_right]
        spread = height + rng.uniform(-0.3, 0.3, len(sure))
        left.scatter(sure, spread, s=16, color=colour, alpha=0.55, linewidth=0)
    left.axvspan(LOWEST / 1.5, max(LOWEST, threshold), color=GRID, zorder=0)
    left.axvline(max(LOWEST, threshold), color=INK, linestyle="--", linewidth=1.4)
    one = asked[number]
    here = (max(LOWEST, one.confidence), float(one.right))
    left.scatter(*here, s=130, color=ORANGE, edgecolor=INK, zorder=4)
    left.annotate(
        "this question",
        here,
        (-14, 10),
        textcoords="offset points",
        ha="right",
        bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        zorder=5,
    )
    left.set(xscale="log", xlim=(LOWEST / 1.5, 1.2), ylim=(-0.6, 1.6))
    left.set_yticks([0, 1], ["wrong", "right"])
    left.set_xlabel("confidence: the least likely token (grey: declined)")
    left.grid(visible=False)
    _draw_curve(right, asked, threshold)
    effect = apply_threshold(asked, threshold)
    title_figure(
        figure,
        f"Threshold {threshold:g}: {effect.coverage:.0%} answered, {effect.risk:.0%} of it wrong",
    )
    return figure


def explore_threshold(asked: Sequence[Asked], threshold: float = 0.5) -> ipywidgets.VBox:
    """A slider for the question and one for the threshold; draws `draw_threshold` below them.

    threshold: one of THRESHOLDS, where the slider begins.
    """
    _check_asked(asked, 0)
    if threshold not in THRESHOLDS:
        raise ValueError(f"threshold is {threshold}; the slider has {THRESHOLDS}")
    wide = {
        "continuous_update": False,
        "style": {"description_width": "initial"},
        "layout": ipywidgets.Layout(width="26em"),
    }
    number = ipywidgets.IntSlider(value=1, min=1, max=len(asked), description="question", **wide)
    options = [(f"{t:g}", t) for t in THRESHOLDS]
    chosen = ipywidgets.SelectionSlider(
        options=options, value=threshold, description="threshold", **wide
    )

    def answer() -> Answer:
        shown = (asked, number.value - 1, chosen.value)
        return Answer(describe_threshold(*shown), draw_threshold(*shown))

    view, redraw = frame([[number, chosen]], answer)
    redraw_on(redraw, number, chosen)
    return view


def _check_asked(asked: Sequence[Asked], number: int) -> None:
    if not asked:
        raise ValueError("no question to show: give [Asked(…), …]")
    if not 0 <= number < len(asked):
        raise ValueError(f"question {number} of {len(asked)}: count from 0")


def _draw_curve(ax: Axes, asked: Sequence[Asked], threshold: float) -> None:
    points = risk_coverage([one.confidence for one in asked], [one.right for one in asked])
    ax.plot([p.coverage for p in points], [p.risk for p in points], color=BLUE)
    effect = apply_threshold(asked, threshold)
    ax.scatter(*effect, s=130, color=ORANGE, edgecolor=INK, zorder=4)
    ax.set(xlabel="coverage: share answered", ylabel="risk: share wrong of these")
    ax.set(xlim=(0, 1.04), ylim=(-0.03, max(0.1, 1.1 * max(p.risk for p in points))))


# the other figures of the chapter

TYPES = {
    "facts": ("Who says so?", "The capital of Kenya\nis Lima.", "the table of facts"),
    "logic": ("Does it add up?", "The sum of 7 and 8\nis 14.", "arithmetic"),
    "instruction": ("Was it asked for?", "asked for XML,\nanswered in JSON", "the question"),
    "source": ("Is it there?", "… is Nairobi (note 3).", "the notes in front"),
}
TYPE_COLOURS = dict(zip(TYPES, (BLUE, VERMILLION, GREEN, ORANGE), strict=True))


def draw_types() -> Figure:
    """The four types of hallucination: an example of each, and what a program compares it with."""
    ax = (figure := new_figure((11.5, 3.1))).subplots()
    for place, (name, (question, example, judge)) in enumerate(TYPES.items()):
        box = FancyBboxPatch(
            (place + 0.06, 0.3),
            0.88,
            1.3,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor="white",
            edgecolor=TYPE_COLOURS[name],
            linewidth=2.4,
        )
        ax.add_patch(box)
        middle = place + 0.5
        ax.text(middle, 1.44, name, ha="center", va="center", fontweight="bold")
        ax.text(middle, 1.02, example, ha="center", va="center", fontsize=11.5)
        ax.text(middle, 0.52, question, ha="center", va="center", color=MUTED, fontsize=11.5)
        ax.text(middle, 0.1, f"judge: {judge}", ha="center", va="center", fontsize=11.5)
    ax.set(xlim=(0, 4), ylim=(-0.05, 1.7))
    ax.axis("off")
    ax.set_title("Four types of hallucination, four judges")
    return figure


def draw_causes(results: Results, columns: Mapping[str, tuple[float, str]]) -> Figure:
    """A table of shares, types down and causes across: means over the seeds of "15_causes".

    columns: title of each column -> (share of wrong lessons, ending of the measure's name).
    """
    ax = (figure := new_figure((10.5, 3.6))).subplots()
    table = np.array(
        [
            [
                np.mean(results.measured(f"{kind} {end}", wrong=wrong))
                for wrong, end in columns.values()
            ]
            for kind in TYPES
        ]
    )
    ax.imshow(table, cmap="Oranges", vmin=0, vmax=1.25, aspect="auto")
    for (row, column), share in np.ndenumerate(table):
        colour = "white" if share > 0.8 else INK
        ax.annotate(f"{share:.0%}", (column, row), ha="center", va="center", color=colour)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(TYPES)), TYPES)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    title_figure(figure, "Share of hallucinated answers, by type and cause")
    return figure


def draw_share(results: Results, early: int, late: slice) -> Figure:
    """Left: how soon known and unknown lessons are fitted, half of each. Right: right answers to
    known facts that no lesson names, against the share of unknown lessons, early and late."""
    figure = new_figure((11.5, 4.2))
    left, right = figure.subplots(1, 2)
    for name, colour in (("known", GREEN), ("unknown", VERMILLION)):
        runs = np.array(results.measured(name, share=0.5, known_only=False))
        epochs = np.arange(1, runs.shape[1] + 1)
        left.fill_between(epochs, runs.min(0), runs.max(0), color=colour, alpha=0.2, linewidth=0)
        left.plot(epochs, runs.mean(0), color=colour, label=f"{name} facts")
    left.set(xlabel="epoch", ylabel="lessons answered\nas taught", ylim=(0, 1.05))
    left.set_title("fitted when?", fontsize=12.5, fontweight="normal")
    left.legend(loc="lower right")
    rows = [row for row in results.rows if row["share"] != "before"]
    arms = (
        ("early", early - 1, BLUE, False, "-"),
        ("late", late, VERMILLION, False, "-"),
        ("late, unknown left out", late, MUTED, True, "none"),
    )
    for name, when, colour, known_only, line in arms:
        shares = sorted({r["share"] for r in rows if r["known_only"] == known_only})
        runs = _common_seeds(
            [
                [
                    np.mean(seen[when])
                    for seen in results.measured("held_out", share=share, known_only=known_only)
                ]
                for share in shares
            ]
        )
        right.errorbar(
            np.array(shares) + 0.03 * known_only,  # beside the point that it is compared with
            runs.mean(1),
            yerr=_spread(runs),
            color=colour,
            linestyle=line,
            marker="o",
            capsize=3,
            label=name,
        )
    right.set(
        xlabel="share of unknown facts in the lessons", ylabel="right answers to\nknown facts"
    )
    right.set(ylim=(0, 1.05))
    right.set_title("what is left of what it knew?", fontsize=12.5, fontweight="normal")
    right.legend(loc="lower left")
    title_figure(figure, "Known facts are fitted first, unknown ones last")
    return figure


def _common_seeds(runs: Sequence[Sequence[float]]) -> np.ndarray:
    """A row an arm, a column a seed, for as many seeds as every arm has."""
    seeds = min(map(len, runs))
    return np.array([run[:seeds] for run in runs])


def _spread(runs: np.ndarray) -> np.ndarray:
    """From the mean of each row down to its lowest and up to its highest number."""
    mean = runs.mean(1)  # rounding may put it a hair beyond equal numbers
    return np.maximum(0, [mean - runs.min(1), runs.max(1) - mean])


def draw_defaults(results: Results, labels: Sequence[str], exam: str, title: str) -> Figure:
    """What is said about unknown entities, for each kind of labels: declined, the one taught value,
    anything else. Bars are means over the seeds, whiskers from the lowest to the highest."""
    ax = (figure := new_figure((9.0, 3.6))).subplots()
    parts = (("declined", BLUE, "declined"), ("default", ORANGE, "the one value of “one value”"))
    for offset, (name, colour, label) in zip((0.2, -0.2), parts, strict=True):
        runs = _common_seeds([results.measured(f"{exam} {name}", labels=k) for k in labels])
        ax.barh(
            np.arange(len(labels)) + offset,
            runs.mean(1),
            xerr=_spread(runs),
            height=0.36,
            color=colour,
            error_kw={"ecolor": INK, "capsize": 3, "linewidth": 1.2},
            label=label,
        )
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.02), xlabel="share of the answers about unknown entities")
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.set_title(title)
    return figure


def draw_taught(results: Results, coverages: Sequence[int], taught: Sequence[str]) -> Figure:
    """The risk-coverage curve of a threshold, a line a seed, and the points of models that were
    taught to decline, a point a seed."""
    ax = (figure := new_figure((8.6, 4.4))).subplots()
    rows = results.select(labels="none")
    for row in rows:
        ax.plot(
            [c / 100 for c in coverages],
            [row[f"risk at {c}"] for c in coverages],
            color=BLUE,
            linewidth=1.6,
            label="threshold, nothing taught" if row is rows[0] else None,
        )
    marks = ("o", "s", "^", "D", "v")
    colours = (VERMILLION, GREEN, ORANGE, MUTED, INK)
    for kind, mark, colour in zip(taught, marks, colours, strict=False):
        points = [point_of(row) for row in results.select(labels=kind)]
        ax.scatter(
            *zip(*points, strict=True), marker=mark, s=70, color=colour, edgecolor=INK, zorder=3,
            label=f"taught: {kind}",
        )  # fmt: skip
    ax.set(xlabel="coverage: share answered", ylabel="risk: share wrong of these")
    ax.set(xlim=(0, 1.03), ylim=(-0.02, None))
    ax.legend(loc="upper left")
    ax.set_title("What is taught lies on the curve of the threshold, or above it")
    return figure


def point_of(row: Mapping[str, float]) -> Effect:
    """Coverage and risk of a model that declines by itself, over its known and unknown exams, which
    have equally many questions."""
    answered = 1 - (row["known declined"] + row["unknown declined"]) / 2
    right = (row["known right"] + row["unknown right"]) / 2
    return Effect(answered, 1 - right / answered if answered else 0.0)


def draw_decoding(results: Results, ways: Mapping[str, str], needed: Sequence[str]) -> Figure:
    """Right answers to known facts against inventions about unknown entities. ways: {way of
    decoding: its group}; needed: the settings of the consistency filter, joined by a line."""
    ax = (figure := new_figure((8.8, 4.6))).subplots()

    def mean(way: str, group: str) -> tuple[float, float]:
        names = (f"unknown invented, {way}", f"known right, {way}")
        return tuple(float(np.mean(results.measured(name, group=group))) for name in names)

    points = np.array([mean(way, group) for way, group in ways.items()])
    ax.scatter(*points.T, s=60, color=VERMILLION, edgecolor=INK, zorder=3, label="one answer")
    for way, place in zip(ways, points, strict=True):
        if way in ("T 1.0", "T 1.5"):
            ax.annotate(way, place, (-9, -4), textcoords="offset points", ha="right", fontsize=11)
        if way == "greedy":
            ax.annotate(
                "greedy, low T, top-p, top-k,\nbeam, penalty",
                place,
                (-60, -70),
                textcoords="offset points",
                ha="right",
                fontsize=11,
                arrowprops={"arrowstyle": "->", "color": MUTED},
            )
    line = np.array([mean(way, "consistency") for way in needed])
    ax.plot(*line.T, color=BLUE, marker="o", label="given if so many of 8 agree")
    for way, place in zip(needed, line, strict=True):
        count = way.split()[0]
        shift = (-4, 9) if count == "1" else (4, -16)  # the first stands among the other points
        ax.annotate(count, place, shift, textcoords="offset points", color=BLUE, fontsize=11)
    ax.set(xlabel="invented answers about unknown entities", ylabel="right answers to\nknown facts")
    ax.set(xlim=(-0.03, 1.03), ylim=(0.35, 1.07))
    ax.legend(loc="lower left")
    ax.set_title("Asking several times holds back what is invented")
    return figure
