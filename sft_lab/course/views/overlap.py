"""Two sentences, and what each score finds in both: n-grams, a subsequence, pairs of words, an
alignment (chapter 16)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from sft_lab.alignment import align, meteor
from sft_lab.course.views.widgets import Answer, choose, frame, one_at_a_time, redraw_on
from sft_lab.overlap import (
    bleu,
    chrf,
    rouge_l,
    rouge_n,
    rouge_s,
    rouge_w,
    split_words,
)
from sft_lab.plots import ANSWER, BLUE, GRID, INK, MUTED, PROMPT, new_figure, title_figure

Places = tuple[int, ...]
Unit = tuple[Places, Places]  # places in the hypothesis, places in the reference

CHINESE = re.compile("[\u3400-\u9fff]")
MOST = 14  # words of a sentence that fit into the picture
RUN_WEIGHT = 1.2  # of ROUGE-W


@dataclass(frozen=True)
class Kind:
    """A score that can be drawn: which units of both sentences it matches, and their name."""

    unit: str
    find: Callable[[Sequence[str], Sequence[str]], list[Unit]]


def describe_overlap(hypothesis: str, reference: str, score: str = "ROUGE-L") -> str:
    """What `draw_overlap` shows, in words."""
    one, other = split_both(hypothesis, reference)
    units = find_units(one, other, score)
    said = f"{score}: {_found(one, other, score)} in both"
    if units:
        shown = [_join([one[i] for i in places]) for places, _ in units[:6]]
        said += f" ({', '.join(shown)}{', …' if len(units) > 6 else ''})"
    rest = ", ".join(f"{name} {value:.2f}" for name, value in score_all(one, other).items())
    return f"{said}; {_in_numbers(one, other, score)}. All scores: {rest}."


def draw_overlap(hypothesis: str, reference: str, score: str = "ROUGE-L") -> Figure:
    """Left, both sentences and what the score finds in both; right, the value of every score."""
    one, other = split_both(hypothesis, reference)
    figure = new_figure((11.5, 3.8))
    pair, bars = figure.subplots(1, 2, width_ratios=(2.6, 1.0))
    draw_units(pair, one, other, score)
    scores = score_all(one, other)
    names = list(scores)[::-1]
    colours = [BLUE if name == score else PROMPT for name in names]
    bars.barh(names, [scores[name] for name in names], color=colours, edgecolor=INK, linewidth=0.8)
    for row, name in enumerate(names):
        bars.text(scores[name] + 0.02, row, f"{scores[name]:.2f}", va="center", fontsize=11)
    bars.set(xlim=(0, 1.18), xticks=(0, 0.5, 1))
    bars.grid(visible=False)
    title_figure(figure, f"{score} {scores[score]:.2f}: {_found(one, other, score)}")
    return figure


def draw_pair(hypothesis: str, reference: str, score: str) -> Figure:
    """Both sentences and what one score finds in both, without numbers of the others."""
    one, other = split_both(hypothesis, reference)
    figure = new_figure((8.5, 3.0))
    draw_units(figure.subplots(), one, other, score)
    title_figure(figure, f"{score}: {_found(one, other, score)} in both")
    return figure


def draw_four_ways(hypothesis: str, reference: str) -> Figure:
    """One pair of sentences, looked at by four scores."""
    one, other = split_both(hypothesis, reference)
    figure = new_figure((11.5, 5.6))
    titles = {
        "ROUGE-1": "words",
        "ROUGE-2": "neighbours",
        "ROUGE-L": "longest common subsequence",
        "ROUGE-S": "pairs in order, any gap",
    }
    for ax, (score, title) in zip(figure.subplots(2, 2).flat, titles.items(), strict=True):
        draw_units(ax, one, other, score)
        value = score_all(one, other)[score]
        ax.set_title(f"{score} {value:.2f}: {title}", loc="left", fontsize=12)
    title_figure(figure, "The same two sentences, and four things to count in both")
    return figure


def explore_overlap(pairs: Mapping[str, tuple[str, str]]) -> ipywidgets.VBox:
    """Buttons fill two boxes with sentences, which can be changed; other buttons choose the score.

    pairs: hypothesis and reference, by the name on the button.
    """
    if not pairs:
        raise ValueError("no sentences to compare: give {name: (hypothesis, reference)}")
    first = next(iter(pairs.values()))
    chosen = choose("sentences", [(name, name) for name in pairs])
    score = choose("score", [(name, name) for name in KINDS])
    score.value = "ROUGE-L"
    boxes = [
        ipywidgets.Text(
            value=text,
            description=name,
            continuous_update=False,
            style={"description_width": "6em"},
            layout=ipywidgets.Layout(width="42em"),
        )
        for name, text in zip(("hypothesis", "reference"), first, strict=True)
    ]

    def answer() -> Answer:
        texts = [box.value for box in boxes]
        try:
            split_both(*texts)
        except ValueError as error:
            return Answer(str(error), None)
        return Answer(describe_overlap(*texts, score.value), draw_overlap(*texts, score.value))

    view, redraw = frame([chosen, *boxes, score], answer)

    @one_at_a_time
    def fill(_: object) -> None:
        for box, text in zip(boxes, pairs[chosen.value], strict=True):
            box.value = text

    redraw_on(redraw, *boxes, score)
    chosen.observe(fill, names="value")
    return view


def split_both(hypothesis: str, reference: str) -> tuple[list[str], list[str]]:
    """Both texts as words, or as characters where one of them is Chinese.

    Raises ValueError for a text without words, and for one with more than the picture has room for.
    """
    language = "zh" if CHINESE.search(hypothesis + reference) else "en"
    both = []
    for name, text in (("hypothesis", hypothesis), ("reference", reference)):
        words = split_words(text, language=language)
        if not words:
            raise ValueError(f"The {name} is {text!r}, without words: write some.")
        if len(words) > MOST:
            raise ValueError(f"The {name} has {len(words)} words: at most {MOST} can be drawn.")
        both.append(words)
    return both[0], both[1]


def score_all(one: Sequence[str], other: Sequence[str]) -> dict[str, float]:
    """Every score of a hypothesis against one reference, both as words; all from 0 to 1, ROUGE as
    F1, BLEU with "exp" smoothing, METEOR with the fewest chunks."""
    return {
        "ROUGE-1": rouge_n(one, [other], 1).f1,
        "ROUGE-2": rouge_n(one, [other], 2).f1,
        "ROUGE-L": rouge_l(one, [other]).f1,
        "ROUGE-W": rouge_w(one, [other], weight=RUN_WEIGHT).f1,
        "ROUGE-S": rouge_s(one, [other]).f1,
        "BLEU": bleu([one], [[other]], effective_order=True) / 100,  # as of one sentence
        "METEOR": meteor(one, [other]),
        "chrF": chrf([_join(one)], [[_join(other)]]) / 100,
    }


def find_units(one: Sequence[str], other: Sequence[str], score: str) -> list[Unit]:
    """What a score finds in both sentences, as places in each. ValueError for an unknown score."""
    if score not in KINDS:
        raise ValueError(f"score is {score!r}; it must be one of {', '.join(KINDS)}")
    return KINDS[score].find(one, other)


# what is matched


def _match(left: Sequence[Places], right: Sequence[Places], words, others) -> list[Unit]:
    """Equal units in pairs, the first with the first: as many as both sentences have."""
    free: dict[tuple[str, ...], list[Places]] = {}
    for places in right:
        free.setdefault(tuple(others[j] for j in places), []).append(places)
    found = []
    for places in left:
        same = free.get(tuple(words[i] for i in places))
        if same:
            found.append((places, same.pop(0)))
    return found


def _runs_of(words: Sequence, n: int) -> list[Places]:
    return [tuple(range(i, i + n)) for i in range(len(words) - n + 1)]


def _find_ngrams(*sizes: int) -> Callable[[Sequence[str], Sequence[str]], list[Unit]]:
    def find(one: Sequence[str], other: Sequence[str]) -> list[Unit]:
        return [
            unit for n in sizes for unit in _match(_runs_of(one, n), _runs_of(other, n), one, other)
        ]

    return find


def _find_skips(one: Sequence[str], other: Sequence[str]) -> list[Unit]:
    left, right = (list(combinations(range(len(words)), 2)) for words in (one, other))
    return _match(left, right, one, other)


def _find_runs(weight: float) -> Callable[[Sequence[str], Sequence[str]], list[Unit]]:
    """A common subsequence in runs of neighbours, as ROUGE-W finds it word by word: a run is worth
    length ** weight. With weight 1 it is the longest common subsequence."""

    def find(one: Sequence[str], other: Sequence[str]) -> list[Unit]:
        best = [[(0.0, [])] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i, word in enumerate(one):
            for j, there in enumerate(other):
                if word != there:
                    ways = best[i][j + 1], best[i + 1][j]
                    best[i + 1][j + 1] = max(ways, key=lambda way: way[0])
                    continue
                runs = best[i][j][1]
                if runs and runs[-1][0][-1] == i - 1 and runs[-1][1][-1] == j - 1:
                    (left, right), runs = runs[-1], runs[:-1]
                    runs = [*runs, ((*left, i), (*right, j))]
                else:
                    runs = [*runs, ((i,), (j,))]
                worth = sum(len(left) ** weight for left, _ in runs)
                best[i + 1][j + 1] = worth, runs
        return best[-1][-1][1]

    return find


def _find_subsequence(one: Sequence[str], other: Sequence[str]) -> list[Unit]:
    runs = _find_runs(1.0)(one, other)
    return [((i,), (j,)) for left, right in runs for i, j in zip(left, right, strict=True)]


def _find_chunks(one: Sequence[str], other: Sequence[str]) -> list[Unit]:
    chunks: list[list[tuple[int, int]]] = []
    for i, j in align(one, other):
        if chunks and chunks[-1][-1] == (i - 1, j - 1):
            chunks[-1].append((i, j))
        else:
            chunks.append([(i, j)])
    return [tuple(zip(*chunk, strict=True)) for chunk in chunks]


KINDS = {
    "ROUGE-1": Kind("word", _find_ngrams(1)),
    "ROUGE-2": Kind("bigram", _find_ngrams(2)),
    "ROUGE-L": Kind("word in order", _find_subsequence),
    "ROUGE-W": Kind("run of words in order", _find_runs(RUN_WEIGHT)),
    "ROUGE-S": Kind("skip-bigram", _find_skips),
    "BLEU": Kind("n-gram of 1 to 4 words", _find_ngrams(1, 2, 3, 4)),
    "METEOR": Kind("chunk", _find_chunks),
}


# words and numbers


def _join(words: Sequence[str]) -> str:
    return ("" if any(CHINESE.match(word) for word in words) else " ").join(words)


def _found(one: Sequence[str], other: Sequence[str], score: str) -> str:
    """How many units: "3 words in order"."""
    number = len(find_units(one, other, score))
    first, _, rest = KINDS[score].unit.partition(" ")
    return f"{number} {first}{'' if number == 1 else 's'} {rest}".rstrip()


def _in_numbers(one: Sequence[str], other: Sequence[str], score: str) -> str:
    """The parts that the score is made of."""
    if score == "BLEU":
        parts = []
        for n in range(1, 5):
            left, right = _runs_of(one, n), _runs_of(other, n)
            parts.append(f"{len(_match(left, right, one, other))} of {len(left)}")
        return f"of the hypothesis' 1-, 2-, 3- and 4-grams {', '.join(parts)}"
    if score == "METEOR":
        pairs = align(one, other)
        return (
            f"{len(pairs)} of {len(one)} words of the hypothesis are aligned with {len(pairs)} of "
            f"{len(other)} of the reference"
        )
    found = {
        "ROUGE-1": lambda: rouge_n(one, [other], 1),
        "ROUGE-2": lambda: rouge_n(one, [other], 2),
        "ROUGE-L": lambda: rouge_l(one, [other]),
        "ROUGE-W": lambda: rouge_w(one, [other], weight=RUN_WEIGHT),
        "ROUGE-S": lambda: rouge_s(one, [other]),
    }[score]()
    return f"precision {found.precision:.2f}, recall {found.recall:.2f}, F1 {found.f1:.2f}"


# the picture


def draw_units(ax: Axes, one: Sequence[str], other: Sequence[str], score: str) -> None:
    """The hypothesis above, the reference below, and what a score finds in both between them.

    Matched words are orange; what stands in both is blue. Skip-bigrams are arcs outside of the two
    rows, n-grams of BLEU are dots under the middle of their words, a line of dots for each n; all
    else is joined by lines.
    """
    units = find_units(one, other, score)
    at = [_lay_out(words) for words in (one, other)]
    for row, (words, x) in enumerate(zip((one, other), at, strict=True)):
        used = {place for unit in units for place in unit[row]}
        _draw_words(ax, words, x, 1 - row, used)
    if score == "ROUGE-S":
        for row, (words, x) in enumerate(zip((one, other), at, strict=True)):
            _draw_arcs(ax, x, 1 - row, {unit[row] for unit in units}, len(words))
    elif score == "BLEU":
        _draw_ngrams(ax, at[0], {places for places, _ in units})
    else:
        for number, unit in enumerate(units):
            _join_unit(ax, at, unit, number, len(units))
    right = max((x[-1] for x in at if x), default=1.0)
    ax.set(xlim=(-8.2, right + 2.2), ylim=(-0.75, 1.75) if score == "ROUGE-S" else (-0.3, 1.3))
    for row, name in enumerate(("hypothesis", "reference")):
        ax.text(-8.1, 1 - row, name, color=MUTED, fontsize=10, va="center")
    ax.axis("off")


def _lay_out(words: Sequence[str]) -> list[float]:
    """The middle of each word on the x-axis; a unit is about a letter."""
    x, middles = 0.0, []
    for word in words:
        wide = sum(2.0 if CHINESE.match(char) else 1.0 for char in word) + 2.2
        middles.append(x + wide / 2)
        x += wide
    return middles


def _draw_words(
    ax: Axes, words: Sequence[str], x: Sequence[float], y: float, used: set[int]
) -> None:
    size = 13 if sum(map(len, words)) < 45 else 10
    for place, word in enumerate(words):
        ax.text(
            x[place],
            y,
            word,
            ha="center",
            va="center",
            fontsize=size,
            parse_math=False,
            zorder=3,
            bbox={
                "boxstyle": "round,pad=0.25",
                "facecolor": ANSWER if place in used else PROMPT,
                "edgecolor": INK,
                "linewidth": 0.8,
            },
        )


def _join_unit(ax: Axes, at: Sequence[Sequence[float]], unit: Unit, number: int, all_: int) -> None:
    """A line from the middle of the unit above to the middle below; a bar under what has several
    words."""
    ends = []
    step = (number % 4) * 0.055 if len(unit[0]) > 1 and all_ > 1 else 0.0  # overlapping bars
    for row, (places, x) in enumerate(zip(unit, at, strict=True)):
        y = 0.8 - step if row == 0 else 0.2 + step
        left, right = x[places[0]], x[places[-1]]
        if len(places) > 1:
            ax.plot([left - 0.8, right + 0.8], [y, y], color=BLUE, linewidth=3, zorder=2)
        ends.append(((left + right) / 2, y))
    (x0, y0), (x1, y1) = ends
    ax.plot([x0, x1], [y0, y1], color=BLUE, linewidth=1.6, zorder=1)


def _draw_ngrams(ax: Axes, x: Sequence[float], matched: set[Places]) -> None:
    for n in range(1, 5):
        y = 0.86 - 0.17 * n
        ax.text(-8.1, y, f"{n}-grams", color=MUTED, fontsize=10, va="center")
        for places in _runs_of(x, n):
            colour = BLUE if places in matched else "white"
            middle = (x[places[0]] + x[places[-1]]) / 2
            ax.plot(middle, y, marker="o", markersize=8, color=colour, markeredgecolor=INK)


def _draw_arcs(ax: Axes, x: Sequence[float], y: float, matched: set[Places], count: int) -> None:
    up = y > 0.5
    widest = max(x[-1] - x[0], 1.0)
    for places in sorted(combinations(range(count), 2), key=lambda pair: pair in matched):
        left, right = (x[place] for place in places)
        ax.add_patch(
            Arc(
                ((left + right) / 2, y + (0.17 if up else -0.17)),
                right - left,
                0.15 + 0.75 * (right - left) / widest,
                theta1=0 if up else 180,
                theta2=180 if up else 360,
                color=BLUE if places in matched else GRID,
                linewidth=2.0 if places in matched else 1.2,
                zorder=2 if places in matched else 1,
            )
        )
