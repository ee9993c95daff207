"""A data set to mix: your guess, what the knobs predict one by one, and what was measured (chapter
11)."""

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from sft_lab.course.data_mix import Mix, add_up_knobs
from sft_lab.course.results import Results
from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.plots import BLUE, INK, MUTED, ORANGE, PROMPT, VERMILLION, new_figure

ROWS, COPIES, WRONG = (24, 96, 384), (0.0, 0.75), (0.0, 0.25, 0.5)
WORDINGS, TASKS = (1, 4), (("facts", 1), ("facts and sums", 2))
EXAMS = ("facts", "sums")


def mix_of(rows: int, copies: float, wrong: float, wordings: int, tasks: int) -> Mix:
    """The recorded mix behind a setting of the sliders: copies add nothing that differs."""
    distinct = round(rows * (1 - copies))
    return Mix(distinct=distinct, wrong=wrong, wordings=wordings, tasks=tasks)


def describe_mix(results: Results, mix: Mix, guess: int) -> str:
    """What `draw_mix` shows, in words: the guess, the sum of the knobs, each measured seed."""
    measured = results.measured("facts", **vars(mix))
    sums = results.measured("sums", **vars(mix))
    mean, predicted = sum(measured) / len(measured), add_up_knobs(results, mix)
    runs = ", ".join(f"{value:.0%}" for value in measured)
    return (
        f"{mix.distinct} different rows, {mix.wrong:.0%} of the labels wrong, "
        f"{_count(mix.wordings, 'wording')}, {_count(mix.tasks, 'task')}. Facts: you guess "
        f"{guess}%, the knobs one by one predict {predicted:.0%}, measured {mean:.0%} "
        f"({_count(len(measured), 'run')}: {runs}). You are {abs(guess - 100 * mean):.0f} points "
        f"off. Sums, measured: {sum(sums) / len(sums):.0%}."
    )


def draw_mix(results: Results, mix: Mix, guess: int) -> Figure:
    """What the data set holds, and its score: guessed, predicted, and measured in every seed."""
    figure = new_figure((11.0, 3.6))
    holds, scores = figure.subplots(1, 2, width_ratios=(1, 1.5))
    _draw_rows(holds, mix)
    measured = {name: results.measured(name, **vars(mix)) for name in EXAMS}
    mean = sum(measured["facts"]) / len(measured["facts"])
    sums = sum(measured["sums"]) / len(measured["sums"])
    names = ("your guess", "knobs one by one", "measured: facts", "measured: sums")
    values = (guess / 100, add_up_knobs(results, mix), mean, sums)
    bars = scores.barh(range(4), values, color=[PROMPT, ORANGE, BLUE, VERMILLION], edgecolor=INK)
    for place, value in enumerate(values):
        scores.annotate(
            f"{value:.0%}", (1.0, place), (8, 0), textcoords="offset points", va="center"
        )
    for place, name in ((2, "facts"), (3, "sums")):
        dots = measured[name]
        scores.scatter(dots, [place] * len(dots), s=34, color="white", edgecolor=INK, zorder=3)
    scores.set_yticks(range(4), names)
    scores.invert_yaxis()
    scores.set(xlim=(0, 1), xlabel="share of right answers (dots: seeds)")
    scores.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    bars[1].set_hatch("//")
    scores.set_title(f"measured {mean:.0%}, you guessed {guess}%")
    return figure


