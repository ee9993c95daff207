"""What a reader can take in at once: functions of at most 60 lines, lines of at most 100 columns,
and names instead of the letters of shapes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FUNCTION_LINES, COLUMNS = 60, 100
LETTERS = set("BTVDNL")  # batch, tokens, vocabulary, width, positions, layers
FILES = [
    path
    for folder in ("sft_lab", "tools", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def long_functions(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"line {node.lineno}: {node.name} has {lines} lines"


def long_lines(source: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), start=1):
        # an address cannot be broken
        if len(line) > COLUMNS and len(line.split()) > 1:
            yield f"line {number} has {len(line)} columns"


def shape_letters(source: str) -> Iterator[str]:
    """Variables named like a dimension in a docstring's shapes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in LETTERS:
            yield f"line {node.lineno}: {node.id}"


@pytest.mark.parametrize("find", [long_functions, long_lines, shape_letters])
def test_every_file_can_be_read(find):
    found = {
        path.relative_to(ROOT).as_posix(): list(find(path.read_text(encoding="utf-8")))
        for path in FILES
    }
    assert {path: places for path, places in found.items() if places} == {}


def test_what_is_too_long_or_too_short_is_found():
    body = "\n".join("    x = 1" for _ in range(FUNCTION_LINES))
    assert list(long_functions(f"def f():\n{body}")) == ["line 1: f has 61 lines"]
    assert list(long_functions(f"def f():\n{body[:-10]}")) == []
    assert list(
        long_functions(f"class A:\n    async def f():\n{body}".replace("    x", "        x"))
    )
    assert list(long_lines("x = 1\n" + "y " * 51)) == ["line 2 has 102 columns"]
    assert list(long_lines("https://" + "y" * 101)) == []
    assert sorted(shape_letters("N, rows = 2, 3\nT.relu(x)\nfor D in x: pass")) == [
        "line 1: N",
        "line 3: D",
    ]
