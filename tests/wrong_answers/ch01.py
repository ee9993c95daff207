"""Wrong answers to the exercises of chapter 01, each with what its reader is told."""

import math

import torch
import torch.nn.functional as F


def _pick(table: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return table[torch.arange(len(targets)), targets]


def _changes_its_input(logits, targets):
    right = (logits.softmax(dim=-1) - F.one_hot(targets, logits.shape[-1])) / len(targets)
    logits -= logits.max()
    return right


def _by_autograd(logits, targets):
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(leaf, targets), leaf)[0]


def _total(means, tokens):
    return sum(m * n for m, n in zip(means, tokens, strict=True))


def _weighted(means, tokens):
    return _total(means, tokens) / sum(tokens)


def _divides_by_tokens(means, tokens):
    return sum(m / n for m, n in zip(means, tokens, strict=True))


def _over_rows(logits, targets):
    return (logits.softmax(0) - F.one_hot(targets, logits.shape[-1])) / len(targets)


def _count(text, V):
    counts = torch.zeros(V, V)
    for before, after in zip(text, text[1:], strict=False):
        counts[before, after] += 1
    return counts


def _by_probabilities(logits, targets):
    return -F.one_hot(targets, logits.shape[-1]) / logits.softmax(-1) / len(targets)


def _log_softmax(logits, dim=-1):
    shifted = logits - logits.max(dim=dim, keepdim=True).values
    return shifted - shifted.exp().sum(dim=dim, keepdim=True).log()


def _softmax(logits):
    return _log_softmax(logits).exp()


def _maximum_taken_twice(logits):
    return _log_softmax(logits) - logits.max(-1, keepdim=True).values


def _shifted_once_added_twice(logits):
    top = logits.max(dim=-1, keepdim=True).values
    return logits - (logits - top).exp().sum(dim=-1, keepdim=True).log()


def _one_maximum_for_all(logits):
    shifted = logits - logits.max()
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()


def _by_bare_exp(logits, targets):
    exponentials = logits.exp()
    softmax = exponentials / exponentials.sum(dim=-1, keepdim=True)
    return (softmax - F.one_hot(targets, logits.shape[-1])) / len(targets)


def _shifted_by(logits, shift):
    return logits - shift - (logits - shift).exp().sum(dim=-1, keepdim=True).log()


