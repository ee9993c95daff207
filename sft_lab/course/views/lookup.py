"""A question with and without passages, two thresholds, and the answer with its source (chapter
15b)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import decode_response, encode_prompts, generate_ids
from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.metrics import normalise
from sft_lab.plots import ANSWER, BLUE, GREEN, INK, MUTED, PROMPT, VERMILLION, new_figure
from sft_lab.retrieval import (
    NOT_FOUND,
    Hit,
    PassageStore,
    retrieve,
    split_words,
    supports,
    write_prompt,
)

COUNT = 3  # passages that are found
LONGEST = 58  # characters of a passage in the picture


@dataclass(frozen=True)
class Look:
    """What a model says to a question, before any threshold."""

    question: str
    hits: tuple[Hit, ...]
    with_passages: bool
    answer: str
    tokens: tuple[str, ...]
    chances: tuple[float, ...]  # the probability of each token of the answer

    @property
    def source(self) -> str | None:
        """The id of the best passage that the model read and that bears the answer out."""
        read = self.hits if self.with_passages else ()
        fits = [hit.passage.id for hit in read if supports(hit.passage.text, self.answer)]
        return fits[0] if fits else None


@torch.inference_mode()
def look_up(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    store: PassageStore,
    question: str,
    *,
    with_passages: bool,
) -> Look:
    """The greedy answer to a question, behind the best passages or alone, and how sure each of its
    tokens is."""
    hits = tuple(retrieve(store, question, count=COUNT))
    texts = [hit.passage.text for hit in hits] if with_passages else []
    prompt = write_prompt(texts, question)
    (ids,) = generate_ids(model, tokenizer, [prompt], max_new_tokens=50)
    (asked,) = encode_prompts(tokenizer, [prompt])
    logits = model(torch.tensor([asked + ids], device=model.device)).logits[0, len(asked) - 1 : -1]
    chances = logits.float().softmax(-1)[range(len(ids)), ids].tolist()
    return Look(
        question,
        hits,
        with_passages,
        decode_response(ids, tokenizer),
        tuple(tokenizer.decode([token_id]) for token_id in ids),
        tuple(chances),
    )


def decide(look: Look, least_score: float, least_chance: float) -> str:
    """ "answered", "not found" (no passage scores high enough) or "unsure" (a token of the answer
    is less likely than allowed)."""
    if look.with_passages and look.hits[0].score < least_score:
        return "not found"
    return "unsure" if min(look.chances) < least_chance else "answered"


def describe_lookup(look: Look, least_score: float, least_chance: float) -> str:
    """What `draw_lookup` shows, in words."""
    decision = decide(look, least_score, least_chance)
    if look.with_passages:
        best = look.hits[0]
        found = f"Best passage: {best.passage.id}, score {best.score:.2f}."
    else:
        found = "No passage is shown."
    if decision == "not found":
        return f"{found} That is below {least_score:.2f}, so the answer is: {NOT_FOUND}"
    sure = f"its least likely token has probability {min(look.chances):.2f}"
    if decision == "unsure":
        return (
            f"{found} The model would say: {look.answer} But {sure}, below {least_chance:.2f}, so "
            f"the answer is: {NOT_FOUND}"
        )
    return f"{found} Answer: {look.answer} Source: {look.source or 'none'}; {sure}."


def draw_lookup(look: Look, least_score: float, least_chance: float) -> Figure:
    """Above, the passages and their scores; below, the tokens of the answer and how likely each is.

    A dashed line is a threshold; what is below it is vermillion.
    """
    figure = new_figure((10.0, 5.6))
    above, below = figure.subplots(2, 1, gridspec_kw={"hspace": 0.75, "height_ratios": (1, 1)})
    _draw_hits(above, look, least_score)
    _draw_tokens(below, look, least_chance)
    decision = decide(look, least_score, least_chance)
    said = normalise(look.answer) if decision == "answered" else f"{NOT_FOUND} ({decision})"
    source = f"   source: {look.source or 'none'}" if decision == "answered" else ""
    figure.suptitle(f"{look.question}\n→  {said}{source}", x=0.01, ha="left", fontsize=13)
    return figure


def _draw_hits(ax: Axes, look: Look, least: float) -> None:
    for row, hit in enumerate(look.hits):
        low = hit.score < least
        colour = PROMPT if look.with_passages and not low else "white"
        ax.barh(row, hit.score, color=colour, edgecolor=INK, linewidth=0.8, height=0.7)
        ink = MUTED if not look.with_passages else VERMILLION if low else INK
        text = hit.passage.text
        text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        ax.text(1.02, row, text, va="center", fontsize=11, color=ink, parse_math=False)
    ax.axvline(least, color=BLUE, linestyle="--", linewidth=2)
    ax.set(xlim=(0, 1), xlabel="score of the passage (TF-IDF, 0 to 1)")
    ax.set_yticks(range(len(look.hits)), [f"{n + 1}." for n in range(len(look.hits))])
    ax.invert_yaxis()
    ax.grid(visible=False)
    title = "The passages that the model reads" if look.with_passages else "Found, but not shown"
    ax.set_title(title, loc="left", fontsize=12)
    box = ax.get_position()
    ax.set_position((box.x0, box.y0, 0.34, box.height))


def _draw_tokens(ax: Axes, look: Look, least: float) -> None:
    colours = [VERMILLION if chance < least else ANSWER for chance in look.chances]
    ax.bar(range(len(look.chances)), look.chances, color=colours, edgecolor=INK, linewidth=0.8)
    ax.axhline(least, color=BLUE, linestyle="--", linewidth=2)
    names = [token.strip() or "␣" for token in look.tokens]
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=10, parse_math=False)
    ax.set(ylim=(0, 1.05), ylabel="probability")
    ax.grid(visible=False, axis="x")
    ax.set_title("The answer, token by token", loc="left", fontsize=12)


def explore_lookup(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    store: PassageStore,
    questions: Sequence[str],
) -> ipywidgets.VBox:
    """Buttons for questions, a box for one's own, a switch for the passages, two thresholds."""
    asked = choose("question", [(question, question) for question in questions])
    own = ipywidgets.Text(description="or your own", continuous_update=False)
    shown = choose("passages", [("shown", True), ("not shown", False)])
    score = _slider("least score", 0.2)
    chance = _slider("least probability", 0.0)

    @lru_cache(maxsize=64)
    def look(question: str, with_passages: bool) -> Look:
        return look_up(model, tokenizer, store, question, with_passages=with_passages)

    def answer() -> Answer:
        question = own.value.strip() or asked.value
        if not split_words(question):
            return Answer("Write a question with words in it.", None)
        found = (look(question, shown.value), score.value, chance.value)
        return Answer(describe_lookup(*found), draw_lookup(*found))

    view, redraw = frame([asked, own, shown, [score, chance]], answer)
    redraw_on(redraw, asked, own, shown, score, chance)
    return view