def explore_mix(results: Results) -> ipywidgets.VBox:
    """Sliders for the data set and for your guess; draws `draw_mix` below them.

    Every setting was measured in three recorded runs; nothing is interpolated.
    """
    wide = {"style": {"description_width": "9em"}, "layout": ipywidgets.Layout(width="26em")}
    rows = _slider("rows", [(str(count), count) for count in ROWS], 384, wide)
    copies = _slider("copies", [(f"{c:.0%}", c) for c in COPIES], 0.0, wide)
    wrong = _slider("wrong labels", [(f"{share:.0%}", share) for share in WRONG], 0.0, wide)
    wordings = _slider("wordings", [(str(count), count) for count in WORDINGS], 4, wide)
    tasks = choose("tasks", TASKS)
    guess = ipywidgets.IntSlider(
        value=50,
        min=0,
        max=100,
        step=5,
        description="your guess, %",
        continuous_update=False,
        **wide,
    )

    def answer() -> Answer:
        mix = mix_of(rows.value, copies.value, wrong.value, wordings.value, tasks.value)
        return Answer(describe_mix(results, mix, guess.value), draw_mix(results, mix, guess.value))

    view, redraw = frame([[rows, copies], [wrong, wordings], [tasks, guess]], answer)
    redraw_on(redraw, rows, copies, wrong, wordings, tasks, guess)
    return view


def draw_sources() -> Figure:
    """Where the rows of a tuning set come from and what is done to them, one box a station."""
    figure = new_figure((11.0, 3.4))
    ax = figure.subplots()
    ax.set(xlim=(0, 110), ylim=(0, 34))
    ax.axis("off")
    for height, name in ((27, "people"), (17, "a stronger model"), (7, "a table, converted")):
        _station(ax, 2, height, 22, name, PROMPT)
        _arrow(ax, (24, height), (34, 17))
    _station(
        ax,
        34,
        17,
        20,
        "filter",
        ORANGE,
        "wrong labels · copies\nexam questions\nthe right one of K",
    )
    _station(ax, 64, 17, 18, "tuning set", BLUE, "how many\nhow clean\nhow varied")
    _station(ax, 92, 17, 16, "model", VERMILLION, "score in an exam\nthat did not leak")
    _arrow(ax, (54, 17), (64, 17))
    _arrow(ax, (82, 17), (92, 17))
    path = FancyArrowPatch(
        (100, 21),
        (44, 21),
        connectionstyle="arc3,rad=0.2",
        arrowstyle="->",
        mutation_scale=16,
        color=MUTED,
        linestyle="--",
        linewidth=1.6,
    )
    ax.add_patch(path)
    ax.annotate("its own answers become rows", (72, 29), ha="center", color=MUTED)
    return figure


def _slider(name: str, options: list, value: float, wide: dict) -> ipywidgets.SelectionSlider:
    return ipywidgets.SelectionSlider(
        options=options, value=value, description=name, continuous_update=False, **wide
    )


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + ("s" if number > 1 else "")


def _draw_rows(ax: Axes, mix: Mix) -> None:
    """Bars of right and wrong rows that differ, by task."""
    sums = mix.distinct // 2 if mix.tasks == 2 else 0
    for place, count in enumerate((mix.distinct - sums, sums)):
        wrong = round(mix.wrong * count)
        ax.barh(place, count - wrong, color=BLUE, edgecolor=INK)
        ax.barh(place, wrong, left=count - wrong, color="white", edgecolor=INK, hatch="xx")
        ax.annotate(
            f"{count - wrong} right, {wrong} wrong" if count else "none",
            (count, place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
        )
    ax.set_yticks([0, 1], ["facts", "sums"])
    ax.invert_yaxis()
    ax.set(xlim=(0, 700), xticks=(0, 100, 200, 300, 400), xlabel="different rows")
    ax.grid(visible=False)
    ax.set_title("what the data set holds")


def _station(
    ax: Axes, left: float, height: float, width: float, name: str, colour: str, below: str = ""
) -> None:
    box = FancyBboxPatch(
        (left, height - 3.5),
        width,
        7,
        boxstyle="round,pad=0.4",
        facecolor=colour,
        alpha=0.35,
        edgecolor=INK,
    )
    ax.add_patch(box)
    ax.annotate(name, (left + width / 2, height), ha="center", va="center", fontweight="bold")
    ax.annotate(
        below, (left + width / 2, height - 5), ha="center", va="top", fontsize=11, color=MUTED
    )


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "->", "mutation_scale": 16, "color": INK, "linewidth": 1.4}
    ax.add_patch(FancyArrowPatch(start, end, **style))
