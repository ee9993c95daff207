"""Wrong answers to the exercises of chapter 09b, written from the statements alone."""

import math
import random

import numpy as np


# 9b.1
def _tail(gained, lost, most=None):
    n, least = gained + lost, min(gained, lost)
    last = least if most is None else most(least)
    return sum(math.comb(n, k) for k in range(last + 1)) / 2**n


def _chi_squared(correction):
    def answer(gained, lost):
        if gained == lost:
            return 1.0
        statistic = max(0, abs(gained - lost) - correction) ** 2 / (gained + lost)
        return math.erfc(math.sqrt(statistic / 2))

    return answer


def _in_floats(gained, lost):
    n = gained + lost
    tail = sum(math.comb(n, k) * 0.5**n for k in range(min(gained, lost) + 1) if n < 1000)
    return min(1.0, 2 * tail) if n else 1.0


# 9b.3
def _interval(
    group=lambda entity: entity,
    gap=lambda before, after: after - before,
    drawn=None,
    mean=lambda gains, counts: gains.sum(1) / counts.sum(1),
    points=100,
    percentiles=(2.5, 97.5),
    result=lambda means, low, high: (float(low), float(high)),
):
    """The right interval with one part changed."""

    def answer(before, after, entity, resamples, seed):
        _, place = np.unique(group(entity), return_inverse=True)
        counts = np.bincount(place)
        gains = np.bincount(place, weights=gap(before, after))
        rng = np.random.default_rng(seed)
        n = len(counts)
        if drawn is None:
            some = rng.integers(n, size=(resamples, n))
        else:
            some = drawn(rng, n, resamples, len(entity))
        means = points * mean(gains[some], counts[some])
        return result(means, *np.percentile(means, percentiles))

    return answer


def _each_once(rng, n, resamples, questions):
    return np.array([rng.permutation(n) for _ in range(resamples)])


def _one_draw(rng, n, resamples, questions):
    return np.repeat(rng.integers(n, size=(1, n)), resamples, axis=0)


def _unseeded(before, after, entity, resamples, seed):
    return _interval()(before, after, entity, resamples, random.randrange(1 << 30))


def _fixed_seed(before, after, entity, resamples, seed):
    return _interval()(before, after, entity, resamples, 0)


def _fixed_resamples(before, after, entity, resamples, seed):
    return _interval()(before, after, entity, 1000, seed)


def _runs_of_equal_neighbours(before, after, entity, resamples, seed):
    new = np.concatenate(([True], entity[1:] != entity[:-1]))
    return _interval()(before, after, np.cumsum(new), resamples, seed)


def _numbers_as_places(before, after, entity, resamples, seed):
    gains, counts = np.bincount(entity, weights=after - before), np.bincount(entity)
    n = len(counts)
    some = np.random.default_rng(seed).integers(n, size=(resamples, n))
    means = 100 * gains[some].sum(1) / np.maximum(1, counts[some].sum(1))
    return tuple(np.percentile(means, [2.5, 97.5]).tolist())


def _separate_draws(before, after, entity, resamples, seed):
    """Before and after drawn apart: the pairs are lost."""
    _, place = np.unique(entity, return_inverse=True)
    counts, rng = np.bincount(place), np.random.default_rng(seed)
    n = len(counts)
    means = []
    for scores in (after, before):
        some = rng.integers(n, size=(resamples, n))
        means.append(np.bincount(place, weights=scores)[some].sum(1) / counts[some].sum(1))
    return tuple((100 * np.percentile(means[0] - means[1], [2.5, 97.5])).tolist())


def _normal(before, after, entity, resamples, seed):
    low, high = _interval()(before, after, entity, resamples, seed)
    middle = 100 * (after - before).mean()
    half = 3 * (high - low) / 2
    return middle - half, middle + half


def _in_place(before, after, entity, resamples, seed):
    after -= before
    return _interval(gap=lambda before, after: after)(before, after, entity, resamples, seed)


def _entity_sorted_in_place(before, after, entity, resamples, seed):
    found = _interval()(before, after, entity, resamples, seed)
    entity.sort()
    return found


def _drawn_twice_counts_once(before, after, entity, resamples, seed):
    _, place = np.unique(entity, return_inverse=True)
    counts, gains = np.bincount(place), np.bincount(place, weights=after - before)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(resamples, len(counts)))
    taken = np.zeros(drawn.shape)
    np.put_along_axis(taken, drawn, 1.0, axis=1)
    means = 100 * (taken @ gains) / (taken @ counts)
    return tuple(np.percentile(means, (2.5, 97.5)).tolist())


