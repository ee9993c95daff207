"""Checks of chapter 16d: the swap test, an audit, kappa, a jury, both orders, length control."""

import random
from collections import Counter
from collections.abc import Callable

import numpy as np

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_number,
    need_word,
    same_for_all,
    shorten,
    unpack,
)
from sft_lab.course.judge_runs import JURORS, jury_votes, share_same
from sft_lab.judges import BIASES, VERDICTS, Judge, cohen_kappa, majority, make_judge, swap

Pairs = list[tuple[str, str, str]]
SIGN = {"first": 1, "second": -1, "tie": 0}


def _table_judge(outcomes: list[tuple[str, str]]) -> tuple[Judge, Pairs]:
    """A judge that says outcomes[i] about pair i, in the given order and in the other one."""
    # two pairs share a question: it does not name a pair
    pairs = [(f"Question {i // 2}?", f"one {i}", f"two {i}") for i in range(len(outcomes))]
    said = {}
    for (question, a, b), (forward, backward) in zip(pairs, outcomes, strict=True):
        said[question, a, b], said[question, b, a] = forward, backward

    def judge(question: str, first: str, second: str, seed: int = 0) -> str:
        if (question, first, second) not in said:
            raise Mistake(
                f"the judge was asked about {shorten((question, first, second))}: give it the "
                "question and both answers of one pair"
            )
        if seed != 0:
            raise Mistake(f"the judge was asked with seed {shorten(seed)}: every call has seed 0")
        return said[question, first, second]

    return judge, pairs


def _consistent(forward: str, backward: str) -> bool:
    return forward == swap(backward)


def _lean(pairs: list[tuple[str, str]], which: str = "both") -> float:
    calls = [x for pair in pairs for x in (pair if which == "both" else pair[:1])]
    return sum(SIGN[said] for said in calls) / len(calls)


@checks("16d.1")
def swap_test(attempt: Callable) -> str:
    def asked(outcomes: list[tuple[str, str]]) -> tuple[float, float]:
        found = unpack(attempt(*_table_judge(outcomes)), "consistent", "lean")
        names = ("consistent", "lean")
        return tuple(need_number(x, name) for x, name in zip(found, names, strict=True))

    def by(same: Callable[[str, str], bool], lean: Callable) -> Callable:
        return lambda outcomes: (
            sum(same(*pair) for pair in outcomes) / len(outcomes),
            lean(outcomes),
        )

    mixed = [(a, b) for a in VERDICTS for b in VERDICTS]
    inputs = [([("first", "first")] * 3,), ([("tie", "tie")] * 2,), ([("second", "second")],)]
    inputs.append(([("first", "second"), ("first", "tie"), ("tie", "tie")],))
    for lean in ("first", "second", "first"):
        more = [(lean, lean)] * random.randint(2, 4) + random.choices(mixed, k=5)
        outcomes = [*mixed, *more]
        random.shuffle(outcomes)
        inputs.append((outcomes,))
    mistakes = [
        (
            by(lambda a, b: a == b, _lean),
            "`consistent` counts equal words: after swapping, the same answer has the other word",
        ),
        (
            by(lambda a, b: _consistent(a, b) and a != "tie", _lean),
            "two ties are one outcome as well: they count as consistent",
        ),
        (
            by(lambda a, b: _consistent(a, b) or "tie" in (a, b), _lean),
            "a tie and a win are two outcomes: they are not consistent",
        ),
        (
            by(_consistent, lambda pairs: _lean(pairs, "one")),
            "`lean` looks at one order only: it mixes the place with the better answer",
        ),
        (
            by(_consistent, lambda pairs: _lean([(a, swap(b)) for a, b in pairs])),
            '`lean` follows the answer: in the swapped call, "first" is still the first place',
        ),
        (by(_consistent, lambda pairs: -_lean(pairs)), "the sign of `lean` is reversed"),
        (by(_consistent, lambda pairs: 2 * _lean(pairs)), "`lean` is a mean over all calls"),
        (
            by(
                _consistent,
                lambda pairs: sum(SIGN[x] == 1 for p in pairs for x in p) / len(pairs) / 2,
            ),
            '`lean` is the share of "first": count "second" as -1',
        ),
        (
            by(lambda a, b: not _consistent(a, b), _lean),
            "this is the share that is not consistent",
        ),
    ]
    same_for_all(asked, inputs, by(_consistent, _lean), mistakes, what="(consistent, lean)")
    return "consistent counts answers, lean counts places; ties are planted"


