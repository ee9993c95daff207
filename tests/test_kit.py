"""The kit of the exercise checks: how answers are compared, watched and asked for their form."""

import math
import random

import numpy as np
import pytest
import torch

from sft_lab.course.exercises import kit
from sft_lab.course.exercises.kit import Mistake, named, same, unpack, watch
from sft_lab.examples import IGNORE_INDEX


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (0.1 + 0.2, 0.3),
        (torch.ones(2), [1, 1]),
        (np.ones(2), (1, 1)),
        (float("inf"), torch.tensor(torch.inf)),
        (True, torch.tensor(True)),
        ("a", "a"),
        (["a", None], ("a", None)),
        ({"a": 0.1 + 0.2}, {"a": 0.3}),
        ([([1, 2], 0.3), ([], 4)], [([1, 2], 0.1 + 0.2), ([], 4)]),
        (torch.tensor([1.0], requires_grad=True), [1.0]),
        ([torch.tensor(1.0, requires_grad=True), 2.0], [1.0, 2.0]),
        ([torch.ones(1), torch.ones(1)], torch.ones(2, 1)),
        ([torch.ones(1), torch.ones(2)], [[1.0], [1.0, 1.0]]),
        ([[], [2]], ([], (2,))),
        ([[], []], [[], []]),
        ([], ()),
        (12.0, 12),
        (3_000_000_001.0, 3_000_000_001),
    ],
)
@pytest.mark.filterwarnings("error")
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
        (["a"], ["a", "b"], r"is \['a'\], expected \['a', 'b'\]"),
        ({"a": 1}, {"b": 1}, "is {'a': 1}, expected {'b': 1}"),
        ([[], [2]], [[], [9]], r"is \[\[\], \[2\]\], expected \[\[\], \[9\]\]"),
        ([([], 1), ([2], 3)], [([], 1), ([2, 2], 3)], "expected"),
        ([[], []], [[], [1]], "expected"),
        ("a user\n", "a user\n\n", r"is '' from character 7 on, expected '\\n', after 'a user\\n'"),
        (float("-inf"), 1.0, "is -inf, expected 1"),
        (20_000_001, 20_000_000, "is 20000001, expected 20000000"),
        ([True, False], torch.tensor([True, True]), "is False at index 1, expected True"),
        (torch.tensor([20_001]), torch.tensor([20_000]), "is 20001 at index 0, expected 20000"),
    ],
)
def test_same_says_what_differs(actual, expected, message):
    with pytest.raises(Mistake, match=message):
        same(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected", "wrong"),
    [
        (1.00001, 2.0, 1.0),
        (torch.tensor([3, 4]), torch.tensor([4, 3]), [3, 4]),
        ([("a", 1.0)], [("a", 2.0)], [("a", 1.0 + 1e-7)]),
        ("left", "right", "left"),
        (False, True, False),
        (torch.tensor([torch.nan]), torch.tensor([1.0]), [math.nan]),
    ],
)
def test_a_hint_is_found_with_the_tolerance_of_the_answer(actual, expected, wrong):
    with pytest.raises(Mistake, match="^the usual one$"):
        same(actual, expected, [("nothing like it", "another"), (wrong, "the usual one")])


def test_a_tolerance_may_be_finer_than_float32():
    same(1.0, 1.0 + 1e-12, rtol=1e-10, atol=0)
    with pytest.raises(Mistake):
        same(1.0, 1.0 + 1e-9, rtol=1e-10, atol=0)


def test_two_mistakes_with_one_value_are_both_named():
    with pytest.raises(Mistake, match="^the sum; or: the rate$"):
        same(2.0, 1.0, [(2.0, "the sum"), (3.0, "never"), (2.00001, "the rate"), (2, "the sum")])


def test_a_mistake_that_gives_the_right_value_is_not_named():
    hints = [(1.00001, "harmless today")]
    same(1.0, 1.0, hints)
    with pytest.raises(Mistake, match=r"^your answer is 1\.00015, expected 1$"):
        same(1.00015, 1.0, hints)  # near the mistake, which is as good as right


