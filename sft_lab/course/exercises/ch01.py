"""Checks of chapter 01, from cross-entropy to negative log-likelihood."""

import math
import random

import torch
import torch.nn.functional as F

from sft_lab.course.checks import Mistake, checks, same


@checks("1.1")
def _cross_entropy(attempt):
    p, q = (torch.rand(random.randint(4, 9), dtype=torch.float64) + 0.05 for _ in range(2))
    size = min(len(p), len(q))
    p, q = p[:size] / p[:size].sum(), q[:size] / q[:size].sum()
    expected = F.cross_entropy(q.log(), p)
    entropy = -(p * p.log()).sum()
    same(
        attempt(p, q),
        expected,
        hints={
            -expected: "the minus sign is missing: ln q is never positive, and a loss is never "
            "negative",
            expected / math.log(2): "this is in bits: use the natural logarithm for nats",
            -(
                q * p.log()
            ).sum(): "p and q are swapped: the truth p weighs, the guess q stands inside the "
            "logarithm",
            expected / size: "you took the mean over tokens: p already holds the weights, so sum",
            expected
            - entropy: "this is the KL divergence: cross-entropy also contains the entropy of p",
            -q.log().sum(): "the weights p are missing",
        },
    )
    y, zero = random.sample(range(size), 2)
    one_hot = torch.eye(size, dtype=torch.float64)[y]
    q[zero] = 0.0
    q = q / q.sum()
    found = torch.as_tensor(attempt(one_hot, q))
    if found.isnan():
        raise Mistake(
            "0 · ln 0 gave nan: a token that never occurs (p = 0) adds 0, whatever q says "
            "(torch.xlogy)"
        )
    same(found, -q[y].log(), what="the cross-entropy of a one-hot p, where q has a zero elsewhere,")
    if not torch.as_tensor(attempt(torch.eye(size, dtype=torch.float64)[zero], q)).isinf():
        raise Mistake(
            "q gives the true token probability 0, so the loss is infinite: do not clamp q or "
            "add a constant"
        )
    return (
        "equals F.cross_entropy on random p and q; 0 · ln 0 counts 0; a ruled-out truth "
        "costs infinity"
    )


@checks("1.2")
def _loss_gradient(attempt):
    rows, size = random.randint(2, 5), random.randint(6, 9)
    logits = 2 * torch.randn(rows, size, dtype=torch.float64)
    targets = torch.randint(size, (rows,))
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(leaf, targets), leaf)
    one_hot = F.one_hot(targets, size).double()
    given = logits.clone()
    same(
        attempt(logits, targets),
        expected,
        what="the gradient",
        hints={
            -expected: "the sign is reversed: q - p is the gradient, p - q is the step that "
            "descends",
            expected
            * rows: "this is the gradient of the sum: the loss is a mean over N rows, so divide "
            "by N",
            (logits - one_hot) / rows: "logits are not probabilities: take the softmax first",
            logits.softmax(dim=-1)
            / rows: "the one-hot truth is missing: subtract 1 at the target of each row",
            (logits.softmax(dim=0) - one_hot)
            / rows: "softmax over the wrong dimension: each row is a distribution",
            -one_hot
            / (
                logits.softmax(dim=-1) * rows
            ): "the gradient by the probabilities q: go on to the logits",
            expected / size: "divide by the number of rows N, not by N · V",
        },
    )
    if not torch.equal(logits, given):
        raise Mistake("your function changed the logits in place: work on a copy")
    i, j, h = random.randrange(rows), random.randrange(size), 1e-5
    up, down = given.clone(), given.clone()
    up[i, j] += h
    down[i, j] -= h
    slope = (F.cross_entropy(up, targets) - F.cross_entropy(down, targets)) / (2 * h)
    same(
        torch.as_tensor(attempt(given, targets))[i, j],
        slope,
        what="the slope of the loss along one logit",
    )
    return "equals autograd and finite differences; in every row it sums to 0"


@checks("1.3")
def _sequence_nll(attempt):
    steps, size = random.randint(4, 6), random.randint(8, 12)
    logits, targets = torch.randn(steps, size), torch.randperm(size)[:steps]
    nll = F.cross_entropy(logits, targets, reduction="none")
    log_probs = logits.log_softmax(dim=-1)
    same(
        attempt(logits, targets),
        nll.sum(),
        what="the loss of the answer",
        hints={
            -nll.sum(): "the minus sign is missing: this is the log-likelihood, the loss is its "
            "negative",
            nll.mean(): "this is the mean: -ln P(answer) is the sum over its tokens",
            nll.sum() / math.log(2): "this is in bits: use the natural logarithm for nats",
            nll.sum().neg().exp(): "this is the probability P(answer) itself: take -ln of it",
            -logits[
                range(steps), targets
            ].sum(): "raw logits are not log-probabilities: apply log_softmax first",
            -log_probs[
                :, targets
            ].sum(): "log_probs[:, targets] picks T · T entries: step t grades only targets[t]",
            -logits.log_softmax(dim=0)[
                range(steps), targets
            ].sum(): "log_softmax over the wrong dimension: each row "
            "is a distribution over the vocabulary",
            nll[
                1:
            ].sum(): "a token is missing: row t already predicts targets[t] here, so nothing is "
            "shifted",
            nll[
                :-1
            ].sum(): "a token is missing: row t already predicts targets[t] here, so nothing is "
            "shifted",
        },
    )
    logits, targets = torch.randn(600, size), torch.randint(size, (600,))
    found = torch.as_tensor(attempt(logits, targets))
    if found.isinf():
        raise Mistake(
            "infinity for 600 tokens: the product of their probabilities underflows to 0; add "
            "logarithms"
        )
    same(
        found,
        F.cross_entropy(logits, targets, reduction="sum"),
        what="the loss of an answer of 600 tokens",
    )
    cut = random.randint(100, 500)
    parts = attempt(logits[:cut], targets[:cut]) + attempt(logits[cut:], targets[cut:])
    same(parts, found, what="the loss of an answer in two parts")
    return (
        "equals F.cross_entropy with reduction='sum', also for 600 tokens; the losses of "
        "two parts add up"
    )


