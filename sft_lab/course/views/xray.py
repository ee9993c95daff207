"""The label X-ray (chapter 03): every token of a conversation by role, whether it is graded, and
what it costs; also who is graded under each policy, and who reads whom in a packed row.

A graded token is framed as well as coloured, and whatever cannot be encoded is said in words.
"""

import re
from collections.abc import Mapping, Sequence

import ipywidgets
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.course.views.chat import WRITERS, draw_key, name_colours, name_writers, show_id
from sft_lab.course.views.widgets import Answer, choose, frame, one_at_a_time, redraw_on
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversation
from sft_lab.losses import token_nll
from sft_lab.plots import (
    BLUE,
    INK,
    MUTED,
    PADDING,
    VERMILLION,
    new_figure,
    show_token,
    title_figure,
    token_strip,
)
from sft_lab.records import Conversation

GRADED = {  # policies, in the order of the buttons: how much of a conversation each grades
    "last": "the last answer and its stop token",
    "assistant": "every answer and its stop token",
    "prompt too": "what user and assistant say",
    "all": "every token",
}


def label_tokens(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    policy: str,
    *,
    max_tokens: int = 1024,
) -> Example:
    """`encode_conversation` with one more policy: "prompt too" grades what the user says beside
    every answer.

    The template's own tokens stay ungraded, among them the one that ends a user turn: check_labels
    refuses such an example, since a graded run without a stop token is usually a fault. Errors as
    in `encode_conversation`.
    """
    if policy != "prompt too":
        return encode_conversation(conversation, tokenizer, graded=policy, max_tokens=max_tokens)
    example = encode_conversation(
        conversation, tokenizer, graded="assistant", max_tokens=max_tokens
    )
    writers = name_writers(example.input_ids, tokenizer)
    tokens = zip(example.input_ids, example.labels, writers, strict=True)
    labels = [token_id if writer == "user" else label for token_id, label, writer in tokens]
    return Example(example.input_ids, labels)


@torch.inference_mode()
def read_losses(model: PreTrainedModel, ids: Sequence[int]) -> list[float]:
    """The loss of every token after the first, in nats, given the true tokens before it: T - 1
    numbers."""
    input_ids = torch.tensor([list(ids)], device=model.device)
    return token_nll(model(input_ids).logits, input_ids)[0].tolist()


def parse_turns(text: str) -> Conversation:
    """Turns from lines such as "user: Hello"; a line without a role goes on with the turn before
    it.

    Raises ValueError when the first line names no role.
    """
    turns: Conversation = []
    for line in text.strip().splitlines():
        opening = re.match(r"(system|user|assistant): ?(.*)", line)
        if opening:
            turns.append({"role": opening[1], "content": opening[2]})
        elif turns:
            turns[-1]["content"] += "\n" + line
        else:
            raise ValueError(
                f"the first line, {line[:40]!r}, names no role: begin it with user: or system:"
            )
    if not turns:
        raise ValueError("there is no turn: begin a line with user: or system:")
    return turns


def format_turns(conversation: Conversation) -> str:
    """The inverse of `parse_turns`: one line a turn, its role before it."""
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in conversation)


def describe_labels(
    example: Example, whole: Sequence[int], losses: Mapping[str, Sequence[float]], policy: str
) -> str:
    """What `draw_labels` shows, in words. whole: the ids before a length limit; losses: T - 1 nats
    for each model."""
    graded = [
        index for index, label in enumerate(example.labels) if index and label != IGNORE_INDEX
    ]
    means = [
        f"{name} {sum(nats[index - 1] for index in graded) / len(graded):.2f}"
        for name, nats in losses.items()
    ]
    cut = len(whole) - len(example.input_ids)
    left = f" The limit cuts off the last {cut} tokens, in whole turns." if cut else ""
    return (
        f"{len(example.input_ids)} tokens, of which {len(graded)} are graded: "
        f"{GRADED[policy]}.{left} Their mean loss in nats per token: {', '.join(means)}."
    )


