"""Right answers to the exercises of chapter 13, each in another style."""

import statistics
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F


# 13.1
def lost_by_a_quotient(base, after, final):
    if after <= base:
        return None
    return (after - final) / (after - base)


def lost_as_one_minus_kept(base, after, final):
    learned = after - base
    return 1 - (final - base) / learned if learned > 0 else None


def lost_in_fractions(base, after, final):
    base, after, final = map(Fraction, (base, after, final))
    learned = max(after - base, Fraction(0))
    return float((after - final) / learned) if learned else None


def lost_in_numpy(base, after, final):
    learned, lost = np.float64(after) - [base, final]
    return None if learned <= 0 else lost / learned


def lost_by_interpolation(base, after, final):
    if not base < after:
        return None
    slope = 1 / (base - after)
    return 1 + slope * (final - base)


# 13.2
def conflict_by_sums(old, new):
    dot = a2 = b2 = 0.0
    for a, b in zip(old, new, strict=True):
        if a is not None:
            a2 += float((a.double() ** 2).sum())
        if b is not None:
            b2 += float((b.double() ** 2).sum())
        if a is not None and b is not None:
            dot += float((a.double() * b.double()).sum())
    return dot / (a2 * b2) ** 0.5 if a2 and b2 else 0.0


def conflict_by_concatenation(old, new):
    first, second = [], []
    for a, b in zip(old, new, strict=True):
        if a is None and b is None:
            continue
        first.append((torch.zeros_like(b) if a is None else a).flatten())
        second.append((torch.zeros_like(a) if b is None else b).flatten())
    if not first:
        return 0.0
    return F.cosine_similarity(torch.cat(first), torch.cat(second), dim=0).item()


def conflict_in_numpy(old, new):
    def length(parts):
        return np.sqrt(sum(np.square(p.numpy().astype(np.float64)).sum() for p in parts))

    a = length([p for p in old if p is not None])
    b = length([p for p in new if p is not None])
    if a == 0 or b == 0:
        return 0.0
    pairs = [(p, q) for p, q in zip(old, new, strict=True) if p is not None and q is not None]
    return float(sum(np.vdot(p.double().numpy(), q.double().numpy()) for p, q in pairs) / (a * b))


def conflict_of_unit_vectors(old, new):
    def to_unit(parts):
        size = sum((p.double().norm() ** 2 for p in parts if p is not None), torch.tensor(0.0))
        return [None if p is None or size == 0 else p.double() / size.sqrt() for p in parts]

    pairs = zip(to_unit(old), to_unit(new), strict=True)
    return sum((a * b).sum().item() for a, b in pairs if a is not None and b is not None) + 0.0


