"""Figures of chapter 00: how much was read, how many questions are answered, what comes next."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from transformers import PreTrainedTokenizerBase

from sft_lab.plots import ANSWER, GREEN, INK, PROMPT, new_figure, show_token, title_figure

ACROSS = 20  # squares in a row of an exam


def draw_areas(pretraining: int, read: int, graded: int, *, title: str) -> Axes:
    """Two squares whose areas are the tokens of pretraining, all graded, and of SFT, of which a
    part is graded: orange is graded, grey is read only."""
    ax = new_figure((9.5, 4.2)).subplots()
    ax.add_patch(Rectangle((0, 0), 1, 1, color=ANSWER))
    ax.text(0.04, 0.5, f"pretraining\n{pretraining:,} tokens,\nall graded", va="center")
    side, part = (read / pretraining) ** 0.5, (graded / pretraining) ** 0.5
    ax.add_patch(Rectangle((1.1, 0), side, side, color=PROMPT))
    ax.add_patch(Rectangle((1.1, 0), part, part, color=ANSWER))
    words = f"SFT\n{read:,} tokens,\n{graded:,} of them graded"
    ax.text(1.1, side + 0.04, words, va="bottom")
    ax.set(xlim=(0, 2), ylim=(-0.02, 1.02), title=title)
    ax.set_aspect("equal")
    ax.axis("off")
    return ax


def draw_exam(outcomes: Mapping[str, Sequence[bool]], *, title: str) -> Figure:
    """One square a question, green where the answer is right; right ones first, a field a model."""
    figure = new_figure((9.5, 3.0))
    axes = figure.subplots(1, len(outcomes), squeeze=False)[0]
    for ax, (name, right) in zip(axes, outcomes.items(), strict=True):
        for place, is_right in enumerate(sorted(right, reverse=True)):
            corner = (place % ACROSS, place // ACROSS)
            colour = GREEN if is_right else PROMPT
            ax.add_patch(Rectangle(corner, 0.86, 0.86, facecolor=colour))
        rows = -(-len(right) // ACROSS)
        ax.set(xlim=(0, ACROSS), ylim=(rows, 0))
        ax.set_title(f"{name}: {sum(right)} of {len(right)} right", fontsize=13, loc="left")
        ax.set_aspect("equal")
        ax.axis("off")
    title_figure(figure, title)
    return figure


def draw_next(
    rows: Mapping[str, Mapping[str, torch.Tensor]],
    right: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str,
) -> Figure:
    """The four likeliest next tokens, a row of panels a model, a panel a place; the right token is
    orange, and stands below them where it is not among them.

    rows: (V,) probabilities, by model and by the name of the place. right: the id of the token that
    follows at each place.
    """
    figure = new_figure((10.5, 2.4 * len(rows) + 0.4))
    panels = figure.subplots(len(rows), len(right), squeeze=False)
    for line, (model, places) in zip(panels, rows.items(), strict=True):
        for ax, (place, p), wanted in zip(line, places.items(), right, strict=True):
            shown = p.topk(4).indices.tolist()
            shown += [wanted] if wanted not in shown else []
            _draw_chances(ax, p, shown, wanted, tokenizer)
            ax.set_title(f"{model}, {place}", fontsize=12, pad=6, loc="left")
    for ax in panels[-1]:
        ax.set_xlabel("probability")
    title_figure(figure, title)
    return figure


def _draw_chances(
    ax: Axes,
    p: torch.Tensor,
    shown: Sequence[int],
    wanted: int,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    for line, token_id in enumerate(shown):
        colour = ANSWER if token_id == wanted else PROMPT
        ax.barh(line, p[token_id].item(), color=colour, edgecolor=INK, linewidth=0.6)
        share = f"{p[token_id].item():.0%}"
        ax.annotate(
            share, (p[token_id].item(), line), (5, 0), textcoords="offset points", va="center"
        )
    names = [show_token(tokenizer.decode([token_id])) for token_id in shown]
    ax.set_yticks(range(len(shown)), names)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.2), xticks=[0, 0.5, 1])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
