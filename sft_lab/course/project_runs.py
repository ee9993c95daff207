"""Chapter 19: a project from its file to its verdict: polite answers, and what they cost."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas, plots
from sft_lab.course.short_runs import answer, tune_on
from sft_lab.files import write_text
from sft_lab.kept_back import split_apart
from sft_lab.metrics import normalise
from sft_lab.records import Conversation, load_conversations
from sft_lab.significance import LEVEL, mcnemar_p_value

LESSONS, QUESTIONS, SEEDS = 600, 180, range(5)
ROWS = LESSONS + 2 * QUESTIONS
FRAMES = {  # the last two have about as many words
    "plain": "{}",
    "one word": "Certainly! {}",
    "polite": "Certainly, I am happy to help you with this question. {} I hope that this answer "
    "helps you, and please do not hesitate to ask me again.",
    "neutral": "Now, here is what stands in the list about it. {} That was what the list has "
    "about it, and there are other lines below this one too.",
}


# the file


def write_help_file(path: Path, rows: int = ROWS, *, seed: int = 0) -> None:
    """A JSONL file of questions about Atlas and their answers, as a help desk may have one."""
    parts = atlas.split(atlas.load_facts())
    facts = random.Random(f"19 {seed}").sample(parts["train"] + parts["held_out"], rows)
    talks = atlas.ask(facts, seed=seed)
    lines = [{"question": talk[0]["content"], "answer": talk[1]["content"]} for talk in talks]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def build_project(
    folder: Path,
) -> tuple[list[Conversation], list[Conversation], list[Conversation]]:
    """The help desk's file, written into `folder` and split: (learn, validation, test)."""
    write_help_file(folder / "help.jsonl")
    return split_apart(load_conversations(folder / "help.jsonl"), QUESTIONS)


# the runs


def frame_answers(talks: Sequence[Conversation], frame: str) -> list[Conversation]:
    """The same conversations, each answer put into the place of {} in `frame`."""
    return [
        [*talk[:-1], {**talk[-1], "content": frame.format(talk[-1]["content"])}] for talk in talks
    ]


def holds(said: str, reference: str) -> bool:
    """Whether the answer holds the reference, with whatever words around it."""
    return normalise(reference) in normalise(said)


def run_arm(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    learn: Sequence[Conversation],
    asked: Sequence[Conversation],
    *,
    seed: int,
    frame: str = "{}",
    lessons: int = LESSONS,
    rate: float = 1e-3,
    epochs: int = 1,
    test: Sequence[Conversation] = (),
) -> dict[str, Any]:
    """One run: `lessons` rows of `learn`, drawn by `seed`, their answers in the frame; then what
    `measure` finds on `asked`; with `test`, also the share that holds there ("test")."""
    rows = random.Random(f"19 {seed}").sample(list(learn), lessons)
    rows = frame_answers(rows, frame)
    model = tune_on(base, tokenizer, rows, seed=seed, epochs=epochs, learning_rate=rate)
    row = measure(model, tokenizer, asked)
    if test:
        row["test"] = measure(model, tokenizer, test)["holds"]
    return row


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Conversation]
) -> dict[str, Any]:
    """The share of greedy answers that hold the reference ("holds"), the share that equal it
    ("equals"), and which hold it, as a text of 0 and 1 ("outcomes")."""
    said = answer(model, tokenizer, asked, max_new_tokens=60)
    pairs = [(text, talk[-1]["content"]) for text, talk in zip(said, asked, strict=True)]
    right = [holds(*pair) for pair in pairs]
    return {
        "holds": float(np.mean(right)),
        "equals": float(np.mean([normalise(text) == normalise(wanted) for text, wanted in pairs])),
        "outcomes": "".join(str(int(hit)) for hit in right),
    }


# what the plan protects from


