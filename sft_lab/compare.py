"""Last station: the same questions to the model before and after tuning, and what can be concluded
from the answers.

    comparison = compare((base, tokenizer), (tuned, tokenizer), questions)
    print(comparison.table())
    comparison.to_html("reports/demo.html")

An answer is right when it equals the reference after `normalise`; containing the reference is not
enough, since a model that rambles for a hundred tokens contains many things.
"""

import html
import os
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import generate_ids, stop_token_id
from sft_lab.formats import format_percent
from sft_lab.records import Conversation
from sft_lab.report import render_report

Pair = tuple[PreTrainedModel, PreTrainedTokenizerBase]
Interval = tuple[float, float]
Names = tuple[str, str]
NAMES: Names = ("base", "tuned")
RESAMPLES = 2000
CHANGES = ("improved", "lost", "both_wrong", "both_right")


def compare(
    base: Pair,
    tuned: Pair,
    questions: Sequence[Any],
    *,
    seed: int = 0,
    max_new_tokens: int = 64,
    names: Names = NAMES,
) -> "Comparison":
    """Ask both models every question, greedily and in batches, and grade the answers.

    base, tuned: (model, tokenizer), as `load` returns them. questions: conversations that end with
    the reference answer; or (question, answer) pairs; or rows {"question", "answer", optional
    "group"}, where the question is a text or a conversation and the group gets a line of its own in
    the results. seed: of the bootstrap; decoding has none. Raises TypeError for anything but a
    pair, ValueError for no questions or bad ones, naming each by its place.
    """
    for name, pair in zip(NAMES, (base, tuned), strict=True):
        if (
            not isinstance(pair, (tuple, list))
            or len(pair) != 2
            or not callable(getattr(pair[0], "generate", None))
        ):
            raise TypeError(
                f"{name} must be (model, tokenizer), as load() returns it, not {pair!r:.80}"
            )
    if (
        base[0] is tuned[0] and base[1].chat_template == tuned[1].chat_template
    ):  # asked in two ways is fine
        warnings.warn(
            "base and tuned are one model: training changed it in place? load the base again",
            stacklevel=2,
        )
    asked = read_questions(questions)
    replies = (_answer(pair, asked, max_new_tokens) for pair in (base, tuned))
    rows = [
        Row(_as_text(prompt), answer, group, *both)
        for (prompt, answer, group), *both in zip(asked, *replies, strict=True)
    ]
    return Comparison(rows, seed=seed, max_new_tokens=max_new_tokens, names=tuple(names))


def normalise(text: str) -> str:
    """What is compared: Unicode NFC, runs of white space as one space, and no punctuation at the
    end.

    Letters keep their case: "Au" is gold's symbol and "AU" is not.
    """
    return " ".join(unicodedata.normalize("NFC", text).split()).rstrip(" .!?…。！？")


def read_questions(questions: Sequence[Any]) -> list[tuple[str | Conversation, str, str]]:
    """(prompt, reference answer, group or "") of each question in the forms `compare` takes; all
    bad ones are named."""
    read, problems = [], []
    for place, question in enumerate(questions):
        group, prompt, answer = "", None, None
        if isinstance(question, dict):
            prompt, answer, group = (
                question.get("question"),
                question.get("answer"),
                question.get("group") or "",
            )
        elif (
            isinstance(question, (list, tuple))
            and question
            and all(isinstance(turn, dict) for turn in question)
        ):
            if question[-1].get("role") == "assistant":
                prompt, answer = list(question[:-1]), question[-1].get("content")
        elif isinstance(question, (list, tuple)) and len(question) == 2:
            prompt, answer = question
        if (
            not prompt
            or not isinstance(prompt, (str, list))
            or not isinstance(answer, str)
            or not normalise(answer)
        ):
            problems.append(f"questions[{place}] has no question or no answer: {question!r:.120}")
        read.append((prompt, answer, str(group)))
    if problems or not read:
        listed = "\n".join(problems[:10]) + (
            f"\n… and {len(problems) - 10} more" if len(problems) > 10 else ""
        )
        forms = (
            "a conversation that ends with the reference answer, (question, answer), or "
            '{"question", "answer"}'
        )
        raise ValueError(f"{listed or 'no questions'}\nEach question is {forms}.")
    return read


