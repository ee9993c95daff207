"""A jury of programs, and the reader beside them: what tempts a judge, what an audit found, and a
blind sheet to vote on (chapter 16d)."""

import html
import textwrap
from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from sft_lab.course.judge_runs import STEADY, Finding, count_votes
from sft_lab.course.results import Row
from sft_lab.course.views.blind import (
    CHOICES,
    BlindVote,
    Pair,
    describe_pair,
    describe_tally,
    draw_tally,
)
from sft_lab.course.views.widgets import Answer, frame, one_at_a_time
from sft_lab.judges import cohen_kappa
from sft_lab.plots import BASE, INK, MUTED, ORANGE, PROMPT, TUNED, VERMILLION, new_figure

TEMPTATIONS = (
    ("position", "it stands first"),
    ("length", "it is longer"),
    ("repetition", "it says things twice"),
    ("self-preference", "it sounds like me"),
    ("noise", "chance"),
)
VERDICT_OF = {"A": "first", "B": "second", "tie": "tie"}
NO_VOTES = "No votes yet. "


def draw_judge() -> Axes:
    """What goes into a judge and comes out; in orange, what should not go in."""
    ax = new_figure((9.5, 3.6)).subplots()
    for y, text in ((3.6, "question"), (2.7, "answer, first"), (1.8, "answer, second")):
        _box(ax, (0.0, y), (2.3, 0.65), text, PROMPT)
        _arrow(ax, (2.3, y + 0.32), (4.2, 3.02), INK)
    _box(ax, (4.2, 2.7), (1.6, 0.65), "judge", "#FFFFFF")
    _arrow(ax, (5.8, 3.02), (7.6, 3.02), INK)
    _box(ax, (7.6, 2.7), (2.4, 0.65), "first, second or tie", PROMPT)
    for place, (bias, text) in enumerate(TEMPTATIONS):
        _box(ax, (2.02 * place, 0.0), (1.92, 0.9), f"{bias}\n{text}", "#FBE3BF", font=10)
        _arrow(ax, (2.02 * place + 0.96, 0.9), (5.0, 2.7), VERMILLION)
    ax.set(xlim=(-0.1, 10.1), ylim=(-0.1, 4.4), title="A judge, and what should not sway it")
    ax.axis("off")
    return ax


def _box(
    ax: Axes,
    corner: tuple[float, float],
    size: tuple[float, float],
    text: str,
    colour: str,
    *,
    font: int = 12,
    rounding: float = 0.08,
) -> None:
    ax.add_patch(
        FancyBboxPatch(
            corner,
            *size,
            boxstyle=f"round,pad=0,rounding_size={rounding}",
            facecolor=colour,
            edgecolor=INK,
            zorder=3,
        )
    )
    middle = (corner[0] + size[0] / 2, corner[1] + size[1] / 2)
    ax.text(*middle, text, ha="center", va="center", fontsize=font, zorder=4)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=colour, zorder=1)
    )


def draw_audit(table: Mapping[str, Mapping[str, Finding]], *, title: str) -> Axes:
    """Judges by probes: the mean, and half the width of its interval. Bold where the interval
    leaves out 0, or, for noise, lies above what an honest judge shows."""
    judges, probes = list(table), list(next(iter(table.values())))
    ax = new_figure((9.5, 0.62 * len(judges) + 1.3)).subplots()
    means = np.array([[abs(table[judge][probe].mean) for probe in probes] for judge in judges])
    ax.imshow(means, cmap="Oranges", vmin=0, vmax=1.3, aspect="auto")
    for y, judge in enumerate(judges):
        for x, probe in enumerate(probes):
            found = table[judge][probe]
            is_shown = not found.low <= 0 <= found.high
            if probe == "noise":
                is_shown = found.low > STEADY
            ax.text(
                x,
                y,
                f"{found.mean:+.2f} ± {(found.high - found.low) / 2:.2f}",
                ha="center",
                va="center",
                fontsize=11,
                color=INK if is_shown else MUTED,
                fontweight="bold" if is_shown else "normal",
            )
    names = [probe if probe != "noise" else "noise\n(changed)" for probe in probes]
    ax.set_xticks(range(len(probes)), names)
    ax.set_yticks(range(len(judges)), judges)
    ax.set(xlabel="probe", ylabel="judge", title=title)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    return ax


