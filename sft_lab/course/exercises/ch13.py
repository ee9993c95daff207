"""Checks of chapter 13, what the new task overwrites."""

import contextlib
import io
import math
import random
from collections.abc import Callable
from functools import cache

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.course.cause_runs import run_repair
from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_number,
    normal,
    random_labels,
    same_for_all,
    shorten,
)
from sft_lab.examples import IGNORE_INDEX
from sft_lab.models import load

Gradients = list[torch.Tensor | None]


def _number_or_none(found: object) -> object:
    return found if found is None else need_number(found)


@checks("13.1", may_return_none=True)
def share_lost(attempt: Callable) -> str:
    # a task that began at 0 and one that did not; all lost, a part, nothing, a gain; never taught
    def draw(low: float, high: float) -> float:
        return round(random.uniform(low, high), 3)

    inputs = [
        (0.0, draw(0.8, 1.0), 0.0),
        (0.0, draw(0.8, 1.0), draw(0.1, 0.6)),
        (draw(0.2, 0.4), draw(0.7, 1.0), draw(0.5, 0.6)),
        (draw(0.4, 0.5), draw(0.6, 0.8), draw(0.0, 0.3)),
        (draw(0.1, 0.2), draw(0.5, 0.7), draw(0.8, 1.0)),
        (0.9, draw(0.5, 0.8), draw(0.0, 0.4)),
        (0.75, 0.75, draw(0.0, 0.5)),
        (0.0, 0.0, 0.0),
    ]

    def right(base: float, after: float, final: float) -> float | None:
        return (after - final) / (after - base) if after > base else None

    def kept(answer: Callable) -> Callable:
        return lambda base, after, final: answer(base, after, final) if after > base else None

    mistakes = [
        (
            kept(lambda b, a, f: (a - f) / a),
            "divided by all that was right after the task: what the base could do was not learned "
            "there",
        ),
        (kept(lambda b, a, f: a - f), "a difference of two shares: divide by what was learned"),
        (
            kept(lambda b, a, f: (f - b) / (a - b)),
            "this is the share that is left: return what is lost",
        ),
        (kept(lambda b, a, f: (f - a) / (a - b)), "the sign is reversed: a loss is positive"),
        (
            kept(lambda b, a, f: max(0.0, (a - f) / (a - b))),
            "a gain is a negative loss: do not cut it off at 0",
        ),
        (
            kept(lambda b, a, f: min(1.0, (a - f) / (a - b))),
            "what ends below the base lost more than it had learned: do not cut it off at 1",
        ),
        (
            kept(lambda b, a, f: min(1.0, max(0.0, (a - f) / (a - b)))),
            "neither a gain nor an end below the base is to be cut off",
        ),
        (
            lambda b, a, f: (a - f) / (a - b) if a != b else None,
            "a task at which training made the model worse was not learned: return None",
        ),
        (
            lambda b, a, f: right(b, a, f) or 0.0,
            "a task that was not learned cannot be forgotten: return None, not 0",
        ),
    ]
    same_for_all(attempt, inputs, right, mistakes, form=_number_or_none, what="the loss")
    return "counts what training added and nothing else; a task that taught nothing gives None"


def _flat(parts: Gradients, others: Gradients) -> torch.Tensor:
    """All parts as one vector; None is as many zeros as its partner has numbers."""
    return torch.cat(
        [
            torch.zeros(0 if other is None else other.numel()).double()
            if part is None
            else part.flatten().double()
            for part, other in zip(parts, others, strict=True)
        ]
    )


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    size = (a.norm() * b.norm()).item()
    return (a @ b).item() / size if size else 0.0


def _both(answer: Callable) -> Callable:
    return lambda old, new: answer(_flat(old, new), _flat(new, old))


def _present(old: Gradients, new: Gradients) -> list[tuple[torch.Tensor, torch.Tensor]]:
    pairs = zip(old, new, strict=True)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def _of_present(old: Gradients, new: Gradients) -> float:
    pairs = _present(old, new)
    if not pairs:
        return 0.0
    return _cosine(*(torch.cat([p[i].flatten().double() for p in pairs]) for i in (0, 1)))


