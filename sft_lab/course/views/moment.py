"""The moment in which a model begins to answer: three questions as cards, a slider through the
training, and a box for a question of one's own (chapter 00)."""

import html
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import decode_response, generate_ids, stop_token_id
from sft_lab.course.moment_runs import LONGEST, Moment
from sft_lab.course.views.widgets import Answer, frame, redraw_on
from sft_lab.plots import (
    BASE,
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    PURPLE,
    TUNED,
    VERMILLION,
    new_figure,
    title_figure,
)

Pair = tuple[PreTrainedModel, PreTrainedTokenizerBase]
WIDTH, LABEL, GAP, HEAD = 10.5, 1.5, 0.14, 0.5  # inches: of the picture, its first column, between
LINE = 0.2  # inches of a line of text
LINES = 3  # of text in a card; more is cut
COLOURS = (BLUE, VERMILLION, PURPLE)
ARTICLE = "border: 1px solid #98a2b0; border-radius: 14px; padding: 10px 16px; margin: 0 0 10px"
SECTION = "flex: 1 1 260px; min-width: 0; padding: 6px 12px; border-top: 3px solid "
QUOTE = "white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.4"


class Card(NamedTuple):
    """One answer: what was written, a word about it, and the colour of its upper edge."""

    text: str
    note: str
    colour: str


def draw_cards(questions: Sequence[str], before: Moment, after: Moment) -> Figure:
    """The questions from top to bottom, answered before the training and after it."""
    rows = {
        question: [_card(before, place, BASE), _card(after, place, TUNED)]
        for place, question in enumerate(questions)
    }
    title = (
        f"The base answers {sum(before.right)} of {len(questions)} questions, the tuned model "
        f"{sum(after.right)}"
    )
    return _draw_grid(rows, ["base", "tuned"], [BASE, TUNED], title)


def draw_film(questions: Sequence[str], moments: Sequence[Moment]) -> Figure:
    """All moments from top to bottom, the questions beside one another: what the slider shows."""
    rows = {}
    for moment in moments:
        cards = []
        for place in range(len(questions)):
            colour = GREEN if moment.right[place] else MUTED
            note = f"probability of the stop token: {moment.p_stop[place]:.2f}"
            cards.append(Card(moment.answers[place], note, colour))
        rows[f"step {moment.step}"] = cards
    first = next((moment.step for moment in moments if all(moment.right)), None)
    title = "How the answers come about" + (f": all right at step {first}" if first else "")
    return _draw_grid(rows, questions, [INK] * len(questions), title)


def draw_stop(questions: Sequence[str], moments: Sequence[Moment], place: int) -> Figure:
    """The probability of the stop token behind each right answer, through the training; a line
    stands at the chosen moment."""
    figure = new_figure((WIDTH, 2.6))
    ax = figure.subplots()
    steps = [moment.step for moment in moments]
    styles = zip(questions, COLOURS, ("-", "--", ":"), strict=False)
    for number, (question, colour, line) in enumerate(styles):
        p_stop = [moment.p_stop[number] for moment in moments]
        ax.plot(steps, p_stop, marker="o", color=colour, linestyle=line, label=question)
    chosen = moments[place]
    ax.axvline(chosen.step, color=INK, linewidth=1.5)
    ax.set(xlabel="optimiser step", ylabel="probability of stop", ylim=(-0.04, 1.04))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=10)
    mean = sum(chosen.p_stop) / len(chosen.p_stop)
    title_figure(figure, f"Step {chosen.step}: the stop token has {mean:.0%} where it belongs")
    return figure


def describe_moment(questions: Sequence[str], moments: Sequence[Moment], place: int) -> str:
    """What the picture and the cards show, in words."""
    moment = moments[place]
    right, stopped = sum(moment.right), sum(moment.stopped)
    chances = ", ".join(f"{p:.2f}" for p in moment.p_stop)
    one = "is right and ends" if right == 1 else "are right and end"
    ends = "ends by itself" if stopped == 1 else "end by themselves"
    return (
        f"Step {moment.step} of {moments[-1].step}: {right} of {len(questions)} answers "
        f"{one} there; {stopped} {ends}. Behind the right "
        f"answers, the stop token has the probabilities {chances}."
    )


def explore_moments(
    base: Pair, tuned: Pair, questions: Sequence[str], moments: Sequence[Moment], own: str = ""
) -> ipywidgets.VBox:
    """A slider through the moments, and a box for a question that both models answer.

    moments: of these questions, the first before the training; the slider looks them up. own: what
    the box holds at first. What is typed stays text: its letters never become a control token.
    """
    slider = ipywidgets.SelectionSlider(
        options=[(str(moment.step), place) for place, moment in enumerate(moments)],
        value=len(moments) - 1,
        description="training step",
        continuous_update=False,
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="32em"),
    )
    box = ipywidgets.Text(
        value=own,
        placeholder="type a question and press Enter",
        description="your question",
        continuous_update=False,
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="46em"),
    )

    @cache
    def ask(question: str) -> str:
        return answer_own({"base": base, "tuned": tuned}, question)

    def answer() -> Answer:
        place = slider.value
        cards = show_moment(questions, moments[0], moments[place])
        return Answer(
            describe_moment(questions, moments, place),
            draw_stop(questions, moments, place),
            below=ask(box.value.strip()) + cards,
        )

    view, redraw = frame([slider, box], answer)
    redraw_on(redraw, slider, box)
    return view


