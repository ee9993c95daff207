"""Wrong answers to the exercises of chapter 09, written from the statements alone."""

import difflib
import math
import random
import re
import unicodedata

import numpy as np


# 9.1
def _after(change, same=lambda a, b: a == b):
    return lambda answer, reference: same(change(answer), change(reference))


def _bare(text):
    return " ".join(text.split()).rstrip(" .")


def _as_number(answer, reference):
    try:
        return float(_bare(answer)) == float(_bare(reference))
    except ValueError:
        return _bare(answer) == _bare(reference)


# 9.3
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


# 9.4
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


# 9.5
def _error(
    order=lambda sure, right: np.argsort(sure, kind="stable"),
    cut=lambda n, bins: np.array_split(np.arange(n), bins),
    gap=lambda sure, right: abs(sure.mean() - right.mean()),
    share=lambda run, n, bins: len(run) / n,
    join=sum,
):
    """The right error with one part changed."""

    def answer(confidences, correct, bins):
        sure, right = np.array(confidences, dtype=float), np.array(correct, dtype=float)
        placed = order(sure, right)
        sure, right, n = sure[placed], right[placed], len(placed)
        runs = [run for run in cut(n, bins) if len(run)]
        return float(join([share(run, n, bins) * gap(sure[run], right[run]) for run in runs]))

    return answer


