"""Checks of chapter 04, the training loop."""

import math
import numbers
import operator
import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from sft_lab.course.exercises.kit import (
    Case,
    Hints,
    Mistake,
    checks,
    named,
    need_finite,
    need_gradient,
    need_list,
    need_number,
    need_tensor,
    normal,
    random_labels,
    same,
    same_for_all,
    same_in_all,
    shorten,
    unpack,
)
from sft_lab.examples import IGNORE_INDEX


@checks("4.1")
def adamw_step(attempt: Callable) -> str:
    shape = random.randint(2, 4), random.randint(3, 4)
    lr, decay = random.uniform(0.01, 0.1), random.uniform(0.5, 1.0)
    w = normal(*shape) + 2.0
    w[1] *= -1.0
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    leaf = w.clone().requires_grad_()
    optimizer = torch.optim.AdamW([leaf], lr=lr, weight_decay=decay)
    names = ("the new w", "m", "v")
    cases: list[list[Case]] = [[], [], []]
    for t in range(1, 7):
        g = normal(*shape) + 0.3
        g[0] *= 1e-8  # as small as eps
        g[0, 0] = 0.0
        leaf.grad = g
        optimizer.step()
        mean, square = (optimizer.state[leaf][name] for name in ("exp_avg", "exp_avg_sq"))
        right = [tensor.detach().clone() for tensor in (leaf, mean, square)]
        found = unpack(attempt(w, g, m, v, t, lr, decay), *names)
        hat = "is returned with its hat: return the running mean itself, the next step needs it"
        hints = [
            _adamw_hints(w, g, m, v, t, lr, decay),
            [(mean / (1 - 0.9**t), f"m {hat}")],
            [(square / (1 - 0.999**t), f"v {hat}")],
        ]
        for part, name in enumerate(names):
            case = Case(need_tensor(found[part], name), right[part], hints[part], f"step {t}")
            cases[part].append(case)
        w, m, v = right
    for part, name in enumerate(names):
        same_in_all(cases[part], what=name, rtol=2e-6, atol=0.0)
    return "equals torch.optim.AdamW over six steps, with weight decay and slopes as small as eps"


def _adamw_hints(w, g, m, v, t: int, lr: float, decay: float) -> Hints:
    """The weight that each usual mistake gives in this step."""

    def means(slope=g, hats=True):
        mean, square = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        return (mean / (1 - 0.9**t), square / (1 - 0.999**t)) if hats else (mean, square)

    def weight(slope=g, hats=True, shrink=decay, divide=lambda m, v: m / (v.sqrt() + 1e-8)):
        return w - lr * shrink * w - lr * divide(*means(slope, hats))

    scale = math.sqrt(1 - 0.999**t)
    in_the_slope = (
        "weight decay went into the slope (Adam with L2): AdamW shrinks w directly, by "
        "lr · weight_decay"
    )
    no_decay = "weight decay is missing: w also shrinks by lr · weight_decay · w"
    no_rate = "weight decay without the learning rate: it shrinks by lr · decay"
    return [
        (weight(slope=g + decay * w, shrink=0.0), in_the_slope),
        (weight(shrink=0.0), no_decay),
        (weight(shrink=decay / lr), no_rate),
        (weight(hats=False), "the hats are missing: divide m by 1 - 0.9^t and v by 1 - 0.999^t"),
        (weight(divide=lambda m, v: m / (v + 1e-8)), "the square root of v is missing"),
        (
            weight(divide=lambda m, v: m / (v + 1e-8).sqrt()),
            "eps stands inside the root: add it behind the root of v",
        ),
        (
            weight(divide=lambda m, v: m / (v.sqrt() + 1e-8 / scale)),
            "eps is added before v gets its hat: take the root of v with its hat, then add eps",
        ),
        (2 * w * (1 - lr * decay) - weight(), "the sign is reversed: w moves against its slope"),
        (
            w - lr * decay * w - lr * g,
            "this is plain gradient descent: divide the mean m by the root of v",
        ),
    ]


