"""Checks of chapter 09b, how sure a difference is."""

import functools
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    named,
    need_number,
    need_word,
    same,
    same_for_all,
    unpack,
)


@checks("9b.1")
def mcnemar(attempt: Callable) -> str:
    def this(gained, lost):
        return math.comb(gained + lost, gained) / 2 ** (gained + lost)

    one_side = "p must not change when gained and lost change places: the smaller one decides"
    exact = "this is the chance of exactly this split: add all that are at least as uneven"
    mistakes = [
        (
            lambda *given: _tails(*given, times=1.0),
            "one tail only: before the run either side could have won, so double it",
        ),
        (this, exact),
        (lambda *given: 2 * this(*given), exact),
        (
            lambda *given: 1 - _tails(*given, limit=2.0),
            "this is one minus p: a small p means that coins rarely do it",
        ),
        (
            lambda *given: 2 * (1 - _tails(*given, times=1.0)),
            "the wrong tail: count splits at least as uneven, from 0 to min(gained, lost)",
        ),
        (
            lambda *given: _tails(*given, without=1, limit=2.0),
            "the split itself is missing: at least as uneven includes it",
        ),
        (
            lambda *given: _tails(*given, limit=2.0),
            "an even split gives more than 1: both tails hold the middle, so cap the sum at 1",
        ),
        (
            lambda *given: _tails(*given, last=lambda gained, lost: lost),
            f"{one_side}, not `lost`",
        ),
        (
            lambda *given: _tails(*given, last=lambda gained, lost: gained),
            f"{one_side}, not `gained`",
        ),
        (
            lambda *given: _tails(*given) if sum(given) < 1000 else 0.0,
            "0.5**1200 is 0 in a float: keep whole numbers until the last division",
        ),
    ]
    gained, lost = random.randint(9, 14), random.randint(2, 5)
    inputs = [(gained, lost), (lost, gained), (lost + 3, 0), (0, lost + 3), (1, 0), (5, 4)]
    inputs += [(4, 4), (0, 0), (700, 500)]

    def answer(gained, lost):
        overflow = (
            "thousands of answers overflow a float: divide whole numbers, 2**n and not 2.0**n"
        )
        with named(OverflowError, overflow):
            return attempt(gained, lost)

    settings = {"form": lambda found: need_number(found, "p"), "what": "p"}
    same_for_all(answer, inputs, _tails, mistakes, **settings, rtol=1e-6, atol=0.0)
    return "equals the exact binomial tails, symmetric, also for an even split and 1,200 answers"


def _tails(
    gained: int,
    lost: int,
    *,
    times: float = 2.0,
    last: Callable = min,
    without: int = 0,
    limit: float = 1.0,
) -> float:
    """`times` the share of splits with at most last(gained, lost) heads, but never above `limit`;
    `without=1` leaves out the split itself."""
    n = gained + lost
    ways = _ways(n, last(gained, lost))
    return min(limit, times * ((ways - without * math.comb(n, gained)) / 2**n))


@functools.cache
def _ways(coins: int, heads: int) -> int:
    """How many sequences of so many coins have at most so many heads."""
    total, of_number = 0, 1
    for number in range(heads + 1):
        total += of_number
        of_number = of_number * (coins - number) // (number + 1)
    return total


@checks("9b.3")
def cluster_interval(attempt: Callable) -> str:
    before, after, entity = _random_exam()
    _uses_resamples(attempt)
    expected = _bootstrap(before, after, entity, 20_000)
    found = _ends(attempt, before, after, entity, 4000, 1)
    if not _is_near(found, expected):
        # by chance once in some hundred answers: then the mean of four has half the scatter
        found = [_ends(attempt, before, after, entity, 4000, seed) for seed in range(1, 5)]
        found = np.mean(found, axis=0).tolist()
        expected = _bootstrap(before, after, entity, 80_000)
        _compare_intervals(found, expected, before, after, entity)

    once = _ends(attempt, before, after, entity, 50, 1)
    again = _ends(attempt, before, after, entity, 50, 1)
    same(again, once, what="the interval with the same seed")
    if _ends(attempt, before, after, entity, 50, 2) == once:
        raise Mistake("another seed gives the very same interval: the seed is not used")
    _small_exams(attempt)
    return "near the interval of many more resamples; exact where one or two entities decide"


def _ends(attempt: Callable, *exam: Any) -> list[float]:
    names = ("low", "high")
    found = unpack(attempt(*exam), *names)
    return [float(need_number(end, name)) for name, end in zip(names, found, strict=True)]


