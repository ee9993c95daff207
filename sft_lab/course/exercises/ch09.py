"""Checks of chapter 09, base versus tuned."""

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
    need_list,
    need_number,
    need_word,
    random_ids,
    same,
    same_for_all,
    unpack,
)


@checks("9.1")
def exact_match(attempt: Callable) -> str:
    equal, different = _equal_texts(), _different_texts()
    inputs = [pair for pair, _ in [*equal, *different]]
    inputs += [(reference, answer) for answer, reference in inputs]  # both ways
    expected = {pair: True for pair, _ in equal} | {pair: False for pair, _ in different}

    def right(answer, reference):
        return expected.get((answer, reference), expected.get((reference, answer)))

    def bare(text):
        return " ".join(text.split()).rstrip(" .")

    def both(change):
        return lambda answer, reference: change(answer) == change(reference)

    def one_starts_the_other(answer, reference):
        one, other = bare(answer), bare(reference)
        return bool(one) and (one.startswith(other) or other.startswith(one))

    goes_on = "an answer that goes on counts as right: compare all of it, not its beginning"
    mistakes = [
        (both(lambda text: text), "white space and full stops at the end must not matter"),
        (lambda answer, reference: bare(answer) == reference, "treat both sides alike"),
        (
            lambda answer, reference: answer == bare(reference),
            "treat both sides alike: the answer too",
        ),
        (both(lambda text: bare(text).lower()), "case carries meaning: do not change letters"),
        (
            both(lambda text: bare(text.replace(".", ""))),
            "a full stop inside an answer has a meaning, 45 is not 4.5: strip only at the end",
        ),
        (
            both(lambda text: bare(text).strip(" .")),
            "a full stop at the beginning has a meaning: strip only at the end",
        ),
        (lambda answer, reference: bare(answer).startswith(bare(reference)), goes_on),
        (one_starts_the_other, goes_on),
        (
            lambda answer, reference: bare(reference) in bare(answer),
            "an answer that names several things counts as right: containing is not equalling",
        ),
        (
            both(lambda text: "".join(text.split()).rstrip(".")),
            "white space was deleted: a run of it becomes one space",
        ),
    ]
    same_for_all(attempt, inputs, right, mistakes, form=_need_bool, what="the verdict")
    return "forgives white space and final full stops on both sides, and nothing else"


def _need_bool(found: Any) -> bool:
    if not isinstance(found, bool | np.bool_):
        raise Mistake(f"return True or False, not {found!r}")
    return bool(found)


def _equal_texts() -> list[tuple[tuple[str, str], str]]:
    """Pairs (answer, reference) that are equal up to white space and final full stops, and how."""
    place, value = random.choice([("Kenya", "Nairobi"), ("Peru", "Lima"), ("Fiji", "Suva")])
    reference = f"The capital of {place} is {value}."
    return [
        ((reference, reference), "the same"),
        ((reference.removesuffix("."), reference), "a full stop less"),
        ((reference + "..", reference), "three full stops"),
        ((f"  The capital  of {place}\nis\t \t{value} .", reference), "runs of white space"),
        ((f"{reference}\n", reference), "a line break behind the full stop"),
        ((f"\t{reference} ", reference), "a tab in front"),
        (("4.5.", "4.5"), "a number and a full stop"),
    ]


