"""Chapter 13b: remedies against forgetting. Fresh numbers, streams and penalties at every check."""

import contextlib
import io
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

import torch

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    named,
    need_list,
    need_tensor,
    need_word,
    normal,
    same_for_all,
    shorten,
    without_autograd,
)
from sft_lab.course.forgetting_runs import exam_of, lessons_of, share_right
from sft_lab.course.remedies import NEW_LESSONS, OLD_LESSONS, learn_old, tune_again
from sft_lab.examples import IGNORE_INDEX
from sft_lab.labels import encode_conversations
from sft_lab.models import load

STORED, MOST_LESSONS = 40, 1300  # exercise 13b.6
OLD_AT_LEAST, NEW_AT_LEAST = 0.7, 0.85
BUGS = ("right", "moving anchor", "squared mean", "no square")
DRAWN = 4000  # streams of exercise 13b.5: a share of 1/3 is then known to 0.04, five deviations


@checks("13b.1")
def expect_fisher(attempt: Callable) -> str:
    # one input, equal inputs, an input of zeros, a model that is nearly sure
    draws = [(normal(3, 2), normal(1, 2)), (normal(2, 3), normal(1, 3).repeat(4, 1))]
    draws.append((normal(4, 2), torch.cat([normal(2, 2), torch.zeros(1, 2).double()])))
    draws.append((normal(3, 2) * 4, normal(5, 2)))
    draws += [(normal(5, 3), normal(6, 3)) for _ in range(2)]
    same_for_all(
        attempt,
        draws,
        lambda weights, inputs: _fisher(weights, inputs, lambda p: p * (1 - p)),
        [
            (
                lambda weights, inputs: _fisher(weights, inputs, lambda p: p * (1 - p), torch.sum),
                "this is the sum over the inputs: take the mean",
            ),
            (
                lambda weights, inputs: _fisher(weights, inputs, _squares_of_likeliest),
                "this takes the likeliest label: weigh every label by its probability",
            ),
            (
                lambda weights, inputs: _fisher(weights, inputs, _squares_of_any),
                "all labels weigh the same here: weigh each by its probability",
            ),
            (
                lambda weights, inputs: torch.zeros_like(weights),
                "the expected gradient is zero: square each gradient before you take the mean",
            ),
            (
                lambda weights, inputs: _fisher(weights, inputs, torch.square),
                "one label is missing: a weight of row v has a gradient when the label is v, too",
            ),
            (
                lambda weights, inputs: _of_mean_input(weights, inputs),
                "square the gradient of each input, then take the mean over the inputs",
            ),
            (
                lambda weights, inputs: (
                    _probabilities(weights, inputs).mul(1).T @ inputs.square() / len(inputs)
                ),
                "p instead of p · (1 − p): the gradient of logit v is p_v − 1 when the label is v",
            ),
        ],
        form=need_tensor,
        what="the Fisher",
    )
    return "every label weighed by its probability, squared before the mean"


