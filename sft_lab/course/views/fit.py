"""Will it fit my card? The predicted memory of a step beside what a card has (chapter 08)."""

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_lab.cards import CARDS, card_gib, find_changes, needed_gib
from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.memory import METHODS, PARTS
from sft_lab.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PROMPT,
    PURPLE,
    SKY,
    VERMILLION,
    new_figure,
    title_figure,
)
from sft_lab.shapes import SHAPES

BATCH_SIZES, LENGTHS = (1, 2, 4, 8, 16, 32), (256, 512, 1024, 2048, 4096, 8192)
NAMES = {"full": "full tuning", "lora": "LoRA", "qlora": "QLoRA"}
LOOKS = {  # colour and hatch: parts are told apart without colour too
    "weights": (BLUE, ""),
    "gradients": (SKY, "///"),
    "optimizer": (GREEN, "\\\\\\"),
    "activations": (PURPLE, "..."),
    "logits": (ORANGE, "xxx"),
    "allowance": (PROMPT, ""),
}


def describe_fit(
    model: str, card: str, method: str, batch_size: int, length: int, checkpointing: bool, head: str
) -> str:
    """What `draw_fit` shows, in words: the need, the card, what is left or missing, and a change
    that would do."""
    settings = (method, batch_size, length, checkpointing, head)
    parts = needed_gib(model, *settings)
    need, has = sum(parts.values()), card_gib(card)
    largest = max(PARTS, key=parts.__getitem__)
    what = (
        f"{model}, {NAMES[method]}, {batch_size} × {length:,} tokens, checkpointing "
        f"{'on' if checkpointing else 'off'}, scores of {'all' if head == 'all' else 'graded'} "
        f"positions: {need:.1f} GiB, most of it {largest} ({parts[largest]:.1f} GiB). "
    )
    if need <= has:
        return f"{what}It fits the {card} ({has:.1f} GiB), {has - need:.1f} GiB are left."
    changes = find_changes(model, card, *settings)
    how = "Take a smaller model or a larger card: no change here is enough."
    if changes:
        how = (
            "It would fit if you "
            f"{', '.join(changes[:-1])}{' and ' * (len(changes) > 1)}{changes[-1]}."
        )
    return (
        f"{what}It does not fit the {card} ({has:.1f} GiB): {need - has:.1f} GiB are missing. {how}"
    )


def draw_fit(
    model: str, card: str, method: str, batch_size: int, length: int, checkpointing: bool, head: str
) -> Figure:
    """Stacked bars of the three methods, the chosen one marked, against the line of the card."""
    has, figure = card_gib(card), new_figure((10.5, 4.1))
    ax = figure.subplots()
    needs = {
        kind: needed_gib(model, kind, batch_size, length, checkpointing, head) for kind in METHODS
    }
    totals = {kind: sum(parts.values()) for kind, parts in needs.items()}
    for row, kind in enumerate(METHODS):
        draw_stack(ax, row, needs[kind], chosen=kind == method)
        _write_verdict(ax, row, totals[kind], has, chosen=kind == method)
    ax.axvline(has, color=VERMILLION, linewidth=2.4, zorder=3)
    ax.annotate(
        f"{card}: {has:.1f} GiB",
        (has, -0.62),
        (4, 0),
        textcoords="offset points",
        color=VERMILLION,
        va="center",
        fontweight="bold",
    )
    names = [f"{'▶ ' * (kind == method)}{NAMES[kind]}" for kind in METHODS]
    ax.set_yticks(range(len(METHODS)), names)
    widest = 1.22 * max(has * 1.1, *totals.values())
    ax.set(xlim=(0, widest), ylim=(len(METHODS) - 0.45, -0.95), xlabel="GiB at the peak of a step")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    figure.legend(
        *ax.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        fontsize=11,
        handlelength=1.6,
        columnspacing=1.3,
        handletextpad=0.5,
    )
    need = totals[method]
    verdict = f"{need:.1f} of {has:.1f} GiB: it fits"
    if need > has:
        verdict = f"{need - has:.1f} GiB too much for the {card}"
    title_figure(figure, f"{model}, {NAMES[method]}, {batch_size} × {length:,}: {verdict}")
    return figure


def explore_fit(
    model: str = "Qwen3-0.6B",
    card: str = "T4",
    method: str = "lora",
    batch_size: int = 8,
    length: int = 1024,
    checkpointing: bool = False,
    head: str = "all",
) -> ipywidgets.VBox:
    """Buttons for model, method, checkpointing, positions and card, sliders for rows and tokens;
    draws `draw_fit`."""
    card_gib(card)  # refuses a card that is not there
    wide = {"style": {"description_width": "initial"}, "continuous_update": False}
    controls = {
        "model": choose("model", [(name, name) for name in SHAPES]),
        "card": choose("card", [(name, name) for name in CARDS]),
        "method": choose("method", [(NAMES[kind], kind) for kind in METHODS]),
        "batch_size": ipywidgets.SelectionSlider(options=BATCH_SIZES, description="rows", **wide),
        "length": ipywidgets.SelectionSlider(options=LENGTHS, description="tokens a row", **wide),
        "checkpointing": choose("checkpointing", [("off", False), ("on", True)]),
        "head": choose("scores of", [("all positions", "all"), ("graded positions", "graded")]),
    }
    start = {
        "model": model,
        "card": card,
        "method": method,
        "batch_size": batch_size,
        "length": length,
        "checkpointing": checkpointing,
        "head": head,
    }
    for name, control in controls.items():
        control.value = start[name]

    def answer() -> Answer:
        chosen = {name: control.value for name, control in controls.items()}
        return Answer(describe_fit(**chosen), draw_fit(**chosen))

    view, redraw = frame([list(controls.values())], answer)
    redraw_on(redraw, *controls.values())
    return view


def draw_stack(ax: Axes, row: int, parts: dict[str, float], *, chosen: bool) -> None:
    """One method's parts in GiB as a stacked bar; pale unless chosen."""
    left = 0.0
    for part, (colour, hatch) in LOOKS.items():
        ax.barh(
            row,
            parts[part],
            0.62,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.6,
            label=f"{part}: {parts[part]:.1f}" if chosen else None,
            alpha=1.0 if chosen else 0.4,
        )
        left += parts[part]


def _write_verdict(ax: Axes, row: int, total: float, has: float, *, chosen: bool) -> None:
    """A bar's sum and whether that fits, behind the bar."""
    ax.annotate(
        f"{total:.1f} GiB, {'fits' if total <= has else 'does not fit'}",
        (total, row),
        (7, 0),
        textcoords="offset points",
        va="center",
        fontweight="bold" if chosen else "normal",
        color=INK if chosen else MUTED,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )
