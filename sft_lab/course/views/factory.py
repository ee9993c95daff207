"""A run of LLaMA-Factory: its settings, the file and the command, and the card it needs (chapter
10)."""

import html

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_lab.cards import CARDS, needed_gib
from sft_lab.course.factory_keys import (
    METHODS,
    MODELS,
    RANK,
    TRAINED_LAYERS,
    Keys,
    command,
    training_keys,
    write_yaml,
)
from sft_lab.course.views.fit import draw_stack
from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.memory import PARTS
from sft_lab.plots import VERMILLION, new_figure, title_figure

CUTOFFS, BATCH_SIZES = (256, 512, 1024, 2048, 4096, 8192), (1, 2, 4, 8, 16)
ACCUMULATIONS = (1, 2, 4, 8, 16, 32)
NAMES = {
    "lora": f"LoRA, rank {RANK}",
    "full": "full tuning",
    "freeze": f"freeze: the last {TRAINED_LAYERS} layers",
    "qlora": f"QLoRA, rank {RANK}",
}
FILE = "my_sft.yaml"
WIDEST = 100  # GiB of the axis: the cards stay where they are, and a longer bar is cut


def predict_run(
    model: str, method: str, cutoff_len: int, batch_size: int, checkpointing: bool
) -> dict[str, float]:
    """GiB of each part at the peak of a step whose rows have cutoff_len tokens, all scored, and of
    the allowance (`sft_lab.cards`)."""
    return needed_gib(model, method, batch_size, cutoff_len, checkpointing, "all", rank=RANK)


def settings_file(
    model: str,
    method: str,
    cutoff_len: int,
    batch_size: int,
    accumulation: int,
    checkpointing: bool,
) -> Keys:
    """The keys of this run; ValueError for a model or method that is not there."""
    return training_keys(
        model,
        method,
        cutoff_len=cutoff_len,
        batch_size=batch_size,
        accumulation=accumulation,
        checkpointing=checkpointing,
    )


def describe_factory(
    model: str,
    method: str,
    cutoff_len: int,
    batch_size: int,
    accumulation: int,
    checkpointing: bool,
) -> str:
    """What `draw_factory` shows, in words: rows a step, the need, and the cards that have it."""
    settings_file(model, method, cutoff_len, batch_size, accumulation, checkpointing)
    parts = predict_run(model, method, cutoff_len, batch_size, checkpointing)
    need, largest = sum(parts.values()), max(PARTS, key=parts.__getitem__)
    fits = [card for card, has in CARDS.items() if need <= has]
    small = [card for card in CARDS if card not in fits]
    cards = [
        f"Large enough: {', '.join(fits) or 'none of these cards'}.",
        *([f"Too small: {', '.join(small)}."] if small else []),
    ]
    rows = batch_size * accumulation
    return (
        f"{model}, {NAMES[method]}: a step takes {batch_size} × {accumulation} = {rows} rows of at "
        f"most {cutoff_len:,} tokens, checkpointing {'on' if checkpointing else 'off'}. Predicted "
        f"peak {need:.1f} GiB, most of it {largest} ({parts[largest]:.1f} GiB). {' '.join(cards)} "
        f"Accumulation changes the rows of a step and not its memory."
    )


def draw_factory(
    model: str,
    method: str,
    cutoff_len: int,
    batch_size: int,
    accumulation: int,
    checkpointing: bool,
) -> Figure:
    """Stacked bars of the four methods, the chosen one marked, and a line for every card."""
    needs = {
        kind: predict_run(model, kind, cutoff_len, batch_size, checkpointing) for kind in METHODS
    }
    totals = {kind: sum(parts.values()) for kind, parts in needs.items()}
    figure = new_figure((10.5, 4.9))
    ax = figure.subplots()
    for row, kind in enumerate(METHODS):
        draw_stack(ax, row, needs[kind], chosen=kind == method)
        if totals[kind] > WIDEST:  # the bar is cut
            ax.annotate("▶", (WIDEST, row), (-4, 0), textcoords="offset points", ha="right")
    _draw_cards(ax)
    names = [f"{'▶ ' * (kind == method)}{NAMES[kind]}\n{totals[kind]:,.1f} GiB" for kind in METHODS]
    ax.set_yticks(range(len(METHODS)), names)
    ax.set(xlim=(0, WIDEST), ylim=(len(METHODS) - 0.45, -1.5), xlabel="GiB at the peak of a step")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    figure.legend(
        *ax.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        fontsize=11,
        handlelength=1.6,
        columnspacing=1.3,
        handletextpad=0.5,
    )
    title_figure(
        figure,
        f"{model}, {NAMES[method]}, {batch_size} × {cutoff_len:,}: {totals[method]:.1f} GiB",
    )
    return figure


def explore_factory(
    model: str = "Qwen2.5-7B",
    method: str = "lora",
    cutoff_len: int = 2048,
    batch_size: int = 2,
    accumulation: int = 8,
    checkpointing: bool = True,
) -> ipywidgets.VBox:
    """Buttons for model, method and checkpointing, sliders for the sizes; draws `draw_factory` and
    shows the file and the command below."""
    wide = {"style": {"description_width": "initial"}, "continuous_update": False}

    def slide(name: str, sizes: tuple[int, ...]) -> ipywidgets.SelectionSlider:
        return ipywidgets.SelectionSlider(options=sizes, description=name, **wide)

    controls = {
        "model": choose("model", [(name, name) for name in MODELS]),
        "method": choose("method", [(NAMES[kind].partition(":")[0], kind) for kind in METHODS]),
        "cutoff_len": slide("cutoff_len", CUTOFFS),
        "batch_size": slide("batch", BATCH_SIZES),
        "accumulation": slide("accumulation", ACCUMULATIONS),
        "checkpointing": choose("checkpointing", [("on", True), ("off", False)]),
    }
    start = (model, method, cutoff_len, batch_size, accumulation, checkpointing)
    for control, value in zip(controls.values(), start, strict=True):
        control.value = value

    def answer() -> Answer:
        chosen = {name: control.value for name, control in controls.items()}
        return Answer(
            describe_factory(**chosen),
            draw_factory(**chosen),
            below=_show_file(settings_file(**chosen)),
        )

    view, redraw = frame([list(controls.values())], answer)
    redraw_on(redraw, *controls.values())
    return view


def _draw_cards(ax: Axes) -> None:
    """A line for every size of card, with the names in three rows, so that neighbours do not
    meet."""
    sizes: dict[float, list[str]] = {}
    for card, has in CARDS.items():
        sizes.setdefault(has, []).append(card)
    for place, has in enumerate(sorted(sizes)):
        ax.axvline(has, color=VERMILLION, linewidth=1.6, zorder=3)
        before = has > 0.6 * WIDEST  # the name stands before the line
        ax.annotate(
            f"{', '.join(sizes[has])}: {has:.1f}",
            (has, -1.25 + 0.3 * (place % 3)),
            (-5 if before else 5, 0),
            textcoords="offset points",
            color=VERMILLION,
            va="center",
            ha="right" if before else "left",
            fontsize=11,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            zorder=4,
        )


def _show_file(keys: Keys) -> str:
    """The command and the file as HTML."""
    text = f"# {command(keys, FILE)}\n\n{write_yaml(keys)}"
    style = "font-size: 85%; line-height: 1.25; margin: 0.5em 0; overflow-x: auto"
    return f'<pre style="{style}">{html.escape(text)}</pre>'
