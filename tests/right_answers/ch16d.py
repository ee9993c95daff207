"""Right answers to the exercises of chapter 16d, in several styles."""

import itertools
import statistics
from collections import Counter
from fractions import Fraction

import numpy as np
import torch
from sklearn.metrics import cohen_kappa_score

from sft_lab.course.judge_runs import draw_pairs

POINTS = {"first": 1, "second": -1, "tie": 0}


# 16d.1


def _loops(judge, pairs):
    same = total = 0
    for question, a, b in pairs:
        one, two = judge(question, a, b, 0), judge(question, b, a, 0)
        if one == "tie" or two == "tie":
            same += one == two
        else:
            same += one != two
        total += POINTS[one] + POINTS[two]
    return same / len(pairs), total / (2 * len(pairs))


def _winners(judge, pairs):
    def winner(question, x, y, names):
        said = judge(question, x, y, 0)
        return said, {"first": names[0], "second": names[1], "tie": None}[said]

    calls = [(winner(q, a, b, "ab"), winner(q, b, a, "ba")) for q, a, b in pairs]
    said = [word for both in calls for word, _ in both]
    consistent = statistics.fmean(one[1] == two[1] for one, two in calls)
    return consistent, (said.count("first") - said.count("second")) / len(said)


def _arrays(judge, pairs):
    forward = np.array([POINTS[judge(q, a, b, 0)] for q, a, b in pairs])
    backward = np.array([POINTS[judge(q, b, a, 0)] for q, a, b in pairs])
    return float((forward + backward == 0).mean()), float((forward + backward).mean() / 2)


def _tensors(judge, pairs):
    calls = [[POINTS[judge(q, a, b, 0)], POINTS[judge(q, b, a, 0)]] for q, a, b in pairs]
    both = torch.tensor(calls, dtype=torch.float64)
    return [(both.sum(dim=1) == 0).double().mean().item(), both.mean().item()]


def _counter(judge, pairs):
    counts = Counter((judge(q, a, b, 0), judge(q, b, a, 0)) for q, a, b in pairs)
    steady = {("first", "second"), ("second", "first"), ("tie", "tie")}
    same = sum(n for both, n in counts.items() if both in steady)
    lean = sum(n * (POINTS[one] + POINTS[two]) for (one, two), n in counts.items())
    return same / len(pairs), lean / len(pairs) / 2


# 16d.2


def _lean(judge, pairs):
    total = 0
    for seed, (question, plain, treated) in enumerate(pairs):
        total += POINTS[judge(question, treated, plain, seed)]
        total -= POINTS[judge(question, plain, treated, seed)]
    return total / (2 * len(pairs))


def _to_first(judge, pairs):
    calls = [
        POINTS[judge(q, *answers, 0)]
        for q, plain, treated in pairs
        for answers in ((plain, treated), (treated, plain))
    ]
    return sum(calls) / len(calls)


def _changes(judge, pairs, seeds=(1, 2)):
    again = [(judge(q, a, b, seeds[0]), judge(q, a, b, seeds[1])) for q, a, b in pairs]
    return sum(one != two for one, two in again) / len(again)


def _often(judge, seed):
    """Share of changed verdicts on two draws of close calls."""
    draws = [draw_pairs("noise", 200, seed=seed), draw_pairs("noise", 200, seed=seed + 1)]
    return statistics.fmean(_changes(judge, pairs) for pairs in draws)


def _in_order(judge):
    if abs(_to_first(judge, draw_pairs("position", 60, seed=1))) > 0.43:
        return "position"
    for bias in ("length", "repetition", "self-preference"):
        if _lean(judge, draw_pairs(bias, 60, seed=2)) > 0.43:
            return bias
    return "noise" if _often(judge, 3) > 0.275 else "honest"


def _strongest(judge):
    found = {
        bias: _lean(judge, draw_pairs(bias, 80, seed=11))
        for bias in ("length", "repetition", "self-preference")
    }
    found["position"] = abs(_to_first(judge, draw_pairs("position", 80, seed=12)))
    best = max(found, key=found.get)
    if found[best] > 0.43:
        return best
    changed = _often(judge, 13)
    return "noise" if changed > 0.275 else "honest"


def _with_arrays(judge):
    kinds = ["position", "length", "repetition", "self-preference"]
    scores = []
    for kind in kinds:
        pairs = draw_pairs(kind, 70, seed=21)
        plain_first = np.array([POINTS[judge(q, p, t, 0)] for q, p, t in pairs])
        treated_first = np.array([POINTS[judge(q, t, p, 0)] for q, p, t in pairs])
        if kind == "position":
            scores.append(abs((plain_first + treated_first).mean() / 2))
        else:
            scores.append((treated_first - plain_first).mean() / 2)
    if max(scores) > 0.43:
        return kinds[int(np.argmax(scores))]
    return ["honest", "noise"][int(_often(judge, 22) > 0.275)]


def _more_seeds(judge):
    for bias in ("self-preference", "length", "repetition"):
        halves = [_lean(judge, draw_pairs(bias, 50, seed=seed)) for seed in (31, 32)]
        if statistics.fmean(halves) > 0.43:
            return bias
    if abs(_to_first(judge, draw_pairs("position", 100, seed=33))) > 0.43:
        return "position"
    shares = [_changes(judge, draw_pairs("noise", 200, seed=s), seeds=(s, s + 1)) for s in (34, 37)]
    return "noise" if statistics.fmean(shares) > 0.275 else "honest"


