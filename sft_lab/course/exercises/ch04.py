"""Checks of chapter 04, the training loop."""

import math
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F

from sft_lab.course.exercises.kit import (
    Hints,
    Mistake,
    checks,
    named,
    need_finite,
    need_gradient,
    need_list,
    need_whole,
    normal,
    random_labels,
    same,
    unpack,
)
from sft_lab.examples import IGNORE_INDEX


@checks("4.1")
def adamw_step(attempt: Callable) -> str:
    shape = random.randint(2, 4), random.randint(2, 4)
    lr, decay = random.uniform(0.01, 0.1), random.uniform(0.5, 1.0)
    w = normal(*shape) + 2.0
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    leaf = w.clone().requires_grad_()
    optimizer = torch.optim.AdamW([leaf], lr=lr, weight_decay=decay)
    for t in range(1, 6):
        g = normal(*shape) + 0.3
        hints = _adamw_hints(w, g, m, v, t, lr, decay)
        leaf.grad = g
        optimizer.step()
        mean, square = (optimizer.state[leaf][name] for name in ("exp_avg", "exp_avg_sq"))
        with_hat = (
            "is returned with its hat: return the running mean itself, the next step needs it"
        )
        found = unpack(attempt(w, g, m, v, t, lr, decay), "the new w", "m", "v")
        same(found[0], leaf, hints, what=f"w after step {t}")
        same(found[1], mean, [(mean / (1 - 0.9**t), f"m {with_hat}")], what=f"m after step {t}")
        hints = [(square / (1 - 0.999**t), f"v {with_hat}")]
        same(found[2], square, hints, what=f"v after step {t}", atol=1e-10)
        w, m, v = (tensor.detach().clone() for tensor in found)
    return "equals torch.optim.AdamW over five steps, with weight decay"


def _adamw_hints(w, g, m, v, t: int, lr: float, decay: float) -> Hints:
    """The weight that each usual mistake gives in this step."""

    def weight(slope=g, hats=True, root=True, shrink=decay):
        mean, square = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        if hats:
            mean, square = mean / (1 - 0.9**t), square / (1 - 0.999**t)
        return w - lr * shrink * w - lr * mean / ((square.sqrt() if root else square) + 1e-8)

    in_the_slope = (
        "weight decay went into the slope (Adam with L2): AdamW shrinks w directly, by "
        "lr · weight_decay"
    )
    no_decay = "weight decay is missing: w also shrinks by lr · weight_decay · w"
    no_rate = "weight decay without the learning rate: it shrinks by lr · decay"
    plain = w - lr * decay * w - lr * g
    # a first step has length lr, whatever the slope: then the first two give nearly one value
    return [
        (weight(slope=g + decay * w, shrink=0.0), in_the_slope),
        (weight(shrink=0.0), no_decay),
        (weight(shrink=decay / lr), no_rate),
        (weight(hats=False), "the hats are missing: divide m by 1 - 0.9^t and v by 1 - 0.999^t"),
        (weight(root=False), "the square root of v is missing"),
        (2 * w * (1 - lr * decay) - weight(), "the sign is reversed: w moves against its slope"),
        (plain, "this is plain gradient descent: divide the mean m by the root of v"),
    ]


