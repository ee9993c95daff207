"""A text that is said again and again: what each copy does to the probability of the next, and
where the model looks (chapter 14)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ipywidgets
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.course.repeat_runs import mark_repeats, read_attention
from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.plots import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PROMPT,
    VERMILLION,
    new_figure,
    show_token,
    title_figure,
    token_strip,
)

MOST = 10  # copies


@dataclass(frozen=True)
class Copies:
    """What a model makes of a text that is said several times.

    tokens: of the text. p: probability of each token in each copy, (copies, tokens). look: mean
    attention, (copies, heads of all layers), from the tokens of a copy to those that followed the
    same token in the copies before; 0 in the first.
    """

    tokens: list[str]
    p: torch.Tensor
    look: torch.Tensor


@torch.inference_mode()
def read_copies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, copies: int
) -> Copies:
    """Let the model read `text`, `copies` times in a row, behind the start of a document.

    Raises ValueError for an empty text, fewer than one copy, and more tokens than the model has
    positions for.
    """
    sentence = tokenizer(text).input_ids
    if not sentence or copies < 1:
        raise ValueError(f"the text is {text!r} and is said {copies} times: nothing to read")
    ids = [tokenizer.convert_tokens_to_ids("<|endoftext|>"), *sentence * copies]
    limit = model.config.max_position_embeddings
    if len(ids) > limit:
        raise ValueError(
            f"{copies} copies are {len(ids)} tokens and the model has {limit} positions: say it "
            "fewer times"
        )
    row = torch.tensor([ids], device=model.device)
    chosen = model(row).logits[0, :-1].softmax(-1).gather(1, row[0, 1:, None])[:, 0]
    weights = read_attention(model, [ids])[:, 0].flatten(0, 1)  # (heads of all layers, T, T)
    length = len(sentence)
    look = torch.zeros(copies, len(weights))
    for copy in range(1, copies):
        for place in range(length):
            t = 1 + copy * length + place
            behind = [1 + before * length + place + 1 for before in range(copy)]
            look[copy] += weights[:, t, behind].sum(-1) / length
    return Copies(
        [tokenizer.decode([token_id]) for token_id in sentence],
        chosen.cpu().view(copies, length),
        look,
    )


def describe_repeats(read: Copies) -> str:
    """What `draw_repeats` shows, in words."""
    p, copies = read.p.mean(1), len(read.p)
    count = len(read.tokens)
    said = f"{count} tokens. In the first copy a token has probability {p[0]:.2f} on average"
    if copies == 1:
        return f"{said}. There is no earlier copy to look at."
    strongest = read.look[-1].max()
    return (
        f"{said}, in copy {copies} {p[-1]:.2f}. There the head that looks most gives "
        f"{strongest:.0%} of its attention to what followed in earlier copies; all heads "
        f"together give {read.look[-1].mean():.0%}."
    )


def draw_repeats(read: Copies) -> Figure:
    """Left: the probability of each token in each copy. Right: by copy, the mean probability, and
    the attention to what followed in the copies before."""
    figure = new_figure((11.0, 4.6))
    table, lines = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    copies, length = read.p.shape
    shades = table.imshow(read.p.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    table.set_xticks(range(length), map(show_token, read.tokens), rotation=90, fontsize=10)
    table.set_yticks(range(copies), range(1, copies + 1))
    table.set(ylabel="copy")
    table.grid(visible=False)
    figure.colorbar(shades, ax=table, fraction=0.05, pad=0.02, label="probability of the token")
    _draw_lines(lines, read)
    first, last = read.p.mean(1)[0], read.p.mean(1)[-1]
    finding = f"A token's probability: {first:.2f} in the first copy"
    title_figure(figure, finding + (f", {last:.2f} in copy {copies}" if copies > 1 else ""))
    return figure


def explore_repeats(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, str],
    copies: int = 4,
) -> ipywidgets.VBox:
    """Buttons for the text and a slider for the copies; draws `draw_repeats` below them.

    texts: by the name on the button; each begins as it would behind a full stop.
    """
    if not texts:
        raise ValueError("no text to say again: give {name: text}")
    if not 1 <= copies <= MOST:
        raise ValueError(f"copies is {copies}: the slider reaches from 1 to {MOST}")
    names = choose("text", [(name, name) for name in texts])
    slider = ipywidgets.IntSlider(
        value=copies,
        min=1,
        max=MOST,
        description="copies",
        continuous_update=False,
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="32em"),
    )

    def answer() -> Answer:
        read = read_copies(model, tokenizer, texts[names.value], slider.value)
        return Answer(describe_repeats(read), draw_repeats(read))

    view, redraw = frame([[names, slider]], answer)
    redraw_on(redraw, names, slider)
    return view


def draw_text(tokens: Sequence[str], *, title: str, n: int = 4) -> Axes:
    """A text as boxes; those in an n-gram that stood earlier in the text are orange."""
    marked = mark_repeats(tokens, n)
    return token_strip(
        tokens, colours=[ORANGE if again else PROMPT for again in marked], title=title, width=10.5
    )


def draw_induction(tokens: Sequence[str] = ("A", "B", "C", "D")) -> Axes:
    """What an induction head does: at the second A it looks at what followed the first A, and says
    that."""
    figure = new_figure((9.0, 2.6))
    ax = figure.subplots()
    row = [*tokens, *tokens[:1], "?"]
    for place, token in enumerate(row):
        colour = {len(tokens): ORANGE, 1: ORANGE}.get(place, PROMPT)
        ax.text(
            place,
            0,
            token,
            ha="center",
            va="center",
            fontsize=18,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": colour, "edgecolor": INK},
        )
    bend = {
        "arrowstyle": "-|>",
        "color": VERMILLION,
        "linewidth": 2.2,
        "shrinkA": 22,
        "shrinkB": 22,
    }
    here, there = (len(tokens), 0.1), (1, 0.1)
    ax.annotate("", there, here, arrowprops={**bend, "connectionstyle": "arc3,rad=0.35"})
    ax.annotate(
        "",
        (len(row) - 1, -0.1),
        (1, -0.1),
        arrowprops={**bend, "color": BLUE, "connectionstyle": "arc3,rad=0.25"},
    )
    ax.text(2.5, 1.2, "1 · look at what followed the same token", ha="center", color=VERMILLION)
    ax.text(3.0, -1.35, "2 · say it again", ha="center", color=BLUE)
    ax.set(xlim=(-0.6, len(row) - 0.4), ylim=(-1.6, 1.6))
    ax.axis("off")
    return ax


def _draw_lines(ax: Axes, read: Copies) -> None:
    numbers = range(1, len(read.p) + 1)
    strongest = read.look[:, read.look[-1].argmax()]
    ax.plot(numbers, read.p.mean(1).numpy(), color=INK, marker="o", label="probability of a token")
    ax.plot(
        numbers, strongest.numpy(), color=VERMILLION, marker="s", label="attention, strongest head"
    )
    ax.plot(
        numbers, read.look.mean(1).numpy(), color=BLUE, marker="^", label="attention, all heads"
    )
    ax.set(xlabel="copy", ylim=(-0.03, 1.03), xlim=(0.7, len(read.p) + 0.3))
    ax.set_xticks(range(1, len(read.p) + 1))
    ax.axhline(0, color=MUTED, linewidth=0.8)
    ax.legend(loc="upper left", fontsize=10)