def _different_texts() -> list[tuple[tuple[str, str], str]]:
    """Pairs (answer, reference) that are not equal, and what tells them apart."""
    place, value = random.choice([("Kenya", "Nairobi"), ("Peru", "Lima"), ("Fiji", "Suva")])
    reference = f"The capital of {place} is {value}."
    return [
        (("AU.", "Au."), "case"),
        (("iron", "Iron"), "case of the first letter"),
        (("45.", "4.5."), "a full stop inside"),
        (("3 5", "3.5"), "a space for a full stop"),
        ((".5", "5"), "a full stop in front"),
        (("St Louis", "St. Louis"), "a full stop behind a word"),
        (("-3", "3"), "a sign"),
        (("4.50", "4.5"), "a zero"),
        (("1,000", "1000"), "a comma inside"),
        (("Rome,", "Rome"), "a comma at the end"),
        (("Rome!", "Rome"), "an exclamation mark"),
        (("Rome?", "Rome"), "a question mark"),
        (("Rome:", "Rome"), "a colon"),
        (("New York", "NewYork"), "white space that was deleted"),
        (("1 000", "1000"), "white space in a number"),
        (("the Nile", "Nile"), "an article"),
        (("10²", "102"), "an exponent"),
        (("café", "caf"), "a letter beyond ASCII"),
        (("Texas Paris", "Paris Texas"), "the order of words"),
        (("no no", "no"), "a word twice"),
        ((f"{reference} The capital of Mali is Bamako.", reference), "an answer that goes on"),
        ((f"{reference}\nAnd then?", reference), "an answer that goes on in a new line"),
        ((f"Rome or {value}", value), "several answers"),
        (("", reference), "an empty answer"),
        ((value, reference), "a part of the reference"),
        ((reference.replace("capital", "capitol"), reference), "one letter"),
    ]


@checks("9.2")
def how_it_ended(attempt: Callable) -> str:
    def by(rule: Callable) -> Callable:
        return lambda ids, stop, other_ends, limit: rule(ids, stop, other_ends, len(ids) == limit)

    def right(ids, stop, other_ends, full):
        return "stopped" if ids[-1] == stop else "document" if ids[-1] in other_ends else "cut"

    def length_first(ids, stop, other_ends, full):
        return "cut" if full else right(ids, stop, other_ends, full)

    def stop_only_before_the_limit(ids, stop, other_ends, full):
        if ids[-1] == stop and not full:
            return "stopped"
        return "document" if ids[-1] in other_ends else "cut"

    def anywhere(ids, stop, other_ends, full):
        return "stopped" if stop in ids else right(ids, stop, other_ends, full)

    def other_anywhere(ids, stop, other_ends, full):
        return (
            "document" if other_ends & {*ids[:-1]} - {stop} else right(ids, stop, other_ends, full)
        )

    def all_ends_alike(ids, stop, other_ends, full):
        return "stopped" if ids[-1] in {stop} | other_ends else "cut"

    def others_first(ids, stop, other_ends, full):
        return "document" if ids[-1] in other_ends else right(ids, stop, other_ends, full)

    look = "look at the token, not at the length: an end may be the last token allowed"
    mistakes = [
        (length_first, look),
        (stop_only_before_the_limit, look),
        (anywhere, "a stop token in the middle ended nothing: only the last token says how"),
        (other_anywhere, "an end in the middle ended nothing: only the last token says how"),
        (all_ends_alike, "another end token is not the stop token: the document ended"),
        (others_first, "the stop token is not another end, even if `other_ends` holds it"),
        (
            lambda ids, stop, other_ends, full: "stopped" if ids[-1] == stop else "cut",
            "another end token ended the document: that is no cut",
        ),
    ]
    ends = ("stopped", "document", "cut")
    same_for_all(
        attempt,
        _endings(),
        lambda *given: [by(right)(*given)],
        [(lambda *given, rule=rule: [by(rule)(*given)], name) for rule, name in mistakes],
        form=lambda found: [need_word(found, *ends)],
        what="the ending",
    )
    return "read from the last token, also when that is the last one allowed"


def _endings() -> list[tuple[list[int], int, set[int], int]]:
    """Ids, stop token, other ends and limit: every ending before the limit and at it; ids that are
    0; several other ends, once with the stop token among them; an end in the middle, or before the
    last token. Equal ids are different objects, as where a tokenizer made one of them."""
    limit = random.randint(6, 12)
    endings = []
    first, second, third, *words = (number + 1000 for number in random_ids(8))
    body = random.choices(words, k=limit - 1)
    for stop, one, other in ((first, second, third), (0, first, second), (first, 0, second)):
        ends = {one, other}
        endings += [
            ([*body[:3], stop], stop, ends, limit),
            ([*body, stop], stop, ends, limit),
            ([*body[:2], one], stop, ends, limit),
            ([*body[:4], other], stop, ends, limit),
            ([*body, one], stop, ends, limit),
            ([*body, other], stop, ends, limit),
            ([*body, words[0]], stop, ends, limit),
            ([*body[:2], stop, *body[2:]], stop, ends, limit),
            ([stop], stop, ends, limit),
            ([*body[:3], stop], stop, {*ends, stop}, limit),
            ([*body, stop], stop, {*ends, stop}, limit),
            ([*body[:2], one, *body[2:]], stop, ends, limit),
            ([*body[:2], other, *body[2:-1], stop], stop, ends, limit),
            ([*body[:2], stop, *body[2:-1], stop], stop, ends, limit),
            ([*body[:2], stop, *body[2:-1], one], stop, ends, limit),
            ([*body[:-1], stop, words[0]], stop, ends, limit),
            ([*body[:-1], one, words[0]], stop, ends, limit),
        ]
    return [(ids, int(str(stop)), ends, limit) for ids, stop, ends, limit in endings]


