"""Checks of chapter 09, base versus tuned."""

import math
import random

import numpy as np

from sft_lab.course.checks import Mistake, checks, same


@checks("9.1")
def _exact_match(attempt):
    place, value = (
        random.choice(["Kenya", "Peru", "Fiji"]),
        random.choice(["Nairobi", "Lima", "Suva"]),
    )
    reference = f"The capital of {place} is {value}."
    for answer in (
        reference,
        reference[:-1],
        f"  The capital  of {place}\nis {value} .",
        f"{reference}\n",
    ):
        if not attempt(answer, reference) or not attempt(reference, answer):
            raise Mistake(
                f"{answer!r} equals {reference!r} up to white space and full stops: treat both "
                "sides alike"
            )
    wrong = {
        ("AU.", "Au."): "AU counts as Au, but case carries meaning: do not change letters",
        (
            "45.",
            "4.5.",
        ): "45 counts as 4.5: a full stop inside an answer carries meaning; strip only at the end",
        ("-3", "3"): "-3 counts as 3: only white space and full stops at the end may be dropped",
        (
            f"{reference} The capital of Mali is Bamako.",
            reference,
        ): "an answer that goes on counts as right: compare the whole answer, not its beginning",
        (
            f"Rome or {value}",
            value,
        ): "an answer that names several things counts as right: containing is not equalling",
        ("", reference): "an empty answer counts as right",
        (value, reference): "a part of the reference counts as right: compare the whole",
        ("New York", "Newyork"): "white space was deleted: a run of it becomes one space, not none",
    }
    for (answer, wanted), mistake in wrong.items():
        if attempt(answer, wanted):
            raise Mistake(mistake)
    return "forgives white space and final full stops on both sides, and nothing else"


@checks("9.2")
def _how_it_ended(attempt):
    limit = random.randint(6, 12)
    stop, other, *words = random.sample(range(3, 99), 6)
    body = random.choices(words, k=limit - 1)
    cases = [
        ([*body[:3], stop], "stopped", "an answer that ends with the stop token stopped by itself"),
        (
            [*body, stop],
            "stopped",
            "the stop token may be the last one allowed: look at the token, not at the length",
        ),
        (
            [*body[:2], other],
            "document",
            "another end token is not the stop token: the document ended",
        ),
        (
            [*body, other],
            "document",
            "another end token may be the last one allowed: look at the token",
        ),
        ([*body, words[0]], "cut", "no end token stands at the end, so the limit cut it"),
        (
            [*body[:2], stop, *body[2:]],
            "cut",
            "a stop token in the middle ended nothing: only the last token says how",
        ),
        ([stop], "stopped", "an answer may be nothing but its stop token"),
    ]
    for ids, expected, mistake in cases:
        found = attempt(list(ids), stop, {other}, limit)
        if found not in ("stopped", "document", "cut"):
            raise Mistake(f'it returns {found!r}: return "stopped", "document" or "cut"')
        if found != expected:
            raise Mistake(
                f"{len(ids)} tokens (limit {limit}) gave {found!r}, expected {expected!r}: "
                f"{mistake}"
            )
    return "read from the last token, also when that is the last one allowed"


