"""A chat as a model reads it (chapter 02): every token with its id, coloured by who writes it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import ipywidgets
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from transformers import PreTrainedTokenizerBase

from sft_lab.chat import encode_chat, stop_token_id
from sft_lab.control import control_tokens
from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.plots import (
    ANSWER,
    INK,
    PROMPT,
    PURPLE,
    SKY,
    new_figure,
    show_token,
    title_figure,
    token_colours,
    token_strip,
)
from sft_lab.records import Conversation
from sft_lab.templates import find_template

WRITERS = {  # who writes a token: colour, and words for the key
    "control": (INK, "control tokens"),
    "template": (PROMPT, "other text of the template"),
    "system": (PURPLE, "system"),
    "user": (SKY, "user"),
    "answer": (ANSWER, "answer and its stop token"),
}


def tokenize_chat(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str | None = None,
    thinking: bool = False,
    protect: bool = True,
) -> tuple[list[int], list[str]]:
    """Token ids of a chat and, for each, who writes it: a key of WRITERS.

    A chat that ends with an answer is rendered for training, any other for inference. What the
    inference prompt already holds, such as an empty think block, the template writes; the rest of
    an answer the model writes. template: a ChatML-like Jinja text, the tokenizer's own by default.
    protect=False shows ordinary tokenisation, in which a control token that somebody types is one.
    """
    template = template or find_template(tokenizer)
    answered = conversation[-1]["role"] == "assistant"

    def encode(turns: Conversation, opened: bool) -> list[int]:
        flags = {"add_generation_prompt": opened, "enable_thinking": thinking}
        if protect:
            return encode_chat(turns, tokenizer, template=template, **flags)
        text = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, **flags)
        return tokenizer(text, add_special_tokens=False).input_ids

    ids = encode(conversation, not answered)
    prompt = encode(conversation[:-1], True) if answered and len(conversation) > 1 else ids
    shared = len(prompt) if ids[: len(prompt)] == prompt else 0
    writers = name_writers(ids, tokenizer)
    controls = set(control_tokens(tokenizer).values())
    for index in range(_last_turn(ids, tokenizer), shared):  # the template opens the answer
        if writers[index] == "answer":
            writers[index] = "control" if ids[index] in controls else "template"
    return ids, writers


def name_writers(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Who writes each token of a ChatML text, read from the ids alone, as a model reads them: a key
    of WRITERS.

    A turn opens with <|im_start|>, its role and a line break, and ends with the stop token, which
    in an answer is the model's. So a forged turn is shown as what it pretends to be.
    """
    start, stop = tokenizer.convert_tokens_to_ids("<|im_start|>"), stop_token_id(tokenizer)
    controls = set(control_tokens(tokenizer).values())
    # header: the role as far as it was read; None outside the first line of a turn
    writers, writer, header = [], "template", None
    for token_id in ids:
        if token_id == start:
            writer, header = "template", ""
            writers.append("control")
        elif header is not None:
            header += tokenizer.decode([token_id])
            writers.append("template")
            if "\n" in header:
                writer, header = _writer_of_role(header.split("\n")[0]), None
        elif token_id == stop:
            writers.append("answer" if writer == "answer" else "control")
            writer = "template"
        else:
            # what an answer holds, the model wrote, control tokens such as <think> among it
            forced = token_id in controls and writer != "answer"
            writers.append("control" if forced else writer)
    return writers


def describe_chat(
    ids: Sequence[int], writers: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> str:
    """What `draw_chat` shows, in words: tokens by writer, turns by role, and where the answer
    begins."""
    counts = Counter(writers)
    parts = [f"{counts[name]} {words}" for name, (_, words) in WRITERS.items() if counts[name]]
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    starts = [index for index, token_id in enumerate(ids) if token_id == start]
    headers = [tokenizer.decode(ids[index + 1 : index + 9]) for index in starts]
    turns = ", ".join(header.split("\n")[0] for header in headers)
    last = range(_last_turn(ids, tokenizer), len(ids))
    first = next((index for index in last if writers[index] == "answer"), None)
    where = f"The answer begins at token {first}."
    if first is None:
        where = "The model goes on after the last token."
    return f"{len(ids)} tokens: {', '.join(parts)}. Turns: {turns}. {where}"


def draw_chat(
    ids: Sequence[int],
    writers: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str = "",
) -> Figure:
    """The tokens as boxes in the colour of their writer, ids below. ids, writers: T each, as
    `tokenize_chat` gives."""
    texts = [show_id(token_id, tokenizer) for token_id in ids]
    colours = [WRITERS[writer][0] for writer in writers]
    ax = token_strip(texts, colours=colours, notes=list(ids), title=title)
    draw_key(ax.figure, name_colours(writers))
    return ax.figure


def draw_pieces(
    rows: Mapping[str, Sequence[str]],
    *,
    notes: Sequence[Sequence[object]] | None = None,
    labels: Sequence[Sequence[int]] | None = None,
    masks: Sequence[Sequence[int]] | None = None,
    title: str,
) -> Figure:
    """Rows of tokens below each other, each with its name above it.

    rows: name → tokens. notes: for each row short texts below the boxes. labels, masks: for each
    row; without labels, tokens of several letters are blue.
    """
    longest = max(sum(max(len(token), 2) for token in tokens) for tokens in rows.values())
    figure = new_figure((9.4, (0.9 if notes is None else 1.15) * len(rows) + 0.5 + longest / 200))
    for number, (ax, (name, tokens)) in enumerate(
        zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows.items(), strict=True)
    ):
        if labels is None:
            colours = [SKY if len(token) > 1 else PROMPT for token in tokens]
        else:
            colours = token_colours(labels[number], None if masks is None else masks[number])
        below = None if notes is None else notes[number]
        token_strip(tokens, colours=colours, notes=below, width=10.5, ax=ax)
        ax.set_title(name, fontsize=12, fontweight="normal", pad=3)
    title_figure(figure, title)
    return figure


