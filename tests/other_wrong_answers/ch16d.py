"""Wrong answers to the exercises of chapter 16d."""

import statistics
from collections import Counter

import numpy as np

from sft_lab.course.judge_runs import draw_pairs

POINTS = {"first": 1, "second": -1, "tie": 0}
OTHER = {"first": "second", "second": "first", "tie": "tie"}


# 16d.1: a scorer of (word with a first, word with b first) for each pair


def _swap(consistent, lean):
    def swap_test(judge, pairs):
        calls = [(judge(q, a, b, 0), judge(q, b, a, 0)) for q, a, b in pairs]
        return consistent(calls), lean(calls)

    return swap_test


def _steady(calls):
    return statistics.fmean(OTHER[one] == two for one, two in calls)


def _mean_lean(calls):
    return statistics.fmean(POINTS[word] for both in calls for word in both)


def _other_seed(judge, pairs):
    calls = [(judge(q, a, b, 0), judge(q, b, a, 1)) for q, a, b in pairs]
    return _steady(calls), _mean_lean(calls)


SWAPS = [
    _swap(lambda calls: statistics.fmean(a == b for a, b in calls), _mean_lean),
    _swap(_steady, lambda calls: statistics.fmean(POINTS[a] for a, _ in calls)),
    _swap(_steady, lambda calls: statistics.fmean(POINTS[b] for _, b in calls)),
    _swap(_steady, lambda calls: 2 * _mean_lean(calls)),
    _swap(_steady, lambda calls: -_mean_lean(calls)),
    _swap(_steady, lambda calls: abs(_mean_lean(calls))),
    _swap(_steady, lambda calls: statistics.fmean(POINTS[a] - POINTS[b] for a, b in calls) / 2),
    _swap(lambda calls: 1 - _steady(calls), _mean_lean),
    _swap(lambda calls: sum(OTHER[a] == b for a, b in calls), _mean_lean),
    _swap(lambda calls: statistics.fmean(a != b for a, b in calls), _mean_lean),
    _swap(
        lambda calls: statistics.fmean(OTHER[a] == b or "tie" in (a, b) for a, b in calls),
        _mean_lean,
    ),
    _swap(
        lambda calls: statistics.fmean(OTHER[a] == b and a != "tie" for a, b in calls), _mean_lean
    ),
    lambda judge, pairs: tuple(reversed(SWAPS_RIGHT(judge, pairs))),
    lambda judge, pairs: (1.0, 0.0),
]
SWAPS_RIGHT = _swap(_steady, _mean_lean)


def _one_a_question(judge, pairs):
    calls = {q: (judge(q, a, b, 0), judge(q, b, a, 0)) for q, a, b in pairs}.values()
    return _steady(calls), _mean_lean(calls)


# 16d.2


def _lean(judge, kind, count=60, orders=2):
    total = 0
    for question, plain, treated in draw_pairs(kind, count, seed=1):
        total += POINTS[judge(question, treated, plain, 0)]
        if orders == 2:
            total -= POINTS[judge(question, plain, treated, 0)]
    return total / (orders * count)


def _place(judge, count=60):
    calls = [
        POINTS[judge(q, *answers, 0)]
        for q, plain, treated in draw_pairs("position", count, seed=2)
        for answers in ((plain, treated), (treated, plain))
    ]
    return statistics.fmean(calls)


def _changed(judge, seeds=(1, 2)):
    pairs = draw_pairs("noise", 200, seed=3)
    return statistics.fmean(
        judge(q, a, b, seeds[0]) != judge(q, a, b, seeds[1]) for q, a, b in pairs
    )


def _audit(
    *, place=_place, lean=_lean, changed=_changed, bar=0.43, noise=0.275, skip=(), rest="honest"
):
    def name_the_bias(judge):
        if "position" not in skip and place(judge) > bar:
            return "position"
        for kind in ("length", "repetition", "self-preference"):
            if kind not in skip and lean(judge, kind) > bar:
                return kind
        return "noise" if "noise" not in skip and changed(judge) > noise else rest

    return name_the_bias


def _both_places(judge):
    return abs(_place(judge))


BIASES = [
    _audit(),  # sees the first place alone
    _audit(place=lambda judge: -_place(judge)),
    _audit(place=_both_places, skip=("length",)),
    _audit(place=_both_places, skip=("repetition",)),
    _audit(place=_both_places, skip=("self-preference",)),
    _audit(place=_both_places, skip=("noise",)),
    _audit(place=_both_places, skip=("position",)),
    _audit(place=_both_places, bar=-0.5),
    _audit(place=_both_places, bar=2.0),
    _audit(place=_both_places, noise=0.9),
    _audit(place=_both_places, noise=-1.0),
    _audit(place=_both_places, changed=lambda judge: _changed(judge, (1, 1))),
    _audit(place=_both_places, rest="none"),
    _audit(place=_both_places, lean=lambda judge, kind: -_lean(judge, kind)),
    lambda judge: "honest",
    lambda judge: None,
]


# 16d.3


def _parts(first, second):
    n = len(first)
    agree = sum(a == b for a, b in zip(first, second, strict=True)) / n
    ours, theirs = Counter(first), Counter(second)
    return agree, sum(ours[w] * theirs[w] for w in ours) / n**2, ours, theirs, n


def _kappa(chance, empty=None):
    def kappa(first, second):
        agree, right, *_ = _parts(first, second)
        if right == 1:
            return empty
        expected = chance(first, second)
        return (agree - expected) / (1 - expected) if expected != 1 else empty

    return kappa


def _pooled(first, second):
    counts, n = Counter([*first, *second]), 2 * len(first)
    return sum((count / n) ** 2 for count in counts.values())


