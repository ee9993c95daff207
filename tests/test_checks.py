"""The exercise checks: one line for every kind of answer, strict mode."""

import math
import random
import subprocess
import sys

import pytest
import torch

from sft_lab.course.checks import Mistake, check, checks, is_untouched, same

ID = "98.1"


@checks(ID)
def _surprise(attempt):
    p = random.uniform(0.1, 0.9)
    same(attempt(p), -math.log(p), hints={math.log(p): "the minus sign is missing"})
    return "-ln p for a random p"


@checks("98.2")
def _count(attempt):
    """the number of tokens"""
    same(attempt, 3)


@checks("98.3", returns_none=True)
def _zero_in_place(attempt):
    values = torch.rand(3)
    attempt(values)
    if values.any():
        raise AssertionError
    return "all zero"


@pytest.fixture(autouse=True)
def progress_path(tmp_path, monkeypatch):
    monkeypatch.setenv("SFT_LAB_PROGRESS", str(tmp_path / "folder" / "progress.json"))
    monkeypatch.delenv("SFT_LAB_STRICT", raising=False)
    return tmp_path / "folder" / "progress.json"


def stub(p: float) -> float:
    """Return -ln p."""
    ...


def stub_with_pass(p):
    pass


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
    def __init__(self):
        self.rank = 8

    def forward(self, x):
        """Return x."""
        ...


class Filled:
    def forward(self, x):
        return x


@pytest.mark.parametrize("attempt", [..., (..., 2), stub, stub_with_pass, Stub, lambda p: ...])
def test_a_stub_as_shipped_is_not_attempted(attempt):
    assert is_untouched(attempt)


@pytest.mark.parametrize(
    "attempt",
    [
        returns_none,
        forgets_return,
        right,
        Filled,
        None,
        0,
        "",
        (1, 2),
        torch.ones(2),
        math.log,
        lambda p: p,
    ],
)
def test_anything_that_a_reader_wrote_is_an_attempt(attempt):
    assert not is_untouched(attempt)


def test_a_stub_without_source_is_recognised_by_its_bytecode():
    namespace = {}
    exec("def empty(x):\n    'doc'\n    ...\ndef full(x):\n    x + 1", namespace)
    assert is_untouched(namespace["empty"])
    assert not is_untouched(namespace["full"])


@pytest.mark.parametrize(
    ("exercise_id", "attempt", "line"),
    [
        (ID, stub, "98.1 not attempted yet"),
        (ID, right, "98.1 ✓ -ln p for a random p"),
        (ID, forgets_minus, "98.1 ✗ the minus sign is missing"),
        (ID, forgets_return, "98.1 ✗ forgets_return returns None: did you forget `return`?"),
        (ID, returns_none, "98.1 ✗ returns_none returns None: did you forget `return`?"),
        (ID, lambda p: "?", "98.1 ✗ your answer is '?', expected"),
        (
            ID,
            5,
            "98.1 ✗ the check could not use your answer: TypeError: 'int' object is not callable",
        ),
        ("98.2", ..., "98.2 not attempted yet"),
        ("98.2", 3, "98.2 ✓ the number of tokens"),
        ("98.2", 4, "98.2 ✗ your answer is 4, expected 3"),
        ("98.2", None, "98.2 ✗ your answer is None: did you forget `return`?"),
        ("98.3", torch.Tensor.zero_, "98.3 ✓ all zero"),
        ("98.3", torch.Tensor.exp_, "98.3 ✗ this does not hold: `raise AssertionError`"),
    ],
)
def test_every_answer_gets_one_line(capsys, exercise_id, attempt, line):
    check(exercise_id, attempt)
    printed = capsys.readouterr().out
    assert printed.startswith(line)
    assert printed.count("\n") == 1


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
    monkeypatch.setitem(
        sys.modules["sft_lab.course.checks"]._CHECKS,
        "98.9",
        (lambda _: seen.append(torch.rand(1)), False),
    )
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


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (0.1 + 0.2, 0.3),
        (torch.ones(2), [1, 1]),
        (float("inf"), torch.tensor(torch.inf)),
        ("a", "a"),
        ({"a": 1}, {"a": 1}),
        (torch.tensor([1.0], requires_grad=True), [1.0]),
    ],
)
def test_same_accepts(actual, expected):
    same(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        (torch.ones(2, 1), torch.ones(2), r"shape \(2, 1\), expected \(2,\)"),
        (torch.tensor([1.0, 5.0]), [1.0, 2.0], "is 5 at index 1, expected 2"),
        (float("nan"), 1.0, "contains nan"),
        (None, 1.0, "forget `return`"),
        ("1", 1, "is '1', expected 1"),
        ([1, 2], "a", r"is \[1, 2\], expected 'a'"),
        (float("-inf"), 1.0, "is -inf, expected 1"),
    ],
)
def test_same_says_what_differs(actual, expected, message):
    with pytest.raises(Mistake, match=message):
        same(actual, expected)


def test_importing_the_checks_does_not_load_torch():
    code = "import sys, sft_lab.course.checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
