# %% [markdown]
# # 17b · Shown or graded
#
# **The question.** A model can be shown right answers, or it can be told which of its own answers
# are right. What does each way teach, what does it cost, and what does each way break?
#
# **By the end you can**
# - *compare* imitation and rewards on one task with one budget, and at equal accuracy;
# - *write* a reward without a hole, and *tell* from a log when the policy has found one;
# - *choose* rates at which a method works, and *say* what the choice rests on.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 09, 13 and 17 | CPU, no network | about 40 s | 5, about 47 minutes | B4, A10 |

# %% tags=["setup"]
import itertools
import re
from collections import Counter

import torch
import torch.nn.functional as F

from sft_lab.course.checks import check

# %% [markdown] tags=["exercise"]
# ### Exercise 17b.1 · Forgotten at equal accuracy · 10 min · ●●○
# A run that has learned more has usually forgotten more. So we compare runs where they are equally
# good. Checkpoints are given in the order of training; the first one is the start. Find where the
# accuracy reaches `level` *for the first time*, on the straight lines between checkpoints. An
# accuracy equal to the level has reached it. Return the loss of the old tasks there, minus the
# start's. If the start has reached the level, that is 0.0; if the run never does, return None.
#
# For accuracies 0.4, 0.6, 0.8, losses 0.10, 0.12, 0.20 and the level 0.7: half of the way from 0.12
# to 0.20 is 0.16, so the answer is 0.06.


# %% tags=["stub"]
def forgotten_at(accuracy: list[float], old_loss: list[float], level: float) -> float | None:
    """Return the added loss. accuracy, old_loss: one number a checkpoint, at least two."""
    raise NotImplementedError


# %% tags=["solution"]
def forgotten_at(accuracy: list[float], old_loss: list[float], level: float) -> float | None:
    """Return the added loss. accuracy, old_loss: one number a checkpoint, at least two."""
    if accuracy[0] >= level:
        return 0.0
    steps = zip(itertools.pairwise(accuracy), itertools.pairwise(old_loss), strict=True)
    for (before, after), (low, high) in steps:
        if after >= level:
            way = (level - before) / (after - before)
            return low + way * (high - low) - old_loss[0]
    return None


# %% tags=["check"]
check("17b.1", forgotten_at)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Walk over pairs of neighbours (<code>itertools.pairwise</code>).
# The first pair that ends at or above the level holds the crossing.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: `np.interp`, which needs an accuracy that never falls; the last crossing instead
# of the first; the next checkpoint instead of the line; a value for a run that never gets there.

# %% [markdown] tags=["exercise"]
# ### Exercise 17b.2 · A reward without the hole · 12 min · ●●○
# Write a reward for sums that accepts any words and pays no cheat. It gets the question, such as
# "What is 3 + 4?", the answer, and whether the model ended its answer by itself. Pay 1.0 if all of
# these hold, otherwise 0.0:
#
# - the answer ended by itself;
# - its last number is the sum of the two numbers of the question;
# - behind that number stand at most blanks and full stops;
# - every number before it is one of the question's, at most as often as the question names it.
#
# A number is an unbroken run of the digits 0 to 9 (no leading zeros occur). "The sum of 3 and 4 is
# 7." and "7" earn 1.0; "6 7", "17.", "3 and 3 and 4 make 7." and "It is 7. is the main" earn 0.0.


# %% tags=["stub"]
def grade(question: str, text: str, stopped: bool) -> float:
    """Return 1.0 or 0.0. text: the answer; stopped: whether it ended by itself."""
    raise NotImplementedError


# %% tags=["solution"]
def grade(question: str, text: str, stopped: bool) -> float:
    """Return 1.0 or 0.0. text: the answer; stopped: whether it ended by itself."""
    asked, said = re.findall(r"\d+", question), re.findall(r"\d+", text)
    if not stopped or not said or int(said[-1]) != sum(map(int, asked)):
        return 0.0
    behind = text[text.rindex(said[-1]) + len(said[-1]) :]
    guesses = Counter(said[:-1]) - Counter(asked)
    return float(not behind.strip(" .") and not guesses)


# %% tags=["check"]
check("17b.2", grade)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Compare numbers as numbers, never as parts of a text: "17"
# contains "7". <code>Counter(a) - Counter(b)</code> is what <code>a</code> has too much.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: `in`, which pays a list of guesses; no word about the end, which pays an answer
# that never stops; exact match with one sentence, which refuses right answers in other words.