@checks("9.3")
def _cluster_interval(attempt):
    rng = np.random.default_rng(random.randrange(10**6))
    sizes = rng.permutation(np.repeat([1, 9], [60, 60]))
    entity = np.repeat(rng.permutation(1000)[:120], sizes)  # any numbers, in any order
    hard = np.repeat(rng.random(120), sizes)
    lift = np.repeat(np.where(sizes == 9, 0.09, 0.01) + 0.06 * rng.standard_normal(120), sizes)
    before = 0.3 + 0.4 * hard
    after = before + lift
    n, pairs = len(entity), after - before
    sums = np.array([pairs[entity == name].sum() for name in np.unique(entity)])
    counts = np.array([(entity == name).sum() for name in np.unique(entity)])
    middle = pairs.mean()
    error, middle = 100 * math.sqrt(((sums - middle * counts) ** 2).sum()) / n, 100 * middle
    order = rng.permutation(n)
    found = attempt(before[order], after[order], entity[order], 2000, 1)
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise Mistake(f"it returns {found!r:.60}: return (low, high)")
    low, high = float(found[0]), float(found[1])
    width, by_question = high - low, 3.92 * 100 * pairs.std() / math.sqrt(n)
    if abs(low + high) / 2 < 0.1 * middle:
        raise Mistake(
            f"the interval is {low:.3g} to {high:.3g}, and the mean difference {middle:.3g} "
            "points: is it in fractions, or centred on 0?"
        )
    if low + high < 0:
        raise Mistake("the sign is reversed: the difference is after - before")
    if width < 0.3 * error:
        raise Mistake(
            "hardly any width: draw entities WITH replacement, as many as there are, anew in "
            "each resample"
        )
    if abs((low + high) / 2 - middle) > 1.6 * error:
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
    same(
        [low, high],
        [middle - 1.96 * error, middle + 1.96 * error],
        what="the interval",
        atol=0.5 * error,
        rtol=0,
    )
    same(
        attempt(before[order], after[order], entity[order], 2000, 1),
        found,
        what="the interval with the same seed:",
    )
    if list(attempt(before[order], after[order], entity[order], 2000, 2)) == list(found):
        raise Mistake("another seed gives the very same interval: the seed is not used")
    four = [np.repeat(values, 4) for values in (before, after, entity)]
    again = attempt(*four, 2000, 1)
    same(
        again[1] - again[0],
        width,
        what="the width when each question is asked four times",
        rtol=0.12,
    )
    return "near the analytic interval; asking each question four times does not narrow it"


@checks("9.4")
def _mcnemar(attempt):
    gained, lost = random.randint(9, 14), random.randint(2, 5)
    n, tail = gained + lost, sum(math.comb(gained + lost, k) for k in range(lost + 1))
    exact = math.comb(n, lost) / 2**n
    same(
        attempt(gained, lost),
        2 * tail / 2**n,
        what="p",
        hints={
            tail / 2**n: "one tail only: before the run either side could have won, so double it",
            exact: "this is the chance of exactly this split: add all splits that are at least "
            "as uneven",
            2 * exact: "this is the chance of exactly this split: add all splits that are at least "
            "as uneven",
            1 - 2 * tail / 2**n: "this is one minus p: a small p means that coins rarely do it",
            2
            * (
                1 - tail / 2**n
            ): "the wrong tail: count splits at least as uneven, from 0 to min(gained, lost)",
            2
            * (tail - math.comb(n, lost))
            / 2**n: "the split itself is missing: at least as uneven includes it",
        },
    )
    same(attempt(lost, gained), attempt(gained, lost), what="p after swapping gained and lost")
    if attempt(4, 4) > 1:
        raise Mistake(
            "an even split gives more than 1: both tails hold the middle, so cap the sum at 1"
        )
    same(attempt(4, 4), 1.0, what="p of an even split")
    same(attempt(0, 0), 1.0, what="p when nothing changed")
    try:
        many = float(attempt(700, 500))
    except OverflowError as error:
        raise Mistake(
            "1200 answers overflow a float: divide whole numbers, 2**n and not 2.0**n"
        ) from error
    if not 0 < many < 1e-6:
        raise Mistake(
            f"p of 700 against 500 is {many:.3g}, expected about 9e-9: 0.5**1200 is 0 in a "
            "float, so keep whole numbers until the last division"
        )
    return (
        "equals the exact binomial tails, symmetric, 1 for an even split, and works for "
        "1200 answers"
    )