@checks("9.3")
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


@checks("9.4")
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


@checks("9.5")
def full_bin_error(attempt: Callable) -> str:
    def equal_width(confidences, correct, bins):
        excess = np.array(confidences) - np.array(correct)
        places = np.minimum((np.array(confidences) * bins).astype(int), bins - 1)
        return sum(abs(excess[places == place].sum()) for place in range(bins)) / len(excess)

    def in_order(sure):
        return np.arange(len(sure))

    def equal_ones_once(confidences, correct, bins):
        kept = dict(zip(confidences, correct, strict=True))
        return _error()(list(kept), list(kept.values()), bins)

    mistakes = [
        (equal_width, "these are bins of equal width: sort, then cut into runs of equal size"),
        (_error(in_order), "the answers are not sorted: a run holds answers of like confidence"),
        (
            lambda confidences, correct, bins: _error(in_order)(sorted(confidences), correct, bins),
            "the confidences were sorted without their outcomes",
        ),
        (
            _error(lambda sure: np.argsort(-sure)),
            "sort from the least sure answers on: they make the larger runs",
        ),
        (
            _error(join=lambda gaps, shares: gaps.sum()),
            "this is the sum of the gaps: weigh each with its share of answers",
        ),
        (
            _error(join=lambda gaps, shares: gaps.max()),
            "this is the largest gap: weigh and add all of them",
        ),
        (
            _error(join=lambda gaps, shares: gaps.mean()),
            "the runs are not weighed: the first ones hold one answer more",
        ),
        (
            _error(cut=lambda excess, bins: np.array_split(excess, len(excess))),
            "this is the mean gap of single answers: take means inside a run",
        ),
        (
            _error(cut=lambda excess, bins: [excess]),
            "this is one gap over all answers: two runs' gaps must not cancel",
        ),
        (equal_ones_once, "answers of equal confidence were taken for one"),
        (
            _error(cut=lambda excess, bins: [excess[first::bins] for first in range(bins)]),
            "a run takes every n-th of the sorted answers: cut it from them in one piece",
        ),
    ]
    what = "the error"
    settings = {"form": lambda found: need_number(found, what), "what": what, "rtol": 1e-5}
    same_for_all(attempt, _confident_answers(), _error(), mistakes, **settings)
    return "sorted, cut into full bins, weighed, in any order"


def _error(
    order: Callable = np.argsort, cut: Callable = np.array_split, join: Callable | None = None
) -> Callable:
    """The error from an order of the confidences, a cut into runs, and what joins the gaps."""

    def answer(confidences, correct, bins):
        sure, right = np.array(confidences), np.array(correct, dtype=float)
        placed = order(sure)
        runs = cut((sure - right)[placed], bins)
        gaps = np.array([abs(run.mean()) for run in runs])
        shares = np.array([len(run) / len(sure) for run in runs])
        return float(join(gaps, shares) if join else gaps @ shares)

    return answer