OTHER_WRONG_ANSWERS = {
    "9b.1": [
        lambda gained, lost: _tail(gained, lost),
        lambda gained, lost: 2 * _tail(gained, lost),
        lambda gained, lost: min(1.0, 2 * _tail(gained, lost, lambda least: least - 1)),
        lambda gained, lost: min(1.0, 2 * _tail(gained, lost, lambda least: least + 1)),
        lambda gained, lost: min(1.0, 2 * _tail(gained, lost, lambda least: gained)),
        lambda gained, lost: min(1.0, 2 * _tail(gained, lost, lambda least: lost)),
        lambda gained, lost: min(1.0, 2 * math.comb(gained + lost, gained) / 2 ** (gained + lost)),
        lambda gained, lost: math.comb(gained + lost, gained) / 2 ** (gained + lost),
        lambda gained, lost: min(
            1.0,
            2 * _tail(gained, lost) - math.comb(gained + lost, gained) / 2 ** (gained + lost),
        ),
        lambda gained, lost: 1 - min(1.0, 2 * _tail(gained, lost)),
        lambda gained, lost: min(1.0, 2 * _tail(gained, lost)) if gained + lost else 0.0,
        lambda gained, lost: min(1.0, 2 * _tail(gained, lost)) if gained + lost else math.nan,
        lambda gained, lost: min(1.0, 2 * _tail(gained, lost)) if gained and lost else 1.0,
        lambda gained, lost: round(min(1.0, 2 * _tail(gained, lost)), 4),
        lambda gained, lost: 100 * min(1.0, 2 * _tail(gained, lost)),
        lambda gained, lost: min(1.0, 2 * _tail(gained, lost)) < 0.05,
        lambda gained, lost: min(0.99, 2 * _tail(gained, lost)),
        _chi_squared(0),
        _chi_squared(1),
        lambda gained, lost: math.exp(-((gained - lost) ** 2) / (2 * max(1, gained + lost))),
        lambda gained, lost: gained / (gained + lost) if gained + lost else 1.0,
        _in_floats,
    ],
    "9b.3": [
        _interval(group=lambda entity: np.arange(len(entity))),
        _interval(group=lambda entity: entity % 10),
        _interval(gap=lambda before, after: before - after),
        _interval(gap=lambda before, after: after),
        _interval(gap=lambda before, after: np.abs(after - before)),
        _interval(gap=lambda before, after: np.sign(after - before)),
        _interval(mean=lambda gains, counts: (gains / counts).mean(1)),
        _interval(mean=lambda gains, counts: gains.mean(1)),
        _interval(mean=lambda gains, counts: gains.sum(1)),
        _interval(mean=lambda gains, counts: np.median(gains / counts, axis=1)),
        _interval(points=1),
        _interval(points=10_000),
        _interval(percentiles=(5, 95)),
        _interval(percentiles=(0.5, 99.5)),
        _interval(percentiles=(0, 95)),
        _interval(percentiles=(5, 100)),
        _interval(percentiles=(0, 100)),
        _interval(percentiles=(25, 75)),
        _interval(percentiles=(0.025, 0.975)),
        _interval(percentiles=(97.5, 2.5)),
        _interval(drawn=_each_once),
        _interval(drawn=_one_draw),
        _interval(
            drawn=lambda rng, n, resamples, questions: rng.integers(n, size=(resamples, questions))
        ),
        _interval(
            drawn=lambda rng, n, resamples, questions: rng.integers(n, size=(resamples, n // 2))
        ),
        _interval(drawn=lambda rng, n, resamples, questions: rng.integers(n, size=(resamples, 1))),
        _interval(
            drawn=lambda rng, n, resamples, questions: rng.integers(n - 1, size=(resamples, n))
        ),
        _interval(result=lambda means, low, high: [float(low), float(high), float(means.mean())]),
        _interval(result=lambda means, low, high: float(high - low)),
        _interval(result=lambda means, low, high: (2 * means.mean() - high, low)),
        _interval(
            result=lambda means, low, high: (means.mean() - means.std(), means.mean() + means.std())
        ),
        _unseeded,
        _fixed_seed,
        _fixed_resamples,
        _runs_of_equal_neighbours,
        _numbers_as_places,
        _separate_draws,
        _normal,
        _in_place,
        _entity_sorted_in_place,
        _drawn_twice_counts_once,
    ],
}