WRONG_ANSWERS = {
    "1.1": [
        (lambda p, q: torch.xlogy(p, q).sum(), "the minus sign is missing"),
        (lambda p, q: -torch.xlogy(p, q).sum() / math.log(2), "this is in bits"),
        (lambda p, q: -(q * p.log()).sum(), "p and q are swapped"),
        (lambda p, q: -(p * q.log()).mean(), "you took the mean over tokens"),
        (lambda p, q: (p * (p / q).log()).sum(), "this is the KL divergence"),
        (lambda p, q: -q.log().sum(), "the weights p are missing"),
        (lambda p, q: -(p * q.log()).sum(), "0 · ln 0 gave nan"),
        (lambda p, q: -(p * (q + 1e-9).log()).sum(), "the loss is infinite"),
        (lambda p, q: -(p * q.clamp(min=1e-12).log()).sum(), "the loss is infinite"),
        (lambda p, q: torch.xlogy(p, q), "has shape"),
    ],
    "1.2": [
        (lambda z, y: (F.one_hot(y, z.shape[-1]) - z.softmax(-1)) / len(y), "the sign is reversed"),
        (lambda z, y: z.softmax(-1) - F.one_hot(y, z.shape[-1]), "the gradient of the sum"),
        (lambda z, y: (z - F.one_hot(y, z.shape[-1])) / len(y), "logits are not probabilities"),
        (lambda z, y: z.softmax(-1) / len(y), "the one-hot truth is missing"),
        (_over_rows, "softmax over the wrong dimension"),
        (_by_probabilities, "by the probabilities q"),
        (lambda z, y: (z.softmax(-1) - F.one_hot(y, z.shape[-1])) / z.numel(), "not by N · V"),
        (_changes_its_input, "changed `logits` in place"),
        (_by_autograd, "autograd is not to be used here"),
        (_by_bare_exp, "exp overflows"),
    ],
    "1.3": [
        (lambda z, y: _pick(z.log_softmax(-1), y).sum(), "the minus sign is missing"),
        (lambda z, y: -_pick(z.log_softmax(-1), y).mean(), "this is the mean"),
        (lambda z, y: -_pick(z.log_softmax(-1), y).sum() / math.log(2), "this is in bits"),
        (lambda z, y: _pick(z.softmax(-1), y).prod(), "the probability P(answer) itself"),
        (lambda z, y: -_pick(z, y).sum(), "raw logits are not log-probabilities"),
        (lambda z, y: -z.log_softmax(-1)[:, y].sum(), "picks T · T entries"),
        (lambda z, y: -_pick(z.log_softmax(0), y).sum(), "log_softmax over the wrong dimension"),
        (lambda z, y: -_pick(z.log_softmax(-1), y)[1:].sum(), "a token is missing"),
        (lambda z, y: -_pick(z.log_softmax(-1), y)[:-1].sum(), "a token is missing"),
        (lambda z, y: -_pick(z.softmax(-1), y).prod().log(), "underflows to 0"),
        (lambda z, y: -_pick(z.softmax(-1), y).log().sum(), "keep the logarithm exact"),
    ],
    "1.4": [
        (lambda means, tokens: sum(means) / len(means), "this is the mean of means"),
        (lambda means, tokens: sum(means), "this is the sum of the means"),
        (_total, "this is the sum of all losses"),
        (lambda means, tokens: _total(means, tokens) / len(tokens), "the number of batches"),
        (_divides_by_tokens, "to get back its sum"),
        (_weighted, "0 · nan is nan"),
    ],
    "1.5": [
        (lambda z: z.exp() / z.exp().sum(-1, keepdim=True), "this is the softmax"),
        (lambda z: -_log_softmax(z), "the sign is reversed"),
        (lambda z: _log_softmax(z) / math.log(2), "this is in bits"),
        (lambda z: _log_softmax(z, 0), "wrong dimension"),
        (lambda z: z - z.exp().sum().log(), "you summed over the whole tensor"),
        (_shifted_once_added_twice, "the maximum came back too often"),
        (_maximum_taken_twice, "the maximum was taken off twice"),
        (lambda z: z - z.max(-1, keepdim=True).values, "the normaliser is missing"),
        (lambda z: z - z.exp().sum(-1, keepdim=True).log(), "logits near +1000"),
        (_one_maximum_for_all, "each row's own maximum"),
        (lambda z: _softmax(z).log(), "keep the logarithm exact"),
        (lambda z: _softmax(z).clamp(min=1e-12).log(), "keep the logarithm exact"),
        (lambda z: z.log_softmax(-1), "log_softmax is not to be used here"),
        (lambda z: z - z.logsumexp(-1, keepdim=True), "logsumexp is not to be used here"),
        (lambda z: _shifted_by(z, z[..., :1]), "log_softmax of the logits [["),
        (lambda z: _shifted_by(z, z.mean(-1, keepdim=True)), "log_softmax of the logits [["),
    ],
    "1.6": [
        (lambda text, V: torch.zeros(V, V), "nothing was trained"),
        (lambda text, V: _count(text, V).log(), "no token may be ruled out"),
        (
            lambda text, V: _count(text, V) / _count(text, V).sum(1, keepdim=True).clamp(min=1),
            "the table holds logits",
        ),
        (lambda text, V: (_count(text, V).T + 1e-6).log(), "rows and columns are exchanged"),
        (lambda text, V: (_count(text, V).sum(0) + 1e-6).log().repeat(V, 1), "all rows are equal"),
        (lambda text, V: (_count(text, V) + 1.0).log().mul(0.3) - 1, "more steps"),
        (lambda text, V: (_count(text, V) + 1e-6).log()[: V - 1], "the table has shape"),
    ],
}