def _mean_of_parts(old: Gradients, new: Gradients) -> float:
    pairs = _present(old, new)
    parts = [_cosine(a.flatten().double(), b.flatten().double()) for a, b in pairs]
    return sum(parts) / len(parts) if parts else 0.0


def _conflict_mistakes() -> list[tuple[Callable, str]]:
    return [
        (
            _of_present,
            "a None is left out together with its partner: it is a gradient of zeros, and the "
            "partner still counts in the length of the other gradient",
        ),
        (
            _mean_of_parts,
            "a mean of the cosines of the parts: the gradient is one vector over all parameters",
        ),
        (_both(lambda a, b: (a @ b).item()), "this is the dot product: divide by both lengths"),
        (
            _both(lambda a, b: (a @ b).item() / (a @ b).abs().item() if (a @ b) else 0.0),
            "this is the sign alone",
        ),
        (
            _both(
                lambda a, b: (a @ b).item() / (a @ a * (b @ b)).item() if a @ a * (b @ b) else 0.0
            ),
            "divided by the squares of the lengths",
        ),
        (_both(lambda a, b: -_cosine(a, b)), "the sign is reversed: parallel gradients give 1"),
        (_both(lambda a, b: 1 - _cosine(a, b)), "this is 1 minus the cosine"),
        (_both(lambda a, b: abs(_cosine(a, b))), "the sign is lost: opposed gradients give -1"),
    ]


@checks("13.2")
def conflict(attempt: Callable) -> str:
    def some(scales: tuple[float, ...]) -> Gradients:
        shapes = [(3, 4), (7,), (2, 2, 2), (5,)]
        return [s * normal(*shape) for s, shape in zip(scales, shapes, strict=True)]

    inputs = []
    for sign in (1, -1, 1):
        old, noise = some((1, 5, 0.2, 2)), some((0.5, 1, 3, 0.1))
        new = [sign * a + b for a, b in zip(old, noise, strict=True)]
        inputs.append((old, new))
    old, new = some((1, 5, 0.2, 2)), some((1, 2, 3, 1))
    holes = [None, old[1], old[2], None], [new[0], None, new[2], None]
    zeros: Gradients = [torch.zeros(3, 4), None, torch.zeros(2, 2, 2), torch.zeros(5)]
    inputs += [holes, (zeros, new), (new, [None] * 4)]

    same_for_all(
        attempt,
        inputs,
        _both(_cosine),
        _conflict_mistakes(),
        form=need_number,
        what="the cosine",
        atol=1e-5,
    )
    return "one number for all parameters, from -1 to 1; parameters without a gradient are zeros"


