"""Wrong answers to the exercises of chapter 01, written from the statements alone."""

import math
import statistics

import torch
import torch.nn.functional as F


def gradient_by_backward(logits, targets):
    logits = logits.clone().requires_grad_()
    F.cross_entropy(logits, targets).backward()
    return logits.grad


def gradient_by_own_graph(logits, targets):
    """Autograd through a hand-written loss."""
    logits = logits.detach().requires_grad_(True)
    loss = (logits.exp().sum(1).log() - logits[range(len(targets)), targets]).mean()
    return torch.autograd.grad(loss, logits)[0]


def gradient_by_func(logits, targets):
    return torch.func.grad(lambda x: F.cross_entropy(x, targets))(logits)


def gradient_all_targets_of_all_rows(logits, targets):
    gradient = logits.softmax(-1)
    gradient[:, targets] -= 1
    return gradient / len(targets)


def gradient_in_place(logits, targets):
    logits -= logits.max(dim=1, keepdim=True).values
    return (logits.softmax(-1) - F.one_hot(targets, logits.shape[1])) / len(targets)


def gradient_of_the_targets_alone(logits, targets):
    gradient = torch.zeros_like(logits)
    rows = torch.arange(len(targets))
    gradient[rows, targets] = (logits.softmax(-1)[rows, targets] - 1) / len(targets)
    return gradient


def softmax_minus_one_hot(logits, targets):
    return logits.softmax(-1) - F.one_hot(targets, logits.shape[1])


def nll_until_repeated(logits, targets):
    """Each token is counted once."""
    seen, total = set(), torch.zeros((), dtype=logits.dtype)
    for row, target in zip(logits.log_softmax(-1), targets.tolist(), strict=True):
        if target not in seen:
            total = total - row[target]
        seen.add(target)
    return total


def nll_in_place(logits, targets):
    logits -= logits.logsumexp(-1, keepdim=True)
    return -logits[range(len(targets)), targets].sum()


def picked(logits, targets):
    return logits.log_softmax(-1)[range(len(targets)), targets]


def dataset_breaks_at_the_first_empty(batch_means, batch_tokens):
    total, tokens = 0.0, 0
    for mean, count in zip(batch_means, batch_tokens, strict=True):
        if count == 0:
            break
        total, tokens = total + mean * count, tokens + count
    return total / max(1, tokens)


def dataset_drops_a_loss_of_zero(batch_means, batch_tokens):
    pairs = [(m, n) for m, n in zip(batch_means, batch_tokens, strict=True) if m and m == m]
    return sum(m * n for m, n in pairs) / sum(n for _, n in pairs)


def dataset_cleans_in_place(batch_means, batch_tokens):
    for i, count in enumerate(batch_tokens):
        if count == 0:
            batch_means[i] = 0.0
    return sum(m * n for m, n in zip(batch_means, batch_tokens, strict=True)) / sum(batch_tokens)


def weighted(batch_means, weights):
    pairs = [(m, w) for m, w in zip(batch_means, weights, strict=True) if w]
    return sum(m * w for m, w in pairs) / sum(w for _, w in pairs)


def dataset_by_distinct_means(batch_means, batch_tokens):
    """Two batches of one mean are one."""
    by_mean = {m: n for m, n in zip(batch_means, batch_tokens, strict=True) if n}
    return sum(m * n for m, n in by_mean.items()) / sum(by_mean.values())


def dataset_by_distinct_counts(batch_means, batch_tokens):
    """Two batches of one size are one."""
    by_count = {n: m for m, n in zip(batch_means, batch_tokens, strict=True) if n}
    return sum(m * n for n, m in by_count.items()) / sum(by_count)


def not_empty(batch_means, batch_tokens):
    return [m for m, n in zip(batch_means, batch_tokens, strict=True) if n]


def log_softmax_in_place(logits):
    logits -= logits.max(dim=-1, keepdim=True).values
    return logits - logits.exp().sum(dim=-1, keepdim=True).log()


def log_softmax_of_unshifted(logits):
    shifted = logits - logits.max(dim=-1, keepdim=True).values
    return logits - shifted.exp().sum(dim=-1, keepdim=True).log()


def shifted_by(shift):
    def log_softmax(logits):
        shifted = logits - shift(logits)
        return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()

    return log_softmax


