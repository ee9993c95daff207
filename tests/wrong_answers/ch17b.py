"""Wrong answers to the exercises of chapter 17b, each with what its reader is told."""

import itertools
import math
import re
from collections import Counter

import torch.nn.functional as F


def _read_path(accuracy, old_loss, level, *, line=True, minus=True, at_end=None, strict=False):
    start = old_loss[0] if minus else 0.0
    if accuracy[0] >= level:
        return old_loss[0] - start
    steps = zip(itertools.pairwise(accuracy), itertools.pairwise(old_loss), strict=True)
    for (a, b), (low, high) in steps:
        if b > level or (b == level and not strict):
            share = (level - a) / (b - a) if line else 1.0
            return low + share * (high - low) - start
    return at_end


def _last_time(accuracy, old_loss, level):
    found = 0.0 if accuracy[0] >= level else None
    for i in range(1, len(accuracy)):
        if accuracy[i - 1] < level <= accuracy[i]:
            share = (level - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
            found = old_loss[i - 1] + share * (old_loss[i] - old_loss[i - 1]) - old_loss[0]
    return found


def _to_the_end(accuracy, old_loss, level):
    value = _read_path(accuracy, old_loss, level)
    return old_loss[-1] - old_loss[0] if value is None else value


def _close_to(accuracy, old_loss, level):
    if max(accuracy) < level:
        return None
    place = min(range(len(accuracy)), key=lambda i: abs(accuracy[i] - level))
    return old_loss[place] - old_loss[0]


def _pay(question, text, stopped, *, ends=True, last=True, guests=True, behind=True, often=True):
    asked, said = re.findall(r"\d+", question), re.findall(r"\d+", text)
    total = str(sum(map(int, asked)))
    if (ends and not stopped) or total not in said:
        return 0.0
    if last and said[-1] != total:
        return 0.0
    if behind and re.split(r"\d+", text)[-1].strip(" ."):
        return 0.0
    before = said[:-1]
    if guests and (
        Counter(before) - Counter(asked) if often else [n for n in before if n not in asked]
    ):
        return 0.0
    return 1.0


def _contains(question, text, stopped):
    return float(str(sum(map(int, re.findall(r"\d+", question)))) in text)


def _exact(question, text, stopped):
    a, b = re.findall(r"\d+", question)
    return float(stopped and text.strip() == f"The sum of {a} and {b} is {int(a) + int(b)}.")


def _mean(rows, name):
    return sum(row[name] for row in rows) / len(rows)


def _name(rows, *, width=5, order=("cold start", "broken", "hacked", "finished"), both=True):
    first, last = rows[:width], rows[-width:]
    falls = _mean(last, "right") - _mean(first, "right") <= -0.1
    rises = _mean(last, "reward") - _mean(first, "reward") >= 0.1
    signs = {
        "cold start": max(row["reward"] for row in rows) == 0,
        "broken": 2 * _mean(last, "reward") < max(row["reward"] for row in rows),
        "hacked": falls and (rises or not both),
        "finished": _mean(last, "no_spread") >= 0.9,
    }
    return next((word for word in order if signs[word]), "learning")


def _works(rows, share=0.9, *, of=None, stop_at_gap=True, bar=None):
    of = of or (lambda values: sum(values) / len(values))
    rates = sorted({row["rate"] for row in rows})
    scores = [of([row["right"] for row in rows if row["rate"] == rate]) for rate in rates]
    best = scores.index(max(scores))
    least = bar(rows, share) if bar else share * scores[best]
    good = [i for i, score in enumerate(scores) if score >= least] or [best]
    if stop_at_gap:
        low = high = best
        while low - 1 in good:
            low -= 1
        while high + 1 in good:
            high += 1
        return rates[low], rates[high]
    return rates[good[0]], rates[good[-1]]


WRONG_ANSWERS = {
    "17b.1": [
        (lambda *given: _read_path(*given, line=False), "straight line from the one before"),
        (lambda *given: _read_path(*given, minus=False), "subtract the start's"),
        (_last_time, "the first time counts"),
        (_to_the_end, "return None"),
        (_close_to, "nearest to the level"),
        (
            lambda *given: _read_path(*given) if given[0][-1] >= given[2] else None,
            "had reached the level all the same",
        ),
        (lambda *given: _read_path(*given) or None, "return 0.0, not None"),
    ],
    "17b.2": [
        (_contains, "a list of guesses"),
        (_exact, "a right answer"),
        (lambda *given: _pay(*given, ends=False), "ran on until it was cut off"),
        (lambda *given: _pay(*given, last=False), "a wrong answer"),
        (lambda *given: _pay(*given, guests=False), "a list of guesses that ends rightly"),
        (lambda *given: _pay(*given, behind=False), "chatter behind it"),
        (lambda *given: _pay(*given, often=False), "named too often"),
        (lambda *given: 0.5, "give 1.0 or 0.0"),
    ],
    "17b.3": [
        (lambda rows: _name(rows, width=1), "one row is noise"),
        (
            lambda rows: _name(rows, order=("finished", "cold start", "broken", "hacked")),
            "look for the other three first",
        ),
        (
            lambda rows: _name(rows, order=("cold start", "broken", "finished", "hacked")),
            "a hacked run is told before a finished one",
        ),
        (
            lambda rows: _name(rows, order=("cold start", "hacked", "broken", "finished")),
            "a broken run is told before a hacked one",
        ),
        (lambda rows: _name(rows, both=False), "the reward rises while `right` falls"),
        (lambda rows: "learning", "every run gets the same word"),
        (lambda rows: "fine", "return one of"),
    ],
    "17b.4": [
        (lambda *given: _works(*given, stop_at_gap=False), "stop at the first gap"),
        (lambda *given: _works(*given, of=max), "best run"),
        (
            lambda *given: _works(*given, bar=lambda rows, share: share),
            "the bar is share times the best mean",
        ),
        (
            lambda rows, share=0.9: (min(r["rate"] for r in rows), max(r["rate"] for r in rows)),
            "the lowest and the highest rate tried",
        ),
        (lambda rows, share=0.9: _works(rows, share)[::-1], "return (lowest, highest)"),
        (lambda rows, share=0.9: _works(rows, share)[0], "return two rates"),
    ],
    "17b.5": [
        (lambda c, r: F.softplus(c - r).mean(), "the sign is reversed"),
        (lambda c, r: F.softplus(r - c).sum(), "take the mean over the pairs"),
        (lambda c, r: (r - c).sigmoid().mean(), "the logarithm is missing"),
        (lambda c, r: -(c - r).sigmoid().log().mean(), "not finite"),
        (lambda c, r: F.logsigmoid(c - r).mean(), "the minus sign is missing"),
        (lambda c, r: F.softplus(r - c).mean() / math.log(2), "natural logarithm"),
        (lambda c, r: F.softplus(r - c.detach()).mean(), "no gradient flows"),
        (lambda c, r: F.softplus(r.detach() - c).mean(), "the scores of the rejected answers"),
    ],
}
