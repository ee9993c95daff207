"""Wrong answers to the exercises of chapter 09, each with what its reader is told."""

import random
import re
from math import comb

import numpy as np


def _tidy(text):
    return " ".join(text.split()).rstrip(" .")


def _bootstrap(
    before,
    after,
    entity,
    resamples,
    seed,
    *,
    unit="entity",
    paired=True,
    replace=True,
    means=False,
    levels=(2.5, 97.5),
    scale=100,
):
    rng, names = np.random.default_rng(seed), np.unique(entity)
    groups = [np.flatnonzero(entity == name) for name in names]
    if unit == "question":
        groups = list(np.arange(len(entity))[:, None])
    sums = [np.array([values[group].sum() for group in groups]) for values in (after, before)]
    counts = np.array([len(group) for group in groups])
    found = []
    for _ in range(resamples):
        first = rng.choice(len(groups), len(groups), replace=replace)
        second = first if paired else rng.choice(len(groups), len(groups), replace=replace)
        if means:
            found.append(
                (sums[0][first] / counts[first]).mean() - (sums[1][second] / counts[second]).mean()
            )
        else:
            found.append(
                sums[0][first].sum() / counts[first].sum()
                - sums[1][second].sum() / counts[second].sum()
            )
    return tuple(float(x) for x in scale * np.percentile(found, levels))


def _tail(gained, lost):
    return sum(comb(gained + lost, k) for k in range(min(gained, lost) + 1))


def _runs(confidences, correct, bins):
    order = np.argsort(confidences)
    return np.array_split(
        np.stack([np.array(confidences), np.array(correct, dtype=float)])[:, order], bins, axis=1
    )


def _gaps(*arguments):
    return [abs(run[0].mean() - run[1].mean()) for run in _runs(*arguments)]


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