@checks("4.2")
def rate_at(attempt: Callable) -> str:
    total, peak = random.randint(40, 90), random.uniform(1e-4, 1e-1)
    warmup = random.randint(5, total // 3)
    exact = {"rtol": 1e-5, "atol": 1e-12}
    # of the fall, the first and the last third: in its middle a line and a cosine meet
    third = (total - warmup) // 3
    early, late = warmup + random.randint(2, third), total - random.randint(2, third)
    for step in (random.randint(1, warmup - 2), early, late):
        rising, done = step < warmup, (step - warmup) / (total - warmup)
        expected = peak * (step / warmup if rising else 0.5 * (1 + math.cos(math.pi * done)))
        from_the_start = peak * 0.5 * (1 + math.cos(math.pi * step / total))
        quarter = peak * math.cos(math.pi * done / 2)
        hints = [
            (expected / peak, "this is a factor between 0 and 1: multiply it by the peak"),
            (peak * (step + 1) / warmup, "steps count from 0, and step 0 has rate 0"),
            (from_the_start, "the cosine runs over all steps: it starts where the warm-up ends"),
            (peak * math.cos(math.pi * done), "cos falls from 1 to -1: take half of 1 + cos"),
            (quarter, "a quarter of a cosine wave: the shape is half of 1 + cos(π · done)"),
            (peak * (1 - done), "this falls in a line: the decay is a cosine"),
            (peak, "the rate stays at the peak here"),
        ]
        what = f"the rate of a step {'in' if rising else 'after'} the warm-up"
        same(attempt(step, total, warmup, peak), expected, hints, what=what, **exact)

    start = attempt(0, total, warmup, peak)
    from_one = [(peak / warmup, "steps count from 0, and step 0 has rate 0")]
    same(start, 0.0, from_one, what="the rate of step 0", **exact)
    top = attempt(warmup, total, warmup, peak)
    same(top, peak, what="the rate where the warm-up ends", **exact)
    same(attempt(total, total, warmup, peak), 0.0, what="the rate at the end", atol=1e-9)
    with named(ZeroDivisionError, "without warm-up (warmup = 0) you divide by zero"):
        first = attempt(0, total, 0, peak)
    same(first, peak, what="the first rate without warm-up", **exact)
    return "equals the usual schedule during and after the warm-up, and without one"


@checks("4.3")
def clip(attempt: Callable) -> str:
    matrix = normal(random.randint(2, 4), random.randint(2, 4)) + 1.0
    gradients = [matrix, 3 * normal(random.randint(3, 5)) + 3.0]
    norms = [g.norm() for g in gradients]
    norm, limit = _flat(gradients).norm(), 0.5 * min(norms).item()
    leaves = [torch.zeros_like(g, requires_grad=True) for g in gradients]
    for leaf, g in zip(leaves, gradients, strict=True):
        leaf.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(leaves, limit)
    own = [g * limit / g.norm() for g in gradients]
    clamped = [g.clamp(-limit, limit) for g in gradients]
    flat = _flat(gradients)
    hints = [
        (_flat(own), "every tensor was clipped by its own norm: the norm is one, over all of them"),
        (_flat(clamped), "a clamp of each number turns the direction: scale all by one factor"),
        (flat / norm, "scaled to length 1: the limit is max_norm"),
        (flat * limit / sum(norms), "norms do not add, their squares do"),
        (flat * limit / norm**2, "the square root is missing in the norm"),
        (flat, "nothing was clipped: the norm over all tensors is above the limit"),
    ]
    expected = _flat([leaf.grad for leaf in leaves])
    same(_clipped(attempt, gradients, limit), expected, hints, what="the clipped gradient")

    scaled_up = [(2 * flat, "a short gradient was scaled up: leave it as it is")]
    short = _clipped(attempt, gradients, 2 * norm.item())
    same(short, flat, scaled_up, what="a gradient shorter than the limit")
    zeros = _clipped(attempt, [torch.zeros(3), torch.zeros(2, 2)], 1.0)
    need_finite(zeros, "nan where every slope is 0: do not divide by a norm of 0")
    return "equals torch's clip_grad_norm_; short gradients and zeros stay as they are"


def _clipped(attempt: Callable, gradients: list[torch.Tensor], limit: float) -> torch.Tensor:
    return _flat(need_list(attempt(gradients, limit), torch.Tensor, "tensors, one a gradient"))


def _flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


@checks("4.4")
def micro_losses(attempt: Callable) -> str:
    weight = normal(5).requires_grad_()
    rows = normal(random.randint(24, 36), 5)
    dear = 20 * rows[:, 0].abs() * (torch.arange(len(rows)) < 3)  # what three tokens cost more
    token_losses = (rows @ weight) ** 2 + dear
    mean = token_losses.mean()

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, weight, retain_graph=True)[0]

    # the three dear tokens alone, then uneven micro-batches
    cuts = sorted(random.sample(range(4, len(rows) - 2), 2))
    batches = list(token_losses.tensor_split([3, *cuts]))
    means = torch.stack([batch.mean() for batch in batches])
    own_count = "every micro-batch is divided by its own tokens: the count they share is the step's"
    hints = [
        (token_losses.sum(), "nothing is divided: the sum over all tokens grows with the batch"),
        (means.mean(), "this is the mean of means: divide every sum by the tokens of the step"),
        (means.sum(), own_count),
        (
            token_losses.sum() / len(batches),
            "divided by the number of micro-batches, not of tokens",
        ),
        (mean / len(batches), "divided once too often: by the tokens of the step alone"),
    ]
    total = _total(attempt, batches)
    same(total, mean, hints, what="the sum of what you return")
    same(gradient(total), gradient(mean), what="the slope of the sum")

    others = [*token_losses.tensor_split(random.randint(5, 8)), token_losses[:0]]
    mean_of_nothing = "a micro-batch without graded tokens gave nan: a mean of nothing; take sums"
    total = need_finite(_total(attempt, others), mean_of_nothing)
    same(total, mean, what="the sum for other cuts, one micro-batch empty,")
    return "the sum and its slope are those of one batch, however the tokens are cut"


def _total(attempt: Callable, batches: list[torch.Tensor]) -> torch.Tensor:
    scalars = attempt(batches)
    if not isinstance(scalars, list | tuple) or len(scalars) != len(batches):
        raise Mistake(
            f"return a list of {len(batches)} numbers, one a micro-batch, not their total"
        )
    return torch.stack([need_gradient(scalar, "the sum") for scalar in scalars]).sum()


