"""Checks of chapter 01, from cross-entropy to negative log-likelihood."""

import math
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F

from sft_lab.course.exercises.kit import Mistake, checks, need_finite, normal, same

MINUS = "the minus sign is missing: a log-probability is never positive, a loss is never negative"
BITS = "this is in bits: use the natural logarithm for nats"


@checks("1.1")
def cross_entropy(attempt: Callable) -> str:
    size = random.randint(4, 9)
    p, q = (normal(size).softmax(dim=0) for _ in range(2))
    expected = F.cross_entropy(q.log(), p)
    entropy = -(p * p.log()).sum()
    swapped = -(q * p.log()).sum()
    hints = [
        (-expected, MINUS),
        (expected / math.log(2), BITS),
        (swapped, "p and q are swapped: the truth p weighs, the guess q stands in the logarithm"),
        (expected / size, "you took the mean over tokens: p already holds the weights, so sum"),
        (expected - entropy, "this is the KL divergence: cross-entropy also contains p's entropy"),
        (-q.log().sum(), "the weights p are missing"),
    ]
    same(attempt(p, q), expected, hints)

    truth, ruled_out = random.sample(range(size), 2)
    one_hot = torch.eye(size, dtype=torch.float64)
    q = q.masked_fill(one_hot[ruled_out] > 0, 0.0)
    q = q / q.sum()
    zero_times_infinity = (
        "0 · ln 0 gave nan: a token that never occurs (p = 0) adds 0, whatever q says (torch.xlogy)"
    )
    found = need_finite(attempt(one_hot[truth], q), zero_times_infinity)
    same(found, -q[truth].log(), what="the cross-entropy where q has a zero elsewhere,")
    if not torch.as_tensor(attempt(one_hot[ruled_out], q)).isinf():
        raise Mistake(
            "q gives the true token probability 0, so the loss is infinite: do not clamp q or "
            "add a constant"
        )
    return "equals F.cross_entropy; 0 · ln 0 counts 0; a ruled-out truth costs infinity"


@checks("1.2")
def loss_gradient(attempt: Callable) -> str:
    rows, size = random.randint(2, 5), random.randint(6, 9)
    logits, targets = 2 * normal(rows, size), torch.randint(size, (rows,))
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(leaf, targets), leaf)
    one_hot, q = F.one_hot(targets, size), logits.softmax(dim=-1)
    over_rows = (logits.softmax(dim=0) - one_hot) / rows
    hints = [
        (-expected, "the sign is reversed: q - p is the gradient, p - q the step that descends"),
        (expected * rows, "this is the gradient of the sum: the loss is a mean, divide by N rows"),
        (expected / size, "divide by the number of rows N, not by N · V"),
        ((logits - one_hot) / rows, "logits are not probabilities: take the softmax first"),
        (q / rows, "the one-hot truth is missing: subtract 1 at the target of each row"),
        (over_rows, "softmax over the wrong dimension: each row is a distribution"),
        (-one_hot / q / rows, "the gradient by the probabilities q: go on to the logits"),
    ]
    same(attempt(logits, targets), expected, hints, what="the gradient")

    i, j, h = random.randrange(rows), random.randrange(size), 1e-5
    nudge = torch.zeros_like(logits)
    nudge[i, j] = h
    up, down = (F.cross_entropy(logits + sign * nudge, targets) for sign in (1, -1))
    found = torch.as_tensor(attempt(logits, targets))[i, j]
    same(found, (up - down) / (2 * h), what="the slope of the loss along one logit")
    return "equals autograd and finite differences; in every row it sums to 0"


@checks("1.3")
def sequence_nll(attempt: Callable) -> str:
    steps, size = random.randint(4, 6), random.randint(8, 12)
    logits, targets = torch.randn(steps, size), torch.randperm(size)[:steps]
    nll = F.cross_entropy(logits, targets, reduction="none")
    total, rows = nll.sum(), torch.arange(steps)
    table, over_steps = logits.log_softmax(dim=-1), logits.log_softmax(dim=0)
    one_too_few = (
        "a token is missing: row t already predicts targets[t] here, so nothing is shifted"
    )
    all_pairs = "log_probs[:, targets] picks T · T entries: step t grades only targets[t]"
    hints = [
        (-total, MINUS),
        (total / math.log(2), BITS),
        (nll.mean(), "this is the mean: -ln P(answer) is the sum over its tokens"),
        (total.neg().exp(), "this is the probability P(answer) itself: take -ln of it"),
        (-logits[rows, targets].sum(), "raw logits are not log-probabilities: log_softmax first"),
        (-table[:, targets].sum(), all_pairs),
        (-over_steps[rows, targets].sum(), "log_softmax over the wrong dimension: take the last"),
        (nll[1:].sum(), one_too_few),
        (nll[:-1].sum(), one_too_few),
    ]
    same(attempt(logits, targets), total, hints, what="the loss of the answer")

    logits, targets = torch.randn(600, size), torch.randint(size, (600,))
    underflow = (
        "no finite loss for 600 tokens: the product of their probabilities underflows to 0; add "
        "logarithms"
    )
    found = need_finite(attempt(logits, targets), underflow)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    same(found, expected, what="the loss of an answer of 600 tokens")
    cut = random.randint(100, 500)
    parts = attempt(logits[:cut], targets[:cut]) + attempt(logits[cut:], targets[cut:])
    same(parts, found, what="the loss of an answer in two parts")
    return "equals the summed F.cross_entropy, also for 600 tokens; the losses of two parts add up"


