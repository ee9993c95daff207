"""Checks of chapter 04, the training loop."""

import math
import random

import torch
import torch.nn.functional as F

from sft_lab.course.checks import Mistake, checks, same


@checks("4.1")
def _adamw_step(attempt):
    shape, lr, decay = (
        (random.randint(2, 4), random.randint(2, 4)),
        random.uniform(0.01, 0.1),
        random.uniform(0.5, 1.0),
    )
    start = torch.randn(shape, dtype=torch.float64) + 2.0
    leaf = start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([leaf], lr=lr, weight_decay=decay)
    w, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for t in range(1, 6):
        g = torch.randn(shape, dtype=torch.float64) + 0.3
        before = [tensor.clone() for tensor in (w, m, v, g)]
        hints = _adamw_mistakes(w, g, m, v, t, lr, decay)
        leaf.grad = g.clone()
        optimizer.step()
        found = attempt(w, g, m, v, t, lr, decay)
        if not (isinstance(found, (tuple, list)) and len(found) == 3):
            raise Mistake("return three tensors: the new w, m and v")
        if not all(
            torch.equal(old, tensor) for old, tensor in zip(before, (w, m, v, g), strict=True)
        ):
            raise Mistake("your function changed w, g, m or v in place: work on new tensors")
        state = optimizer.state[leaf]
        m_hat, v_hat = state["exp_avg"] / (1 - 0.9**t), state["exp_avg_sq"] / (1 - 0.999**t)
        same(found[0], leaf, what=f"w after step {t}", hints=hints)
        same(
            found[1],
            state["exp_avg"],
            what=f"m after step {t}",
            hints={
                m_hat: "m is returned with its hat: return the running mean itself, the next "
                "step starts from it"
            },
        )
        same(
            found[2],
            state["exp_avg_sq"],
            what=f"v after step {t}",
            atol=1e-10,
            hints={
                v_hat: "v is returned with its hat: return the running mean itself, the next "
                "step starts from it"
            },
        )
        w, m, v = (tensor.detach().clone() for tensor in found)
    return "equals torch.optim.AdamW over five steps, with weight decay"


def _adamw_mistakes(w, g, m, v, t, lr, decay):
    """The weight that each usual mistake gives in this step."""

    def weight(slope=g, hats=True, root=True, shrink=decay):
        mean, square = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        if hats:
            mean, square = mean / (1 - 0.9**t), square / (1 - 0.999**t)
        return w - lr * shrink * w - lr * mean / ((square.sqrt() if root else square) + 1e-8)

    no_decay, in_slope = weight(shrink=0.0), weight(slope=g + decay * w, shrink=0.0)
    missing = "weight decay is missing: w also shrinks by lr · weight_decay · w"
    slope = (
        "weight decay went into the slope (Adam with L2): AdamW shrinks w directly, by lr · "
        "weight_decay"
    )
    if torch.allclose(
        no_decay, in_slope, rtol=1e-3
    ):  # a first step has length lr, whatever the slope's size
        missing = slope = f"weight decay is missing, or {slope}"
    return {
        weight(hats=False): "the hats are missing: divide m by 1 - 0.9^t and v by 1 - 0.999^t",
        in_slope: slope,
        no_decay: missing,
        weight(root=False): "the square root of v is missing",
        weight()
        - lr
        * decay
        * w
        * (1 / lr - 1): "weight decay without the learning rate: it shrinks by lr · decay",
        2 * w * (1 - lr * decay) - weight(): "the sign is reversed: w moves against its slope",
        w
        - lr * decay * w
        - lr * g: "this is plain gradient descent: divide the mean m by the root of v",
    }