def paired_bootstrap(
    base_right: Sequence[bool],
    tuned_right: Sequence[bool],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Interval, Interval, Interval]:
    """95 % intervals of the base's accuracy, the tuned model's, and tuned minus base, as fractions.

    Paired: a resample draws questions, each with both answers, so what makes a question hard
    cancels in the difference. How many questions of each of the four kinds (right or wrong, before
    and after) it drew is one multinomial draw: no (resamples, n) table of indices. (Efron and
    Tibshirani 1993, percentile; derived in chapter 09) If all n outcomes are equal the interval has
    no width, too sure: the rule of three puts the other outcome's chance below 3/n.
    """
    before, after = np.asarray(base_right, dtype=bool), np.asarray(tuned_right, dtype=bool)
    if before.ndim != 1 or before.shape != after.shape or not before.size:
        raise ValueError(
            f"one outcome a question and model is needed, got shapes {before.shape} and "
            f"{after.shape}"
        )
    kinds = np.bincount(
        2 * before + after, minlength=4
    )  # wrong-wrong, wrong-right, right-wrong, right-right
    drawn = (
        np.random.default_rng(seed).multinomial(before.size, kinds / before.size, size=resamples)
        / before.size
    )
    sides = drawn @ np.array(
        [[0, 0, 0], [0, 1, 1], [1, 0, -1], [1, 1, 0]]
    )  # (resamples, 3): base, tuned, difference
    low, high = np.percentile(sides, [2.5, 97.5], axis=0)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


@dataclass(frozen=True)
class Reply:
    """One model's answer. tokens: generated, with the stop token; stopped: the stop token ended it,
    not the limit."""

    text: str
    tokens: int
    stopped: bool
    right: bool


@dataclass(frozen=True)
class Row:
    """One question with its reference answer, group ("" for none), and both replies."""

    question: str
    reference: str
    group: str
    base: Reply
    tuned: Reply

    @property
    def change(self) -> str:
        """A key of CHANGES: improved, lost, both_wrong or both_right."""
        if self.base.right == self.tuned.right:
            return "both_right" if self.tuned.right else "both_wrong"
        return "improved" if self.tuned.right else "lost"


