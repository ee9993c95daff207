"""Checks of chapter 09, base versus tuned."""

import math
import random
from collections.abc import Callable

import numpy as np

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    named,
    need_word,
    random_ids,
    same,
    unpack,
)


@checks("9.1")
def exact_match(attempt: Callable) -> str:
    place, value = random.choice([("Kenya", "Nairobi"), ("Peru", "Lima"), ("Fiji", "Suva")])
    reference = f"The capital of {place} is {value}."
    variants = [
        reference,
        reference.removesuffix("."),
        f"  The capital  of {place}\nis {value} .",
        f"{reference}\n",
    ]
    for answer in variants:
        if not attempt(answer, reference) or not attempt(reference, answer):
            raise Mistake(
                f"{answer!r} equals {reference!r} up to white space and full stops: treat both "
                "sides alike"
            )
    inside = "45 counts as 4.5: a full stop inside an answer has a meaning; strip only at the end"
    sign = "-3 counts as 3: only white space and full stops at the end may be dropped"
    goes_on = "an answer that goes on counts as right: compare all of it, not its beginning"
    several = "an answer that names several things counts as right: containing is not equalling"
    different = [
        ("AU.", "Au.", "AU counts as Au, but case carries meaning: do not change letters"),
        ("45.", "4.5.", inside),
        ("-3", "3", sign),
        (f"{reference} The capital of Mali is Bamako.", reference, goes_on),
        (f"Rome or {value}", value, several),
        ("", reference, "an empty answer counts as right"),
        (value, reference, "a part of the reference counts as right: compare the whole"),
        ("New York", "Newyork", "white space was deleted: a run of it becomes one space"),
    ]
    for answer, wanted, mistake in different:
        if attempt(answer, wanted):
            raise Mistake(mistake)
    return "forgives white space and final full stops on both sides, and nothing else"


@checks("9.2")
def how_it_ended(attempt: Callable) -> str:
    limit = random.randint(6, 12)
    stop, other, word, *words = random_ids(6)
    body = random.choices(words, k=limit - 1)
    length = "look at the token, not at the length"
    by_itself = "an answer that ends with the stop token stopped by itself"
    document = "another end token is not the stop token: the document ended"
    middle = "a stop token in the middle ended nothing: only the last token says how"
    cases = [
        ([*body[:3], stop], "stopped", by_itself),
        ([*body, stop], "stopped", f"the stop token may be the last one allowed: {length}"),
        ([*body[:2], other], "document", document),
        ([*body, other], "document", f"another end token may be the last one allowed: {length}"),
        ([*body, word], "cut", "no end token stands at the end, so the limit cut it"),
        ([*body[:2], stop, *body[2:]], "cut", middle),
        ([stop], "stopped", "an answer may be nothing but its stop token"),
    ]
    for ids, expected, mistake in cases:
        found = need_word(attempt(ids, stop, {other}, limit), "stopped", "document", "cut")
        if found != expected:
            raise Mistake(
                f"{len(ids)} tokens (limit {limit}) gave {found!r}, expected {expected!r}: "
                f"{mistake}"
            )
    return "read from the last token, also when that is the last one allowed"


@checks("9.3")
def cluster_interval(attempt: Callable) -> str:
    before, after, entity = _random_exam()
    differences = 100 * (after - before)
    size, middle = len(entity), differences.mean()
    of_entity = entity == np.unique(entity)[:, None]  # (entities, questions)
    # the linearised variance of a ratio of sums over entities
    residuals = of_entity @ differences - middle * of_entity.sum(axis=1)
    error = math.sqrt((residuals**2).sum()) / size

    found = attempt(before, after, entity, 2000, 1)
    low, high = map(float, unpack(found, "low", "high"))
    by_question = 2 * 1.96 * differences.std() / math.sqrt(size)
    _name_interval(low, high, middle, error, by_question)
    analytic = [middle - 1.96 * error, middle + 1.96 * error]
    same([low, high], analytic, what="the interval", atol=0.5 * error, rtol=0)

    again = attempt(before, after, entity, 2000, 1)
    same(again, found, what="the interval with the same seed")
    if list(attempt(before, after, entity, 2000, 2)) == list(found):
        raise Mistake("another seed gives the very same interval: the seed is not used")
    low_of_four, high_of_four = attempt(
        *(np.repeat(values, 4) for values in (before, after, entity)), 2000, 1
    )
    what = "the width when each question is asked four times"
    same(high_of_four - low_of_four, high - low, what=what, rtol=0.12)
    return "near the analytic interval; asking each question four times does not narrow it"