@pytest.mark.parametrize(
    ("attempt", "given", "name"),
    [
        (lambda ids: ids.append(1) or 1, ([1, 2],), "ids"),
        (lambda x, weight: weight.mul_(2), (1, torch.ones(2)), "weight"),
        (lambda x: x.__setitem__(0, 5) or 1, (np.ones(2),), "x"),
        (lambda rows: rows["a"][0].append(1) or 1, ({"a": [[1]]},), "rows"),
        (lambda *parts: parts[1].zero_(), (torch.ones(1), torch.ones(1)), "parts"),
        (torch.Tensor.zero_, (torch.ones(1),), "its input"),
    ],
)
def test_a_function_that_changes_what_it_is_given_is_told_what(attempt, given, name):
    with pytest.raises(Mistake, match=f"changed `{name}` in place"):
        watch(attempt)(*given)


def test_a_watched_function_gives_what_it_gives():
    tokenizer = object()
    given = [math.nan, torch.tensor([torch.nan]), [("a", 1)], tokenizer]
    assert watch(lambda *parts, last: (parts, last))(*given, last=2) == (tuple(given), 2)
    assert watch(math.log)(1.0) == 0.0
    assert watch(3) == 3


def test_none_is_a_forgotten_return_unless_it_may_be_an_answer():
    def nothing():
        return None

    with pytest.raises(Mistake, match="nothing returns None: did you forget"):
        watch(nothing)()
    assert watch(nothing, may_return_none=True)() is None


def test_the_parts_of_an_answer_are_counted():
    assert unpack([1, 2], "a", "b") == [1, 2]
    with pytest.raises(Mistake, match="^return three things, A, B and alpha; this is one int$"):
        unpack(5, "A", "B", "alpha")
    with pytest.raises(Mistake, match=r"^return two things, A and B; this is one tuple of 3$"):
        unpack((1, 2, 3), "A", "B")


@pytest.mark.parametrize(
    ("ask", "good", "bad", "message"),
    [
        (lambda x: kit.need_list(x, int, "token ids"), [1, 2], [1, "2"], "a list of token ids"),
        (lambda x: kit.need_list(x, int, "token ids"), (1, 2), 1, "a list of token ids, not 1"),
        (lambda x: kit.need_whole(x, "k", low=1, high=9), 3.0, 3.5, "k is a whole number, not 3.5"),
        (lambda x: kit.need_whole(x, "k", low=1, high=9), 9, 10, "k is between 1 and 9"),
        (lambda x: kit.need_whole(x, "k", low=1, high=9), torch.tensor(4), math.nan, "not nan"),
        (lambda x: kit.need_whole(x, "k", low=0), 10**6, -1, "k is at least 0, not -1"),
        (lambda x: kit.need_own_labels(x, [4, 0]), [-100, 0], [-100, 7], "the token's own id or"),
        (lambda x: kit.need_own_labels(x, [4, 0]), [4, 0], [4], "one label for each token"),
        (lambda x: kit.need_own_labels(x, [4, 0]), (-100, 0), [4, -100], "nothing to learn"),
        (lambda x: kit.need_word(x, "same", "drift"), "drift", True, 'one of "same", "drift"'),
        (lambda x: kit.need_finite(x, "0/0"), [1.0, 2.0], [1.0, math.inf], "0/0"),
        (lambda x: kit.need_gradient(x, "w"), torch.ones(1, requires_grad=True), 1.0, "through w"),
        (
            lambda x: kit.need_dtype(x, torch.long, "labels", "ids are whole"),
            torch.tensor([1]),
            torch.tensor([1.0]),
            "labels is torch.float32, expected torch.int64: ids are whole",
        ),
    ],
)
def test_the_form_of_an_answer_is_asked_for(ask, good, bad, message):
    ask(good)
    with pytest.raises(Mistake, match=message):
        ask(bad)


def test_an_error_of_one_type_is_a_named_mistake_and_others_pass():
    with pytest.raises(Mistake, match="by zero"), named(ZeroDivisionError, "by zero"):
        _ = 1 / 0
    with pytest.raises(KeyError), named(ZeroDivisionError, "by zero"):
        _ = {}[0]


def test_random_labels_grade_the_middle_and_token_id_0():
    for _ in range(50):
        rows = random.randint(2, 4)
        labels = kit.random_labels(rows, 10, 7)
        graded = labels != IGNORE_INDEX
        assert labels.shape == (rows, 10) and labels.max() < 7
        assert len(set(graded.sum(dim=1).tolist())) == rows
        assert not graded[:, :2].any()
        assert (labels == 0).any(dim=1).all()
        assert graded[0, -1] and graded[1, -2] and not graded[1, -1]
        assert (graded[:, :-1].int().diff(dim=1) >= 0).all()  # once graded, graded to the end


