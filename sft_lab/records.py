"""First station: Alpaca rows, pairs or messages become conversations, and every bad row is named by
file and row.

A row that is wrong and read all the same is trained on all the same, and the loss will not show it.
So nothing is guessed, dropped or repaired here: one call reports all the bad rows of a file, each
with its likely cause.
"""

import csv
import difflib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# [{"role": "system" | "user" | "assistant", "content": text}, ...]
Conversation = list[dict[str, str]]
# a turn as it is read, before it is checked: role, text (of any type), what an error calls it
Turn = tuple[str, Any, str]
# row number, line, row or what is wrong with it; no number for the file as a whole, no line where
# the problem names its own
NumberedRow = tuple[int | None, int | None, Any]

# Shapes of a row: a question and an answer, or all turns in one list. Of shapes that fit equally
# badly the first gives the advice, so the commonest stand first.
PAIRS = (
    ("instruction", "output"),
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
)
SHAPES = (*PAIRS, ("messages",), ("conversations",))
KNOWN_SHAPES = ", ".join(" + ".join(shape) for shape in SHAPES)
OPTIONAL = ("input", "history", "system")
FIELDS = (*dict.fromkeys(field for shape in SHAPES for field in shape), *OPTIONAL)
ROLES = {  # theirs: ours; "human" and "gpt" are ShareGPT's
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
FOLLOWERS = {  # the roles that may come after a role; None stands for the beginning
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
}
PRINTED_PROBLEMS = 20


def load_conversations(
    source: str | Path | Iterable, *, columns: dict[str, str] | None = None
) -> list[Conversation]:
    """One conversation a row: an optional system turn, then user and assistant by turns, the
    assistant last.

    source: path to a .json (list of rows), .jsonl or .csv file in UTF-8, a list of rows, or a
    datasets.Dataset. columns: our field names to the file's, {"instruction": "q", "output": "a"};
    also settles which shape is meant. Each row is judged by its own columns; columns outside its
    shape are ignored. The shapes:
    - Alpaca: instruction, output; optional input, and history ([[question, answer], ...]). As in
      LLaMA-Factory the user turn is instruction + "\\n" + input, or the instruction alone where the
      input is absent or blank.
    - pairs: prompt + response, question + answer, prompt + completion (texts, or lists of messages
      as in TRL).
    - messages: [{"role", "content"}, ...], or ShareGPT's conversations: [{"from": "human" | "gpt",
      "value"}, ...].
    - with any of them: optional system. Lists may stand as JSON text, the only way a CSV cell can
    hold one. Texts are never changed. A blank or None optional field is absent: CSV and Arrow fill
    columns so.
    Raises RecordError naming every bad row, or why the file cannot be read. Rows and turns count
    from 1 (the header of a CSV is no row), lines count header and blank lines too, byte offsets
    begin at 0.
    """
    columns = dict(columns or {})
    if unknown := [field for field in columns if field not in FIELDS]:
        raise RecordError(
            [f"columns: {unknown} not known. It maps our names, {list(FIELDS)}, to the file's."]
        )
    if isinstance(source, str | Path):
        name, rows = str(source), _read_file(Path(source))
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        name = "rows" if isinstance(source, list) else type(source).__name__
        rows = ((number, None, row) for number, row in enumerate(source, start=1))
    else:
        raise RecordError(
            [
                f"source: {_show(source)} is not a path, a list of rows or a dataset. Choose one "
                'split of a DatasetDict (data["train"]); put a single row into a list.'
            ]
        )
    conversations, problems = [], []
    # every row is read although one was bad: who mends a file wants all that is wrong with it
    for row_number, line, row in rows:
        try:
            conversations.append(_read_row(row, columns))
        except _Bad as bad:
            what, advice = bad.args
            where = f"{name}, row {row_number}" if row_number else name
            what += f" (line {line})" if line else ""
            problems.append(f"{where}: {what}. {advice}")
    if problems or not conversations:
        raise RecordError(
            problems or [f"{name}: empty, no row to read. Did the step that wrote it finish?"]
        )
    return conversations


def _read_file(path: Path) -> Iterator[NumberedRow]:
    """The rows of a file. A problem is yielded like a row, so that those before it still count."""
    readers = {".json": _json_rows, ".jsonl": _jsonl_rows, ".csv": _csv_rows}
    try:
        if not path.is_file():
            raise _Bad(
                f"no such file, seen from {Path.cwd()}", "Check the path; a folder is not read."
            )
        if path.suffix.lower() not in readers:
            raise _Bad(
                f"file type {path.suffix!r} is not one of {list(readers)}",
                "Read it with datasets, pass rows.",
            )
        yield from readers[path.suffix.lower()](_decode(path.read_bytes()))
    except _Bad as bad:
        yield None, None, bad


def _decode(data: bytes) -> str:
    """Text of bytes that should be UTF-8; else what they look like. Nothing is decoded on a
    guess."""
    try:
        at, guess = 0, "UTF-16"
        if b"\0" not in data[:4]:  # half the bytes of ASCII in UTF-16 are zero
            return data.decode("utf-8").removeprefix("\ufeff")  # a byte-order mark is no text
    except UnicodeDecodeError as error:
        at, guess = error.start, "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "GBK"
    # the line with the bad byte, as the guess reads it: a reader sees at once if it is right
    sample = data[data.rfind(b"\n", 0, at) + 1 :][:80].decode(guess, errors="replace")[:40]
    where = f"line {data.count(10, 0, at) + 1}, byte offset {at}"  # 10 is the line feed
    raise _Bad(
        f"not UTF-8: byte 0x{data[at]:02X} at {where}",
        f"Likely {guess}, as which it reads {sample!r}. If so: "
        f"iconv -f {guess} -t UTF-8 OLD > NEW. If not, try WINDOWS-1252.",
    )


def _parse_json(text: str, line: int = 1) -> Any:
    """The value of a JSON text that begins on `line` of its file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {line + error.lineno - 1}, column {error.colno}"
        near = text[max(error.pos - 20, 0) :][:40]
        raise _Bad(
            f"broken JSON at {where}: {error.msg}, near {near!r}",
            'Usually a bare ", \\ or line break in text '
            '(write \\", \\\\, \\n), single quotes, a comma too many, or two objects on one line.',
        ) from None


def _json_rows(text: str) -> Iterator[NumberedRow]:
    rows = _parse_json(text) if text.strip() else []
    if not isinstance(rows, list):
        raise _Bad(
            f"the file holds {_show(rows)}, not a list of rows",
            "Put the rows into [ ]. One object a line is "
            ".jsonl; LLaMA-Factory's dataset_info.json only names data files: pass one of those.",
        )
    yield from ((number, None, row) for number, row in enumerate(rows, start=1))


def _jsonl_rows(text: str) -> Iterator[NumberedRow]:
    row_number = 0
    # str.splitlines would also cut at U+2028 inside a text
    for line, row in enumerate(text.split("\n"), start=1):
        if row.strip():
            row_number += 1
            try:
                yield row_number, line, _parse_json(row, line)
            except _Bad as bad:
                yield row_number, None, bad


def _csv_rows(text: str) -> Iterator[NumberedRow]:
    # strict: without it a stray quote silently swallows the rows after it
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    advice = (
        "A text with a comma, line break or quote stands in double quotes, its own quotes "
        'doubled: "say ""yes""".'
    )
    header, row_number, line = [], 0, 1
    try:
        for cells in reader:
            if header and cells:  # a blank line has no cells
                row_number += 1
                if len(cells) == len(header):
                    row = dict(zip(header, cells, strict=True))
                else:
                    what = f"{len(cells)} cells, but the header has {len(header)} columns"
                    row = _Bad(what, advice)
                yield row_number, line, row
            header = header or cells
            line = reader.line_num + 1  # a row of several lines is named by its first
    except csv.Error as error:  # where the next row begins can no longer be told
        yield row_number + 1, line, _Bad(f"broken CSV: {error}", advice)


