"""Station "doctor": the whole examination, data first, then what only a model's tokenizer shows.

Nothing here imports torch before a model is asked for: a file alone is examined in a second.
"""

import time
from pathlib import Path
from typing import Any

from sft_lab.findings import Diagnosis


class ExaminationError(ValueError):
    """What could not be examined at all: no such file, no such model. One line."""


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
    findings, measured = [], {}
    settings = {"data": str(data), "max_tokens": max_tokens}
    return Diagnosis(findings, measured, settings, time.perf_counter() - began)