@dataclass(frozen=True, repr=False)
class Comparison:
    """Both models' answers to n questions; see `compare`."""

    rows: list[Row]
    seed: int
    max_new_tokens: int
    names: Names = NAMES

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON: accuracies and rates are fractions, intervals [low, high],
        lengths in tokens."""
        right = [(row.base.right, row.tuned.right) for row in self.rows]
        intervals = paired_bootstrap(*zip(*right, strict=True), seed=self.seed)
        sides = {}
        for name, interval in zip(("base", "tuned"), intervals, strict=False):
            replies = [getattr(row, name) for row in self.rows]
            sides[name] = {
                "accuracy": float(np.mean([reply.right for reply in replies])),
                "accuracy_interval": list(interval),
                "stop_rate": float(np.mean([reply.stopped for reply in replies])),
                "mean_tokens": float(np.mean([reply.tokens for reply in replies])),
            }
        groups = {}
        for group in sorted({row.group for row in self.rows} - {""}):
            members = [row for row in self.rows if row.group == group]
            accuracies = {
                name: float(np.mean([getattr(row, name).right for row in members]))
                for name in sides
            }
            groups[group] = {"questions": len(members)} | accuracies
        difference = sides["tuned"]["accuracy"] - sides["base"]["accuracy"]
        return {
            "questions": len(self.rows),
            "names": list(self.names),
            **sides,
            "difference": {"accuracy": difference, "interval": list(intervals[2])},
            "changes": {
                change: sum(row.change == change for row in self.rows) for change in CHANGES
            },
            "groups": groups,
            "seed": self.seed,
            "resamples": RESAMPLES,
            "max_new_tokens": self.max_new_tokens,
            "answers": [asdict(row) | {"change": row.change} for row in self.rows],
        }

    def finding(self) -> str:
        """The result in one sentence. It claims a difference only when chance alone (a fair coin
        for every answer that changed: McNemar's exact test) gives one as large in less than 5 % of
        cases; few questions fool a bootstrap."""
        result = self.to_dict()
        base, tuned = (format_percent(result[side]["accuracy"]) for side in NAMES)
        gained, lost, (one, other) = (
            result["changes"]["improved"],
            result["changes"]["lost"],
            self.names,
        )
        # 20 times the p-value's numerator against its denominator, 2^n: whole numbers, for 2^n may
        # exceed any float
        if 2 * sum(comb(gained + lost, k) for k in range(min(gained, lost) + 1)) * 20 >= 2 ** (
            gained + lost
        ):
            return (
                f"Right answers: {one} {base}, {other} {tuned}; {len(self.rows)} questions "
                "cannot tell them apart"
            )
        if self.names == NAMES:
            return (
                f"Tuning {'raised' if gained > lost else 'lowered'} right answers from "
                f"{base} to {tuned}"
            )
        return (
            f"{other} gives {'more' if gained > lost else 'fewer'} right answers than {one}: "
            f"{tuned} against {base}"
        )

    def table(self) -> str:
        """The results as plain text."""
        cells = self._cells()
        first, *others = (max(len(line[column]) for line in cells) for column in range(4))
        form = f"{{:{first}}}" + "".join(f"  {{:>{width}}}" for width in others)
        return "\n".join([*(form.format(*line).rstrip() for line in cells), "", self._footnote()])

    def to_html(self, path: str | Path) -> Path:
        """Write a page that needs no network and no script: the finding, a figure, every answer
        side by side."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(
            path.name + ".new"
        )  # renamed when whole, so that a kill leaves no half page
        new.write_text(
            render_report(self.to_dict(), self.finding(), self._footnote()), encoding="utf-8"
        )
        os.replace(new, path)
        return path

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        numbers, _, footnote = html.escape(self.table()).rpartition("\n\n")
        return f"<pre>{numbers}</pre><p>{footnote}</p>"

    def _cells(self) -> list[tuple[str, str, str, str]]:
        result = self.to_dict()
        base, tuned, difference = result["base"], result["tuned"], result["difference"]
        accuracies = [format_percent(side["accuracy"]) for side in (base, tuned)]
        spans = [
            "{} to {}".format(*map(format_percent, side["accuracy_interval"]))
            for side in (base, tuned)
        ]
        gains = "{:+.1f} to {:+.1f}".format(*(100 * x for x in difference["interval"]))
        cells = [("", *self.names, "difference"), ("  95 % interval", *spans, gains)]
        cells.insert(
            1, ("right answers", *accuracies, f"{100 * difference['accuracy']:+.1f} points")
        )
        for group, part in result["groups"].items():
            label, gain = (
                f"  {group} ({part['questions']})",
                f"{100 * (part['tuned'] - part['base']):+.1f}",
            )
            cells.append((label, format_percent(part["base"]), format_percent(part["tuned"]), gain))
        cells.append(
            (
                "stopped by itself",
                format_percent(base["stop_rate"]),
                format_percent(tuned["stop_rate"]),
                "",
            )
        )
        cells.append(
            ("tokens an answer", f"{base['mean_tokens']:.1f}", f"{tuned['mean_tokens']:.1f}", "")
        )
        return cells

    def _footnote(self) -> str:
        result, questions = self.to_dict(), len(self.rows)
        note = (
            f"{questions} questions, greedy decoding, at most {self.max_new_tokens} tokens. "
            "Right: the reference, up to white space and final punctuation. Paired bootstrap, "
            f"{RESAMPLES:,} resamples, seed {self.seed}."
        )
        if {0.0, 1.0} & {result["base"]["accuracy"], result["tuned"]["accuracy"]}:
            rare = format_percent(min(1, 3 / questions))
            note += f" Exceptions rarer than {rare} could go unseen (rule of three)."
        return note


def _answer(
    pair: Pair, asked: list[tuple[str | Conversation, str, str]], max_new_tokens: int
) -> list[Reply]:
    model, tokenizer = pair
    stop, replies = stop_token_id(tokenizer), []
    rows = generate_ids(
        model, tokenizer, [prompt for prompt, _, _ in asked], max_new_tokens=max_new_tokens
    )
    for ids, (_, reference, _) in zip(rows, asked, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        right = normalise(text) == normalise(reference)
        replies.append(Reply(text, len(ids), stopped=bool(ids) and ids[-1] == stop, right=right))
    return replies


def _as_text(prompt: str | Conversation) -> str:
    """A prompt to read: the question itself, or the turns with their roles when there are
    several."""
    if isinstance(prompt, str):
        return prompt
    return (
        prompt[0]["content"]
        if len(prompt) == 1
        else "\n".join(f"{t['role']}: {t['content']}" for t in prompt)
    )