@checks("9.5")
def _full_bin_error(attempt):
    bins = random.choice([4, 5])
    rng = np.random.default_rng(random.randrange(10**6))
    n = bins * random.randint(8, 12) + random.randint(1, bins - 1)  # some runs are one longer
    wrong: dict[float, str] = {}
    while (
        len(wrong) < 9 or min(np.diff(sorted(wrong))) < 1e-4
    ):  # until no two mistakes give one number
        sure = 0.2 + 0.65 * rng.random(n) ** 2
        order = np.argsort(sure)
        runs = np.array_split(order, bins)
        correct = np.zeros(n, dtype=bool)
        for number, run in enumerate(runs):  # gaps of both signs in turn
            correct[rng.permutation(run)[: 1 if number % 2 else len(run)]] = True
        gaps = np.array([abs(sure[run].mean() - correct[run].mean()) for run in runs])
        places = np.minimum((sure * bins).astype(int), bins - 1)
        expected = float(sum(abs((sure - correct)[run].sum()) for run in runs) / n)
        wrong = {
            expected: "",
            float(
                sum(abs((sure - correct)[places == k].sum()) for k in range(bins)) / n
            ): "these are bins of equal width: sort, then cut into runs of equal size",
            _cut(
                sure - correct, bins
            ): "the answers are not sorted: a run holds answers of similar confidence",
            _cut(
                sure[order] - correct, bins
            ): "the confidences were sorted without their outcomes: move both",
            float(gaps.sum()): "this is the sum of the gaps: weigh each with its share of answers",
            float(
                np.abs(sure - correct).mean()
            ): "this is the mean gap of single answers: compare means inside a run",
            float(
                abs((sure - correct).mean())
            ): "this is one gap over all answers: those of two runs must not cancel",
            float(gaps.max()): "this is the largest gap: weigh and add all of them",
            float(gaps.mean()): "the runs are not weighed: the first ones hold one answer more",
        }
    same(
        attempt(sure.tolist(), correct.tolist(), bins),
        expected,
        what="the error",
        hints=wrong,
        rtol=1e-5,
    )
    shuffled = rng.permutation(n)
    same(
        attempt(sure[shuffled].tolist(), correct[shuffled].tolist(), bins),
        expected,
        what="the error, reordered,",
    )
    found = attempt([0.6, 0.7, 0.8, 0.9], [True, True, True, False], 1)
    same(found, 0.0, what="the error of a single run, 3 of 4 right at a mean confidence of 0.75,")
    return "sorted, cut into full bins, weighed, in any order"


def _cut(gaps: np.ndarray, bins: int) -> float:
    return float(sum(abs(run.sum()) for run in np.array_split(gaps, bins)) / len(gaps))


@checks("9.6")
def _blind(attempt):
    n = random.randint(30, 40)
    pairs = [(f"a{i}", f"b{i}") for i in range(n)]
    given, keys = list(pairs), []
    for seed in range(120):
        result = attempt(pairs, seed)
        if (
            not isinstance(result, tuple)
            or len(result) != 2
            or len(result[0]) != n
            or len(result[1]) != n
        ):
            raise Mistake(f"return two lists of {n}: the pairs as shown, and the key")
        shown, key = result
        if pairs != given:
            raise Mistake("your function changed the given list: build a new one")
        for (a, b), (x, y), swapped in zip(given, shown, key, strict=True):
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
    if attempt(pairs, 7)[1] != attempt(pairs, 7)[1]:
        raise Mistake(
            "the same seed gives another key: make the generator from the seed, random.Random(seed)"
        )
    table = np.array(keys)
    counts = table.sum(axis=1)
    if len({tuple(key) for key in keys}) < 100:
        if set(counts.tolist()) <= {0, n}:
            raise Mistake(
                "one coin for all pairs: whoever learns one side knows them all; draw for each pair"
            )
        raise Mistake("hardly any two seeds differ: sides that follow a pattern can be learnt")
    if len(set(counts.tolist())) == 1:
        raise Mistake(
            f"always {counts[0]} of {n} swapped: the last side follows from the others; use free "
            "coins"
        )
    if not 0.45 < table.mean() < 0.55:
        raise Mistake(f"{table.mean():.0%} of the pairs are swapped: a fair coin swaps half")
    agree = (table[:, 1:] == table[:, :-1]).mean()
    if not 0.45 < agree < 0.55:
        raise Mistake(
            f"neighbours have the same side in {agree:.0%} of cases: one side tells about the next"
        )
    return "fair, independent from pair to pair, repeatable, with a key that fits"