EACH, MOST_CALLS, MAY_MISS = 4, 3000, 1
ADVICE = {
    (
        "honest",
        "self-preference",
    ): "an own answer must state the same facts: use draw_pairs as it is",
    ("length", "repetition"): "what is said twice is longer: compare it with filling",
    ("length", "self-preference"): "an own answer must have the same length",
    ("noise", "honest"): "ask the same call again with another seed",
    ("honest", "noise"): "an honest judge changes a close call, too: see the statement",
    ("position", "honest"): "ask in both orders, and look for a lean to either place",
}


def _planted() -> list[tuple[str, float]]:
    found = [(bias, random.uniform(1.0, 2.0)) for bias in (*BIASES, "honest") for _ in range(EACH)]
    # half of the judges with a preferred place prefer the second
    turn = iter((1, -1, 1, -1))
    found = [(bias, next(turn) * s if bias == "position" else s) for bias, s in found]
    random.shuffle(found)
    return found


def _counting(judge: Judge) -> Judge:
    calls = 0

    def counted(question: str, first: str, second: str, seed: int = 0) -> str:
        nonlocal calls
        calls += 1
        if calls > MOST_CALLS:
            raise Mistake(f"more than {MOST_CALLS:,} questions to one judge: 60 pairs a probe do")
        return judge(question, first, second, seed)

    return counted


@checks("16d.2")
def blind_audit(attempt: Callable) -> str:
    wrong: Counter[tuple[str, str]] = Counter()
    for bias, strength in _planted():
        named = need_word(attempt(_counting(make_judge(bias, strength))), *BIASES, "honest")
        if named != bias:
            wrong[bias, named] += 1
    count = (len(BIASES) + 1) * EACH
    if wrong.total() > MAY_MISS:
        (bias, named), times = wrong.most_common(1)[0]
        advice = ADVICE.get((bias, named), f'which probe did the "{bias}" judge lean in most?')
        raise Mistake(
            f"{count - wrong.total()} of {count} judges named rightly; {times} with the bias "
            f'"{bias}" were called "{named}": {advice}'
        )
    return f"{count - wrong.total()} of {count} unknown judges named rightly"


def _kappa(expect: Callable[[list[str], list[str]], float]) -> Callable:
    def answer(first: list[str], second: list[str]) -> float | None:
        expected = expect(first, second)
        return None if expected == 1 else (share_same(first, second) - expected) / (1 - expected)

    return answer


def _by_chance(first: list[str], second: list[str]) -> float:
    words = {*first, *second}
    return sum(first.count(w) * second.count(w) for w in words) / len(first) ** 2


def _pooled(first: list[str], second: list[str]) -> float:
    both = first + second
    return sum((both.count(w) / len(both)) ** 2 for w in set(both))