def _random_exam() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores before and after, and the entity of each question, in any order: 30 entities with one
    question, where hardly anything is gained, and 30 with seven, where much is."""
    rng = np.random.default_rng(random.randrange(10**6))
    sizes = rng.permutation(np.repeat([1, 7], 30))
    entity = np.repeat(rng.permutation(1000)[:60], sizes)  # any numbers
    before = 0.3 + 0.4 * np.repeat(rng.random(60), sizes)
    gain = np.where(sizes == 7, 0.09, 0.01) + 0.06 * rng.standard_normal(60)
    order = rng.permutation(len(entity))
    return before[order], (before + np.repeat(gain, sizes))[order], entity[order]


def _bootstrap(
    before: np.ndarray,
    after: np.ndarray,
    entity: np.ndarray,
    resamples: int,
    *,
    levels: tuple[float, float] = (2.5, 97.5),
    paired: bool = True,
    of_means: bool = False,
    once: bool = False,
) -> list[float]:
    """The interval in points; with `paired=False` each model gets draws of its own, with `of_means`
    it is the mean of the drawn entities' means, with `once` an entity drawn twice counts once."""
    rng, (_, place) = np.random.default_rng(), np.unique(entity, return_inverse=True)
    counts = np.bincount(place)
    draws = [rng.integers(len(counts), size=(resamples, len(counts))) for _ in range(2)]
    means = []
    for scores, drawn in zip((after, before), draws if not paired else draws[:1] * 2, strict=True):
        sums = np.bincount(place, weights=scores)
        if once:
            taken = np.zeros((resamples, len(counts)))
            np.put_along_axis(taken, drawn, 1.0, axis=1)
            means.append((taken @ sums) / (taken @ counts))
        elif of_means:
            means.append((sums / counts)[drawn].mean(axis=1))
        else:
            means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return (100 * np.percentile(means[0] - means[1], levels)).tolist()


def _compare_intervals(
    found: list[float],
    expected: list[float],
    before: np.ndarray,
    after: np.ndarray,
    entity: np.ndarray,
) -> None:
    """Raise Mistake unless both ends are near the expected ones. A mistake is named when both ends
    are near to what it gives, and no other mistake's are nearer."""
    if _is_near(found, expected):
        return
    middle = 100 * (after - before).mean()
    exam, alone = (before, after, entity), np.arange(len(entity))
    wrong = [
        ([x / 100 for x in expected], "this is in fractions: a point is a hundredth"),
        ([-x for x in expected[::-1]], "the sign is reversed: the difference is after - before"),
        (
            [middle, middle],
            "no width: draw entities WITH replacement, as many as there are, anew each time",
        ),
        (
            _bootstrap(*exam, 8000, of_means=True),
            "the mean of the entities' means weighs small entities too much: every question counts "
            "the same, so divide the drawn sum by the drawn number of questions",
        ),
        (
            _bootstrap(before, after, alone, 8000),
            "too narrow: you resampled questions; draw entities, each with all of its questions",
        ),
        (
            _bootstrap(*exam, 8000, paired=False),
            "too wide: one draw of entities serves both models, so resample the differences",
        ),
        (
            _bootstrap(*exam, 8000, levels=(5, 95)),
            "5 % on each side is a 90 % interval: 95 % leaves 2.5 % on each side",
        ),
        (
            _bootstrap(*exam, 8000, once=True),
            "too narrow: an entity that is drawn twice counts twice",
        ),
    ]
    interval, name = min(wrong, key=lambda one: _distance(found, one[0]))
    if _is_near(found, interval):
        raise Mistake(name)
    ends = [f"{x:.3g}" for x in (*found, *expected)]
    raise Mistake(
        f"the interval is {ends[0]} to {ends[1]}, expected about {ends[2]} to {ends[3]}; the mean "
        f"difference of the {len(entity)} questions about 60 entities is {middle:.3g} points"
    )


def _distance(found: list[float], interval: list[float]) -> float:
    """How far the worse end is from that of the interval, in the interval's standard errors."""
    furthest = max(abs(a - b) for a, b in zip(found, interval, strict=True))
    return furthest / max((interval[1] - interval[0]) / 3.92, 1e-9)


def _is_near(found: list[float], interval: list[float]) -> bool:
    """Whether both ends are. An end of 4000 resamples scatters by about 0.05 standard errors, one
    of four times as many by half of it; a 90 % interval differs by 0.3."""
    return _distance(found, interval) <= 0.17


def _small_exams(attempt: Callable) -> None:
    """Exams whose interval is known: one entity, and two of which either may be drawn alone."""
    before, after = np.array([0.5, 0.75, 1.0]), np.array([0.75, 0.25, 0.5])
    same(
        _ends(attempt, before, after, np.array([700, 700, 700]), 20, 1),
        [-25.0, -25.0],
        what="the interval of a single entity, with gains of 0.25, -0.5 and -0.5,",
    )
    what = "the interval of two entities, three questions without gain and one that gains all,"
    same(_ends(attempt, *_two_entities(), 400, 1), [0.0, 100.0], what=what)