def draw_programs(
    votes: Mapping[str, Sequence[str]], key: Sequence[Row], *, title: str, ax: Axes | None = None
) -> Axes:
    """For each program the share of its votes for the two names of the key, ties in grey."""
    if ax is None:
        ax = new_figure((9.5, 0.36 * len(votes) + 1.5)).subplots()
    left = np.zeros(len(votes))
    counts = [count_votes(verdicts, key) for verdicts in votes.values()]
    one, other, _ = counts[0]
    for name, colour in ((one, BASE), ("tie", PROMPT), (other, TUNED)):
        share = np.array([count[name] / len(key) for count in counts])
        ax.barh(range(len(votes)), share, left=left, color=colour, label=name, edgecolor="white")
        left += share
    ax.set_yticks(range(len(votes)), list(votes))
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="share of the votes", title=title)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=10)
    ax.grid(visible=False)
    return ax


def draw_agreement(votes: Mapping[str, Sequence[str]], *, title: str) -> Axes:
    """Cohen's kappa of every two voters, as a table of shades."""
    names = list(votes)
    ax = new_figure((9.0, 0.45 * len(names) + 2.2)).subplots()
    table = np.array([[_kappa(votes[a], votes[b]) for b in names] for a in names], dtype=float)
    ax.imshow(np.nan_to_num(table), cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto")
    for y, x in np.ndindex(*table.shape):
        shown = "–" if np.isnan(table[y, x]) else f"{table[y, x]:.2f}"
        colour = "white" if abs(np.nan_to_num(table[y, x])) > 0.65 else INK
        ax.text(x, y, shown, ha="center", va="center", fontsize=10, color=colour)
    ax.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=10)
    ax.set_yticks(range(len(names)), names, fontsize=10)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set_title(title)
    return ax


def _kappa(first: Sequence[str], second: Sequence[str]) -> float:
    found = cohen_kappa(first, second)
    return float("nan") if found is None else found


def describe_jury(vote: BlindVote, programs: Mapping[str, Sequence[str]]) -> str:
    """After the last vote: the tally, and how far the reader agrees with each program."""
    verdicts = [VERDICT_OF[choice] for choice in vote.votes]
    parts = []
    for name, said in programs.items():
        kappa = cohen_kappa(verdicts, said)
        parts.append(f"{name} {'undefined' if kappa is None else f'{kappa:.2f}'}")
    words = f" Your agreement beyond chance (kappa) with {', '.join(parts)}."
    return describe_tally(vote.tally()) + words


def draw_jury(vote: BlindVote, programs: Mapping[str, Sequence[str]]) -> Figure:
    """The reader's tally, and their kappa with each program."""
    figure = new_figure((10.5, 6.2))
    top, bottom = figure.subplots(2, 1, height_ratios=(1, 2.6))
    draw_tally(vote.tally(), ax=top)
    verdicts = [VERDICT_OF[choice] for choice in vote.votes]
    kappas = [_kappa(verdicts, said) for said in programs.values()]
    rows = range(len(kappas))
    bottom.barh(rows, np.nan_to_num(kappas), color=ORANGE, edgecolor=INK, linewidth=0.6)
    for row, kappa in zip(rows, kappas, strict=True):
        shown = "undefined" if np.isnan(kappa) else f"{kappa:.2f}"
        bottom.annotate(
            shown,
            (max(0.0, np.nan_to_num(kappa)), row),
            (6, 0),
            va="center",
            textcoords="offset points",
        )
    bottom.axvline(0, color=INK, linewidth=0.8)
    bottom.set_yticks(rows, list(programs))
    bottom.invert_yaxis()
    bottom.set(xlim=(-1, 1.15), xlabel="kappa with you (0 is chance)")
    bottom.set_title("Which program votes as you do?")
    return figure


