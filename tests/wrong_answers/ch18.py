"""Wrong answers to the exercises of chapter 18, each with what its reader is told."""

import math
import random
from collections import Counter, defaultdict


def _count(train, test, size, add=1.0):
    counts = Counter(train)
    losses = [-math.log((counts[t] + add) / (len(train) + add * size)) for t in test]
    return sum(losses) / len(losses)


def _kept(rows):
    return [label for row in rows for label in row if label != -100]


def _all(rows):
    return [label for row in rows for label in row]


def _by_rows(train, test, vocabulary):
    losses = [_count(_kept(train), _kept([row]), vocabulary) for row in test]
    return sum(losses) / len(losses)


def _no_probabilities(train, test, vocabulary):
    counts, known = Counter(_kept(train)), _kept(train)
    losses = [-math.log((counts[t] + 1) / len(known)) for t in _kept(test)]
    return sum(losses) / len(losses)


def _mean(numbers):
    return sum(numbers) / len(numbers)


def _rules(**other):
    """The seven words by the statement, with single rules replaced; a rule of None is left out."""

    def jump(x):
        return max(_mean(x[t : t + 3]) - _mean(x[t - 3 : t]) for t in range(3, len(x) - 2))

    def falls(x, epoch):
        borders = range(epoch, len(x) - 2, epoch)
        return sum(_mean(x[b - 3 : b]) - _mean(x[b : b + 3]) for b in borders)

    rules = {
        "nan": lambda x, e: any(math.isnan(v) or math.isinf(v) for v in x),
        "zero": lambda x, e: set(x) == {0.0},
        "diverged": lambda x, e: _mean(x[-5:]) > x[0],
        "flat": lambda x, e: _mean(x[-5:]) > 0.8 * x[0],
        "saw-tooth": lambda x, e: jump(x) > 0.5 * (x[0] - _mean(x[-5:])),
        "staircase": lambda x, e: falls(x, e) > 0.5 * (x[0] - _mean(x[-5:])),
    }
    rules.update({name.replace("_", "-"): rule for name, rule in other.items()})

    def answer(losses, epoch):
        for word, rule in rules.items():
            if rule is not None and rule(losses, epoch):
                return word
        return "healthy"

    return answer


def _running(start):
    def answer(losses, graded, beta):
        value, found = start(losses), []
        for loss, tokens in zip(losses, graded, strict=True):
            value = beta * value + (1 - beta) * loss if tokens else beta * value
            found.append(value)
        return found

    return answer


def _from_first(losses, graded, beta):
    value, found = losses[0], []
    for loss, tokens in zip(losses, graded, strict=True):
        value = beta * value + (1 - beta) * loss if tokens else value
        found.append(value)
    return found


def _weighted(losses, graded, beta, *, skip=False, one=False):
    total = weight = 0.0
    found = []
    for loss, tokens in zip(losses, graded, strict=True):
        n = min(tokens, 1) if one else tokens
        if n or not skip:
            total, weight = beta * total + (n * loss if n else 0), beta * weight + n
        found.append(total / weight)
    return found


def _with_nan(losses, graded, beta):
    total = weight = 0.0
    found = []
    for loss, tokens in zip(losses, graded, strict=True):
        total, weight = beta * total + tokens * loss, beta * weight + tokens
        found.append(total / weight)
    return found


def _any_rows(rows, share, seed):
    places = list(range(len(rows)))
    random.Random(seed).shuffle(places)
    cut = round(share * len(places))
    return places[cut:], places[:cut]


def _by_fact(rows, share, seed):
    """No fact on both sides, and the topics as chance has it."""
    facts = sorted({row["fact"] for row in rows})
    chosen = set(random.Random(seed).sample(facts, round(share * len(facts))))
    held = [i for i, row in enumerate(rows) if row["fact"] in chosen]
    return [i for i in range(len(rows)) if i not in set(held)], held


