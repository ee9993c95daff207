"""Station "judge": what can be concluded from a few questions, and from a few seeds.

Two kinds of chance are told apart. Which questions were asked: McNemar's exact test and the paired
bootstrap. Which seed a run had: the verdict on a claim. Derived in chapter 09b.
"""

from collections.abc import Sequence
from math import comb, sqrt
from typing import NamedTuple

import numpy as np

Interval = tuple[float, float]
RESAMPLES = 2000
LEVEL = 0.05  # a p-value below it counts as a difference
FEWEST_SEEDS = 3
FLOORS = 2.0  # how many noise floors the mean effect must exceed
VERDICTS = ("held", "did not hold", "not shown")
Z, POWER_Z = 1.959964, 0.841621  # two-sided 5 %, and 80 % power


def mcnemar_p_value(improved: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test: each changed answer is a fair coin under chance.

    improved, lost: questions that only the second model, or only the first, answers rightly. What
    both get right, or both wrong, says nothing about which is better and is left out. 1.0 when
    nothing changed. The same number is the sign test of votes, with ties left out. Source: McNemar
    1947, Psychometrika 12, 153-157; exact form: binomial with p = 1/2.
    """
    if improved < 0 or lost < 0:
        raise ValueError(f"{improved} improved and {lost} lost: counts cannot be negative")
    changed = improved + lost
    # Whole numbers up to the division: 2^changed may be more than a float holds.
    tail = sum(comb(changed, heads) for heads in range(min(improved, lost) + 1))
    return min(1.0, 2 * tail / 2**changed)


def paired_bootstrap(
    base_right: Sequence[bool],
    tuned_right: Sequence[bool],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Interval, Interval, Interval]:
    """95 % intervals of the base's accuracy, the tuned model's, and tuned minus base, as fractions.

    Paired: a resample draws questions, each with both answers, so what makes a question hard
    cancels in the difference. If all n outcomes are equal the interval has no width, which is too
    sure: the rule of three puts the other outcome's chance below 3/n. Raises ValueError when the
    two do not have one outcome for each question. Source: Efron and Tibshirani 1993, percentile
    intervals; derived in chapter 09b.
    """
    before, after = np.asarray(base_right, dtype=bool), np.asarray(tuned_right, dtype=bool)
    if before.ndim != 1 or before.shape != after.shape or not before.size:
        raise ValueError(
            f"one outcome a question and model is needed, got shapes {before.shape} and "
            f"{after.shape}"
        )
    questions = before.size
    # A question is of one of four kinds: right or wrong before, right or wrong after. How many of
    # each a resample holds is one multinomial draw; no (resamples, n) table of indices is needed.
    kinds = np.bincount(2 * before + after, minlength=4)
    drawn = np.random.default_rng(seed).multinomial(questions, kinds / questions, size=resamples)
    # what each kind adds to: base right, tuned right, tuned minus base
    weights = np.array([[0, 0, 0], [0, 1, 1], [1, 0, -1], [1, 1, 0]])
    low, high = np.percentile(drawn @ weights / questions, [2.5, 97.5], axis=0)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


def questions_needed(disagree: float, difference: float) -> float:
    """Questions at which a paired test finds `difference` in 80 of 100 exams.

    disagree: share of questions that one model answers rightly and the other wrongly. One
    question's difference is +1, -1 or 0, so its variance is disagree - difference². Derived in
    chapter 16c.
    """
    return (Z + POWER_Z) ** 2 * (disagree - difference**2) / difference**2


def smallest_difference(disagree: float, questions: float) -> float:
    """The difference that a paired test finds in 80 of 100 exams of so many questions: what
    `questions_needed` says, read the other way round."""
    return (Z + POWER_Z) * sqrt(disagree / (questions + (Z + POWER_Z) ** 2))


class Verdict(NamedTuple):
    """The word for a claim, and what it rests on, in the unit of the measure."""

    word: str  # one of VERDICTS
    effects: tuple[float, ...]  # second arm minus first arm, for each seed
    mean: float  # of the effects
    floor: float  # the noise floor: what seeds alone do to one arm


def judge_claim(first: Sequence[float], second: Sequence[float], *, claim: str) -> Verdict:
    """Whether runs bear out that the second arm is "higher" or "lower" than the first.

    first, second: the primary measure of each arm, one number a seed, seeds in the same order. The
    noise floor is the spread over the seeds (highest minus lowest) of the noisier arm: an arm
    compared with itself shows as much. "held": in every seed the effect has the claimed sign, and
    its mean is above twice the floor. "did not hold": the same with the opposite sign. Otherwise
    "not shown". Raises ValueError for fewer than three seeds, which can agree by luck.
    """
    if claim not in ("higher", "lower"):
        raise ValueError(f"claim is {claim!r}: say whether the second arm is 'higher' or 'lower'")
    if len(first) != len(second) or len(first) < FEWEST_SEEDS:
        raise ValueError(
            f"{len(first)} and {len(second)} seeds: each arm needs the same seeds, at least "
            f"{FEWEST_SEEDS}; fewer agree by luck"
        )
    arms = np.array([first, second], dtype=float)
    if not np.isfinite(arms).all():
        raise ValueError(f"not every measure is a number: {arms.tolist()}; did a run diverge?")
    effects = arms[1] - arms[0]
    mean, floor = float(effects.mean()), float(np.ptp(arms, axis=1).max())
    claimed = effects if claim == "higher" else -effects
    word = "not shown"
    if abs(mean) > FLOORS * floor:
        if (claimed > 0).all():
            word = "held"
        elif (claimed < 0).all():
            word = "did not hold"
    return Verdict(word, tuple(effects.tolist()), mean, floor)
