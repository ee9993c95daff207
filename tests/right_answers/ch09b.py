"""Right answers to the exercises of chapter 09b, each in another style; written from the statements
alone."""

import math
import random
from collections import defaultdict
from fractions import Fraction

import numpy as np
import torch


# 9b.1
def _doubled_tail(gained, lost):
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**n)


def _upper_tail(gained, lost):
    n, most = gained + lost, max(gained, lost)
    p = Fraction(2 * sum(math.comb(n, k) for k in range(most, n + 1)), 2**n)
    return float(min(p, 1))


def _every_split(gained, lost):
    n = gained + lost
    uneven = abs(gained - lost)
    return sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= uneven) / 2**n


def _in_logarithms(gained, lost):
    n, least = gained + lost, min(gained, lost)
    if gained == lost:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + (1 - n) * math.log(2)
        for k in range(least + 1)
    ]
    top = max(logs)
    return min(1.0, math.exp(top) * sum(math.exp(one - top) for one in logs))


def _term_after_term(gained, lost):
    n, term, tail = gained + lost, 1, 0
    if n == 0:
        return 1.0
    for k in range(min(gained, lost) + 1):
        tail += term
        term = term * (n - k) // (k + 1)
    return 1.0 if gained == lost else tail / (1 << (n - 1))


# 9b.3
def _sums_and_counts(before, after, entity, resamples, seed):
    numbers, place = np.unique(entity, return_inverse=True)
    gain = np.bincount(place, weights=after - before)
    count = np.bincount(place)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(numbers), size=(resamples, len(numbers)))
    means = 100 * gain[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _plain_python(before, after, entity, resamples, seed):
    of_entity = defaultdict(list)
    for a, b, e in zip(after.tolist(), before.tolist(), entity.tolist(), strict=False):
        of_entity[e].append(a - b)
    groups, rng, means = list(of_entity.values()), random.Random(seed), []
    for _ in range(resamples):
        drawn = [gap for group in rng.choices(groups, k=len(groups)) for gap in group]
        means.append(100 * sum(drawn) / len(drawn))
    return tuple(np.quantile(means, (0.025, 0.975)).tolist())


def _by_weights(before, after, entity, resamples, seed):
    numbers = np.unique(entity)
    member = entity[None, :] == numbers[:, None]
    times = np.random.RandomState(seed).multinomial(
        len(numbers), [1 / len(numbers)] * len(numbers), size=resamples
    )
    means = times @ (member @ (after - before)) / (times @ member.sum(axis=1))
    return tuple(float(x) for x in 100 * np.quantile(means, [0.025, 0.975]))


def _concatenated(before, after, entity, resamples, seed):
    rng = np.random.default_rng(seed)
    places = {e: np.flatnonzero(entity == e) for e in set(entity.tolist())}
    names, means = sorted(places), []
    for _ in range(resamples):
        some = np.concatenate([places[e] for e in rng.choice(names, len(names))])
        means.append(after[some].mean() - before[some].mean())
    return 100 * np.percentile(means, 2.5), 100 * np.percentile(means, 97.5)


def _in_torch(before, after, entity, resamples, seed):
    generator = torch.Generator().manual_seed(seed)
    _, place = torch.tensor(entity).unique(return_inverse=True)
    gap, n = torch.tensor(after - before, dtype=torch.float64), int(place.max()) + 1
    gain = torch.zeros(n, dtype=torch.float64).index_add(0, place, gap)
    count = torch.bincount(place).double()
    drawn = torch.randint(n, (resamples, n), generator=generator)
    means = gain[drawn].sum(1) / count[drawn].sum(1) * 100
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


RIGHT_ANSWERS = {
    "9b.1": [_doubled_tail, _upper_tail, _every_split, _in_logarithms, _term_after_term],
    "9b.3": [_sums_and_counts, _plain_python, _by_weights, _concatenated, _in_torch],
}
