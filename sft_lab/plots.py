"""One palette and a few drawings, so that a colour means the same thing in every chapter.

Colours are from Okabe and Ito (2008), chosen to stay apart for readers with any colour vision. A
title states the finding, not the topic ("The loss falls by half in 100 steps", not "Loss curve");
axes carry units.

Token text is drawn as it is: "$" starts no formula, spaces and newlines show, no character becomes
an empty box."""

import threading
from collections.abc import Collection, Mapping, Sequence
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.patches import FancyBboxPatch
from numpy.typing import ArrayLike

from sft_lab.examples import IGNORE_INDEX
from sft_lab.formats import format_percent

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
INK, MUTED, GRID = "#1F2430", "#6B7280", "#E3E6EB"
PALE = "#F1F3F6"  # a part of a drawing that is not in question
# what the loss does with a token: ignored, graded, not there
PROMPT, ANSWER, PADDING = "#C9CDD3", ORANGE, "#FFFFFF"
BASE, TUNED = BLUE, VERMILLION  # the model before and after
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE)

CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "SimHei",
    "Arial Unicode MS",
)

# the parts of decoder_layer from left to right: name, middle (x, y), what the box says
PARTS = {
    "tokens": (0.6, 2.6, "token\nids"),
    "embedding": (1.8, 2.6, "embed-\nding"),
    "norm1": (3.2, 2.6, "norm"),
    "q": (4.5, 4.3, "Q"),
    "k": (4.5, 2.6, "K"),
    "v": (4.5, 0.9, "V"),
    "attention": (6.0, 2.6, "atten-\ntion"),
    "o": (7.2, 2.6, "O"),
    "norm2": (9.5, 2.6, "norm"),
    "gate": (10.7, 3.5, "gate"),
    "up": (10.7, 1.7, "up"),
    "down": (11.9, 2.6, "down"),
    "final_norm": (14.3, 2.6, "norm"),
    "head": (15.5, 2.6, "head"),
    "loss": (16.7, 2.6, "loss"),
}
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")  # the linear maps of a layer
ADDED = GREEN  # what a method adds to a model and trains
_SUMS = {"attention": 8.6, "mlp": 13.3}  # where a branch is added to the stream, x
_ADAPTERS = {"attention": 8.0, "mlp": 12.7}


answering = threading.local()  # `.now` is true in a thread that answers the controls of a view


def new_figure(figsize: tuple[float, float] | None = None) -> Figure:
    """plt.figure, which the notebook shows after the cell; or, inside a view's answer, a figure
    unknown to pyplot.

    JupyterLab answers every control in a thread of its own, and after each answer the notebook
    shows whatever figure pyplot knows: also one that another thread has half drawn, and that
    picture comes out in pieces.
    """
    if getattr(answering, "now", False):
        return Figure(figsize=figsize)
    return plt.figure(figsize=figsize)


def title_figure(figure: Figure, finding: str) -> None:
    """The finding as title over a figure of several axes, at the left like the title of one."""
    figure.suptitle(finding, x=0.01, ha="left", fontweight="bold", fontsize=15)


def style() -> None:
    """Set matplotlib up once, at the top of a notebook: sizes that a projector shows, no frame,
    pale grid lines."""
    plt.rcParams.update(
        {
            "font.family": [font for font, _ in _fonts()],
            "font.size": 13,
            "axes.titlesize": 15,
            "axes.labelsize": 13,
            "legend.fontsize": 12,
            "xtick.labelsize": 12,
            "ytick.labelsize": 12,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 14,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.edgecolor": MUTED,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": GRID,
            "grid.linewidth": 1.0,
            "axes.prop_cycle": plt.cycler(color=CYCLE),
            "lines.linewidth": 2.4,
            "legend.frameon": False,
            "figure.figsize": (8.0, 4.2),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.08,
            "figure.constrained_layout.w_pad": 0.08,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
        }
    )


def token_colours(labels: Sequence[int], attention_mask: Sequence[int] | None = None) -> list[str]:
    """PADDING where attention_mask is 0, PROMPT where a label is IGNORE_INDEX, ANSWER elsewhere;
    all of length T."""
    present = [1] * len(labels) if attention_mask is None else list(attention_mask)
    graded = [PROMPT if label == IGNORE_INDEX else ANSWER for label in labels]
    return [colour if here else PADDING for colour, here in zip(graded, present, strict=True)]