WRONG_ANSWERS = {
    "9.1": [
        (lambda a, b: a == b, "treat both sides alike"),
        (lambda a, b: _tidy(a) == b, "treat both sides alike"),
        (lambda a, b: _tidy(a).lower() == _tidy(b).lower(), "case carries meaning"),
        (
            lambda a, b: (
                " ".join(a.replace(".", "").split()) == " ".join(b.replace(".", "").split())
            ),
            "45 counts as 4.5",
        ),
        (
            lambda a, b: _tidy(re.sub(r"[-+]", "", a)) == _tidy(re.sub(r"[-+]", "", b)),
            "-3 counts as 3",
        ),
        (
            lambda a, b: (
                bool(_tidy(a)) and (_tidy(a).startswith(_tidy(b)) or _tidy(b).startswith(_tidy(a)))
            ),
            "an answer that goes on",
        ),
        (
            lambda a, b: _tidy(a) == _tidy(b) or _tidy(a).endswith(f"or {_tidy(b)}"),
            "containing is not equalling",
        ),
        (
            lambda a, b: (
                "".join(a.split()).rstrip(".").lower()[1:]
                == "".join(b.split()).rstrip(".").lower()[1:]
            ),
            "case carries meaning",
        ),
        (
            lambda a, b: (
                "".join(a.split()).rstrip(".").replace("Y", "y") == "".join(b.split()).rstrip(".")
            ),
            "white space was deleted",
        ),
    ],
    "9.2": [
        (
            lambda ids, stop, ends, limit: (
                "cut" if len(ids) == limit else "stopped" if ids[-1] == stop else "document"
            ),
            "look at the token, not at the length",
        ),
        (
            lambda ids, stop, ends, limit: "stopped" if ids[-1] in {stop} | ends else "cut",
            "the document ended",
        ),
        (
            lambda ids, stop, ends, limit: (
                "stopped" if stop in ids else "document" if ids[-1] in ends else "cut"
            ),
            "only the last token says how",
        ),
        (lambda ids, stop, ends, limit: ids[-1] == stop, 'return one of "stopped"'),
        (
            lambda ids, stop, ends, limit: "stopped" if ids[-1] == stop else "cut",
            "expected 'document'",
        ),
        (
            lambda ids, stop, ends, limit: (
                "stopped"
                if len(ids) < limit and ids[-1] == stop
                else "document"
                if ids[-1] in ends
                else "cut"
            ),
            "look at the token, not at the length",
        ),
    ],
    "9.3": [
        (lambda *x: _bootstrap(*x, unit="question"), "you resampled questions"),
        (lambda *x: _bootstrap(*x, paired=False), "one draw of entities serves both models"),
        (lambda *x: _bootstrap(*x, replace=False), "WITH replacement"),
        (lambda *x: _bootstrap(*x, means=True), "every question counts the same"),
        (lambda *x: _bootstrap(*x, levels=(5, 95)), "a 90 % interval"),
        (lambda b, a, *x: _bootstrap(a, b, *x), "the sign is reversed"),
        (lambda *x: _bootstrap(*x, scale=1), "in fractions"),
        (lambda b, a, e, r, s: _bootstrap(b, a, e, r, 0), "the seed is not used"),
        (lambda b, a, e, r, s: _bootstrap(b, a, e, r, None), "with the same seed"),
        (lambda b, a, *x: float(100 * (a - b).mean()), "return two things, low and high"),
    ],
    "9.4": [
        (lambda g, n: _tail(g, n) / 2 ** (g + n), "one tail only"),
        (lambda g, n: comb(g + n, n) / 2 ** (g + n), "exactly this split"),
        (lambda g, n: 1 - 2 * _tail(g, n) / 2 ** (g + n), "one minus p"),
        (lambda g, n: 2 * _tail(g, n) / 2 ** (g + n), "cap the sum at 1"),
        (
            lambda g, n: min(1.0, 2 * sum(comb(g + n, k) for k in range(n + 1)) / 2 ** (g + n)),
            "after swapping",
        ),
        (
            lambda g, n: min(1.0, 2 * _tail(g, n) * 0.5 ** (g + n)) if g + n < 1000 else 0.0,
            "keep whole numbers",
        ),
        (lambda g, n: min(1.0, 2 * _tail(g, n) / 2.0 ** (g + n)), "overflow a float"),
        (
            lambda g, n: 2 * (_tail(g, n) - comb(g + n, n)) / 2 ** (g + n),
            "the split itself is missing",
        ),
    ],
    "9.5": [
        (_equal_width, "bins of equal width"),
        (lambda c, r, bins: _cut(np.array(c) - np.array(r), bins), "the answers are not sorted"),
        (lambda c, r, bins: _cut(np.sort(c) - np.array(r), bins), "sorted without their outcomes"),
        (lambda *x: float(sum(_gaps(*x))), "this is the sum of the gaps"),
        (lambda *x: float(np.mean(_gaps(*x))), "the runs are not weighed"),
        (
            lambda c, r, bins: float(np.abs(np.array(c) - np.array(r)).mean()),
            "mean gap of single answers",
        ),
        (lambda c, r, bins: float(abs(np.mean(c) - np.mean(r))), "one gap over all answers"),
        (lambda *x: float(max(_gaps(*x))), "the largest gap"),
    ],
    "9.6": [
        (
            lambda p, seed: _show(p, [random.Random(seed).random() < 0.5] * len(p)),
            "one coin for all pairs",
        ),
        (
            lambda p, seed: _show(p, [random.Random(seed).random() < 0.5 for _ in p]),
            "one coin for all pairs",
        ),
        (
            lambda p, seed: _show(p, [i % 2 == 0 for i in range(len(p))]),
            "sides that follow a pattern",
        ),
        (lambda p, seed: _show(p, _half(p, seed)), "the last side follows from the others"),
        (
            lambda p, seed: _show(p, [random.random() < 0.5 for _ in p]),
            "the same seed gives another key",
        ),
        (
            lambda p, seed: (_show(p, _coins(p, seed))[0], [not x for x in _coins(p, seed)]),
            "the key does not fit",
        ),
        (_in_place, "changed `pairs` in place"),
        (_shuffles_order, "keep the order of the pairs"),
        (
            lambda p, seed: _show(
                p, [x and y for x, y in zip(_coins(p, seed), _coins(p, seed + 999), strict=True)]
            ),
            "a fair coin swaps half",
        ),
        (lambda p, seed: _show(p, _coins(p, seed))[0], "return two things, the pairs"),
    ],
}