def _read_row(row: Any, columns: dict[str, str]) -> Conversation:
    """The conversation of one row, or _Bad."""
    if isinstance(row, _Bad):
        raise row
    if not isinstance(row, Mapping):
        raise _Bad(
            f"the row is {_show(row)}, not an object",
            "A row is {column: value}; a list of rows is .json.",
        )
    # our field -> the row's column; a column that `columns` gives to another field is no field by
    # its own name
    names = {
        field: columns.get(field, field)
        for field in FIELDS
        if field in columns or field not in columns.values()
    }
    fields = {field: row[name] for field, name in names.items() if name in row}
    shape = _find_shape(row, fields, columns)
    given = {f for f in OPTIONAL if fields.get(f) is not None and str(fields[f]).strip()}
    turns: list[Turn] = []
    if "system" in given:
        turns.append(("system", fields["system"], repr(names["system"])))
    if len(shape) == 2 and "history" in given:
        turns += _read_history(fields["history"], names["history"])
    for field, role in zip(shape, ("user", "assistant"), strict=False):
        text, name = fields[field], repr(names[field])
        # one list of all turns, or TRL's prompt and completion, each a list of turns
        if len(shape) == 1 or "completion" in shape and isinstance(text, list):
            turns += _read_messages(_read_list(text, name), name)
            continue
        if field == "instruction" and "input" in given:
            instruction = _check_text(text, name)
            text = instruction + "\n" + _check_text(fields["input"], repr(names["input"]))
        turns.append((role, text, name))
    return _check_turns(turns)