def test_random_conversations_have_the_roles_of_a_chat():
    roles = [turn["role"] for turn in kit.random_conversation(2)]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert kit.random_conversation(1, system=False)[0]["role"] == "user"


def double_all(ids):
    return [2 * x for x in ids]


def double_but_the_last(ids):
    return [2 * x for x in ids[:-1]] + ids[-1:]


def double_from_the_second(ids):
    return ids[:1] + [2 * x for x in ids[1:]]


DOUBLED_BUT_THE_LAST = [(double_but_the_last, "the last is not doubled"), (lambda ids: ids[9], "-")]


def test_a_mistake_is_named_when_it_explains_every_draw():
    inputs = [([0],), ([1],), ([0, 1],), ([1, 0, 3],)]
    kit.same_for_all(double_all, inputs, double_all, DOUBLED_BUT_THE_LAST)
    with pytest.raises(Mistake, match="^the last is not doubled$"):
        kit.same_for_all(double_but_the_last, inputs, double_all, DOUBLED_BUT_THE_LAST)


def test_a_mistake_that_explains_only_some_draws_is_shown_with_its_input():
    inputs = [([1],), ([1, 0, 3],)]  # the first draw alone looks like another mistake
    with pytest.raises(Mistake, match=r"^your answer is 1 at index 0, expected 2, for ids = \[1\]"):
        kit.same_for_all(double_from_the_second, inputs, double_all, DOUBLED_BUT_THE_LAST)


def test_two_mistakes_that_explain_every_draw_are_both_named():
    cases = [
        kit.Case(1, 2, [(1, "a"), (3, "b"), (1, "c")]),
        kit.Case(5, 5, [(5, "a"), (5, "b"), (5, "c")]),
    ]
    with pytest.raises(Mistake, match="^a; or: c$"):
        kit.same_in_all(cases)
    with pytest.raises(Mistake, match="^n is 1, expected 2$"):
        kit.same_in_all([*cases, kit.Case(1, 1)], what="n")
    kit.same_in_all(cases[1:])


def test_two_mistakes_of_one_name_do_not_explain_a_third():
    cases = [kit.Case(1, 2, [(1, "a"), (3, "a")]), kit.Case(5, 6, [(4, "a"), (5, "a")])]
    with pytest.raises(Mistake, match="^your answer is 1, expected 2$"):
        kit.same_in_all(cases)


def test_an_error_in_an_answer_says_for_which_input():
    with pytest.raises(ZeroDivisionError) as caught:
        kit.same_for_all(lambda x, y: x / y, [(1, 2), (3, 0)], lambda x, y: x * y)
    assert caught.value.__notes__ == ["for x = 3, y = 0"]


@pytest.mark.parametrize(
    ("attempt", "given", "described"),
    [
        (lambda ids, stop: 0, ([1, 2], 3), "ids = [1, 2], stop = 3"),
        (lambda *ids: 0, ([1], 2), "[1], 2"),
        (lambda x: 0, (torch.tensor([[1.0, 1 / 3]]),), "x = [[1.0, 0.3333]]"),
        (lambda x: 0, (torch.tensor([1, -100]),), "x = [1, -100]"),
        (lambda x: 0, (torch.ones(3, 5),), "x = a tensor of shape (3, 5)"),
        (
            lambda x: 0,
            ([torch.ones(1), torch.ones(4, 4)],),
            "x = [[1.0], a tensor of shape (4, 4)]",
        ),
        (lambda x: 0, (1, 2), "1, 2"),
        (max, (1, 2), "1, 2"),
    ],
)
def test_an_input_is_described_in_one_line(attempt, given, described):
    assert kit.describe_input(attempt, given) == described


class Config:
    """An object with a plain public attribute, a private one, and a list."""

    def __init__(self):
        self.width, self._cache, self.names = 4, 0, []


def change(value, name, new):
    setattr(value, name, new)
    return 1


