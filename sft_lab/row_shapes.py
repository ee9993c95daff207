"""Station "read": which columns of a row are its question and its answer."""

import difflib
from collections.abc import Mapping

from sft_lab.row_files import BadRow
from sft_lab.row_keys import ROW_REASONING, carries_text, is_absent, is_read

# Shapes of a row: a question and an answer, or all turns in one list. Of shapes that fit equally
# badly the first gives the advice, so the commonest stand first.
PAIRS = (
    ("instruction", "output"),
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("instruction", "response"),
)
# What else a question or an answer is called; an error suggests them, and nothing is guessed.
LIKELY = (("query", "problem", "input", "question"), ("solution", "target", "answer", "output"))
SHAPES = (*PAIRS, ("messages",), ("conversations",))
KNOWN_SHAPES = ", ".join(" + ".join(shape) for shape in SHAPES)
INPUTS = ("input", "context")  # Alpaca's and Dolly's name for what the question is about
OPTIONAL = (*INPUTS, "history", "system")
FIELDS = (*dict.fromkeys(field for shape in SHAPES for field in shape), *OPTIONAL)


def find_shape(row: Mapping, fields: dict, columns: dict[str, str]) -> tuple[str, ...]:
    """The shape of SHAPES that a row has, judged by its columns; BadRow with the nearest one if
    none or several fit."""
    filled = {field for field, value in fields.items() if not is_absent(value)}
    # How well each shape fits, the weightier sign first: all its fields are filled, all are there,
    # some are filled, how many `columns` names.
    fits = [
        (filled >= {*s}, fields.keys() >= {*s}, bool(filled & {*s}), len(columns.keys() & {*s}))
        for s in SHAPES
    ]
    best = max(fits)
    found = [shape for shape, fit in zip(SHAPES, fits, strict=True) if fit == best]
    _, all_there, *_ = best
    if all_there and len(found) == 1:
        return found[0]
    if all_there:
        raise BadRow(
            f"columns {list(row)!s:.300} fit several shapes: {found}",
            f"Choose columns={ {f: f for f in found[-1]} }.",
        )
    missing = dict.fromkeys(
        next(repr(columns.get(f, f)) for f in shape if f not in fields) for shape in found
    )
    what = " or ".join(missing) + " is missing" if any(best) else "no known shape"
    raise BadRow(
        f"{what}; the row has columns {list(row)!s:.300}", _advise(row, fields, columns, found)
    )


def _advise(
    row: Mapping, fields: dict, columns: dict[str, str], found: list[tuple[str, ...]]
) -> str:
    """Which `columns` would make one of these shapes of a row, if its names are near enough, and
    which texts it would not read: of several guesses the one that leaves the fewest."""
    guesses = []
    for shape in found:
        guess = {}
        others = [c for c, value in row.items() if c not in FIELDS and not is_read(c, value)]
        others = [column for column in others if len(column) < 80]  # else broken, and unreadable
        for field in (*shape, *OPTIONAL):
            others = [column for column in others if column not in guess.values()]
            if field in fields or field in columns:
                continue
            # a misspelling, or the field with the same part in another pair: "answer" for "output"
            near = difflib.get_close_matches(field, others, 1)
            if not near and len(shape) == 2 and field in shape:
                index = shape.index(field)
                names = (*(pair[index] for pair in PAIRS), *LIKELY[index])
                near = [name for name in names if name in row and name not in shape]
            if near:
                guess[field] = near[0]
        if fields.keys() | guess.keys() >= set(shape):
            read = {*shape, *OPTIONAL, *guess.values(), *columns.values()}
            left = [c for c, v in row.items() if c not in read and carries_text(v)]
            left = [c for c in left if not is_read(c, row[c], ROW_REASONING)]
            guesses.append((len(left), len(guesses), columns | guess, left))
    if not guesses:
        return (
            f"Known shapes: {KNOWN_SHAPES}. Name other columns: columns={{'output': '<the "
            "answers>', ...}."
        )
    _, _, guess, left = min(guesses)
    without = f", without {left!s:.200}" if left else ""
    return f"Did you mean columns={guess}{without}? Known shapes: {KNOWN_SHAPES}."