def _read_history(history: Any, column: str) -> list[Turn]:
    """The earlier rounds of an Alpaca row, [[question, answer], ...], as LLaMA-Factory has them."""
    turns = []
    for number, pair in enumerate(_read_list(history, repr(column)), start=1):
        name = f"pair {number} of {column!r}"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _Bad(
                f"{name} is {_show(pair)}, not [question, answer]",
                "An earlier round is two texts.",
            )
        question, answer = pair
        turns.append(("user", question, f"the question in {name}"))
        turns.append(("assistant", answer, f"the answer in {name}"))
    return turns


def _find_shape(row: Mapping, fields: dict, columns: dict[str, str]) -> tuple[str, ...]:
    """The shape of SHAPES that a row has, judged by its columns; _Bad with the nearest one if none
    or several fit."""
    filled = {field for field, value in fields.items() if value is not None and value != ""}
    # How well each shape fits, the weightier sign first: all its fields are filled, all are there,
    # some are filled, or `columns` names one of them.
    fits = [
        (filled >= {*s}, fields.keys() >= {*s}, bool(filled & {*s}), bool(columns.keys() & {*s}))
        for s in SHAPES
    ]
    best = max(fits)
    found = [shape for shape, fit in zip(SHAPES, fits, strict=True) if fit == best]
    _, all_there, *_ = best
    if all_there and len(found) == 1:
        return found[0]
    if all_there:
        raise _Bad(
            f"columns {list(row)} fit several shapes: {found}",
            f"Choose columns={ {f: f for f in found[-1]} }.",
        )
    missing = dict.fromkeys(
        next(repr(columns.get(f, f)) for f in shape if f not in fields) for shape in found
    )
    what = " or ".join(missing) + " is missing" if any(best) else "no known shape"
    raise _Bad(f"{what}; the row has columns {list(row)}", _advise(row, fields, columns, found))