@checks("1.4")
def _dataset_loss(attempt):
    losses = torch.rand(random.randint(40, 60), dtype=torch.float64) * 3
    cuts = sorted(random.sample(range(8, 36), 3))
    first, parts = (
        losses[:2] + 5.0,
        losses[2:].tensor_split(cuts),
    )  # few tokens with a high loss: weights must matter
    parts = [first, *parts]
    means, counts = [part.mean().item() for part in parts], [len(part) for part in parts]
    expected = torch.cat(parts).mean()
    same(
        attempt(means, counts),
        expected,
        what="the loss of the data set",
        hints={
            sum(means)
            / len(
                means
            ): "this is the mean of means: a token in a short batch weighs more than one in a "
            "long batch; weigh each mean with its tokens",
            sum(
                means
            ): "this is the sum of the means: weigh each with its tokens, divide by all tokens",
            sum(
                len(part) * part.mean().item() for part in parts
            ): "this is the sum of all losses: divide by the number of all tokens",
            sum(len(part) * part.mean().item() for part in parts)
            / len(parts): "you divided by the number of "
            "batches: divide by the number of all tokens",
            sum(
                m / n for m, n in zip(means, counts, strict=True)
            ): "multiply a mean by its tokens to get back its sum",
        },
    )
    merged = [torch.cat(parts[:2]), *parts[2:]]
    again = attempt([part.mean().item() for part in merged], [len(part) for part in merged])
    same(again, expected, what="the same tokens, cut into other batches:")
    with_empty = torch.as_tensor(attempt([*means, math.nan], [*counts, 0]))
    if with_empty.isnan():
        raise Mistake(
            "a batch with 0 graded tokens has the mean nan, and 0 · nan is nan: leave such "
            "batches out"
        )
    same(with_empty, expected, what="the loss with an empty batch beside the others")
    return "the same for every way of cutting the tokens into batches, empty ones included"


@checks("1.5")
def _log_softmax(attempt):
    rows, size = random.randint(2, 4), random.randint(6, 9)
    logits = torch.randn(rows, size)
    expected = torch.log_softmax(logits, dim=-1)
    top = logits.max(dim=-1, keepdim=True).values
    same(
        attempt(logits),
        expected,
        what="log_softmax",
        hints={
            expected.exp(): "this is the softmax: its logarithm is missing",
            -expected: "the sign is reversed: a log-probability is never positive",
            expected / math.log(2): "this is in bits: use the natural logarithm",
            torch.log_softmax(
                logits, dim=0
            ): "wrong dimension: sum over the vocabulary, the last dimension",
            torch.log_softmax(logits.flatten(), 0).view(
                rows, size
            ): "you summed over the whole tensor: each row is a "
            "distribution of its own (dim=-1, keepdim=True)",
            expected
            - top: "the maximum was taken off twice: add it back, or shift the logits once and "
            "keep to them",
            expected
            + top: "the maximum came back too often: shift the logits once, then keep to the "
            "shifted ones",
            logits - top: "the normaliser is missing: subtract ln Σ exp as well",
        },
    )
    for size_of_logit in (1000.0, -1000.0):
        if not torch.as_tensor(attempt(logits + size_of_logit)).isfinite().all():
            raise Mistake(
                f"logits near {size_of_logit:+.0f} give inf or nan: subtract each row's maximum "
                "before exp"
            )
    apart = logits + torch.arange(rows)[:, None] * -500.0
    if not torch.as_tensor(attempt(apart)).isfinite().all():
        raise Mistake(
            "rows far below the others give inf or nan: subtract each row's own maximum, not "
            "the tensor's"
        )
    rare = torch.tensor([[0.0, -200.0]])
    found = torch.as_tensor(attempt(rare))
    if found.isinf().any() or found[0, 1] > -150.0:
        raise Mistake(
            "a token 200 nats below the best is cut off: keep the logarithm exact, with no "
            "log(softmax), clamp or epsilon"
        )
    same(found, torch.log_softmax(rare, dim=-1), what="log_softmax of (0, -200)")
    same(attempt(logits[0]), expected[0], what="log_softmax of a single row, shape (V,),")
    shift = random.uniform(-50, 50)
    same(
        attempt(logits + shift),
        expected,
        what="log_softmax after adding one constant to all logits",
        atol=1e-4,
    )
    return (
        "equals torch.log_softmax, also at logits of ±1000; a shift of all logits changes nothing"
    )