@checks("4.2")
def rate_at(attempt: Callable) -> str:
    from_0 = "steps count from 0, and step 0 has rate 0"
    mistakes = [
        (
            lambda step, total, warmup, peak: _rate(step, total, warmup, 1.0),
            "this is a factor between 0 and 1: multiply it by the peak",
        ),
        (_changed_rate(rise=lambda step, warmup: (step + 1) / warmup), from_0),
        (
            _changed_rate(way=lambda step, warmup, total: step / total),
            "the cosine runs over all steps: it starts where the warm-up ends",
        ),
        (
            _changed_rate(fall=lambda done: math.cos(math.pi * done)),
            "cos falls from 1 to -1: take half of 1 + cos",
        ),
        (
            _changed_rate(fall=lambda done: math.cos(math.pi * done / 2)),
            "a quarter of a cosine wave: the shape is half of 1 + cos(π · done)",
        ),
        (
            _changed_rate(fall=lambda done: 1 - done),
            "this falls in a line: the decay is a cosine",
        ),
        (_changed_rate(fall=lambda done: 1.0), "the rate stays at the peak after the warm-up"),
    ]
    peak = random.uniform(1e-4, 1e-2)
    what = {"form": need_number, "what": "the rate", "rtol": 1e-5, "atol": 1e-6 * peak}
    total = random.randint(41, 89)
    settings = [(total, random.randint(5, total // 3)), (random.randint(20, 30), 1)]
    inputs = [(step, total, warmup, peak) for total, warmup in settings for step in range(total)]
    same_for_all(attempt, inputs, _rate, mistakes, **what)
    inputs = [(step, total, 0, peak) for step in range(total)]
    with named(ZeroDivisionError, "without warm-up (warmup = 0) you divide by zero"):
        same_for_all(attempt, inputs, _rate, **what)
    return "equals the usual schedule during and after the warm-up, and without one"


def _changed_rate(
    rise: Callable = lambda step, warmup: step / warmup,
    way: Callable = lambda step, warmup, total: (step - warmup) / (total - warmup),
    fall: Callable = lambda done: 0.5 * (1 + math.cos(math.pi * done)),
) -> Callable:
    """A schedule, the usual one unless something is changed."""

    def rate(step: int, total: int, warmup: int, peak: float) -> float:
        part = rise(step, warmup) if step < warmup else fall(way(step, warmup, total))
        return peak * part

    return rate


_rate = _changed_rate()


@checks("4.3")
def clip(attempt: Callable) -> str:
    matrix = normal(random.randint(2, 4), random.randint(2, 4)) + 1.0
    matrix[0, 0] = -2.0  # signs count
    gradients = [
        0.3 * normal(3) + 0.3,
        matrix,
        3 * normal(random.randint(3, 5)) + 3.0,
        normal(2, 1, 2),
    ]
    random.shuffle(gradients)
    norms = sorted(g.norm().item() for g in gradients)
    norm = _flat(gradients).norm().item()

    def ask(gradients: list[torch.Tensor], limit: float) -> torch.Tensor:
        return _clipped(attempt, gradients, limit)

    # below the norm of every tensor, of some, of none, and hardly below the global norm
    limits = [0.5 * norms[0], 0.5 * (norms[1] + norms[2]), 0.5 * (norms[-1] + norm), 0.999 * norm]
    limits = [(gradients, limit) for limit in limits]
    limits.append(([0.05 * g for g in gradients], 0.025 * norm))  # a norm below 1
    same_for_all(
        ask, limits, _clip, _CLIP_MISTAKES, what="the clipped gradient", rtol=1e-5, atol=1e-9
    )
    scaled_up = [
        (
            lambda gs, limit: _flat(gs) * limit / _flat(gs).norm(),
            "a short gradient was scaled up: leave it as it is",
        )
    ]
    short = [(gradients, factor * norm) for factor in (1.001, 1.5, 3.0)]
    same_for_all(ask, short, _clip, scaled_up, what="a gradient shorter than the limit")
    zeros = ask([torch.zeros(3), torch.zeros(2, 2)], 1.0)
    same(
        need_finite(zeros, "nan where every slope is 0: do not divide by a norm of 0"),
        torch.zeros(7),
        what="a gradient of zeros",
    )
    return "equals torch's clip_grad_norm_; short gradients and zeros stay as they are"


def _clip(gradients: list[torch.Tensor], limit: float) -> torch.Tensor:
    leaves = [torch.zeros_like(g, requires_grad=True) for g in gradients]
    for leaf, g in zip(leaves, gradients, strict=True):
        leaf.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(leaves, limit)
    return _flat([leaf.grad for leaf in leaves])


def _clipped(attempt: Callable, gradients: list[torch.Tensor], limit: float) -> torch.Tensor:
    found = need_list(attempt(gradients, limit), torch.Tensor, "tensors, one a gradient")
    shapes = [tuple(tensor.shape) for tensor in found]
    same(shapes, [tuple(g.shape) for g in gradients], what="the list of shapes")
    return _flat(found)


def _flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


_CLIP_MISTAKES = [
    (
        lambda gs, limit: _flat([g * min(1.0, limit / g.norm().item()) for g in gs]),
        "every tensor was clipped by its own norm: the norm is one, over all of them",
    ),
    (
        lambda gs, limit: _flat([g * min(1.0, limit / max(g.norm().item(), 1e-9)) for g in gs]),
        "every tensor was clipped by its own norm: the norm is one, over all of them",
    ),
    (
        lambda gs, limit: _flat([g.clamp(-limit, limit) for g in gs]),
        "a clamp of each number turns the direction: scale all by one factor",
    ),
    (
        lambda gs, limit: _flat(gs) / _flat(gs).norm(),
        "scaled to length 1: the limit is max_norm",
    ),
    (
        lambda gs, limit: _flat(gs) * limit / sum(g.norm() for g in gs),
        "norms do not add, their squares do",
    ),
    (
        lambda gs, limit: _flat(gs) * limit / _flat(gs).norm() ** 2,
        "the square root is missing in the norm",
    ),
    (
        lambda gs, limit: _flat(gs),
        "nothing was clipped: the norm over all tensors is above the limit",
    ),
]


@checks("4.4")
def micro_losses(attempt: Callable) -> str:
    total = "the count that all micro-batches share is the step's"
    mistakes = [
        (
            lambda parts: [part.sum() for part in parts],
            "nothing is divided: the sum over all tokens grows with the batch",
        ),
        (
            lambda parts: [part.mean() / len(parts) for part in parts],
            "this is the mean of means: divide every sum by the tokens of the step",
        ),
        (
            lambda parts: [part.mean() for part in parts],
            f"every micro-batch is divided by its own tokens: {total}",
        ),
        (
            lambda parts: [part.sum() / len(parts) for part in parts],
            "divided by the number of micro-batches, not of tokens",
        ),
        (
            lambda parts: [part / len(parts) for part in _micro_losses(parts)],
            "divided once too often: by the tokens of the step alone",
        ),
    ]

    def ask(parts: list[torch.Tensor]) -> list[torch.Tensor]:
        scalars = attempt(parts)
        if not isinstance(scalars, list | tuple) or len(scalars) != len(parts):
            raise Mistake(
                f"return a list of {len(parts)} numbers, one a micro-batch, not {shorten(scalars)}"
            )
        if any(scalar is None for scalar in scalars):
            raise Mistake("one of your numbers is None: `backward` is called on each of them")
        return [need_gradient(scalar, "what you return") for scalar in scalars]

    weight, losses = _random_losses()
    # the three dear tokens alone, then uneven micro-batches
    cuts = [sorted(random.sample(range(4, len(losses) - 2), k)) for k in (2, 3, 4)]
    full = [(list(losses.tensor_split([3, *places])),) for places in cuts]
    what = "the numbers for `backward`, one a micro-batch: what you return"
    same_for_all(ask, full, _micro_losses, mistakes, what=what)

    nothing = losses[:0]
    empty = [([nothing, *full[0][0]],), ([*full[1][0][:2], nothing, *full[1][0][2:], nothing],)]
    for (parts,) in empty:
        need_finite(
            torch.stack(ask(parts)),
            "a micro-batch without graded tokens gave nan: a mean of nothing; take sums",
        )
    same_for_all(ask, empty, _micro_losses, what=what)
    for (parts,) in (*full, *empty):
        _compare_slopes(ask(parts), _micro_losses(parts), weight)
    return "each number and its slope is its share of one batch, however the tokens are cut"


def _random_losses() -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and token losses that depend on it: the first three are dear, two are equal, two
    are exactly 0."""
    weight = normal(5).requires_grad_()
    rows = normal(random.randint(24, 36), 5)
    rows[10:12] = 0.0
    dear = 20 * rows[:, 0].abs() * (torch.arange(len(rows)) < 3)  # what three tokens cost more
    losses = (rows @ weight) ** 2 + dear
    return weight, torch.cat([losses, losses[7:8]])


def _micro_losses(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    return [part.sum() / sum(map(len, parts)) for part in parts]


def _compare_slopes(found: list[torch.Tensor], right: list, weight: torch.Tensor) -> None:
    def slope(loss: torch.Tensor) -> torch.Tensor:
        (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True, allow_unused=True)
        return torch.zeros_like(weight) if gradient is None else gradient

    for number, (loss, expected) in enumerate(zip(found, right, strict=True), 1):
        same(slope(loss), slope(expected), what=f"the slope of number {number} of {len(right)}")


@checks("4.5")
def measure_logits(attempt: Callable) -> str:
    def part(found: Any, number: int) -> float:
        return need_number(unpack(found, *_MEASURE_MISTAKES)[number], f"the {names[number]}")

    names = list(_MEASURE_MISTAKES)
    inputs = [_random_logits(rows) for rows in (3, 2, 4)]
    for number, (name, mistakes) in enumerate(_MEASURE_MISTAKES.items()):
        same_for_all(
            attempt,
            inputs,
            lambda x, y, number=number: _measure(x, y)[number],
            mistakes,
            form=lambda found, number=number: part(found, number),
            what=f"the {name}",
        )
    far = [_far_logits()]
    for number, name in enumerate(names):
        log_of_softmax = [(lambda x, y: math.inf, _LOG_OF_SOFTMAX)]
        same_for_all(
            attempt,
            far,
            lambda x, y, number=number: _measure(x, y)[number],
            log_of_softmax,
            form=lambda found, number=number: part(found, number),
            what=f"the {name} of logits far apart",
        )
    return "equals torch's masked cross-entropy, shifted; all three over the same tokens"


def _far_logits() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels, where one graded token is hundreds of nats below the best, and the logits
    of another place are large."""
    logits, labels = _random_logits(2)
    place = int((labels[0] != IGNORE_INDEX).nonzero()[-1])
    logits[0, place - 1, labels[0, place]] = -random.uniform(200.0, 400.0)
    logits[0, place - 2] += 300.0
    return logits, labels


def _random_logits(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels; some tokens are predicted surely, some as the best of many likely ones,
    some wrongly. A first label is graded, which nothing predicts."""
    length, size = 10, 7
    labels = random_labels(rows, length, size)
    labels[1:, 0] = random.randrange(1, size)
    if rows > 2:  # a label in the middle of an answer is ignored
        row = labels[int((labels != IGNORE_INDEX).sum(dim=1).argmax())]
        row[(row[1:] != IGNORE_INDEX).nonzero()[1] + 1] = IGNORE_INDEX
    logits, targets = 2 * torch.randn(rows, length, size), labels[:, 1:].clamp(min=0)
    one_hot = F.one_hot(targets, size)
    likely = 0.1 * torch.rand(rows, length - 1, size) + 0.2 * one_hot
    kind = torch.randint(3, targets.shape)[..., None]
    kind[0, -3:, 0] = torch.tensor([0, 1, 2])  # of each kind at least one
    chosen = torch.where(kind == 0, logits[:, :-1] + 12.0 * one_hot, likely)
    logits[:, :-1] = torch.where(kind == 2, logits[:, :-1] - 12.0 * one_hot, chosen)
    return logits, labels


def _measure(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    loss = _nll(logits, labels)[_graded(labels)].mean()
    return loss, _hits(logits, labels)[_graded(labels)].mean(), loss.exp()


def _graded(labels: torch.Tensor) -> torch.Tensor:
    return labels[:, 1:] != IGNORE_INDEX


def _nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The losses after the shift, 0 where not graded: (B, T - 1)."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")


def _hits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (logits[:, :-1].argmax(dim=-1) == labels[:, 1:]).float()


def _of_rows(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean of each row's graded values: (B,)."""
    return (values * _graded(labels)).sum(dim=1) / _graded(labels).sum(dim=1)


def _unshifted_hits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (logits.argmax(dim=-1) == labels).float()


_NO_SHIFT = "no shift: row t of the logits predicts token t + 1"
_ALL_POSITIONS = "divided by all positions: divide by the graded tokens"
_FIRST_LABELS = "the first label of a row is counted, which nothing predicts"
_ROW_MEANS = "a mean of row means: every graded token weighs the same"
_MEAN_OF_EXP = (
    "the exponential comes last: exp of the mean over all graded tokens, not a mean of exp"
)
_LOG_OF_SOFTMAX = (
    "the softmax of a token hundreds of nats below the best is 0 in floating point, and its "
    "logarithm -inf: take log_softmax"
)
_MEASURE_MISTAKES = {
    "loss": [
        (lambda x, y: F.cross_entropy(x.transpose(1, 2), y), _NO_SHIFT),
        (lambda x, y: _nll(x, y).mean(), _ALL_POSITIONS),
        (lambda x, y: _nll(x, y).sum() / (y != IGNORE_INDEX).sum(), _FIRST_LABELS),
        (
            lambda x, y: _nll(x, y).sum(),
            "this is the sum: divide by the number of graded tokens",
        ),
        (lambda x, y: _of_rows(_nll(x, y), y).mean(), _ROW_MEANS),
    ],
    "accuracy": [
        (lambda x, y: _hits(x, y).mean(), _ALL_POSITIONS),
        (lambda x, y: _hits(x, y).sum() / (y != IGNORE_INDEX).sum(), _FIRST_LABELS),
        (lambda x, y: _unshifted_hits(x, y).mean(), f"{_NO_SHIFT}; {_ALL_POSITIONS}"),
        (lambda x, y: _unshifted_hits(x, y)[y != IGNORE_INDEX].mean(), _NO_SHIFT),
        (lambda x, y: _of_rows(_hits(x, y), y).mean(), _ROW_MEANS),
        (
            lambda x, y: 100 * _measure(x, y)[1],
            "return a share between 0 and 1, not per cent",
        ),
    ],
    "perplexity": [
        (lambda x, y: _nll(x, y)[_graded(y)].exp().mean(), _MEAN_OF_EXP),
        (lambda x, y: _of_rows(_nll(x, y), y).exp().mean(), _MEAN_OF_EXP),
        (lambda x, y: 2.0 ** _measure(x, y)[0], "the loss is in nats: take e to the loss, not 2"),
        (
            lambda x, y: (-_measure(x, y)[0]).exp(),
            "the sign: perplexity is e to the loss, at least 1",
        ),
    ],
}


@checks("4.6")
def early_stop(attempt: Callable) -> str:
    def form(found: Any) -> list[int]:
        pair = unpack(found, "the best epoch", "the last epoch run")
        return need_list(list(pair), numbers.Integral, "two whole numbers, the epochs' indices")

    mistakes = [
        (
            lambda losses, patience: (losses.index(min(losses)), _stop(losses, patience)[1]),
            "the best epoch lies beyond the last one run: look at epochs seen by then",
        ),
        (
            lambda losses, patience: (_stop(losses, patience)[1],) * 2,
            "keep the best epoch's weights, not the last one's",
        ),
        (
            lambda losses, patience: (_stop(losses, patience)[0],) * 2,
            "the second number is the last epoch run, `patience` after the best",
        ),
        (
            lambda losses, patience: _stop(losses, patience + 1),
            "one epoch too late: the `patience`-th epoch without a new lowest loss is the last",
        ),
        (
            lambda losses, patience: (losses.index(min(losses)), len(losses) - 1),
            "it does not stop; count the epochs since the best",
        ),
        (
            lambda losses, patience: tuple(epoch + 1 for epoch in _stop(losses, patience)),
            "epochs count from 0",
        ),
        (
            lambda losses, patience: _stop(losses, patience, better=operator.le),
            "an equal loss is no new lowest",
        ),
        (
            _count_rises,
            "you compare with the epoch before: compare with the lowest loss so far",
        ),
    ]
    what = "(best epoch, last epoch run)"
    same_for_all(attempt, _random_runs(), _stop, mistakes, form=form, what=what)
    return "keeps the best epoch seen, waits out a bump, ends a flat run, and never looks ahead"


def _random_runs() -> list[tuple[list[float], int]]:
    """Validation losses and a patience: one run of each kind, and a few at random."""
    start = random.uniform(2.0, 4.0)
    falling = [start - 0.1 * epoch - random.uniform(0.0, 0.05) for epoch in range(4)]
    low = falling[-1]

    def go_on(*above: float) -> list[float]:
        """The falling losses, and then these, as distances from the lowest."""
        return [round(loss, 3) for loss in (*falling, *(low + distance for distance in above))]

    runs = [
        (go_on(0.3, 0.2, 0.4, 0.3, -0.5), 3),  # turns up, and would fall again later
        (go_on(0.3, -0.2, 0.1, 0.2, 0.0), 2),  # one bump before its best epoch
        (go_on(), 2),  # falls to the end
        ([go_on()[-1]] * 6, 2),  # flat
        (go_on(0.5, 0.4, 0.3, 0.2), 3),  # falls again, but never below its best
        (go_on(0.1, -0.003, 0.1, -0.006, 0.1, 0.2), 2),  # new lowest losses by very little
        (go_on(0.1, 0.0, 0.1, 0.2), 4),  # reaches the lowest once more
        (go_on(0.2, -0.1), 1),
        (go_on(0.2, -0.1, 0.1), 2),  # ends before the patience does
        ([go_on()[0]], 1),  # one epoch
        ([15.2, 14.9, 15.0, 15.1], 2),  # high, as with a large vocabulary
        (go_on() + [go_on()[-1] - step * 1e-5 for step in (1, 2, 0, 0)], 2),  # hardly lower
    ]
    for _ in range(6):
        losses = [round(start + random.choice([0.0, 0.1, 0.2, 0.3]), 2) for _ in range(8)]
        runs.append((losses, random.randint(1, 4)))
    return runs


def _stop(
    losses: list[float], patience: int, better: Callable[[float, float], bool] = operator.lt
) -> tuple[int, int]:
    """The best epoch seen and the last one run."""
    best = 0
    for epoch, loss in enumerate(losses):
        if better(loss, losses[best]):
            best = epoch
        if epoch - best == patience:
            return best, epoch
    return best, len(losses) - 1


def _count_rises(losses: list[float], patience: int) -> tuple[int, int]:
    rises = 0
    for epoch in range(1, len(losses)):
        rises = rises + 1 if losses[epoch] > losses[epoch - 1] else 0
        if rises == patience:
            return losses.index(min(losses[: epoch + 1])), epoch
    return losses.index(min(losses)), len(losses) - 1