@checks("1.4")
def dataset_loss(attempt: Callable) -> str:
    # a batch of few tokens with a high loss: whether means are weighed must matter
    cuts = sorted(random.sample(range(8, 36), 3))
    tokens = torch.rand(random.randint(40, 60), dtype=torch.float64) * 3
    batches = [tokens[:2] + 5.0, *tokens[2:].tensor_split(cuts)]
    means, counts = [batch.mean().item() for batch in batches], [len(batch) for batch in batches]
    expected = torch.cat(batches).mean()
    total = torch.cat(batches).sum()
    upside_down = sum(mean / count for mean, count in zip(means, counts, strict=True))
    mean_of_means = (
        "this is the mean of means: a token in a short batch weighs more than one in a long "
        "batch; weigh each mean with its tokens"
    )
    hints = [
        (sum(means) / len(means), mean_of_means),
        (sum(means), "this is the sum of the means: weigh each, and divide by all tokens"),
        (total, "this is the sum of all losses: divide by the number of all tokens"),
        (total / len(batches), "you divided by the number of batches: divide by all tokens"),
        (upside_down, "multiply a mean by its tokens to get back its sum"),
    ]
    same(attempt(means, counts), expected, hints, what="the loss of the data set")

    merged = [torch.cat(batches[:2]), *batches[2:]]
    again = attempt([batch.mean().item() for batch in merged], [len(batch) for batch in merged])
    same(again, expected, what="the loss of the same tokens, cut into other batches,")
    zero_times_nan = (
        "a batch with 0 graded tokens has the mean nan, and 0 · nan is nan: leave such batches out"
    )
    found = need_finite(attempt([*means, math.nan], [*counts, 0]), zero_times_nan)
    same(found, expected, what="the loss with an empty batch beside the others")
    return "the same for every way of cutting the tokens into batches, empty ones included"


@checks("1.5")
def log_softmax(attempt: Callable) -> str:
    rows, size = random.randint(2, 4), random.randint(6, 9)
    logits = torch.randn(rows, size)
    expected = torch.log_softmax(logits, dim=-1)
    top = logits.max(dim=-1, keepdim=True).values
    whole = torch.log_softmax(logits.flatten(), dim=0).view(rows, size)
    taken_twice = (
        "the maximum was taken off twice: shift the logits once, then keep to the shifted ones"
    )
    added_back = (
        "the maximum came back too often: shift the logits once, then keep to the shifted ones"
    )
    hints = [
        (expected.exp(), "this is the softmax: its logarithm is missing"),
        (-expected, "the sign is reversed: a log-probability is never positive"),
        (expected / math.log(2), BITS),
        (logits.log_softmax(dim=0), "wrong dimension: the vocabulary is the last dimension"),
        (whole, "you summed over the whole tensor: each row is a distribution (dim=-1, keepdim)"),
        (expected - top, taken_twice),
        (expected + top, added_back),
        (logits - top, "the normaliser is missing: subtract ln Σ exp as well"),
    ]
    same(attempt(logits), expected, hints, what="log_softmax")

    for far in (1000.0, -1000.0):
        mistake = f"logits near {far:+.0f} give inf or nan: subtract each row's maximum before exp"
        need_finite(attempt(logits + far), mistake)
    one_maximum = "rows far below the others give inf or nan: subtract each row's own maximum"
    need_finite(attempt(logits + torch.arange(rows)[:, None] * -500.0), one_maximum)
    rare = torch.tensor([[0.0, -200.0]])
    found = torch.as_tensor(attempt(rare))
    if found.isinf().any() or found[0, 1] > -150.0:
        raise Mistake(
            "a token 200 nats below the best is cut off: keep the logarithm exact, with no "
            "log(softmax), clamp or epsilon"
        )
    same(found, rare.log_softmax(dim=-1), what="log_softmax of (0, -200)")
    same(attempt(logits[0]), expected[0], what="log_softmax of a single row, shape (V,),")
    shifted = attempt(logits + random.uniform(-50, 50))
    same(shifted, expected, what="log_softmax after adding one constant to all logits", atol=1e-4)
    return "equals log_softmax, also at logits of ±1000; a shift of all logits changes nothing"
