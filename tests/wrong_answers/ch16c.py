"""Wrong answers to the exercises of chapter 16c, each with what its reader is told."""

import math


def _batches(nats, size):
    return [nats[i : i + size] for i in range(0, len(nats), size)]


def _printed(nats, pad_nats, size, *, whole_batches=False):
    parts = _batches(nats, size)
    if whole_batches and len(parts) > 1:
        parts = [part for part in parts if len(part) == size]
    sums, counts = [sum(map(sum, p)) for p in parts], [sum(map(len, p)) for p in parts]
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    pads = sum(len(p) * max(map(len, p)) for p in parts) - sum(counts)
    return {
        "right": math.exp(sum(sums) / sum(counts)),
        "mean of means": math.exp(sum(means) / len(means)),
        "mean of perplexities": sum(map(math.exp, means)) / len(means),
        "padding scored": math.exp((sum(sums) + pads * pad_nats) / (sum(counts) + pads)),
    }


def _changes(nats, pad_nats, reported):
    values = list(reported.values())
    if max(values) / min(values) < 1 + 1e-6:
        return "right"
    for name in ("mean of means", "mean of perplexities", "padding scored"):
        if all(
            math.isclose(_printed(nats, pad_nats, size)[name], value, rel_tol=1e-6)
            for size, value in reported.items()
        ):
            return name
    return "right"


def _without_the_last(nats, pad_nats, reported):
    def error(name):
        return sum(
            abs(_printed(nats, pad_nats, size, whole_batches=True)[name] - value)
            for size, value in reported.items()
        )

    names = ("right", "mean of means", "mean of perplexities", "padding scored")
    return min(names, key=error)


def _mask(form):
    def answer(text, spans, nats, first):
        chosen = [(a, b, x) for (a, b), x in zip(spans, nats, strict=True) if a >= first]
        return form(text, chosen, first)

    return answer


def _bits(chosen):
    return sum(x for _, _, x in chosen) / math.log(2)


def _straddling(text, spans, nats, first):
    chosen = [(a, b, x) for (a, b), x in zip(spans, nats, strict=True) if b > first]
    return _bits(chosen) / len(text[chosen[0][0] :].encode())


def _rule(**forms):
    def answer(nats, sizes, alone, rule):
        costs = {
            "sum": nats,
            "byte": [n / s for n, s in zip(nats, sizes, strict=True)],
            "prior": [n - a for n, a in zip(nats, alone, strict=True)],
        } | {name: form(nats, sizes, alone) for name, form in forms.items()}
        return costs[rule].index(min(costs[rule]))

    return answer


def _last_of_equals(nats, sizes, alone, rule):
    costs = {
        "sum": nats,
        "byte": [n / s for n, s in zip(nats, sizes, strict=True)],
        "prior": [n - a for n, a in zip(nats, alone, strict=True)],
    }[rule]
    return max(k for k, cost in enumerate(costs) if cost == min(costs))


def _needed(disagree, difference):
    return (1.96 + 0.84) ** 2 * (disagree - difference**2) / difference**2


def _planned(form):
    return lambda d, x, m, rho: form(_needed(d, x), m, rho)


def _share(run):
    return sum(run) / len(run)


def _best(runs):
    shares = [_share(run) for run in runs]
    return shares.index(max(shares))


def _halves(form):
    return lambda outcomes: form([r[0::2] for r in outcomes], [r[1::2] for r in outcomes])


def _front_and_back(outcomes):
    middle = len(outcomes[0]) // 2
    one, two = [r[:middle] for r in outcomes], [r[middle:] for r in outcomes]
    return (_share(two[_best(one)]) + _share(one[_best(two)])) / 2


WRONG_ANSWERS = {
    "16c.1": [
        (_changes, "numbers that do not change are not yet right"),
        (lambda nats, pad_nats, reported: "padding scored", "whatever was reported"),
        (lambda nats, pad_nats, reported: "right", "whatever was reported"),
        (_without_the_last, "the evaluator is"),
        (lambda nats, pad_nats, reported: "wrong", 'return one of "right"'),
    ],
    "16c.2": [
        (_mask(lambda t, c, f: _bits(c) / len(t[c[0][0] :])), "divided by characters"),
        (
            _mask(lambda t, c, f: _bits(c) * math.log(2) / len(t[c[0][0] :].encode())),
            "this is in nats",
        ),
        (_mask(lambda t, c, f: _bits(c) / len(t.encode())), "the bytes of the whole text"),
        (_mask(lambda t, c, f: _bits(c) / len(t[f:].encode())), "the second half of a token"),
        (_straddling, "a token that begins before `first` is scored"),
        (_mask(lambda t, c, f: _bits(c) / len(c)), "bits per token"),
    ],
    "16c.3": [
        (lambda nats, sizes, alone, rule: nats.index(min(nats)), "the sums alone"),
        (
            _rule(prior=lambda n, s, a: [x / y for x, y in zip(n, a, strict=True)]),
            '"prior" divides',
        ),
        (
            _rule(prior=lambda n, s, a: [y - x for x, y in zip(n, a, strict=True)]),
            "the sign reversed",
        ),
        (_rule(byte=lambda n, s, a: [x * y for x, y in zip(n, s, strict=True)]), "multiplies"),
        (_last_of_equals, "of equal choices the last one"),
        (lambda nats, sizes, alone, rule: nats.index(max(nats)), "the place is"),
    ],
    "16c.4": [
        (_planned(lambda n, m, rho: math.ceil(n / m)), "the correlation is left out"),
        (
            _planned(lambda n, m, rho: math.ceil(n * (1 + (m - 1) * rho))),
            "the number of questions",
        ),
        (
            _planned(lambda n, m, rho: math.ceil(n * (1 + m * rho) / m)),
            "a question has m - 1 others",
        ),
        (
            _planned(lambda n, m, rho: int(n * (1 + (m - 1) * rho) / m)),
            "rounded down: one",
        ),
        (_planned(lambda n, m, rho: n * (1 + (m - 1) * rho) / m), "no whole number"),
    ],
    "16c.5": [
        (lambda outcomes: max(map(_share, outcomes)), "the best score of all"),
        (
            _halves(lambda a, b: (_share(a[_best(a)]) + _share(b[_best(b)])) / 2),
            "reported on the questions that chose",
        ),
        (_halves(lambda a, b: _share(b[_best(a)])), "one direction only"),
        (_front_and_back, "front and back half"),
        (
            _halves(lambda a, b: (sum(b[_best(a)]) + sum(a[_best(b)])) / len(a[0] + b[0])),
            "pooled over questions",
        ),
    ],
    "16c.6": [
        ({"facts": 350, "list": 250, "json": 100}, "json below 50%"),
        ({"json": 700}, "facts and list below 50%"),
        ({"facts": 400, "list": 400}, "at most 700"),
        ({"facts": 300, "lists": 200, "json": 200}, "no group 'lists'"),
        ({"facts": 0.5, "list": 0.2, "json": 0.3}, "whole number"),
        ([280, 170, 250], "expected a dict"),
    ],
}
