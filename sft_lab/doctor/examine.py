"""Station "doctor": the whole examination, data first, then what only a model's tokenizer shows.

Nothing here imports torch before a model is asked for: a file alone is examined in a second.
"""

import os
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_lab.arguments import SettingError, whole_number
from sft_lab.doctor.causes import drop_repeats
from sft_lab.doctor.checks import ExaminationError, find_model, load_tokenizer, make_checks
from sft_lab.doctor.rows import check_bad_rows, check_overlap, check_rows
from sft_lab.doctor.shares import SHARED_FROM, look_at_all
from sft_lab.findings import Diagnosis, Finding, RowCheck
from sft_lab.records import (
    EMPTY,
    ReadConversation,
    RecordError,
    RowProblem,
    list_unread,
    name_source,
    read_rows,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def diagnose(
    data: Any,
    *,
    model: str | Path | None = None,
    adapter: str | Path | None = None,
    test: Any = None,
    max_tokens: int = 1024,
    card: str | None = None,
    columns: dict[str, str] | None = None,
    progress: bool = False,
) -> Diagnosis:
    """Examine `data` as `load_conversations` reads it; with a model also what its tokenizer and its
    template make of every row.

    data, test, columns: as for `load_conversations`; a row that it would refuse is a finding, and
    the others are examined all the same. model: a name, hub id or folder, as `sft_lab.models.load`
    takes it; a folder may hold the tokenizer alone. adapter: a folder that PEFT reads. test: the
    questions of an exam, to be looked for in `data`. max_tokens: of a conversation in training.
    card: a name of `sft_lab.cards`. Raises ExaminationError where nothing can be examined.
    """
    began = time.perf_counter()
    _check_arguments(model, adapter, card, max_tokens)
    conversations, findings = _read(data, columns)
    asked: list[ReadConversation] = []
    if test is not None:
        asked, problems = _read(test, columns)
        findings += [found for found in problems if found.code == "bad-row"]
    setup: dict[str, Any] = {"source": None, "max_tokens": max_tokens}
    tokenizer = None
    if model is not None:
        setup |= find_model(str(model))
        tokenizer = load_tokenizer(setup)
        findings += _check_model(str(model), adapter, tokenizer)
    found, checks = _look(conversations, asked, setup, tokenizer, progress)
    findings += found
    measured = _measure(conversations)
    for check in checks:
        findings += check.findings()
        measured |= check.measured()
    if card is not None:
        from sft_lab.doctor.saved import check_memory

        findings += check_memory(str(model), checks[-1].lengths, card)
    given = {"model": model, "adapter": adapter, "card": card}
    settings = {"data": name_source(data)}
    settings |= {name: value if value is None else str(value) for name, value in given.items()}
    settings |= {"test": None if test is None else name_source(test), "max_tokens": max_tokens}
    return Diagnosis(drop_repeats(findings), measured, settings, time.perf_counter() - began)


def _look(
    conversations: list[ReadConversation],
    asked: list[ReadConversation],
    setup: dict[str, Any],
    tokenizer: "PreTrainedTokenizerBase | None",
    progress: bool,
) -> tuple[list[Finding], list[RowCheck]]:
    """Look at every row, alone and beside the others and the exam; the checks know the former."""
    shared = tokenizer is not None and len(conversations) >= SHARED_FROM
    shared = shared and (os.cpu_count() or 1) > 1
    make = partial(make_checks, setup, tokenizer)
    looking = look_at_all(conversations, make, setup, progress=progress, shared=shared)
    try:
        next(looking)  # a second process starts, and meanwhile rows are compared here
        findings = check_rows(conversations, _counter(tokenizer))
        findings += check_overlap(conversations, asked)
        return findings, next(looking)
    finally:
        looking.close()


def _check_arguments(model: Any, adapter: Any, card: str | None, max_tokens: int) -> None:
    """ExaminationError for what cannot be asked."""
    if model is None and (adapter is not None or card is not None):
        what = "adapter" if adapter is not None else "card"
        raise ExaminationError(f"{what} is given without a model: name its base model as well")
    if adapter is not None and not Path(adapter).expanduser().is_dir():
        raise ExaminationError(f"{adapter}: no such folder, seen from {Path.cwd()}")
    try:
        whole_number("max_tokens", max_tokens, least=2)
        if card is not None:
            from sft_lab.cards import card_gib

            card_gib(card)
    except (SettingError, ValueError) as error:
        raise ExaminationError(str(error)) from error


def _read(
    source: Any, columns: dict[str, str] | None
) -> tuple[list[ReadConversation], list[Finding]]:
    """The good rows, and what is wrong with the others."""
    name = name_source(source)
    if isinstance(source, str | Path) and not Path(source).is_file():
        kind = "is a folder, and only a file is read" if Path(source).is_dir() else "no such file"
        raise ExaminationError(f"{name}: {kind}, seen from {Path.cwd()}")
    conversations, problems, unread, seen = [], [], Counter(), Counter()
    try:
        for read in read_rows(source, columns=columns):
            unread.update(read.unread)
            if isinstance(read, RowProblem):
                problems.append(read)
            else:
                conversations.append(read.conversation)
                seen.update(read.columns)
    except RecordError as error:  # of the source as a whole, or of `columns`
        raise ExaminationError(str(error)) from error
    if not problems and not conversations:
        what, _, advice = EMPTY.partition(". ")
        problems.append(RowProblem(name, what, advice, None, []))
    findings = check_bad_rows(problems, seen)
    missing = sorted({*(columns or {}).values()} - seen.keys())
    if conversations and missing:
        raise ExaminationError(f"{name}: columns names {missing}, which no row has. Mend the name.")
    if unread:
        findings.append(_tell_unread(unread, len(conversations) + len(problems)))
    return conversations, findings


def _tell_unread(unread: Counter, total: int) -> Finding:
    return Finding(
        "unread-column",
        "note",
        f"Some columns hold text that is {list_unread(unread, total)}",
        [],
        0,
        "What stands there is neither asked nor learned.",
        "Nothing, if that is meant. Else map the column: --columns input=its_name.",
    )


def _counter(tokenizer: "PreTrainedTokenizerBase | None") -> Any:
    """How many tokens a text has, where there is a tokenizer."""
    if tokenizer is None:
        return None
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _measure(conversations: list[ReadConversation]) -> dict[str, Any]:
    """How much there is, in rows, turns and characters."""
    lengths = [len(turns[-1]["content"]) for turns in conversations]
    if not lengths:
        return {"rows": 0}
    median, long = np.percentile(lengths, [50, 90], method="nearest").tolist()
    return {
        "rows": len(conversations),
        "rows with a system turn": sum(turns[0]["role"] == "system" for turns in conversations),
        "rows of several rounds": sum(
            sum(turn["role"] == "user" for turn in turns) > 1 for turns in conversations
        ),
        "answer characters": {"50 %": median, "90 %": long, "longest": max(lengths)},
    }


def _check_model(
    model: str, adapter: str | Path | None, tokenizer: "PreTrainedTokenizerBase"
) -> list[Finding]:
    """What is wrong with the tokenizer, the model's files and the adapter's, whatever the data."""
    from sft_lab.doctor.saved import check_adapter, check_model
    from sft_lab.doctor.tokens import check_tokenizer

    findings = [*check_tokenizer(tokenizer), *check_model(model, tokenizer)]
    if adapter is not None:
        findings += check_adapter(adapter, model, tokenizer)
    return findings
