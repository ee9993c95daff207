"""Station "read": the rows of a JSON, JSONL or CSV file, each with its number and its line.

Nothing is guessed, dropped or repaired: what cannot be read comes as a BadRow in its place, so that
the rows around it still count.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# row number, line, row or what is wrong with it; no number for the file as a whole, no line where
# the problem names its own
NumberedRow = tuple[int | None, int | None, Any]

SPACE = re.compile(r"[ \t\n\r]*")  # what JSON takes for white space
LINE_BREAK = re.compile(r"\s*\n\s*")  # a table prints several lines
PRINTED_PROBLEMS = 20
# "data.csv, row " or "questions[", the number, and what is wrong there
PLACED = re.compile(r"(.*?(?:, row |questions\[))(\d+)(.*)", re.DOTALL)
# numbers, and what stands in quotes (an apostrophe begins no quotation)
VARYING = re.compile(r"""\d+|(?<!\w)(['"]).*?\1(?!\w)""")


class BadRow(Exception):
    """(what is wrong with a row or a file, the likely cause or what to do about it)"""


def show(value: Any) -> str:
    """The beginning of a value and its type, for an error."""
    kind = type(value).__name__
    try:
        return f"{LINE_BREAK.sub(' ', repr(value)):.60} ({kind})"
    except (ValueError, RecursionError):  # more than 4,300 digits; lists in lists in lists
        return f"a value too large to print ({kind})"


def list_problems(problems: list[str]) -> str:
    """The problems as an error prints them: of the rows that one cause spoils, the first in full
    and the next ones by their numbers."""
    causes: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for problem in problems:
        placed = PLACED.match(problem)
        name, number, what = placed.groups() if placed else (problem, "", "")
        causes.setdefault((name, cause_of(what)), []).append((problem, number))
    lines = []
    for (first, _), *others in [*causes.values()][:PRINTED_PROBLEMS]:
        lines.append(first)
        if others:
            numbers = ", ".join(number for _, number in others[:5])
            more = ", …, all in .problems" if len(others) > 5 else ""
            lines.append(f"    the same in {len(others)} more: {numbers}{more}")
    if len(causes) > PRINTED_PROBLEMS:
        lines.append(f"... and {len(causes) - PRINTED_PROBLEMS} other causes, all in .problems")
    return "\n".join(lines)


def cause_of(what: str) -> str:
    """What is wrong with a row, without what differs between rows with one cause."""
    return VARYING.sub(_leave_out, what)


def _leave_out(varying: re.Match) -> str:
    """Nothing of what differs between rows with one cause; the name of a column stays."""
    word = varying[0][1:-1]
    return word if word.isidentifier() else "…"


def read_file(path: Path) -> Iterator[NumberedRow]:
    """The rows of a file. A problem is yielded like a row, so that those before it still count."""
    readers = {".json": _json_rows, ".jsonl": _jsonl_rows, ".csv": _csv_rows}
    try:
        if str(path).lstrip()[:1] in ("[", "{"):
            raise BadRow("this is JSON text, not the path of a file", "Pass json.loads(text).")
        if path.is_dir():
            raise BadRow("a folder, and only a file is read", "Pass the path of a file in it.")
        if not path.is_file():
            raise BadRow(f"no such file, seen from {Path.cwd()}", "Check the path.")
        if path.suffix.lower() not in readers:
            raise BadRow(
                f"file type {path.suffix!r} is not one of {list(readers)}",
                "Read it with datasets, pass rows.",
            )
        yield from readers[path.suffix.lower()](_decode(path.read_bytes()))
    except BadRow as bad:
        yield None, None, bad
    except OSError as error:  # a name too long, no permission, a disk that fails
        yield None, None, BadRow(f"cannot be read: {error.strerror}", "Check the path.")


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
    raise BadRow(
        f"not UTF-8: byte 0x{data[at]:02X} at {where}",
        f"Likely {guess}, as which it reads {sample!r}. If so: "
        f"iconv -f {guess} -t UTF-8 OLD > NEW. If not, try WINDOWS-1252.",
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Python's own parser would keep the last of two values and drop the first."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if [name for name, _ in pairs].count(key) > 1)
        raise BadRow(
            f"the key {show(twice)} stands twice in one object", "Only one value can be meant."
        )
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)


def parse_json(text: str, line: int = 1) -> Any:
    """The value of a JSON text that begins on `line` of its file."""
    value, end = _parse_value(text, SPACE.match(text).end(), line)
    if (end := SPACE.match(text, end).end()) < len(text):
        raise _broken(json.JSONDecodeError("Extra data", text, end), line)
    return value


def _parse_value(text: str, position: int, line: int = 1) -> tuple[Any, int]:
    """The JSON value that begins at a position, and where it ends; `text` begins on `line`."""
    try:
        return DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise _broken(error, line) from None
    except RecursionError:
        what, advice = "JSON nested too deep", "A row is flat. Likely brackets were repeated."
    except ValueError:  # Python reads no longer ones, which would take it minutes
        what = "an integer of more than 4,300 digits"
        advice = "Likely a text of digits that lost its quotes."
    raise BadRow(what, advice)


def _broken(error: json.JSONDecodeError, line: int) -> BadRow:
    where = f"line {line + error.lineno - 1}, column {error.colno}"
    near = error.doc[max(error.pos - 20, 0) :][:40]
    return BadRow(
        f"broken JSON at {where}: {error.msg}, near {near!r}",
        'Usually a bare ", \\ or line break in text '
        '(write \\", \\\\, \\n), single quotes, a comma too many, or two objects on one line.',
    )


def _json_rows(text: str) -> Iterator[NumberedRow]:
    """The rows of a list, read one by one, so that a broken one has a number."""
    position = SPACE.match(text).end()
    if position == len(text):
        return
    if text[position] == "{":
        _, end = _parse_value(text, position)
        if text.startswith("{", SPACE.match(text, end).end()):
            raise BadRow("the file holds one object after the other, not a list", "Name it .jsonl.")
    if text[position] != "[":
        raise BadRow(
            f"the file holds {show(parse_json(text))}, not a list of rows",
            "Put the rows into [ ]. One object a line is "
            ".jsonl; LLaMA-Factory's dataset_info.json only names data files: pass one of those.",
        )
    position, row_number, line, counted = SPACE.match(text, position + 1).end(), 0, 1, 0
    closed = text[position : position + 1] == "]"
    while not closed:
        row_number += 1
        line, counted = line + text.count("\n", counted, position), position
        try:
            row, position = _parse_value(text, position)
        except BadRow as bad:  # where the next row begins can no longer be told
            yield row_number, None, bad
            return
        yield row_number, line, row
        position = SPACE.match(text, position).end()
        closed = text[position : position + 1] == "]"
        if not closed and text[position : position + 1] != ",":
            error = json.JSONDecodeError("Expecting ',' delimiter", text, position)
            yield row_number + 1, None, _broken(error, 1)
            return
        position = position if closed else SPACE.match(text, position + 1).end()
    if (end := SPACE.match(text, position + 1).end()) < len(text):
        raise _broken(json.JSONDecodeError("Extra data", text, end), 1)


def _jsonl_rows(text: str) -> Iterator[NumberedRow]:
    row_number = 0
    _check_one_a_line(text)
    # str.splitlines would also cut at U+2028 inside a text
    for line, row in enumerate(text.split("\n"), start=1):
        if row.strip():
            row_number += 1
            try:
                yield row_number, line, parse_json(row, line)
            except BadRow as bad:
                own_line = "broken JSON at line" in bad.args[0]
                yield row_number, None if own_line else line, bad


def _check_one_a_line(text: str) -> None:
    """Raises BadRow for a list, or for objects that are printed over several lines."""
    first, _, rest = text.strip().partition("\n")
    if first.startswith("[") and not (rest and _is_json(first)):
        raise BadRow("the file holds a JSON list, not an object a line", "Name it .json.")
    if first.rstrip() == "{":
        raise BadRow(
            "the file holds objects of several lines, not one a line",
            "Write each with json.dumps(row), without indent.",
        )


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except BadRow:
        return False
    return True


def _check_separator(text: str) -> None:
    """Raises BadRow for a header that other separators than commas divide."""
    header = text.strip("\n\r ").partition("\n")[0]
    for separator, name in ((";", "semicolon"), ("\t", "tab"), ("|", "bar")):
        if separator in header and "," not in header:
            raise BadRow(
                f"the header, {show(header.strip())}, has a {name} between columns, not a comma",
                f"Pass pandas.read_csv(path, sep={separator!r}, dtype=str), or write commas.",
            )


def _csv_rows(text: str) -> Iterator[NumberedRow]:
    _check_separator(text)
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
                    row = BadRow(what, advice)
                yield row_number, line, row
            elif cells:
                header = cells
                if twice := [name for name in dict.fromkeys(header) if header.count(name) > 1]:
                    raise BadRow(
                        f"the header (line {line}) names twice: {show(twice)}", "Rename one."
                    )
            line = reader.line_num + 1  # a row of several lines is named by its first
    except csv.Error as error:  # where the next row begins can no longer be told
        if "field limit" in str(error):
            advice = "Likely a quote is never closed. Texts as long as that belong into .jsonl."
        yield row_number + 1, line, BadRow(f"broken CSV: {error}", advice)