def token_strip(
    tokens: Sequence[str],
    labels: Sequence[int] | None = None,
    *,
    attention_mask: Sequence[int] | None = None,
    colours: Sequence[str] | None = None,
    notes: Sequence[object] | None = None,
    title: str = "",
    width: float = 9.0,
    ax: Axes | None = None,
) -> Axes:
    """Draw tokens as coloured boxes, in reading order, wrapped into lines.

    tokens: T strings. Either labels (T ints: grey where IGNORE_INDEX, orange where graded, white
    where attention_mask is 0; a key is drawn) or colours (T matplotlib colours). notes: T short
    texts under the boxes, such as token ids or labels. width: of the figure, in inches; ignored
    when ax is given.
    Raises ValueError when both or neither of labels and colours are given, or when lengths differ.
    """
    if (labels is None) == (colours is None):
        raise ValueError(
            "token_strip takes either labels or colours: labels colour by role, colours as you like"
        )
    colours = token_colours(labels, attention_mask) if labels is not None else list(colours)
    for name, values in (("labels or colours", colours), ("notes", notes)):
        if values is not None and len(values) != len(tokens):
            raise ValueError(
                f"{len(tokens)} tokens but {len(values)} {name}: one is needed for each token"
            )
    texts = [show_token(token) for token in tokens]
    below = [show_token(str(note)) for note in notes] if notes is not None else [""] * len(texts)
    widths = [_box_width(text, note) for text, note in zip(texts, below, strict=True)]
    across = max([width * 9.0, *widths])
    corners, lines = _wrap(widths, across)
    key = [(colour, text) for colour, text in _KEY if labels is not None and colour in colours]
    step = 3.6 if notes is not None else 2.7  # from one line to the next
    height = step * lines + (2.2 if key else 0.0)
    if ax is None:
        room = 0.6 if title else 0.15
        ax = new_figure((width, 1.05 * height * width / across + room)).subplots()
    for (x, line), wide, colour, text, note in zip(
        corners, widths, colours, texts, below, strict=True
    ):
        _draw_token(ax, x, step * line, wide, colour, text, note)
    _draw_key(ax, key, height)
    ax.set(xlim=(-0.2, across + 0.2), ylim=(height + 0.1, -0.2))
    ax.axis("off")
    ax.set_title(title)
    return ax


