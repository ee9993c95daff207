"""Last station: the same questions to the model before and after tuning, and what can be concluded
from the answers.

    comparison = compare((base, tokenizer), (tuned, tokenizer), questions)
    print(comparison.table())
    comparison.to_html("reports/demo.html")

`sft_lab.metrics` says what is right, `sft_lab.significance` how sure the numbers are.
"""

import html
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.abstention import is_declined
from sft_lab.arguments import SettingError, check_seed
from sft_lab.chat import (
    check_lengths,
    continue_ids,
    decode_response,
    encode_prompts,
    stop_token_id,
)
from sft_lab.files import write_text
from sft_lab.formats import format_number_of, format_percent
from sft_lab.measures import MEASURES, Scores, check_measures, score_answers
from sft_lab.metrics import is_right, normalise
from sft_lab.records import Conversation, RecordError
from sft_lab.rendering import encode_text
from sft_lab.report import render_report
from sft_lab.row_files import BadRow, show
from sft_lab.row_keys import (
    carries_text,
    check_row_keys,
    is_absent,
    is_read,
    plain,
    read_weight,
    refuse_keys,
    says_nothing,
)
from sft_lab.row_shapes import OPTIONAL
from sft_lab.significance import LEVEL, RESAMPLES, Interval, mcnemar_p_value, paired_bootstrap
from sft_lab.templates import check_turns, find_template

Pair = tuple[PreTrainedModel, PreTrainedTokenizerBase]
Names = tuple[str, str]
NAMES: Names = ("base", "tuned")
FORMS = (
    "A question is a conversation that ends with the reference answer, (question, answer), or "
    '{"question", "answer"}.'
)
CHANGES = ("improved", "lost", "both_wrong", "both_right")


def compare(
    base: Pair,
    tuned: Pair,
    questions: Sequence[Any],
    *,
    seed: int = 0,
    max_new_tokens: int = 64,
    names: Names = NAMES,
    measures: Sequence[str] = (),
    language: str = "en",
) -> "Comparison":
    """Ask both models every question, greedily and in batches, and grade the answers.

    base, tuned: (model, tokenizer), as `load` returns them. questions: conversations that end with
    the reference answer; or (question, answer) pairs; or rows {"question", "answer", optional
    "group"}, where the question is a text or a conversation and the group gets a line of its own in
    the results. seed: of the bootstrap; decoding has none. measures: names of
    `sft_lab.measures.MEASURES` to report besides right answers, such as ("rouge_l", "bleu");
    language: "en", or "zh" where each Chinese character is a word to them.

    A reference of more than max_new_tokens can never be reached: how many are is said in a warning
    and with the results. Answers that decline ("I do not know") are told from invented ones, and
    shown where there are any. What a row says beside its question is refused (an input, context,
    pictures, tools, label False) or named by one warning, since the models do not see it. Raises,
    before the first question is asked, TypeError for anything but a pair; RecordError for no
    questions or bad ones, naming each by its place; ValueError for a setting that means nothing,
    and when neither model can reach any reference.
    """
    pairs, questions = _check_pairs(base, tuned), [*questions]
    seed, names, asked = check_seed(seed), tuple(names), read_questions(questions)
    if len(names) != 2:
        raise SettingError(f"names is {names!r:.80}; it must be two, as {NAMES}")
    prompts = [prompt for prompt, _, _ in asked]
    places = [_place(question, index) for index, question in enumerate(questions)]
    answers = {place: answer for place, (_, answer, _) in zip(places, asked, strict=True)}
    check_measures(measures, answers, language)
    # all is encoded before one answers: a question that is too long is found out now
    encoded = [_encode_questions(prompts, places, tokenizer) for _, tokenizer in pairs]
    for (model, _), ids in zip(pairs, encoded, strict=True):
        max_new_tokens = check_lengths(model, ids, max_new_tokens)
    too_long = _count_too_long(asked, pairs, max_new_tokens)
    replies = [
        _answer(pair, ids, asked, max_new_tokens) for pair, ids in zip(pairs, encoded, strict=True)
    ]
    rows = [
        Row(_as_text(prompt), answer, group, *both)
        for (prompt, answer, group), *both in zip(asked, *replies, strict=True)
    ]
    return Comparison(rows, seed, max_new_tokens, names, too_long, tuple(measures), language)


def _check_pairs(base: Pair, tuned: Pair) -> tuple[Pair, Pair]:
    """Both, if each is a model with its tokenizer; warns when they are one."""
    for name, pair in zip(NAMES, (base, tuned), strict=True):
        if (
            not isinstance(pair, (tuple, list))
            or len(pair) != 2
            or not callable(getattr(pair[0], "generate", None))
        ):
            raise TypeError(
                f"{name} must be (model, tokenizer), as load() returns it, not {pair!r:.80}"
            )
    # One model asked through two templates is a comparison too; through one it is a mistake.
    if base[0] is tuned[0] and base[1].chat_template == tuned[1].chat_template:
        warnings.warn(
            "base and tuned are one model: training changed it in place? load the base again",
            stacklevel=3,
        )
    return base, tuned