def _by_topic(rows, share, seed, *, least=1, drop=False, drawn=True, up=round):
    facts = defaultdict(list)
    for row in rows:
        if row["fact"] not in facts[row["topic"]]:
            facts[row["topic"]].append(row["fact"])
    rng, chosen = random.Random(seed if drawn else 0), set()
    for known in facts.values():
        chosen |= set(rng.sample(known, max(least, up(share * len(known)))))
    held, seen = [], set()
    for i, row in enumerate(rows):
        if row["fact"] in chosen and not (drop and row["fact"] in seen):
            held.append(i)
            seen.add(row["fact"])
    return [i for i, row in enumerate(rows) if row["fact"] not in chosen], held


WRONG_ANSWERS = {
    "18.1": [
        (lambda a, b, v: _count(_all(a), _kept(b), v), "counted among the training tokens"),
        (lambda a, b, v: _count(_all(a), _all(b), v), "-100 was counted as a token"),
        (lambda a, b, v: _count(_kept(a), _kept(a), v), "this is the loss on the training labels"),
        (lambda a, b, v: _count(_kept(b), _kept(b), v), "counted in `test` itself"),
        (lambda a, b, v: _count(_kept(a), _kept(b), len(set(_kept(a)))), "for every token seen"),
        (lambda a, b, v: _count(_kept(a), _kept(b), v, add=1e-9), "needs its 1 as well"),
        (_by_rows, "a mean of the rows' means"),
        (_no_probabilities, "no probabilities any more"),
        (lambda a, b, v: _count(_kept(a), _kept(b), v) / math.log(2), "this is in bits"),
        (lambda a, b, v: _count(_kept(a), _kept(b), v) * len(_kept(b)), "this is the sum"),
    ],
    "18.2": [
        (_rules(nan=None), "ask for it first"),
        (_rules(nan=lambda x, e: any(v != v for v in x)), "an infinite loss is no number"),
        (_rules(nan=lambda x, e: not math.isfinite(x[-1])), "one loss that is no number is enough"),
        (_rules(zero=lambda x, e: min(x) == 0), "zero is a curve of nothing else"),
        (_rules(diverged=lambda x, e: max(x) > x[0]), "no divergence yet"),
        (_rules(diverged=lambda x, e: x[-1] > x[0]), "the last step alone is one batch"),
        (_rules(staircase=lambda x, e: len(x) > e), "no staircase by themselves"),
        (_rules(staircase=None), "falls at the borders of epochs"),
        (lambda losses, epoch: "healthy", "not every curve is healthy"),
        (lambda losses, epoch: "fine", "return one of"),
    ],
    "18.3": [
        (_running(lambda losses: 0.0), "begins at 0"),
        (_from_first, "the first loss weighs as much"),
        (lambda x, n, b: _weighted(x, n, b, one=True), "weigh it by its graded tokens"),
        (lambda x, n, b: _weighted(x, n, 1 - b), "are exchanged"),
        (lambda x, n, b: _weighted(x, n, b, skip=True), "is still a step"),
        (lambda x, n, b: _weighted(x, n, 1.0), "the mean of all steps so far"),
        (_with_nan, "NaN times 0 is NaN"),
    ],
    "18.4": [
        (1e-3, "there is room above"),
        (3e-2, "too high: the run broke"),
        (1e-5, "too low: 20 steps"),
        ("5e-3", "expected a float"),
        (5, "above 0 and below 1"),
    ],
    "18.5": [
        (_any_rows, "stand on both sides"),
        (_by_fact, "evaluated"),
        (lambda r, s, seed: _by_topic(r, s, seed, least=0), "no row of"),
        (lambda r, s, seed: _by_topic(r, s, seed, drop=True), "are in neither list"),
        (lambda r, s, seed: _by_topic(r, s, seed, drawn=False), "the same rows"),
        (lambda r, s, seed: _by_topic(r, s, seed, up=math.ceil), "count facts, topic by topic"),
        (lambda r, s, seed: _by_topic(r, s, seed)[::-1], "are evaluated, expected"),
        (lambda r, s, seed: ([], []), "are in neither list"),
    ],
}
