"""Will it fit my card? The predicted memory of a training step beside what a card has (chapter 08).

A thin view over plain functions, like those of widgets.py: what is drawn is also said in words, and
the controls are buttons and sliders that the keyboard reaches.
"""

import base64
import html

import ipywidgets
from matplotlib.figure import Figure

from sft_lab.course.views.figures import one_at_a_time
from sft_lab.course.views.widgets import choose, paragraph, to_png
from sft_lab.memory import METHODS, PARTS, predict_memory
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
)
from sft_lab.shapes import SHAPES, named_config

GIB = 2**30
# GiB that PyTorch reports as the card's total (torch.cuda.get_device_properties); a driver may take
# a little more.
CARDS = {
    "T4": 14.7,
    "L4": 22.0,
    "RTX 4090": 23.6,
    "A100 40 GB": 39.4,
    "A100 80 GB": 79.1,
    "H100 80 GB": 79.1,
}
# GiB for the CUDA context, library workspaces and fragmentation: an allowance, not a prediction
ALLOWANCE = 1.0
RANK, GRADED = 16, 0.5  # of LoRA, and the share of the positions that belongs to answers
BATCH_SIZES, LENGTHS = (1, 2, 4, 8, 16, 32), (256, 512, 1024, 2048, 4096, 8192)
NAMES = {"full": "full tuning", "lora": "LoRA", "qlora": "QLoRA"}
_LOOKS = {
    "weights": (BLUE, ""),
    "gradients": (SKY, "///"),
    "optimizer": (GREEN, "\\\\\\"),
    "activations": (PURPLE, "..."),
    "logits": (ORANGE, "xxx"),
    "allowance": (PROMPT, ""),
}


def needed_gib(
    model: str, method: str, batch_size: int, length: int, checkpointing: bool, head: str
) -> dict[str, float]:
    """GiB of each part of a step in half precision at its peak, and of the allowance; settings as
    predict_memory's."""
    parts = predict_memory(
        named_config(model),
        method=method,
        rank=RANK,
        batch_size=batch_size,
        length=length,
        half=True,
        checkpointing=checkpointing,
        head=head,
        graded=GRADED,
    )
    return {part: parts[part] / GIB for part in PARTS} | {"allowance": ALLOWANCE}


def find_changes(
    model: str, card: str, method: str, batch_size: int, length: int, checkpointing: bool, head: str
) -> list[str]:
    """What to change so that the step fits, in words: one change if one is enough, else several; []
    if nothing helps.

    Tried in the order of what they cost: scores of the graded positions alone (nothing), one row at
    a time with accumulation (some speed), checkpointing (a forward pass more), LoRA, QLoRA, and
    rows of half the length.
    """
    now = {
        "method": method,
        "batch_size": batch_size,
        "length": length,
        "checkpointing": checkpointing,
        "head": head,
    }
    steps = [
        ("score only the graded positions", {"head": "graded"}),
        (f"take 1 row at a time and accumulate over {batch_size} of them", {"batch_size": 1}),
        ("switch checkpointing on", {"checkpointing": True}),
        ("use LoRA", {"method": "lora" if method == "full" else method}),
        ("use QLoRA", {"method": "qlora"}),
        (f"cut the rows to {length // 2:,} tokens", {"length": max(1, length // 2)}),
    ]
    steps = [(words, change) for words, change in steps if now | change != now]
    for words, change in steps:
        if _fits(model, card, now | change):
            return [words]
    taken: dict[str, str] = {}
    for words, change in steps:
        now |= change
        taken[next(iter(change))] = words  # QLoRA takes LoRA's place
        if _fits(model, card, now):
            return list(taken.values())
    return []


def describe_fit(
    model: str, card: str, method: str, batch_size: int, length: int, checkpointing: bool, head: str
) -> str:
    """What `draw_fit` shows, in words: the need, the card, what is left or missing, and a change
    that would do."""
    settings = (method, batch_size, length, checkpointing, head)
    parts = needed_gib(model, *settings)
    need, has = sum(parts.values()), _card(card)
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
    has, figure = _card(card), new_figure((10.5, 4.1))
    ax = figure.subplots()
    needs = {
        kind: needed_gib(model, kind, batch_size, length, checkpointing, head) for kind in METHODS
    }
    totals = {kind: sum(parts.values()) for kind, parts in needs.items()}
    limit = 1.22 * max(has * 1.1, *totals.values())
    for row, kind in enumerate(METHODS):
        left, chosen = 0.0, kind == method
        for part, (colour, hatch) in _LOOKS.items():
            size = needs[kind][part]
            label = f"{part}: {size:.1f}" if chosen else None
            ax.barh(
                row,
                size,
                0.62,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0.6,
                label=label,
                alpha=1.0 if chosen else 0.4,
            )
            left += size
        verdict = "fits" if left <= has else "does not fit"
        ax.annotate(
            f"{left:.1f} GiB, {verdict}",
            (left, row),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold" if chosen else "normal",
            color=INK if chosen else MUTED,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
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
    ax.set_yticks(
        range(len(METHODS)), [f"{'▶ ' * (kind == method)}{NAMES[kind]}" for kind in METHODS]
    )
    ax.set(xlim=(0, limit), ylim=(len(METHODS) - 0.45, -0.95), xlabel="GiB at the peak of a step")
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
    short = f"{need - has:.1f} GiB too much for the {card}"
    verdict = f"{need:.1f} of {has:.1f} GiB: it fits" if need <= has else short
    figure.suptitle(
        f"{model}, {NAMES[method]}, {batch_size} × {length:,}: {verdict}",
        x=0.01,
        ha="left",
        fontweight="bold",
        fontsize=15,
    )
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
    _card(card)
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
    picture, words = ipywidgets.HTML(), ipywidgets.HTML()

    @one_at_a_time
    def redraw(_: object = None) -> None:
        now = {name: control.value for name, control in controls.items()}
        sentence = describe_fit(**now)
        source = base64.b64encode(to_png(draw_fit(**now))).decode()
        picture.value = (
            f'<img alt="{html.escape(sentence)}" src="data:image/png;base64,{source}" '
            'style="max-width: 100%">'
        )
        words.value = paragraph(sentence)

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    box = ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
    return ipywidgets.VBox([box, picture, words])


def _card(card: str) -> float:
    """GiB of a card; ValueError for one that is not in CARDS."""
    if card not in CARDS:
        raise ValueError(
            f"no card named {card!r}; known: {', '.join(CARDS)}. For another, add its GiB to CARDS"
        )
    return CARDS[card]


def _fits(model: str, card: str, settings: dict[str, object]) -> bool:
    return sum(needed_gib(model, **settings).values()) <= _card(card)
