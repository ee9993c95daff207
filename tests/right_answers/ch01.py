"""Right answers to the exercises of chapter 01, in different styles."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def cross_entropy_by_loop(p, q):
    total = torch.zeros((), dtype=p.dtype)
    for a, b in zip(p, q, strict=True):
        if a > 0:
            total = total - a * torch.log(b)
    return total


def cross_entropy_by_math(p, q):
    total = 0.0
    for a, b in zip(p.tolist(), q.tolist(), strict=True):
        if a:
            total += math.inf if b == 0 else -a * math.log(b)
    return torch.tensor(total)


def cross_entropy_by_numpy(p, q):
    p, q = p.numpy(), q.numpy()
    kept = p > 0
    with np.errstate(divide="ignore"):
        return torch.tensor(-np.dot(p[kept], np.log(q[kept])))


def gradient_by_loops(logits, targets):
    rows = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        top = max(row)
        exponentials = [math.exp(x - top) for x in row]
        total = sum(exponentials)
        rows.append([(e / total - (i == target)) / len(logits) for i, e in enumerate(exponentials)])
    return torch.tensor(rows, dtype=logits.dtype)


def gradient_by_index(logits, targets):
    gradient = logits.softmax(dim=-1)
    gradient[torch.arange(len(targets)), targets] -= 1
    return gradient / len(targets)


def gradient_by_scatter(logits, targets):
    one_hot = torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)
    return (F.softmax(logits, dim=1) - one_hot) / logits.shape[0]


def gradient_by_numpy(logits, targets):
    x = logits.numpy()
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(x)), targets.numpy()] -= 1
    return torch.from_numpy(p / len(x))


def nll_by_loop(logits, targets):
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        total = total + torch.logsumexp(row, dim=0) - row[target]
    return total


def nll_by_math(logits, targets):
    terms = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        top = max(row)
        terms.append(math.log(math.fsum(math.exp(x - top) for x in row)) + top - row[target])
    return torch.tensor(math.fsum(terms), dtype=torch.float64)


def dataset_by_loop(batch_means, batch_tokens):
    total, tokens = 0.0, 0
    for mean, count in zip(batch_means, batch_tokens, strict=True):
        if count == 0:
            continue
        total += mean * count
        tokens += count
    return total / tokens


def dataset_by_numpy(batch_means, batch_tokens):
    return np.average(np.nan_to_num(np.array(batch_means)), weights=np.array(batch_tokens))


def dataset_by_torch(batch_means, batch_tokens):
    sums = torch.tensor(batch_means, dtype=torch.float64) * torch.tensor(batch_tokens)
    return (sums.nansum() / sum(batch_tokens)).item()


def dataset_by_nan(batch_means, batch_tokens):
    pairs = zip(batch_means, batch_tokens, strict=True)
    return math.fsum(m * n for m, n in pairs if not math.isnan(m)) / sum(batch_tokens)


def dataset_running(batch_means, batch_tokens):
    mean, seen = 0.0, 0
    for value, count in zip(batch_means, batch_tokens, strict=True):
        if count > 0:
            seen += count
            mean += (value - mean) * count / seen
    return mean


def log_softmax_by_max(logits):
    top = torch.max(logits, dim=-1, keepdim=True).values
    shifted = logits - top
    return shifted - torch.log(torch.sum(torch.exp(shifted), dim=-1, keepdim=True))


def log_softmax_by_unsqueeze(logits):
    shifted = logits - logits.max(-1).values.unsqueeze(-1)
    return shifted - shifted.exp().sum(-1).log().unsqueeze(-1)


def log_softmax_by_rows(logits):
    rows = []
    for row in logits.reshape(-1, logits.shape[-1]):
        row = row - row.max()
        rows.append(row - row.exp().sum().log())
    return torch.stack(rows).reshape(logits.shape)


def log_softmax_by_numpy(logits):
    x = logits.numpy()
    x = x - x.max(axis=-1, keepdims=True)
    return torch.from_numpy(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)))


def log_softmax_by_normaliser(logits):
    top = logits.amax(dim=-1, keepdim=True)
    normaliser = top + (logits - top).exp().sum(dim=-1, keepdim=True).log()
    return logits - normaliser


# 1.6
def table_by_descent(text, V):
    table = torch.zeros(V, V, requires_grad=True)
    for _ in range(1500):
        loss = F.cross_entropy(table[text[:-1]], torch.tensor(text[1:]))
        (gradient,) = torch.autograd.grad(loss, table)
        with torch.no_grad():
            table -= 5.0 * gradient
    return table.detach()


def table_by_adam(text, V):
    layer = torch.nn.Embedding(V, V)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    before, after = torch.tensor(text[:-1]), torch.tensor(text[1:])
    for _ in range(500):
        optimizer.zero_grad()
        F.cross_entropy(layer(before), after).backward()
        optimizer.step()
    return layer.weight


def table_by_counting(text, V):
    counts = torch.full((V, V), 1e-4)
    for pair in zip(text, text[1:], strict=False):
        counts[pair] += 1
    return counts.log()


def table_by_numpy(text, V):
    counts = np.zeros((V, V))
    np.add.at(counts, (text[:-1], text[1:]), 1)
    shares = (counts + 1e-5) / (counts + 1e-5).sum(axis=1, keepdims=True)
    return torch.from_numpy(np.log(shares))


def table_by_closed_gradient(text, V):
    counts = torch.zeros(V, V)
    for before, after in zip(text[:-1], text[1:], strict=True):
        counts[before, after] += 1
    often = counts.sum(1, keepdim=True).clamp(min=1)
    table = torch.zeros(V, V)
    for _ in range(2500):
        table -= 1.5 * (table.softmax(1) - counts / often)  # each row with a step of its own
    return table


RIGHT_ANSWERS = {
    "1.1": [
        lambda p, q: -torch.xlogy(p, q).sum(),
        lambda p, q: -(p[p > 0] * q[p > 0].log()).sum(),
        lambda p, q: -torch.where(p > 0, p * q.log(), torch.zeros_like(p)).sum(),
        lambda p, q: -(p.double()[p != 0] @ q.double()[p != 0].log()),
        lambda p, q: torch.where(p > 0, -p * q.log(), 0.0).sum(),
        cross_entropy_by_loop,
        cross_entropy_by_math,
        cross_entropy_by_numpy,
    ],
    "1.2": [
        lambda x, t: (x.softmax(-1) - F.one_hot(t, x.shape[-1])) / len(x),
        lambda x, t: (x.log_softmax(-1).exp() - torch.eye(x.shape[1], dtype=x.dtype)[t]) / len(x),
        lambda x, t: (x.softmax(1) - (torch.arange(x.shape[1]) == t[:, None]).to(x)) / t.numel(),
        gradient_by_loops,
        gradient_by_index,
        gradient_by_scatter,
        gradient_by_numpy,
    ],
    "1.3": [
        lambda x, t: -x.log_softmax(-1).gather(-1, t[:, None]).sum(),
        lambda x, t: F.cross_entropy(x, t, reduction="sum"),
        lambda x, t: F.cross_entropy(x, t) * len(t),
        lambda x, t: F.nll_loss(F.log_softmax(x, dim=-1), t, reduction="sum"),
        lambda x, t: (x.logsumexp(-1) - x[torch.arange(len(t)), t]).sum(),
        lambda x, t: -x.double().softmax(-1)[range(len(t)), t].log().sum(),
        nll_by_loop,
        nll_by_math,
    ],
    "1.4": [
        dataset_by_loop,
        dataset_by_numpy,
        dataset_by_torch,
        dataset_by_nan,
        dataset_running,
    ],
    "1.5": [
        log_softmax_by_max,
        log_softmax_by_unsqueeze,
        log_softmax_by_rows,
        log_softmax_by_numpy,
        log_softmax_by_normaliser,
    ],
    "1.6": [
        table_by_descent,
        table_by_adam,
        table_by_counting,
        table_by_numpy,
        table_by_closed_gradient,
    ],
}
