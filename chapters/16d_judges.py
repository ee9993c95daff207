# %% [markdown]
# # 16d · Can you trust the judge?
#
# **The question.** A model, a program or a person reads two answers and says which is better. How
# do you find out what this judge really rewards?
#
# **By the end you can**
# - *audit* a judge that you cannot look into: find the bias among five, and know how often you err;
# - *measure* agreement beyond chance, and *repair* what can be repaired;
# - *run* a blind test with your own votes, and compare them with those of programs.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 09 and 14 | CPU, no network | about 40 s | 6, about 60 minutes | D12 D13 L29 |

# %% tags=["setup"]
from collections.abc import Callable

import numpy as np

from sft_lab import plots
from sft_lab.course.checks import check
from sft_lab.course.judge_runs import (
    audit,
    draw_pairs,
    everyday_pairs,
    jury_votes,
    lean_to_first,
    share_same,
)
from sft_lab.judges import BIASES, Judge, cohen_kappa, majority, make_judge, merit, swap

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.1 · The swap test · 8 min · ●●○
# `judge(question, first, second, seed)` returns `"first"`, `"second"` or `"tie"`. `pairs` is a list
# of `(question, a, b)`, at least one. Ask about every pair in both orders, a first and b first, each
# time with seed 0. Return two numbers, `(consistent, lean)`:
#
# - `consistent`: the share of pairs with one outcome in both orders. The same *answer* wins twice,
#   or both calls are ties. A win and a tie are two outcomes.
# - `lean`: the mean over all calls of +1 for `"first"`, −1 for `"second"` and 0 for `"tie"`.
#
# Two pairs: the judge says `"first"` in both orders of one pair. For the other it says `"second"`
# with a first, and `"first"` with b first. The result is `(0.5, 0.5)`.


# %% tags=["stub"]
def swap_test(judge: Judge, pairs: list[tuple[str, str, str]]) -> tuple[float, float]:
    """Share of pairs with one outcome in both orders, and the lean to the first place."""
    raise NotImplementedError


# %% tags=["solution"]
def swap_test(judge: Judge, pairs: list[tuple[str, str, str]]) -> tuple[float, float]:
    """Share of pairs with one outcome in both orders, and the lean to the first place."""
    points = {"first": 1, "second": -1, "tie": 0}
    consistent = lean = 0
    for question, a, b in pairs:
        one, other = judge(question, a, b, 0), judge(question, b, a, 0)
        consistent += one == swap(other)
        lean += points[one] + points[other]
    return consistent / len(pairs), lean / (2 * len(pairs))


# %% tags=["check"]
check("16d.1", swap_test)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>When a wins with a first, the word is "first". Which word says the
# same with b first? <code>swap</code> from the set-up translates.</details>

# %% [markdown] tags=["explanation"]
# `consistent` follows the answers, `lean` follows the places. A judge that knows nothing and always
# says "tie" is fully consistent, so consistency alone proves nothing.
#
# Usual mistakes: comparing the words without translating; a lean from one order, in which the better
# answer may stand first more often.

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.2 · Name the bias of an unknown judge · 18 min · ●●●
# `judge(question, first, second, seed)` is one of six kinds, and you cannot look into it. Return
# its bias: `"position"` (to the first *or* the second place), `"length"`, `"repetition"`,
# `"self-preference"`, `"noise"`, or `"honest"` for none.
#
# `draw_pairs(kind, count, seed=…)` makes pairs `(question, plain, treated)` for each of the five
# biases. You may ask one judge 3,000 questions at most; 40 pairs a kind are enough. What you may
# rely on: averaged over 40 pairs in both orders, a bias leans by more than 0.5 (on a scale from −1
# to 1) in its own probe, and nothing else leans by more than 0.35. Asked the same close call (a
# `"noise"` pair, in one order) again with another seed, the noisy judge changes its verdict in more
# than 30 % of the calls, an honest judge in less than 25 %. A judge with a preference may change
# often, too.
#
# The check draws 24 new judges, four of each kind. At least 23 must be named rightly.


# %% tags=["stub"]
def name_the_bias(judge: Judge) -> str:
    """The bias of an unknown judge, or "honest"."""
    raise NotImplementedError


# %% tags=["solution"]
def name_the_bias(judge: Judge) -> str:
    """The bias of an unknown judge, or "honest"."""
    points = {"first": 1, "second": -1, "tie": 0}
    leans = {}
    for kind in BIASES[:-1]:
        total = 0
        for question, plain, treated in draw_pairs(kind, 40, seed=1):
            one = points[judge(question, treated, plain, 0)]
            other = points[judge(question, plain, treated, 0)]
            total += one + other if kind == "position" else one - other
        leans[kind] = abs(total) / 80
    largest = max(leans, key=leans.get)
    if leans[largest] > 0.42:
        return largest
    close = draw_pairs("noise", 80, seed=2)
    changed = [judge(*call, 0) != judge(*call, 1) for call in close]
    return "noise" if np.mean(changed) > 0.27 else "honest"


# %% tags=["check"]
check("16d.2", name_the_bias)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Four biases show as a lean: to a place, or to the treated answer,
# in both orders. Name the largest lean first. Only when there is none, ask for
# noise.</details>