def _smaller_first(n, bins):
    ends = [n * i // bins for i in range(bins + 1)]
    sizes = sorted(ends[i + 1] - ends[i] for i in range(bins))
    return np.split(np.arange(n), np.cumsum(sizes)[:-1])


def _rest_to_the_last(n, bins):
    size = max(1, n // bins)
    return np.split(np.arange(n), [size * i for i in range(1, bins)])


def _rest_left_out(n, bins):
    size = n // bins
    return [np.arange(size * i, size * (i + 1)) for i in range(bins)]


def _full_chunks(n, bins):
    size = math.ceil(n / bins)
    return [np.arange(first, min(first + size, n)) for first in range(0, n, size)]


def _even_ends(n, bins):
    ends = [round(n * i / bins) for i in range(bins + 1)]
    return [np.arange(a, b) for a, b in zip(ends, ends[1:], strict=False)]


def _equal_widths(confidences, correct, bins):
    sure, right = np.array(confidences), np.array(correct, dtype=float)
    place = np.minimum((sure * bins).astype(int), bins - 1)
    return float(
        sum(
            (place == k).mean() * abs(sure[place == k].mean() - right[place == k].mean())
            for k in set(place.tolist())
        )
    )


def _by_value(confidences, correct, bins):
    """A dictionary keeps one answer of those that are equally sure."""
    kept = dict(zip(confidences, correct, strict=False))
    return _error()(list(kept), list(kept.values()), bins)


def _by_ranks_of_values(confidences, correct, bins):
    """Runs of distinct confidences instead of answers."""
    values = sorted(set(confidences))
    total = 0.0
    for run in np.array_split(values, bins):
        some = [i for i, c in enumerate(confidences) if c in run]
        total += abs(sum(confidences[i] - correct[i] for i in some))
    return total / len(confidences)


def _sorts_the_list(confidences, correct, bins):
    found = _error()(confidences, correct, bins)
    confidences.sort()
    return found


def _sorts_alone(confidences, correct, bins):
    return _error(order=lambda sure, right: np.arange(len(sure)))(
        sorted(confidences), correct, bins
    )


# 9.6
def _blind(make_key, show=lambda pair, swap: pair[::-1] if swap else pair):
    """The right answer with other coins, or shown in another way."""

    def answer(pairs, seed):
        key = make_key(len(pairs), seed, pairs)
        return [show(pair, swap) for pair, swap in zip(pairs, key, strict=False)], list(key)

    return answer


def _coins(n, seed, pairs=None):
    rng = random.Random(seed)
    return [rng.random() < 0.5 for _ in range(n)]


def _half_of_them(n, seed, pairs):
    chosen = set(random.Random(seed).sample(range(n), n // 2))
    return [i in chosen for i in range(n)]


def _in_turn(n, seed, pairs):
    first = random.Random(seed).random() < 0.5
    return [bool((i + first) % 2) for i in range(n)]


def _opposite_neighbours(n, seed, pairs):
    coins = _coins(n, seed)
    return [not coins[i - 1] if i % 2 else coins[i] for i in range(n)]


def _sticky(n, seed, pairs):
    rng = random.Random(seed)
    key = [rng.random() < 0.5]
    while len(key) < n:
        key.append(key[-1] if rng.random() < 0.9 else not key[-1])
    return key


def _by_pair(n, seed, pairs):
    rng, coins = random.Random(seed), {}
    return [coins.setdefault(pair, rng.random() < 0.5) for pair in pairs]


def _swapped_in_place(pairs, seed):
    key = _coins(len(pairs), seed)
    for i, swap in enumerate(key):
        if swap:
            pairs[i] = pairs[i][::-1]
    return pairs, key


def _also_in_place(pairs, seed):
    key = _coins(len(pairs), seed)
    shown = [pair[::-1] if swap else pair for pair, swap in zip(pairs, key, strict=False)]
    pairs[:] = shown
    return list(shown), key


def _shuffled(pairs, seed):
    rng, key = random.Random(seed), _coins(len(pairs), seed)
    shown = [pair[::-1] if swap else pair for pair, swap in zip(pairs, key, strict=False)]
    places = rng.sample(range(len(pairs)), len(pairs))
    return [shown[i] for i in places], [key[i] for i in places]


def _shuffled_input(pairs, seed):
    rng = random.Random(seed)
    rng.shuffle(pairs)
    return _blind(_coins)(pairs, seed)


OTHER_WRONG_ANSWERS = {
    "9.1": [
        lambda answer, reference: answer == reference,
        lambda answer, reference: _bare(answer) == reference,
        lambda answer, reference: answer == _bare(reference),
        lambda answer, reference: _bare(answer).startswith(_bare(reference)),
        lambda answer, reference: _bare(reference).startswith(_bare(answer)),
        lambda answer, reference: _bare(reference) in _bare(answer),
        lambda answer, reference: _bare(reference) in _bare(answer).split("."),
        lambda answer, reference: re.match(re.escape(_bare(reference)), _bare(answer)),
        lambda answer, reference: set(_bare(answer).split()) == set(_bare(reference).split()),
        lambda answer, reference: sorted(_bare(answer).split()) == sorted(_bare(reference).split()),
        lambda answer, reference: (
            difflib.SequenceMatcher(None, _bare(answer), _bare(reference)).ratio() > 0.9
        ),
        lambda answer, reference: _bare(answer).split(".")[0] == _bare(reference).split(".")[0],
        lambda answer, reference: _bare(answer)[: len(_bare(reference))] == _bare(reference),
        _after(lambda text: _bare(text).lower()),
        _after(lambda text: _bare(text).casefold()),
        _after(lambda text: _bare(text).capitalize()),
        _after(lambda text: _bare(text)[:1].lower() + _bare(text)[1:]),
        _after(lambda text: text.strip()),
        _after(lambda text: text.strip().rstrip(".")),
        _after(lambda text: text.strip(" .\n\t")),
        _after(lambda text: " ".join(text.split())),
        _after(lambda text: " ".join(text.split()).removesuffix(".")),
        _after(lambda text: " ".join(text.rstrip(".").split())),
        _after(lambda text: re.sub(" +", " ", text).strip(" ").rstrip(" .")),
        _after(lambda text: text.replace("  ", " ").strip().rstrip(" .")),
        _after(lambda text: "".join(text.split()).rstrip(".")),
        _after(lambda text: " ".join(text.split()).strip(" .")),
        _after(lambda text: " ".join(text.split()).rstrip(" .!?")),
        _after(lambda text: " ".join(text.split()).rstrip(" .,;:")),
        _after(lambda text: " ".join(text.replace(".", "").split())),
        _after(lambda text: " ".join(text.replace(".", " ").split())),
        _after(lambda text: " ".join(re.sub(r"[^\w\s]", "", text).split())),
        _after(lambda text: " ".join(re.sub(r"[^\w\s.]", "", text).split()).rstrip(" .")),
        _after(lambda text: " ".join(word.rstrip(".") for word in text.split()).rstrip()),
        _after(lambda text: re.sub(r"\b(the|a|an) ", "", _bare(text))),
        _after(lambda text: unicodedata.normalize("NFKC", _bare(text))),
        _after(lambda text: _bare(text).encode("ascii", "ignore")),
        _after(lambda text: _bare(text).split()[-1:]),
        _after(lambda text: _bare(text).split()[:1]),
        _after(lambda text: _bare(text.splitlines()[0] if text.strip() else "")),
        _after(lambda text: len(_bare(text))),
        _as_number,
    ],
    "9.2": [
        lambda ids, stop, ends, limit: (
            "cut" if len(ids) == limit else "stopped" if ids[-1] == stop else "document"
        ),
        lambda ids, stop, ends, limit: (
            "cut" if len(ids) >= limit else "document" if ids[-1] in ends else "stopped"
        ),
        lambda ids, stop, ends, limit: (
            "document" if ids[-1] in ends else "stopped" if ids[-1] == stop else "cut"
        ),
        lambda ids, stop, ends, limit: "stopped" if ids[-1] == stop else "document",
        lambda ids, stop, ends, limit: "stopped" if ids[-1] == stop else "cut",
        lambda ids, stop, ends, limit: "document" if ids[-1] in ends - {stop} else "stopped",
        lambda ids, stop, ends, limit: "stopped" if len(ids) < limit else "cut",
        lambda ids, stop, ends, limit: (
            "stopped" if ids[0] == stop else "document" if ids[0] in ends else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids[-1] == stop else "document" if len(ids) < limit else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids[-1] == stop else "document" if ids[-1] == max(ends) else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids[-1] == stop else "document" if ids[-1] == min(ends) else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids[-1] == stop and stop else "document" if ids[-1] in ends else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids[-1] == stop else "document" if ids[-1] and ids[-1] in ends else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids[-1] == 2 else "document" if ids[-1] in ends else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stop" if ids[-1] == stop else "document" if ids[-1] in ends else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "document" if ids[-1] == stop else "stopped" if ids[-1] in ends else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "cut"
            if len(ids) == limit and ids[-1] != stop
            else "stopped"
            if ids[-1] == stop
            else "document"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids.pop() == stop else "cut" if len(ids) + 1 == limit else "document"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids[-1] == stop else "document" if ids.pop() in ends else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids[-2] == stop else "document" if ids[-2] in ends else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped"
            if ids[-1] == stop and len(ids) < limit
            else "document"
            if ids[-1] in ends
            else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped"
            if ids[-1] == stop
            else "document"
            if ids[-1] in ends and len(ids) < limit
            else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids[-1] == stop else "document" if ends & {*ids} else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "document" if (ends - {stop}) & {*ids} else "stopped" if ids[-1] == stop else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if stop in ids[-2:] else "document" if ids[-1] in ends else "cut"
        ),
        lambda ids, stop, ends, limit: (
            "stopped" if ids[-1] is stop else "document" if ids[-1] in ends else "cut"
        ),
        lambda ids, stop, ends, limit: (
            ("stopped" if ids.index(stop) == len(ids) - 1 else "cut")
            if stop in ids
            else ("document" if ids[-1] in ends else "cut")
        ),
    ],
    "9.3": [
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
    "9.4": [
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
    "9.5": [
        _error(order=lambda sure, right: np.argsort(-sure, kind="stable")),
        _error(order=lambda sure, right: np.arange(len(sure))),
        _error(order=lambda sure, right: np.lexsort((sure, right))),
        _error(cut=_smaller_first),
        _error(cut=_rest_to_the_last),
        _error(cut=_rest_left_out),
        _error(cut=_full_chunks),
        _error(cut=_even_ends),
        _error(cut=lambda n, bins: np.array_split(np.arange(n), 10)),
        _error(cut=lambda n, bins: np.array_split(np.arange(n), bins + 1)),
        _error(cut=lambda n, bins: np.array_split(np.arange(n), bins - 1)),
        _error(cut=lambda n, bins: np.array_split(np.arange(n), n // bins)),
        _error(cut=lambda n, bins: [np.arange(i, n, bins) for i in range(bins)]),
        _error(cut=lambda n, bins: [np.arange(n)]),
        _error(gap=lambda sure, right: sure.mean() - right.mean()),
        _error(gap=lambda sure, right: right.mean() - sure.mean()),
        _error(gap=lambda sure, right: max(0, sure.mean() - right.mean())),
        _error(gap=lambda sure, right: (sure.mean() - right.mean()) ** 2),
        _error(gap=lambda sure, right: np.abs(sure - right).mean()),
        _error(gap=lambda sure, right: ((sure - right) ** 2).mean()),
        _error(gap=lambda sure, right: abs(np.median(sure) - right.mean())),
        _error(gap=lambda sure, right: abs((sure.min() + sure.max()) / 2 - right.mean())),
        _error(gap=lambda sure, right: abs(sure.sum() - right.sum())),
        _error(gap=lambda sure, right: abs(sure.mean() - (right == 0).mean())),
        _error(share=lambda run, n, bins: 1 / bins),
        _error(share=lambda run, n, bins: 1),
        _error(share=lambda run, n, bins: len(run)),
        _error(share=lambda run, n, bins: 100 * len(run) / n),
        _error(share=lambda run, n, bins: 1, join=max),
        _error(join=max),
        _error(join=lambda gaps: gaps),
        lambda confidences, correct, bins: [_error()(confidences, correct, bins)],
        _equal_widths,
        _by_value,
        _by_ranks_of_values,
        _sorts_the_list,
        _sorts_alone,
    ],
    "9.6": [
        _blind(lambda n, seed, pairs: [random.Random(seed).random() < 0.5 for _ in pairs]),
        _blind(lambda n, seed, pairs: [i % 2 == 1 for i in range(n)]),
        _blind(lambda n, seed, pairs: [True] * n),
        _blind(lambda n, seed, pairs: [False] * n),
        _blind(lambda n, seed, pairs: _coins(n, 0)),
        _blind(lambda n, seed, pairs: [random.SystemRandom().random() < 0.5 for _ in pairs]),
        _blind(lambda n, seed, pairs: [False, *_coins(n - 1, seed)]),
        _blind(lambda n, seed, pairs: [x < 0.25 for x in np.random.default_rng(seed).random(n)]),
        _blind(lambda n, seed, pairs: [x < 0.8 for x in np.random.default_rng(seed).random(n)]),
        _blind(lambda n, seed, pairs: [len(a) > len(b) for a, b in pairs]),
        _blind(lambda n, seed, pairs: [a > b for a, b in pairs]),
        _blind(lambda n, seed, pairs: [int(coin) for coin in _coins(n, seed)]),
        _blind(lambda n, seed, pairs: [float(coin) for coin in _coins(n, seed)]),
        _blind(lambda n, seed, pairs: ["swapped" if coin else "" for coin in _coins(n, seed)]),
        _blind(_half_of_them),
        _blind(_in_turn),
        _blind(_opposite_neighbours),
        _blind(_sticky),
        _blind(_by_pair),
        _blind(_coins, lambda pair, swap: pair if swap else pair[::-1]),
        _blind(_coins, lambda pair, swap: pair),
        _blind(_coins, lambda pair, swap: pair[::-1]),
        _blind(_coins, lambda pair, swap: list(pair[::-1] if swap else pair)),
        _blind(_coins, lambda pair, swap: " | ".join(pair[::-1] if swap else pair)),
        _blind(_coins, lambda pair, swap: (pair[1], pair[1]) if swap else pair),
        lambda pairs, seed: (_blind(_coins)(pairs, seed)[0][::-1], _coins(len(pairs), seed)),
        lambda pairs, seed: (_blind(_coins)(pairs, seed)[0], _coins(len(pairs), seed)[::-1]),
        lambda pairs, seed: (_blind(_coins)(pairs, seed)[0], _coins(len(pairs), seed + 1)),
        lambda pairs, seed: _blind(_coins)(pairs, seed)[0],
        lambda pairs, seed: _blind(_coins)(pairs, seed)[::-1],
        lambda pairs, seed: (iter(_blind(_coins)(pairs, seed)[0]), _coins(len(pairs), seed)),
        _swapped_in_place,
        _also_in_place,
        _shuffled,
        _shuffled_input,
    ],
}