@checks("16d.3", may_return_none=True)
def kappa(attempt: Callable) -> str:
    inputs = [
        (["first"] * 4, ["first"] * 4),
        (["tie"] * 5, [*["tie"] * 4, "first"]),
        (["first", "second"] * 3, ["second", "first"] * 3),
        (["first", "tie", "second"], ["first", "tie", "second"]),  # all agree, and not by chance
        (["first"] * 4, ["second"] * 4),  # one word each, but not the same: chance gives 0
    ]
    for weights in ((5, 2, 1), (1, 1, 1), (1, 6, 1)):
        first = random.choices(VERDICTS, weights, k=14)
        second = [x if random.random() < 0.6 else random.choice(VERDICTS) for x in first]
        inputs.append(([*first, "tie", "second"], [*second, "first", "tie"]))
    inputs.append((["good", "bad", "bad", "good", "odd"], ["good", "bad", "good", "good", "bad"]))

    def form(found: object) -> float | None:
        return None if found is None else need_number(found, "kappa")

    def instead(value: float | None) -> Callable:
        return lambda a, b: value if cohen_kappa(a, b) is None else cohen_kappa(a, b)

    mistakes = [
        (share_same, "this is the raw agreement: take off what chance gives"),
        (
            lambda a, b: share_same(a, b) - _by_chance(a, b),
            "divide by what is left above chance, 1 - expected",
        ),
        (_kappa(_pooled), "both raters' words are pooled: each has shares of their own"),
        (
            _kappa(lambda a, b: 1 / len({*a, *b})),
            "chance is not 1 / words: a rater who says one word often agrees often by chance",
        ),
        (
            _kappa(lambda a, b: 1 / 3),
            "chance is not 1/3: it depends on how often each word is used",
        ),
        (instead(0.0), "where both always use one word, return None"),
        (instead(1.0), "where both always use one word, return None"),
        (
            lambda a, b: None if cohen_kappa(a, b) is None else max(0.0, cohen_kappa(a, b)),
            "kappa may be below 0: do not cut it off",
        ),
        (
            lambda a, b: (
                None
                if _by_chance(a, b) == 1
                else (share_same(a, b) - _by_chance(a, b)) / (1 - share_same(a, b))
            ),
            "divide by 1 - expected, not by 1 - observed",
        ),
    ]
    same_for_all(attempt, inputs, cohen_kappa, mistakes, form=form, what="kappa")
    return "agreement beyond chance, from each rater's own shares"


PAIRS, LEAST = 5000, 0.84


@checks("16d.4")
def jury(attempt: object) -> str:
    if not isinstance(attempt, list | tuple | set) or len(attempt) != 3:
        raise Mistake(
            f"expected three names, such as ('Ada', 'Ben', 'Cho'), got {shorten(attempt)}"
        )
    strange = [name for name in attempt if name not in JURORS]
    if strange or len(set(attempt)) != 3:
        raise Mistake(f"three different names of {', '.join(JURORS)}, got {shorten(attempt)}")
    votes, truth = jury_votes(PAIRS, seed=random.randrange(10**6))
    said = [majority(ballot) for ballot in zip(*(votes[name] for name in attempt), strict=True)]
    right = share_same(said, truth)
    best = max(share_same(votes[name], truth) for name in attempt)
    if right < LEAST:
        kind = "no better than its best member" if right < best + 0.02 else "not enough"
        raise Mistake(
            f"{right:.0%} right on new pairs, its best member alone {best:.0%}: {kind}; at least "
            f"{LEAST:.0%} is asked. Do the three err on the same pairs?"
        )
    return f"{right:.0%} right on new pairs; its best member alone {best:.0%}"


