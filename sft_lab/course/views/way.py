"""The way from TRL's defaults to our loop (chapter 07b): what each change of it wins."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from sft_lab.plots import BLUE, INK, MUTED, VERMILLION, new_figure, title_figure


def wins(seconds: Mapping[str, float]) -> dict[str, float]:
    """Time before a change over the time after it, the largest first. seconds: of each way, in the
    order of the changes; the first way is where they begin."""
    names = list(seconds)
    pairs = zip(names, names[1:], strict=False)
    won = {after: seconds[before] / seconds[after] for before, after in pairs}
    return dict(sorted(won.items(), key=lambda item: -item[1]))


def draw_way(seconds: Mapping[str, float], ax: Axes | None = None) -> Axes:
    """A bar for each change, on a logarithmic axis on which equal lengths are equal factors: to the
    right of 1 it wins, to the left it loses. Arguments as in `wins`."""
    won = wins(seconds)
    ax = ax or new_figure((9.0, 4.4)).subplots()
    for row, (_name, factor) in enumerate(won.items()):
        ax.barh(row, factor - 1, left=1, height=0.62, color=BLUE if factor >= 1 else VERMILLION)
        side = 1 if factor >= 1 else -1
        ax.annotate(
            f"{factor:.2f}",
            (factor, row),
            (6 * side, 0),
            textcoords="offset points",
            va="center",
            ha="left" if side > 0 else "right",
            fontweight="bold",
        )
    low, high = min(1.0, *won.values()), max(1.0, *won.values())
    ax.axvline(1, color=INK, linewidth=1.5)
    ax.set(xscale="log", xlim=(low / 1.25, high * 1.3), ylim=(len(won) - 0.4, -0.6))
    ax.set_xticks(
        [tick for tick in (0.5, 0.7, 1, 1.4, 2, 3, 5, 10, 20) if low / 1.25 < tick < high * 1.3]
    )
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xticks([], minor=True)
    ax.set_yticks(range(len(won)), list(won))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=MUTED, alpha=0.3)
    ax.set_xlabel("time before the change / time after it (1: nothing won)")
    names = list(seconds)
    total = seconds[names[0]] / seconds[names[-1]]
    finding = f"All together {total:.1f} times as fast; the longest step: {next(iter(won))}"
    title_figure(ax.figure, finding)
    return ax