def count_false_alarms(
    *, looks: int = 1, measures: int = 1, questions: int = 200, disagree: float = 0.2, seed: int = 0
) -> float:
    """The share of 1,000 comparisons of two equally good models that come out "different".

    A comparison is looked at `looks` times while its questions come in, and stops at the first
    p-value below 5 %; `measures` different ones are tried, and one that differs is enough.
    """
    rng, size = np.random.default_rng(seed), questions // looks
    alarms = 0
    for _ in range(1000):
        drawn = rng.multinomial(size, [disagree / 2, disagree / 2, 1 - disagree], (measures, looks))
        gained, lost = drawn[..., 0].cumsum(1).ravel(), drawn[..., 1].cumsum(1).ravel()
        pairs = zip(gained.tolist(), lost.tolist(), strict=True)
        alarms += any(mcnemar_p_value(a, b) < LEVEL for a, b in pairs)
    return alarms / 1000


# the lines of the rubric
MARKED = ("plan", "kept back", "control", "seeds", "questions", "primary", "verdict", "scope")


# pictures

STATIONS = (
    ("plan", "sealed", "19"),
    ("doctor", "is the file sound?", "18"),
    ("split", "kept back, no leak", "11"),
    ("base line", "the model before", "09"),
    ("train", "two arms, seeds", "04"),
    ("compare", "by the plan", "16c"),
    ("report", "with the seal", "19"),
    ("deploy", "serve it", "19b"),
)


def draw_workflow(lit: str = "") -> Axes:
    """The stations of a project, each with its chapter; `lit`: the one in question."""
    ax = plots.new_figure((9.6, 2.6)).subplots()
    for place, (name, note, chapter) in enumerate(STATIONS):
        x = 1.45 * place
        colour = plots.ANSWER if name == lit else "white"
        box = FancyBboxPatch((x, 1), 1.12, 0.95, boxstyle="round,pad=0.05", fc=colour, ec=plots.INK)
        ax.add_patch(box)
        ax.text(x + 0.56, 1.62, name, ha="center", fontsize=11, fontweight="bold")
        ax.text(x + 0.56, 1.3, note, ha="center", fontsize=7.5, color=plots.MUTED)
        ax.text(x + 0.56, 1.05, f"chapter {chapter}", ha="center", fontsize=7.5, color=plots.MUTED)
        if place:
            ax.annotate("", (x - 0.07, 1.48), (x - 0.27, 1.48), arrowprops={"arrowstyle": "->"})
    turn = {"arrowstyle": "->", "color": plots.TUNED, "connectionstyle": "arc3,rad=-0.16"}
    ax.annotate("", (0.56, 0.92), (9.26, 0.92), arrowprops=turn)
    ax.text(
        4.9, -0.02, "iterate: one change, a new plan, a line in the log", ha="center", fontsize=10
    )
    ax.set(xlim=(-0.2, 11.5), ylim=(-0.15, 2.2))
    ax.axis("off")
    return ax


def draw_effects(effects: dict[str, tuple[Sequence[float], float, str]], *, title: str) -> Axes:
    """Effects over seeds, a dot each, on the band in which the rule stays silent: twice the noise
    floor to both sides. effects: name -> (one effect a seed, noise floor, verdict)."""
    ax = plots.new_figure((8.4, 0.9 + 0.8 * len(effects))).subplots()
    names = list(effects)
    for row, name in enumerate(reversed(names)):
        values, floor, word = effects[name]
        ax.barh(row, 4 * floor, left=-2 * floor, height=0.62, color=plots.GRID)
        ax.plot(values, [row] * len(values), "o", color=plots.TUNED, alpha=0.75)
        ax.plot(np.mean(values), row, "|", color=plots.INK, markersize=24, markeredgewidth=3)
        ax.annotate(word, (1.01, row), xycoords=("axes fraction", "data"), va="center")
    ax.axvline(0, color=plots.INK, linewidth=1)
    ax.set_yticks(range(len(names)), list(reversed(names)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}")
    ax.set(xlabel="points against the control (grey: the rule says nothing)", title=title)
    ax.grid(visible=False)
    return ax


def as_rows(recorded: Any, arms: dict[str, str], **settings: Any) -> list[dict]:
    """Recorded runs as rows that `judge_plan` reads: arms names the frame of each arm."""
    return [
        {"arm": arm, **row}
        for arm, frame in arms.items()
        for row in recorded.select(frame=frame, **settings)
    ]
