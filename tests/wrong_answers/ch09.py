"""Wrong answers to the exercises of chapter 09, each with what its reader is told."""

import random
import re
from functools import partial
from math import comb

import numpy as np


def _tidy(text):
    return " ".join(text.split()).rstrip(" .")


def _bootstrap(
    *exam, by_question=False, paired=True, replace=True, means=False, levels=(2.5, 97.5), scale=100
):
    before, after, entity, resamples, seed = exam
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(entity == name) for name in np.unique(entity)]
    if by_question:
        groups = list(np.arange(len(entity))[:, None])
    counts = np.array([len(group) for group in groups])
    before, after = (np.array([x[group].sum() for group in groups]) for x in (before, after))

    def score(sums, drawn):
        if means:
            return (sums[drawn] / counts[drawn]).mean()
        return sums[drawn].sum() / counts[drawn].sum()

    found = []
    for _ in range(resamples):
        first = rng.choice(len(groups), len(groups), replace=replace)
        second = first if paired else rng.choice(len(groups), len(groups), replace=replace)
        found.append(score(after, first) - score(before, second))
    return tuple(float(x) for x in scale * np.percentile(found, levels))


def _tail(gained, lost):
    return sum(comb(gained + lost, k) for k in range(min(gained, lost) + 1))


def _one_sided(gained, lost):
    changed = gained + lost
    return min(1.0, 2 * sum(comb(changed, k) for k in range(lost + 1)) / 2**changed)


def _small_powers(gained, lost):
    changed = gained + lost
    return min(1.0, 2 * _tail(gained, lost) * 0.5**changed) if changed < 1000 else 0.0


def _runs(confidences, correct, bins):
    order = np.argsort(confidences)
    both = np.stack([np.array(confidences), np.array(correct, dtype=float)])
    return np.array_split(both[:, order], bins, axis=1)


def _gaps(*arguments):
    return [abs(run[0].mean() - run[1].mean()) for run in _runs(*arguments)]


def _mean_gap(confidences, correct):
    return float(np.abs(np.array(confidences) - np.array(correct)).mean())


def _equal_width(confidences, correct, bins):
    sure, hits = np.array(confidences), np.array(correct, dtype=float)
    places = np.minimum((sure * bins).astype(int), bins - 1)
    return sum(abs((sure - hits)[places == k].sum()) for k in range(bins)) / len(sure)


def _cut(gaps, bins):
    return sum(abs(run.sum()) for run in np.array_split(gaps, bins)) / len(gaps)


def _show(pairs, key):
    return [(b, a) if swapped else (a, b) for (a, b), swapped in zip(pairs, key, strict=True)], key


def _coins(pairs, seed):
    coin = random.Random(seed)
    return [coin.random() < 0.5 for _ in pairs]


