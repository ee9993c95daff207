"""The update that full tuning made to a layer, and what a lower rank keeps of it (chapter 05)."""

from collections.abc import Mapping

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_lab.course.views.widgets import Answer, choose, frame, one_at_a_time, redraw_on
from sft_lab.low_rank import kept_energy, truncate
from sft_lab.plots import ANSWER, INK, MUTED, PROMPT, new_figure, title_figure


def describe_rank(name: str, update: torch.Tensor, rank: int) -> str:
    """What `draw_rank` shows, in words: the energy and the error at this rank, and the parameters
    it costs."""
    _refuse_zero(name, update)
    energy = kept_energy(torch.linalg.svdvals(update), rank)
    lora, full = _count_numbers(update, rank)
    error = (update - truncate(update, rank)).norm() / update.norm()
    return (
        f"{name}, {update.shape[0]} × {update.shape[1]}: {rank} of {min(update.shape)} singular "
        f"values keep {energy:.0%} of the energy of the update; the error is {error:.0%} of its "
        f"length. LoRA of rank {rank} learns {lora:,} numbers, the full matrix has {full:,}: "
        f"{lora / full:.0%}."
    )


def draw_rank(name: str, update: torch.Tensor, rank: int) -> Figure:
    """A layer's update, its best approximation of this rank, the error, the singular values, and
    the parameters.

    update: (out, in). The three maps share one colour scale. Their rows and columns are ordered by
    the first pair of singular vectors, in all three alike: a matrix has no natural order of its
    features, and so its structure shows. Raises ValueError for an update that is zero everywhere,
    and for a rank that it cannot have.
    """
    _refuse_zero(name, update)
    near = truncate(update, rank)
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    rows, columns = left[:, 0].argsort(), right[0].argsort()
    limit = update.abs().flatten().kthvalue(max(1, int(0.995 * update.numel()))).values.item()
    figure = new_figure((11.0, 4.9))
    above, below = figure.subfigures(2, height_ratios=(4, 1))
    axes = above.subplot_mosaic([["true", "near", "error", "values"]], width_ratios=(1, 1, 1, 1.3))
    titles = {"true": "true update", "near": f"its best rank {rank}", "error": "what is missing"}
    for key, matrix in (("true", update), ("near", near), ("error", update - near)):
        ax = axes[key]
        picture = ax.imshow(
            matrix[rows][:, columns].numpy(force=True),
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            aspect="auto",
            interpolation="nearest",
        )
        ax.set(xticks=[], yticks=[], xlabel=f"{update.shape[1]} inputs")
        ax.set_title(titles[key], fontsize=12.5, fontweight="normal", pad=6)
        ax.grid(visible=False)
    axes["true"].set_ylabel(f"{update.shape[0]} outputs")
    bar = above.colorbar(
        picture, ax=axes["error"], ticks=[-limit, 0, limit], fraction=0.1, pad=0.03
    )
    bar.ax.set_yticklabels([f"−{limit:.1g}", "0", f"{limit:.1g}"], fontsize=10)
    _draw_values(axes["values"], values.numpy(force=True), rank)
    _draw_count(below.subplots(), *_count_numbers(update, rank))
    energy = kept_energy(values, rank)
    title_figure(
        figure,
        f"{name}: rank {rank} of {len(values)} keeps {energy:.0%} of the energy of the update",
    )
    return figure


def explore_rank(updates: Mapping[str, torch.Tensor], rank: int = 4) -> ipywidgets.VBox:
    """Buttons for the layer and a slider for the rank; draws `draw_rank` below them.

    updates: the update, (out, in), of each layer by name. rank: where the slider begins.
    """
    if not updates:
        raise ValueError("no layer to show: give {name: update}")
    layers = choose("layer", [(name, name) for name in updates])
    slider = ipywidgets.IntSlider(
        value=1,
        min=1,
        max=1,
        description="rank",
        continuous_update=False,
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="32em"),
    )
    slider.max = min(updates[layers.value].shape)
    if not 1 <= rank <= slider.max:
        raise ValueError(
            f"rank is {rank}; the first layer, {layers.value}, has ranks from 1 to {slider.max}"
        )
    slider.value = rank

    def answer() -> Answer:
        shown = (layers.value, updates[layers.value], slider.value)
        return Answer(describe_rank(*shown), draw_rank(*shown))

    view, redraw = frame([[layers, slider]], answer)

    @one_at_a_time
    def change_layer(_: object) -> None:
        # A lower maximum may move the value, which would draw a picture that nobody sees.
        slider.unobserve(redraw, names="value")
        slider.max = min(updates[layers.value].shape)
        slider.observe(redraw, names="value")
        redraw()

    layers.observe(change_layer, names="value")
    redraw_on(redraw, slider)
    return view


def _count_numbers(update: torch.Tensor, rank: int) -> tuple[int, int]:
    """Numbers that LoRA of this rank learns for the layer, rank · (in + out), and those of the
    layer, in · out."""
    return rank * sum(update.shape), update.numel()


def _refuse_zero(name: str, update: torch.Tensor) -> None:
    if not update.any():
        raise ValueError(
            f"the update of {name} is zero everywhere: nothing was trained, or the base was "
            "subtracted from itself"
        )


def _draw_values(ax: Axes, values: np.ndarray, rank: int) -> None:
    """The singular values in falling order: filled where they are kept, hollow where they are
    not."""
    numbers = np.arange(1, len(values) + 1)
    ax.scatter(
        numbers[:rank],
        values[:rank],
        s=26,
        color=ANSWER,
        edgecolor=INK,
        linewidth=0.8,
        zorder=3,
        label="kept",
    )
    ax.scatter(
        numbers[rank:],
        values[rank:],
        s=20,
        facecolor="white",
        edgecolor=MUTED,
        zorder=2,
        label="dropped",
    )
    ax.axvline(rank + 0.5, color=MUTED, linestyle=":", linewidth=1.4)
    ax.set(xlabel="number, largest first", ylim=(0, None))
    ax.set_title("singular values", fontsize=12.5, fontweight="normal", pad=6)
    ax.legend(loc="upper right", handletextpad=0.2)


def _draw_count(ax: Axes, lora: int, full: int) -> None:
    """Two bars: what LoRA learns and what the matrix holds."""
    ax.barh([0, 1], [full, lora], color=[PROMPT, ANSWER], edgecolor=INK, linewidth=[0.0, 0.8])
    ax.set_yticks([0, 1], ["full", "LoRA"])
    for row, count in ((0, full), (1, lora)):
        ax.annotate(f"{count:,}", (count, row), (6, 0), textcoords="offset points", va="center")
    ax.set(xlim=(0, 1.12 * max(lora, full)), xticks=[], xlabel="parameters of this layer")
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