def bars_with_spread(
    values: Mapping[str, Sequence[float]] | Mapping[str, Mapping[str, Sequence[float]]],
    *,
    title: str,
    ylabel: str,
    colours: Sequence[str] | None = None,
    percent: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Bars of means over seeds; every seed is a dot, so the spread is seen and not summarised away.

    values: {"LoRA": [one number a seed], ...}; or {"base": {"capital": [...], ...}, "tuned": {...}}
    for one bar of each model beside the other. Grouped bars named base and tuned get their colours.
    percent: the numbers are fractions. Raises ValueError for an empty list, or when the models of a
    grouped chart do not have the same groups.
    """
    grouped = all(isinstance(value, Mapping) for value in values.values())
    series = dict(values) if grouped else {"": values}
    groups = _same_groups(series)
    ax = ax or new_figure().subplots()
    highest = max(max(seeds) for parts in series.values() for seeds in parts.values())
    thick = (0.8 if grouped else 0.62) / len(series)
    for s, (name, parts) in enumerate(series.items()):
        usual = {"base": BASE, "tuned": TUNED}.get(name, CYCLE[s % len(CYCLE)])
        for g, group in enumerate(groups):
            colour = colours[s if grouped else g] if colours is not None else usual
            x = g + (s - (len(series) - 1) / 2) * thick
            label = name if grouped and g == 0 else None  # one entry of the legend for each model
            _draw_bar(ax, x, parts[group], thick, colour, label, percent=percent)
    ax.set_xticks(range(len(groups)), groups)
    ax.tick_params(axis="x", length=0)
    if percent:
        if highest > 0.5:
            ax.set_yticks(np.linspace(0, 1, 5))  # never beyond 100 %
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    ax.set(title=title, ylabel=ylabel, ylim=(0, highest * 1.14 if highest > 0 else 1))
    if grouped:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def curve(
    x: ArrayLike,
    series: Mapping[str, ArrayLike],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    colours: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Lines over x, each named at its right end in its own colour.

    x: N numbers; each series: N numbers, or (seeds, N): then the line is the mean and the band
    reaches from the lowest to the highest seed. Raises ValueError when a series does not have N
    points.
    """
    ax = ax or new_figure().subplots()
    x, ends = np.asarray(x, dtype=float), []
    for i, (name, values) in enumerate(series.items()):
        runs = np.atleast_2d(np.asarray(values, dtype=float))
        if runs.shape[-1] != len(x):
            raise ValueError(f"{name!r} has {runs.shape[-1]} points and x has {len(x)}")
        colour = (
            colours[i]
            if colours is not None
            else {"base": BASE, "tuned": TUNED}.get(name, CYCLE[i % len(CYCLE)])
        )
        ax.plot(x, runs.mean(axis=0), color=colour)
        if len(runs) > 1:
            ax.fill_between(
                x, runs.min(axis=0), runs.max(axis=0), color=colour, alpha=0.18, linewidth=0
            )
        ends.append((runs.mean(axis=0)[-1], name, colour))
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.margins(x=0.0)
    low, high = ax.get_ylim()
    y = -np.inf  # names keep a line's height apart, however close the lines end
    for end, name, colour in sorted(ends):
        y = max(end, y + 0.075 * (high - low))
        ax.annotate(
            name,
            (1, y),
            (8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold",
            annotation_clip=False,
        )
    return ax


def share_table(
    rows: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    *,
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """Shares from 0 to 1 as a table whose cells are darker where more is right: what was trained
    down the side, what was asked along the top.

    Raises ValueError when a row does not have one share for each column.
    """
    for name, shares in rows.items():
        if len(shares) != len(columns):
            raise ValueError(f"{name!r} has {len(shares)} shares for {len(columns)} columns")
    if ax is None:
        ax = new_figure((2.6 + 1.5 * len(columns), 1.3 + 0.5 * len(rows))).subplots()
    table = np.array(list(rows.values()), dtype=float)
    ax.imshow(table, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
    for (row, column), share in np.ndenumerate(table):
        colour = "white" if share > 0.7 else INK
        ax.text(column, row, f"{100 * share:.0f} %", ha="center", va="center", color=colour)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xticks(range(len(columns)), [name.replace(" as ", "\nas ") for name in columns])
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set_title(title, pad=12)
    return ax


def decoder_layer(
    lit: Collection[str] = (),
    *,
    lora: Collection[str] = (),
    adapter: bool = False,
    prefix: bool = False,
    prompt: bool = False,
    bias: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """The way of a token through a decoder, one layer in full, with the parts in question lit.

    lit, lora, bias and the keys of notes: names of PARTS (lora: of MATRICES). lit parts are orange,
    the others pale. What a method adds is green: lora, two thin factors below a matrix; adapter, a
    bottleneck behind attention and MLP; prefix, learned keys and values; prompt, learned vectors in
    front of the embeddings; bias, a "+ b" in the box. notes: a short text under a part.
    Raises ValueError for a name that is no part.
    """
    notes = notes or {}
    for given, known in (([*lit, *bias, *notes], tuple(PARTS)), (list(lora), MATRICES)):
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"no such part: {unknown}; there are {', '.join(known)}")
    ax = ax or new_figure((12.0, 3.7)).subplots()
    ax.set(xlim=(0, 17.4), ylim=(-0.35, 5.75))
    ax.axis("off")
    ax.set_title(title)
    ax.add_patch(_frame(2.5, 13.7))
    ax.text(2.65, 5.45, "one layer of many", color=MUTED, fontsize=11)
    _draw_stream(ax)
    for name, (x, y, text) in PARTS.items():
        shown = text + "\n+ b" if name in bias else text
        _draw_part(ax, x, y, shown, ORANGE if name in lit else ADDED if name in bias else PALE)
        if name in notes:
            ax.text(x, y - 0.55, notes[name], ha="center", va="top", fontsize=10, color=INK)
    for name in lora:
        x, y, _ = PARTS[name]
        _draw_factors(ax, x, y - 0.68)
    for x in _ADAPTERS.values() if adapter else ():
        across, up = np.array([-0.3, 0, 0.3, 0.3, 0, -0.3]), np.array([1, 0.3, 1, -1, -0.3, -1])
        ax.fill(x + across, 2.6 + 0.7 * up, color=ADDED, zorder=2)
        ax.text(x, 1.75, "adapter", ha="center", va="top", fontsize=10, color=ADDED)
    for name in ("k", "v") if prefix else ():
        x, y, _ = PARTS[name]
        _draw_part(ax, x, y - 0.72, "+ prefix", ADDED, tall=0.42, wide=1.0, size=10)
        _arrow(ax, (x + 0.5, y - 0.72), (PARTS["attention"][0] - 0.46, 2.45))
    if prompt:
        _draw_part(ax, 1.8, 4.2, "learned\nvectors", ADDED, wide=1.2, tall=0.95)
        _arrow(ax, (1.8, 3.7), (1.8, 3.06))
    return ax


def show_token(token: str) -> str:
    """A token's text with blanks made visible and undrawable characters as code points: " a\\n我"
    -> "·a↵我"."""
    visible = token.translate({ord(" "): "·", ord("\n"): "↵", ord("\t"): "→", ord("\r"): "␍"})
    return "".join(char if _advance(char) is not None else f"U+{ord(char):04X}" for char in visible)


_KEY = ((PROMPT, "read, not graded"), (ANSWER, "graded"), (PADDING, "padding"))


@cache
def _fonts() -> tuple[tuple[str, FT2Font], ...]:
    """The course's font, and the first font here that can draw Chinese."""
    here = {font.name: font.fname for font in font_manager.fontManager.ttflist}
    names = ["DejaVu Sans", *[name for name in CHINESE_FONTS if name in here][:1]]
    return tuple((name, font_manager.get_font(font_manager.findfont(name))) for name in names)


@cache
def _advance(char: str) -> float | None:
    """Width of a character at 12 points, in points; None where no font here can draw it."""
    for _, font in _fonts():
        if font.get_char_index(ord(char)):
            font.set_size(12, 72)
            return font.load_char(ord(char)).linearHoriAdvance / 65536
    return None


def _columns(text: str) -> float:
    """Width of a text at 12 points, in usual characters (7.5 points), the unit of a strip."""
    return sum(_advance(char) or 7.5 for char in text) / 7.5


def _box_width(text: str, note: str) -> float:
    """Width of a token's box: for its text, or the smaller note below it, and some air."""
    return max(_columns(text), 0.75 * _columns(note), 1) + 1.0


def _wrap(widths: Sequence[float], across: float) -> tuple[list[tuple[float, int]], int]:
    """Left edge and line of each box, in lines no wider than `across`; and how many lines."""
    corners, x, line = [], 0.0, 0
    for wide in widths:
        if x + wide > across:
            x, line = 0.0, line + 1
        corners.append((x, line))
        x += wide + 0.35
    return corners, line + 1


def _draw_token(
    ax: Axes, x: float, y: float, wide: float, colour: str, text: str, note: str
) -> None:
    """A box with the token in it, in dark or white ink, and the note under it."""
    ax.add_patch(_box(x, y, wide, colour))
    centred = {"ha": "center", "va": "center", "parse_math": False}
    ink = INK if _luminance(colour) > 0.2 else "white"
    ax.text(x + wide / 2, y + 1.06, text, color=ink, fontsize=12, **centred)
    if note:
        ax.text(x + wide / 2, y + 2.82, note, color=MUTED, fontsize=9.5, **centred)


def _draw_key(ax: Axes, key: Sequence[tuple[str, str]], height: float) -> None:
    """Colours and their meaning in a line at the foot of a strip of this height."""
    x = 0.0
    for colour, text in key:
        ax.add_patch(_box(x, height - 1.6, 1.6, colour, tall=1.3))
        ax.text(x + 2.2, height - 0.9, text, va="center", color=MUTED, fontsize=11)
        x += 4.5 + 0.88 * len(text)


def _same_groups(series: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """The groups of all models of a chart; ValueError if they differ, or one has no number."""
    groups = list(next(iter(series.values())))
    for name, parts in series.items():
        if list(parts) != groups:
            raise ValueError(
                f"{name!r} has the groups {list(parts)}, the first one has {groups}: give each "
                "the same"
            )
        for group, seeds in parts.items():
            if len(seeds) == 0:
                raise ValueError(
                    f"no values for {f'{name} {group}'.strip()!r}: one number a seed is needed"
                )
    return groups


def _draw_bar(
    ax: Axes,
    x: float,
    seeds: Sequence[float],
    thick: float,
    colour: str,
    label: str | None,
    *,
    percent: bool,
) -> None:
    """A bar as high as the mean, a dot for every seed, and the mean in numbers above them."""
    seeds = np.asarray(seeds, dtype=float)
    ax.bar(x, seeds.mean(), 0.88 * thick, color=colour, label=label)
    # side by side, so that equal seeds do not hide each other; a single one in the middle
    beside = np.linspace(-0.12, 0.12, len(seeds)) * thick * (len(seeds) > 1)
    ax.scatter(
        x + beside,
        seeds,
        s=26,
        color="white",
        edgecolor=INK,
        linewidth=1.1,
        zorder=3,
        clip_on=False,
    )
    label_of_mean = f"{seeds.mean():.3g}"
    if percent:
        label_of_mean = f"{100 * seeds.mean():.0f} %"
        if label_of_mean in ("0 %", "100 %"):  # 99.5 % is not all of them
            label_of_mean = format_percent(seeds.mean())
    ax.annotate(
        label_of_mean,
        (x, seeds.max()),
        (0, 8),
        textcoords="offset points",
        ha="center",
        fontweight="bold",
    )


def _frame(left: float, right: float) -> FancyBboxPatch:
    return FancyBboxPatch(
        (left, -0.25), right - left, 5.55, boxstyle="round,pad=0,rounding_size=0.2",
        facecolor="none", edgecolor=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, zorder=0,
    )  # fmt: skip


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": MUTED, "lw": 1.4})


def _draw_stream(ax: Axes) -> None:
    """The arrows of a decoder layer: through its parts, and the two ways around them."""
    joins = [("tokens", "embedding"), ("embedding", "norm1"), ("attention", "o"), ("norm1", "q")]
    joins += [("norm1", "k"), ("norm1", "v"), ("q", "attention"), ("k", "attention")]
    joins += [("v", "attention"), ("norm2", "gate"), ("norm2", "up"), ("gate", "down")]
    joins += [("up", "down"), ("final_norm", "head"), ("head", "loss")]
    for source, target in joins:
        (x, y, _), (to_x, to_y, _) = PARTS[source], PARTS[target]
        _arrow(ax, (x + 0.46, y), (to_x - 0.48, to_y))
    for source, at, target in (("o", "attention", "norm2"), ("down", "mlp", "final_norm")):
        at = _SUMS[at]
        _arrow(ax, (PARTS[source][0] + 0.46, 2.6), (at - 0.16, 2.6))
        _arrow(ax, (at + 0.16, 2.6), (PARTS[target][0] - 0.46, 2.6))
        ax.text(at, 2.6, "+", ha="center", va="center", fontsize=13, color=INK, zorder=4)
        ax.plot(at, 2.6, "o", ms=15, mfc="white", mec=MUTED, zorder=3)
    for left, right in ((2.65, _SUMS["attention"]), (8.95, _SUMS["mlp"])):
        ax.plot([left, left, right], [2.6, 5.05, 5.05], color=MUTED, lw=1.4, zorder=1)
        _arrow(ax, (right, 5.07), (right, 2.86))


def _draw_part(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    colour: str,
    *,
    wide: float = 0.92,
    tall: float = 0.9,
    size: int = 11,
) -> None:
    shape = "round,pad=0,rounding_size=0.12"
    corner = (x - wide / 2, y - tall / 2)
    edge = MUTED if colour == PALE else "none"
    box = FancyBboxPatch(corner, wide, tall, boxstyle=shape, fc=colour, ec=edge, lw=0.8, zorder=2)
    ax.add_patch(box)
    ink = MUTED if colour == PALE else "white" if _luminance(colour) < 0.35 else INK
    ax.text(x, y, text, ha="center", va="center", fontsize=size, color=ink, zorder=3)


def _draw_factors(ax: Axes, x: float, y: float) -> None:
    """LoRA's two factors below a matrix: A is low and wide, B is high and narrow."""
    _draw_part(ax, x - 0.22, y - 0.05, "A", ADDED, wide=0.42, tall=0.3, size=10)
    _draw_part(ax, x + 0.24, y - 0.05, "B", ADDED, wide=0.3, tall=0.44, size=10)


def _luminance(colour: str) -> float:
    """Relative luminance from 0 (black) to 1 (white), close enough to choose dark or white text."""
    red, green, blue = (channel**2.2 for channel in to_rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _box(x: float, y: float, wide: float, colour: str, tall: float = 2.1) -> FancyBboxPatch:
    edge = MUTED if _luminance(colour) > 0.9 else "none"
    shape = "round,pad=0,rounding_size=0.35"
    return FancyBboxPatch(
        (x, y), wide, tall, boxstyle=shape, facecolor=colour, edgecolor=edge, linewidth=1.0
    )
