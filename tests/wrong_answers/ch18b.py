"""Wrong answers to the exercises of chapter 18b, each with what its reader is told."""

import torch

from sft_lab import diagnostics

# 18b.1


def _pairs(labels, hidden=lambda label: label == -100):
    graded = [t for t, label in enumerate(labels) if not hidden(label)]
    return [
        (start, end)
        for start, end in zip(
            [t for t in graded if t - 1 not in graded],
            [t + 1 for t in graded if t + 1 not in graded],
            strict=True,
        )
    ]


def _never_closed(labels):
    runs, start = [], None
    for t, label in enumerate(labels):
        if label != -100 and start is None:
            start = t
        elif label == -100 and start is not None:
            runs.append((start, t))
            start = None
    return runs


# 18b.2


def _look(turns, render, k, whole=True):
    text = render(turns if whole else turns[: k + 1], False)
    return text.startswith(render(turns[:k], True))


def _answers(turns):
    return [k for k, turn in enumerate(turns) if turn["role"] == "assistant"]


def _listed(wrong):
    return lambda talks, render: [n for n, turns in enumerate(talks) if wrong(turns, render)]


# 18b.3


def _copies(step, rows):
    whole = [part.clone() for part in step([rows])]
    parts = [part.clone() for part in step([[row] for row in rows])]
    return whole, parts


def _join(parts):
    return torch.cat([part.flatten() for part in parts])


def _with(form):
    def answer(step, rows):
        whole, parts = _copies(step, rows)
        return float(form(_join(whole), _join(parts)))

    return answer


def _no_copy(step, rows):
    whole = step([rows])
    parts = step([[row] for row in rows])
    return float((_join(parts) - _join(whole)).norm() / _join(whole).norm())


def _mean_over_parameters(step, rows):
    whole, parts = _copies(step, rows)
    ratios = [(b - a).norm() / a.norm() for a, b in zip(whole, parts, strict=True)]
    return float(sum(ratios) / len(ratios))


# 18b.4


def _shares(best, labels, *, shift=1, keep_stop=False, all_rows=False, add_stop=True):
    places, stops = [], []
    for guesses, row in zip(best.tolist(), labels.tolist(), strict=True):
        graded = [t for t, label in enumerate(row) if label != -100]
        hits = [guesses[t - shift] == row[t] for t in graded]
        stops.append(hits[-1])
        for place, hit in enumerate(hits if keep_stop else hits[:-1]):
            if place == len(places):
                places.append([])
            places[place].append(hit)
    shares = [sum(hits) / (len(labels) if all_rows else len(hits)) for hits in places]
    return shares + ([sum(stops) / len(stops)] if add_stop else [])


# 18b.5


def _first_that(told):
    def answer(healthy, broken):
        for count in sorted(healthy):
            if told(healthy[count], broken[count]):
                return count
        return None

    return answer


def _from_there(told):
    def answer(healthy, broken):
        enough = None
        for count in sorted(healthy, reverse=True):
            if not told(healthy[count], broken[count]):
                break
            enough = count
        return enough

    return answer


def _above(good, bad):
    return min(good) > max(bad)


# 18b.6


def _doctor(model, base, tokenizer, examples, *, skip=(), order=None):
    first = diagnostics.accuracy_by_position(model, examples)[0]
    shifted = diagnostics.shifted_accuracy(model, examples)
    signs = {
        "unchanged": diagnostics.logit_difference(model, base) == 0,
        "two ahead": shifted[2] > shifted[1],
        "no stop": diagnostics.stop_probability(model, tokenizer, examples) < 0.1,
        "late start": first < 0.5,
    }
    for word in order or signs:
        if word not in skip and signs[word]:
            return word
    return "healthy"


def _without(*skip):
    return lambda *given: _doctor(*given, skip=skip)


