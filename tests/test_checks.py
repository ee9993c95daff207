"""The exercise checks: one line for every kind of answer, strict mode."""

import math
import random

import pytest
import torch
from torch import nn

from sft_lab.course.checks import check, is_untouched
from sft_lab.course.exercises import kit
from sft_lab.course.exercises.kit import checks, same

ID = "98.1"


@checks(ID)
def _surprise(attempt):
    p = random.uniform(0.1, 0.9)
    same(attempt(p), -math.log(p), [(math.log(p), "the minus sign is missing")])
    return "-ln p for a random p"


@checks("98.2")
def _count(attempt):
    """the number of tokens"""
    same(attempt, 3)


@checks("98.3", may_return_none=True)
def _none_for_an_empty_list(attempt):
    if attempt([]) is not None:
        raise AssertionError
    same(attempt([2, 3]), 2)
    return "None where there is nothing"


@checks("98.4")
def _twice(attempt):
    layer = attempt(2.0)
    same(layer.forward(torch.ones(3)), [2.0, 2.0, 2.0])
    return "two times x"


@pytest.fixture(autouse=True)
def progress_path(tmp_path, monkeypatch):
    monkeypatch.setenv("SFT_LAB_PROGRESS", str(tmp_path / "folder" / "progress.json"))
    monkeypatch.delenv("SFT_LAB_STRICT", raising=False)
    return tmp_path / "folder" / "progress.json"


def stub(p: float) -> float:
    """Return -ln p."""
    raise NotImplementedError


def half_done(p):
    if p > 0:
        raise NotImplementedError
    return p


def calls_a_stub(p):
    return -stub(p)


def with_a_message(p):
    raise NotImplementedError("no backend for this")


def from_a_library(p):
    return nn.Module.forward(nn.Module(), p)


def returns_none(p):
    return None


def forgets_return(p):
    -math.log(p)


def forgets_minus(p):
    return math.log(p)


def raises(p):
    return math.lgo(p)


def asserts(p):
    assert p > 1
    return p


def right(p):
    return -math.log(p)


class Stub:
    """Twice x."""

    def __init__(self, factor):
        raise NotImplementedError

    def forward(self, x):
        raise NotImplementedError


class HalfDone:
    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        raise NotImplementedError


class WithoutForward(nn.Module):
    def __init__(self, factor):
        super().__init__()


class Filled(HalfDone):
    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize("attempt", [..., (..., 2), [1, ...]])
def test_a_value_left_open_is_not_attempted(attempt):
    assert is_untouched(attempt)


@pytest.mark.parametrize("attempt", [right, Filled, None, 0, "", (1, 2), torch.ones(2), math.log])
def test_anything_that_a_reader_wrote_is_an_attempt(attempt):
    assert not is_untouched(attempt)


@pytest.mark.parametrize(
    ("exercise_id", "attempt", "line"),
    [
        (ID, stub, "98.1 not attempted yet"),
        (ID, half_done, "98.1 not attempted yet"),
        (ID, calls_a_stub, "98.1 not attempted yet"),
        (ID, with_a_message, "98.1 ✗ line "),
        (ID, from_a_library, "98.1 ✗ line "),
        (ID, right, "98.1 ✓ -ln p for a random p"),
        (ID, forgets_minus, "98.1 ✗ the minus sign is missing"),
        (ID, forgets_return, "98.1 ✗ forgets_return returns None: did you forget `return`?"),
        (ID, returns_none, "98.1 ✗ returns_none returns None: did you forget `return`?"),
        (ID, lambda p: ..., "98.1 ✗ your answer is Ellipsis, expected"),
        (ID, lambda p: "?", "98.1 ✗ your answer is '?', expected"),
        (ID, 5, "98.1 ✗ the check could not use your answer: TypeError: 'int' object is not"),
        ("98.2", ..., "98.2 not attempted yet"),
        ("98.2", 3, "98.2 ✓ the number of tokens"),
        ("98.2", 4, "98.2 ✗ your answer is 4, expected 3"),
        ("98.2", None, "98.2 ✗ your answer is None: did you forget `return`?"),
        ("98.3", lambda ids: ids[0] if ids else None, "98.3 ✓ None where there is nothing"),
        ("98.3", len, "98.3 ✗ this does not hold: `raise AssertionError`"),
        ("98.3", lambda ids: ids.append(1), "98.3 ✗ your function changed `ids` in place"),
        ("98.4", Stub, "98.4 not attempted yet"),
        ("98.4", HalfDone, "98.4 not attempted yet"),
        ("98.4", WithoutForward, "98.4 ✗ line "),
        ("98.4", Filled, "98.4 ✓ two times x"),
    ],
)
def test_every_answer_gets_one_line(capsys, exercise_id, attempt, line):
    check(exercise_id, attempt)
    printed = capsys.readouterr().out
    assert printed.startswith(line)
    assert printed.count("\n") == 1


def test_a_stub_is_known_without_its_source(capsys):
    namespace = {}
    exec("def empty(x):\n    raise NotImplementedError\ndef full(x):\n    x + 1", namespace)
    check(ID, namespace["empty"])
    check(ID, namespace["full"])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "98.1 not attempted yet"
    assert second.startswith("98.1 ✗ full returns None")


@pytest.mark.parametrize(
    ("attempt", "code"), [(raises, "return math.lgo(p)"), (asserts, "assert p > 1")]
)
def test_an_exception_names_the_line_of_the_reader(capsys, attempt, code):
    check(ID, attempt)
    line = attempt.__code__.co_firstlineno + 1
    assert capsys.readouterr().out.startswith(f"98.1 ✗ line {line} of your code, `{code}`: ")


@pytest.mark.parametrize("attempt", [stub, forgets_minus, raises])
def test_strict_mode_raises_whatever_is_not_right_and_records_nothing(
    monkeypatch, progress_path, attempt
):
    monkeypatch.setenv("SFT_LAB_STRICT", "1")
    with pytest.raises(AssertionError, match=r"98\.1 "):
        check(ID, attempt)
    check(ID, right)
    assert not progress_path.exists()


def test_a_check_gives_the_random_state_back_and_sees_new_numbers(monkeypatch):
    seen = []
    watcher = kit.Check(lambda _: seen.append(torch.rand(1)), may_return_none=False)
    monkeypatch.setitem(kit.CHECKS, "98.9", watcher)
    _ = torch.manual_seed(0)
    random.seed(0)
    expected = torch.rand(2)[1].item(), random.random()
    _ = torch.manual_seed(0)
    random.seed(0)
    torch.rand(1)
    check("98.9", 1)
    check("98.9", 1)
    assert (torch.rand(1).item(), random.random()) == expected
    assert seen[0] != seen[1]


def test_an_unknown_exercise_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="no exercise 98.7 .*98.1, 98.2"):
        check("98.7", 1)
    with pytest.raises(ValueError, match="expected CHAPTER.NUMBER"):
        check("one", 1)


def test_two_checks_cannot_share_an_id():
    with pytest.raises(ValueError, match="98.1 has two checks"):
        checks(ID)(lambda attempt: None)
