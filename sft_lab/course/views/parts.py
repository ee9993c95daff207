"""What six ways of tuning learn, disturb and cost: recorded runs as dots (chapter 06)."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_lab.formats import format_count
from sft_lab.plots import BLUE, GREEN, INK, MUTED, ORANGE, VERMILLION, new_figure, title_figure

# grey: full; blue: changes what a layer computes; red: adds keys and values, or embeddings
COLOURS = {
    "full": MUTED,
    "LoRA": BLUE,
    "adapter": BLUE,
    "BitFit": BLUE,
    "prefix": VERMILLION,
    "prompt": VERMILLION,
}
Runs = Mapping[str, Sequence[Mapping[str, float]]]


def draw_rates(
    tried: Mapping[str, Mapping[float, Sequence[float]]], chosen: Mapping[str, float]
) -> Figure:
    """Share of right answers by learning rate: a panel a method, a dot a seed, a line for the
    mean; the chosen rate is marked."""
    figure = new_figure((12.0, 3.4))
    panels = figure.subplots(1, len(tried), sharey=True, squeeze=False)[0]
    for ax, (method, shares) in zip(panels, tried.items(), strict=True):
        means = {rate: sum(values) / len(values) for rate, values in shares.items()}
        ax.plot(list(means), list(means.values()), color=COLOURS[method])
        for rate, values in shares.items():
            ax.plot([rate] * len(values), values, "o", color=COLOURS[method], alpha=0.6)
        ax.axvline(chosen[method], color=ORANGE, linestyle=":", linewidth=2)
        ax.set_title(
            f"{method}\nchosen: {chosen[method]:g}", fontsize=12, fontweight="normal", pad=6
        )
        ax.set(xscale="log", ylim=(-0.03, 1.03))
        ax.minorticks_off()
        ax.tick_params(labelsize=10)
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    panels[0].set_ylabel("right, countries\nthat choose the rate")
    figure.supxlabel("peak learning rate", fontsize=12)
    title_figure(figure, "Each method has a rate of its own")
    return figure


def draw_methods(runs: Runs, trained: Mapping[str, int], before: Mapping[str, float]) -> Figure:
    """Trained parameters and three measures of each method, those with more right answers above;
    a small dot a seed, a large one the mean, a dotted line the base."""
    order = sorted(runs, key=lambda method: _mean(runs[method], "right"))
    figure = new_figure((12.5, 3.9))
    panels = figure.subplots(1, 4, sharey=True)
    panels[0].scatter(
        [trained[method] for method in order],
        range(len(order)),
        s=80,
        color=[COLOURS[method] for method in order],
    )
    for row, method in enumerate(order):
        _note(panels[0], trained[method], row, format_count(trained[method]))
    panels[0].set(xscale="log", xlim=(min(trained.values()) / 2, 12 * max(trained.values())))
    panels[0].set(xlabel="trained parameters", yticks=range(len(order)), yticklabels=order)
    _draw_measure(panels[1], runs, order, "right", before)
    panels[1].set(xlabel="right answers,\nother countries", xlim=(-0.05, 1.05))
    _draw_measure(panels[2], runs, order, "kept", before)
    panels[2].set(xlabel="old facts kept,\npart active", xlim=(-0.05, 1.05))
    _draw_measure(panels[3], runs, order, "documents", before)
    panels[3].set(xlabel="loss on documents\n(nats per token)")
    for ax in panels:
        ax.minorticks_off()
        ax.grid(visible=True, axis="both")
        ax.tick_params(axis="y", length=0)
    panels[0].set_ylim(-0.6, len(order) - 0.4)
    for ax in panels[1:3]:
        ax.set_xticks([0, 0.5, 1.0], ["0 %", "50 %", "100 %"])
    panels[3].annotate(
        "base",
        (before["documents"], len(order) - 1),
        (6, 0),
        textcoords="offset points",
        va="center",
        color=GREEN,
        fontsize=11,
    )
    title_figure(
        figure,
        "Changed layers learn the task in 40 steps, a prefix in some seeds, a prompt in none",
    )
    return figure


def draw_real(runs: Runs, before: float) -> Axes:
    """Held-out loss of each method on a real model beside the model as it was, lowest below."""
    order = sorted(runs, key=lambda method: _mean(runs[method], "loss"))
    ax = new_figure((8.0, 0.6 * len(order) + 1.8)).subplots()
    _draw_measure(ax, runs, order, "loss", {"loss": before})
    names = [f"{method}\n{format_count(runs[method][0]['trained'])}" for method in order]
    ax.set_yticks(range(len(order)), names)
    ax.annotate(
        "untuned", (before, len(order) - 0.6), (-6, 0), textcoords="offset points", ha="right"
    )
    ax.set(xlabel="held-out loss (nats per graded token)", xlim=(0, 1.08 * before))
    ax.set_ylim(-0.6, len(order) - 0.3)
    ax.grid(visible=True, axis="both")
    ax.set_title("On smollm2-135m, 12 steps take most of the loss away")
    return ax


def _draw_measure(
    ax: Axes, runs: Runs, order: Sequence[str], measure: str, before: Mapping[str, float]
) -> None:
    for row, method in enumerate(order):
        values = [run[measure] for run in runs[method]]
        ax.plot(values, [row] * len(values), "o", color=COLOURS[method], markersize=5, alpha=0.55)
        ax.plot(
            [_mean(runs[method], measure)],
            [row],
            "D",
            color=COLOURS[method],
            markersize=8,
            markeredgecolor=INK,
        )
    ax.axvline(before[measure], color=GREEN, linestyle=":", linewidth=2)


def _mean(runs: Sequence[Mapping[str, float]], measure: str) -> float:
    return sum(run[measure] for run in runs) / len(runs)


def _note(ax: Axes, x: float, y: float, text: str) -> None:
    ax.annotate(text, (x, y), (9, 0), textcoords="offset points", va="center", fontsize=11)