def _count_too_long(
    asked: list[tuple[str | Conversation, str, str]], pairs: tuple[Pair, Pair], max_new_tokens: int
) -> int:
    """How many references are longer than max_new_tokens in the tokens of one of the models, so
    that it cannot answer rightly; says so. SettingError when neither can answer any rightly."""
    lengths = [
        [len(encode_text(normalise(answer), tokenizer)) for _, tokenizer in pairs]
        for _, answer, _ in asked
    ]
    longest = [max(both) for both in lengths]
    too_long = sum(length > max_new_tokens for length in longest)
    if too_long:
        message = (
            f"max_new_tokens is {max_new_tokens}, but {too_long} of {len(asked)} references are "
            f"longer, so no answer to them can be right: questions[{longest.index(max(longest))}] "
            f"has the longest, {max(longest)} tokens. Give max_new_tokens={max(longest) + 1}"
        )
        if all(min(both) > max_new_tokens for both in lengths):
            raise SettingError(message)
        warnings.warn(message, stacklevel=3)
    return too_long


def read_questions(questions: Sequence[Any]) -> list[tuple[str | Conversation, str, str]]:
    """(prompt, reference answer, group or "") of each question in the forms `compare` takes.

    Raises RecordError naming all bad ones; one warning names what else rows say and is not asked.
    """
    read, problems, unread = [], [], Counter()
    for index, question in enumerate(questions):
        try:
            read.append(_read_question(question, unread))
        except BadRow as bad:
            what, advice = bad.args
            problems.append(f"{_place(question, index)}: {what}. {advice}")
    if not problems and not read:
        problems.append(f"no questions. {FORMS}")
    if problems:
        raise RecordError(problems)
    if unread:
        listed = ", ".join(f"{key} in {count}" for key, count in unread.most_common())
        warnings.warn(
            f"not asked, though it may belong to the question: {listed} of {len(read)} questions. "
            "What the models are to see must stand in the question",
            stacklevel=3,
        )
    return read


def _place(question: Any, index: int) -> str:
    """What an error calls a question: the row of its file where that is known."""
    return getattr(question, "place", f"questions[{index}]")


def _read_question(question: Any, unread: Counter) -> tuple[str | Conversation, str, str]:
    """(prompt, answer, group) of one question, or BadRow. Adds to `unread` what a row says beside
    them."""
    group = ""
    if isinstance(question, dict):
        row = plain(question)
        others = {name: row[name] for name in row if name not in ("question", "answer", "group")}
        _check_others(others, unread)
        if missing := [name for name in ("question", "answer") if is_absent(row.get(name))]:
            raise BadRow(f"no {' and no '.join(missing)}, only {list(others)!s:.200}", FORMS)
        prompt, answer, group = row["question"], row["answer"], str(row.get("group") or "")
    elif isinstance(question, list | tuple) and question and all(map(_is_turn, question)):
        *prompt, last = question
        if last.get("role") != "assistant":
            raise BadRow(f"the last turn, {show(last)}, is no answer", "Add the reference answer.")
        if read_weight(last, "the last answer") is False:
            raise BadRow(
                "the last answer has weight 0: it is no reference", "End with the right one."
            )
        refuse_keys(last, "the last answer")
        answer = last.get("content")
    elif isinstance(question, list | tuple) and len(question) == 2:
        prompt, answer = question
    else:
        raise BadRow(f"{show(question)} is no question with its answer", FORMS)
    _check_pair(prompt, answer)
    return prompt, answer, group


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict)


def _check_others(others: dict, unread: Counter) -> None:
    """Raises BadRow for what a row says beside its question and cannot be honoured."""
    check_row_keys(others, chosen=True)  # a worse answer is only named
    belongs = [name for name in others if str(name).casefold() in OPTIONAL]
    if lost := [name for name in belongs if not is_absent(others[name])]:
        raise BadRow(f"the row has {lost} beside its question", "Join them to it.")
    unread.update(
        repr(name)
        for name, value in others.items()
        if not is_read(name, value, reasoning=()) and not says_nothing(value)
        if carries_text(value) or isinstance(value, list | dict)
    )