@checks("4.2")
def _rate_at(attempt):
    total, peak = random.randint(40, 90), random.uniform(1e-4, 1e-1)
    warmup = random.randint(5, total // 3)
    fall = total - warmup  # not near its ends or its middle, where a line and a cosine meet
    later = (
        warmup + random.randint(fall // 5, fall // 3),
        total - random.randint(fall // 5, fall // 3),
    )
    for step in (random.randint(1, warmup - 2), *later):
        rising, done = step < warmup, (step - warmup) / (total - warmup)
        expected = peak * (step / warmup if rising else 0.5 * (1 + math.cos(math.pi * done)))
        hints = {
            expected / peak: "this is a factor between 0 and 1: multiply it by the peak",
            peak * (step + 1) / warmup: "steps count from 0, and step 0 has rate 0",
            peak
            * 0.5
            * (
                1 + math.cos(math.pi * step / total)
            ): "the cosine runs over all steps: it starts where the warm-up ends",
            peak * math.cos(math.pi * done): "cos falls from 1 to -1: take half of 1 + cos",
            peak
            * math.cos(
                math.pi * done / 2
            ): "a quarter of a cosine wave: the shape is half of 1 + cos(π · done)",
            peak * (1 - done): "this falls in a line: the decay is a cosine",
            peak: "the rate stays at the peak here",
        }
        hints = {
            wrong: text
            for wrong, text in hints.items()
            if not math.isclose(wrong, expected, rel_tol=1e-3)
        }
        same(
            attempt(step, total, warmup, peak),
            expected,
            rtol=1e-5,
            atol=1e-12,
            hints=hints,
            what=f"the rate of a step {'in' if rising else 'after'} the warm-up",
        )
    same(
        attempt(0, total, warmup, peak),
        0.0,
        atol=1e-12,
        what="the rate of step 0",
        hints={peak / warmup: "steps count from 0, and step 0 has rate 0"},
    )
    same(
        attempt(warmup, total, warmup, peak),
        peak,
        rtol=1e-5,
        atol=1e-12,
        what="the rate where the warm-up ends",
    )
    same(attempt(total, total, warmup, peak), 0.0, atol=1e-9, what="the rate at the end")
    try:
        first = attempt(0, total, 0, peak)
    except ZeroDivisionError:
        raise Mistake("without warm-up (warmup = 0) you divide by zero") from None
    same(first, peak, rtol=1e-5, atol=1e-12, what="the first rate without warm-up")
    return "equals the usual schedule during and after the warm-up, and without one"


@checks("4.3")
def _clip(attempt):
    gradients = [
        torch.randn(random.randint(2, 4), random.randint(2, 4), dtype=torch.float64) + 1.0,
        3 * torch.randn(random.randint(3, 5), dtype=torch.float64) + 3.0,
    ]
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    norms = [g.norm() for g in gradients]
    limit = 0.5 * min(norms).item()
    given = [g.clone() for g in gradients]
    squares = sum(norms)
    found = _flat(attempt(gradients, limit))
    if not all(torch.equal(old, new) for old, new in zip(given, gradients, strict=True)):
        raise Mistake("your function changed the gradients in place: return scaled copies")
    gradients = given
    leaves = [torch.zeros_like(g, requires_grad=True) for g in gradients]
    for leaf, g in zip(leaves, gradients, strict=True):
        leaf.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(leaves, limit)
    same(
        found,
        _flat([leaf.grad for leaf in leaves]),
        what="the clipped gradient",
        hints={
            _flat(
                [g * (limit / g.norm()) for g in gradients]
            ): "every tensor was clipped by its own norm: the norm is one, over all of them",
            _flat(
                [g.clamp(-limit, limit) for g in gradients]
            ): "a clamp of each number turns the direction: scale all by one factor",
            _flat([g / norm for g in gradients]): "scaled to length 1: the limit is max_norm",
            _flat([g * limit / squares for g in gradients]): "norms do not add, their squares do",
            _flat(
                [g * limit / norm**2 for g in gradients]
            ): "the square root is missing in the norm",
            _flat(gradients): "nothing was clipped: the norm over all tensors is above the limit",
        },
    )
    same(
        _flat(attempt(gradients, 2 * norm.item())),
        _flat(gradients),
        what="a gradient shorter than the limit",
        hints={
            _flat([2 * g for g in gradients]): "a short gradient was scaled up: leave it as it is"
        },
    )
    zeros = [torch.zeros(3), torch.zeros(2, 2)]
    if _flat(attempt(zeros, 1.0)).isnan().any():
        raise Mistake("nan where every slope is 0: do not divide by a norm of 0")
    return "equals torch's clip_grad_norm_; short gradients and zeros stay as they are"


def _flat(tensors):
    if not isinstance(tensors, (list, tuple)):
        raise Mistake("return a list with one tensor for each gradient")
    return torch.cat([torch.as_tensor(tensor, dtype=torch.float64).flatten() for tensor in tensors])


@checks("4.4")
def _micro_losses(attempt):
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(random.randint(24, 36), 5, dtype=torch.float64)

    def losses():
        return (rows @ weight) ** 2 + rows[:, 0].abs() * (
            torch.arange(len(rows)) < 3
        ) * 20  # a few dear tokens

    (expected,) = torch.autograd.grad(losses().mean(), weight)
    cuts = sorted(random.sample(range(4, len(rows) - 2), 2))
    parts = list(losses().tensor_split([3, *cuts]))  # 3 tokens, then uneven micro-batches
    scalars = _scalars(attempt(parts), parts)
    total = torch.stack(scalars).sum()
    (slope,) = torch.autograd.grad(total, weight, retain_graph=True)
    whole, means = losses(), torch.stack([part.mean() for part in parts])
    same(
        total,
        whole.mean(),
        what="the sum of what you return",
        hints={
            whole.sum(): "nothing is divided: this is the sum over all tokens, and its slope grows "
            "with the batch",
            means.mean(): "this is the mean of means: divide every sum by the tokens of the whole "
            "step",
            means.sum(): "every micro-batch is divided by its own tokens: the count that they "
            "share is that of the step",
            whole.sum()
            / len(parts): "divided by the number of micro-batches: divide by the number of tokens",
            whole.mean() / len(parts): "divided once too often: by the tokens of the step alone",
        },
    )
    same(
        slope,
        expected,
        what="the slope of the sum",
        hints={torch.zeros(5): "the slope is lost: stay in torch, no .item() and no .detach()"},
    )
    other = [*losses().tensor_split(random.randint(5, 8)), losses()[:0]]
    scalars = torch.stack(_scalars(attempt(other), other))
    if scalars.isnan().any():
        raise Mistake("a micro-batch without graded tokens gave nan: a mean of nothing; take sums")
    same(scalars.sum(), whole.mean(), what="the sum for other cuts, one micro-batch empty,")
    return (
        "the sum and its slope are those of one batch, however the tokens are cut; an empty "
        "micro-batch adds 0"
    )


def _scalars(found, parts):
    if not isinstance(found, (list, tuple)) or len(found) != len(parts):
        raise Mistake(
            f"return a list of one number for each of the {len(parts)} micro-batches, not their "
            "total"
        )
    if not all(
        isinstance(value, torch.Tensor) and value.requires_grad for value in found if len(found)
    ):
        raise Mistake("the slope is lost: stay in torch, no .item() and no .detach()")
    return list(found)


@checks("4.5")
def _measure_logits(attempt):
    size, ids = 7, torch.randint(7, (3, 9))
    logits = 2 * torch.randn(3, 9, size)
    labels = ids.clone()
    for row, prompt in enumerate((2, 5, 3)):
        labels[row, :prompt] = -100
    labels[0, -2:] = -100  # padding
    targets, graded = labels[:, 1:], labels[:, 1:] != -100
    right = random.sample(
        range(int(graded.sum())), int(graded.sum()) // 2
    )  # half of the tokens are the favourite
    places = graded.nonzero()[right]
    logits[places[:, 0], places[:, 1], targets[places[:, 0], places[:, 1]]] += 8.0
    nll = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none"
    )
    nll, hits = nll.view(3, -1), (logits[:, :-1].argmax(dim=-1) == targets) & graded
    loss, accuracy = nll[graded].mean(), hits.sum() / graded.sum()
    rows = nll.sum(1) / graded.sum(1)
    same_place = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    found = attempt(logits, labels)
    if not isinstance(found, (tuple, list)) or len(found) != 3:
        raise Mistake("return three numbers: loss, accuracy, perplexity")
    same(
        found[0],
        loss,
        what="the loss",
        hints={
            same_place: "no shift: row t of the logits predicts token t + 1",
            nll.mean(): "divided by all positions: divide by the graded tokens",
            nll.sum(): "this is the sum: divide by the number of graded tokens",
            rows.mean(): "a mean of row means: every graded token weighs the same",
        },
    )
    hit = logits.argmax(dim=-1) == labels
    same(
        found[1],
        accuracy,
        what="the token accuracy",
        hints={
            hits.float().mean(): "divided by all positions: divide by the graded tokens",
            hit.float().mean(): "no shift, and over all positions",
            hit[labels != -100]
            .float()
            .mean(): "no shift: row t of the logits predicts token t + 1",
            100 * accuracy: "return a share between 0 and 1, not per cent",
            (
                hits.sum(1) / graded.sum(1)
            ).mean(): "a mean of row means: every graded token weighs the same",
        },
    )
    same(
        found[2],
        loss.exp(),
        rtol=1e-3,
        what="the perplexity",
        hints={
            nll[graded]
            .exp()
            .mean(): "the exponential comes last: exp of the mean, not the mean of exp",
            rows.exp().mean(): "the exponential comes last: one mean over all graded tokens, then "
            "exp",
            2.0**loss: "the loss is in nats: take e to the loss, not 2",
            (-loss).exp(): "the sign: perplexity is e to the loss, at least 1",
        },
    )
    return (
        "equals torch's masked cross-entropy, shifted; accuracy and perplexity over the same tokens"
    )


@checks("4.6")
def _early_stop(attempt):
    def expected(losses, patience):
        for last in range(len(losses)):
            best = losses.index(min(losses[: last + 1]))
            if last - best >= patience:
                return best, last
        return losses.index(min(losses)), len(losses) - 1

    falling = sorted((round(random.uniform(1, 3), 3) for _ in range(4)), reverse=True)
    falling = [value - 0.01 * place for place, value in enumerate(falling)]
    low = falling[-1]
    cases = {
        "a run that turns up and would fall again later": (
            [*falling, low + 0.3, low + 0.2, low + 0.4, low + 0.3, low - 0.5],
            3,
        ),
        "a run with one bump before its best epoch": (
            [*falling, low + 0.3, low - 0.2, low + 0.1, low + 0.2, low],
            2,
        ),
        "a run that falls to the end": (falling, 2),
        "a flat run": ([low] * 6, 2),
        "a run that falls, but never below its best": (
            [*falling, low + 0.5, low + 0.4, low + 0.3, low + 0.2],
            3,
        ),
    }
    for what, (losses, patience) in cases.items():
        want, found = expected(losses, patience), attempt(list(losses), patience)
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise Mistake("return two indices: of the best epoch and of the last epoch run")
        best, last = want
        hints = {
            (
                losses.index(min(losses)),
                last,
            ): f"{what}: the best epoch lies beyond the last one run; look only at "
            "epochs seen by then",
            (last, last): f"{what}: keep the best epoch's weights, not the last one's",
            (
                best,
                best,
            ): f"{what}: the second number is the last epoch run, `patience` epochs after the best",
            (
                best,
                last + 1,
            ): f"{what}: one epoch too late: the `patience`-th epoch without a new lowest "
            "loss is the last",
            (
                best,
                len(losses) - 1,
            ): f"{what}: it does not stop; count the epochs since the best, an equal loss is "
            "no new lowest",
            (best + 1, last + 1): f"{what}: epochs count from 0",
        }
        hints.pop(want, None)
        same(
            tuple(int(index) for index in found),
            want,
            what=f"{what} (losses "
            f"{[round(loss, 2) for loss in losses]}, patience {patience}): (best, last)",
            hints=hints,
        )
    return "keeps the best epoch seen, waits out a bump, ends a flat run, and never looks ahead"