def _probabilities(weights: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    return (inputs @ weights.T).softmax(dim=-1)


def _fisher(
    weights: torch.Tensor,
    inputs: torch.Tensor,
    squares: Callable[[torch.Tensor], torch.Tensor],
    gather: Callable[..., torch.Tensor] = torch.mean,
) -> torch.Tensor:
    """squares: from probabilities (N, V) to expected squared gradients of the logits."""
    of_logits = squares(_probabilities(weights, inputs))
    return gather(of_logits[:, :, None] * inputs.square()[:, None, :], dim=0)


def _squares_of_likeliest(p: torch.Tensor) -> torch.Tensor:
    return (p - torch.nn.functional.one_hot(p.argmax(-1), p.shape[-1])).square()


def _squares_of_any(p: torch.Tensor) -> torch.Tensor:
    count = p.shape[-1]
    return (p - 1).square() / count + p.square() * (count - 1) / count


def _of_mean_input(weights: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    p = _probabilities(weights, inputs)
    return (p * (1 - p)).mean(0)[:, None] * inputs.mean(0).square()


@checks("13b.2")
def settle(attempt: Callable) -> str:
    # one anchor and several; a weight that nothing holds, one that only the new task or only an
    # anchor holds; strength 0
    draws = [_pulls(anchors, size, strength) for anchors, size, strength in
             ((1, 3, 1.0), (2, 4, 0.5), (3, 5, 20.0), (2, 4, 0.0), (3, 6, 2.0))]  # fmt: skip
    same_for_all(
        attempt,
        draws,
        _settle,
        [
            (
                lambda b, h, a, f, s: _settle(b, h, a[-1:].expand_as(a), f, s),
                "every penalty pulls to its own anchor, not to the last one",
            ),
            (
                lambda b, h, a, f, s: _settle(b, h, a[-1:], f[-1:], s),
                "only the last penalty is there: the earlier ones pull, too",
            ),
            (
                lambda b, h, a, f, s: _settle(b, h, a, f, 1.0),
                "the strength is missing",
            ),
            (
                lambda b, h, a, f, s: _settle(b, h, a, f, s / 2),
                "both terms have the factor ½, so it cancels: do not halve one of them",
            ),
            (
                lambda b, h, a, f, s: _settle(b, h, a, f, s * 2),
                "both terms have the factor ½, so it cancels: do not halve one of them",
            ),
            (
                lambda b, h, a, f, s: _settle(b, h, a, f, s, unheld=b),
                "a weight that nothing pulls stays where training begins: at the last anchor",
            ),
            (
                lambda b, h, a, f, s: _settle(b, h, a, f, s, unheld=a[0]),
                "a weight that nothing pulls stays where training begins: at the last anchor",
            ),
            (
                lambda b, h, a, f, s: (h * b + s * (f * a).sum(0)) / (h + s * f.sum(0)),
                "0/0 gives nan: a weight that nothing pulls stays at the last anchor",
            ),
            (
                lambda b, h, a, f, s: _settle(b, h, a, f / len(f), s),
                "the penalties are added, not averaged",
            ),
        ],
        form=need_tensor,
        what="the minimum",
    )
    return "a mean of the new best and of every anchor, weighed by what holds each weight"


def _pulls(anchors: int, size: int, strength: float) -> tuple:
    curvature = torch.rand(size, dtype=torch.float64) + 0.2
    fishers = torch.rand(anchors, size, dtype=torch.float64) + 0.2
    curvature[0], fishers[:, 0] = 0.0, 0.0  # nothing holds the first weight
    fishers[:, 1] = 0.0
    curvature[2] = 0.0
    return normal(size), curvature, normal(anchors, size), fishers, strength


def _settle(
    new_best: torch.Tensor,
    curvature: torch.Tensor,
    anchors: torch.Tensor,
    fishers: torch.Tensor,
    strength: float,
    unheld: torch.Tensor | None = None,
) -> torch.Tensor:
    held = curvature + strength * fishers.sum(0)
    pulled = curvature * new_best + strength * (fishers * anchors).sum(0)
    stays = anchors[-1] if unheld is None else unheld
    return torch.where(held == 0, stays, pulled / held.clamp(min=1e-300))


@checks("13b.3")
def name_bug(attempt: Callable) -> str:
    for bug in random.sample(BUGS * 2, 2 * len(BUGS)):
        size = random.randint(2, 5)
        gradients = normal(random.randint(3, 6), size)
        # opposite gradients: their mean is nearly zero, their squares are not
        gradients[0] = -gradients[1] + 0.1 * normal(size)
        anchor, strength = normal(size), random.choice([0.5, 3.0, 100.0])
        penalty = _penalty(bug, gradients, anchor, strength)
        found = need_word(attempt(penalty, gradients, anchor, strength), *BUGS)
        if found != bug:
            raise Mistake(
                f"you say {found!r}, and this code is {bug!r}: try it at the anchor plus one step "
                "in one weight"
            )
    return "the bug is named from what the penalty says at chosen places"


def _penalty(
    bug: str, gradients: torch.Tensor, anchor: torch.Tensor, strength: float
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The EWC penalty as a function of the weights, right or with one bug."""
    fisher = gradients.mean(0).square() if bug == "squared mean" else gradients.square().mean(0)
    saved = anchor.clone()

    def penalty(weights: torch.Tensor) -> torch.Tensor:
        moved = saved - saved if bug == "moving anchor" else weights - saved
        distance = moved.abs() if bug == "no square" else moved.square()
        return strength / 2 * (fisher * distance).sum()

    return penalty


@checks("13b.4")
def mix_gradient(attempt: Callable) -> str:
    # alpha 0 and 1; T 1, above and below; rows that are not graded; teacher equal to the student
    settings = [(0.0, 2.0), (1.0, 3.0), (0.5, 1.0), (0.3, 4.0), (0.7, 0.5), (0.6, 2.0)]
    draws = []
    for number, (alpha, temperature) in enumerate(settings):
        rows, vocabulary = random.randint(4, 7), random.randint(3, 6)
        student, teacher = 2 * normal(rows, vocabulary), 2 * normal(rows, vocabulary)
        if number == 3:
            teacher = student.clone()
        labels = torch.randint(1, vocabulary, (rows,))
        labels[0], labels[1] = IGNORE_INDEX, 0  # token id 0 is graded like any other
        draws.append((student, teacher, labels, alpha, temperature))
    with without_autograd("write the gradient down: softmax minus target, for both parts"):
        same_for_all(
            attempt,
            draws,
            _mixed,
            [
                (
                    lambda *given: _mixed(*given, factor=lambda t: 1 / t),
                    "T² is missing: the gradient of the second part is T · (q − p), not (q − p)/T",
                ),
                (
                    lambda *given: _mixed(*given, factor=lambda t: t * t),
                    "softened logits are z/T, which gives a factor 1/T: T² · 1/T is T",
                ),
                (
                    lambda *given: _mixed(*given, factor=lambda t: 1.0),
                    "T² · 1/T is T: the second part lacks a factor",
                ),
                (
                    lambda student, teacher, labels, alpha, t: _mixed(
                        student, teacher, labels, 1 - alpha, t
                    ),
                    "alpha weighs the labels, 1 − alpha the teacher",
                ),
                (
                    lambda *given: _mixed(*given, over=len),
                    "divide by the graded rows, not by all",
                ),
                (
                    lambda *given: _mixed(*given, teach_all=True),
                    "a row that is not graded has no gradient, from the teacher neither",
                ),
                (
                    lambda *given: _mixed(*given, flip=True),
                    "the second part has the wrong sign: student minus teacher",
                ),
                (
                    lambda *given: _mixed(*given, soften_labels=True),
                    "the labels' part is not softened: T belongs to the teacher's part alone",
                ),
            ],
            form=need_tensor,
            what="the gradient",
        )
    return "alpha · (softmax − label) + (1 − alpha) · T · (q − p), over the graded rows"


def _mixed(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    alpha: float,
    temperature: float,
    *,
    factor: Callable[[float], float] = lambda t: t,
    over: Callable[[torch.Tensor], int] | None = None,
    teach_all: bool = False,
    flip: bool = False,
    soften_labels: bool = False,
) -> torch.Tensor:
    graded = labels != IGNORE_INDEX
    targets = torch.nn.functional.one_hot(labels.clamp(min=0), student.shape[-1])
    own = (student / (temperature if soften_labels else 1.0)).softmax(-1) - targets
    taught = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    count = int(graded.sum()) if over is None else over(labels)
    taught_rows = torch.ones_like(graded) if teach_all else graded
    first = alpha * own * graded[:, None]
    second = (1 - alpha) * factor(temperature) * taught * taught_rows[:, None]
    return (first + (-second if flip else second)) / count


class _Row:
    """A row of a stream that knows how many of its kind are held somewhere."""

    held = 0

    def __init__(self, number: int) -> None:
        self.number = number
        _Row.held += 1

    def __del__(self) -> None:
        _Row.held -= 1

    def __repr__(self) -> str:
        return f"row {self.number}"


def _stream(length: int, most: list[int]) -> Iterator[_Row]:
    """Rows one by one; `most` keeps the largest number that was held at once."""
    for number in range(length):
        most[0] = max(most[0], _Row.held)
        yield _Row(number)
    most[0] = max(most[0], _Row.held)


@checks("13b.5")
def keep_sample(attempt: Callable) -> str:
    for length, size in ((0, 3), (2, 3), (3, 3), (60, 4), (1, 1)):
        given = f"a stream of {length} rows, size = {size}"
        _Row.held, most = 0, [0]
        rows = attempt(_stream(length, most), size, random.Random(random.random()))
        kept = [row.number for row in need_list(rows, _Row, f"rows of the stream, for {given}")]
        if len(kept) != min(length, size) or len(set(kept)) != len(kept):
            raise Mistake(
                f"kept rows {kept}: expected {min(length, size)} different ones, for {given}"
            )
        # besides the buffer: the row in hand, and the one before it in a loop variable
        if most[0] > size + 3:
            raise Mistake(
                f"{most[0]} rows were held at once: the buffer has room for {size}, for {given}"
            )
        del rows
    for seed in random.sample(range(10**9), 3):
        twice = [set(attempt(iter(range(200)), 5, random.Random(seed))) for _ in range(2)]
        if twice[0] != twice[1]:
            raise Mistake("the same rng kept other rows the second time: draw from `rng` alone")
    _is_fair(attempt, 6, 2)
    _is_fair(attempt, 5, 1)
    return "one pass, no more rows held than fit, and the same chance for every row"


def _is_fair(attempt: Callable, length: int, size: int) -> None:
    counts: Counter[int] = Counter()
    for seed in random.sample(range(10**9), DRAWN):
        counts.update(attempt(iter(range(length)), size, random.Random(seed)))
    expected = size / length
    for row in range(length):
        share = counts[row] / DRAWN
        if abs(share - expected) > 0.04:
            raise Mistake(
                f"of {length} rows with room for {size}, row {row} (counted from 0) is kept in "
                f"{share:.0%} of {DRAWN} draws, expected {expected:.0%}: the row that comes as "
                "number n must enter with the chance size/n"
            )


@checks("13b.6")
def remember(attempt: Callable) -> str:
    old, new = (
        lessons_of("convention", seed=0, count=OLD_LESSONS),
        lessons_of("skills", seed=0, count=NEW_LESSONS),
    )
    talks = need_list(attempt(old, new), list, "conversations")
    with named((TypeError, KeyError, AttributeError), "a turn is {'role': …, 'content': …}"):
        rows = tuple(tuple((turn["role"], turn["content"]) for turn in talk) for talk in talks)
    of_old, of_new = (
        {tuple((turn["role"], turn["content"]) for turn in talk) for talk in part}
        for part in (old, new)
    )
    if strange := [row for row in rows if row not in of_old and row not in of_new]:
        raise Mistake(f"this conversation is not among the given ones: {shorten(strange[0])}")
    stored = len({row for row in rows if row in of_old})
    if stored > STORED:
        raise Mistake(f"{stored} different old conversations: the buffer has room for {STORED}")
    if len(rows) > MOST_LESSONS:
        raise Mistake(f"{len(rows)} conversations: at most {MOST_LESSONS} are allowed")
    if not rows:
        raise Mistake("there is no conversation")
    kept, learned = _measure_remedy(rows)
    for name, share, least, advice in (
        ("old", kept, OLD_AT_LEAST, "show the old rows more often, or more of them"),
        ("new", learned, NEW_AT_LEAST, "the new task needs more of its own rows"),
    ):
        if share < least:
            raise Mistake(
                f"{share:.0%} of the {name} exam is right, expected at least {least:.0%}: {advice} "
                f"({stored} different old rows, {len(rows)} conversations)"
            )
    return f"old {kept:.0%}, new {learned:.0%}, with {stored} stored rows"


@cache
def _measure_remedy(plan: tuple) -> tuple[float, float]:
    """Old and new exam after training on these rows; the same rows give the same."""
    talks = [[{"role": role, "content": content} for role, content in row] for row in plan]
    with contextlib.redirect_stdout(io.StringIO()):
        base, tokenizer = load("atlas-base")
    rows = encode_conversations(talks, tokenizer)
    model = tune_again(learn_old(base, tokenizer, 0).model, tokenizer, rows, seed=0)
    old, new = (share_right(model, tokenizer, exam_of(name)) for name in ("convention", "skills"))
    return old, new
