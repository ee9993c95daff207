"""Station "doctor": what a tokenizer and its chat template make of a data set.

`check_tokenizer` needs no data. `TokenCheck` encodes every row as `sft_lab.train` would, without a
limit of length, and reads off the labels what a limit would cut away.
"""

import re
import sys
import unicodedata
import warnings
from bisect import bisect_left
from collections import Counter
from itertools import zip_longest
from typing import Any

from tokenizers import models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from sft_lab.control import (
    REASONING,
    encode_plainly,
    find_controls,
    find_neutral_texts,
    keep_controls,
)
from sft_lab.doctor.causes import describe
from sft_lab.doctor.refusals import find_opening, lacks_opening, name_refusal
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.findings import Finding, Tally
from sft_lab.labels import encode_and_render, encode_conversation, find_graded_turns
from sft_lab.reasoning import THINK_BLOCK, write_reasoning
from sft_lab.records import Conversation
from sft_lab.rendering import (
    Rendered,
    encode_text,
    explain_lost_turn,
    explain_missing_stop,
    render_conversation,
    render_for_training,
    stop_token_id,
)
from sft_lab.templates import fill, find_template, find_variant, has_tags, training_template

LITTLE = 0.05  # share of graded tokens below which most of the reading teaches nothing
PERCENTILES = (50, 90, 99)
THINK_TAG = re.compile("({}|{})".format(*map(re.escape, REASONING)))


# the tokenizer alone


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """What is wrong with a tokenizer and its chat template, whatever the data.

    Asked with one question and one answer of neutral words. Where `TokenCheck` finds the same code
    in rows, its finding says more.
    """
    if not tokenizer.is_fast:
        return [describe("slow-tokenizer", detail=type(tokenizer).__name__)]
    try:
        template = find_template(tokenizer)
        tagged = training_template(tokenizer)
    except ValueError as error:
        return [describe("no-template", detail=str(error)), *_check_pad(tokenizer)]
    question, answer = find_neutral_texts(tokenizer, template)
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    found = _check_prompt(turns, tokenizer) or _check_probe(turns, tokenizer, tagged)
    if not has_tags(template) and find_variant(template) is None:
        found.append(describe("no-tags"))
    return [*found, *_check_bos(turns, tokenizer), *_check_pad(tokenizer)]


def _check_probe(
    turns: Conversation, tokenizer: PreTrainedTokenizerBase, template: str
) -> list[Finding]:
    """Whether one question and its answer can be taught."""
    answer = turns[1]["content"]
    try:
        text, _ = fill(turns, tokenizer, template)
    except ValueError as error:
        return [describe("template-refuses", detail=str(error))]
    if answer not in text:
        return [
            describe(
                "template-drops",
                detail="it does not write the text of an answer. Templates of vision models expect "
                "a list of parts there",
            )
        ]
    try:
        rendered = render_conversation(turns, tokenizer, template)
        end = rendered.text.rindex(answer) + len(answer)
        controls = {*find_controls(tokenizer, template).ids.values()}
        after = [
            token_id
            for token_id, (_, last) in zip(rendered.ids, rendered.offsets, strict=True)
            if last > end and token_id in controls
        ]
        if not after:
            run = encode_plainly(answer, tokenizer)[0]
            return [describe("stop-missing", detail=explain_missing_stop(run, tokenizer))]
        if lost := explain_lost_turn(
            render_for_training(turns, tokenizer, max_tokens=sys.maxsize), turns, tokenizer
        ):
            return [describe("template-drops", detail=lost)]
        encode_conversation(turns, tokenizer, max_tokens=sys.maxsize)
    except ValueError as error:
        code = _name_problem(turns, tokenizer)
        # DeepSeek R1's prompt opens a think block: there an answer must have one
        thoughtful = [turns[0], turns[1] | {"content": THINK_BLOCK.format(answer, answer)}]
        if code == "prompt-not-prefix" and _can_encode(thoughtful, tokenizer):
            return []
        return [describe(code, detail=_tell_error(code, error, turns, tokenizer))]
    return []


def _can_encode(turns: Conversation, tokenizer: PreTrainedTokenizerBase) -> bool:
    try:
        encode_conversation(turns, tokenizer, max_tokens=sys.maxsize)
    except ValueError:
        return False
    return True