# %% [markdown] tags=["exercise"]
# ### Exercise 17b.3 · Read the log · 12 min · ●●○
# A run left a row for each step, at least ten: a dict with `reward` (the mean of the step's
# answers), `right` (the share that is truly right), and `no_spread` (the share of groups in which
# all answers earned the same), each from 0 to 1. "First" is the mean of the first five rows, "last"
# of the last five. Return the first word that fits:
#
# 1. "cold start": the reward is 0 in every row;
# 2. "broken": the last reward is below half of the highest reward of any row;
# 3. "hacked": the last reward is at least 0.1 above the first, and the last `right` at least 0.1
#    below the first;
# 4. "finished": the last `no_spread` is at least 0.9;
# 5. "learning".
#
# A run whose reward goes from 0.4 to 0.9, whose `right` goes from 0.6 to 0.2, and whose groups all
# agree at the end is "hacked". (No value in the check stands on a limit.)


# %% tags=["stub"]
def diagnose(rows: list[dict[str, float]]) -> str:
    """Return one of the five words."""
    raise NotImplementedError


# %% tags=["solution"]
def diagnose(rows: list[dict[str, float]]) -> str:
    """Return one of the five words."""

    def mean(some: list[dict[str, float]], name: str) -> float:
        return sum(row[name] for row in some) / len(some)

    first, last = rows[:5], rows[-5:]
    highest = max(row["reward"] for row in rows)
    if highest == 0:
        return "cold start"
    if mean(last, "reward") < highest / 2:
        return "broken"
    rise = mean(last, "reward") - mean(first, "reward")
    if rise >= 0.1 and mean(last, "right") - mean(first, "right") <= -0.1:
        return "hacked"
    return "finished" if mean(last, "no_spread") >= 0.9 else "learning"


# %% tags=["check"]
check("17b.3", diagnose)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Four of the five words can come with groups that all agree. That
# is why the order matters.</details>

# %% [markdown] tags=["explanation"]
# The cure differs: lessons before the rewards, a lower rate, another reward, harder questions.
#
# Usual mistakes: one row instead of five; `no_spread` looked at first.

# %% [markdown] tags=["exercise"]
# ### Exercise 17b.4 · Which rates work · 8 min · ●●○
# Rows of a sweep are dicts with `rate`, `seed` and `right`, in any order; every rate has the same
# seeds. A rate's score is the mean of `right` over its seeds. The best rate has the highest score
# (the lowest rate of several). A rate works if its score is at least `share` times the best score.
# Return the lowest and the highest rate of the range around the best rate, going from rate to
# neighbouring rate until the first that does not work.
#
# Scores 0.75, 0.5, 0.8, 0.76, 0.1 at the rates 1, 2, 3, 4, 5 and a share of 0.9: the bar is 0.72,
# and the answer is (3, 4), because rate 2 lies between.


# %% tags=["stub"]
def working_range(rows: list[dict[str, float]], share: float = 0.9) -> tuple[float, float]:
    """Return (lowest, highest) of the rates that work."""
    raise NotImplementedError


# %% tags=["solution"]
def working_range(rows: list[dict[str, float]], share: float = 0.9) -> tuple[float, float]:
    """Return (lowest, highest) of the rates that work."""
    by_rate: dict[float, list[float]] = {}
    for row in sorted(rows, key=lambda row: row["rate"]):
        by_rate.setdefault(row["rate"], []).append(row["right"])
    rates = list(by_rate)
    scores = [sum(found) / len(found) for found in by_rate.values()]
    low = high = scores.index(max(scores))
    least = share * max(scores)
    while low > 0 and scores[low - 1] >= least:
        low -= 1
    while high + 1 < len(rates) and scores[high + 1] >= least:
        high += 1
    return rates[low], rates[high]


# %% tags=["check"]
check("17b.4", working_range)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Sort the rates, find the place of the best, and walk from there in
# both directions.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: the best run of a rate instead of its mean; a range with a gap in it.

# %% [markdown] tags=["exercise"]
# ### Exercise 17b.5 · Two answers, one preference · 5 min · ●○○
# Bradley and Terry (1952) turn two scores into a probability: the chosen answer wins with
# σ(chosen − rejected), where σ(x) = 1 / (1 + exp(−x)). Write the loss that a reward is learned
# with: minus the natural logarithm of that probability, the mean over the pairs. It must be finite
# for scores that lie 1,000 apart, and gradients must flow through it. For the scores 2 and 1 it is
# 0.3133; for equal scores 0.6931.


# %% tags=["stub"]
def preference_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Return the mean loss, a tensor without dimensions. chosen, rejected: scores, (N,)."""
    raise NotImplementedError


# %% tags=["solution"]
def preference_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Return the mean loss, a tensor without dimensions. chosen, rejected: scores, (N,)."""
    return -F.logsigmoid(chosen - rejected).mean()


# %% tags=["check"]
check("17b.5", preference_loss)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>torch has the logarithm of the sigmoid in one function, which does
# not round to log(0).</details>

# %% [markdown] tags=["explanation"]
# Only differences count: a reward that is 5 higher for every answer has the same loss.
#
# Usual mistakes: the sigmoid without the logarithm; `log(sigmoid(x))`, which is −inf for −1,000.
