"""One step of prediction (chapter 01): the loss of the true token, and the push on every logit."""

import math
from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase

from sft_lab.course.views.widgets import Answer, choose, frame, one_at_a_time, redraw_on
from sft_lab.plots import (
    ANSWER,
    BLUE,
    INK,
    MUTED,
    PROMPT,
    VERMILLION,
    new_figure,
    show_token,
    title_figure,
)

LEAST = 2.0**-12  # the smallest probability of the slider


def set_probability(q: Sequence[float], target: int, probability: float) -> np.ndarray:
    """The distribution q with `probability` at `target`; the other tokens share the rest in their
    old proportions.

    q: V probabilities. Raises ValueError when q is not a distribution, or gives the others nothing
    to share.
    """
    q = np.asarray(q, dtype=float)
    if (q < 0).any() or not math.isclose(q.sum(), 1.0, abs_tol=1e-6):
        raise ValueError(
            f"q = {q.tolist()} is not a distribution: its sum is {q.sum():.6g}, and none may be "
            "negative"
        )
    rest = q.copy()
    rest[target] = 0.0
    if rest.sum() == 0.0:
        raise ValueError(
            f"q gives everything to token {target}: the others have no proportions to keep"
        )
    moved = rest / rest.sum() * (1.0 - probability)
    moved[target] = probability
    return moved


def describe_step(tokens: Sequence[str], q: Sequence[float], target: int) -> str:
    """What `draw_step` shows, in one or two sentences: probability, loss, and what a step of
    training does."""
    p = float(q[target])
    loss = _loss(p)
    return (
        f"The true token, {tokens[target]}, has probability {p:.3g}. The loss is {loss:.2f} nats "
        f"({loss / math.log(2):.2f} bits). A step pushes the logit of {tokens[target]} up by "
        f"{1 - p:.2f} and every other logit down by its own probability, times the learning rate."
    )


def draw_step(tokens: Sequence[str], q: Sequence[float], target: int) -> Figure:
    """One step of prediction: its place on the curve -ln p, the distribution, and the push on every
    logit.

    tokens: V names; q: V probabilities, those of `target` in (0, 1]. The push is minus the gradient
    of the loss with respect to the logits, one-hot - q (derived in chapter 01). The target is
    named, not only coloured.
    """
    q = np.asarray(q, dtype=float)
    if len(q) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens but {len(q)} probabilities")
    if not 0.0 < q[target] <= 1.0:
        raise ValueError(
            f"the true token has probability {q[target]:.6g}; the loss is finite only in (0, 1]"
        )
    p, push = float(q[target]), np.eye(len(tokens))[target] - q
    figure = new_figure((11.0, 3.9))
    curve, distribution, pushes = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _draw_loss(curve, p)
    _draw_distribution(distribution, tokens, q, target)
    _draw_pushes(pushes, push)
    pushes.set_ylim(distribution.get_ylim())
    for ax in (distribution, pushes):
        ax.invert_yaxis()  # the first token on top
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    title_figure(
        figure,
        f"{tokens[target]} at p = {p:.3g} costs {_loss(p):.2f} nats and is pulled up by "
        f"{push[target]:.3f}",
    )
    return figure


def explore_step(tokens: Sequence[str], q: Sequence[float], target: int = 0) -> ipywidgets.VBox:
    """Buttons for which token is true and a slider for its probability; draws `draw_step` below
    them.

    Four steps of the slider (arrow keys) halve or double the probability. Returns the box of
    controls and picture.
    """
    menu = choose("true token", [(token, i) for i, token in enumerate(tokens)])
    menu.value = target
    slider = ipywidgets.FloatLogSlider(
        value=float(q[target]),
        base=2,
        min=math.log2(LEAST),
        max=0.0,
        step=0.25,
        readout_format=".3g",
        description="its probability",
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="32em"),
    )

    def answer() -> Answer:
        # the top of a logarithmic slider can come out a rounding above 1
        moved = set_probability(q, menu.value, min(slider.value, 1.0))
        shown = (tokens, moved, menu.value)
        return Answer(describe_step(*shown), draw_step(*shown))

    view, redraw = frame([[menu, slider]], answer)

    @one_at_a_time
    def change_target(change: dict) -> None:
        slider.value = float(q[change["new"]])
        redraw()

    menu.observe(change_target, names="value")
    redraw_on(redraw, slider)
    return view


