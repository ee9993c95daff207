"""A blind side-by-side (chapter 09): the reader votes for one of two answers and only then learns
who wrote which.

No name stands on the page, in words, picture or source, before the last vote.
"""

import html
import random
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from sft_lab.course.views.widgets import Answer, frame, one_at_a_time
from sft_lab.metrics import is_right
from sft_lab.plots import BASE, INK, MUTED, PROMPT, TUNED, new_figure
from sft_lab.significance import LEVEL, mcnemar_p_value

CHOICES = ("A", "B", "tie")


def describe_pair(vote: "BlindVote") -> str:
    """What the view shows before the last vote, in words: the question and both answers, and no
    name."""
    question, first, second = vote.shown()
    number, count = len(vote.votes) + 1, len(vote.pairs)
    return (
        f"Pair {number} of {count}. {question} Answer A: {first or '(nothing)'} Answer B: "
        f"{second or '(nothing)'}"
    )


def describe_tally(tally: dict[str, int], right: dict[str, int] | None = None) -> str:
    """The outcome in words: votes for each name, the sign test, and how many answers of each were
    right if known.

    tally: votes for the two names and "tie", as `BlindVote.tally` gives them. right: right answers
    of the two names.
    """
    (one, wins), (other, losses), (_, ties) = tally.items()
    p, count = mcnemar_p_value(wins, losses), wins + losses + ties
    words = (
        f"{wins} of {count} votes for {one}, {losses} for {other}, {ties} ties. Sign test: p = "
        f"{p:.3f}, so the votes {'tell' if p < LEVEL else 'cannot tell'} the two apart."
    )
    if right:
        words += f" Right answers: {one} {right[one]}, {other} {right[other]} of {count}."
    return words


def draw_pair(
    question: str, first: str, second: str, *, ax: Axes | None = None, title: str = ""
) -> Figure:
    """A question above two boxes with the answers A and B. Returns the figure; nothing in it says
    who wrote which."""
    asked = textwrap.wrap(question, 70)
    shortened = [textwrap.shorten(answer, 120, placeholder=" …") for answer in (first, second)]
    texts = [textwrap.wrap(answer, 30) or ["(nothing)"] for answer in shortened]
    tall = max(map(len, texts)) + 0.9  # the boxes, in lines: as high as the longer answer needs
    top = tall + 1.2 * len(asked) + 0.5
    if ax is None:
        ax = new_figure((9.0, 0.29 * top + 0.7)).subplots()
    at = {"va": "top", "parse_math": False, "linespacing": 1.3}
    ax.text(0.0, top, "\n".join(asked), fontsize=14, fontweight="bold", **at)
    for left, name, lines in ((0.0, "A", texts[0]), (0.51, "B", texts[1])):
        box = FancyBboxPatch(
            (left, 0.0),
            0.49,
            tall,
            boxstyle="round,pad=0,rounding_size=0.02",
            mutation_aspect=tall,
            facecolor="#F6F7F9",
            edgecolor=MUTED,
        )
        ax.add_patch(box)
        ax.text(left + 0.02, tall - 0.5, name, fontsize=14, fontweight="bold", color=MUTED, **at)
        ax.text(left + 0.06, tall - 0.5, "\n".join(lines), fontsize=14, **at)
    ax.set(xlim=(-0.005, 1.005), ylim=(-0.1, top + 0.2))
    ax.axis("off")
    ax.set_title(title)
    return ax.figure


def draw_tally(tally: dict[str, int], *, ax: Axes | None = None, title: str = "") -> Figure:
    """One bar a name and one for ties, with the votes; the title is the finding unless another is
    given."""
    if ax is None:
        ax = new_figure((9.0, 2.6)).subplots()
    (one, wins), (other, losses), (_, ties) = tally.items()
    ax.barh(
        [0, 1, 2], [wins, ties, losses], color=[BASE, PROMPT, TUNED], edgecolor=INK, linewidth=0.6
    )
    for row, votes in enumerate((wins, ties, losses)):
        ax.annotate(
            f"{votes}",
            (votes, row),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
        )
    ax.set_yticks([0, 1, 2], [one, "tie", other])
    ax.set(xlim=(0, 1.15 * max(1, wins, ties, losses)), xticks=[], xlabel="votes")
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.grid(visible=False)
    p, finding = mcnemar_p_value(wins, losses), "These votes decide nothing"
    if p < LEVEL:
        finding = f"{one if wins > losses else other} is preferred"
    ax.set_title(title or f"{finding} (p = {p:.3f})")
    return ax.figure


def draw_example(pair: "Pair", names: tuple[str, str]) -> Figure:
    """What the view looks like, for readers without a kernel: one pair, and a tally that is marked
    as an example."""
    figure = new_figure((9.0, 4.2))
    top, bottom = figure.subplots(2, 1, height_ratios=(1, 1.4))
    draw_pair(pair.question, *pair.answers, ax=top, title="Which answer is better: A, B, or a tie?")
    example = {names[0]: 1, names[1]: 8, "tie": 3}
    draw_tally(example, ax=bottom, title="EXAMPLE of a tally, with invented votes")
    return figure