def draw_labels(
    example: Example,
    whole: Sequence[int],
    losses: Mapping[str, Sequence[float]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str = "",
) -> Figure:
    """Tokens in the colour of who says them; graded ones framed, those beyond a length limit white
    and dashed.

    Below each token its loss from every model, in nats, joined by an arrow. example: T ids and
    labels; whole: all ids before the limit; losses: T - 1 numbers for each model, since nothing
    predicts the first token.
    """
    kept, writers = len(example.input_ids), name_writers(whole, tokenizer)
    colours = [WRITERS[writer][0] for writer in writers[:kept]]
    colours += [PADDING] * (len(whole) - kept)
    notes = [""] * len(whole)
    for index in range(1, kept):  # the loss of token t stands at t - 1
        notes[index] = "→".join(f"{nats[index - 1]:.1f}" for nats in losses.values())
    texts = [show_id(token_id, tokenizer) for token_id in whole]
    ax = token_strip(texts, colours=colours, notes=notes, title=title, width=10.5)
    for index, box in enumerate(ax.patches):
        if index >= kept:
            box.set(edgecolor=MUTED, linestyle="--")
        elif index and example.labels[index] != IGNORE_INDEX:
            box.set(edgecolor=INK, linewidth=2.6)
    key = name_colours(writers[:kept])
    for entry in key:
        entry.set_label(entry.get_label().split(" and")[0])  # here a frame says what is graded
    key += [Patch(facecolor="none", edgecolor=INK, linewidth=2.6, label="framed: graded")]
    if kept < len(whole):
        key += [Patch(facecolor=PADDING, edgecolor=MUTED, linestyle="--", label="cut off")]
    width, height = ax.figure.get_size_inches()
    ax.figure.set_size_inches(width, 1.12 * height)  # room for the frames
    draw_key(ax.figure, key)
    return ax.figure


def explore_labels(
    tokenizer: PreTrainedTokenizerBase,
    models: Mapping[str, PreTrainedModel],
    conversations: Mapping[str, Conversation],
    *,
    policy: str = "assistant",
) -> ipywidgets.VBox:
    """Buttons for conversation and policy, a box to type another conversation, a slider for the
    length limit.

    models: by name, in the order in which their losses stand below a token. The losses of a row of
    ids are computed once and kept. What cannot be encoded is said in words, and the picture goes.
    Returns the box of controls, picture and words.
    """
    controls = menu, box, policies, limit = _make_controls(conversations, policy)
    known: dict[tuple[int, ...], dict[str, list[float]]] = {}

    def answer() -> Answer:
        try:
            turns = parse_turns(box.value)
            whole = label_tokens(turns, tokenizer, policies.value).input_ids
            example = label_tokens(turns, tokenizer, policies.value, max_tokens=limit.value)
        except ValueError as error:
            return Answer(f"Refused: {error}", None)
        ids = tuple(example.input_ids)
        if ids not in known:
            known[ids] = {name: read_losses(model, ids) for name, model in models.items()}
        graded = [label for label in example.labels[1:] if label != IGNORE_INDEX]
        said = " ".join(show_token(tokenizer.decode([token_id])) for token_id in graded)
        return Answer(
            describe_labels(example, whole, known[ids], policies.value),
            draw_labels(example, whole, known[ids], tokenizer),
            details=f"Graded: {said}",
        )

    view, redraw = frame(controls, answer)

    @one_at_a_time
    def read_box(_: object = None) -> None:
        """Another conversation: the limit begins at its full length."""
        try:
            tokens = len(label_tokens(parse_turns(box.value), tokenizer, "all").input_ids)
        except ValueError:
            tokens = limit.max  # redraw says what is wrong
        limit.max = limit.value = max(tokens, 9)
        redraw()

    @one_at_a_time
    def choose_conversation(change: dict) -> None:
        box.value = format_turns(change["new"])

    read_box()
    menu.observe(choose_conversation, names="value")
    box.observe(read_box, names="value")
    redraw_on(redraw, policies, limit)
    return view


def _make_controls(
    conversations: Mapping[str, Conversation], policy: str
) -> tuple[
    ipywidgets.ToggleButtons, ipywidgets.Textarea, ipywidgets.ToggleButtons, ipywidgets.IntSlider
]:
    """Conversation, its turns as text, policy, and length limit, from top to bottom."""
    wide = "7em"
    menu = choose("conversation", list(conversations.items()), description_width=wide)
    policies = choose("graded", [(name, name) for name in GRADED], description_width=wide)
    policies.value = policy
    style = {"description_width": wide}
    box = ipywidgets.Textarea(
        value=format_turns(menu.value),
        description="turns",
        continuous_update=False,
        style=style,
        layout=ipywidgets.Layout(width="46em", height="7em"),
    )
    limit = ipywidgets.IntSlider(
        min=8,
        max=9,
        description="length limit",
        style=style,
        layout=ipywidgets.Layout(width="46em"),
    )
    return menu, box, policies, limit


def draw_policies(
    examples: Mapping[str, Example], tokenizer: PreTrainedTokenizerBase, *, title: str = ""
) -> Figure:
    """The same tokens once for each policy, graded ones in orange, with their number."""
    figure = new_figure((10, 2.4 * len(examples)))
    for ax, (policy, example) in zip(
        figure.subplots(len(examples), 1, squeeze=False)[:, 0], examples.items(), strict=True
    ):
        texts = [show_id(token_id, tokenizer) for token_id in example.input_ids]
        token_strip(texts, example.labels, ax=ax)
        graded = sum(label != IGNORE_INDEX for label in example.labels)
        counted = f"{policy}: {graded} of {len(example.labels)} tokens"
        ax.set_title(counted, fontsize=12, fontweight="normal", pad=3)
    title_figure(figure, title)
    return figure


def draw_reach(seen: Mapping[str, torch.Tensor], same: torch.Tensor) -> Figure:
    """Which tokens each guess reads. seen: (T, T) of booleans for each way to run a packed row;
    same: (T, T), whether two tokens belong to one example. Reading a neighbour is drawn in red."""
    figure = new_figure((5.2 * len(seen), 4.9))
    axes = figure.subplots(1, len(seen), sharey=True, squeeze=False)[0]
    for ax, (name, dots) in zip(axes, seen.items(), strict=True):
        picture = torch.ones(*dots.shape, 3)
        picture[dots & same] = torch.tensor(to_rgb(BLUE))
        picture[dots & ~same] = torch.tensor(to_rgb(VERMILLION))
        ax.imshow(picture)
        ax.set(xlabel="token s that is read")
        leaks = int((dots & ~same).sum())
        ax.set_title(f"{name}: {leaks} leaks", fontsize=13, fontweight="normal")
        ax.grid(visible=False)
    axes[0].set_ylabel("guess after token t")
    key = [
        Patch(facecolor=BLUE, label="its own example"),
        Patch(facecolor=VERMILLION, label="a neighbour: a leak"),
    ]
    draw_key(figure, key)
    title_figure(figure, "Without position ids each example reads its neighbours")
    return figure
