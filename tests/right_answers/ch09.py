"""Right answers to the exercises of chapter 09, each in another style; written from the statements
alone."""

import math
import random
import re
from collections import defaultdict
from fractions import Fraction

import numpy as np
import torch


# 9.1
def _word_by_word(answer, reference):
    sides = []
    for text in (answer, reference):
        words = text.split()
        while words and not words[-1].rstrip("."):
            words.pop()
        if words:
            words[-1] = words[-1].rstrip(".")
        sides.append(words)
    return sides[0] == sides[1]


def _one_character_at_a_time(answer, reference):
    def bare(text):
        text = " ".join(text.split())
        while text and text[-1] in ". ":
            text = text[:-1]
        return text

    return bare(answer) == bare(reference)


def _by_pattern(answer, reference):
    def bare(text):
        return re.sub(r"[\s.]+$", "", re.sub(r"\s+", " ", text).strip())

    return bare(answer) == bare(reference)


# 9.2
def _match(ids, stop, other_ends, max_new_tokens):
    last = ids[-1]
    if last == stop:
        return "stopped"
    if last in other_ends:
        return "document"
    return "cut"


def _last_by_set(ids, stop, other_ends, max_new_tokens):
    ends = {end: "document" for end in other_ends}
    ends[stop] = "stopped"
    return ends.get(ids[-1], "cut")


def _length_first(ids, stop, other_ends, max_new_tokens):
    if len(ids) == max_new_tokens and ids[-1] != stop and ids[-1] not in other_ends:
        return "cut"
    return "stopped" if ids[-1] == stop else "document"


def _unpacked(ids, stop, other_ends, max_new_tokens):
    *_, last = ids
    kinds = [("stopped", {stop}), ("document", set(other_ends)), ("cut", {last})]
    return next(kind for kind, ends in kinds if last in ends)


# 9.3
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


# 9.4
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


# 9.5
def _split(confidences, correct, bins):
    order = np.argsort(confidences, kind="stable")
    gaps = np.array(confidences, dtype=float)[order] - np.array(correct, dtype=float)[order]
    return float(sum(abs(run.sum()) for run in np.array_split(gaps, bins)) / len(gaps))


def _by_hand(confidences, correct, bins):
    pairs = sorted(zip(confidences, correct, strict=False), key=lambda pair: pair[0])
    size, more = divmod(len(pairs), bins)
    first, total = 0, 0.0
    for run in range(bins):
        last = first + size + (run < more)
        some = pairs[first:last]
        if some:
            sure = sum(c for c, _ in some) / len(some)
            right = sum(ok for _, ok in some) / len(some)
            total += len(some) / len(pairs) * abs(sure - right)
        first = last
    return total


def _in_order(confidences, correct, bins):
    order = sorted(range(len(correct)), key=confidences.__getitem__)
    total = 0.0
    for places in np.array_split(order, bins):
        total += abs(sum(confidences[i] - correct[i] for i in places))
    return total / len(order)


def _cumulated(confidences, correct, bins):
    order = np.argsort(np.asarray(confidences), kind="mergesort")
    gap = np.asarray(confidences)[order] - np.asarray(correct)[order].astype(float)
    sums = np.concatenate(([0.0], np.cumsum(gap)))
    n = len(gap)
    sizes = [n // bins + (i < n % bins) for i in range(bins)]
    return float(np.abs(np.diff(sums[np.concatenate(([0], np.cumsum(sizes)))])).sum() / n)


def _chunks(confidences, correct, bins):
    sure, order = torch.tensor(confidences, dtype=torch.float64).sort(stable=True)
    right = torch.tensor(correct, dtype=torch.float64)[order]
    runs = zip(sure.tensor_split(bins), right.tensor_split(bins), strict=False)
    return sum((a.sum() - b.sum()).abs().item() for a, b in runs) / len(order)


# 9.6
def _loop_of_coins(pairs, seed):
    rng, shown, key = random.Random(seed), [], []
    for first, second in pairs:
        swap = rng.random() < 0.5
        shown.append((second, first) if swap else (first, second))
        key.append(swap)
    return shown, key


def _numpy_coins(pairs, seed):
    key = np.random.default_rng(seed).integers(2, size=len(pairs)).astype(bool).tolist()
    return [pair[::-1] if swap else pair for pair, swap in zip(pairs, key, strict=False)], key


def _torch_coins(pairs, seed):
    coins = torch.rand(len(pairs), generator=torch.Generator().manual_seed(seed)) < 0.5
    key = coins.tolist()
    return [(b, a) if key[i] else (a, b) for i, (a, b) in enumerate(pairs)], key


def _bits(pairs, seed):
    rng = random.Random(seed)
    key = [bool(rng.getrandbits(1)) for _ in pairs]
    return [tuple(reversed(p)) if k else tuple(p) for p, k in zip(pairs, key, strict=False)], key


def _choices(pairs, seed):
    generator = random.Random(seed)
    shown = list(pairs)
    key = generator.choices([True, False], k=len(pairs))
    for i, swapped in enumerate(key):
        if swapped:
            a, b = shown[i]
            shown[i] = (b, a)
    return shown, key


RIGHT_ANSWERS = {
    "9.1": [
        lambda answer, reference: (
            " ".join(answer.split()).rstrip(" .") == " ".join(reference.split()).rstrip(" .")
        ),
        lambda answer, reference: (
            len({" ".join(text.rstrip(". \n\t\r").split()) for text in (answer, reference)}) == 1
        ),
        _word_by_word,
        _one_character_at_a_time,
        _by_pattern,
    ],
    "9.2": [
        lambda ids, stop, other_ends, max_new_tokens: (
            "stopped" if ids[-1] == stop else "document" if ids[-1] in other_ends else "cut"
        ),
        _match,
        _last_by_set,
        _length_first,
        _unpacked,
    ],
    "9.3": [_sums_and_counts, _plain_python, _by_weights, _concatenated, _in_torch],
    "9.4": [_doubled_tail, _upper_tail, _every_split, _in_logarithms, _term_after_term],
    "9.5": [_split, _by_hand, _in_order, _cumulated, _chunks],
    "9.6": [_loop_of_coins, _numpy_coins, _torch_coins, _bits, _choices],
}