@checks("16d.5")
def both_orders(attempt: Callable) -> str:
    def answer(forward: str, backward: str, seed: int) -> str:
        calls = []

        def judge(question: str, first: str, second: str, seed: int = 0) -> str:
            calls.append((question, first, second, seed))
            return forward if first == "one" else backward

        careful = attempt(judge)
        if not callable(careful):
            raise Mistake(f"return a judge, that is, a function; this is {shorten(careful)}")
        said = careful("Which?", "one", "two", seed)
        if len(calls) > 2:
            raise Mistake(f"the judge was asked {len(calls)} times: twice is enough")
        if any(call[0] != "Which?" or call[3] != seed for call in calls):
            raise Mistake("ask both times with the question and the seed that were given")
        orders = {call[1:3] for call in calls}
        settled = len(calls) == 1 and (forward if calls[0][1] == "one" else backward) == "tie"
        if orders != {("one", "two"), ("two", "one")} and not settled:
            raise Mistake("ask once in each order: (first, second) and (second, first)")
        return said

    def right(forward: str, backward: str, seed: int) -> str:
        return forward if forward == swap(backward) else "tie"

    inputs = [(a, b, random.randrange(2, 99)) for a in VERDICTS for b in VERDICTS]
    random.shuffle(inputs)
    mistakes = [
        (
            lambda a, b, seed: a if a == b else "tie",
            'the words are compared as they are: the same answer is "first" once and "second" once',
        ),
        (
            lambda a, b, seed: swap(b) if a == "tie" else a if b == "tie" else right(a, b, seed),
            "an answer that wins once and ties once does not win in both orders: a tie",
        ),
        (
            lambda a, b, seed: b if a == swap(b) else "tie",
            "the verdict is that of the swapped call: translate it back",
        ),
        (lambda a, b, seed: a, "the second call changes nothing"),
        (lambda a, b, seed: a if a == swap(b) else "second", "what is not consistent is a tie"),
        (lambda a, b, seed: a if a == swap(b) else "first", "what is not consistent is a tie"),
    ]
    same_for_all(
        answer, inputs, right, mistakes, form=lambda x: need_word(x, *VERDICTS), what="the verdict"
    )
    careful = attempt(
        lambda question, first, second, seed=0: "first" if first == "one" else "second"
    )
    said = [careful("Which?", *order, 2) for order in (("one", "two"), ("two", "one"))]
    if said != ["first", "second"]:
        raise Mistake(
            f"asked twice, with the answers exchanged, one judge says {shorten(said)}; expected "
            "'first', then 'second': it must not remember an earlier call"
        )
    return "nine outcomes of two calls; an answer wins in both orders or not at all"


def _line(wins: list[float], extra: list[float]) -> tuple[float, float]:
    """Start and slope of the least-squares line."""
    x, y = np.asarray(extra, dtype=float), np.asarray(wins, dtype=float)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return float(y.mean() - slope * x.mean()), float(slope)


@checks("16d.6")
def length_control(attempt: Callable) -> str:
    inputs = [([1.0, 1.0, 0.0, 0.5], [20, 10, -10, 0])]
    for shift in (12, -9, 15):
        extra = [shift + random.randint(-20, 20) for _ in range(12)] + [0, 0, shift, 40]
        wins = [float(x + random.gauss(0, 12) > shift) for x in extra[:-1]] + [1.0]
        wins[random.randrange(12)] = 0.5
        inputs.append((wins, extra))
    # lines that leave the range from 0 to 1
    inputs.append(([1.0, 0.5, 0.0, 0.0, 1.0], [-5, -15, -25, -30, 2]))
    inputs.append(([0.0, 0.5, 1.0, 1.0, 0.0], [5, 15, 25, 30, -2]))

    def through_zero(wins: list[float], extra: list[int]) -> float:
        return sum(w * x for w, x in zip(wins, extra, strict=True)) / sum(x * x for x in extra)

    def matched(wins: list[float], extra: list[int]) -> float:
        equal = [w for w, x in zip(wins, extra, strict=True) if x == 0]
        return sum(equal) / len(equal)

    def turned(wins: list[float], extra: list[int]) -> float:
        start, slope = _line(extra, wins)
        return -start / slope

    mistakes = [
        (lambda w, x: float(np.mean(w)), "this is the mean of the wins: length is still in it"),
        (lambda w, x: _line(w, x)[1], "this is the slope: the value at `extra` = 0 is asked for"),
        (lambda w, x: min(1.0, max(0.0, _line(w, x)[0])), "do not cut the value off at 0 or 1"),
        (lambda w, x: _line(w, [abs(e) for e in x])[0], "a shorter answer has negative `extra`"),
        (
            lambda w, x: _line(w, [(e > 0) - (e < 0) for e in x])[0],
            "use how many words, not only which answer is longer",
        ),
        (turned, "the line predicts the wins from `extra`, not `extra` from the wins"),
        (through_zero, "the line need not go through 0: fit its height, too"),
        (matched, "this uses the pairs of equal length alone: fit a line through all"),
    ]
    same_for_all(
        attempt,
        inputs,
        lambda w, x: _line(w, x)[0],
        mistakes,
        form=need_number,
        what="the share at equal length",
    )
    return "the line's value where both answers have equal length"