def explore_blind(
    pairs: Sequence["Pair"], names: tuple[str, str], *, seed: int | None = None
) -> ipywidgets.VBox:
    """Three buttons to vote with and one to take a vote back; after the last vote the names and the
    tally appear.

    pairs: the answers of names[0] and names[1]. seed: of the sides; None draws them anew, so that
    nobody knows them.
    """
    vote = BlindVote(pairs, names, seed=seed)
    wide = ipywidgets.Layout(width="9em")
    ballots = {
        choice: ipywidgets.Button(
            description=f"{choice} is better" if choice != "tie" else "tie", layout=wide
        )
        for choice in CHOICES
    }
    back = ipywidgets.Button(description="take back", layout=wide)

    def answer() -> Answer:
        if vote.finished:
            tally = vote.tally()
            sentence = describe_tally(tally, vote.count_right())
            return Answer(sentence, draw_tally(tally), below=_reveal(vote))
        title = f"Pair {len(vote.votes) + 1} of {len(pairs)}: which answer is better?"
        return Answer(describe_pair(vote), draw_pair(*vote.shown(), title=title))

    view, redraw = frame([[*ballots.values(), back]], answer)

    @one_at_a_time
    def cast(choice: str) -> None:
        # A button keeps the focus after the last vote; pressing it again changes nothing.
        if not vote.finished:
            vote.cast(choice)
            redraw()

    @one_at_a_time
    def take_back(_: object) -> None:
        if vote.votes:
            vote.votes.pop()
            redraw()

    for choice, button in ballots.items():
        button.on_click(lambda _, choice=choice: cast(choice))
    back.on_click(take_back)
    redraw()
    return view


def _reveal(vote: "BlindVote") -> str:
    """A table of who wrote which answer, what was voted, and the reference."""
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("question", "A was", "B was", "your vote", "reference")
    )
    rows = ""
    for pair, swapped, choice in zip(vote.pairs, vote.swapped, vote.votes, strict=True):
        sides = vote.names[::-1] if swapped else vote.names
        cells = "".join(
            f"<td>{html.escape(text)}</td>"
            for text in (pair.question, *sides, choice, pair.reference)
        )
        rows += f"<tr>{cells}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


@dataclass(frozen=True)
class Pair:
    """A question, the answers of two models in the order of the names, and the reference answer if
    there is one."""

    question: str
    answers: tuple[str, str]
    reference: str = ""


class BlindVote:
    """Votes on pairs whose sides a fair coin of its own decides, for each pair anew.

    pairs, names: as in `explore_blind`. votes: those cast so far, in order: "A", "B" or "tie".
    """

    def __init__(self, pairs: Sequence[Pair], names: tuple[str, str], *, seed: int | None = None):
        if not pairs:
            raise ValueError("no pairs to vote on: choose questions that both models were asked")
        if len(set(names) | {"tie"}) != 3:
            raise ValueError(
                f"names are {names!r}: two different ones are needed, and neither may be 'tie'"
            )
        self.pairs, self.names, self.votes = list(pairs), tuple(names), []
        coin = random.Random(seed)
        # for each pair, whether A is the answer of names[1]
        self.swapped = [coin.random() < 0.5 for _ in self.pairs]

    @property
    def finished(self) -> bool:
        return len(self.votes) == len(self.pairs)

    def shown(self) -> tuple[str, str, str]:
        """Question, answer A and answer B of the pair that is to be voted on."""
        pair, swapped = self.pairs[len(self.votes)], self.swapped[len(self.votes)]
        return pair.question, *(pair.answers[::-1] if swapped else pair.answers)

    def cast(self, choice: str) -> None:
        """Vote on the pair shown, and go on to the next."""
        if choice not in CHOICES or self.finished:
            raise ValueError(
                f"vote {choice!r} on pair {len(self.votes) + 1} of {len(self.pairs)}: A, B or "
                "tie, once"
            )
        self.votes.append(choice)

    def tally(self) -> dict[str, int]:
        """Votes for names[0], names[1] and "tie". ValueError before the last vote: a tally on the
        way sways a voter."""
        if not self.finished:
            raise ValueError(
                f"{len(self.votes)} of {len(self.pairs)} votes: the tally appears after the last"
            )
        count = {self.names[0]: 0, self.names[1]: 0, "tie": 0}
        for choice, swapped in zip(self.votes, self.swapped, strict=True):
            count["tie" if choice == "tie" else self.names[(choice == "B") != swapped]] += 1
        return count

    def count_right(self) -> dict[str, int] | None:
        """How many answers of each name are right; None when a pair has no reference."""
        if not all(pair.reference for pair in self.pairs):
            return None
        return {
            name: sum(is_right(pair.answers[side], pair.reference) for pair in self.pairs)
            for side, name in enumerate(self.names)
        }
