"""Every exercise of every chapter: its solution passes its check, and its usual mistakes are named.

A chapter NN with exercises has sft_lab/course/exercises/chNN.py and tests/wrong_answers/chNN.py
with WRONG_ANSWERS = {"N.k": [(answer, "part of the line that the reader sees"), …at least three]}.
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from chapter_source import Cell, find_exercises, name_chapter, read_chapter

from sft_lab.course.checks import check
from sft_lab.course.progress import list_exercises, parse_heading, sort_key

ROOT = Path(__file__).resolve().parents[1]
DRAWS = 5  # of the random numbers of a check
CHAPTERS = {
    name_chapter(path): path for path in sorted((ROOT / "chapters").glob("[0-9][0-9]*_*.py"))
}
EXERCISES = [exercise.id for exercise in list_exercises()]


@cache
def load_wrong_answers(chapter: str) -> dict[str, list[tuple[Any, str]]]:
    """The wrong answers of a chapter; {} when there is no such file, which a test below reports."""
    path = ROOT / "tests" / "wrong_answers" / f"ch{chapter}.py"
    if not path.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"wrong_answers_{chapter}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.WRONG_ANSWERS


def list_wrong_answers() -> list[Any]:
    with_exercises = sorted({sort_key(exercise_id)[0] for exercise_id in EXERCISES})
    return [
        pytest.param(exercise_id, answer, message, id=f"{exercise_id}-{number}")
        for chapter in with_exercises
        for exercise_id, answers in load_wrong_answers(chapter).items()
        for number, (answer, message) in enumerate(answers, 1)
    ]


@cache
def setup_of(chapter: str) -> dict[str, Any]:
    """The names that the set-up cells of a chapter define."""
    namespace: dict[str, Any] = {"__name__": f"chapter_{chapter}"}
    for cell in read_chapter(CHAPTERS[chapter]):
        if "setup" in cell.tags and cell.kind == "code":
            run(cell, namespace, chapter)
    return namespace


def run(cell: Cell, namespace: dict[str, Any], chapter: str) -> None:
    """Execute a cell; a traceback points to the line in the chapter."""
    exec(compile("\n" * cell.line + cell.source, str(CHAPTERS[chapter]), "exec"), namespace)


def parts_of(exercise_id: str) -> tuple[list[Cell], str]:
    chapter, _ = sort_key(exercise_id)
    for cells in find_exercises(read_chapter(CHAPTERS[chapter]), CHAPTERS[chapter]):
        if parse_heading(cells[0].source.splitlines()[0]).id == exercise_id:
            return cells, chapter
    raise AssertionError(f"no exercise {exercise_id} in chapter {chapter}")


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_the_solution_passes_its_check(exercise_id, monkeypatch, capsys):
    monkeypatch.setenv("SFT_LAB_STRICT", "1")
    (_, _, solution, check_cell, *_), chapter = parts_of(exercise_id)
    namespace = dict(setup_of(chapter))
    run(solution, namespace, chapter)
    for _ in range(DRAWS):
        run(check_cell, namespace, chapter)
        assert f"{exercise_id} ✓" in capsys.readouterr().out


def is_left_open(node: ast.stmt) -> bool:
    """Whether a statement says what is wanted and leaves it to the reader: `name = ...`, or a
    function (or class of such methods) of a docstring and `raise NotImplementedError`."""
    if isinstance(node, ast.Assign):
        return ast.unparse(node.value) == "..."
    described = ast.get_docstring(node) is not None
    if isinstance(node, ast.ClassDef):
        return described and all(map(only_raises, node.body[1:]))
    return described and only_raises(node)


def only_raises(function: ast.FunctionDef) -> bool:
    *docstring, last = function.body
    return len(docstring) <= 1 and ast.unparse(last) == "raise NotImplementedError"


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_a_stub_is_signature_docstring_and_an_error(exercise_id):
    (_, stub, *_), _ = parts_of(exercise_id)
    assert all(map(is_left_open, ast.parse(stub.source).body)), stub.source


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_the_stub_is_not_attempted_yet(exercise_id, monkeypatch, capsys):
    monkeypatch.delenv("SFT_LAB_STRICT", raising=False)
    (_, stub, _, check_cell, *_), chapter = parts_of(exercise_id)
    namespace = dict(setup_of(chapter))
    run(stub, namespace, chapter)
    run(check_cell, namespace, chapter)
    assert f"{exercise_id} not attempted yet" in capsys.readouterr().out


@pytest.mark.parametrize(("exercise_id", "answer", "message"), list_wrong_answers())
def test_a_usual_mistake_is_named(exercise_id, answer, message, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("SFT_LAB_STRICT", raising=False)
    monkeypatch.setenv("SFT_LAB_PROGRESS", str(tmp_path / "progress.json"))
    check(exercise_id, answer)
    line = capsys.readouterr().out
    assert line.startswith(f"{exercise_id} ✗ ")
    assert message in line


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_every_exercise_has_three_wrong_answers(exercise_id):
    chapter, _ = sort_key(exercise_id)
    messages = [message for _, message in load_wrong_answers(chapter).get(exercise_id, [])]
    assert len(messages) >= 3, f"add them to tests/wrong_answers/ch{chapter}.py"
    assert all(len(message) >= 8 for message in messages), (
        "a message this short would match by accident"
    )


def test_no_wrong_answer_is_kept_for_an_exercise_that_is_gone():
    chapters = [path.stem[2:] for path in (ROOT / "tests" / "wrong_answers").glob("ch*.py")]
    assert {i for chapter in chapters for i in load_wrong_answers(chapter)} <= set(EXERCISES)