def _check_pair(prompt: Any, answer: Any) -> None:
    """Raises BadRow for a question that cannot be asked, or an answer that cannot be graded."""
    if not isinstance(prompt, str | list):
        raise BadRow(f"the question is {show(prompt)}, not a text", FORMS)
    if is_absent(prompt):
        raise BadRow("the question is empty", FORMS)
    if not isinstance(answer, str):
        raise BadRow(f"the answer is {show(answer)}, not a text", "Write it as text.")
    if not normalise(answer):
        raise BadRow(
            f"the answer, {show(answer)}, is empty up to white space and final punctuation",
            "Any reply as empty would be right; write an answer.",
        )
    for number, turn in enumerate(prompt if isinstance(prompt, list) else [], start=1):
        if isinstance(turn, dict):
            refuse_keys(turn, f"turn {number}")


def _encode_questions(
    prompts: list[str | Conversation], places: list[str], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """The ids with which each question is asked; RecordError naming those that cannot be."""
    find_template(tokenizer)  # a missing template is no question's fault
    encoded, problems = [], []
    for prompt, place in zip(prompts, places, strict=True):
        try:
            if not isinstance(prompt, str):
                check_turns(prompt)
            encoded += encode_prompts(tokenizer, [prompt])
        except ValueError as error:
            problems.append(f"{place}: {error}")
    if problems:
        raise RecordError(problems)
    return encoded


@dataclass(frozen=True)
class Reply:
    """One model's answer. tokens: generated, with the stop token; stopped: the stop token ended it,
    not the limit.

    An answer is right, or declined, or invented, or (an empty one) none of these. Where the
    reference itself declines, an answer that equals it is right.
    """

    text: str
    tokens: int
    stopped: bool
    right: bool

    @property
    def declined(self) -> bool:
        """It says that it does not know, by `sft_lab.abstention.is_declined`, and should have
        known."""
        return not self.right and is_declined(self.text)

    @property
    def invented(self) -> bool:
        """It claims something, and that is wrong."""
        return not self.right and bool(self.text.strip()) and not self.declined

    @property
    def answered(self) -> bool:
        """It claims something: it is right or invented."""
        return self.right or self.invented


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
    too_long: int = 0  # references of more than max_new_tokens, for one of the two at least
    measures: tuple[str, ...] = ()  # names of MEASURES
    language: str = "en"  # what a word is to the measures

    @cached_property
    def intervals(self) -> tuple[Interval, Interval, Interval]:
        """95 % intervals of both accuracies and of their difference, drawn once for all outputs."""
        right = [(row.base.right, row.tuned.right) for row in self.rows]
        return paired_bootstrap(*zip(*right, strict=True), seed=self.seed)

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Each of the measures, of both models."""
        base, tuned = ([getattr(row, side).text for row in self.rows] for side in NAMES)
        references = [row.reference for row in self.rows]
        return {
            name: score_answers(
                name, base, tuned, references, language=self.language, seed=self.seed
            )
            for name in self.measures
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON: accuracies, rates and shares are fractions, intervals [low,
        high], lengths in tokens. answered is right + invented; see `Reply`. measures is there when
        there are any; corpus: a score of all answers together, no mean over the questions."""
        of_base, of_tuned, of_difference = self.intervals
        sides = {}
        for name, interval in (("base", of_base), ("tuned", of_tuned)):
            replies = [getattr(row, name) for row in self.rows]
            sides[name] = {
                "accuracy": float(np.mean([reply.right for reply in replies])),
                "accuracy_interval": list(interval),
                "stop_rate": float(np.mean([reply.stopped for reply in replies])),
                "mean_tokens": float(np.mean([reply.tokens for reply in replies])),
                **{
                    name: float(np.mean([getattr(reply, name) for reply in replies]))
                    for name in ("answered", "invented", "declined")
                },
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
            "difference": {"accuracy": difference, "interval": list(of_difference)},
            "changes": {
                change: sum(row.change == change for row in self.rows) for change in CHANGES
            },
            "groups": groups,
            **({"measures": self._measured()} if self.measures else {}),
            "seed": self.seed,
            "resamples": RESAMPLES,
            "max_new_tokens": self.max_new_tokens,
            "references_too_long": self.too_long,
            "answers": [_as_dict(row) for row in self.rows],
        }

    def _measured(self) -> dict[str, Any]:
        return {
            name: {
                "label": MEASURES[name].label,
                "corpus": MEASURES[name].corpus,
                **{side: getattr(found, side) for side in NAMES},
                "difference": found.tuned - found.base,
                "intervals": {
                    "base": list(found.base_interval),
                    "tuned": list(found.tuned_interval),
                    "difference": list(found.difference_interval),
                },
            }
            for name, found in self.scores.items()
        }

    def finding(self) -> str:
        """The result in one sentence. It claims a difference only when chance alone gives one as
        large in less than 5 % of cases, by McNemar's exact test: few questions fool a bootstrap."""
        result = self.to_dict()
        base, tuned = (format_percent(result[side]["accuracy"]) for side in NAMES)
        gained, lost = result["changes"]["improved"], result["changes"]["lost"]
        one, other = self.names
        if mcnemar_p_value(gained, lost) >= LEVEL:
            return (
                f"Right answers: {one} {base}, {other} {tuned}; "
                f"{format_number_of(len(self.rows), 'question')} cannot tell them apart"
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
        write_text(path, render_report(self.to_dict(), self.finding(), self._footnote()))
        return Path(path)

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
        gain = "{:+.1f} to {:+.1f}".format(*(100 * x for x in difference["interval"]))
        cells = [
            ("", *self.names, "difference"),
            ("right answers", *accuracies, f"{100 * difference['accuracy']:+.1f} points"),
            ("  95 % interval", *spans, gain),
        ]
        for group, part in result["groups"].items():
            both = (format_percent(part[side]) for side in NAMES)
            gain = f"{100 * (part['tuned'] - part['base']):+.1f}"
            cells.append((f"  {group} ({part['questions']})", *both, gain))
        if base["declined"] or tuned["declined"]:
            for name in ("answered", "invented", "declined"):
                shares = (format_percent(side[name]) for side in (base, tuned))
                cells.append((name, *shares, f"{100 * (tuned[name] - base[name]):+.1f} points"))
        for found in result.get("measures", {}).values():
            both = (f"{100 * found[side]:.1f}" for side in NAMES)
            cells.append((found["label"], *both, f"{100 * found['difference']:+.1f}"))
            *spans, gain = (
                [f"{100 * end:{sign}.1f}" for end in found["intervals"][side]]
                for side, sign in (("base", ""), ("tuned", ""), ("difference", "+"))
            )
            cells.append(("  95 % interval", *(" to ".join(ends) for ends in (*spans, gain))))
        stops = (format_percent(side["stop_rate"]) for side in (base, tuned))
        lengths = (f"{side['mean_tokens']:.1f}" for side in (base, tuned))
        cells.append(("stopped by itself", *stops, ""))
        cells.append(("tokens an answer", *lengths, ""))
        return cells

    def _footnote(self) -> str:
        result, questions = self.to_dict(), len(self.rows)
        note = (
            f"{format_number_of(questions, 'question')}, greedy decoding, at most "
            f"{format_number_of(self.max_new_tokens, 'token')}. "
            "Right: the reference, up to white space and final punctuation. Paired bootstrap, "
            f"{RESAMPLES:,} resamples, seed {self.seed}."
        )
        if result["base"]["declined"] or result["tuned"]["declined"]:
            note += " Declined: says that it does not know. Invented: claims what is not right."
        if self.measures:
            note += self._explain_measures()
        if self.too_long:
            note += (
                f" References longer than {self.max_new_tokens} tokens: {self.too_long}; no such "
                "answer could be right."
            )
        if {0.0, 1.0} & {result["base"]["accuracy"], result["tuned"]["accuracy"]}:
            rare = format_percent(min(1, 3 / questions))
            note += f" Exceptions rarer than {rare} could go unseen (rule of three)."
        return note

    def _explain_measures(self) -> str:
        """What the numbers of the measures are, for the footnote."""
        labels = {kind: [] for kind in (False, True)}
        for name in self.measures:
            labels[MEASURES[name].corpus].append(MEASURES[name].label)
        means, corpus = (", ".join(labels[kind]) for kind in (False, True))
        note = " Measures run from 0 to 100."
        if means:
            note += f" Mean over the questions: {means}."
        if corpus:
            note += f" Of all answers together, questions resampled: {corpus}."
        if self.language == "zh":
            note += " Each Chinese character is a word."
        return note


def _answer(
    pair: Pair,
    prompts: list[list[int]],
    asked: list[tuple[str | Conversation, str, str]],
    max_new_tokens: int,
) -> list[Reply]:
    model, tokenizer = pair
    stop, replies = stop_token_id(tokenizer), []
    answers = continue_ids(model, tokenizer, prompts, max_new_tokens=max_new_tokens)
    for ids, (_, reference, _) in zip(answers, asked, strict=True):
        text = decode_response(ids, tokenizer)
        stopped = bool(ids) and ids[-1] == stop
        replies.append(Reply(text, len(ids), stopped=stopped, right=is_right(text, reference)))
    return replies


def _as_dict(row: Row) -> dict[str, Any]:
    """A question with both replies and what they are, ready for JSON."""
    found = asdict(row) | {"change": row.change}
    for side in NAMES:
        found[side]["declined"] = getattr(row, side).declined
    return found


def _as_text(prompt: str | Conversation) -> str:
    """A prompt to read: the question itself, or the turns with their roles when there are
    several."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
