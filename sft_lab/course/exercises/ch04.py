"""Checks of chapter 04, the training loop."""

import contextlib
import copy
import functools
import io
import math
import numbers
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from sft_lab.atlas import ask, load_facts, split
from sft_lab.batches import pad_batch
from sft_lab.course import plain_loop
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
    need_whole,
    normal,
    same,
    same_for_all,
    same_in_all,
    shorten,
    unpack,
)
from sft_lab.course.plain_loop import Batch
from sft_lab.course.short_runs import share_right
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.models import load
from sft_lab.train import evaluate


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


VOCABULARY, PAD = 48, 0  # of the tiny models below


def _tiny_model(seed: int) -> torch.nn.Module:
    """A decoder of two thin layers with random weights."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=24,
        max_position_embeddings=64,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=1,
        initializer_range=0.3,
    )
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config).eval()


def _random_example(prompt: int, answer: int, *, first: bool = False) -> Example:
    """A prompt and a graded answer of so many tokens, token 0 among them; with `first`, the first
    label is set too, although nothing predicts that token."""
    ids = [random.randrange(1, VOCABULARY) for _ in range(prompt + answer)]
    if answer > 1:
        ids[-2] = 0  # token 0 is graded like any other, and pads as well
    labels = [IGNORE_INDEX] * prompt + ids[prompt:]
    if first:
        labels[0] = ids[0]
    return Example(ids, labels)


def _random_batch(*sizes: tuple[int, int], first: bool = False) -> Batch:
    """A padded batch; sizes: the tokens of prompt and answer of each row."""
    return pad_batch([_random_example(*size, first=first) for size in sizes], PAD)


@checks("4.7")
def run_batch(attempt: Callable) -> str:
    model = _tiny_model(random.randrange(10**6))
    batches = [
        _random_batch((3, 9), (6, 2), (2, 4)),
        _random_batch((4, 5)),  # one row, no padding
        _random_batch((2, 7), (5, 3), first=True),
        _random_batch((4, 6), (3, 0)),  # a row without an answer
    ]
    empty = _random_batch((5, 0), (3, 0))

    def loss(found: Any) -> torch.Tensor:
        value, _ = unpack(found, "the summed loss", "the number of graded tokens")
        return need_gradient(value, "the loss")

    def count(found: Any) -> int:
        _, value = unpack(found, "the summed loss", "the number of graded tokens")
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise Mistake(
                f"the number of graded tokens is {value!r}, of type "
                f"{type(value).__name__}: return an int"
            )
        return need_whole(value, "the number of graded tokens", low=0)

    need_finite(
        loss(attempt(model, empty)),
        "nan where no token is graded: a mean of nothing. Take the sum, which is 0",
    )
    inputs = [(model, batch) for batch in (*batches, empty)]
    right = plain_loop.run_batch
    same_for_all(
        attempt, inputs, lambda *x: right(*x)[1], _COUNT_MISTAKES, form=count, what="the count"
    )
    same_for_all(
        attempt, inputs, lambda *x: right(*x)[0], _SUM_MISTAKES, form=loss, what="the summed loss"
    )
    return "equals cross-entropy with ignore_index, shifted and summed; 0 where nothing is graded"


def _nll(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The loss of every position after the shift, 0 where not graded: (B, T - 1)."""
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    targets = batch["labels"][:, 1:]
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none")


def _unshifted(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="sum")


def _graded(batch: Batch) -> torch.Tensor:
    return batch["labels"][:, 1:] != IGNORE_INDEX