def _graded(tensor: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return tensor[:, :-1][labels[:, 1:] != IGNORE_INDEX]


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of each row, from log-probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def _over(form: Callable, *, shift: bool = True) -> Callable:
    def answer(before: torch.Tensor, tuned: torch.Tensor, labels: torch.Tensor) -> float:
        p, q = before.log_softmax(-1), tuned.log_softmax(-1)
        if shift:
            p, q = _graded(p, labels), _graded(q, labels)
        else:
            p, q = p[labels != IGNORE_INDEX], q[labels != IGNORE_INDEX]
        return form(p, q).item()

    return answer


def _of_rows(before: torch.Tensor, tuned: torch.Tensor, labels: torch.Tensor) -> float:
    p, q = before.log_softmax(-1), tuned.log_softmax(-1)
    means = [
        _kl(_graded(p[i : i + 1], labels[i : i + 1]), _graded(q[i : i + 1], labels[i : i + 1]))
        for i in range(len(labels))
    ]
    return (sum(m.mean() for m in means if len(m)) / len(means)).item()


def _kl_mistakes() -> list[tuple[Callable, str]]:
    return [
        (_over(lambda p, q: _kl(q, p).mean()), "this is KL(tuned || before): exchange the two"),
        (
            _over(lambda p, q: _kl(p, q).mean(), shift=False),
            "not shifted: row t of the logits predicts token t + 1",
        ),
        (
            lambda b, t, labels: _kl(b.log_softmax(-1), t.log_softmax(-1)).mean().item(),
            "positions that are not graded count",
        ),
        (
            lambda b, t, labels: _kl(b.log_softmax(-1), t.log_softmax(-1))[:, :-1].mean().item(),
            "positions that are not graded count",
        ),
        (_over(lambda p, q: _kl(p, q).sum()), "this is the sum: divide by the graded tokens"),
        (
            _over(lambda p, q: _kl(p, q).mean() / p.shape[-1]),
            "a mean over the vocabulary: KL is a sum over it",
        ),
        (_of_rows, "a mean of the rows' means: rows have different numbers of graded tokens"),
        (
            _over(lambda p, q: _kl(p, q).mean() / math.log(2)),
            "this is in bits: use the natural logarithm",
        ),
        (
            _over(lambda p, q: (p.exp() * -q).sum(-1).mean()),
            "this is the cross-entropy: subtract the entropy of the model before",
        ),
        (
            _over(lambda p, q: 0.5 * (_kl(p, q) + _kl(q, p)).mean()),
            "this is the mean of both directions",
        ),
    ]


@checks("13.4")
def forward_kl(attempt: Callable) -> str:
    inputs = []
    for rows, length, vocabulary in ((2, 9, 7), (3, 11, 12), (1, 8, 5)):
        labels = random_labels(rows, length, vocabulary)
        labels[:, 0] = 1  # graded, and predicted by no row of the logits
        before = 2 * normal(rows, length, vocabulary)
        inputs.append((before, before + 1.5 * normal(rows, length, vocabulary), labels))
    before = normal(2, 10, 6)
    inputs.append((before, before + torch.randn(2, 10, 1), random_labels(2, 10, 6)))

    right = _over(lambda p, q: _kl(p, q).mean())
    same_for_all(attempt, inputs, right, _kl_mistakes(), form=need_number, what="the KL", atol=1e-5)
    return "the right direction, shifted, in nats over the graded tokens"


def _ranks(values: list[float], tie: str = "mean") -> list[float]:
    """Ranks from 1; equal values get the mean, the lowest or the highest of theirs, or ranks in
    order."""
    ranks = []
    for place, value in enumerate(values):
        below = sum(v < value for v in values)
        equal = sum(v == value for v in values)
        earlier = sum(v == value for v in values[:place])
        ranks.append(
            {
                "mean": below + (equal + 1) / 2,
                "first": below + 1 + earlier,
                "low": below + 1,
                "high": below + equal,
                "dense": len({v for v in values if v < value}) + 1,
            }[tie]
        )
    return ranks


def _correlation(x: list[float], y: list[float]) -> float:
    x, y = (torch.tensor(v, dtype=torch.float64) for v in (x, y))
    return _cosine(x - x.mean(), y - y.mean())


@checks("13.5")
def rank_correlation(attempt: Callable) -> str:
    inputs = []
    for sign in (1, -1, 1):
        x = [round(random.gauss(0, 3), 3) for _ in range(9)]
        y = [sign * math.exp(v) + random.gauss(0, 0.5) for v in x]
        inputs.append((x, y))
    # runs in which everything was forgotten: many equal values
    for size in (8, 12):
        x = [random.uniform(0, 10) for _ in range(size)]
        y = [0.0] * (size // 2) + [random.uniform(0.1, 1) for _ in range(size - size // 2)]
        random.shuffle(y)
        inputs.append((x, y))
    x = [float(random.randint(0, 3)) for _ in range(10)] + [0.0, 9.0, 9.0, 9.0]
    inputs.append((x, [v + random.choice((0.0, 0.0, 2.0)) for v in x]))
    # equal values on one side alone
    tied, other = [1.0, 1.0, 2.0, 3.0, 4.0], [5.0, 1.0, 4.0, 2.0, 3.0]
    inputs += [(tied, other), (other, tied)]

    def by(tie: str) -> Callable:
        return lambda x, y: _correlation(_ranks(x, tie), _ranks(y, tie))

    def by_squares(x: list[float], y: list[float]) -> float:
        n, a, b = len(x), _ranks(x), _ranks(y)
        return 1 - 6 * sum((i - j) ** 2 for i, j in zip(a, b, strict=True)) / (n * (n * n - 1))

    def kendall(x: list[float], y: list[float]) -> float:
        pairs = [(i, j) for i in range(len(x)) for j in range(i)]
        signs = [
            (x[i] > x[j]) - (x[i] < x[j]) if (y[i] > y[j]) else (x[i] < x[j]) - (x[i] > x[j])
            for i, j in pairs
            if y[i] != y[j]
        ]
        return sum(signs) / len(pairs)

    mistakes = [
        (_correlation, "this is the correlation of the values: take their ranks first"),
        (by("first"), "equal values get different ranks: give each the mean of their ranks"),
        (by("low"), "equal values get the lowest of their ranks: give each the mean"),
        (by("high"), "equal values get the highest of their ranks: give each the mean"),
        (by("dense"), "equal values use up one rank only: give each the mean of their ranks"),
        (by_squares, "1 - 6 Σd²/(n(n² - 1)) holds without equal values only"),
        (kendall, "this counts pairs in the same order: it is another measure, Kendall's"),
        (lambda x, y: -by("mean")(x, y), "the sign is reversed"),
        (lambda x, y: by("mean")(x, y) ** 2, "this is the square: the sign is lost"),
        (lambda x, y: abs(by("mean")(x, y)), "the sign is lost"),
    ]
    same_for_all(attempt, inputs, by("mean"), mistakes, form=need_number, what="the correlation")
    return "ranks with their mean where values are equal; from -1 to 1"


MOST_OLD, LEAST = 24, 0.75
KEYS = {"old": int, "new": int, "rate": float, "epochs": int}


@cache
def _load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with contextlib.redirect_stdout(io.StringIO()):
        return load("atlas-base")


@cache
def _repaired(old: int, new: int, rate: float, epochs: int) -> dict[str, float]:
    return run_repair(*_load(), old=old, new=new, rate=rate, epochs=epochs, seed=1)


@checks("13.3")
def repair(attempt: object) -> str:
    if not isinstance(attempt, dict) or set(attempt) != set(KEYS):
        raise Mistake(f"expected a dict with {', '.join(KEYS)}, got {shorten(attempt)}")
    for name, kind in KEYS.items():
        value = attempt[name]
        if isinstance(value, bool) or not isinstance(value, kind | int):
            raise Mistake(f"{name} is {value!r}: expected {kind.__name__}")
    old, new, rate, epochs = (attempt[name] for name in KEYS)
    if not 1 <= old <= MOST_OLD:
        raise Mistake(f"old is {old}: at least 1 lesson of task A, and at most {MOST_OLD}")
    if not 0 <= new <= 200 or not 1 <= epochs <= 40 or not 0 < rate <= 0.1:
        raise Mistake("new from 0 to 200, epochs from 1 to 40, rate above 0 and at most 0.1")
    if (old + new) * epochs > 2000:
        raise Mistake(
            f"{(old + new) * epochs} lessons are read, each epoch counted: at most 2,000, or you "
            "train both tasks anew"
        )
    right = _repaired(old, new, float(rate), epochs)
    shares = f"A {right['old']:.0%}, B {right['new']:.0%}"
    if right["old"] < LEAST and right["new"] < LEAST:
        raise Mistake(f"{shares}: both tasks are broken; is the rate too high?")
    if right["old"] < LEAST:
        raise Mistake(f"{shares}: task A is not back; more of its lessons, or more steps")
    if right["new"] < LEAST:
        raise Mistake(f"{shares}: now task B is overwritten; mix some of its lessons in")
    return f"{shares}: both tasks, with {old} old lessons"