@checks("4.5")
def measure_logits(attempt: Callable) -> str:
    rows, length, size = 3, 10, 7
    logits, labels = 2 * torch.randn(rows, length, size), random_labels(rows, length, size)
    targets, graded = labels[:, 1:], labels[:, 1:] != IGNORE_INDEX
    favoured = graded & (torch.rand(graded.shape) < 0.5)  # half of the tokens are well predicted
    logits[:, :-1] += 8.0 * F.one_hot(targets.clamp(min=0), size) * favoured[..., None]
    loss, accuracy, perplexity = unpack(attempt(logits, labels), "loss", "accuracy", "perplexity")

    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none")
    unshifted = F.cross_entropy(logits.transpose(1, 2), labels)
    of_rows = nll.sum(dim=1) / graded.sum(dim=1)
    expected = nll[graded].mean()
    no_shift = "no shift: row t of the logits predicts token t + 1"
    all_positions = "divided by all positions: divide by the graded tokens"
    row_means = "a mean of row means: every graded token weighs the same"
    hints = [
        (unshifted, no_shift),
        (nll.mean(), all_positions),
        (nll.sum(), "this is the sum: divide by the number of graded tokens"),
        (of_rows.mean(), row_means),
    ]
    same(loss, expected, hints, what="the loss")

    hits = (logits[:, :-1].argmax(dim=-1) == targets).float()
    unshifted = (logits.argmax(dim=-1) == labels).float()
    hints = [
        (hits.mean(), all_positions),
        (unshifted.mean(), f"{no_shift}; {all_positions}"),
        (unshifted[labels != IGNORE_INDEX].mean(), no_shift),
        ((hits.sum(dim=1) / graded.sum(dim=1)).mean(), row_means),
        (100 * hits[graded].mean(), "return a share between 0 and 1, not per cent"),
    ]
    same(accuracy, hits[graded].mean(), hints, what="the token accuracy")

    mean_of_exp = (
        "the exponential comes last: exp of the mean over all graded tokens, not a mean of exp"
    )
    hints = [
        (nll[graded].exp().mean(), mean_of_exp),
        (of_rows.exp().mean(), mean_of_exp),
        (2.0**expected, "the loss is in nats: take e to the loss, not 2"),
        ((-expected).exp(), "the sign: perplexity is e to the loss, at least 1"),
    ]
    same(perplexity, expected.exp(), hints, what="the perplexity", rtol=1e-3)
    return "equals torch's masked cross-entropy, shifted; all three over the same tokens"


@checks("4.6")
def early_stop(attempt: Callable) -> str:
    falling = [3.0 - 0.1 * epoch - random.uniform(0.0, 0.05) for epoch in range(4)]
    low = falling[-1]

    def go_on(*above: float) -> list[float]:
        """The falling losses, and then these, as distances from the lowest."""
        return falling + [low + distance for distance in above]

    cases = {
        "a run that turns up and would fall again later": (go_on(0.3, 0.2, 0.4, 0.3, -0.5), 3),
        "a run with one bump before its best epoch": (go_on(0.3, -0.2, 0.1, 0.2, 0.0), 2),
        "a run that falls to the end": (falling, 2),
        "a flat run": ([low] * 6, 2),
        "a run that falls, but never below its best": (go_on(0.5, 0.4, 0.3, 0.2), 3),
    }
    for case, (losses, patience) in cases.items():
        found = unpack(attempt(losses, patience), "the best epoch", "the last epoch run")
        found = [need_whole(epoch, "an epoch", low=0, high=len(losses)) for epoch in found]
        shown = f"{case} (losses {[round(loss, 2) for loss in losses]}, patience {patience})"
        expected, hints = _stop(losses, patience), _stop_hints(losses, patience, case)
        same(found, expected, hints, what=f"{shown}: (best, last)")
    return "keeps the best epoch seen, waits out a bump, ends a flat run, and never looks ahead"


def _stop(losses: list[float], patience: int) -> tuple[int, int]:
    """The best epoch seen and the last one run."""
    for last in range(len(losses)):
        best = losses.index(min(losses[: last + 1]))
        if last - best >= patience:
            return best, last
    return losses.index(min(losses)), len(losses) - 1


def _stop_hints(losses: list[float], patience: int, case: str) -> Hints:
    best, last = _stop(losses, patience)
    ahead, end = losses.index(min(losses)), len(losses) - 1
    too_late = "one epoch too late: the `patience`-th epoch without a new lowest loss is the last"
    never = "it does not stop; count the epochs since the best, an equal loss is no new lowest"
    hints = [
        ((ahead, last), "the best epoch lies beyond the last one run: look at epochs seen by then"),
        ((last, last), "keep the best epoch's weights, not the last one's"),
        ((best, best), "the second number is the last epoch run, `patience` after the best"),
        ((best, last + 1), too_late),
        ((best, end), never),
        ((best + 1, last + 1), "epochs count from 0"),
    ]
    return [(wrong, f"{case}: {mistake}") for wrong, mistake in hints]