def conflict_number_by_number(old, new):
    def numbers(parts, others):
        for part, other in zip(parts, others, strict=True):
            if part is not None:
                yield from part.flatten().tolist()
            elif other is not None:
                yield from [0.0] * other.numel()

    a, b = list(numbers(old, new)), list(numbers(new, old))
    scale = sum(x * x for x in a) * sum(y * y for y in b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / scale**0.5 if scale > 0 else 0.0


# 13.4
def kl_by_masks(before, tuned, labels):
    p, q = before[:, :-1].log_softmax(-1), tuned[:, :-1].log_softmax(-1)
    graded = labels[:, 1:] != -100
    return (p.exp() * (p - q)).sum(-1)[graded].mean().item()


def kl_by_library(before, tuned, labels):
    graded = labels[:, 1:].ne(-100)
    p, q = (F.log_softmax(z[:, :-1][graded], -1) for z in (before, tuned))
    return F.kl_div(q, p, log_target=True, reduction="batchmean").item()


def kl_by_loops(before, tuned, labels):
    values = []
    for row in range(len(labels)):
        for t in range(1, labels.shape[1]):
            if labels[row, t] == -100:
                continue
            p = torch.softmax(before[row, t - 1].double(), 0)
            q = torch.softmax(tuned[row, t - 1].double(), 0)
            values.append(sum((p * (p / q).log()).tolist()))
    return sum(values) / len(values)


def kl_by_distributions(before, tuned, labels):
    graded = labels[:, 1:] != -100
    p, q = (torch.distributions.Categorical(logits=z[:, :-1][graded]) for z in (before, tuned))
    return float(torch.distributions.kl_divergence(p, q).mean())


def kl_by_cross_entropy(before, tuned, labels):
    graded = labels[:, 1:] != -100
    z, w = before[:, :-1][graded], tuned[:, :-1][graded]
    p = z.softmax(-1)
    return (F.cross_entropy(w, p) - F.cross_entropy(z, p)).item()


def kl_in_numpy(before, tuned, labels):
    def log_softmax(z):
        z = z.numpy().astype(np.float64)
        z = z - z.max(-1, keepdims=True)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    p, q = log_softmax(before), log_softmax(tuned)
    rows, places = np.nonzero(labels.numpy()[:, 1:] != -100)
    p, q = p[rows, places], q[rows, places]
    return np.einsum("nv,nv->", np.exp(p), p - q) / len(rows)


# 13.5
def spearman_by_bisection(x, y):
    def rank(values):
        ordered = sorted(values)
        return [(bisect_left(ordered, v) + bisect_right(ordered, v) + 1) / 2 for v in values]

    return statistics.correlation(rank(x), rank(y))


def spearman_by_signs(x, y):
    """Ranks from comparisons, without their mean: the mean is 0 already."""

    def rank(values):
        return [sum((v > w) - (v < w) for w in values) for v in values]

    a, b = rank(x), rank(y)
    size = sum(i * i for i in a) * sum(j * j for j in b)
    return sum(i * j for i, j in zip(a, b, strict=True)) / size**0.5


def spearman_in_numpy(x, y):
    def rank(values):
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[where]

    return np.corrcoef(rank(x), rank(y))[0, 1]


def spearman_in_torch(x, y):
    def rank(values):
        values = torch.tensor(values, dtype=torch.float64)
        return (values[:, None] > values).sum(1) + 0.5 * (values[:, None] == values).sum(1)

    return torch.corrcoef(torch.stack([rank(x), rank(y)]))[0, 1].item()


def spearman_by_groups(x, y):
    def rank(values):
        places = {}
        for place, value in enumerate(sorted(values), 1):
            places.setdefault(value, []).append(place)
        return [sum(places[v]) / len(places[v]) for v in values]

    a, b = rank(x), rank(y)
    n = len(a)
    mean = (n + 1) / 2
    covariance = sum((i - mean) * (j - mean) for i, j in zip(a, b, strict=True)) / n
    return covariance / (statistics.pstdev(a) * statistics.pstdev(b))


def spearman_of_both_orders(x, y):
    """The mean of ranks upwards and of ranks downwards shares equal values' ranks."""

    def order(values, sign):
        places = np.argsort(sign * np.asarray(values, dtype=float), kind="stable")
        ranks = np.empty(len(values))
        ranks[places] = np.arange(len(values))
        return ranks

    a, b = (order(v, 1) - order(v, -1) for v in (x, y))
    return float((a @ b) / np.sqrt((a @ a) * (b @ b)))


_REPAIR = {"old": 24, "new": 72, "rate": 5e-4, "epochs": 10}

RIGHT_ANSWERS = {
    "13.1": [
        lost_by_a_quotient,
        lost_as_one_minus_kept,
        lost_in_fractions,
        lost_in_numpy,
        lost_by_interpolation,
    ],
    "13.2": [
        conflict_by_sums,
        conflict_by_concatenation,
        conflict_in_numpy,
        conflict_of_unit_vectors,
        conflict_number_by_number,
    ],
    "13.3": [  # few trainings: the check remembers what it trained
        _REPAIR,
        dict(reversed(_REPAIR.items())),
        OrderedDict(_REPAIR),
        _REPAIR | {"rate": 1 / 2000},
        {"old": 24, "new": 176, "rate": 1e-3, "epochs": 10},
    ],
    "13.4": [
        kl_by_masks,
        kl_by_library,
        kl_by_loops,
        kl_by_distributions,
        kl_by_cross_entropy,
        kl_in_numpy,
    ],
    "13.5": [
        spearman_by_bisection,
        spearman_by_signs,
        spearman_in_numpy,
        spearman_in_torch,
        spearman_by_groups,
        spearman_of_both_orders,
    ],
}
