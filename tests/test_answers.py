"""The checks judge rightly: answers written from the statements alone, before the checks.

tests/right_answers/chNN.py has RIGHT_ANSWERS = {"N.k": [answer, …at least five]}, in different
styles, none of which may be refused; tests/other_wrong_answers/chNN.py has OTHER_WRONG_ANSWERS =
{"N.k": [answer, …at least ten]}, none of which may be accepted. Each is judged on DRAWS draws, and
less often where a check trains.
"""

import functools
import importlib.util
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from sft_lab import judges
from sft_lab.course import curve_runs, plain_loop, probe_runs, reward_runs
from sft_lab.course.checks import check
from sft_lab.course.progress import list_exercises

TESTS = Path(__file__).resolve().parent
DRAWS = 10  # of the random numbers of a check
# checks that train or write for seconds, and draw little: the whole chapter is judged in minutes
SLOW = {
    "0.4": 1,
    "2.6": 5,
    "3.6": 1,
    "3b.4": 1,
    "4.8": 5,
    "4.10": 1,
    "7.6": 1,
    "5.10": 1,
    "6.7": 4,
    "6.8": 4,
    "6.9": 1,
    "9b.2": 5,
    "13.3": 1,
    "13b.6": 1,
    "14b.6": 1,
    "14.6": 2,
    "15.6": 2,
    "15b.5": 1,
    "16c.6": 1,
    "16d.2": 4,
    "16d.4": 2,
    "18.4": 1,
    "18b.6": 1,
    "19.6": 1,
    "18c.4": 1,
    "18c.5": 1,
}
EXERCISES = [exercise.id for exercise in list_exercises()]
RIGHT, WRONG = "right_answers", "other_wrong_answers"


@cache
def load_answers(folder: str) -> dict[str, list[Any]]:
    """The answers of all chapters in a folder of the tests, by exercise."""
    answers: dict[str, list[Any]] = {}
    for path in sorted((TESTS / folder).glob("ch*.py")):
        spec = importlib.util.spec_from_file_location(f"{folder}_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        answers |= getattr(module, folder.upper())
    return answers


def list_answers(folder: str) -> list[Any]:
    return [
        pytest.param(exercise_id, answer, id=f"{exercise_id}-{number}")
        for exercise_id, answers in load_answers(folder).items()
        for number, answer in enumerate(answers, 1)
    ]


def judge(exercise_id: str, answer: Any, capsys: pytest.CaptureFixture) -> list[str]:
    """The lines that the reader sees in DRAWS draws, SLOW ones in fewer."""
    for _ in range(SLOW.get(exercise_id, DRAWS)):
        check(exercise_id, answer)
    return capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def readers_progress(monkeypatch, tmp_path):
    monkeypatch.delenv("SFT_LAB_STRICT", raising=False)
    monkeypatch.setenv("SFT_LAB_PROGRESS", str(tmp_path / "progress.json"))


@pytest.mark.parametrize(("exercise_id", "answer"), list_answers(RIGHT))
def test_a_right_answer_of_any_style_is_accepted(exercise_id, answer, capsys):
    lines = judge(exercise_id, answer, capsys)
    assert [line for line in lines if not line.startswith(f"{exercise_id} ✓")] == []


@pytest.mark.parametrize(("exercise_id", "answer"), list_answers(WRONG))
def test_a_wrong_answer_is_refused_in_every_draw(exercise_id, answer, capsys):
    lines = judge(exercise_id, answer, capsys)
    assert [line for line in lines if not line.startswith(f"{exercise_id} ✗ ")] == []


def spoil(value: Any) -> bool:
    """Change the last thing in a value that can be changed in place; False when nothing can."""
    if isinstance(value, torch.Tensor) and value.numel():
        part = value.flatten()[-1:] if value.is_contiguous() else value
        with torch.no_grad():
            part.logical_not_() if part.dtype == torch.bool else part.add_(1)
        return True
    if isinstance(value, list):
        if not any(spoil(item) for item in reversed(value)):
            value.append(value[-1] if value else 0)
        return True
    if isinstance(value, dict | set):
        value.pop() if isinstance(value, set) else value.popitem()
        return True
    return isinstance(value, tuple) and any(spoil(item) for item in reversed(value))


def spoiling(answer: Callable, name: str, spoiled: list[str]) -> Callable:
    """The same function, which then changes the argument of that name and says so."""

    @functools.wraps(answer)
    def changed(*args: Any, **kwargs: Any) -> Any:
        result = answer(*args, **kwargs)
        if spoil(inspect.signature(answer).bind(*args, **kwargs).arguments.get(name)):
            spoiled.append(name)
        return result

    return changed


FUNCTIONS = [
    pytest.param(exercise_id, answers[0], name, id=f"{exercise_id}-{name}")
    for exercise_id, answers in load_answers(RIGHT).items()
    if inspect.isfunction(answers[0])
    for name in inspect.signature(answers[0]).parameters
]


@pytest.mark.parametrize(("exercise_id", "answer", "name"), FUNCTIONS)
def test_a_right_answer_that_changes_its_argument_is_told_which(exercise_id, answer, name, capsys):
    spoiled: list[str] = []
    check(exercise_id, spoiling(answer, name, spoiled))
    line = capsys.readouterr().out
    expected = f"✗ your function changed `{name}` in place" if spoiled else "✓"
    assert line.startswith(f"{exercise_id} {expected}")


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_every_exercise_is_tried_with_five_right_and_ten_wrong_answers(exercise_id):
    assert len(load_answers(RIGHT).get(exercise_id, [])) >= 5
    assert len(load_answers(WRONG).get(exercise_id, [])) >= 10


def test_no_answer_is_kept_for_an_exercise_that_is_gone():
    assert load_answers(RIGHT).keys() | load_answers(WRONG).keys() <= set(EXERCISES)


@pytest.mark.parametrize(
    ("exercise_id", "working"),
    [
        ("4.7", plain_loop.run_batch),
        ("4.8", plain_loop.step),
        ("4.9", plain_loop.sft),
        ("16d.1", judges.swap_test),
        ("16d.3", judges.cohen_kappa),
        ("16d.5", judges.both_orders),
        ("16d.6", judges.share_at_equal_length),
        ("17b.1", reward_runs.forgotten_at),
        ("17b.3", reward_runs.diagnose),
        ("17b.4", reward_runs.working_range),
        ("18.1", curve_runs.loss_of_counting),
        ("18.3", curve_runs.smooth),
        ("18b.5", probe_runs.fewest_examples),
    ],
)
def test_the_version_that_a_chapter_goes_on_with_answers_its_exercise(exercise_id, working, capsys):
    lines = judge(exercise_id, working, capsys)
    assert [line for line in lines if not line.startswith(f"{exercise_id} ✓")] == []