def draw_guesses(
    guesses: Mapping[str, tuple[torch.Tensor, int]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str,
    most: int = 5,
) -> Figure:
    """The likeliest tokens after each text side by side, and the true one, wherever it stands.

    guesses: text → ((V,) probabilities, id of the true token).
    """
    figure = new_figure((9.8, 3.6))
    for ax, (text, (q, true)) in zip(
        figure.subplots(1, len(guesses), sharex=True), guesses.items(), strict=True
    ):
        shown = q.topk(most).indices.tolist()
        shown += [] if true in shown else [true]
        values = [q[token_id].item() for token_id in shown]
        ax.barh(range(len(shown)), values, color=[ANSWER if i == true else PROMPT for i in shown])
        for row, value in enumerate(values):
            ax.annotate(f"{value:.2g}", (value, row), (5, 0), textcoords="offset points",
                        va="center")  # fmt: skip
        names = [show_token(tokenizer.decode([i])) + " (true)" * (i == true) for i in shown]
        ax.set_yticks(range(len(shown)), names)
        ax.set(xlim=(0, 1.2), xticks=[0, 0.5, 1], xlabel="probability of the next token")
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.set_title(f"{text} …", fontsize=13, fontweight="normal")
    title_figure(figure, title)
    return figure


def draw_halvings(*, title: str, most: int = 8) -> Axes:
    """The curve −ln p with a stair of halvings: each step to the left is half as wide as the one
    before, and all are equally high."""
    ax = new_figure((8.8, 4.6)).subplots()
    x = np.geomspace(0.5**most, 1.0, 400)
    ax.plot(x, -np.log(x), color=BLUE)
    for k in range(most):
        right, left = 0.5**k, 0.5 ** (k + 1)
        low, high = k * math.log(2), (k + 1) * math.log(2)
        ax.plot([right, left, left], [low, low, high], color=VERMILLION, lw=1.6)
    for k, name in enumerate(["p = 1", "p = ½", "p = ¼", "p = ⅛"]):
        ax.scatter([0.5**k], [k * math.log(2)], s=60, color=ANSWER, edgecolor=INK, zorder=3,
                   clip_on=False)  # fmt: skip
        ax.annotate(f"{name}: {k * math.log(2):.2f} nats", (0.5**k, k * math.log(2)),
                    (-4, 14) if k == 0 else (10, 6), textcoords="offset points",
                    ha="right" if k == 0 else "left")  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, most * math.log(2)), ylabel="step loss −ln p (nats)")
    ax.set(xlabel="probability p of the true token", title=title)
    return ax


def draw_fits(tokens: Sequence[str], fits: Mapping[str, torch.Tensor], *, title: str) -> Axes:
    """Distributions over the same tokens, side by side: the data's first, in grey."""
    ax = new_figure((8.8, 4.0)).subplots()
    rows, wide = np.arange(len(tokens)), 0.8 / len(fits)
    for k, (name, values) in enumerate(fits.items()):
        at = rows + (k - (len(fits) - 1) / 2) * wide
        colour = (PROMPT, BLUE, VERMILLION)[k % 3]
        bars = ax.bar(at, values.numpy(), 0.92 * wide, color=colour, label=name)
        ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=11)
    ax.set_xticks(rows, tokens)
    ax.set(ylim=(0, 1.14), ylabel="probability", title=title)
    ax.legend(loc="upper right")
    return ax


def _loss(p: float) -> float:
    """-ln p in nats; abs, so that certainty costs 0.00 and not -0.00."""
    return abs(math.log(p))


def _draw_loss(ax: Axes, p: float) -> None:
    """The curve -ln p and the point of this probability on it."""
    grid, loss = np.geomspace(LEAST, 1.0, 300), _loss(p)
    ax.plot(grid, -np.log(grid), color=BLUE)
    ax.plot([p, p, 0.0], [0.0, loss, loss], color=MUTED, linestyle=":", linewidth=1.4, zorder=1)
    ax.scatter([p], [loss], s=90, color=ANSWER, edgecolor=INK, zorder=3, clip_on=False)
    ax.annotate(
        f"{loss:.2f} nats",
        (p, loss),
        (10, 9) if p < 0.7 else (-8, 16),
        textcoords="offset points",
        fontweight="bold",
        ha="left" if p < 0.7 else "right",
    )
    ax.set(xlim=(0, 1), ylim=(0, -math.log(LEAST) * 1.14), ylabel="loss −ln p (nats)")
    ax.set_xlabel("probability p of the true token")


def _draw_distribution(ax: Axes, tokens: Sequence[str], q: np.ndarray, target: int) -> None:
    """A bar for every token; the true one is named and framed, not only coloured."""
    rows = range(len(tokens))
    ax.barh(
        rows,
        q,
        color=[ANSWER if row == target else PROMPT for row in rows],
        edgecolor=INK,
        linewidth=[1.4 if row == target else 0.0 for row in rows],
    )
    for row, value in enumerate(q):
        ax.annotate(f"{value:.3f}", (value, row), (5, 0), textcoords="offset points", va="center")
    ax.set_yticks(rows, [f"{t}\n(true)" if row == target else t for row, t in enumerate(tokens)])
    ax.set(xlim=(0, 1.25), xticks=[0, 0.5, 1], xlabel="probability q")


def _draw_pushes(ax: Axes, push: np.ndarray) -> None:
    """An arrow for every logit: right and blue is up, left and red is down."""
    for row, value in enumerate(push):
        colour = BLUE if value > 0 else VERMILLION
        ax.annotate(
            "",
            (value, row),
            (0, row),
            arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2.4},
        )
        ax.annotate(
            f"{value:+.3f}".replace("-", "−"),
            (0, row),
            (-8 if value > 0 else 8, 0),
            textcoords="offset points",
            va="center",
            ha="right" if value > 0 else "left",
        )
    ax.axvline(0.0, color=MUTED, linewidth=1.0)
    ax.set_yticks(range(len(push)), [""] * len(push))
    ax.set(xlim=(-1.1, 1.1), xticks=[-1, 0, 1], xlabel="push on the logit")
