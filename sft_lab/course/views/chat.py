"""A chat as a model reads it (chapter 02): every token with its id, coloured by who writes it.

A thin view over plain functions, like those of widgets.py: what is drawn is also said in words, and
the controls are text boxes, buttons and switches that the keyboard reaches.
"""

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence

import ipywidgets
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from transformers import PreTrainedTokenizerBase

from sft_lab.chat import encode_chat, stop_token_id
from sft_lab.course.views.figures import one_at_a_time
from sft_lab.course.views.widgets import choose, paragraph, to_png
from sft_lab.plots import ANSWER, INK, PROMPT, PURPLE, SKY, show_token, token_strip
from sft_lab.records import Conversation
from sft_lab.rendering import control_tokens, find_template

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
    for place in range(_last_turn(ids, tokenizer), shared):  # the template opens the answer
        if writers[place] == "answer":
            writers[place] = "control" if ids[place] in controls else "template"
    return ids, writers


def name_writers(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Who writes each token of a ChatML text, read from the ids alone, as a model reads them: a key
    of WRITERS.

    A turn opens with <|im_start|>, its role and a line break, and ends with the stop token, which
    in an answer is the model's. So a forged turn is shown as what it pretends to be.
    """
    start, stop = tokenizer.convert_tokens_to_ids("<|im_start|>"), stop_token_id(tokenizer)
    controls = set(control_tokens(tokenizer).values())
    writers, writer, header = [], "template", None
    for index in ids:
        text = tokenizer.decode([index])
        if index == start:
            writer, header = "template", ""
            writers.append("control")
        elif header is not None:
            header += text
            writers.append("template")
            if "\n" in text:
                role = header.split("\n")[0]
                writer, header = (
                    {"assistant": "answer"}.get(role, role if role in WRITERS else "template"),
                    None,
                )
        elif index == stop:
            writers.append("answer" if writer == "answer" else "control")
            writer = "template"
        else:
            writers.append("control" if index in controls and writer != "answer" else writer)
    return writers


def describe_chat(
    ids: Sequence[int], writers: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> str:
    """What `draw_chat` shows, in words: tokens by writer, turns by role, and where the answer
    begins."""
    counts = Counter(writers)
    parts = [f"{counts[name]} {words}" for name, (_, words) in WRITERS.items() if counts[name]]
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    headers = [
        tokenizer.decode(ids[place + 1 : place + 9])
        for place, index in enumerate(ids)
        if index == start
    ]
    turns = ", ".join(header.split("\n")[0] for header in headers)
    first = next(
        (
            place
            for place in range(_last_turn(ids, tokenizer), len(ids))
            if writers[place] == "answer"
        ),
        None,
    )
    here = (
        "The model goes on after the last token."
        if first is None
        else f"The answer begins at token {first}."
    )
    return f"{len(ids)} tokens: {', '.join(parts)}. Turns: {turns}. {here}"


def draw_chat(
    ids: Sequence[int],
    writers: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str = "",
) -> Figure:
    """The tokens as boxes in the colour of their writer, ids below. ids, writers: T each, as
    `tokenize_chat` gives."""
    texts = [tokenizer.decode([index]) for index in ids]
    texts = [
        tokenizer.convert_ids_to_tokens(index)
        if "\ufffd" in text
        else text  # part of a character: its byte
        for index, text in zip(ids, texts, strict=True)
    ]
    ax = token_strip(
        texts, colours=[WRITERS[writer][0] for writer in writers], notes=list(ids), title=title
    )
    width, height = ax.figure.get_size_inches()
    ax.figure.set_size_inches(width, height + 0.55)  # room for the key
    key = [
        Patch(color=colour, label=words)
        for name, (colour, words) in WRITERS.items()
        if name in writers
    ]
    ax.figure.legend(
        handles=key,
        loc="outside lower left",
        ncols=len(key),
        fontsize=10.5,
        handlelength=1.2,
        columnspacing=1.4,
    )
    return ax.figure


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
    picture, words = ipywidgets.HTML(), ipywidgets.HTML()

    @one_at_a_time
    def redraw(_: object = None) -> None:
        turns = [
            {"role": role, "content": box.value}
            for role, box in boxes.items()
            if box.value or role == "user"
        ]
        ids, writers = tokenize_chat(
            turns, tokenizer, template=menu.value, thinking=thinking.value, protect=protect.value
        )
        sentence = describe_chat(ids, writers, tokenizer)
        source = base64.b64encode(to_png(draw_chat(ids, writers, tokenizer))).decode()
        spoken = html.escape(
            f"{sentence} {' '.join(show_token(tokenizer.decode([index])) for index in ids)}"
        )
        picture.value = (
            f'<img alt="{spoken}" src="data:image/png;base64,{source}" style="max-width: 100%">'
        )
        words.value = paragraph(sentence)

    for control in (*boxes.values(), menu, thinking, protect):
        control.observe(redraw, names="value")
    redraw()
    switches = ipywidgets.HBox([menu, thinking, protect], layout={"flex_flow": "row wrap"})
    return ipywidgets.VBox([*boxes.values(), switches, picture, words])


def _last_turn(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    return max((place for place, index in enumerate(ids) if index == start), default=0)
