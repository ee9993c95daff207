"""Chapter 18c: the clinic, a case file at a time; the chain of stations, the table of probes."""

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase

from sft_lab.course.results import Results
from sft_lab.course.views.widgets import Answer, choose, frame, one_at_a_time, redraw_on
from sft_lab.course.zoo import Batch
from sft_lab.course.zoo_bugs import BUGS, DECOYS, Bug
from sft_lab.course.zoo_files import (
    CLINIC,
    judge_diagnosis,
    list_causes,
    open_file,
    say,
)
from sft_lab.course.zoo_table import (
    BATTERY,
    CURVE,
    HEALTHY,
    PROBES,
    bands,
    is_outside,
    share_outside,
)
from sft_lab.examples import IGNORE_INDEX
from sft_lab.plots import (
    ANSWER,
    BLUE,
    INK,
    MUTED,
    PADDING,
    PROMPT,
    VERMILLION,
    new_figure,
    show_token,
    title_figure,
    token_strip,
)

TABS = ("log", "curve", "outputs", "first batch", "probes")
CHAIN = (  # stations that stand together, by the name on their box
    ("template", ("write_turn", "prompt")),
    ("encode", ("encode",)),
    ("collate", ("collate", "pack")),
    ("loss", ("loss",)),
    ("step", ("gradient", "adapt", "trained")),
    ("evaluate", ("evaluate",)),
    ("resume", ("resume",)),
    ("load", ("load", "merge")),
    ("generate", ("generate",)),
)
NOT_CHOSEN = "which cause?"


def draw_chain(bugs: Sequence[Bug]) -> Axes:
    """The stations of a run from left to right, and how many bugs sit in each."""
    counts = Counter(bug.station for bug in bugs)
    ax = new_figure((11.0, 2.3)).subplots()
    for place, (name, stations) in enumerate(CHAIN):
        here = sum(counts[station] for station in stations)
        box = {"boxstyle": "round,pad=0.5", "facecolor": PROMPT, "edgecolor": INK}
        ax.text(place, 0, name, ha="center", va="center", fontsize=11, bbox=box)
        ax.text(place, -0.75, f"{here} bug{'s' * (here != 1)}", ha="center", color=VERMILLION)
        if place:
            arrow = {"arrowstyle": "-|>", "color": INK}
            ax.annotate("", (place - 0.39, 0), (place - 0.61, 0), arrowprops=arrow)
    ax.set(xlim=(-0.6, len(CHAIN) - 0.4), ylim=(-1.0, 0.7))
    ax.set_title("The chain of a run, and where people's bugs sat")
    ax.axis("off")
    return ax


def draw_curves(
    results: Results, runs: Mapping[str, Sequence[float]], *, ax: Axes | None = None
) -> Axes:
    """Losses of runs, step by step, over the band of the healthy ones."""
    rows = [row for row in results.rows if row["case"] in HEALTHY]
    healthy = np.array([[float(x) for x in row["log loss"].split()] for row in rows])
    share = np.linspace(0, 1, healthy.shape[1])
    ax = new_figure((7.5, 3.6)).subplots() if ax is None else ax
    ax.fill_between(
        share, healthy.min(0), healthy.max(0), color=PROMPT, label=f"{len(rows)} healthy runs"
    )
    for (name, losses), colour in zip(runs.items(), (VERMILLION, BLUE, ANSWER), strict=False):
        ax.plot(np.linspace(0, 1, len(losses)), losses, color=colour, label=name, linewidth=2)
    ax.set(xlabel="share of the run", ylabel="training loss\n(nats per graded token)")
    ax.set_ylim(bottom=-0.1)
    ax.legend(loc="upper right")
    ax.set_title("The loss beside that of healthy runs")
    return ax


def draw_first_batch(
    batch: Batch, tokenizer: PreTrainedTokenizerBase, *, title: str, rows: int = 2
) -> Axes:
    """The first rows of a batch as boxes, coloured by whether they are graded."""
    ids, labels = batch["input_ids"][:rows].tolist(), batch["labels"][:rows].tolist()
    marks = ["".join("-+"[label != IGNORE_INDEX] for label in row) for row in labels]
    return _draw_rows(list(zip(ids, marks, strict=True)), tokenizer, title)


