"""What a way of tuning costs, by model and size, from the shapes alone (chapter 06).

A thin view over plain functions, like those of widgets.py: what is drawn is also said in words, and
the controls are buttons and a slider that the keyboard reaches. Tests compare every number with
real modules.
"""

import base64
import html
from typing import NamedTuple

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_lab.course.views.figures import one_at_a_time
from sft_lab.course.views.widgets import choose, paragraph, to_png
from sft_lab.formats import format_count
from sft_lab.plots import ANSWER, INK, PROMPT, new_figure

METHODS = ("full", "LoRA", "adapter", "prefix", "prompt", "BitFit")
SIZE = {
    "LoRA": "rank",
    "adapter": "width",
    "prefix": "positions",
    "prompt": "positions",
}  # the others have no size


class Shape(NamedTuple):
    """A decoder of the Qwen3 kind: what its config.json says of its sizes. tied: the head is the
    embedding table."""

    name: str
    layers: int
    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool


SHAPES = (  # the config.json of each model
    Shape("atlas-base", 4, 128, 384, 4, 2, 32, 2_048, True),
    Shape("Qwen3-0.6B", 28, 1024, 3072, 16, 8, 128, 151_936, True),
    Shape("Qwen3-4B", 36, 2560, 9728, 32, 8, 128, 151_936, True),
    Shape("Qwen3-8B", 36, 4096, 12_288, 32, 8, 128, 151_936, False),
)


class Cost(NamedTuple):
    """What a method costs. Operations: a multiplication and an addition of a matrix product count
    as two."""

    trained: int  # parameters
    optimizer_bytes: int  # AdamW in float32: a mean and a mean of squares for each of them
    file_bytes: int  # what is kept for each task, in float32
    cache_bytes: int  # more keys and values for each request, in bfloat16
    operations: int  # more of them for each token that is read or written; LoRA before a merge


def linear_shapes(shape: Shape) -> list[tuple[int, int]]:
    """(out, in) of the linear layers of one decoder layer: q, k, v, o, gate, up, down."""
    queries, keys, width, middle = (
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
        *shape[2:4],
    )
    attention = [(queries, width), (keys, width), (keys, width), (width, queries)]
    return [*attention, (middle, width), (middle, width), (width, middle)]


def count_parameters(shape: Shape) -> int:
    """All parameters of the model: linear layers, norms, embeddings, and the head where it is not
    tied."""
    a_layer = (
        sum(rows * columns for rows, columns in linear_shapes(shape))
        + 2 * shape.width
        + 2 * shape.head_dim
    )
    return (
        shape.layers * a_layer
        + shape.width
        + shape.vocabulary * shape.width * (1 if shape.tied else 2)
    )


def count_trained(shape: Shape, method: str, size: int) -> int:
    """Parameters that the method trains; size is LoRA's rank, the adapter's width, or positions
    (see SIZE)."""
    _check(method, size)
    if method == "full":
        return count_parameters(shape)
    if method == "LoRA":
        return shape.layers * sum(size * (rows + columns) for rows, columns in linear_shapes(shape))
    if method == "adapter":  # two a layer, with biases
        return shape.layers * 2 * (2 * shape.width * size + size + shape.width)
    if method == "prefix":  # a key and a value, for every layer
        return shape.layers * 2 * shape.kv_heads * shape.head_dim * size
    if method == "prompt":
        return size * shape.width
    return shape.layers * sum(rows for rows, _ in linear_shapes(shape))


def count_operations(shape: Shape, method: str, size: int) -> int:
    """Operations in matrix products that the method adds for each token; additions of biases are
    left out."""
    _check(method, size)
    if method == "LoRA":
        return shape.layers * sum(
            2 * size * (rows + columns) for rows, columns in linear_shapes(shape)
        )
    if method == "adapter":
        return shape.layers * 2 * 2 * (2 * shape.width * size)
    if method in (
        "prefix",
        "prompt",
    ):  # one score and one weighed value for every position, in every head
        return shape.layers * 2 * 2 * shape.heads * shape.head_dim * size
    return 0


def model_operations(shape: Shape) -> int:
    """Operations in matrix products of the model itself for each token, without attention: two a
    weight."""
    linear = shape.layers * sum(rows * columns for rows, columns in linear_shapes(shape))
    return 2 * (linear + shape.vocabulary * shape.width)


def cost(shape: Shape, method: str, size: int) -> Cost:
    """All five costs of a method. ValueError for an unknown method or a size below 1."""
    trained = count_trained(shape, method, size)
    extra = size if method in ("prefix", "prompt") else 0
    cache = shape.layers * 2 * shape.kv_heads * shape.head_dim * extra * 2
    return Cost(trained, 8 * trained, 4 * trained, cache, count_operations(shape, method, size))


def describe_choice(shape: Shape, method: str, size: int) -> str:
    """What `draw_choice` shows of the chosen method, in words."""
    found, everything = cost(shape, method, size), count_parameters(shape)
    of_size = (
        f" with {size} {SIZE[method]}"
        if SIZE.get(method) == "positions"
        else (f" of {SIZE[method]} {size}" if method in SIZE else "")
    )
    slower = found.operations / model_operations(shape)
    more = (
        "no more operations a token"
        if not slower
        else f"{format_share(slower)} more operations a token"
    )
    more += " (none once merged)" if method == "LoRA" else ""
    cache = f"{format_bytes(found.cache_bytes)} of cache" if found.cache_bytes else "no cache"
    return (
        f"{shape.name}, {method}{of_size}: trains {format_count(found.trained)} of "
        f"{format_count(everything)} parameters ({format_share(found.trained / everything)}). "
        f"AdamW keeps {format_bytes(found.optimizer_bytes)}, the file of a task takes "
        f"{format_bytes(found.file_bytes)}. A request costs {cache} and {more}."
    )


