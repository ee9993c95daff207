"""What lies in memory during a step, when, and what a card said to the prediction (chapter 08)."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_lab.cards import ALLOWANCE, CARDS, GIB
from sft_lab.course.views.fit import LOOKS
from sft_lab.memory_meter import PHASES, Moment
from sft_lab.plots import (
    ANSWER,
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PROMPT,
    SKY,
    VERMILLION,
    new_figure,
    title_figure,
)

# from what stays to what comes and goes, so that the lower areas are flat
ORDER = ("weights", "optimizer", "gradients", "activations", "logits")
# what is drawn beside each other, and the share of the width: the scores of the vocabulary live for
# a few operations only, so they have a part of the picture of their own
SPANS = {
    "forward: the layers": 3,
    "scores, loss,\nand back to the layers": 2,
    "backward: the layers": 4,
    "optimizer\nstep": 1,
}
POINTS = 500  # of a span that are drawn: the highest moment of each group of operations
# GiB of the smallest card on which a step fits: name, colour
LADDER = (("T4", GREEN), ("RTX 4090", SKY), ("A100 40 GB", ORANGE), ("A100 80 GB", VERMILLION))


def draw_timeline(steps: Mapping[str, Sequence[Moment]], finding: str) -> Figure:
    """What is held after each operation, as stacked areas: a row for each step, a column for each
    span of it."""
    figure = new_figure((11.0, 2.3 * len(steps) + 1.4))
    ratios = list(SPANS.values())
    grid = figure.subplots(len(steps), len(SPANS), sharey=True, squeeze=False, width_ratios=ratios)
    for panels, (name, moments) in zip(grid, steps.items(), strict=True):
        spans = split_step(moments)
        for ax, span in zip(panels, spans, strict=True):
            _draw_span(ax, [moment.held for moment in span])
        panels[0].set_ylabel(f"{name}\nGiB")
        _mark_peak(panels, spans)
    for ax, name in zip(grid[-1], SPANS, strict=True):
        ax.set_xlabel(name)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(ORDER))
    title_figure(figure, finding)
    return figure


def split_step(moments: Sequence[Moment]) -> list[list[Moment]]:
    """The moments of each of SPANS. The second begins with the first score of the vocabulary and
    ends when no more scores are held than at the end of the step."""
    update = next(i for i, moment in enumerate(moments) if moment.phase == PHASES[2])
    remaining = moments[-1].held["logits"]
    scored = [i for i in range(update) if moments[i].held["logits"] > 0]
    more = [i for i in scored if moments[i].held["logits"] > remaining]
    borders = [0, scored[0], more[-1] + 1, update, len(moments)]
    return [list(moments[start:end]) for start, end in pairwise(borders)]


def _draw_span(ax: Axes, held: Sequence[Mapping[str, int]]) -> None:
    groups = np.array_split(np.arange(len(held)), min(POINTS, len(held)))
    shown = [held[max(group, key=lambda i: sum(held[i].values()))] for group in groups]
    areas = [[parts[part] / GIB for parts in shown] for part in ORDER]
    colours = [LOOKS[part][0] for part in ORDER]
    places = np.linspace(0, 1, len(shown))
    ax.stackplot(places, areas, labels=ORDER, colors=colours, linewidth=0, step="post")
    ax.set(xlim=(0, 1), xticks=[])
    ax.margins(y=0.12)


def _mark_peak(panels: Sequence[Axes], spans: Sequence[Sequence[Moment]]) -> None:
    """A dot and a number where most is held."""
    totals = [[sum(moment.held.values()) / GIB for moment in span] for span in spans]
    highest = max(max(span) for span in totals)
    place = next(i for i, span in enumerate(totals) if max(span) == highest)
    x = totals[place].index(highest) / max(1, len(totals[place]) - 1)
    panels[place].plot(x, highest, "o", color=INK, markersize=6, clip_on=False)
    panels[place].annotate(
        f"peak {highest:.1f}",
        (x, highest),
        (7, 3),
        textcoords="offset points",
        fontweight="bold",
        annotation_clip=False,
    )


def draw_card(steps: Sequence[tuple[str, float, float]], finding: str) -> Axes:
    """Predicted and metered GiB of each step, the largest above. steps: name, predicted,
    metered."""
    ordered = sorted(steps, key=lambda step: step[1])
    ax = new_figure((9.5, 0.42 * len(steps) + 1.4)).subplots()
    rows = range(len(ordered))
    predicted, metered = ([step[place] for step in ordered] for place in (1, 2))
    ax.hlines(rows, 0, predicted, color=PROMPT, linewidth=1.5)
    ring = {"s": 150, "facecolors": "none", "edgecolors": BLUE, "linewidths": 2}
    ax.scatter(predicted, rows, label="predicted", **ring)
    ax.scatter(metered, rows, s=34, color=ANSWER, label="the card", zorder=3)
    ax.set_yticks(rows, [name for name, *_ in ordered])
    ax.set(xlim=(0, None), xlabel="GiB at the peak of a step")
    ax.set_title(finding, loc="right")
    ax.legend(loc="lower right")
    return ax


def draw_cards_needed(
    table: Mapping[str, Sequence[float]], columns: Sequence[str], finding: str
) -> Axes:
    """GiB of each setting, coloured by the smallest card of LADDER that has so much and the
    allowance."""
    ax = new_figure((9.5, 0.36 * len(table) + 1.7)).subplots()
    for y, sizes in enumerate(table.values()):
        for x, size in enumerate(sizes):
            colour = next((hue for card, hue in LADDER if size + ALLOWANCE <= CARDS[card]), "white")
            ax.barh(y, 0.96, 0.9, left=x - 0.48, color=colour, alpha=0.55)
            ax.text(x, y, f"{size:.1f}", ha="center", va="center", color=INK, fontsize=12)
    ax.set_yticks(range(len(table)), list(table))
    ax.set_xticks(range(len(columns)), list(columns))
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(table) - 0.5, -0.5), title=finding)
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    keys = [ax.barh(0, 0, color=hue, alpha=0.55) for _, hue in LADDER]
    names = [card for card, _ in LADDER]
    ax.figure.legend(
        keys,
        names,
        title="the smallest card, with 1 GiB to spare (white: none of these)",
        loc="outside lower center",
        ncols=len(LADDER),
    )
    return ax


def draw_claim(
    tokens: Sequence[int],
    curves: Mapping[str, Sequence[float]],
    *,
    claim: tuple[float, float],
    title: str,
) -> Axes:
    """Memory over the tokens of a batch, and the band that somebody claims, in GB (10⁹ bytes)."""
    ax = new_figure((8.5, 4.2)).subplots()
    ax.axhspan(*claim, color=PROMPT, alpha=0.5, linewidth=0)
    ax.text(tokens[-1], claim[0] + 0.5, "the claim", color=MUTED, ha="right")
    looks = zip((VERMILLION, BLUE), "os", strict=True)
    for (name, sizes), (colour, marker) in zip(curves.items(), looks, strict=True):
        ax.plot(tokens, sizes, marker=marker, color=colour, label=name)
    ax.set(
        xscale="log",
        ylim=(claim[0] - 2, None),
        xlabel="tokens in a batch (rows × length)",
        ylabel="GB (10⁹ bytes) at the peak",
        title=title,
    )
    ax.set_xticks(tokens, [f"{count:,}" for count in tokens])
    ax.minorticks_off()
    ax.legend(loc="upper left")
    return ax


def draw_run(
    losses: Sequence[float], evaluations: Sequence[Mapping[str, float]], title: str
) -> Axes:
    """Training loss of every step, and the held-out loss where it was evaluated."""
    ax = new_figure((8.0, 3.6)).subplots()
    ax.plot(range(1, len(losses) + 1), losses, color=MUTED, linewidth=1.6, label="training")
    steps, held = zip(*((one["step"], one["loss"]) for one in evaluations), strict=True)
    ax.plot(steps, held, "o-", color=ANSWER, label="held-out")
    ax.set(xlabel="optimizer step", ylabel="nats per graded token", ylim=(0, None), title=title)
    ax.legend(loc="upper right")
    return ax


def draw_speeds(speeds: Mapping[str, tuple[float, float]], finding: str) -> Axes:
    """Tokens a second of each run, the fastest above, with its peak memory. speeds: name: tokens/s,
    GiB."""
    ordered = sorted(speeds.items(), key=lambda item: item[1][0])
    ax = new_figure((9.5, 0.42 * len(speeds) + 1.2)).subplots()
    colours = [BLUE if name.startswith("as ") else MUTED for name, _ in ordered]
    names, values = [name for name, _ in ordered], [speed / 1e3 for _, (speed, _) in ordered]
    bars = ax.barh(names, values, color=colours)
    labels = [f"{speed / 1e3:.1f} k, {gib:.0f} GiB" for _, (speed, gib) in ordered]
    ax.bar_label(bars, labels, padding=5)
    ax.set(xlabel="thousand tokens a second")
    ax.set_title(finding, loc="right")
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    ax.set_xlim(0, 1.25 * max(values))
    return ax


def answer_table(
    questions: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    *,
    names: tuple[str, str] = ("base", "tuned"),
    width: int = 30,
) -> str:
    """A question and two answers in three columns of text; an empty answer is "(nothing)"."""
    columns, lines = ("question", *names), []
    for row in [columns, *zip(questions, before, after, strict=True)]:
        cells = [" ".join(text.split()) or "(nothing)" for text in row]
        wrapped = [textwrap.wrap(textwrap.shorten(cell, 4 * width), width) for cell in cells]
        for place in range(max(map(len, wrapped))):
            texts = [part[place] if place < len(part) else "" for part in wrapped]
            lines.append(" │ ".join(f"{text:{width}}" for text in texts).rstrip())
        lines.append("─┼─".join("─" * width for _ in columns))
    return "\n".join(lines)