@pytest.mark.parametrize(
    ("attempt", "given"),
    [
        (lambda x: x.add(3) or 1, {1, 2}),
        (lambda x: change(x, "width", 5), Config()),
        (lambda x: x.requires_grad_().sum(), torch.ones(2)),
        (lambda x: change(x, "data", x.double()), torch.ones(2)),
        (lambda x: x.__setitem__(0, 1.0) or 1, [1]),
        (lambda x: x.__setitem__(0, True) or 1, [1]),
        (lambda x: x.eval(), torch.nn.Linear(2, 2)),
        (lambda x: x.weight.data.mul_(2), torch.nn.Linear(2, 2)),
        (lambda x: x.requires_grad_(False), torch.nn.Linear(2, 2)),
    ],
)
def test_a_change_of_any_kind_of_argument_is_noticed(attempt, given):
    with pytest.raises(Mistake, match="changed `x` in place"):
        watch(attempt)(given)


@pytest.mark.parametrize(
    ("attempt", "given"),
    [
        (lambda x: change(x, "_cache", 5), Config()),
        (lambda x: x(torch.ones(2)), torch.nn.Linear(2, 2)),
        (lambda x: sum(x), {1, 2}),
        (lambda x: x * 2, torch.ones(2, requires_grad=True)),
        (lambda x: x(1), abs),
    ],
)
def test_use_is_no_change(attempt, given):
    watch(attempt)(given)


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda x: torch.softmax(x, -1),
        lambda x: x.softmax(-1),
        lambda x: torch.nn.functional.softmax(x, -1),
        lambda x: torch.special.softmax(x, -1),
        lambda x: torch.nn.Softmax(-1)(x),
    ],
)
def test_a_function_that_is_ruled_out_is_found_however_it_is_called(forbidden):
    with (
        pytest.raises(Mistake, match="softmax is not to be used here: write it"),
        kit.without("softmax", why="write it"),
    ):
        forbidden(torch.ones(2, 3))
    assert forbidden(torch.ones(2, 3)).shape == (2, 3)  # allowed again
    with kit.without("softmax", why="write it"):
        torch.ones(3).exp().sum()


def by_backward(x):
    x = x.clone().requires_grad_()
    x.exp().sum().backward()
    return x.grad


@pytest.mark.parametrize(
    "gradient",
    [
        by_backward,
        lambda x: torch.autograd.functional.jacobian(lambda x: x.exp().sum(), x),
        lambda x: torch.func.grad(lambda x: x.exp().sum())(x),
    ],
)
def test_autograd_is_found_however_it_is_called(gradient):
    with pytest.raises(Mistake, match="autograd is not to be used"), kit.without_autograd("why"):
        gradient(torch.ones(3))
    with kit.without_autograd("why"):
        torch.ones(3).exp().sum()


def test_an_error_that_is_not_about_autograd_passes():
    with pytest.raises(RuntimeError, match="size"), kit.without_autograd("why"):
        torch.ones(3) + torch.ones(2)


def need_whole_tensor(x):
    return kit.need_tensor(x, "ids", whole=True)


@pytest.mark.parametrize(
    ("ask", "good", "bad", "message"),
    [
        (kit.need_number, 0.5, torch.tensor(0.5), "is a Tensor, expected a float"),
        (kit.need_number, np.float32(1), "1", "is a str, expected a float"),
        (kit.need_number, 0, True, "is a bool"),
        (kit.need_tensor, torch.ones(2), [1.0], "is a list, expected a tensor"),
        (kit.need_tensor, torch.ones(2).half(), torch.tensor(1), "int64, expected floating"),
        (kit.need_tensor, torch.ones(2), np.ones(2), "is a ndarray, expected a tensor"),
        (need_whole_tensor, torch.tensor([1]).int(), torch.ones(1), "ids is torch.float32"),
        (need_whole_tensor, torch.tensor([True]), [1], "ids is a list"),
        (lambda x: kit.need_list(x, int, "ids"), [1], [True], "a list of ids"),
    ],
)
def test_the_type_of_an_answer_is_asked_for(ask, good, bad, message):
    assert kit.same(ask(good), good) is None
    with pytest.raises(Mistake, match=message):
        ask(bad)


def test_a_model_may_be_trained_only_where_the_check_says_so():
    def train(model, rows):
        model.weight.data.add_(1)
        return 1

    model = torch.nn.Linear(2, 1)
    assert watch(train, may_train=True)(model, [1]) == 1
    with pytest.raises(Mistake, match="changed `model` in place"):
        watch(train)(model, [1])


def test_a_check_that_trains_still_sees_other_arguments_changed():
    def train(model, rows):
        rows.append(2)
        return 1

    with pytest.raises(Mistake, match="changed `rows` in place"):
        watch(train, may_train=True)(torch.nn.Linear(2, 1), [1])