def _confident_answers() -> list[tuple[list[float], list[bool], int]]:
    """Confidences, outcomes and bins, in any order: one run or more is one longer; none is; a
    single run; and in every second run equal confidences with unlike outcomes."""
    rng = np.random.default_rng(random.randrange(10**6))
    exams = [([0.9, 0.6, 0.8, 0.7], [False, True, True, True], 1)]
    exams.append(([0.55, 0.85, 0.65, 0.75], [False, True, True, False], 2))  # too sure in turn
    for bins, longer in ((5, 1), (4, 3), (5, 0), (5, 4)):
        size = bins * random.randint(8, 12) + longer
        runs = np.array_split(np.sort(0.25 + 0.65 * rng.random(size)), bins)
        outcomes = []
        for number, run in enumerate(runs):  # gaps of both signs in turn
            if number % 2:
                run[2:6] = run[2]
            outcomes.append(
                rng.permutation(len(run)) < (1 + number % 2 if number % 2 else len(run))
            )
            if number % 2:
                outcomes[-1][2:6] = [True, False, False, True]
        order = rng.permutation(size)
        sure, correct = np.concatenate(runs)[order], np.concatenate(outcomes)[order]
        exams.append((sure.tolist(), correct.tolist(), bins))
    return exams


@checks("9.6")
def blind(attempt: Callable) -> str:
    size = random.randint(30, 40)
    pairs = [(f"a{number}", f"b{number}") for number in range(size)]
    pairs[5] = pairs[11] = pairs[17] = ("twice", "the same pair")
    pairs[8] = ("equal", "equal")
    keys = []
    for seed in range(120):
        shown, key = unpack(attempt(pairs, seed), "the pairs as shown", "the key")
        shown = need_list(shown, tuple, "pairs (A, B)")
        key = [bool(swapped) if isinstance(swapped, np.bool_) else swapped for swapped in key]
        need_list(key, bool, "True and False as the key")
        if len(shown) != size or len(key) != size:
            raise Mistake(f"{size} pairs went in, {len(shown)} and a key of {len(key)} came out")
        for pair, sides, swapped in zip(pairs, shown, key, strict=True):
            if sorted(sides) != sorted(pair):
                raise Mistake(
                    f"{pair} became {sides}: shuffle the sides, keep the order of the pairs"
                )
            if sides != (pair[::-1] if swapped else pair):
                raise Mistake(
                    f"the key does not fit: it is {swapped} for {pair}, shown as {sides}; it must "
                    "be True exactly where the pair was swapped"
                )
        keys.append(key)
    if attempt(pairs, 7)[1] != attempt(pairs, 7)[1]:
        raise Mistake(
            "the same seed gives another key: make the generator from the seed, random.Random(seed)"
        )
    _look_like_coins(np.array(keys))
    return "fair, independent from pair to pair, repeatable, with a key that fits"


def _look_like_coins(keys: np.ndarray) -> None:
    """Raise Mistake unless the keys (seeds, pairs) look like fair and independent coins. A fair
    coin passes each limit in all but one of a million draws."""
    seeds, size = keys.shape
    swapped, different = keys.sum(axis=1), len(np.unique(keys, axis=0))
    if different == 1:
        raise Mistake(f"{seeds} seeds give one and the same key: the sides must come from the seed")
    if different < 100:
        if np.isin(swapped, (0, size)).all():
            raise Mistake(
                "one coin for all pairs: whoever learns one side knows them all; draw for each pair"
            )
        raise Mistake(
            f"{seeds} seeds give {different} keys: sides that follow a pattern are learnt"
        )
    if len(np.unique(swapped)) == 1:
        raise Mistake(
            f"always {swapped[0]} of {size} swapped: the last side follows from the others; use "
            "free coins"
        )
    if not 0.45 < keys.mean() < 0.55:
        raise Mistake(f"{keys.mean():.0%} of the pairs are swapped: a fair coin swaps half")
    shares = keys.mean(axis=0)
    place = int(np.abs(shares - 0.5).argmax())
    if not 0.25 < shares[place] < 0.75:
        raise Mistake(f"pair {place} is swapped for {shares[place]:.0%} of the seeds, not for half")
    agree = (keys[:, 1:] == keys[:, :-1]).mean()
    if not 0.45 < agree < 0.55:
        raise Mistake(
            f"neighbours have the same side in {agree:.0%} of cases: one side tells about the next"
        )
    agree = (keys[:, 5] == keys[:, 11]).mean()
    if not 0.25 < agree < 0.75:
        raise Mistake(f"equal pairs have the same side for {agree:.0%} of the seeds: draw for each")
