"""Wrong answers to the exercises of chapter 16d, each with what its reader is told."""

import numpy as np

from sft_lab.course.judge_runs import draw_pairs, lean_to_first, lean_to_treated
from sft_lab.judges import BIASES, cohen_kappa, swap

SIGN = {"first": 1, "second": -1, "tie": 0}


def _swap_test(same, lean):
    def answer(judge, pairs):
        both = [(judge(q, a, b, 0), judge(q, b, a, 0)) for q, a, b in pairs]
        return sum(same(a, b) for a, b in both) / len(both), lean(both)

    return answer


def _place(both):
    return sum(SIGN[x] for pair in both for x in pair) / 2 / len(both)


def _same(a, b):
    return a == swap(b)


def _mean(values):
    return sum(values) / len(values)


def _leans(judge, **settings):
    leans = {}
    for bias in BIASES[:-1]:
        measure = lean_to_first if bias == "position" else lean_to_treated
        pairs = draw_pairs(bias, 40, seed=1, **settings)
        leans[bias] = _mean([measure(judge, pair) for pair in pairs])
    return leans


def _changes(judge, steps=2):
    pairs = draw_pairs("noise", 40, seed=2)
    return _mean([judge(*pair, 0) != judge(*pair, steps - 1) for pair in pairs])


def _audit(*, may_change=0.2, signed=False, steps=2, **settings):
    def answer(judge):
        leans = _leans(judge, **settings)
        if not signed:
            leans = {bias: abs(lean) for bias, lean in leans.items()}
        best = max(leans, key=leans.get)
        if leans[best] > 0.35:
            return best
        return "noise" if _changes(judge, steps) > may_change else "honest"

    return answer


def _one_order(judge):
    wins = {}
    for bias in BIASES[:-1]:
        pairs = draw_pairs(bias, 40, seed=1)
        wins[bias] = _mean([SIGN[judge(q, b, a, 0)] for q, a, b in pairs])
    best = max(wins, key=wins.get)
    return best if wins[best] > 0.35 else "noise" if _changes(judge) > 0.2 else "honest"


def _noise_first(judge):
    return "noise" if _changes(judge) >= 0.0 else "honest"


def _kappa(expect):
    def answer(first, second):
        expected = expect(first, second)
        observed = _mean([a == b for a, b in zip(first, second, strict=True)])
        return None if expected == 1 else (observed - expected) / (1 - expected)

    return answer


def _pooled(first, second):
    both = [*first, *second]
    return sum((both.count(w) / len(both)) ** 2 for w in set(both))


def _both_orders(decide):
    def wrapper(judge):
        def careful(question, first, second, seed=0):
            return decide(
                judge(question, first, second, seed), judge(question, second, first, seed)
            )

        return careful

    return wrapper


def _asks_once(judge):
    return lambda question, first, second, seed=0: judge(question, first, second, seed)


def _other_seed(judge):
    def careful(question, first, second, seed=0):
        one = judge(question, first, second, seed)
        return one if one == swap(judge(question, second, first, seed + 1)) else "tie"

    return careful


WRONG_ANSWERS = {
    "16d.1": [
        (_swap_test(lambda a, b: a == b, _place), "`consistent` counts equal words"),
        (_swap_test(lambda a, b: a != "tie" and _same(a, b), _place), "two ties are one outcome"),
        (
            _swap_test(lambda a, b: "tie" in (a, b) or _same(a, b), _place),
            "a tie and a win are two outcomes",
        ),
        (
            _swap_test(_same, lambda both: _mean([SIGN[a] for a, _ in both])),
            "`lean` looks at one order only",
        ),
        (
            _swap_test(_same, lambda both: _mean([SIGN[a] - SIGN[b] for a, b in both]) / 2),
            "`lean` follows the answer",
        ),
        (_swap_test(_same, lambda both: -_place(both)), "the sign of `lean` is reversed"),
        (_swap_test(_same, lambda both: 2 * _place(both)), "a mean over all calls"),
        (lambda judge, pairs: 0.5, "return two things, consistent and lean"),
    ],
    "16d.2": [
        (lambda judge: "honest", 'were called "honest"'),
        (_audit(controlled=False), 'were called "self-preference"'),
        (_audit(may_change=1.0), "ask the same call again with another seed"),
        (_audit(steps=1), "ask the same call again with another seed"),
        (_audit(may_change=-1.0), "an honest judge changes a close call, too"),
        (_audit(signed=True), "judges named rightly; 2 with the bias"),
        (_one_order, "of 24 judges named rightly"),
        (_noise_first, "4 of 24 judges named rightly"),
        (lambda judge: "biased", "return one of"),
    ],
    "16d.3": [
        (lambda a, b: _mean([x == y for x, y in zip(a, b, strict=True)]), "the raw agreement"),
        (_kappa(_pooled), "both raters' words are pooled"),
        (_kappa(lambda a, b: 1 / len({*a, *b})), "chance is not 1 / words"),
        (_kappa(lambda a, b: 1 / 3), "chance is not 1/3"),
        (
            lambda a, b: 0.0 if cohen_kappa(a, b) is None else cohen_kappa(a, b),
            "where both always use one word, return None",
        ),
        (
            lambda a, b: None if (k := cohen_kappa(a, b)) is None else max(0.0, k),
            "kappa may be below 0",
        ),
        (lambda a, b: "good", "expected a float"),
    ],
    "16d.4": [
        (("Ada", "Ben", "Cho"), "Do the three err on the same pairs?"),
        (("Ada", "Ben", "Gus"), "at least 84% is asked"),
        (("Ada", "Cho", "Eli"), "at least 84% is asked"),
        (("Ada", "Ben"), "expected three names"),
        (("Fay", "Fay", "Dee"), "three different names"),
        (("Ada", "Ben", "Zoe"), "three different names"),
    ],
    "16d.5": [
        (_both_orders(lambda a, b: a if a == b else "tie"), "compared as they are"),
        (
            _both_orders(lambda a, b: a if _same(a, b) or b == "tie" else "tie"),
            "the verdict is '",
        ),
        (
            _both_orders(
                lambda a, b: (
                    swap(b) if a == "tie" else a if b == "tie" else a if _same(a, b) else "tie"
                )
            ),
            "wins once and ties once",
        ),
        (_both_orders(lambda a, b: b if _same(a, b) else "tie"), "translate it back"),
        (_both_orders(lambda a, b: a), "the second call changes nothing"),
        (_both_orders(lambda a, b: a if _same(a, b) else "second"), "not consistent is a tie"),
        (_asks_once, "ask once in each order"),
        (_other_seed, "the seed that were given"),
        (lambda judge: "tie", "return a judge"),
    ],
    "16d.6": [
        (lambda wins, extra: _mean(wins), "the mean of the wins"),
        (lambda wins, extra: float(np.polyfit(extra, wins, 1)[0]), "this is the slope"),
        (
            lambda wins, extra: float(np.clip(np.polyfit(extra, wins, 1)[1], 0, 1)),
            "do not cut the value off",
        ),
        (
            lambda wins, extra: float(np.polyfit(np.abs(extra), wins, 1)[1]),
            "a shorter answer has negative",
        ),
        (
            lambda wins, extra: float(np.polyfit(np.sign(extra), wins, 1)[1]),
            "use how many words",
        ),
        (lambda wins, extra: None, "did you forget `return`?"),
    ],
}