def _uses_resamples(attempt: Callable) -> None:
    if all(_ends(attempt, *_two_entities(), 2, seed) == [0.0, 100.0] for seed in range(6)):
        raise Mistake("two resamples give the interval of many: `resamples` is not used")


def _two_entities() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(4), np.array([0.0, 1.0, 0.0, 0.0]), np.array([10, 20, 10, 10])


@checks("9b.2")
def judge_recipes(attempt: Callable) -> str:
    _answers_about_equal_arrays(attempt)
    rng = np.random.default_rng(random.randrange(10**6))
    found = {}
    for kind, (spread, gain) in KINDS.items():
        words = [_word(attempt, rng, spread, 0.0) for _ in range(250)]
        found[kind, "alarms"] = 1 - words.count("not shown") / len(words)
        signs = [1, -1] * 50
        words = [_word(attempt, rng, spread, sign * gain) for sign in signs]
        wanted = ["second" if sign > 0 else "first" for sign in signs]
        hits = [word == right for word, right in zip(words, wanted, strict=True)]
        found[kind, "found"] = sum(hits) / len(hits)
        found[kind, "turned"] = 1 - (sum(hits) + words.count("not shown")) / len(hits)
    _name_the_rule(found)
    alarms = " and ".join(f"{found[kind, 'alarms']:.0%}" for kind in KINDS)
    real = " and ".join(f"{found[kind, 'found']:.0%}" for kind in KINDS)
    return f"false alarms {alarms}, real differences found {real} (calm and restless recipes)"


SEEDS, QUESTIONS = 8, 200
# How far seeds move a run, and the difference to be found, both in logits. Runs of a calm recipe
# scatter by about 3 points (standard deviation), and the difference is 8; restless: 14 and 35.
KINDS = {"calm": (0.08, 0.5), "restless": (1.0, 2.4)}
WORDS = ("first", "second", "not shown")
MOST_ALARMS, LEAST_FOUND = 0.2, 0.85


def _answers_about_equal_arrays(attempt: Callable) -> None:
    same_runs = np.random.default_rng(0).random((SEEDS, QUESTIONS)) < 0.7
    for runs in (same_runs, np.ones((SEEDS, QUESTIONS), dtype=bool)):
        word = need_word(attempt(runs, runs.copy()), *WORDS)
        if word != "not shown":
            raise Mistake(
                f'"{word}" for two arrays that are equal in every entry: a difference of 0 with an '
                "error of 0 shows nothing (0/0 is nan, and no comparison with nan is true)"
            )


def _word(attempt: Callable, rng: np.random.Generator, spread: float, gain: float) -> str:
    """The word for one invented comparison: the second recipe is ahead by `gain`."""
    difficulty = rng.normal(0.9, 1.5, QUESTIONS)  # the same questions for both recipes
    runs = []
    for ahead in (-gain / 2, gain / 2):
        ability = ahead + spread * rng.standard_normal((SEEDS, 1))
        runs.append(rng.random((SEEDS, QUESTIONS)) < 1 / (1 + np.exp(-(difficulty + ability))))
    return need_word(attempt(*runs), *WORDS)


def _name_the_rule(shares: dict[tuple[str, str], float]) -> None:
    """Raise Mistake unless the rule keeps its promises for both kinds of recipes."""
    alarms = {kind: shares[kind, "alarms"] for kind in KINDS}
    found = {kind: shares[kind, "found"] for kind in KINDS}
    for kind in KINDS:
        if shares[kind, "turned"] > 0.3:
            raise Mistake(
                f"in {shares[kind, 'turned']:.0%} of the comparisons of {kind} recipes the worse "
                "one is named: are the two words exchanged?"
            )
    seen = (
        f"calm recipes: {alarms['calm']:.0%} false alarms, {found['calm']:.0%} found; restless "
        f"ones: {alarms['restless']:.0%} and {found['restless']:.0%}"
    )
    if max(alarms.values()) > MOST_ALARMS:
        reason = "a rule that decides so often needs a larger error"
        if alarms["calm"] <= MOST_ALARMS:
            reason = (
                "false alarms where seeds scatter: take the error from the scores of the runs, not "
                "from the questions, from one run or from a fixed number of points"
            )
        raise Mistake(f"{seen}. {reason}")
    if min(found.values()) < LEAST_FOUND:
        raise Mistake(
            f"{seen}. Differences are missed: the rule is too strict. The mean "
            "of eight runs scatters less than a single run does"
        )