def _half(pairs, seed):
    key = [i < len(pairs) // 2 for i in range(len(pairs))]
    random.Random(seed).shuffle(key)
    return key


def _in_place(pairs, seed):
    key = _coins(pairs, seed)
    for i, swapped in enumerate(key):
        pairs[i] = pairs[i][::-1] if swapped else pairs[i]
    return pairs, key


def _shuffles_order(pairs, seed):
    return random.Random(seed).sample(pairs, len(pairs)), _coins(pairs, seed)


def _swaps(coins):
    return lambda pairs, seed: _show(pairs, coins(pairs, seed))


def _two_coins(pairs, seed):
    first, second = _coins(pairs, seed), _coins(pairs, seed + 999)
    return [one and other for one, other in zip(first, second, strict=True)]


def _other_key(pairs, seed):
    shown, key = _show(pairs, _coins(pairs, seed))
    return shown, [not swapped for swapped in key]


def _normalised(change):
    """Compares both sides after the same change."""
    return lambda answer, reference: change(answer) == change(reference)


def _no_spaces(text):
    return "".join(text.split()).rstrip(".")


def _one_starts_the_other(answer, reference):
    one, other = _tidy(answer), _tidy(reference)
    return bool(one) and (one.startswith(other) or other.startswith(one))


def _by_length_first(ids, stop, ends, limit):
    return "cut" if len(ids) == limit else "stopped" if ids[-1] == stop else "document"


def _one_end_for_all(ids, stop, ends, limit):
    return "stopped" if ids[-1] in {stop} | ends else "cut"


def _anywhere(ids, stop, ends, limit):
    return "stopped" if stop in ids else "document" if ids[-1] in ends else "cut"


def _no_document(ids, stop, ends, limit):
    return "stopped" if ids[-1] == stop else "cut"


def _stops_before_the_limit(ids, stop, ends, limit):
    if ids[-1] == stop and len(ids) < limit:
        return "stopped"
    return "document" if ids[-1] in ends else "cut"


WRONG_ANSWERS = {
    "9.1": [
        (lambda answer, reference: answer == reference, "must not matter"),
        (lambda answer, reference: _tidy(answer) == reference, "treat both sides alike"),
        (_normalised(lambda text: _tidy(text).lower()), "case carries meaning"),
        (_normalised(lambda text: _tidy(text.replace(".", ""))), "45 is not 4.5"),
        (_normalised(lambda text: _tidy(re.sub(r"[-+]", "", text))), "answer = '-3'"),
        (_one_starts_the_other, "an answer that goes on"),
        (lambda a, b: _tidy(b) in _tidy(a), "containing is not equalling"),
        (_normalised(lambda text: _no_spaces(text).lower()[1:]), "answer = 'AU.'"),
        (_normalised(_no_spaces), "white space was deleted"),
    ],
    "9.2": [
        (_by_length_first, "look at the token, not at the length"),
        (_one_end_for_all, "the document ended"),
        (_anywhere, "only the last token says how"),
        (lambda ids, stop, ends, limit: ids[-1] == stop, 'return one of "stopped"'),
        (_no_document, "that is no cut"),
        (_stops_before_the_limit, "look at the token, not at the length"),
    ],
    "9.3": [
        (partial(_bootstrap, by_question=True), "you resampled questions"),
        (partial(_bootstrap, paired=False), "one draw of entities serves both models"),
        (partial(_bootstrap, replace=False), "WITH replacement"),
        (partial(_bootstrap, means=True), "every question counts the same"),
        (partial(_bootstrap, levels=(5, 95)), "a 90 % interval"),
        (lambda b, a, *x: _bootstrap(a, b, *x), "the sign is reversed"),
        (partial(_bootstrap, scale=1), "in fractions"),
        (lambda b, a, e, r, s: _bootstrap(b, a, e, r, 0), "the seed is not used"),
        (lambda b, a, e, r, s: _bootstrap(b, a, e, r, None), "with the same seed"),
        (lambda b, a, *x: float(100 * (a - b).mean()), "return two things, low and high"),
    ],
    "9.4": [
        (lambda g, n: _tail(g, n) / 2 ** (g + n), "one tail only"),
        (lambda g, n: comb(g + n, n) / 2 ** (g + n), "exactly this split"),
        (lambda g, n: 1 - 2 * _tail(g, n) / 2 ** (g + n), "one minus p"),
        (lambda g, n: 2 * _tail(g, n) / 2 ** (g + n), "cap the sum at 1"),
        (_one_sided, "gained and lost change places"),
        (_small_powers, "keep whole numbers"),
        (lambda g, n: min(1.0, 2 * _tail(g, n) / 2.0 ** (g + n)), "overflow a float"),
        (lambda g, n: 2 * (_tail(g, n) - comb(g + n, n)) / 2 ** (g + n), "the split itself"),
    ],
    "9.5": [
        (_equal_width, "bins of equal width"),
        (lambda c, r, bins: _cut(np.array(c) - np.array(r), bins), "the answers are not sorted"),
        (lambda c, r, bins: _cut(np.sort(c) - np.array(r), bins), "sorted without their outcomes"),
        (lambda *x: float(sum(_gaps(*x))), "this is the sum of the gaps"),
        (lambda *x: float(np.mean(_gaps(*x))), "the runs are not weighed"),
        (lambda *x: float(max(_gaps(*x))), "the largest gap"),
        (lambda c, r, bins: _mean_gap(c, r), "mean gap of single answers"),
        (lambda c, r, bins: float(abs(np.mean(c) - np.mean(r))), "one gap over all answers"),
    ],
    "9.6": [
        (_swaps(lambda p, seed: [random.Random(seed).random() < 0.5] * len(p)), "one coin for all"),
        (_swaps(lambda p, seed: [random.Random(seed).random() < 0.5 for _ in p]), "one coin for"),
        (_swaps(lambda p, seed: [i % 2 == 0 for i in range(len(p))]), "must come from the seed"),
        (_swaps(lambda p, seed: [bool(seed >> i % 4 & 1) for i in range(len(p))]), "a pattern"),
        (_swaps(_half), "the last side follows from the others"),
        (_swaps(lambda p, seed: [random.random() < 0.5 for _ in p]), "the same seed gives another"),
        (_swaps(_two_coins), "a fair coin swaps half"),
        (_other_key, "the key does not fit"),
        (_in_place, "changed `pairs` in place"),
        (_shuffles_order, "keep the order of the pairs"),
        (lambda p, seed: _show(p, _coins(p, seed))[0], "return two things, the pairs"),
    ],
}
