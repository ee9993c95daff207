"""What chance can do: the tests agree with counting by hand, with scipy's numbers, and a verdict
follows its rule."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from sft_lab.significance import judge_claim, mcnemar_p_value, paired_bootstrap


@pytest.mark.parametrize("changed", range(9))
def test_mcnemars_test_counts_every_sequence_of_coins(changed):
    sequences = [sum(coins) for coins in product((0, 1), repeat=changed)]
    for improved in range(changed + 1):
        far = abs(2 * improved - changed)
        as_far = sum(abs(2 * heads - changed) >= far for heads in sequences)
        expected = float(Fraction(as_far, 2**changed))
        assert mcnemar_p_value(improved, changed - improved) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("improved", "lost", "p"),  # scipy 1.17.1: stats.binomtest(improved, improved + lost).pvalue
    [(9, 1, 0.021484375), (30, 14, 0.022628841), (2, 9, 0.0654296875), (5, 5, 1.0)],
)
def test_mcnemars_test_agrees_with_scipy(improved, lost, p):
    assert mcnemar_p_value(improved, lost) == pytest.approx(p, rel=1e-6)


def test_thousands_of_changed_answers_do_not_overflow():
    assert mcnemar_p_value(3000, 2000) < 1e-40 and mcnemar_p_value(2500, 2500) == 1.0


def test_no_change_proves_nothing_and_negative_counts_are_refused():
    assert mcnemar_p_value(0, 0) == 1.0
    with pytest.raises(ValueError, match="cannot be negative"):
        mcnemar_p_value(-1, 3)


# Questions of the four kinds: wrong or right before, wrong or right after.
KINDS = [[16, 163, 4, 17], [52, 60, 47, 41], [31, 7, 9, 3]]
# 95 % intervals of scipy 1.17.1: stats.bootstrap(paired=True, method="percentile",
# n_resamples=100_000)
SCIPY = [
    [(0.065, 0.15), (0.855, 0.94), (0.73, 0.855)],
    [(0.37, 0.51), (0.435, 0.575), (-0.035, 0.165)],
    [(0.12, 0.36), (0.1, 0.32), (-0.2, 0.12)],
]


def outcomes(kinds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    before = np.repeat([False, False, True, True], kinds)
    return before, np.repeat([False, True, False, True], kinds)


@pytest.mark.parametrize(("kinds", "expected"), list(zip(KINDS, SCIPY, strict=True)))
def test_intervals_agree_with_scipy(kinds, expected):
    one_question = 1 / sum(kinds)
    intervals = paired_bootstrap(*outcomes(kinds), seed=1, resamples=50_000)
    for ours, scipys in zip(intervals, expected, strict=True):
        assert ours == pytest.approx(scipys, abs=1.01 * one_question)


@pytest.mark.parametrize("kinds", KINDS)
def test_intervals_are_those_of_drawing_questions_one_by_one(kinds):
    before, after = outcomes(kinds)
    questions, rng = len(before), np.random.default_rng(5)
    resampled = []
    for _ in range(10_000):
        drawn = rng.integers(questions, size=questions)  # with replacement, both answers together
        base, tuned = before[drawn].mean(), after[drawn].mean()
        resampled.append((base, tuned, tuned - base))
    expected = np.percentile(resampled, [2.5, 97.5], axis=0).T
    ours = paired_bootstrap(before, after, seed=1, resamples=10_000)
    # Both are random: an end of an interval may differ by a question or two.
    np.testing.assert_allclose(ours, expected, atol=2.01 / questions)


def test_a_seed_gives_one_interval_and_other_seeds_nearly_the_same():
    before, after = outcomes([52, 60, 47, 41])
    first, again, other = (paired_bootstrap(before, after, seed=seed) for seed in (0, 0, 1))
    assert first == again
    np.testing.assert_allclose(first, other, atol=0.02)


def test_pairing_narrows_the_difference_when_questions_are_hard_for_both():
    right = np.arange(200) % 2 == 0
    _, _, paired = paired_bootstrap(right, right)
    _, _, crossed = paired_bootstrap(right, ~right)
    assert paired == (0.0, 0.0) and crossed[1] - crossed[0] > 0.2


@pytest.mark.parametrize(("before", "after"), [([], []), ([True], [True, False])])
def test_outcomes_that_do_not_pair_up_are_refused(before, after):
    with pytest.raises(ValueError, match="one outcome a question"):
        paired_bootstrap(before, after)


# first arm, second arm, whether the second is claimed to be higher or lower, the word
CLAIMS = [
    ([0.50, 0.52, 0.51], [0.60, 0.61, 0.62], "higher", "held"),
    ([0.50, 0.52, 0.51], [0.60, 0.61, 0.62], "lower", "did not hold"),
    ([0.60, 0.61, 0.62], [0.50, 0.52, 0.51], "lower", "held"),
    ([0.50, 0.52, 0.51], [0.53, 0.54, 0.55], "higher", "not shown"),  # 0.03 against 2 · 0.02
    ([0.50, 0.60, 0.55], [0.90, 0.59, 0.90], "higher", "not shown"),  # one seed goes the other way
    ([0.50, 0.50, 0.50], [0.60, 0.90, 0.75], "higher", "not shown"),  # the second arm is as noisy
    ([0.50, 0.50, 0.50], [0.50, 0.50, 0.50], "higher", "not shown"),  # nothing happened
    ([0.50, 0.51, 0.50, 0.51], [0.54, 0.55, 0.54, 0.55], "higher", "held"),
]


@pytest.mark.parametrize(("first", "second", "claim", "word"), CLAIMS)
def test_a_verdict_needs_one_sign_in_every_seed_and_an_effect_above_twice_the_floor(
    first, second, claim, word
):
    verdict = judge_claim(first, second, claim=claim)
    assert verdict.word == word
    assert verdict.effects == pytest.approx([b - a for a, b in zip(first, second, strict=True)])
    assert verdict.mean == pytest.approx(sum(verdict.effects) / len(first))
    spreads = [max(arm) - min(arm) for arm in (first, second)]
    assert verdict.floor == pytest.approx(max(spreads))


def test_swapping_the_arms_and_the_claim_changes_no_word():
    for first, second, claim, word in CLAIMS:
        other = {"higher": "lower", "lower": "higher"}[claim]
        assert judge_claim(second, first, claim=other).word == word


def test_two_arms_that_differ_by_seeds_alone_seldom_hold():
    rng, words = np.random.default_rng(0), []
    for _ in range(2000):
        words.append(judge_claim(*rng.normal(size=(2, 3)), claim="higher").word)
    assert words.count("held") < 0.02 * len(words)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0.1, 0.2], [0.3, 0.4], "2 and 2 seeds.*at least 3"),
        ([0.1, 0.2, 0.3], [0.3, 0.4], "3 and 2 seeds"),
        ([0.1, 0.2, 0.3], [0.3, 0.4, float("nan")], "did a run diverge"),
    ],
)
def test_a_verdict_on_too_few_seeds_or_no_numbers_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        judge_claim(first, second, claim="higher")


def test_a_claim_needs_a_direction():
    with pytest.raises(ValueError, match="claim is 'better'"):
        judge_claim([1, 2, 3], [1, 2, 3], claim="better")