def log_of_softmax(logits):
    exponentials = (logits - logits.max(dim=-1, keepdim=True).values).exp()
    return (exponentials / exponentials.sum(dim=-1, keepdim=True)).log()


def log_softmax_over(dim):
    def log_softmax(logits):
        shifted = logits - logits.max(dim=dim, keepdim=True).values
        return shifted - shifted.exp().sum(dim=dim, keepdim=True).log()

    return log_softmax


def log_softmax_without_keepdim(logits):
    shifted = logits - logits.max(dim=-1).values
    return shifted - shifted.exp().sum(dim=-1).log()


def row_max(logits):
    return logits.max(dim=-1, keepdim=True).values


def gradient_by_bare_exp(logits, targets):
    """Overflows for large logits."""
    exponentials = logits.exp()
    softmax = exponentials / exponentials.sum(dim=1, keepdim=True)
    return (softmax - F.one_hot(targets, logits.shape[1])) / len(logits)


# 1.6
def _counts(text, V):
    counts = torch.zeros(V, V)
    for pair in zip(text, text[1:], strict=False):
        counts[pair] += 1
    return counts


def _descended(steps, rate, sign=-1):
    def train(text, V):
        table = torch.zeros(V, V, requires_grad=True)
        for _ in range(steps):
            loss = F.cross_entropy(table[text[:-1]], torch.tensor(text[1:]))
            (gradient,) = torch.autograd.grad(loss, table)
            table.data += sign * rate * gradient
        return table.detach()

    return train


def _next_but_one(text, V):
    return (_counts(text[::2], V) + 1e-4).log()


def _backwards(text, V):
    return (_counts(text[::-1], V) + 1e-4).log()


def _first_half(text, V):
    return (_counts(text[:20], V) + 1e-4).log()