def _sum_of_row_means(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    nll, graded = _nll(model, batch), _graded(batch)
    return (nll.sum(dim=1) / graded.sum(dim=1).clamp(min=1)).sum()


def _every_token(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return _nll(model, {**batch, "labels": batch["input_ids"]}).sum()


def _every_real_token(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE_INDEX)
    return _nll(model, {**batch, "labels": labels}).sum()


_NO_SHIFT = "no shift: row t of the logits predicts token t + 1"
_COUNT_MISTAKES = [
    (
        lambda model, batch: (batch["labels"] != IGNORE_INDEX).sum(),
        "the first label of a row is counted, which nothing predicts: count labels[:, 1:]",
    ),
    (lambda model, batch: batch["labels"][:, 1:].numel(), "all positions are counted, padding too"),
    (
        lambda model, batch: batch["attention_mask"].sum(),
        "all real tokens are counted, prompts too: count the labels that are not -100",
    ),
    (lambda model, batch: len(batch["labels"]), "rows are counted: count graded tokens"),
]
_SUM_MISTAKES = [
    (
        lambda model, batch: _nll(model, batch).sum() / _graded(batch).sum().clamp(min=1),
        "this is the mean over graded tokens: return the sum, the mean needs the whole step",
    ),
    (
        lambda model, batch: _nll(model, batch).mean(),
        "this is a mean over all positions: return the sum over graded tokens",
    ),
    (_unshifted, _NO_SHIFT),
    (_sum_of_row_means, "a mean was taken of each row: every graded token weighs the same"),
    (_every_token, "prompts and padding are graded: only labels other than -100 are"),
    (_every_real_token, "prompts are graded: only labels other than -100 are"),
]


@checks("4.8", may_train=True)
def step(attempt: Callable) -> str:
    cases: list[Case] = []
    losses: list[Case] = []
    for given in _random_steps():
        moved, loss = _take(attempt, given)
        expected, expected_loss = _take(_changed_step(), given)
        hints = [(_take(mistake, given)[0], name) for mistake, name in _STEP_MISTAKES]
        cases.append(Case(moved, expected, hints, given.words))
        wrong = [(mistake(expected_loss, given), name) for mistake, name in _LOSS_MISTAKES]
        found = need_number(loss, "the loss that you return")
        losses.append(Case(found, expected_loss, wrong, given.words))
    same_in_all(cases, what="the update of the weights, divided by the rate", atol=1e-5)
    same_in_all(losses, what="the loss that you return")
    return "one update as of one large batch, clipped, at the given rate; each batch runs once"


class _Given(NamedTuple):
    """The input of one step. scale: a factor on every loss, which makes the gradient long or
    short."""

    words: str
    seed: int
    batches: list[Batch]
    rate: float
    scale: float

    def graded(self) -> list[int]:
        return [plain_loop.count_graded(batch) for batch in self.batches]


def _random_steps() -> list[_Given]:
    """Steps with the cases that decide: uneven batches, one without graded tokens, a gradient
    shorter than the limit, a single batch."""
    uneven = [_random_batch((3, 9), (2, 8)), _random_batch((5, 2), first=True)]
    holes = [_random_batch((2, 6)), _random_batch((4, 0), (6, 0)), _random_batch((3, 2), (2, 3))]
    single = [_random_batch((3, 4), (2, 6))]
    steps = []
    for words, batches, scale in [
        ("two batches of uneven size", uneven, 1.0),
        ("three batches, one without a graded token", holes, 1.0),
        ("a gradient shorter than 1", uneven[::-1], 1e-3),
        ("one batch", single, 1.0),
    ]:
        rate = random.uniform(0.01, 0.05)
        steps.append(_Given(words, random.randrange(10**6), batches, rate, scale))
    return steps


def _take(attempt: Callable, given: _Given) -> tuple[torch.Tensor, Any]:
    """By how much `attempt` moves the weights, divided by the rate, and what it returns."""
    model = _tiny_model(given.seed).train()
    before = _flat([weight.detach().clone() for weight in model.parameters()])
    weights = list(model.parameters())
    groups = [{"params": weights[:3]}, {"params": weights[3:]}]
    optimizer = torch.optim.SGD(groups, lr=0.3)  # its update is rate times gradient
    for weight in weights:
        weight.grad = torch.full_like(weight, 0.01)  # left by somebody else
    run = _Watched(given.scale)
    with named(ZeroDivisionError, "you divide by 0: one of the batches has no graded token"):
        loss = attempt(model, optimizer, given.batches, given.rate, run.batch)
    run.check(len(given.batches))
    after = _flat([weight.detach() for weight in model.parameters()])
    need_finite(after, "the weights are nan: divide by the graded tokens of the whole step")
    return (before - after) / given.rate, loss


class _Watched:
    """A `run_batch` that knows how often it ran, and what `backward` has reached."""

    def __init__(self, scale: float) -> None:
        self.scale, self.runs, self.reached = scale, 0, 0

    def batch(self, model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, int]:
        if self.runs > self.reached:
            raise Mistake(
                "a batch runs while the one before still waits for `backward`: then all of them "
                "lie in memory at once. Call backward for each batch before the next one"
            )
        self.runs += 1
        loss, graded = plain_loop.run_batch(model, batch)
        loss = self.scale * loss
        if graded:
            loss.register_hook(self._reach)
        else:  # without a gradient, it may be left out
            self.reached += 1
        return loss, graded

    def _reach(self, slope: torch.Tensor) -> None:
        self.reached += 1

    def check(self, batches: int) -> None:
        if self.runs != batches:
            raise Mistake(f"run_batch ran {self.runs} times for {batches} batches: once for each")
        if self.reached < self.runs:
            raise Mistake("`backward` was not called for every batch")


def _changed_step(
    divide: str = "step",
    fresh: bool = True,
    clip: str = "whole",
    rated: Callable = lambda groups: groups,
    sign: float = 1.0,
) -> Callable:
    """A step, the right one unless something is changed."""

    def step(model, optimizer, batches, rate, run_batch) -> float:
        counts = [plain_loop.count_graded(batch) for batch in batches]
        if fresh:
            optimizer.zero_grad()
        value = 0.0
        for batch, count in zip(batches, counts, strict=True):
            divisor = {
                "step": sum(counts),
                "own": max(1, count),
                "means": len(batches) * max(1, count),
                "batches": len(batches),
                "nothing": 1,
            }[divide]
            loss, _ = run_batch(model, batch)
            (sign * loss / divisor).backward()
            value += loss.item() / sum(counts)
            if clip == "each":
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if clip == "whole":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if clip == "always":
            _scale_to_1(model)
        for group in rated(optimizer.param_groups):
            group["lr"] = rate
        optimizer.step()
        return value

    return step


def _scale_to_1(model: torch.nn.Module) -> None:
    norm = _flat([weight.grad for weight in model.parameters()]).norm()
    for weight in model.parameters():
        weight.grad /= norm


def _no_step(model, optimizer, batches, rate, run_batch) -> float:
    for batch in batches:
        run_batch(model, batch)[0].backward()
    return 0.0


_STEP_MISTAKES = [
    (
        _changed_step("means"),
        "this is the mean of means: divide every sum by the graded tokens of the whole step",
    ),
    (
        _changed_step("own"),
        "every batch is divided by its own tokens: the count that all share is the step's",
    ),
    (_changed_step("batches"), "divided by the number of batches, not of graded tokens"),
    (_changed_step("nothing"), "nothing is divided: the sum grows with the batch"),
    (
        _changed_step(fresh=False),
        "the gradient that was there before counts too: call zero_grad before the first backward",
    ),
    (_changed_step(clip="not"), "the gradient is not clipped: its global norm is at most 1"),
    (_changed_step(clip="each"), "clipped after every batch: clip once, when all are added"),
    (_changed_step(clip="always"), "a gradient shorter than 1 was made longer: leave it"),
    (_changed_step(rated=lambda groups: []), "the rate is not set: the optimizer kept its own"),
    (
        _changed_step(rated=lambda groups: groups[:1]),
        "the rate is set in the first group alone: set it in each of optimizer.param_groups",
    ),
    (_changed_step(sign=-1.0), "the sign is reversed: the loss would grow"),
    (_no_step, "the weights are as they were: call optimizer.step()"),
]
_LOSS_MISTAKES = [
    (
        lambda loss, given: loss * sum(given.graded()),
        "you return the sum: divide by the graded tokens of the step",
    ),
    (
        lambda loss, given: loss * sum(given.graded()) / len(given.batches),
        "you return the mean of the sums: divide by the graded tokens of the step",
    ),
]


class _Clock:
    """What `sft` is given instead of a model's work: a `step` and an `evaluate` that write down
    how they are called, and answer with random numbers."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.calls: list[tuple[str, Any]] = []
        self.losses: list[float] = []
        self.values: list[float] = []
        self.optimizer: torch.optim.Optimizer | None = None

    def step(self, model, optimizer, batches, rate) -> float:
        if model is not self.model:
            raise Mistake("`step` gets another model than `sft` was given: tune that one, in place")
        if not model.training:
            raise Mistake(
                "the model is in eval mode in a step: call model.train() before the first step "
                "and after every evaluation, or dropout is off"
            )
        self._look_at(optimizer)
        self.calls.append(("step", ([_read(batch) for batch in batches], rate)))
        self.losses.append(random.uniform(0.1, 3.0))
        return self.losses[-1]

    def _look_at(self, optimizer: Any) -> None:
        if not isinstance(optimizer, torch.optim.AdamW):
            raise Mistake(f"the optimizer is a {type(optimizer).__name__}, expected AdamW")
        held = [weight for group in optimizer.param_groups for weight in group["params"]]
        if [id(weight) for weight in held] != [id(weight) for weight in self.model.parameters()]:
            raise Mistake("the optimizer does not hold the parameters of this model")
        if any(group["weight_decay"] != 0.0 for group in optimizer.param_groups):
            raise Mistake("weight decay is on (AdamW's default is 0.01): set weight_decay=0.0")
        if self.optimizer not in (None, optimizer):
            raise Mistake(
                "a new optimizer was made during the run: its averages are lost; make one"
            )
        self.optimizer = optimizer

    def evaluate(self, model) -> float:
        if model.training:
            raise Mistake(
                "the model is in training mode in an evaluation: call model.eval() before it, or "
                "dropout disturbs the number"
            )
        self.calls.append(("evaluate", None))
        self.values.append(random.uniform(0.1, 3.0))
        return self.values[-1]


def _read(batch: Any) -> tuple[int, ...]:
    """The examples of a batch, each by its first token, which no other has."""
    if not isinstance(batch, dict) or not {"input_ids", "labels", "attention_mask"} <= set(batch):
        raise Mistake(
            f"`step` takes a list of padded batches, as pad_batch makes them, not {shorten(batch)}"
        )
    ids, labels, mask = batch["input_ids"], batch["labels"], batch["attention_mask"]
    for row, marks, real in zip(ids.tolist(), labels.tolist(), mask.tolist(), strict=True):
        length = row[0] % 7 + 2  # how `_numbered` made it
        if row[1:length] != [row[0]] * (length - 1) or any(real[length:]) or not all(real[:length]):
            raise Mistake("a row of a batch is none of the examples: pad with pad_batch")
        if marks[length:] != [IGNORE_INDEX] * (len(row) - length):
            raise Mistake("padding is graded: its labels are -100, as pad_batch makes them")
        if row[length:] != [PAD] * (len(row) - length):
            raise Mistake("padded with another token than `pad_token_id`")
    return tuple(row[0] for row in ids.tolist())


def _numbered(count: int) -> list[Example]:
    """Examples of 2 to 8 tokens; all tokens of one are the same number, and no other's."""
    numbers_ = random.sample(range(10, 900), count)
    return [Example([n] * (n % 7 + 2), [IGNORE_INDEX] + [n] * (n % 7 + 1)) for n in numbers_]


def _run_sft(attempt: Callable, examples: list[Example], **settings: Any) -> _Clock:
    """What a run did; Mistake when its order of calls or what it returns is not right."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5)).eval()
    clock = _Clock(model)
    before = list(examples)
    found = attempt(model, examples, PAD, clock.step, clock.evaluate, **settings)
    if [id(one) for one in examples] != [id(one) for one in before]:
        raise Mistake("your function changed `examples` in place: shuffle a copy")
    losses, values = unpack(found, "the losses of the steps", "the evaluations")
    _check_epochs(clock, len(examples), **settings)
    same(
        need_list(losses, numbers.Real, "floats, the loss of every step"),
        clock.losses,
        what="the list of losses",
    )
    same(
        need_list(values, numbers.Real, "floats, one an evaluation"),
        clock.values,
        what="the list of evaluations",
    )
    return clock


def _check_epochs(
    clock: _Clock,
    count: int,
    *,
    epochs: int,
    batch_size: int,
    accumulation: int,
    peak: float,
    seed: int,
) -> None:
    """Evaluations at their places; in every epoch each example once, in batches and steps of the
    right size, at the rates of the schedule."""
    an_epoch = math.ceil(math.ceil(count / batch_size) / accumulation)
    names = "".join(name[0] for name, _ in clock.calls)
    if names != "e" + epochs * ("s" * an_epoch + "e"):
        raise Mistake(_explain_calls(names, epochs, an_epoch, count, batch_size, accumulation))
    steps = [call for name, call in clock.calls if name == "step"]
    sizes = [min(batch_size, count - i) for i in range(0, count, batch_size)]
    for epoch in range(epochs):
        windows = [batches for batches, _ in steps[epoch * an_epoch : (epoch + 1) * an_epoch]]
        seen = [row for batches in windows for batch in batches for row in batch]
        if len(set(seen)) < len(seen):
            raise Mistake(f"epoch {epoch + 1} takes an example twice: each exactly once")
        if len(seen) < count:
            raise Mistake(
                f"epoch {epoch + 1} takes {len(seen)} of {count} examples: the last batch may be "
                "smaller, and is not dropped"
            )
        found = [len(batch) for batches in windows for batch in batches]
        same(sorted(found), sorted(sizes), what=f"the sizes of the batches of epoch {epoch + 1}")
        full = [min(accumulation, len(sizes) - i) for i in range(0, len(sizes), accumulation)]
        same([len(batches) for batches in windows], full, what="the batches in each step")
    _check_rates([rate for _, rate in steps], len(steps), peak)


def _explain_calls(
    names: str, epochs: int, an_epoch: int, count: int, batch_size: int, accumulation: int
) -> str:
    steps, evaluations = names.count("s"), names.count("e")
    setting = (
        f"{count} examples, batch_size {batch_size}, accumulation {accumulation}, {epochs} epochs"
    )
    if steps == epochs * an_epoch and evaluations != epochs + 1:
        return (
            f"{evaluations} evaluations in {epochs} epochs: one before the first step, and one "
            "after every epoch"
        )
    if steps != epochs * an_epoch:
        return f"{steps} steps, expected {epochs * an_epoch}, for {setting}"
    return f"evaluations at the wrong places (e evaluation, s step): {names}, for {setting}"


def _check_rates(rates: list[float], total: int, peak: float) -> None:
    warmup = math.ceil(0.1 * total)

    def schedule(total=total, warmup=warmup, first=0, peak=peak) -> list[float]:
        return [_rate(step + first, total, warmup, peak) for step in range(len(rates))]

    hints = [
        ([peak] * total, "the rate stays at the peak: take the schedule of section 2"),
        (schedule(peak=1.0), "this is a factor between 0 and 1: multiply it by the peak"),
        (schedule(first=1), "steps count from 0 over the whole run"),
        (schedule(warmup=0), "there is no warm-up: it takes a tenth of the steps, rounded up"),
        (schedule(warmup=int(0.1 * total)), "the warm-up is rounded up: ceil(0.1 * total)"),
    ]
    hints = [hint for hint in hints if hint[0] != schedule()]
    found = [need_number(rate, "the rate of a step") for rate in rates]
    same(found, schedule(), hints, what="the list of rates", atol=1e-6 * peak)


@checks("4.9", may_train=True)
def sft(attempt: Callable) -> str:
    examples, peak = _numbered(23), random.uniform(1e-4, 1e-2)
    common = {"peak": peak, "seed": random.randrange(1000)}
    plain = {"epochs": 3, "batch_size": 4, "accumulation": 1, **common}
    gathered = {"epochs": 2, "batch_size": 4, "accumulation": 4, **common}
    small = {"epochs": 2, "batch_size": 8, "accumulation": 2, **common}
    with named(ZeroDivisionError, "a division by 0: the run has few steps, or no warm-up"):
        first = _run_sft(attempt, examples, **plain)
        _ = _run_sft(attempt, examples, **gathered)
        _ = _run_sft(attempt, examples[:5], **small)
        again = _run_sft(attempt, examples, **plain)
        other = _run_sft(attempt, examples, **{**plain, "seed": plain["seed"] + 1})
    orders = [_orders(clock, 3) for clock in (first, again, other)]
    if orders[0][0] == [example.input_ids[0] for example in examples]:
        raise Mistake("nothing is shuffled: the examples come in the order they were given in")
    if orders[0][0] == orders[0][1]:
        raise Mistake("every epoch has the same order: shuffle anew in each")
    if orders[0] != orders[1]:
        raise Mistake("two runs with one seed have different orders: draw the order from `seed`")
    if orders[0][0] == orders[2][0]:
        raise Mistake("another seed gives the same order: draw the order from `seed`")
    return "each example once an epoch in a drawn order, the rates of the schedule, modes and all"


def _orders(clock: _Clock, epochs: int) -> list[list[int]]:
    """The examples of each epoch, in their order."""
    steps = [batches for name, call in clock.calls if name == "step" for batches in call[:1]]
    rows = [row for batches in steps for batch in batches for row in batch]
    size = len(rows) // epochs
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@checks("4.10")
def loop(attempt: Any) -> str:
    names = ("run_batch (4.7)", "step (4.8)", "sft (4.9)", "your settings")
    run_batch, step, sft, settings = unpack(attempt, *names)
    functions = (run_batch, step, sft)
    rungs = [_rung(function, name) for function, name in zip(functions, names, strict=False)]
    settings = _need_settings(settings)
    seed = random.randrange(10**6)
    base, tokenizer = _load_base()
    facts, others = (
        [fact for fact in split(load_facts())[part] if fact.domain in DOMAINS]
        for part in ("train", "held_out")
    )
    rng = random.Random(seed)
    examples = encode_conversations(ask(rng.sample(facts, QUESTIONS), seed=seed), tokenizer)
    held_out = ask(rng.sample(others, ASKED), seed=seed + 1)
    judged = encode_conversations(held_out, tokenizer)

    def one_step(model, optimizer, batches, rate):
        return rungs[1](model, optimizer, batches, rate, rungs[0])

    def held_out_loss(model) -> float:
        return evaluate(model, tokenizer, judged)["loss"]

    model = copy.deepcopy(base)
    pad = tokenizer.pad_token_id
    losses, values = unpack(
        rungs[2](model, examples, pad, one_step, held_out_loss, seed=seed, **settings),
        "the losses of the steps",
        "the evaluations",
    )
    losses = need_list(losses, numbers.Real, "floats, the loss of every step")
    values = need_list(values, numbers.Real, "floats, one an evaluation")
    right = share_right(model.eval(), tokenizer, held_out, max_new_tokens=40)
    if right < BAR:
        raise Mistake(_explain_run(right, values, losses))
    return f"your loop, {len(losses)} steps: {right:.1%} of {ASKED} held-out questions right"


# of 4.10: what is asked about, questions to learn from and to be judged by, the budget, the bar
DOMAINS = ("countries", "animals")
QUESTIONS, ASKED = 480, 300
ROWS, MOST_STEPS, BAR = 960, 120, 0.95


def _need_settings(settings: Any) -> dict[str, Any]:
    wanted = ("epochs", "batch_size", "accumulation", "peak")
    if not isinstance(settings, dict) or set(settings) != set(wanted):
        raise Mistake(
            f"settings is a dict with the keys {', '.join(wanted)}, not {shorten(settings)}"
        )
    for name in wanted[:3]:
        need_whole(settings[name], name, low=1)
    if not 0 < need_number(settings["peak"], "peak") < 1:
        raise Mistake(f"peak is {settings['peak']}: a learning rate lies between 0 and 1")
    rows = QUESTIONS * settings["epochs"]
    if rows > ROWS:
        raise Mistake(f"{settings['epochs']} epochs read {rows:,} rows: at most {ROWS:,}")
    steps = settings["epochs"] * math.ceil(
        math.ceil(QUESTIONS / settings["batch_size"]) / settings["accumulation"]
    )
    if steps > MOST_STEPS:
        raise Mistake(f"{steps} steps: at most {MOST_STEPS}; take more examples a step")
    return settings


def _explain_run(right: float, values: list[float], losses: list[float]) -> str:
    """What a run that missed the bar looks like, by its losses."""
    way = " → ".join(f"{value:.2f}" for value in values)
    line = f"{right:.1%} right after {len(losses)} steps, the bar is {BAR:.0%}; held-out loss {way}"
    if not losses or len(values) < 2 or not math.isfinite(values[-1]):
        return f"{line}: it is not a number, or was not measured"
    if values[-1] > values[0] or max(losses) > 1.5 * losses[0]:
        return f"{line}: the model broke, the rate is too high"
    if values[-1] > 0.3:
        return f"{line}: it still has far to go; the rate is too low, or the steps are too few"
    return f"{line}: near. A rate a little too high forgets facts; a little too low is not done"


def _rung(function: Any, name: str) -> Callable:
    """The reader's function; where it is the stub as shipped, Mistake says which exercise it is."""

    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            found = function(*args, **kwargs)
        except NotImplementedError as error:
            if error.args:
                raise
            raise Mistake(f"{name} is not attempted yet: this exercise stands on it") from None
        if found is None:
            raise Mistake(f"{name} returns None: did you forget `return`?")
        return found

    return called


@functools.cache
def _load_base() -> tuple[Any, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        return load("atlas-base", dtype=torch.float32)