def _name_problem(turns: Conversation, tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        return name_refusal(turns, tokenizer)
    except ValueError:
        return "labels-wrong"


def _tell_error(
    cause: str, error: Exception, turns: Conversation, tokenizer: PreTrainedTokenizerBase
) -> str:
    """What is particular about a row that is refused: the error, but where it points elsewhere."""
    if cause != "no-generation-prompt":  # the error would have the tags moved
        return str(error)
    opening = find_opening(turns, tokenizer, training_template(tokenizer))
    return f"that opening is {opening[:60]!r}" if opening else ""


def _check_prompt(turns: Conversation, tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """Whether add_generation_prompt writes what opens an answer, if anything does."""
    template = find_template(tokenizer)
    try:
        opening = find_opening(turns, tokenizer, template)
        if not opening or not lacks_opening(turns[:1], tokenizer, template):
            return []
    except ValueError:
        return []  # said by the probe
    return [describe("no-generation-prompt", detail=f"that opening is {opening[:60]!r}")]


def _check_bos(turns: Conversation, tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """Two BOS tokens in a row, from the template alone or together with the tokenizer; or none
    where the tokenizer sets one before every other text."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return []
    try:
        text, _ = fill(turns[:1], tokenizer, find_template(tokenizer), add_generation_prompt=True)
    except ValueError:
        return []  # said by the probe
    alone, _ = encode_plainly(text, tokenizer)
    if alone[:2] == [bos, bos]:
        return [describe("double-bos", detail=tokenizer.bos_token)]
    if tokenizer(text, verbose=False)["input_ids"][:2] == [bos, bos]:
        return [describe("bos-twice-by-hand", detail=tokenizer.bos_token)]
    if tokenizer(turns[0]["content"])["input_ids"][:1] == [bos] and alone[:1] != [bos]:
        return [describe("no-bos", detail=tokenizer.bos_token)]
    return []


def _check_pad(tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    if tokenizer.pad_token_id is None:
        return [describe("no-pad")]
    try:
        stop = stop_token_id(tokenizer)
    except ValueError:
        return []  # there is none, which is said elsewhere
    if tokenizer.pad_token_id == stop:
        return [describe("pad-is-stop", detail=tokenizer.pad_token)]
    return []


# the rows


class TokenCheck:
    """What the tokenizer and its template make of every row; a `findings.RowCheck`.

    max_tokens: of a conversation in training. positions, vocabulary: how many tokens of a row, and
    which ids, the model can take; None where no model is known. A tokenizer with which nothing can
    be taught is named by `check_tokenizer`; then rows are only counted.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        *,
        positions: int | None = None,
        vocabulary: int | None = None,
    ) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.positions = positions or sys.maxsize
        self.vocabulary = vocabulary or sys.maxsize
        self.tally, self.details = Tally(), {}
        self.rows, self.graded, self.lengths = 0, 0, Counter()
        self._controls: dict = {}
        self._usable = _can_teach(tokenizer)
        if self._usable:
            self._template = training_template(tokenizer)
            # else no answer can be asked otherwise than it is taught
            self._variant = self._template != find_template(tokenizer)
            self._unknown = frozenset(find_controls(tokenizer).unknown.values())
            self._missing = find_missing_bytes(tokenizer)
            self._stop = stop_token_id(tokenizer)

    def look(self, place: str, conversation: Conversation) -> None:
        """Encode one row and note what is found. A row that cannot be taught is a finding."""
        self.rows += 1
        if self._usable:
            with keep_controls(self._controls):
                self._look(place, conversation)

    def _look(self, place: str, conversation: Conversation) -> None:
        try:
            example, rendered = self._encode(place, conversation)
        except (ValueError, TypeError) as error:  # TypeError: tokenizers, for half a letter
            cause = _name_problem(conversation, self.tokenizer)
            self._note(cause, place, _tell_error(cause, error, conversation, self.tokenizer))
            return
        tokens = len(example.input_ids)
        graded = tokens - example.labels.count(IGNORE_INDEX)
        self.lengths[tokens] += 1
        self.graded += graded
        if graded < LITTLE * tokens:
            self._note("little-graded", place)
        if tokens > self.max_tokens:
            self._look_at_cut(place, example)
        if tokens > self.positions and self.max_tokens > self.positions:
            self._note("too-long", place, f"{tokens:,} tokens")
        if max(example.input_ids) >= self.vocabulary:
            self._note_outside(place, example)
        self._look_at_answers(place, conversation, rendered)
        self._look_at_text(place, conversation, example)

    def _encode(self, place: str, conversation: Conversation) -> tuple[Example, Rendered]:
        """The row at its full length."""
        if not self._variant:
            return encode_and_render(conversation, self.tokenizer, max_tokens=sys.maxsize)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            encoded = encode_and_render(conversation, self.tokenizer, max_tokens=sys.maxsize)
        if any(REASONING_WARNING in str(warning.message) for warning in caught):
            self._note("thoughts-dropped", place)
        return encoded

    def _look_at_cut(self, place: str, example: Example) -> None:
        """What is lost of a row that is cut off behind `max_tokens`, as most libraries do."""
        ids, labels, cut = example.input_ids, example.labels, self.max_tokens
        first = next(t for t, label in enumerate(labels) if label != IGNORE_INDEX)
        end = cut  # of the answer that the cut goes through
        if labels[cut - 1] != IGNORE_INDEX:
            ungraded = (t for t in range(cut, len(labels)) if labels[t] == IGNORE_INDEX)
            end = next(ungraded, len(labels))
        if first >= cut:
            self._note("answer-lost", place)
        elif self._stop in ids[cut:end]:
            self._note("answer-cut", place)
        elif any(label != IGNORE_INDEX for label in labels[end:]):
            self._note("turns-lost", place)

    def _look_at_answers(self, place: str, conversation: Conversation, rendered: Rendered) -> None:
        """What the template does not write of the answers that it is to teach."""
        for cause, detail in find_lost_parts(conversation, self.tokenizer, rendered).items():
            self._note(cause, place, detail)

    def _look_at_text(self, place: str, conversation: Conversation, example: Example) -> None:
        """Unknown tokens, and what decoding changes."""
        if self._unknown and not self._unknown.isdisjoint(example.input_ids):
            self._note("unknown-token", place)
            return
        for turn in conversation:
            if self._may_change(turn["content"]) and (
                changed := find_change(turn["content"], self.tokenizer)
            ):
                self._note("not-reversible", place, changed)
                return

    def _may_change(self, text: str) -> bool:
        """Whether decoding could give another text than this one."""
        if self._missing is None:
            return True
        if not self._missing:
            return False
        letters = unicodedata.normalize("NFC", text).encode(errors="replace")
        return len(letters.translate(None, self._missing)) < len(letters)

    def _note_outside(self, place: str, example: Example) -> None:
        outside = next(t for t in example.input_ids if t >= self.vocabulary)
        token = self.tokenizer.convert_ids_to_tokens(outside)
        self._note(
            "ids-outside-rows",
            place,
            f"{token!r} has the id {outside}, the embedding has {self.vocabulary:,} rows",
        )

    def _note(self, cause: str, place: str, detail: str = "") -> None:
        self.tally.add(cause, place)
        self.details.setdefault(cause, detail)

    def findings(self) -> list[Finding]:
        """One finding for each cause, with the first ten rows."""
        limits = {"max_tokens": f"{self.max_tokens:,}", "positions": f"{self.positions:,}"}
        return [
            describe(
                cause,
                count=count,
                places=self.tally.places[cause],
                detail=self.details.get(cause, ""),
                **limits,
            )
            for cause, count in self.tally.counts.items()
        ]

    def measured(self) -> dict[str, Any]:
        """Rows, tokens, graded tokens and their share, and percentiles of the rows' lengths at full
        length; {} where no row could be encoded."""
        encoded = sum(self.lengths.values())
        if not encoded:
            return {}
        tokens = sum(length * count for length, count in self.lengths.items())
        return {
            "rows encoded": encoded,
            "rows refused": self.rows - encoded,
            "tokens": tokens,
            "graded tokens": self.graded,
            "graded share": round(self.graded / tokens, 4),
            "tokens of a row": {
                **{f"{share} %": find_percentile(self.lengths, share) for share in PERCENTILES},
                "longest": max(self.lengths),
            },
        }

    def state(self) -> dict[str, Any]:
        """What was gathered, as JSON can hold it."""
        return {
            "rows": self.rows,
            "graded": self.graded,
            "lengths": sorted(self.lengths.items()),
            "tally": self.tally.to_dict(),
            "details": self.details,
        }

    def absorb(self, state: dict[str, Any], order: dict[str, int]) -> None:
        """Add what another check gathered. order: the rank of each place in the data."""
        self.rows += state["rows"]
        self.graded += state["graded"]
        self.lengths.update({length: count for length, count in state["lengths"]})
        self.tally.absorb(Tally.of(state["tally"]), order)
        self.details = state["details"] | self.details


REASONING_WARNING = "renders earlier answers otherwise"  # of encode_conversation


def _can_teach(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether there is a template that writes answers, and a token to stop at."""
    if not (tokenizer.is_fast and tokenizer.chat_template):
        return False
    try:
        training_template(tokenizer)
        stop_token_id(tokenizer)
    except ValueError:
        return False
    return True


def find_lost_parts(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, rendered: Rendered
) -> dict[str, str]:
    """By cause, the first part of a graded answer that does not stand where the answer does in
    `rendered`, the whole conversation's text. A part is what stands before, between or behind think
    tags; white space at its ends does not count, since many templates strip it."""
    turns, lost = write_reasoning(conversation, tokenizer), {}
    starts = [len(rendered.text) if start is None else start for start in rendered.starts]
    ends = [*starts[1:], len(rendered.text)]
    graded = find_graded_turns(conversation)
    for turn, start, end in zip(graded, rendered.starts, ends, strict=True):
        if start is None or not graded[turn]:  # the former is of an answer that is only read
            continue
        texts = THINK_TAG.split(turns[turn - 1]["content"])
        for text, tag in zip_longest(map(str.strip, texts[::2]), texts[1::2]):
            place = rendered.text.find(text, start, end)
            if place >= 0:
                start = place + len(text)
                continue
            cause = "thoughts-left-out" if tag == REASONING[1] else "answer-changed"
            lost.setdefault(cause, _tell_lost(turn, text, rendered.text[start:end]))
    return lost


def _tell_lost(turn: int, text: str, written: str) -> str:
    kept = bisect_left(range(len(text)), True, key=lambda last: text[: last + 1] not in written)
    near = slice(max(kept - 12, 0), kept + 24)
    return f"turn {turn} has {text[near]!r}, and the template does not write that there"


def find_percentile(lengths: Counter[int], share: int) -> int:
    """The smallest length that at least `share` percent of the rows do not exceed."""
    needed, seen = share / 100 * sum(lengths.values()), 0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= needed:
            return length
    return max(lengths)


def find_missing_bytes(tokenizer: PreTrainedTokenizerBase) -> bytes | None:
    """The bytes that a tokenizer of bytes has no piece for, and would leave out: decoding gives
    every text without them again, but for Unicode's composition (NFC). None for any other
    tokenizer, of which nothing is known beforehand."""
    backend = tokenizer.backend_tokenizer
    steps = backend.pre_tokenizer
    found = list(steps) if isinstance(steps, pre_tokenizers.Sequence) else [steps]
    plain = backend.normalizer is None or isinstance(backend.normalizer, normalizers.NFC)
    of_bytes = any(isinstance(step, pre_tokenizers.ByteLevel) for step in found)
    if not (plain and of_bytes and isinstance(backend.model, models.BPE)):
        return None
    vocabulary = tokenizer.get_vocab()
    return bytes(byte for byte, letter in bytes_to_unicode().items() if letter not in vocabulary)


def find_change(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """What decoding the ids of a text changes, in words; "" where nothing but blanks at its ends or
    the composition of letters (NFC) does, or where a token is unknown."""
    ids = encode_text(text, tokenizer)
    if not set(find_controls(tokenizer).unknown.values()).isdisjoint(ids):
        return ""
    decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    before = unicodedata.normalize("NFC", text).strip()
    after = unicodedata.normalize("NFC", decoded).strip()
    if before == after:
        return ""
    place = next(
        (k for k, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    near = slice(max(place - 12, 0), place + 24)
    return f"{before[near]!r} becomes {after[near]!r}"