def _random_exam() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores before and after, and the entity of each question, in any order: 60 entities with one
    question, where hardly anything is gained, and 60 with nine, where much is."""
    rng = np.random.default_rng(random.randrange(10**6))
    sizes = rng.permutation(np.repeat([1, 9], 60))
    entity = np.repeat(rng.permutation(1000)[:120], sizes)  # any numbers
    before = 0.3 + 0.4 * np.repeat(rng.random(120), sizes)
    gain = np.where(sizes == 9, 0.09, 0.01) + 0.06 * rng.standard_normal(120)
    order = rng.permutation(len(entity))
    return before[order], (before + np.repeat(gain, sizes))[order], entity[order]


def _name_interval(
    low: float, high: float, middle: float, error: float, by_question: float
) -> None:
    """Raise Mistake when middle or width of an interval tell how it was made."""
    found, width = (low + high) / 2, high - low
    if abs(found) < 0.1 * middle:
        raise Mistake(
            f"the interval is {low:.3g} to {high:.3g}, and the mean difference {middle:.3g} "
            "points: is it in fractions, or centred on 0?"
        )
    if found < 0:
        raise Mistake("the sign is reversed: the difference is after - before")
    if width < 0.3 * error:
        raise Mistake(
            "hardly any width: draw entities WITH replacement, as many as there are, anew in "
            "each resample"
        )
    if abs(found - middle) > 1.6 * error:
        raise Mistake(
            "the middle is off: every question counts the same, so divide the drawn sum by the "
            "drawn number of questions (the mean of entity means weighs small entities too much)"
        )
    if width < 1.25 * by_question:
        raise Mistake(
            "too narrow: you resampled questions; draw entities, each with all of its questions"
        )
    if width > 6 * error:
        raise Mistake(
            "too wide: one draw of entities serves both models, so resample the differences"
        )
    if width < 3.55 * error:
        raise Mistake(
            "too narrow: 95 % leaves 2.5 % on each side (5 % on each side is a 90 % interval)"
        )


@checks("9.4")
def mcnemar(attempt: Callable) -> str:
    gained, lost = random.randint(9, 14), random.randint(2, 5)
    splits = 2 ** (gained + lost)
    this = math.comb(gained + lost, lost) / splits
    tail = sum(math.comb(gained + lost, k) for k in range(lost + 1)) / splits
    exact = "this is the chance of exactly this split: add all that are at least as uneven"
    other = "the wrong tail: count splits at least as uneven, from 0 to min(gained, lost)"
    included = "the split itself is missing: at least as uneven includes it"
    hints = [
        (tail, "one tail only: before the run either side could have won, so double it"),
        (this, exact),
        (2 * this, exact),
        (1 - 2 * tail, "this is one minus p: a small p means that coins rarely do it"),
        (2 * (1 - tail), other),
        (2 * (tail - this), included),
    ]
    same(attempt(gained, lost), 2 * tail, hints, what="p")
    same(attempt(lost, gained), 2 * tail, what="p after swapping gained and lost")
    even = attempt(4, 4)
    if even > 1:
        raise Mistake(
            "an even split gives more than 1: both tails hold the middle, so cap the sum at 1"
        )
    same(even, 1.0, what="p of an even split")
    same(attempt(0, 0), 1.0, what="p when nothing changed")
    overflow = "1200 answers overflow a float: divide whole numbers, 2**n and not 2.0**n"
    with named(OverflowError, overflow):
        many = float(attempt(700, 500))
    if not 0 < many < 1e-6:
        raise Mistake(
            f"p of 700 against 500 is {many:.3g}, expected about 9e-9: 0.5**1200 is 0 in a "
            "float, so keep whole numbers until the last division"
        )
    return "equals the exact binomial tails, symmetric, also for an even split and 1200 answers"


@checks("9.5")
def full_bin_error(attempt: Callable) -> str:
    bins = random.choice([4, 5])
    size = bins * random.randint(8, 12) + random.randint(1, bins - 1)  # some runs are one longer
    rng = np.random.default_rng(random.randrange(10**6))
    sure = 0.25 + 0.65 * rng.random(size)
    order = np.argsort(sure)
    runs = np.array_split(order, bins)
    correct = np.zeros(size, dtype=bool)
    for number, run in enumerate(runs):  # gaps of both signs in turn
        correct[rng.permutation(run)[: 1 if number % 2 else len(run)]] = True

    excess = sure - correct
    expected = sum(abs(excess[run].sum()) for run in runs) / size
    gaps = [abs(excess[run].mean()) for run in runs]
    places = np.minimum((sure * bins).astype(int), bins - 1)
    equal_width = sum(abs(excess[places == place].sum()) for place in range(bins)) / size
    hints = [
        (equal_width, "these are bins of equal width: sort, then cut into runs of equal size"),
        (_cut(excess, bins), "the answers are not sorted: a run holds answers of like confidence"),
        (_cut(sure[order] - correct, bins), "the confidences were sorted without their outcomes"),
        (sum(gaps), "this is the sum of the gaps: weigh each with its share of answers"),
        (max(gaps), "this is the largest gap: weigh and add all of them"),
        (np.mean(gaps), "the runs are not weighed: the first ones hold one answer more"),
        (abs(excess).mean(), "this is the mean gap of single answers: take means inside a run"),
        (abs(excess.mean()), "this is one gap over all answers: two runs' gaps must not cancel"),
    ]
    found = attempt(sure.tolist(), correct.tolist(), bins)
    same(found, expected, hints, what="the error", rtol=1e-5)
    shuffled = rng.permutation(size)
    found = attempt(sure[shuffled].tolist(), correct[shuffled].tolist(), bins)
    same(found, expected, what="the error, reordered,")
    found = attempt([0.6, 0.7, 0.8, 0.9], [True, True, True, False], 1)
    same(found, 0.0, what="the error of a single run, 3 of 4 right at a mean confidence of 0.75,")
    return "sorted, cut into full bins, weighed, in any order"


def _cut(excess: np.ndarray, bins: int) -> float:
    return sum(abs(run.sum()) for run in np.array_split(excess, bins)) / len(excess)


@checks("9.6")
def blind(attempt: Callable) -> str:
    size = random.randint(30, 40)
    pairs = [(f"a{number}", f"b{number}") for number in range(size)]
    keys = []
    for seed in range(120):
        shown, key = unpack(attempt(pairs, seed), "the pairs as shown", "the key")
        if len(shown) != size or len(key) != size:
            raise Mistake(f"{size} pairs went in, {len(shown)} and a key of {len(key)} came out")
        for (a, b), (x, y), swapped in zip(pairs, shown, key, strict=True):
            if {a, b} != {x, y}:
                raise Mistake(
                    "a pair changed its place or its answers: shuffle the sides, keep the order "
                    "of the pairs"
                )
            if ((x, y) == (b, a)) != bool(swapped):
                raise Mistake(
                    "the key does not fit: it must be True exactly where the pair was swapped"
                )
        keys.append([bool(swapped) for swapped in key])
    if list(attempt(pairs, 7)[1]) != list(attempt(pairs, 7)[1]):
        raise Mistake(
            "the same seed gives another key: make the generator from the seed, random.Random(seed)"
        )
    _name_coin(np.array(keys))
    return "fair, independent from pair to pair, repeatable, with a key that fits"


def _name_coin(keys: np.ndarray) -> None:
    """Raise Mistake unless the keys (seeds, pairs) look like fair and independent coins."""
    size, swapped = keys.shape[1], keys.sum(axis=1)
    if len(np.unique(keys, axis=0)) < 100:
        if np.isin(swapped, (0, size)).all():
            raise Mistake(
                "one coin for all pairs: whoever learns one side knows them all; draw for each pair"
            )
        raise Mistake("hardly any two seeds differ: sides that follow a pattern can be learnt")
    if len(np.unique(swapped)) == 1:
        raise Mistake(
            f"always {swapped[0]} of {size} swapped: the last side follows from the others; use "
            "free coins"
        )
    # of 120 · 30 fair coins: half, give or take 2.5 points in 99.7 % of cases
    if not 0.45 < keys.mean() < 0.55:
        raise Mistake(f"{keys.mean():.0%} of the pairs are swapped: a fair coin swaps half")
    agree = (keys[:, 1:] == keys[:, :-1]).mean()
    if not 0.45 < agree < 0.55:
        raise Mistake(
            f"neighbours have the same side in {agree:.0%} of cases: one side tells about the next"
        )