# %% [markdown] tags=["explanation"]
# The order of the questions to the judge matters less than the order of the conclusions. A lean is
# the more specific finding: it makes close calls unsteady, so a biased judge looks noisy as well.
#
# Usual mistakes: one order only, where a love for the first place looks like a love for the
# treatment; a lean to the second place overlooked; noise concluded first.

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.3 · Agreement beyond chance · 8 min · ●●○
# `first` and `second` are the words that two raters gave to the same items: two lists of equal
# length, at least one item, with any words. Return Cohen's kappa,
#
# $$\kappa = \frac{p_o - p_e}{1 - p_e}$$
#
# $p_o$ is the share of items with the same word. $p_e$ is the share that chance gives: for each
# word, the share of items that the first rater gives it times the share that the second gives it,
# added up. Return `None` where $p_e$ is 1: both raters always use one and the same word.
#
# `["A", "A", "tie", "B"]` and `["A", "tie", "tie", "B"]` agree in 3 of 4 items; $p_e$ is 5/16, and
# κ is 7/11.


# %% tags=["stub"]
def kappa(first: list[str], second: list[str]) -> float | None:
    """Cohen's kappa of two raters, or None where chance explains everything."""
    raise NotImplementedError


# %% tags=["solution"]
def kappa(first: list[str], second: list[str]) -> float | None:
    """Cohen's kappa of two raters, or None where chance explains everything."""
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    expected = sum(first.count(word) * second.count(word) for word in set(first)) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


# %% tags=["check"]
check("16d.3", kappa)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>first.count(word) / len(first)</code> is one of the two
# shares. A word that only one rater uses adds 0.</details>

# %% [markdown] tags=["explanation"]
# 1 is full agreement, 0 what chance gives, below 0 is less than chance.
#
# Usual mistakes: 1/3 as chance for three words; shares taken from both raters together; a value cut
# off at 0.

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.4 · Choose a jury · 10 min · ●●○
# Seven judges have voted on practice pairs, and the truth is known: `votes[name]` is a list of
# verdicts, `truth` the right ones. Choose three names for a jury. Its verdict is the `majority`: what
# two of the three say, else a tie, which counts as wrong. On 5,000 new pairs the jury must be right
# in at least 84 %. No single judge reaches that.

# %% tags=["stub"]
jury = ...

# %% tags=["solution"]
jury = ("Ada", "Dee", "Fay")

# %% tags=["check"]
check("16d.4", jury)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>For a choice of three, <code>zip(votes["Ada"], …)</code> gives the
# ballots of one pair after the other. There are 35 choices; a loop tries them all.</details>

# %% [markdown] tags=["explanation"]
# Ada, Ben and Cho are the best three or nearly so. They share one bias, so they fail together, and
# their majority is no better than one of them. Three judges with three different biases correct each
# other.
#
# Usual mistakes: choosing by the members' own accuracy; two members that err alike.

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.5 · Ask in both orders · 6 min · ●●○
# Write the repair. `both_orders(judge)` returns a new judge, a function of `(question, first,
# second, seed)`. It asks the old one in both orders, with the same question and seed. An answer wins
# if *it* wins in both orders. Everything else, such as a win and a tie, is a tie. The verdict is about
# the order in which the new judge was asked.
#
# If the old judge says `"first"` in both orders, the new one says `"tie"`. If it says `"second"` in
# the given order and `"first"` in the other, the new one says `"second"`.


# %% tags=["stub"]
def both_orders(judge: Judge) -> Judge:
    """The same judge, asked in both orders."""
    raise NotImplementedError


# %% tags=["solution"]
def both_orders(judge: Judge) -> Judge:
    """The same judge, asked in both orders."""

    def careful(question: str, first: str, second: str, seed: int = 0) -> str:
        one = judge(question, first, second, seed)
        other = judge(question, second, first, seed)
        return one if one == swap(other) else "tie"

    return careful


# %% tags=["check"]
check("16d.5", both_orders)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Define a function inside the function, and return it. Translate the
# second verdict with <code>swap</code> before you compare.</details>

# %% [markdown] tags=["explanation"]
# The new judge cannot lean to a place: exchange the answers, and its verdict is exchanged. Its price
# is twice the calls, and more ties.
#
# Usual mistakes: the words compared untranslated; the verdict of the swapped call returned.

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.6 · Take length out · 10 min · ●●○
# Two models, A and B, were compared on some questions. `wins[i]` is 1.0 where B won, 0.5 for a tie,
# 0.0 where A won. `extra[i]` says how many words B's answer had more than A's; it is negative where
# B's was shorter, and not all are equal. Fit the line win = start + slope · extra by least squares
# and return `start`: B's share where both answers have equal length. It may lie outside 0 to 1;
# leave it as it is.
#
# With wins `[1.0, 1.0, 0.0, 0.5]` and extra `[20, 10, -10, 0]` the slope is 0.035 and the result
# 0.45. B's plain share is 0.625.


# %% tags=["stub"]
def share_at_equal_length(wins: list[float], extra: list[int]) -> float:
    """B's share of the wins, read from a line where both answers are equally long."""
    raise NotImplementedError


# %% tags=["solution"]
def share_at_equal_length(wins: list[float], extra: list[int]) -> float:
    """B's share of the wins, read from a line where both answers are equally long."""
    slope, start = np.polyfit(extra, wins, 1)
    return float(start)


# %% tags=["check"]
check("16d.6", share_at_equal_length)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>slope = Σ(x − mean x)(y − mean y) / Σ(x − mean x)², and the line
# goes through both means. Or <code>np.polyfit</code>.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: returning the slope; lengths without their sign; only the pairs of equal length,
# which are few.
