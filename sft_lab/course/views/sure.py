"""Chapter 09b: pictures of how sure a difference is: pairs, resamples, seeds, calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_lab.plots import BASE, GREEN, INK, MUTED, PROMPT, TUNED, VERMILLION, new_figure

BINS = 10  # of the calibration error
FEW = 10  # answers; a bin with fewer is drawn hollow


def draw_pairs(before: np.ndarray, after: np.ndarray, *, names: tuple[str, str]) -> Figure:
    """The four kinds of questions, as areas: both right, gained, lost, both wrong."""
    gained, lost = ~before & after, before & ~after
    kinds = [  # name, questions, colour, and where the name stands
        ("both right", before & after, PROMPT, ("center", 0.62)),
        (f"gained: only {names[1]} right", gained, GREEN, ("right", -0.62)),
        (f"lost: only {names[0]} right", lost, VERMILLION, ("left", -0.62)),
        ("both wrong", ~before & ~after, PROMPT, ("center", 0.62)),
    ]
    figure = new_figure((10.0, 2.3))
    ax = figure.subplots()
    left = 0
    for name, members, colour, (side, y) in kinds:
        count = int(members.sum())
        ax.barh(0, count, left=left, color=colour, edgecolor="white", linewidth=2, height=1.0)
        ax.text(left + count / 2, 0, count, ha="center", va="center", fontweight="bold", color=INK)
        x = left + {"left": 2, "center": count / 2, "right": count - 2}[side]
        ax.text(x, y, name, ha=side, va="bottom" if y > 0 else "top", fontsize=12)
        left += count
    ax.set(xlim=(0, left), ylim=(-1.2, 1.2), xlabel=f"{left} questions, each asked twice")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False)
    ax.set_title("Only the questions that changed tell the two apart")
    return figure


def draw_resamples(paired: np.ndarray, separate: np.ndarray) -> Figure:
    """Differences in points of all resamples, as two histograms with their 95 % intervals."""
    figure = new_figure((9.0, 4.0))
    axes = figure.subplots(2, 1, sharex=True)
    bins = np.arange(np.floor(separate.min()), np.ceil(separate.max()) + 1) - 0.5
    parts = (("both models on the same draw", paired, TUNED), ("separate draws", separate, MUTED))
    for ax, (name, differences, colour) in zip(axes, parts, strict=True):
        low, high = np.percentile(differences, [2.5, 97.5])
        counts, *_ = ax.hist(differences, bins=bins, color=colour, alpha=0.4)
        height = 1.12 * counts.max()
        ax.plot([low, high], [height, height], color=colour, linewidth=4, solid_capstyle="butt")
        label = f"{name}: {low:+.1f} to {high:+.1f}"
        ax.text(high + 0.4, height, label, va="center", fontsize=12)
        ax.axvline(0, color=INK, linewidth=1, linestyle=":")
        ax.set(yticks=[], ylim=(0, 1.3 * counts.max()), xlim=(bins[0], bins[-1] + 7))
    axes[1].set_xlabel("difference in points, in each of 4,000 resamples")
    axes[0].set_title("Pairs give the narrower interval")
    return figure


def draw_seeds(effects: np.ndarray, intervals: Sequence[tuple[float, float]]) -> Figure:
    """The difference of each seed with its interval over questions; all are fractions."""
    figure = new_figure((9.0, 0.42 * len(effects) + 1.4))
    ax = figure.subplots()
    order = np.argsort(effects)
    for row, seed in enumerate(order):
        low, high = (100 * end for end in intervals[seed])
        colour = TUNED if low > 0 or high < 0 else MUTED
        ax.plot([low, high], [row, row], color=colour, linewidth=3)
        ax.scatter([100 * effects[seed]], [row], color=colour, s=80, zorder=3)
    ax.axvline(0, color=INK, linewidth=1.2, linestyle=":")
    ax.set_yticks(range(len(order)), [f"seed {seed}" for seed in order])
    ax.set_xlabel("plain words − ChatML, points, with the 95 % interval over questions")
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_title("One recipe against another: the seed decides how clear it looks")
    return figure


def draw_calibration(models: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """For each model the share of right answers in each of ten bins of confidence, and below it the
    number of answers in the bin. The bins are those of the calibration error.

    models: name → (confidence, whether right) of each answer. A bin of fewer than FEW answers is
    drawn hollow.
    """
    figure = new_figure((10.0, 5.4))
    upper, lower = figure.subplots(2, len(models), sharex=True, sharey="row", height_ratios=(2, 1))
    for place, (name, (sure, right)) in enumerate(models.items()):
        colour = BASE if place == 0 else TUNED
        _draw_bins(upper[place], lower[place], np.asarray(sure), np.asarray(right), colour)
        upper[place].set_title(name, fontsize=13.5)
        lower[place].set_xlabel("confidence in the own answer")
    upper[0].set(ylim=(-0.04, 1.08), ylabel="share right")
    lower[0].set_ylabel("answers")
    lower[0].set_ylim(0, 1.25 * lower[0].get_ylim()[1])
    figure.suptitle(
        "Above the diagonal: right more often than sure", x=0.01, ha="left", fontweight="bold"
    )
    return figure


def count_bins(sure: np.ndarray, right: np.ndarray) -> list[tuple[int, float, float]]:
    """Answers, mean confidence and share of right ones in each of the ten bins of the calibration
    error; 0.0 for both in an empty bin. A border belongs to the bin above it, 1.0 to the last."""
    places = np.digitize(sure, np.arange(1, BINS) / BINS)
    table = []
    for number in range(BINS):
        inside = places == number
        count = int(inside.sum())
        means = (float(sure[inside].mean()), float(right[inside].mean())) if count else (0.0, 0.0)
        table.append((count, *means))
    return table


def _draw_bins(upper: Axes, lower: Axes, sure: np.ndarray, right: np.ndarray, colour: str) -> None:
    """One model's column: its bins against the diagonal, and the answers in each."""
    upper.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.6)
    for number, (count, x, y) in enumerate(count_bins(sure, right)):
        middle = (number + 0.5) / BINS
        lower.bar(middle, count, width=0.9 / BINS, color=colour, alpha=0.5)
        above = {"textcoords": "offset points", "ha": "center", "fontsize": 11}
        lower.annotate(count, (middle, count), (0, 3), **above)
        if count:
            face = colour if count >= FEW else "white"
            upper.plot([x, x], [x, y], color=colour, linewidth=2, alpha=0.5)
            upper.scatter([x], [y], s=90, color=face, edgecolor=colour, linewidth=2, zorder=3)
    upper.set_xlim(-0.02, 1.02)