def _advise(
    row: Mapping, fields: dict, columns: dict[str, str], found: list[tuple[str, ...]]
) -> str:
    """Which `columns` would make one of these shapes of a row, if its names are near enough."""
    for shape in found:
        guess, others = {}, [str(column) for column in row if column not in shape]
        for index, field in enumerate(shape):
            if field in fields:
                continue
            # a misspelling, or the field with the same part in another pair: "answer" for "output"
            near = difflib.get_close_matches(field, others, 1)
            if not near and len(shape) == 2:
                near = [pair[index] for pair in PAIRS if pair[index] in row]
            if near:
                guess[field] = near[0]
        if fields.keys() | guess.keys() >= set(shape):
            return f"Did you mean columns={columns | guess}? Known shapes: {KNOWN_SHAPES}."
    return (
        f"Known shapes: {KNOWN_SHAPES}. Name other columns: columns={{'output': '<the "
        "answers>', ...}."
    )


def _read_messages(messages: list, name: str) -> list[Turn]:
    """Turns from {"role", "content"}, or ShareGPT's {"from", "value"}."""
    turns = []
    for number, turn in enumerate(messages, start=1):
        which = f"turn {number} of {name}"
        # Arrow fills the keys that only other rows have with None
        sharegpt = isinstance(turn, Mapping) and turn.get("from") is not None
        role_key, text_key = ("from", "value") if sharegpt else ("role", "content")
        if not isinstance(turn, Mapping) or not turn.keys() >= {role_key, text_key}:
            raise _Bad(
                f"{which} is {_show(turn)}, without {role_key!r} and {text_key!r}",
                "Every turn needs both.",
            )
        if str(turn[role_key]) not in ROLES:
            raise _Bad(
                f"{which} has the unknown role {turn[role_key]!r}",
                f"Known: {list(ROLES)}; no tools.",
            )
        turns.append((ROLES[turn[role_key]], turn[text_key], f"{text_key!r} in {which}"))
    return turns


def _check_turns(turns: list[Turn]) -> Conversation:
    """Turns in an order that a chat can have, as a conversation."""
    conversation, before = [], None
    for number, (role, text, name) in enumerate(turns, start=1):
        if role not in FOLLOWERS[before]:
            what = {"system": "the system turn is not first", before: f"two {role} turns in a row"}
            raise _Bad(
                f"{what.get(role, 'an answer before any question')}: turn {number} is {role} "
                f"after {before}",
                "Likely a turn was lost or moved, or one text was cut in two.",
            )
        conversation.append({"role": role, "content": _check_text(text, name)})
        before = role
    if before != "assistant":
        raise _Bad(
            f"the answer is missing: the last turn is {before or 'not there'}",
            "Add it, or drop the row.",
        )
    return conversation


def _check_text(value: Any, name: str) -> str:
    """The text, unchanged, if it is one that a tokenizer can read and a model can learn from."""
    if not isinstance(value, str):
        raise _Bad(f"{name} is {_show(value)}, not a text", "None and nan are usually empty cells.")
    if not value.strip():
        raise _Bad(f"{name} is empty", "Write the text or drop the row.")
    # half of a surrogate pair is no character: a tokenizer would crash on it
    if value.encode(errors="ignore") != value.encode(errors="surrogatepass"):
        raise _Bad(
            f"{name} holds half a character: {_show(value)}",
            "Likely the text was cut inside an emoji.",
        )
    return value


def _read_list(value: Any, name: str) -> list:
    """A list, or its JSON text, the only form that a CSV cell has for one."""
    with suppress(ValueError):
        value = json.loads(value) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise _Bad(
            f"{name} is {_show(value)}, not a list", "In a CSV cell, write it with json.dumps."
        )
    return value


def _show(value: Any) -> str:
    return f"{value!r:.60} ({type(value).__name__})"


class _Bad(Exception):
    """(what is wrong with a row or a file, the likely cause or what to do about it)"""


class RecordError(ValueError):
    """Bad data. `.problems` holds every problem, one text each; the message is the first 20 of
    them."""

    def __init__(self, problems: list[str]):
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        more = f"\n... and {len(self.problems) - PRINTED_PROBLEMS} more, all in .problems"
        return "\n".join(self.problems[:PRINTED_PROBLEMS]) + (
            more if len(self.problems) > PRINTED_PROBLEMS else ""
        )