def show_moment(questions: Sequence[str], before: Moment, moment: Moment) -> str:
    """The cards of one moment as HTML, the base's answers beside them."""
    name = f"step {moment.step}" if moment.step else "step 0, the base itself"
    cards = ""
    for place, question in enumerate(questions):
        both = {"base": _card(before, place, BASE), name: _card(moment, place, TUNED)}
        cards += _article(question, both)
    return cards


def answer_own(models: Mapping[str, Pair], question: str) -> str:
    """What each model answers to a typed question, as a card in HTML; nothing for no question."""
    if not question:
        return ""
    cards = {}
    for (name, (model, tokenizer)), colour in zip(models.items(), (BASE, TUNED), strict=True):
        try:
            [ids] = generate_ids(model, tokenizer, [question], max_new_tokens=LONGEST)
        except ValueError as error:  # longer than the model can read
            return f"<p>{html.escape(str(error))}</p>"
        stopped = ids[-1:] == [stop_token_id(tokenizer)]
        cards[name] = Card(decode_response(ids, tokenizer), _ending(stopped), colour)
    return _article(question, cards)


def _card(moment: Moment, place: int, colour: str) -> Card:
    verdict = "✓ right" if moment.right[place] else "✗ not the answer"
    return Card(moment.answers[place], f"{verdict} · {_ending(moment.stopped[place])}", colour)


def _ending(stopped: bool) -> str:
    return "stop token" if stopped else "no stop token"


def _article(question: str, cards: Mapping[str, Card]) -> str:
    """A question and its answers side by side, in the look of the report of `sft_lab.report`."""
    sections = ""
    for name, card in cards.items():
        sections += (
            f'<div style="{SECTION}{card.colour}"><small>{html.escape(name)}</small>'
            f'<div style="{QUOTE}">{html.escape(card.text) or "(nothing)"}</div>'
            f"<small>{html.escape(card.note)}</small></div>"
        )
    return (
        f'<div style="{ARTICLE}"><b>{html.escape(question)}</b>'
        f'<div style="display: flex; flex-wrap: wrap; gap: 12px; margin-top: 6px">{sections}'
        "</div></div>"
    )


def _draw_grid(
    rows: Mapping[str, Sequence[Card]],
    columns: Sequence[str],
    colours: Sequence[str],
    title: str,
) -> Figure:
    """Cards in rows and columns, each row with its name at the left, each column above."""
    wide = (WIDTH - LABEL) / len(columns)
    tall = LINE * (LINES + 1) + 0.35
    height = HEAD + tall * len(rows)
    figure = new_figure((WIDTH, height + 0.5))
    ax = figure.subplots()
    for number, (column, colour) in enumerate(zip(columns, colours, strict=True)):
        _write(ax, LABEL + wide * number, 0.1, _wrap(column, wide), colour=colour, bold=True)
    for line, (name, cards) in enumerate(rows.items()):
        y = HEAD + tall * line
        _write(ax, 0.0, y + 0.1, _wrap(name, LABEL), bold=True)
        for number, card in enumerate(cards):
            _draw_card(ax, card, (LABEL + wide * number, y), (wide - GAP, tall - GAP))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))
    ax.axis("off")
    title_figure(figure, title)
    return figure


def _draw_card(
    ax: Axes, card: Card, corner: tuple[float, float], size: tuple[float, float]
) -> None:
    (x, y), (wide, tall) = corner, size
    ax.add_patch(Rectangle(corner, wide, tall, facecolor="#F6F7F9", edgecolor=GRID))
    ax.add_patch(Rectangle(corner, wide, 0.05, facecolor=card.colour, edgecolor="none"))
    _write(ax, x + 0.1, y + 0.14, _wrap(card.text, wide - 0.1))
    _write(ax, x + 0.1, y + tall - LINE, card.note, colour=MUTED, size=9)


def _write(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    *,
    colour: str = INK,
    size: float = 10.5,
    bold: bool = False,
) -> None:
    weight = "bold" if bold else "normal"
    style = {"color": colour, "fontsize": size, "fontweight": weight, "parse_math": False}
    ax.text(x, y, text, ha="left", va="top", linespacing=1.25, **style)


def _wrap(text: str, inches: float) -> str:
    """The text in at most LINES lines of so many inches; line breaks of its own show as ↵."""
    columns = int(inches / 0.092)  # of the font's usual letters
    return textwrap.fill(
        text.replace("\n", "↵"), columns, max_lines=LINES, placeholder=" …", break_long_words=True
    )