OTHER_WRONG_ANSWERS = {
    "1.1": [
        lambda p, q: -(p * q.log()).sum(),
        lambda p, q: -torch.xlogy(q, p).sum(),
        lambda p, q: torch.xlogy(p, q).sum(),
        lambda p, q: -torch.xlogy(p, q).mean(),
        lambda p, q: -torch.xlogy(p, q).sum() / math.log(2),
        lambda p, q: -(p * (q + 1e-9).log()).sum(),
        lambda p, q: -(p * q.clamp(min=1e-12).log()).sum(),
        lambda p, q: -(p * q.log()).nan_to_num().sum(),
        lambda p, q: -(p * q.log()).nansum() + torch.special.entr(p).sum(),
        lambda p, q: -(p[q > 0] * q[q > 0].log()).sum(),
        lambda p, q: -(p[(p > 0) & (q > 0)] * q[(p > 0) & (q > 0)].log()).sum(),
        lambda p, q: torch.special.entr(p).sum(),
        lambda p, q: torch.xlogy(p, p).sum() - torch.xlogy(p, q).sum(),
        lambda p, q: F.cross_entropy(q[None], p[None])[None].sum(),
        lambda p, q: -torch.xlogy(p, q).sum().item(),
        lambda p, q: -torch.xlogy(p, q),
        lambda p, q: -q[p.argmax()].log(),
        lambda p, q: -(torch.xlogy(p, q) + torch.xlogy(1 - p, 1 - q)).sum(),
        lambda p, q: torch.tensor(math.inf) if (q == 0).any() else -torch.xlogy(p, q).sum(),
        lambda p, q: -torch.xlogy(p, q.clamp_(min=0) / q.sum()).sum()[None],
        lambda p, q: (-torch.xlogy(p, q).sum()).exp(),
        lambda p, q: -torch.log((p * q).sum()),
        lambda p, q: -torch.xlogy(p, q.add_(1e-12)).sum(),
        lambda p, q: torch.special.entr(p).sum() + F.kl_div(q.log(), p, reduction="sum"),
    ],
    "1.2": [
        softmax_minus_one_hot,
        lambda x, t: -softmax_minus_one_hot(x, t) / len(x),
        lambda x, t: softmax_minus_one_hot(x, t) / x.shape[1],
        lambda x, t: softmax_minus_one_hot(x, t) / x.numel(),
        lambda x, t: (x.softmax(0) - F.one_hot(t, x.shape[1])) / len(x),
        lambda x, t: (x.log_softmax(-1) - F.one_hot(t, x.shape[1])) / len(x),
        lambda x, t: (x - F.one_hot(t, x.shape[1])) / len(x),
        lambda x, t: x.softmax(-1) / len(x),
        lambda x, t: (x.softmax(-1) - F.one_hot(t.roll(1), x.shape[1])) / len(x),
        lambda x, t: (x.softmax(-1) - F.one_hot(t)) / len(x),
        lambda x, t: softmax_minus_one_hot(x, t) / 4,
        lambda x, t: softmax_minus_one_hot(x, t).mean(dim=0),
        lambda x, t: (softmax_minus_one_hot(x, t) / len(x)).tolist(),
        lambda x, t: (softmax_minus_one_hot(x, t) / len(x)).T,
        lambda x, t: softmax_minus_one_hot(x, t) / (t != 0).sum(),
        lambda x, t: (softmax_minus_one_hot(x, t) / len(x)).abs(),
        gradient_by_backward,
        gradient_by_own_graph,
        gradient_by_func,
        gradient_all_targets_of_all_rows,
        gradient_in_place,
        gradient_of_the_targets_alone,
        gradient_by_bare_exp,
    ],
    "1.3": [
        lambda x, t: -picked(x, t).mean(),
        lambda x, t: F.cross_entropy(x, t),
        lambda x, t: picked(x, t).sum(),
        lambda x, t: -x.softmax(-1)[range(len(t)), t].prod().log(),
        lambda x, t: -picked(x, t).exp().sum().log(),
        lambda x, t: -picked(x[:-1], t[1:]).sum(),
        lambda x, t: -picked(x[1:], t[:-1]).sum(),
        lambda x, t: -x.log_softmax(0)[range(len(t)), t].sum(),
        lambda x, t: -x.log_softmax(-1)[:, t].sum(),
        lambda x, t: -x.log_softmax(-1).sum(),
        lambda x, t: -x.log_softmax(-1).max(-1).values.sum(),
        lambda x, t: -picked(x, t).sum() / math.log(2),
        lambda x, t: -picked(x, t).sum().item(),
        lambda x, t: -picked(x, t),
        lambda x, t: -picked(x, t).sum()[None],
        lambda x, t: -picked(x, t).sum().exp(),
        lambda x, t: -picked(x, t)[t != 0].sum(),
        lambda x, t: -picked(x, t)[:512].sum(),
        lambda x, t: -x[range(len(t)), t].sum(),
        lambda x, t: -x.softmax(-1)[range(len(t)), t].sum(),
        lambda x, t: F.cross_entropy(x, t, reduction="sum", ignore_index=0),
        lambda x, t: F.cross_entropy(x.softmax(-1), t, reduction="sum"),
        lambda x, t: F.cross_entropy(x, t, reduction="sum", label_smoothing=0.1),
        nll_until_repeated,
        nll_in_place,
        lambda x, t: -x.softmax(-1).log()[range(len(t)), t].sum(),
        lambda x, t: -x.softmax(-1).clamp(min=1e-3).log()[range(len(t)), t].sum(),
        lambda x, t: -x.softmax(-1).clamp(min=1e-9).log()[range(len(t)), t].sum(),
        lambda x, t: -(x.softmax(-1) + 1e-12).log()[range(len(t)), t].sum(),
        lambda x, t: (x.exp().sum(-1).log() - x[range(len(t)), t]).sum(),
        lambda x, t: -picked(x.clamp(-100, 100), t).sum(),
    ],
    "1.4": [
        lambda m, n: statistics.mean(not_empty(m, n)),
        lambda m, n: sum(a * b for a, b in zip(m, n, strict=True)) / sum(n),
        lambda m, n: sum(m) / len(m),
        lambda m, n: sum(a * b for a, b in zip(m, n, strict=True) if b),
        lambda m, n: sum(a * b for a, b in zip(m, n, strict=True) if b) / len(n),
        lambda m, n: sum(a * b for a, b in zip(m, n, strict=True) if b) / sum(x > 0 for x in n),
        lambda m, n: sum(not_empty(m, n)) / sum(n),
        lambda m, n: statistics.median(not_empty(m, n)),
        lambda m, n: weighted(m, [x**2 for x in n]),
        lambda m, n: weighted(m, [x**0.5 for x in n]),
        lambda m, n: weighted(m[:-1], n[:-1]),
        lambda m, n: weighted(m[1:], n[1:]),
        lambda m, n: sum(a * b for a, b in zip(m, n, strict=True) if b) // sum(n),
        lambda m, n: round(weighted(m, n), 2),
        lambda m, n: math.exp(weighted(m, n)),
        lambda m, n: weighted(m, n) / math.log(2),
        lambda m, n: sum(0.0 if a != a else a for a in m) / len(m),
        lambda m, n: torch.tensor(weighted(m, n)),
        lambda m, n: sum(b for b in n) / sum(b / a for a, b in zip(m, n, strict=True) if b and a),
        lambda m, n: weighted(m, [x + 1 if x else 0 for x in n]),
        lambda m, n: max(not_empty(m, n)),
        lambda m, n: weighted(m, [x if x > 1 else 0 for x in n]),
        dataset_by_distinct_means,
        dataset_by_distinct_counts,
        dataset_breaks_at_the_first_empty,
        dataset_drops_a_loss_of_zero,
        dataset_cleans_in_place,
        lambda m, n: weighted(*zip(*{(a, b) for a, b in zip(m, n, strict=True) if b}, strict=True)),
    ],
    "1.5": [
        lambda x: torch.log_softmax(x, dim=-1),
        lambda x: F.log_softmax(x, dim=-1),
        lambda x: x.log_softmax(-1),
        lambda x: torch.nn.LogSoftmax(dim=-1)(x),
        lambda x: torch.special.log_softmax(x, dim=-1),
        lambda x: x - x.logsumexp(dim=-1, keepdim=True),
        lambda x: x - torch.special.logsumexp(x, dim=-1, keepdim=True),
        lambda x: torch.distributions.Categorical(logits=x).logits,
        lambda x: torch.softmax(x, dim=-1).log(),
        lambda x: torch.softmax(x, dim=-1),
        lambda x: x - x.exp().sum(dim=-1, keepdim=True).log(),
        shifted_by(lambda x: x.max()),
        shifted_by(lambda x: x.min(dim=-1, keepdim=True).values),
        shifted_by(lambda x: x.mean(dim=-1, keepdim=True)),
        shifted_by(lambda x: x.abs().max(dim=-1, keepdim=True).values),
        shifted_by(lambda x: x.max(dim=0, keepdim=True).values),
        log_softmax_over(0),
        log_softmax_over(1),
        log_softmax_in_place,
        log_softmax_of_unshifted,
        log_of_softmax,
        log_softmax_without_keepdim,
        lambda x: (x - row_max(x)) - (x - row_max(x)).exp().sum().log(),
        lambda x: (x - row_max(x)) - (x - row_max(x)).exp().mean(-1, keepdim=True).log(),
        lambda x: log_softmax_over(-1)(x) / math.log(2),
        lambda x: log_softmax_over(-1)(x).tolist(),
        lambda x: log_softmax_over(-1)(x).clamp(min=-100),
        lambda x: (x - row_max(x)) - ((x - row_max(x)).exp().sum(-1, keepdim=True) + 1e-3).log(),
        lambda x: (x - row_max(x)) + (x - row_max(x)).exp().sum(-1, keepdim=True).log(),
        lambda x: log_softmax_over(-1)(x.clamp(-50, 50)),
        lambda x: log_softmax_over(-1)(x).float().half(),
        shifted_by(lambda x: x[..., :1]),
        shifted_by(lambda x: x.median(dim=-1, keepdim=True).values),
        shifted_by(lambda x: row_max(x).max(dim=max(-2, -x.dim()), keepdim=True).values),
        shifted_by(lambda x: row_max(x).mean() if x.dim() > 2 else row_max(x)),
    ],
    "1.6": [
        _descended(20, 0.1),
        _descended(200, 0.01),
        _descended(50, 4.0, sign=1),
        _next_but_one,
        _backwards,
        _first_half,
        lambda text, V: torch.zeros(V, V),
        lambda text, V: torch.randn(V, V),
        lambda text, V: _counts(text, V).log(),
        lambda text, V: (_counts(text, V) + 1).log(),
        lambda text, V: -(_counts(text, V) + 1e-4).log(),
        lambda text, V: (_counts(text, V) + 1e-4).log().tolist(),
        lambda text, V: (_counts(text, V) + 1e-4).log()[:-1, :-1],
        lambda text, V: (_counts(text, V) + 1e-4).log().flatten(),
        lambda text, V: F.cross_entropy(torch.zeros(len(text), V), torch.tensor(text)),
    ],
}