def draw_roles(*, title: str) -> Figure:
    """The way of a chat to the model and back, as five stations."""
    figure = new_figure((10.4, 1.9))
    ax = figure.subplots()
    ax.set(xlim=(0, 10.4), ylim=(0, 1.5))
    ax.axis("off")
    stations = {
        "roles": "user: …",
        "template": "one text",
        "token ids": "one row",
        "model": "new ids",
        "decode": "answer",
    }
    style = {"boxstyle": "round,pad=0.45", "facecolor": PROMPT, "edgecolor": INK}
    for number, (name, what) in enumerate(stations.items()):
        x = 1.1 + 2.05 * number
        colour = ANSWER if name == "model" else PROMPT
        ax.text(x, 1.0, name, ha="center", va="center", bbox=style | {"facecolor": colour})
        ax.text(x, 0.3, what, ha="center", va="center", fontsize=11)
        if number:
            arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.6}
            ax.annotate("", (x - 0.62, 1.0), (x - 1.42, 1.0), arrowprops=arrow)
    ax.set_title(title)
    return figure


def show_id(token_id: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a token; where it is a part of a character, its bytes as the vocabulary writes
    them."""
    text = tokenizer.decode([token_id])
    return tokenizer.convert_ids_to_tokens(token_id) if "\ufffd" in text else text


def name_colours(writers: Collection[str]) -> list[Patch]:
    """An entry of a key for every writer that occurs."""
    return [
        Patch(color=colour, label=words)
        for name, (colour, words) in WRITERS.items()
        if name in writers
    ]


def draw_key(figure: Figure, entries: Sequence[Patch]) -> None:
    """A key below a strip of tokens, in room of its own."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.55)
    figure.legend(
        handles=entries,
        loc="outside lower left",
        ncols=len(entries),
        fontsize=10.5,
        handlelength=1.2,
        columnspacing=1.4,
    )


def explore_chat(
    tokenizer: PreTrainedTokenizerBase, templates: Mapping[str, str], conversation: Conversation
) -> ipywidgets.VBox:
    """Boxes for what system, user and assistant say, buttons and switches for the template; draws
    `draw_chat` below.

    templates: Jinja texts by name. conversation: what the boxes hold at first, one turn a role. An
    empty system box gives no system turn, an empty assistant box the inference prompt. Returns the
    box of controls, picture and words.
    """
    said = {turn["role"]: turn["content"] for turn in conversation}
    wide, layout = {"description_width": "6em"}, ipywidgets.Layout(width="46em", height="4.4em")
    narrow = ipywidgets.Layout(width="auto", margin="2px 1.5em 2px 2px")
    boxes = {
        role: ipywidgets.Textarea(
            value=said.get(role, ""),
            description=role,
            continuous_update=False,
            style=wide,
            layout=layout,
        )
        for role in ("system", "user", "assistant")
    }
    menu = choose("template", list(templates.items()), description_width="6em")
    thinking = ipywidgets.Checkbox(value=False, description="thinking", indent=False, layout=narrow)
    protect = ipywidgets.Checkbox(
        value=True, description="control tokens in messages stay text", indent=False, layout=narrow
    )

    def answer() -> Answer:
        turns = [
            {"role": role, "content": box.value}
            for role, box in boxes.items()
            if box.value or role == "user"
        ]
        ids, writers = tokenize_chat(
            turns, tokenizer, template=menu.value, thinking=thinking.value, protect=protect.value
        )
        tokens = " ".join(show_token(tokenizer.decode([token_id])) for token_id in ids)
        sentence = describe_chat(ids, writers, tokenizer)
        return Answer(sentence, draw_chat(ids, writers, tokenizer), details=tokens)

    view, redraw = frame([*boxes.values(), [menu, thinking, protect]], answer)
    redraw_on(redraw, *boxes.values(), menu, thinking, protect)
    return view


def _writer_of_role(role: str) -> str:
    """A key of WRITERS; roles that are not there, such as a tool's, count as template."""
    if role == "assistant":
        return "answer"
    return role if role in WRITERS else "template"


def _last_turn(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    return max((index for index, token_id in enumerate(ids) if token_id == start), default=0)
