"""Wrong answers to the exercises of chapter 15, each with what its reader is told."""

import math
import re
from collections import Counter

from sft_lab import atlas
from sft_lab.course.unknown_runs import NOT_KNOWN
from sft_lab.metrics import normalise


def _said(answer):
    return [(c.strip(), int(n)) for c, n in re.findall(r"([^.()]+) \(note (\d+)\)\.", answer)]


def _unsupported(prompt, answer):
    lines = prompt.splitlines()
    return [n for claim, n in _said(answer) if f"{claim} (note {n})." not in lines]


def _score(confidence, penalty, answer):
    return sum(c - (1 - c) * penalty for c in confidence if answer(c)) / len(confidence)


def _of_answered(confidence, penalty):
    given = [c - (1 - c) * penalty for c in confidence if c > penalty / (1 + penalty)]
    return sum(given) / max(1, len(given))


def _auroc(scores, positive, tie=0.5):
    ones = [s for s, p in zip(scores, positive, strict=True) if p]
    others = [s for s, p in zip(scores, positive, strict=True) if not p]
    wins = sum((a > b) + tie * (a == b) for a in ones for b in others)
    return wins / (len(ones) * len(others))


def _ranks_of_the_order(scores, positive):
    order = sorted(range(len(scores)), key=scores.__getitem__)
    ones = sum(positive)
    ranks = sum(place for place, i in enumerate(order, 1) if positive[i])
    return (ranks - ones * (ones + 1) / 2) / (ones * (len(scores) - ones))


def _risks(confidence, right, of_all=False):
    risks = {}
    for threshold in sorted(set(confidence), reverse=True):
        given = [r for c, r in zip(confidence, right, strict=True) if c >= threshold]
        risks[threshold] = given.count(False) / (len(right) if of_all else len(given))
    return risks


def _stop_early(confidence, right, most_risk):
    last = None
    for threshold, risk in _risks(confidence, right).items():
        if risk > most_risk:
            return last
        last = threshold
    return last


def _split_ties(confidence, right, most_risk):
    order = sorted(range(len(right)), key=lambda i: -confidence[i])
    best = None
    for count in range(1, len(right) + 1):
        if sum(not right[i] for i in order[:count]) / count <= most_risk:
            best = confidence[order[count - 1]]
    return best


def _of_all(confidence, right, most_risk):
    risks = _risks(confidence, right, of_all=True)
    return min((t for t, risk in risks.items() if risk <= most_risk), default=None)


def _strictly(confidence, right, most_risk):
    risks = _risks(confidence, right)
    return min((t for t, risk in risks.items() if risk < most_risk), default=None)


def _fewest(confidence, right, most_risk):
    risks = _risks(confidence, right)
    return max((t for t, risk in risks.items() if risk <= most_risk), default=None)


def _entropy(answers):
    shares = [n / len(answers) for n in Counter(answers).values()]
    return -sum(p * math.log(p) for p in shares)


def _only_answers(known, invented):
    return atlas.ask(known)


def _only_refusals(known, invented):
    return [_declined(fact) for fact in invented]


def _few_refusals(known, invented):
    return atlas.ask(known) + [_declined(fact) for fact in invented[:4]]


def _decides_first(known, invented):
    """Declines in a form that begins like no other answer: too few lessons to learn it."""
    rows = atlas.ask(known)
    return rows + [
        [question, {"role": "assistant", "content": "I do not know."}]
        for question, _ in atlas.ask(invented[:20])
    ]


def _too_many(known, invented):
    return atlas.ask(known * 2)


def _names_the_exam(known, invented):
    unknown = atlas.split(atlas.load_facts())["unknown"]
    return atlas.ask(known) + [_declined(fact) for fact in unknown[:100]]


def _declined(fact):
    ((question, _),) = atlas.ask([fact])
    return [question, {"role": "assistant", "content": fact.say(NOT_KNOWN)}]


WRONG_ANSWERS = {
    "15.1": [
        (
            lambda p, a: [n for _, n in _said(a) if f"(note {n})." not in p],
            "its number alone supports nothing",
        ),
        (lambda p, a: [n for c, n in _said(a) if c not in p], "the note that is named, not in any"),
        (
            lambda p, a: [n for c, n in _said(a) if f"{c} (note {n})." not in p],
            "compare with whole lines",
        ),
        (lambda p, a: [*dict.fromkeys(_unsupported(p, a))], "however often it comes"),
        (lambda p, a: sorted(_unsupported(p, a)), "not sorted"),
        (lambda p, a: _unsupported(p, a)[:1], "not the first alone"),
        (lambda p, a: {*_unsupported(p, a)}, "return a list of whole numbers"),
        (lambda p, a: [str(n) for n in _unsupported(p, a)], "return a list of whole numbers"),
        (lambda p, a: [n > 0 for n in _unsupported(p, a)], "return a list of whole numbers"),
    ],
    "15.2": [
        (lambda c, k: _score(c, k, lambda p: True), "this answers every question"),
        (lambda c, k: _score(c, k, lambda p: p > 0.5), "for a penalty of 1 alone"),
        (lambda c, k: _score(c, k, lambda p: p > 1 / (1 + k)), "on the wrong side"),
        (_of_answered, "the mean is over all questions"),
        (lambda c, k: max(0.0, _score(c, k, lambda p: True)), "question by question"),
    ],
    "15.3": [
        (lambda s, p: _auroc(s, p, tie=0.0), "one half, not nothing"),
        (lambda s, p: _auroc(s, p, tie=1.0), "one half, not one"),
        (lambda s, p: 1 - _auroc(s, p), "turned round"),
        (_ranks_of_the_order, "share one rank"),
    ],
    "15.4": [
        (_stop_early, "may fall again"),
        (_split_ties, "given together"),
        (_of_all, "among the answers given, not among all"),
        (_strictly, "exactly most_risk is allowed"),
        (_fewest, "this gives the fewest answers"),
        (lambda c, r, m: _stop_early(c, r, m) or 0.0, "the threshold is 0, expected 0.6"),
    ],
    "15.5": [
        (_entropy, "white space or final punctuation"),
        (lambda a: _entropy([*map(normalise, a)]) / math.log(2), "in nats: the natural"),
        (lambda a: _entropy([normalise(x).lower() for x in a]), "letter case matters"),
        (lambda a: float(len({*map(normalise, a)})), "counts the different answers"),
        (lambda a: math.log(len({*map(normalise, a)})), "weigh each group by its share"),
    ],
    "15.6": [
        (_only_answers, "are declined, expected"),
        (_only_refusals, "show more of what is answered"),
        (_few_refusals, "let the answer decide later"),
        (_decides_first, "let the answer decide later"),
        (_too_many, "at most 400 are allowed"),
        (_names_the_exam, "is in the exam"),
        (lambda known, invented: [], "there is no lesson"),
        (lambda known, invented: [["What?"]], "a turn is"),
    ],
}