def draw_choice(shape: Shape, method: str, size: int) -> Figure:
    """Three costs of all methods on logarithmic axes; the chosen one is orange and marked with an
    arrow.

    Methods with a size all have this one. A cost of nothing has no bar and says 0, because 0 has no
    logarithm.
    """
    costs = {name: cost(shape, name, size) for name in METHODS}
    figure = new_figure((11.0, 3.9))
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(1.2, 1, 1))
    share = {name: found.operations / model_operations(shape) for name, found in costs.items()}
    _draw_bars(
        axes[0],
        {name: found.trained for name, found in costs.items()},
        method,
        format_count,
        "trained parameters\n(× 8 bytes for AdamW)",
    )
    _draw_bars(
        axes[1],
        {name: found.cache_bytes for name, found in costs.items()},
        method,
        format_bytes,
        "cache for each request\n(bytes, bfloat16)",
    )
    _draw_bars(
        axes[2], share, method, format_share, "more operations a token\n(share; LoRA unmerged)"
    )
    names = [f"▶ {name}" if name == method else name for name in METHODS]
    axes[0].set_yticks(range(len(METHODS)), names)
    axes[0].invert_yaxis()
    part = format_share(costs[method].trained / count_parameters(shape))
    settings = f", {SIZE[method]} {size}" if method in SIZE else ""
    figure.suptitle(
        f"{shape.name}: {method}{settings} trains {part} of the parameters",
        x=0.01,
        ha="left",
        fontweight="bold",
        fontsize=15,
    )
    return figure


def explore_choice(
    model: str = "Qwen3-0.6B", method: str = "LoRA", size: int = 16
) -> ipywidgets.VBox:
    """Buttons for model and method and a slider for the size; draws `draw_choice` below them.

    A step of the slider (arrow keys) doubles the size. ValueError for a model, method or size that
    is not shown.
    """
    shapes = {shape.name: shape for shape in SHAPES}
    if model not in shapes:
        raise ValueError(f"model is {model!r}; shown are {', '.join(shapes)}")
    _check(method, size)
    wide = "5em"
    models = choose("model", [(name, name) for name in shapes], description_width=wide)
    methods = choose("method", [(name, name) for name in METHODS], description_width=wide)
    sizes = [2**power for power in range(9)]
    if size not in sizes:
        raise ValueError(f"size is {size}; the slider has {', '.join(map(str, sizes))}")
    slider = ipywidgets.SelectionSlider(
        options=sizes,
        value=size,
        description="size",
        continuous_update=False,
        style={"description_width": wide},
        layout=ipywidgets.Layout(width="32em"),
    )
    models.value, methods.value = model, method
    picture, words = ipywidgets.HTML(), ipywidgets.HTML()

    @one_at_a_time
    def redraw(_: object = None) -> None:
        chosen = (shapes[models.value], methods.value, slider.value)
        sentence = describe_choice(*chosen)
        source = base64.b64encode(to_png(draw_choice(*chosen))).decode()
        picture.value = (
            f'<img alt="{html.escape(sentence)}" src="data:image/png;base64,{source}" '
            'style="max-width: 100%">'
        )
        words.value = paragraph(sentence)

    for control in (models, methods, slider):
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([models, methods, slider, picture, words])


def format_bytes(count: float) -> str:
    """Three digits and a unit: 65_536 -> '65.5 kB', 8_000_000_000 -> '8.00 GB'; 0 -> '0'."""
    if not count:
        return "0"
    return (
        f"{format_count(int(count))}B".replace(" BB", " GB") if count >= 1000 else f"{int(count)} B"
    )


def format_share(share: float) -> str:
    """A fraction in per cent with two digits: 0.0123 -> '1.2 %'; 0 -> '0'; 1 -> '100 %'."""
    percent = 100 * share
    if not percent:
        return "0"
    return (
        f"{percent:.0f} %"
        if percent >= 9.95
        else f"{float(f'{percent:.2g}'):.4f}".rstrip("0").rstrip(".") + " %"
    )


def _check(method: str, size: int) -> None:
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; there are {', '.join(METHODS)}")
    if size < 1:
        raise ValueError(f"size is {size}; rank, width and positions are at least 1")


def _draw_bars(ax: Axes, values: dict[str, float], chosen: str, say, xlabel: str) -> None:
    """Horizontal bars on a logarithmic axis, from a tenth of the least value above 0; each value is
    written out."""
    least, most = min(value for value in values.values() if value), max(values.values())
    start = least / 10
    for row, (name, value) in enumerate(values.items()):
        if value:
            here = name == chosen
            ax.barh(
                row,
                value - start,
                left=start,
                color=ANSWER if here else PROMPT,
                edgecolor=INK,
                linewidth=1.4 if here else 0.0,
            )
        ax.annotate(
            say(value),
            (value or start, row),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
            fontweight="bold" if name == chosen else "normal",
        )
    ax.set(xscale="log", xlim=(start, most * (most / start) ** 0.45), xlabel=xlabel)
    ax.minorticks_off()
    ax.locator_params(axis="x", numticks=5)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    ax.tick_params(axis="y", length=0)
