"""What a way of tuning costs, by model and size, from the shapes alone (chapter 06)."""

from collections.abc import Callable
from functools import cache

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import AutoConfig, PreTrainedConfig

from sft_lab.adapters import METHODS, SIZE_NAMES, count_trained
from sft_lab.costs import method_cost, model_operations
from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.formats import format_bytes, format_count, format_share
from sft_lab.models import ATLAS_FOLDER
from sft_lab.plots import ANSWER, INK, MUTED, new_figure, title_figure
from sft_lab.shapes import named_config

MODELS = ("atlas-base", "Qwen3-0.6B", "Qwen3-4B", "Qwen3-8B")


@cache
def find_config(model: str) -> PreTrainedConfig:
    """The config of one of MODELS; no network, no weights."""
    if model not in MODELS:
        raise ValueError(f"model is {model!r}; shown are {', '.join(MODELS)}")
    return (
        AutoConfig.from_pretrained(ATLAS_FOLDER) if model == "atlas-base" else named_config(model)
    )


def describe_choice(model: str, method: str, size: int) -> str:
    """What `draw_choice` shows of the chosen method, in words. model: one of MODELS."""
    config = find_config(model)
    found, everything = method_cost(method, size, config), count_trained("full", size, config)
    slower = found.operations / model_operations(config)
    more = f"{format_share(slower) if slower else 'no'} more operations a token"
    more += " (none once merged)" if method == "LoRA" else ""
    cache = f"{format_bytes(found.cache_bytes)} of cache" if found.cache_bytes else "no cache"
    return (
        f"{model}, {_name(method, size)}: trains {format_count(found.trained)} of "
        f"{format_count(everything)} parameters ({format_share(found.trained / everything)}). "
        f"AdamW keeps {format_bytes(found.optimizer_bytes)}, the file of a task takes "
        f"{format_bytes(found.file_bytes)}. A request costs {cache} and {more}."
    )


def draw_choice(model: str, method: str, size: int) -> Figure:
    """Three costs of all methods as dots on logarithmic axes, the most trained parameters above;
    the chosen one is orange, larger, and marked with an arrow.

    Methods with a size all have this one. A cost of nothing has no dot and says 0 at the edge,
    because 0 has no logarithm.
    """
    config = find_config(model)
    order = sorted(METHODS, key=lambda name: -method_cost(name, size, config).trained)
    costs = {name: method_cost(name, size, config) for name in order}
    figure = new_figure((11.0, 3.9))
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(1.2, 1, 1))
    every_token = model_operations(config)
    share = {name: found.operations / every_token for name, found in costs.items()}
    _draw_dots(
        axes[0],
        {name: found.trained for name, found in costs.items()},
        method,
        format_count,
        "trained parameters\n(× 8 bytes for AdamW)",
    )
    _draw_dots(
        axes[1],
        {name: found.cache_bytes for name, found in costs.items()},
        method,
        format_bytes,
        "cache for each request\n(bytes, bfloat16)",
    )
    _draw_dots(
        axes[2], share, method, format_share, "more operations a token\n(share; LoRA unmerged)"
    )
    names = [f"▶ {name}" if name == method else name for name in order]
    axes[0].set_yticks(range(len(order)), names)
    axes[0].set_ylim(-0.6, len(order) - 0.4)
    axes[0].invert_yaxis()
    part = format_share(costs[method].trained / count_trained("full", size, config))
    title_figure(figure, f"{model}: {_name(method, size)} trains {part} of the parameters")
    return figure


def explore_choice(
    model: str = "Qwen3-0.6B", method: str = "LoRA", size: int = 16
) -> ipywidgets.VBox:
    """Buttons for model and method and a slider for the size; draws `draw_choice` below them.

    A step of the slider (arrow keys) doubles the size. ValueError for a model, method or size that
    is not shown.
    """
    sizes = [2**power for power in range(9)]
    if size not in sizes:
        raise ValueError(f"size is {size}; the slider has {', '.join(map(str, sizes))}")
    method_cost(method, size, find_config(model))  # refuses what is not there
    wide = "5em"
    models = choose("model", [(name, name) for name in MODELS], description_width=wide)
    methods = choose("method", [(name, name) for name in METHODS], description_width=wide)
    slider = ipywidgets.SelectionSlider(
        options=sizes,
        value=size,
        description="size",
        continuous_update=False,
        style={"description_width": wide},
        layout=ipywidgets.Layout(width="32em"),
    )
    models.value, methods.value = model, method

    def answer() -> Answer:
        chosen = (models.value, methods.value, slider.value)
        return Answer(describe_choice(*chosen), draw_choice(*chosen))

    view, redraw = frame([models, methods, slider], answer)
    redraw_on(redraw, models, methods, slider)
    return view


def _name(method: str, size: int) -> str:
    """A method and its size in words; full tuning and BitFit have none."""
    what = SIZE_NAMES.get(method)
    if not what:
        return method
    return f"{method} with {size} {what}" if what == "positions" else f"{method} of {what} {size}"


def _draw_dots(
    ax: Axes, values: dict[str, float], chosen: str, say: Callable[[float], str], xlabel: str
) -> None:
    """A dot a method on a logarithmic axis that begins below the least value above 0; each value is
    written out."""
    least, most = min(value for value in values.values() if value), max(values.values())
    start = least / 4
    for row, (name, value) in enumerate(values.items()):
        here = name == chosen
        if value:
            ax.plot(
                value,
                row,
                "o",
                color=ANSWER if here else MUTED,
                markersize=12 if here else 8,
                markeredgecolor=INK if here else MUTED,
            )
        ax.annotate(
            say(value),
            (value or start, row),
            (10, 0) if value else (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
            fontweight="bold" if here else "normal",
        )
    ax.set(xscale="log", xlim=(start, most * (most / start) ** 0.45), xlabel=xlabel)
    ax.minorticks_off()
    ax.locator_params(axis="x", numticks=5)
    ax.grid(axis="both", visible=True)
    ax.tick_params(axis="y", length=0)