def draw_open_book() -> Figure:
    """A schematic: find, read, check; and where each can fail."""
    figure = new_figure((10.0, 3.4))
    ax = figure.subplots()
    ax.set(xlim=(0, 10), ylim=(0, 3.4))
    ax.axis("off")
    boxes = [
        (1.1, "question", ANSWER, ""),
        (3.4, "find\npassages", PROMPT, "the right one\nis not found"),
        (5.7, "read\nand answer", ANSWER, "found, but\nnot read"),
        (
            8.0,
            "check against\nthe source",
            PROMPT,
            "a false answer passes,\na right one is refused",
        ),
    ]
    for x, text, colour, fault in boxes:
        style = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": INK}
        ax.text(x, 2.1, text, ha="center", va="center", bbox=style, fontsize=13)
        ax.text(x, 0.7, fault, ha="center", va="center", color=VERMILLION, fontsize=11)
    for left, right in ((1.75, 2.6), (4.2, 4.85), (6.55, 6.95), (9.05, 9.6)):
        ax.add_patch(
            FancyArrowPatch(
                (left, 2.1), (right, 2.1), arrowstyle="-|>", mutation_scale=18, color=INK, lw=2
            )
        )
    ax.text(3.4, 3.1, "store of passages", ha="center", color=MUTED, fontsize=11)
    ax.text(9.65, 2.6, "answer\n+ source", ha="center", color=GREEN, fontsize=11)
    ax.set_title("An open book: three steps, and each fails in its own way")
    return figure


def _slider(name: str, value: float) -> ipywidgets.FloatSlider:
    return ipywidgets.FloatSlider(
        value,
        min=0,
        max=1,
        step=0.05,
        description=name,
        continuous_update=False,
        style={"description_width": "initial"},
    )
