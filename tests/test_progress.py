"""The reader's progress: what is recorded, how it is shown, and that a broken file is never
lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sft_lab.course.checks import check, progress
from sft_lab.course.exercises.kit import checks
from sft_lab.course.progress import list_exercises, record

ID = "96.1"
ROOT = str(Path(__file__).resolve().parent.parent)


@checks(ID)
def _two(attempt):
    assert attempt == 2
    return "it is 2"


@pytest.fixture(autouse=True)
def progress_path(tmp_path, monkeypatch):
    monkeypatch.setenv("SFT_LAB_PROGRESS", str(tmp_path / "folder" / "progress.json"))
    monkeypatch.delenv("SFT_LAB_STRICT", raising=False)
    return tmp_path / "folder" / "progress.json"


def test_solved_stays_solved_and_untouched_is_not_recorded(progress_path):
    check(ID, ...)
    assert not progress_path.exists()
    check(ID, 3)
    assert json.loads(progress_path.read_text()) == {ID: "attempted"}
    check(ID, 2)
    check(ID, 3)
    assert json.loads(progress_path.read_text()) == {ID: "solved"}
    assert os.listdir(progress_path.parent) == ["progress.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"1.1": "half"}', "\xff"])
def test_a_broken_progress_file_is_named_and_left_alone(progress_path, capsys, content):
    progress_path.parent.mkdir()
    progress_path.write_text(content, encoding="latin-1")
    check(ID, 2)
    result, note = capsys.readouterr().out.splitlines()
    assert result.startswith("96.1 ✓")
    assert str(progress_path) in note and "left as it is" in note
    assert str(progress_path) in repr(progress())
    assert progress_path.read_text(encoding="latin-1") == content


def test_a_progress_file_that_cannot_be_written_does_not_spoil_the_answer(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SFT_LAB_PROGRESS", str(tmp_path / "file" / "progress.json"))
    check(ID, 2)
    assert capsys.readouterr().out.startswith("96.1 ✓ it is 2\nProgress not saved: ")


def test_progress_shows_every_exercise_as_text_and_as_a_table(tmp_path, monkeypatch):
    headings = [
        "1.10 · Last & least · 5 min · ●●○",
        "1.1 · Solved · 5 min · ●○○",
        "1.2 · Tried · 7 min · ●○○",
    ]
    (tmp_path / "01_a.py").write_text(
        "\n".join(f"# ### Exercise {heading}" for heading in headings), encoding="utf-8"
    )
    monkeypatch.setattr(list_exercises, "__defaults__", (tmp_path,))
    record("1.1", "solved")
    record("1.2", "attempted")
    view = progress()
    assert [(exercise.id, state) for exercise, state in view.rows] == [
        ("1.10", "not attempted"),
        ("1.1", "solved"),
        ("1.2", "attempted"),
    ]
    assert repr(view).endswith("1 of 3 exercises solved, 12 minutes of exercises left")
    assert "Last &amp; least" in view._repr_html_()
    assert "✓ solved" in view._repr_html_()


RECORDER = """
import sys
from sft_lab.course.progress import record
for number in range(1, 21):
    record(f"{sys.argv[1]}.{number}", "solved")
"""


def test_notebooks_that_record_at_the_same_time_lose_nothing(progress_path):
    chapters = range(80, 84)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RECORDER, str(chapter)], env={**os.environ, "PYTHONPATH": ROOT}
        )
        for chapter in chapters
    ]
    assert [process.wait() for process in processes] == [0] * 4
    expected = {f"{chapter}.{number}" for chapter in chapters for number in range(1, 21)}
    assert json.loads(progress_path.read_text()).keys() == expected
    assert os.listdir(progress_path.parent) == ["progress.json"]
