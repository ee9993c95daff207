"""The figures of chapter 05: how few directions an update leans on, and learning rates with and
without LoRA."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from sft_lab.course.lora_runs import best_rate
from sft_lab.course.results import Results
from sft_lab.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    VERMILLION,
    curve,
    new_figure,
    title_figure,
)

COLOURS = {
    "full": INK,
    "all layers, rank 8": BLUE,
    "all layers, rank 3": GREEN,
    "all layers, rank 64": ORANGE,
    "attention, rank 8": VERMILLION,
}


def draw_energy(kept: Mapping[str, Sequence[Sequence[float]]], ranks: Sequence[int]) -> Axes:
    """Share of the energy that each rank keeps. kept: (layers, ranks) for each kind of matrix."""
    ax = curve(
        range(len(ranks)),
        kept,
        colours=[BLUE, VERMILLION, MUTED],
        xlabel="rank k that is kept (doubles)",
        ylabel="share of the energy",
        title="A few directions hold most of the update",
    )
    ax.set_xticks(range(len(ranks)), ranks)
    ax.set_ylim(0, 1.02)
    return ax


def enough_rank(losses: Sequence[Sequence[float]], ranks: Sequence[int], within: float) -> int:
    """The least rank from which on every run's loss is at most `within` above that of the whole
    update. losses: (runs, ranks), the last rank is the whole."""
    table = np.asarray(losses, dtype=float)
    close = (table <= table[:, -1:] + within).all(axis=0)
    return next(rank for place, rank in enumerate(ranks) if close[place:].all())


def draw_cut(losses: Sequence[Sequence[float]], ranks: Sequence[int], *, within: float) -> Axes:
    """Held-out loss after every layer's update is cut to rank k, a line for each tuned model.

    The first rank from which on the loss is near the whole's is marked.
    """
    ax = new_figure((9.0, 4.6)).subplots()
    table, places = np.asarray(losses, dtype=float), np.arange(len(ranks))
    enough = enough_rank(losses, ranks, within)
    for number, row in enumerate(table):
        label = "three tuned models" if number == 0 else None
        ax.plot(places, row, color=BLUE, marker="o", markersize=6, linewidth=1.8, label=label)
    whole = table[:, -1].mean()
    ax.axhline(whole, color=MUTED, linestyle=":", label=f"whole update: {whole:.2f}")
    place = list(ranks).index(enough)
    ax.annotate(
        f"rank {enough}: {table[:, place].mean():.2f}",
        (place, table[:, place].max()),
        (10, 34),
        textcoords="offset points",
        arrowprops={"arrowstyle": "->", "color": INK},
    )
    ax.set_xticks(places, ["0", *map(str, ranks[1:-1]), "all"])
    ax.set(xlabel="rank k that is kept of every layer's update", ylim=(0, None))
    ax.set_ylabel("held-out loss\n(nats per graded token)")
    ax.set_title(f"From rank {enough} on, the cut costs at most {within:.2f} nats")
    ax.legend(loc="upper right")
    return ax


def draw_rates(results: Results) -> tuple[Axes, Axes]:
    """Held-out loss against the learning rate, both on log axes: full tuning and LoRA for two
    lengths of the run, and where LoRA sits."""
    figure = new_figure((12.5, 4.8))
    axes = figure.subplots(1, 2, sharey=True)
    arms = [
        {("full", 1): "-", ("full", 4): "--"}
        | {("all layers, rank 8", 1): "-", ("all layers, rank 8", 4): "--"},
        {("attention, rank 8", 1): "-", ("all layers, rank 3", 1): "-"}
        | {("all layers, rank 8", 1): "-", ("all layers, rank 64", 1): "-"},
    ]
    for ax, drawn in zip(axes, arms, strict=True):
        for (arm, epochs), line in drawn.items():
            length = f", {25 * epochs} steps" if ax is axes[0] else ""
            name = "LoRA" if ax is axes[0] and arm != "full" else arm
            _draw_arm(ax, results, arm, epochs, line, name + length)
        ax.set(xscale="log", yscale="log", xlabel="peak learning rate")
        ax.set_ylim(1e-3, 12)  # room for the legend below the curves
        ax.legend(fontsize=10.5, ncols=2, loc="lower left")
    axes[0].set_ylabel("held-out loss\n(nats per graded token)")
    axes[0].set_title("full tuning and LoRA of rank 8", fontsize=13)
    axes[1].set_title("LoRA in all layers and in attention, 25 steps", fontsize=13)
    factor = best_rate(results, "all layers, rank 8", 1) / best_rate(results, "full", 1)
    title_figure(figure, f"LoRA's best rate is {factor:.3g} times that of full tuning")
    return axes[0], axes[1]


def _draw_arm(ax: Axes, results: Results, arm: str, epochs: int, line: str, label: str) -> None:
    """Mean and seeds of one arm; its best rate by the mean is marked."""
    rows = results.select(arm=arm, epochs=epochs)
    rates = sorted({row["rate"] for row in rows})
    losses = [results.measured("choose", arm=arm, epochs=epochs, rate=rate) for rate in rates]
    means = [float(np.mean(seeds)) for seeds in losses]
    colour = COLOURS[arm]
    ax.plot(rates, means, color=colour, linestyle=line, label=label)
    for rate, seeds in zip(rates, losses, strict=True):
        ax.plot([rate] * len(seeds), seeds, ".", color=colour, markersize=5, alpha=0.7)
    best = int(np.argmin(means))
    ax.plot(rates[best], means[best], "o", color=colour, markersize=11, markerfacecolor="white")