WRONG_ANSWERS = {
    "18b.1": [
        (lambda labels: [(a, b - 1) for a, b in _pairs(labels)], "the last position"),
        (lambda labels: [(a, b - a) for a, b in _pairs(labels)], "is a length"),
        (lambda labels: [(a + 1, b + 1) for a, b in _pairs(labels)], "moved by one"),
        (lambda labels: [(a - 1, b - 1) for a, b in _pairs(labels)], "at least 0"),
        (_never_closed, "reaches to the end of the row is lost"),
        (lambda labels: _pairs(labels, lambda x: x in (0, -100)), "token id 0"),
        (lambda labels: _pairs(labels, lambda x: x != -100), "that are not graded"),
        (
            lambda labels: [(r[0][0], r[-1][1])] if (r := _pairs(labels)) else [],
            "one run from the first",
        ),
    ],
    "18b.2": [
        (
            _listed(lambda t, r: bool(_answers(t)) and not _look(t, r, _answers(t)[-1])),
            "only the last answer",
        ),
        (
            _listed(lambda t, r: bool(_answers(t)) and not _look(t, r, _answers(t)[0])),
            "only the first answer",
        ),
        (
            _listed(lambda t, r: any(not _look(t, r, k, whole=False) for k in _answers(t))),
            "up to its answer",
        ),
        (
            _listed(
                lambda t, r: any(not r(t, False).startswith(r(t[:k], False)) for k in _answers(t))
            ),
            "the opening of an answer",
        ),
        (
            _listed(lambda t, r: any(r(t[:k], True) not in r(t, False) for k in _answers(t))),
            "at its beginning",
        ),
        (_listed(lambda t, r: all(_look(t, r, k) for k in _answers(t))), "as they are taught"),
        (
            lambda talks, render: [
                n for n, t in enumerate(talks) for k in _answers(t) if not _look(t, render, k)
            ],
            "list it once",
        ),
    ],
    "18b.3": [
        (_no_copy, "always 0"),
        (_with(lambda a, b: (b - a).norm()), "an absolute difference"),
        (_with(lambda a, b: (b - a).norm() / b.norm()), "the accumulated gradient"),
        (_mean_over_parameters, "a mean over the parameters"),
        (_with(lambda a, b: ((b - a).norm() / a.norm()) ** 2), "the square"),
        (_with(lambda a, b: (b - a).abs().max() / a.abs().max()), "the largest entries"),
        (lambda step, rows: step([rows])[0].norm(), "expected a float"),
    ],
    "18b.4": [
        (lambda best, labels: _shares(best, labels, shift=0), "not shifted"),
        (lambda best, labels: _shares(best, labels, keep_stop=True), "count twice"),
        (
            lambda best, labels: _shares(best, labels, keep_stop=True, add_stop=False),
            "the stop tokens count at their positions",
        ),
        (lambda best, labels: _shares(best, labels, add_stop=False), "is missing"),
        (lambda best, labels: _shares(best, labels, all_rows=True), "divided by all rows"),
    ],
    "18b.5": [
        (_first_that(_above), "apart at that number by luck"),
        (_from_there(lambda g, b: sum(g) > sum(b)), "the means are compared"),
        (
            _from_there(lambda g, b: all(x > y for x, y in zip(g, b, strict=True))),
            "seed by seed",
        ),
        (_from_there(lambda g, b: min(g) >= max(b)), "equal values"),
        (lambda h, b: _from_there(_above)(b, h), "the healthy values are the higher"),
        (lambda h, b: _from_there(_above)(h, b) or max(h), "return None"),
    ],
    "18b.6": [
        (lambda *given: "healthy", "not 'healthy'"),
        (_without("unchanged"), "'unchanged'"),
        (_without("two ahead"), "'two ahead'"),
        (_without("late start"), "'late start'"),
        (_without("no stop"), "'no stop'"),
        (
            lambda *given: _doctor(
                *given, order=("no stop", "late start", "two ahead", "unchanged")
            ),
            "not 'no stop'",
        ),
        (lambda *given: "broken", 'return one of "healthy"'),
    ],
}