def draw_ballot(
    question: str, first: str, second: str, *, title: str, ax: Axes | None = None
) -> Figure:
    """A question above two boxes with the answers A and B, cut after 320 letters."""
    if ax is None:
        ax = new_figure((10.5, 3.6)).subplots()
    ax.text(0.0, 0.98, question, va="top", fontsize=13, fontweight="bold", parse_math=False)
    for left, name, answer in ((0.0, "A", first), (0.51, "B", second)):
        _box(ax, (left, 0.0), (0.49, 0.84), "", "#F6F7F9", rounding=0.015)
        ax.text(left + 0.01, 0.8, name, va="top", fontweight="bold", color=MUTED, zorder=4)
        text = textwrap.fill(textwrap.shorten(answer, 320, placeholder=" …"), 36)
        text = text or "(nothing)"
        ax.text(left + 0.035, 0.8, text, va="top", fontsize=10, parse_math=False, zorder=4)
    ax.set(xlim=(-0.005, 1.005), ylim=(-0.02, 1.02), title=title)
    ax.axis("off")
    return ax.figure


def draw_no_votes(
    sheet: Sequence[Row], key: Sequence[Row], programs: Mapping[str, Sequence[str]]
) -> Figure:
    """For readers without a kernel: the first pair, and the votes of programs alone."""
    figure = new_figure((10.5, 7.8))
    top, bottom = figure.subplots(2, 1, height_ratios=(1, 1.35))
    row = sheet[0]
    answers = row["answer 1"], row["answer 2"]
    draw_ballot(row["question"], *answers, ax=top, title="Pair 1: A, B, or a tie?")
    title = f"{NO_VOTES}Programs on these {len(sheet)} pairs"
    draw_programs(programs, key, title=title, ax=bottom)
    return figure


def explore_jury(
    sheet: Sequence[Row], key: Sequence[Row], programs: Mapping[str, Sequence[str]]
) -> ipywidgets.VBox:
    """Buttons to vote on a blind sheet; after the last vote the names, the sign test, and the
    reader's agreement with each program.

    sheet, key: of `judge_runs.blind_sheet`. programs: verdicts in the order of the sheet.
    """
    vote = vote_on_sheet(sheet, key)
    wide = ipywidgets.Layout(width="9em")
    ballots = {
        choice: ipywidgets.Button(
            description="tie" if choice == "tie" else f"{choice} is better", layout=wide
        )
        for choice in CHOICES
    }
    back = ipywidgets.Button(description="take back", layout=wide)

    def answer() -> Answer:
        if vote.finished:
            return Answer(
                describe_jury(vote, programs), draw_jury(vote, programs), below=_reveal(vote)
            )
        title = f"Pair {len(vote.votes) + 1} of {len(sheet)}: which answer is better?"
        begun = "" if vote.votes else NO_VOTES
        return Answer(begun + describe_pair(vote), draw_ballot(*vote.shown(), title=title))

    view, redraw = frame([[*ballots.values(), back]], answer)

    @one_at_a_time
    def cast(choice: str) -> None:
        if not vote.finished:
            vote.cast(choice)
            redraw()

    @one_at_a_time
    def take_back(_: object) -> None:
        if vote.votes:
            vote.votes.pop()
            redraw()

    for choice, button in ballots.items():
        button.on_click(lambda _, choice=choice: cast(choice))
    back.on_click(take_back)
    redraw()
    return view


def vote_on_sheet(sheet: Sequence[Row], key: Sequence[Row]) -> BlindVote:
    """A vote whose sides are those of the sheet, not drawn anew."""
    names = tuple(sorted({row["answer 1 by"] for row in key} | {row["answer 2 by"] for row in key}))
    pairs, swapped = [], []
    for row, by in zip(sheet, key, strict=True):
        answers = row["answer 1"], row["answer 2"]
        is_swapped = by["answer 1 by"] == names[1]
        pairs.append(Pair(row["question"], answers[::-1] if is_swapped else answers))
        swapped.append(is_swapped)
    vote = BlindVote(pairs, names)
    vote.swapped = swapped
    return vote


def _reveal(vote: BlindVote) -> str:
    """A table of who wrote which answer, and what was voted."""
    heads = ("question", "A was", "B was", "your vote")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    rows = ""
    for pair, swapped, choice in zip(vote.pairs, vote.swapped, vote.votes, strict=True):
        sides = vote.names[::-1] if swapped else vote.names
        cells = (pair.question, *sides, choice)
        rows += f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in cells)}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