def _draw_rows(
    rows: Sequence[tuple[list[int], str]], tokenizer: PreTrainedTokenizerBase, title: str
) -> Axes:
    tokens, colours = [], []
    for ids, marks in rows:
        size = len(ids)
        # the padding behind a row is cut to three tokens
        while size > 1 and ids[size - 1] == ids[size - 2] and marks[size - 1] == marks[size - 2]:
            size -= 1
        size = min(len(ids), size + 2)
        tokens += [show_token(tokenizer.decode([token])) for token in ids[:size]]
        colours += [ANSWER if mark == "+" else PROMPT for mark in marks[:size]]
        if size < len(ids) and marks[size - 1] == "-":
            colours[-2:] = [PADDING] * 2
    return token_strip(tokens, colours=colours, title=f"{title} (orange: graded)", width=10.5)


def draw_table(results: Results) -> Figure:
    """Bugs down the side, probes along the top; dark where a probe sees a bug in all its seeds."""
    columns = ["loss curves", *BATTERY]
    names = [*(bug.name for bug in BUGS), *(decoy.name for decoy in DECOYS)]
    cells = np.array(
        [
            [
                share_outside(results, name, CURVE),
                *(share_outside(results, name, [p]) for p in BATTERY),
            ]
            for name in names
        ]
    )
    figure = new_figure((11.0, 11.5))
    ax = figure.subplots()
    ax.imshow(np.floor(cells), cmap=ListedColormap(["white", BLUE]), aspect="auto", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(cells):
        if 0 < share < 1:
            ax.text(column, row, "·", ha="center", va="center", color=MUTED, fontsize=18)
    ax.set_xticks(range(len(columns)), columns, rotation=60, ha="left", rotation_mode="anchor")
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(names)), names)
    ax.set_xticks(np.arange(len(columns)) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(names)) + 0.5, minor=True)
    ax.grid(visible=False)
    ax.grid(which="minor", color="#dddddd", linewidth=0.8)
    ax.tick_params(which="both", length=0)
    ax.axhline(len(BUGS) - 0.5, color=INK, linewidth=1.5)
    first = 1
    for when, text in (
        ("before", "before the run"),
        ("step 0", "step 0"),
        ("after", "after the run"),
    ):
        size = sum(probe.when == when for probe in PROBES)
        ax.axvline(first - 0.5, color=INK, linewidth=1.5)
        ax.text(first + size / 2 - 0.5, len(names) + 0.1, text, ha="center", va="center")
        first += size
    ax.set_xlabel("a dot: in some seeds only", labelpad=24, color=MUTED)
    title_figure(figure, "Which probe sees which bug")
    return figure


# the view


def describe_case(results: Results, letter: str, tab: str) -> str:
    """What a tab of a case shows, in words."""
    file = open_file(results, CLINIC[letter], letter)
    if tab == "log":
        first, last = say(_finite(file.losses[0])), say(_finite(file.losses[-1]))
        evals = ", ".join(say(_finite(x)) for x in file.evals)
        return (
            f"Case {letter}: {len(file.losses)} steps, training loss from {first} to {last}; "
            f"evaluations {evals}."
        )
    if tab == "curve":
        return f"Case {letter}: its training loss over the band of the healthy runs."
    if tab == "outputs":
        return f"Case {letter}: {len(file.outputs)} questions and what the served model wrote."
    if tab == "first batch":
        graded = sum(marks.count("+") for _, marks in file.batch)
        return f"Case {letter}: the first rows of the first batch; {graded} tokens are graded."
    allowed = bands(results)
    count = sum(is_outside(file.row[name], allowed[name]) for name in BATTERY)
    return f"Case {letter}: {count} of {len(BATTERY)} probes lie outside of the healthy band."