def _first_alone(first, second):
    return sum((count / len(first)) ** 2 for count in Counter(first).values())


def _second_alone(first, second):
    return _first_alone(second, first)


def _true_chance(first, second):
    return _parts(first, second)[1]


KAPPAS = [
    _kappa(lambda first, second: 1 / len({*first, *second}) if len({*first, *second}) > 1 else 0.5),
    _kappa(lambda first, second: 1 / 3),
    _kappa(_pooled),
    _kappa(_first_alone),
    _kappa(_second_alone),
    _kappa(_true_chance, empty=1.0),
    _kappa(_true_chance, empty=0.0),
    _kappa(lambda first, second: 0.0),
    lambda first, second: _parts(first, second)[0],
    lambda first, second: _parts(first, second)[0] - _parts(first, second)[1],
    lambda first, second: abs(KAPPA_RIGHT(first, second) or 0.0),
    lambda first, second: max(0.0, KAPPA_RIGHT(first, second) or 0.0),
    lambda first, second: 1 - _parts(first, second)[1],
    lambda first, second: None if first == second else KAPPA_RIGHT(first, second),
    lambda first, second: (
        None if len({*first}) == len({*second}) == 1 else KAPPA_RIGHT(first, second)
    ),
]
KAPPA_RIGHT = _kappa(_true_chance)


# 16d.5


def _ask(decide):
    def both_orders(judge):
        def careful(question, first, second, seed):
            return decide(
                judge(question, first, second, seed), judge(question, second, first, seed)
            )

        return careful

    return both_orders


def _no_swap(judge):
    return lambda q, a, b, seed: (
        judge(q, a, b, seed) if judge(q, a, b, seed) == judge(q, a, b, seed) else "tie"
    )


def _next_seed(judge):
    def careful(q, a, b, seed):
        one, two = judge(q, a, b, seed), judge(q, b, a, seed + 1)
        return one if OTHER[two] == one else "tie"

    return careful


def _seed_zero(judge):
    def careful(q, a, b, seed):
        one, two = judge(q, a, b, 0), judge(q, b, a, 0)
        return one if OTHER[two] == one else "tie"

    return careful


def _remembers(judge):
    known = {}

    def careful(q, a, b, seed):
        if q not in known:
            one, two = judge(q, a, b, seed), judge(q, b, a, seed)
            known[q] = one if OTHER[two] == one else "tie"
        return known[q]

    return careful


ORDERS = [
    _remembers,
    _ask(lambda one, two: one if one == two else "tie"),
    _ask(lambda one, two: two if OTHER[two] == one else "tie"),
    _ask(lambda one, two: one),
    _ask(lambda one, two: OTHER[two]),
    _ask(lambda one, two: one if one != two else "tie"),
    _ask(lambda one, two: OTHER[two] if one == "tie" else one if OTHER[two] == one else "tie"),
    _ask(lambda one, two: one if two in (OTHER[one], "tie") else "tie"),
    _ask(lambda one, two: one if OTHER[two] == one else None),
    _ask(lambda one, two: one if OTHER[two] == one else "first"),
    _ask(lambda one, two: OTHER[one] if OTHER[two] == one else "tie"),
    _no_swap,
    _next_seed,
    _seed_zero,
    lambda judge: judge,
    lambda judge: lambda q, a, b, seed: "tie",
]


# 16d.6


def _line(wins, extra):
    slope, start = np.polyfit(extra, wins, 1)
    return float(slope), float(start)


def _through_zero(wins, extra):
    slope = np.dot(extra, wins) / np.dot(extra, extra)
    return float(np.mean(wins) - slope * np.mean(extra))


def _equal_only(wins, extra):
    equal = [win for win, more in zip(wins, extra, strict=True) if more == 0]
    return statistics.fmean(equal) if equal else statistics.fmean(wins)


LENGTHS = [
    lambda wins, extra: _line(wins, extra)[0],
    lambda wins, extra: statistics.fmean(wins),
    lambda wins, extra: 1 - _line(wins, extra)[1],
    lambda wins, extra: _line(wins, np.abs(extra))[1],
    lambda wins, extra: _line(wins, extra)[1] + _line(wins, extra)[0],
    lambda wins, extra: sum(_line(wins, extra)),
    lambda wins, extra: min(0.5, _line(wins, extra)[1]),
    lambda wins, extra: -_line(wins, extra)[1],
    lambda wins, extra: float(np.polyfit(wins, extra, 1)[1]),
    lambda wins, extra: _line(wins, np.sign(extra))[1] if np.ptp(np.sign(extra)) else -9.0,
    lambda wins, extra: 2 * statistics.fmean(wins) - _line(wins, extra)[1],
    lambda wins, extra: float(np.polyfit(extra, np.round(np.array(wins) + 0.01), 1)[1]),
    lambda wins, extra: 100 * _line(wins, extra)[1],
    _through_zero,
    _equal_only,
]


OTHER_WRONG_ANSWERS = {
    "16d.1": [*SWAPS, _other_seed, _one_a_question],
    "16d.2": BIASES,
    "16d.3": KAPPAS,
    "16d.4": [
        ("Ada", "Ben", "Cho"),
        ("Ada", "Cho", "Eli"),
        ("Ben", "Cho", "Eli"),
        ("Ada", "Cho", "Gus"),
        ("Ben", "Cho", "Gus"),
        ("Ada", "Ben", "Gus"),
        ("Cho", "Dee", "Gus"),
        ("Ada", "Dee"),
        ("Ada", "Dee", "Fay", "Eli"),
        ("Dee", "Dee", "Fay"),
        ("ada", "dee", "fay"),
        "Ada",
        3,
    ],
    "16d.5": ORDERS,
    "16d.6": LENGTHS,
}