def _by_table(judge):
    probes = {
        "length": lambda: _lean(judge, draw_pairs("length", 60, seed=41)),
        "repetition": lambda: _lean(judge, draw_pairs("repetition", 60, seed=42)),
        "self-preference": lambda: _lean(judge, draw_pairs("self-preference", 60, seed=43)),
        "position": lambda: abs(_to_first(judge, draw_pairs("position", 60, seed=44))),
    }
    loud = [name for name, probe in probes.items() if probe() > 0.43]
    if loud:
        return loud[0]
    return "noise" if _often(judge, 45) > 0.275 else "honest"


# 16d.3


def _by_counts(first, second):
    n = len(first)
    agree = sum(a == b for a, b in zip(first, second, strict=True))
    ours, theirs = Counter(first), Counter(second)
    chance = sum(ours[word] * theirs[word] for word in ours)
    return None if chance == n * n else (agree * n - chance) / (n * n - chance)


def _exact(first, second):
    n = len(first)
    observed = Fraction(sum(map(str.__eq__, first, second)), n)
    expected = sum(
        Fraction(first.count(w), n) * Fraction(second.count(w), n) for w in {*first, *second}
    )
    return None if expected == 1 else float((observed - expected) / (1 - expected))


def _by_table_of_words(first, second):
    words = sorted({*first, *second})
    table = np.zeros((len(words), len(words)))
    for a, b in zip(first, second, strict=True):
        table[words.index(a), words.index(b)] += 1
    if len(words) == 1:
        return None
    table /= table.sum()
    expected = table.sum(axis=1) @ table.sum(axis=0)
    return float((np.trace(table) - expected) / (1 - expected))


def _by_library(first, second):
    if len({*first, *second}) == 1:
        return None
    return float(cohen_kappa_score(first, second))


def _by_all_pairs(first, second):
    chance = np.mean([a == b for a, b in itertools.product(first, second)])
    agree = np.mean([a == b for a, b in zip(first, second, strict=True)])
    return None if chance == 1 else float((agree - chance) / (1 - chance))


# 16d.5


def _translate(judge):
    other = {"first": "second", "second": "first", "tie": "tie"}

    def careful(question, first, second, seed):
        said = judge(question, first, second, seed)
        return said if other[judge(question, second, first, seed)] == said else "tie"

    return careful


def _conditions(judge):
    def careful(question, first, second, seed):
        one, two = judge(question, first, second, seed), judge(question, second, first, seed)
        if one == "first" and two == "second":
            return "first"
        if one == "second" and two == "first":
            return "second"
        return "tie"

    return careful


class _Careful:
    def __init__(self, judge):
        self.judge = judge

    def __call__(self, question, first, second, seed):
        both = self.judge(question, first, second, seed), self.judge(question, second, first, seed)
        return {("first", "second"): "first", ("second", "first"): "second"}.get(both, "tie")


def _by_sum(judge):
    def careful(question, first, second, seed):
        lead = POINTS[judge(question, first, second, seed)]
        lead -= POINTS[judge(question, second, first, seed)]
        return {2: "first", -2: "second"}.get(lead, "tie")

    return careful


def _one_line(judge):
    return lambda q, a, b, seed: {"firstsecond": "first", "secondfirst": "second"}.get(
        judge(q, a, b, seed) + judge(q, b, a, seed), "tie"
    )


# 16d.6


def _polyfit(wins, extra):
    return float(np.polyfit(extra, wins, 1)[1])


def _sums(wins, extra):
    middle, share = statistics.fmean(extra), statistics.fmean(wins)
    slope = sum((x - middle) * (y - share) for x, y in zip(extra, wins, strict=True))
    return share - slope / sum((x - middle) ** 2 for x in extra) * middle


def _standard_library(wins, extra):
    return statistics.linear_regression(extra, wins).intercept


def _least_squares(wins, extra):
    rows = np.column_stack([np.ones(len(extra)), extra])
    return float(np.linalg.lstsq(rows, np.array(wins), rcond=None)[0][0])


def _torch_solve(wins, extra):
    x, y = torch.tensor(extra, dtype=torch.float64), torch.tensor(wins, dtype=torch.float64)
    rows = torch.stack([torch.ones_like(x), x], dim=1)
    return torch.linalg.solve(rows.T @ rows, rows.T @ y)[0].item()


RIGHT_ANSWERS = {
    "16d.1": [_loops, _winners, _arrays, _tensors, _counter],
    "16d.2": [_in_order, _strongest, _with_arrays, _more_seeds, _by_table],
    "16d.3": [_by_counts, _exact, _by_table_of_words, _by_library, _by_all_pairs],
    "16d.4": [
        ("Ada", "Dee", "Fay"),
        ["Fay", "Dee", "Ben"],
        {"Cho", "Dee", "Fay"},
        ("Dee", "Eli", "Fay"),
        ["Ada", "Eli", "Fay"],
    ],
    "16d.5": [_translate, _conditions, _Careful, _by_sum, _one_line],
    "16d.6": [_polyfit, _sums, _standard_library, _least_squares, _torch_solve],
}