def show_case(
    results: Results, tokenizer: PreTrainedTokenizerBase, letter: str, tab: str
) -> Answer:
    """A tab of a case file: words, and a picture or a table."""
    file = open_file(results, CLINIC[letter], letter)
    words = describe_case(results, letter, tab)
    if tab == "curve":
        ax = draw_curves(results, {f"case {letter}": file.losses})
        return Answer(words, ax.figure)
    if tab == "first batch":
        ax = _draw_rows(file.batch[:2], tokenizer, f"Case {letter}")
        return Answer(words, ax.figure)
    if tab == "log":
        every = max(1, len(file.losses) // 10)
        lines = [file.at(step) for step in range(1, len(file.losses) + 1, every)]
        rows = [
            [f"{line['step']}", *(f"{line[k]:.3g}" for k in ("loss", "lr", "grad"))]
            for line in lines
        ]
        return Answer(words, None, below=_table(("step", "loss", "rate", "gradient"), rows))
    if tab == "outputs":
        return Answer(words, None, below=_table(("question", "written"), file.outputs))
    allowed = bands(results)
    rows, bold = [], []
    for probe in PROBES:
        low, high = allowed[probe.name]
        span = f"{_edge(low)} to {_edge(high)}"
        rows.append([probe.name, say(file.row[probe.name]), span, probe.what])
        bold.append(is_outside(file.row[probe.name], allowed[probe.name]))
    return Answer(
        words, None, below=_table(("probe", "value", "healthy", "what it is"), rows, bold)
    )


def draw_clinic(results: Results, letter: str) -> Figure:
    """A case file as a picture: the curve, and its first outputs."""
    file = open_file(results, CLINIC[letter], letter)
    figure = new_figure((11.0, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.1))
    draw_curves(results, {f"case {letter}": file.losses}, ax=left)
    left.set_title("")
    right.axis("off")
    for line, (question, written) in enumerate(file.outputs[:6]):
        text = f"{_cut(question, 46)}\n   → {_cut(show_token(written), 46)}"
        right.text(0, 1 - line / 6, text, va="top", fontsize=10, parse_math=False)
    title_figure(figure, f"The clinic, case {letter}: its curve and what it writes")
    return figure


def explore_clinic(results: Results, tokenizer: PreTrainedTokenizerBase) -> ipywidgets.VBox:
    """A slider for the case, buttons for the tab and the cause; says whether the cause is right, or
    which probe contradicts it, and counts."""
    letters = ipywidgets.SelectionSlider(
        options=[*CLINIC], description="case", style={"description_width": "3em"}
    )
    tabs = choose("file", [(tab, tab) for tab in TABS], description_width="3em")
    causes = choose("", [(name, name) for name in (NOT_CHOSEN, *list_causes())])
    solved: set[str] = set()
    tries: set[tuple[str, str]] = set()

    def answer() -> Answer:
        shown = show_case(results, tokenizer, letters.value, tabs.value)
        verdict = ""
        if causes.value != NOT_CHOSEN:
            tries.add((letters.value, causes.value))
            right, verdict = judge_diagnosis(results, CLINIC[letters.value], causes.value)
            if right:
                solved.add(letters.value)
            verdict = f" {causes.value}? {verdict}"
        count = f" {len(solved)} of {len(CLINIC)} named, in {len(tries)} tries."
        return shown._replace(sentence=shown.sentence + verdict + count)

    view, redraw = frame([letters, tabs, causes], answer)

    @one_at_a_time
    def another(_: object = None) -> None:
        causes.value = NOT_CHOSEN  # a new case begins without a diagnosis

    letters.observe(another, names="value")
    redraw_on(redraw, letters, tabs, causes)
    return view


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[bool] | None = None
) -> str:
    """An HTML table; rows with an alarm are bold."""
    cells = "".join(f'<th style="text-align: left">{html.escape(text)}</th>' for text in head)
    lines = [f"<tr>{cells}</tr>"]
    for place, row in enumerate(rows):
        weight = "bold" if bold and bold[place] else "normal"
        style = f"text-align: left; white-space: pre-wrap; font-weight: {weight}"
        inside = "".join(f'<td style="{style}">{html.escape(text)}</td>' for text in row)
        lines.append(f"<tr>{inside}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _edge(value: float) -> str:
    return say(round(value, 6))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]} …"
