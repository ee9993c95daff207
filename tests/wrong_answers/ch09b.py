"""Wrong answers to the exercises of chapter 09b, each with what its reader is told."""

from functools import partial
from math import comb

import numpy as np

from sft_lab.significance import judge_claim, mcnemar_p_value, paired_bootstrap


# 9b.1
def _tail(gained, lost):
    return sum(comb(gained + lost, k) for k in range(min(gained, lost) + 1))


def _one_sided(gained, lost):
    changed = gained + lost
    return min(1.0, 2 * sum(comb(changed, k) for k in range(lost + 1)) / 2**changed)


def _small_powers(gained, lost):
    changed = gained + lost
    return min(1.0, 2 * _tail(gained, lost) * 0.5**changed) if changed < 1000 else 0.0


# 9b.3
def _bootstrap(
    *exam, by_question=False, paired=True, replace=True, means=False, levels=(2.5, 97.5), scale=100
):
    before, after, entity, resamples, seed = exam
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(entity == name) for name in np.unique(entity)]
    if by_question:
        groups = list(np.arange(len(entity))[:, None])
    counts = np.array([len(group) for group in groups])
    before, after = (np.array([x[group].sum() for group in groups]) for x in (before, after))

    def score(sums, drawn):
        if means:
            return (sums[drawn] / counts[drawn]).mean()
        return sums[drawn].sum() / counts[drawn].sum()

    found = []
    for _ in range(resamples):
        first = rng.choice(len(groups), len(groups), replace=replace)
        second = first if paired else rng.choice(len(groups), len(groups), replace=replace)
        found.append(score(after, first) - score(before, second))
    return tuple(float(x) for x in scale * np.percentile(found, levels))


# 9b.2
def _name(difference, decided):
    return "not shown" if not decided else "second" if difference > 0 else "first"


def _points(limit):
    def rule(first, second):
        difference = second.mean() - first.mean()
        return _name(difference, abs(difference) > limit)

    return rule


def _coins(first, second):
    gained, lost = int((~first & second).sum()), int((first & ~second).sum())
    return _name(gained - lost, mcnemar_p_value(gained, lost) < 0.05)


def _one_seed(first, second):
    return _coins(first[0], second[0])


def _questions_only(first, second):
    low, high = paired_bootstrap(first.ravel(), second.ravel(), resamples=300)[2]
    return _name(low + high, low > 0 or high < 0)


def _strict(first, second):
    scores = first.mean(axis=1), second.mean(axis=1)
    word = judge_claim(*scores, claim="higher").word
    return {"held": "second", "did not hold": "first"}.get(word, word)


def _by_seeds(first, second, factor=2.36):
    gaps = second.mean(axis=1) - first.mean(axis=1)
    return _name(gaps.mean(), abs(gaps.mean()) > factor * gaps.std(ddof=1) / len(gaps) ** 0.5)


def _scatter_of_one_run(first, second):
    return _by_seeds(first, second, factor=2.36 * 8**0.5)


def _exchanged(first, second):
    return _by_seeds(second, first)


def _never_undecided(first, second):
    return _name(second.mean() - first.mean(), decided=True)


def _nan_decides(first, second):
    gaps = second.mean(axis=1) - first.mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = gaps.mean() / (gaps.std(ddof=1) / len(gaps) ** 0.5)
    return "not shown" if abs(t) <= 2.36 else "second" if t > 0 else "first"


WRONG_ANSWERS = {
    "9b.1": [
        (lambda g, n: _tail(g, n) / 2 ** (g + n), "one tail only"),
        (lambda g, n: comb(g + n, n) / 2 ** (g + n), "exactly this split"),
        (lambda g, n: 1 - 2 * _tail(g, n) / 2 ** (g + n), "one minus p"),
        (lambda g, n: 2 * _tail(g, n) / 2 ** (g + n), "cap the sum at 1"),
        (_one_sided, "gained and lost change places"),
        (_small_powers, "keep whole numbers"),
        (lambda g, n: min(1.0, 2 * _tail(g, n) / 2.0 ** (g + n)), "overflow a float"),
        (lambda g, n: 2 * (_tail(g, n) - comb(g + n, n)) / 2 ** (g + n), "the split itself"),
    ],
    "9b.3": [
        (partial(_bootstrap, by_question=True), "you resampled questions"),
        (partial(_bootstrap, paired=False), "one draw of entities serves both models"),
        (partial(_bootstrap, replace=False), "WITH replacement"),
        (partial(_bootstrap, means=True), "every question counts the same"),
        (partial(_bootstrap, levels=(5, 95)), "a 90 % interval"),
        (lambda b, a, *x: _bootstrap(a, b, *x), "the sign is reversed"),
        (partial(_bootstrap, scale=1), "in fractions"),
        (lambda b, a, e, r, s: _bootstrap(b, a, e, r, 0), "the seed is not used"),
        (lambda b, a, e, r, s: _bootstrap(b, a, e, r, None), "with the same seed"),
        (lambda b, a, *x: float(100 * (a - b).mean()), "return two things, low and high"),
    ],
    "9b.2": [
        (_coins, "not from the questions"),
        (_one_seed, "false alarms where seeds scatter"),
        (_questions_only, "take the error from the scores of the runs"),
        (_points(0.05), "from a fixed number of points"),
        (_points(0.3), "the rule is too strict"),
        (_strict, "the rule is too strict"),
        (_scatter_of_one_run, "scatters less than a single run does"),
        (_exchanged, "are the two words exchanged"),
        (_never_undecided, "equal in every entry"),
        (_nan_decides, "equal in every entry"),
        (lambda first, second: "not shown", "the rule is too strict"),
        (lambda first, second: second.mean() > first.mean(), 'return one of "first"'),
    ],
}
