# %% [markdown]
# # 17b · Shown or graded
#
# **The question.** A model can be shown right answers, or it can be told which of its own answers
# are right. What does each way teach, what does it cost, and how does each way break?
#
# **By the end you can**
# - *compare* imitation and rewards on one task with one budget, and at equal accuracy;
# - *write* a reward without a hole, and *tell* from a log when a policy has found one;
# - *choose* rates at which a method works, and *say* what the choice rests on.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 09, 13 and 17 | CPU, no network | about 40 s | 5, about 47 minutes | B4, A10 L31 |

# %% tags=["setup"]
import itertools
import re
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F

# %% tags=["setup"]
from sft_lab import plots
from sft_lab.course import reward_runs
from sft_lab.course.checks import check
from sft_lab.course.results import read_results
from sft_lab.course.reward_runs import (
    ARMS,
    add_words,
    draw_pairs,
    draw_ways,
    fit_scores,
    glance,
    run_arm,
    start_model,
    sums_of,
)
from sft_lab.models import load
from sft_lab.rollouts import sample_groups
from sft_lab.significance import judge_claim

# %% tags=["setup"]
plots.style()
base, tokenizer = load("atlas-base")
arms = read_results("17b_arms", base)
beyond = read_results("17b_beyond", base)
sweep = read_results("17b_rates", base)

# %% [markdown]
# ## 1 · One task, one start, one budget
#
# A text that this course grew from sets SFT beside RL (reinforcement learning). SFT learns from
# static labels, RL from *feedback*. RL is *flexible*: it finds better answers outside the data. SFT
# is *stable*, RL diverges easily. We test each line.

# %%
_ = draw_ways()

# %% [markdown]
# The task is to add two numbers from 0 to 20. The **start** is the base after three seconds of SFT:
# facts, lists, facts as JSON, and 24 sums. The exam asks 140 other sums; 240 more are for practice.

# %%
start = start_model(base, tokenizer)
print({name: round(value, 2) for name, value in glance(start, start, tokenizer).items()})
drawn = sample_groups(start, tokenizer, [sums_of("practice")[0][:-1]], 8, seed=1)
print(sums_of("practice")[0][0]["content"], *drawn.texts, sep="\n  ")

# %% [markdown]
# Five arms, with the same budget: 30 updates from 64 answers each, the optimiser and the rate
# (2e-4, all weights) the same. The three arms with rewards draw 8 answers to each of 8 questions a
# step; an answer earns 1 if it is the right sentence and ended, otherwise 0. *Own right* draws the
# same 1,920 answers from the start at once, keeps one right answer a question, and imitates those
# (rejection sampling, chapter 11). Five seeds, which differ in the order of questions and in the
# draws, were recorded (`tools/experiments/17b_arms.py`).
#
# > **Claim.** GRPO answers more of the exam than the start. And more than SFT on the start's own
# > right answers, because it goes on drawing.
#
# **Predict** the order of the five arms.

# %% tags=["predict"]
before = arms.rows[0]["path"][0]["right"]
right = {arm: arms.measured("right", arm=arm) for arm in ARMS}
for arm in ARMS:
    cost = [np.mean(arms.measured(m, arm=arm)) for m in ("drawn", "graded", "seconds")]
    print(f"{arm:10} drawn {cost[0]:5.0f}  tokens graded {cost[1]:6.0f}  {cost[2]:4.1f} s of CPU")

# %% tags=["predict", "folded"]
ax = plots.bars_with_spread(
    {"start": [before], **right},
    title="Gold answers win where there are any",
    ylabel="sums of the exam right",
    percent=True,
)

# %% tags=["predict"]
for other in ("start", "own right", "reinforce", "ppo", "gold"):
    theirs = [before] * 5 if other == "start" else right[other]
    verdict = judge_claim(theirs, right["grpo"], claim="higher")
    print(
        f"GRPO higher than {other:10} {verdict.mean:+.2f}, floor {verdict.floor:.2f}: "
        f"{verdict.word}"
    )
assert judge_claim([before] * 5, right["grpo"], claim="higher").word == "held"
assert judge_claim(right["own right"], right["grpo"], claim="higher").word == "did not hold"

# %% [markdown]
# **Read.** The first half *held*: a model that saw no new answer went from under a half to more
# than three quarters. The second half *did not hold*: imitating its own right answers taught more.
# Gold answers teach most, at a third of the time: they also cover the questions that the start
# never gets right. The three ways with rewards do not differ beyond the noise. Their baselines are
# a batch's mean, a group's mean and a value head; the method is one (chapter 17).
#
# One recorded run again:

# %%
again = run_arm(base, tokenizer, arm="grpo", seed=0, path=False)
print(f"GRPO, seed 0: {again['right']:.2f} right; recorded", np.round(right["grpo"], 2))
assert min(right["grpo"]) - 0.12 < again["right"] < max(right["grpo"]) + 0.12

# %% [markdown]
# ## 2 · At equal accuracy
#
# Gold answers taught more, so they may also have changed more. We read all runs where they are
# *equally good*, with two meters of chapter 13: the loss on right answers of an old exam (60 facts,
# 30 lists, 30 JSON), and the forward KL, KL(start ‖ tuned), on answers that the start gave to the
# new questions.

# %% [markdown] tags=["exercise"]
# ### Exercise 17b.1 · Forgotten at equal accuracy · 10 min · ●●○
# Checkpoints are given in the order of training; the first one is the start. Find where the
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
# Usual mistakes: `np.interp`, which needs an accuracy that never falls; the last crossing; the next
# checkpoint instead of the line.

# %% [markdown]
# *RL's Razor* (2025) reports that RL forgets less than SFT at the same new-task accuracy, because
# it stays nearer to the start.
#
# > **Claim.** Where 70 % of the exam are right, GRPO has a smaller KL than SFT on gold answers,
# > and has added less loss on the old exam.
#
# **Predict** the verdict on each half: *held*, *did not hold* or *not shown*.

# %% tags=["predict"]
LEVEL = 0.7
found = {}
for measure in ("kl", "old_loss"):
    for arm in ("gold", "own right", "grpo"):
        paths = [row["path"] for row in arms.select(arm=arm)]
        found[measure, arm] = [
            reward_runs.forgotten_at([p["right"] for p in path], [p[measure] for p in path], LEVEL)
            for path in paths
        ]
        print(f"{measure:8} {arm:10}", np.round(found[measure, arm], 4))
    verdict = judge_claim(found[measure, "gold"], found[measure, "grpo"], claim="lower")
    print(f"  GRPO lower: {verdict.mean:+.4f}, floor {verdict.floor:.4f}: {verdict.word}")
assert np.mean(found["kl", "grpo"]) > 1.3 * np.mean(found["kl", "gold"])

# %% tags=["predict", "folded"]
figure = plots.new_figure((11.0, 4.2))
colours = (plots.BLUE, plots.ORANGE, plots.PURPLE, plots.GREEN, plots.VERMILLION)
for ax, measure, label in zip(
    figure.subplots(1, 2),
    ("kl", "old_loss"),
    ("KL(start ‖ tuned), nats", "loss of the old exam"),
    strict=True,
):
    for arm, colour in zip(ARMS, colours, strict=True):
        for place, row in enumerate(arms.select(arm=arm)):
            line = [[p["right"], p[measure]] for p in row["path"]]
            ax.plot(*np.transpose(line), color=colour, label=None if place else arm)
    ax.set(xlabel="sums of the exam right", ylabel=label)
figure.axes[0].legend(fontsize=10)
plots.title_figure(figure, "At equal accuracy rewards did not move the model less")

# %% [markdown]
# **Read.** *Not shown*, twice, and the means point the other way: at 70 % GRPO has moved about
# twice as far. One reason may be that the gold sentence is the start's own, with the right number,
# so imitation copies no strange style. The published finding is about tasks with many right
# answers. Note how little any arm forgot at this rate: thousandths of a nat.
#
# ## 3 · What no lesson shows
#
# A new start was shown *wordy* sums only: an opening, an ending, or both.

# %%
for talk in add_words(sums_of("practice")[:3]):
    print(talk[-1]["content"])

# %% [markdown]
# The reward: 0 for a wrong sum; for a right one 1, less 0.05 a word. The shortest right sentence
# stands in no lesson. *Best of 8* imitates, of eight draws a question, the one that earns most.
#
# **Predict** what each arm earns, and how many words it says.

# %% tags=["predict"]
for arm in ("start", "gold", "best of 8", "grpo"):
    rows = beyond.select(kind="terse", arm=arm)
    earned, words, correct = ([row[m] for row in rows] for m in ("earned", "words", "right"))
    print(
        f"{arm:10} earned {np.mean(earned):.2f}  words {np.mean(words):4.1f}  "
        f"right {np.mean(correct):4.0%}   {rows[0]['said'][0]!r}"
    )
earned = {
    arm: beyond.measured("earned", kind="terse", arm=arm) for arm in ("gold", "best of 8", "grpo")
}
for other in ("gold", "best of 8"):
    verdict = judge_claim(earned[other], earned["grpo"], claim="higher")
    print(
        f"GRPO earns more than {other}: {verdict.mean:+.3f}, floor {verdict.floor:.3f}: "
        f"{verdict.word}"
    )
assert judge_claim(earned["gold"], earned["grpo"], claim="higher").word == "held"

# %% [markdown]
# **Read.** Gold lessons taught the sums best and stayed wordy: an imitator is as terse as its
# lessons. GRPO found the sentence that no lesson says, and said it nearly always: 8 words. That
# GRPO earns more *held*, against both. So *flexible* is right here, with a limit: GRPO makes likely
# what the start draws at times. In words, one round of best of 8 went half of the way.
#
# ### What is hardly ever drawn
#
# Two tasks in which good answers are *not* drawn. One: "Give the sum of 3 and 4 as JSON." The start
# knows JSON for facts, and sums as sentences. The other, a **cold start**: a model that was never
# shown a sum, beside one that was shown 24.
#
# **Predict** what GRPO makes of each.

# %% tags=["predict"]
for arm in ("start", "grpo"):
    rows = beyond.select(kind="json", arm=arm)
    form, both = (np.mean([row[m] for row in rows]) for m in ("form", "earned"))
    print(
        f"JSON, {arm:5}: an object {form:4.0%}, with the right sum {both:4.0%}", rows[0]["said"][0]
    )
for lessons in (0, 24):
    rows = beyond.select(kind="cold", lessons=lessons)
    first, last = (np.mean([row[m] for row in rows]) for m in ("before", "right"))
    earned = np.max([row["reward"] for row in rows])
    print(
        f"{lessons:2} lessons, then GRPO: {first:4.0%} -> {last:4.0%}, highest reward {earned:.2f}"
    )
cold = beyond.select(kind="cold", lessons=0)
assert all(max(row["reward"]) == 0 and row["right"] == 0 for row in cold)
assert min(row["right"] for row in beyond.select(kind="cold", lessons=24)) > 0.7

# %% [markdown]
# **Read.** JSON: GRPO found an object that pays by luck: a number of the question, which is right
# where the other one is 0. Both skills are hardly ever drawn together. Cold start: fifteen steps
# with a reward of 0 teach nothing, for every advantage is 0. Six steps of SFT on 24 sums repair it,
# and GRPO goes on to four fifths.
#
# ## 4 · A hole in the reward
#
# Somebody wants detailed answers. The reward: 1 if the right sum stands *anywhere*, and 0.1 a word.
#
# **Predict** what 45 steps make of it. Does a pull to the start (0.3 times the KL) help?

# %% tags=["predict"]
figure, found = plots.new_figure((12.0, 4.2)), []
for ax, kl in zip(figure.subplots(1, 2, sharey=True), (0.0, 0.3), strict=True):
    rows = {m: np.array(beyond.measured(m, kind="hole", kl=kl)) for m in ("reward", "right")}
    plots.curve(
        range(1, 46),
        {"reward / 2": rows["reward"] / 2, "truly right": rows["right"]},
        title=f"pull {kl}",
        xlabel="step",
        ylabel="of the step's answers",
        ax=ax,
        colours=(plots.VERMILLION, plots.BLUE),
    )
    middle, end = rows["right"][:, 15:20].mean(1), rows["right"][:, -5:].mean(1)
    reward = rows["reward"][:, -5:].mean(1)
    verdict = judge_claim(middle, end, claim="lower")
    print(
        f"pull {kl}: truly right at steps 16 to 20 {middle.mean():.0%}, at the end "
        f"{end.mean():.0%}: lower {verdict.word}; reward {reward.mean():.2f}"
    )
    found.append((middle, end, reward))
for middle, end, reward in found:
    assert (end < middle).all() and (reward > 1.6).all()

# %% [markdown]
# **Read.** For twenty steps reward and truth rise together. Then the policy finds that a sentence
# that goes on earns more than a right one, and they part. The reward never shows it. This is
# **reward hacking**: the proxy rises, what it stood for falls. A pull slows it down; a better
# reward closes the hole.

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
# Reward from 0.4 to 0.9, `right` from 0.6 to 0.2, and groups that all agree at the end: "hacked".
# (No value in the check stands on a limit.)


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
# <details><summary>Hint</summary>Four of the five words can come with groups that all
# agree.</details>

# %% [markdown] tags=["explanation"]
# The cures: lessons first, a lower rate, another reward, harder questions.
#
# Usual mistakes: one row instead of five; `no_spread` first.

# %%
for kl in (0.0, 0.3):
    row = beyond.select(kind="hole", kl=kl)[0]
    names = ("reward", "right", "no_spread")
    log = [
        dict(zip(names, values, strict=True)) for values in zip(*map(row.get, names), strict=True)
    ]
    top = max(one["reward"] for one in log)
    print(
        f"pull {kl}:", reward_runs.diagnose([{**one, "reward": one["reward"] / top} for one in log])
    )

# %% [markdown]
# ## 5 · Which rates work
#
# > **Claim.** SFT works over a wider range of rates than GRPO and PPO. And the best rate of SFT
# > is the higher one, as the text says.
#
# Ten steps, five rates, three seeds (`tools/experiments/17b_rates.py`). **Predict** where each
# method breaks.

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
# <details><summary>Hint</summary>Sort the rates and walk from the best in both
# directions.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: the best run instead of the mean; a range with a gap in it.

# %% tags=["predict"]
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
names = {"gold": "SFT on gold answers", "grpo": "GRPO", "ppo": "PPO"}
lines = {
    name: np.transpose(
        [sweep.measured("right", arm=arm, rate=rate, rank=0, pull=0.0) for rate in RATES]
    )
    for arm, name in names.items()
}
lines["start"] = np.full(len(RATES), before)
for name, line in lines.items():
    print(
        f"{name:20}",
        *(f"{rate:.0e}: {np.mean(s):4.0%} " for rate, s in zip(RATES, line.T, strict=True)),
    )

# %% tags=["predict", "folded"]
ax = plots.curve(
    range(len(RATES)),
    lines,
    title="A rate that suits SFT breaks the others",
    xlabel="learning rate",
    ylabel="sums of the exam right",
    colours=(plots.BLUE, plots.GREEN, plots.VERMILLION, plots.MUTED),
)
_ = ax.set_xticks(range(len(RATES)), [f"{rate:.0e}" for rate in RATES])

# %% tags=["predict"]
ranges = {arm: reward_runs.working_range(sweep.select(arm=arm, rank=0, pull=0.0)) for arm in names}
fast = {arm: sweep.measured("right", arm=arm, rate=1e-3, rank=0, pull=0.0) for arm in names}
for arm, name in names.items():
    low, high = ranges[arm]
    word = {c: judge_claim([before] * 3, fast[arm], claim=c).word for c in ("higher", "lower")}
    gain = np.mean(fast[arm]) - before
    print(f"{name:20} works from {low:.0e} to {high:.0e}; at 1e-3 {gain:+.2f} over the start:")
    print(f"  higher {word['higher']}, lower {word['lower']}")
assert ranges == {"gold": (3e-4, 1e-3), "grpo": (1e-4, 3e-4), "ppo": (1e-4, 3e-4)}
assert max(fast["grpo"] + fast["ppo"]) < before < min(fast["gold"])

# %% tags=["predict"]
for arm in ("gold", "grpo"):
    shares = [
        np.mean(sweep.measured("right", arm=arm, rate=rate, rank=8, pull=0.0))
        for rate in (3e-4, 1e-3, 3e-3)
    ]
    print(f"{names[arm]:20} with LoRA at 3e-4, 1e-3, 3e-3:", np.round(shares, 2))
for pull in (0.1, 1.0):
    shares = sweep.measured("right", arm="grpo", rate=1e-3, rank=0, pull=pull)
    print(f"GRPO at 1e-3, pull {pull}:", np.round(shares, 2))
spoilt = [np.mean(sweep.measured("old_loss", arm="gold", rate=r, rank=0, pull=0.0)) for r in RATES]
print("SFT, loss of the old exam by rate:", np.round(spoilt, 3))

# %% [markdown]
# **Read.** Each method works at two neighbouring rates of this grid, so *wider* did not hold. The
# second half did, with all weights: SFT's two rates lie one step higher. At 1e-3 SFT is far above
# the start (*held*); PPO is below it (*held*), and GRPO in every seed, yet *not shown* for its
# spread. (We picked 1e-3 after looking.) At 3e-3 both answer nothing. A pull mends a broken run a
# little; a lower rate mends it. With LoRA no rate up to 3e-3 breaks either method: a difference is
# *not shown*. SFT pays for high rates too: the old exam.
#
# ## 6 · Where RLHF begins
#
# For most questions no program says what is right. People can say which of two answers they like
# better. **RLHF** (reinforcement learning from human feedback) learns a reward from such pairs,
# then learns from that reward.

# %% [markdown] tags=["exercise"]
# ### Exercise 17b.5 · Two answers, one preference · 5 min · ●○○
# Bradley and Terry (1952) turn two scores into a probability: the chosen answer wins with σ(chosen
# − rejected), where σ(x) = 1 / (1 + exp(−x)). Write the loss that a reward is learned with: minus
# the natural logarithm of that probability, the mean over the pairs. It must be finite for scores
# that lie 1,000 apart, and gradients must flow through it. For the scores 2 and 1 it is 0.3133; for
# equal scores 0.6931.


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
# Only differences of scores count.
#
# Usual mistakes: the sigmoid without the logarithm; `log(sigmoid(x))`, which is −inf for −1,000.

# %% [markdown]
# Our rater prefers the right sum, and slips in one pair of ten. The reward is a weighted sum of the
# start's last hidden states, averaged over an answer. In ten lines:

# %%
chosen, rejected = draw_pairs(start, tokenizer, "practice", seed=0, slips=0.1, count=100)
weights = torch.zeros(chosen.shape[1], requires_grad=True)
optimizer = torch.optim.AdamW([weights], lr=0.02, weight_decay=1.0)
for _ in range(300):
    loss = -F.logsigmoid((chosen - rejected) @ weights).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
better, worse = draw_pairs(start, tokenizer, "exam", seed=1, count=60)
ordered = {
    name: ((a - b) @ weights > 0).float().mean().item()
    for name, a, b in (("seen", chosen, rejected), ("new", better, worse))
}
print(
    f"{len(chosen)} pairs; ordered as the rater: {ordered['seen']:.0%} of these; "
    f"rightly: {ordered['new']:.0%} of {len(better)} new ones"
)
torch.testing.assert_close(weights.detach(), fit_scores(chosen, rejected), rtol=1e-2, atol=1e-2)
assert ordered["seen"] > 0.65 and ordered["new"] > 0.5

# %% [markdown]
# **Predict:** forty steps of GRPO with it. What becomes of the learned reward, and of the true one?

# %% tags=["predict"]
rows = beyond.select(kind="preference")
learned, true = (np.array([row[name] for row in rows]) for name in ("reward", "right"))
learned = learned - learned[:, :1]  # a score has no zero of its own
print("held-out pairs ordered rightly:", [row["ordered"] for row in rows])
verdict = judge_claim(true[:, :5].mean(1), true[:, -5:].mean(1), claim="higher")
print(f"truly right, last five steps higher than first five: {verdict.mean:+.2f}: {verdict.word}")

# %% tags=["predict", "folded"]
ax = plots.curve(
    range(1, 41),
    {"learned reward, gain": learned, "truly right": true},
    title="The learned reward rises, the true one falls",
    xlabel="step",
    ylabel="of the step's answers",
    colours=(plots.VERMILLION, plots.BLUE),
)
assert (learned[:, -5:].mean(1) - learned[:, :5].mean(1) > 0.5).all()
assert verdict.word == "did not hold" and (true[:, -5:].mean(1) < 0.2).all()

# %% [markdown]
# **Read.** The hope *did not hold*: the learned reward rose, and the true one fell to almost
# nothing. The reward orders three pairs of four rightly *among answers of the start*. GRPO leaves
# these answers, and a quarter of errors is a wide hole. Published systems use better reward models,
# collect pairs anew, and pull to the start.
#
# **What comes after SFT.** SFT is the start of alignment: it makes right answers likely enough to
# be drawn (section 3). Then comes a reward: a checker where one exists, else a model of
# preferences. Then a policy method with a pull to the SFT model, because a learned reward is right
# only near the answers that it was learned from. DPO (direct preference optimisation) skips the
# reward model and trains on the pairs.
#
# ### The same on a real model
#
# SmolLM2 (135 M parameters, a chat model) is asked "What is 3 + 4? Answer in one sentence.". An
# answer of at most 16 tokens earns 1 if it ended and its last number is the sum. Eight GRPO steps
# of 4 questions with 4 answers, LoRA, three seeds (`tools/experiments/17b_smollm2.py`); the exam
# asks sums that were not practised.
#
# > **Claim.** After the steps, drawn answers earn more than before.
#
# **Predict** what they earn before and after.

# %% tags=["predict"]
real = read_results("17b_smollm2")
first, last = ([row[when]["earned"] for row in real.rows] for when in ("before", "after"))
verdict = judge_claim(first, last, claim="higher")
for row in real.rows:
    print(
        f"{row['before']['earned']:.2f} -> {row['after']['earned']:.2f}",
        f"ended {row['before']['stopped']:.0%} -> {row['after']['stopped']:.0%}",
        repr(row["before"]["said"][2][:40]),
        "->",
        repr(row["after"]["said"][2]),
    )
print(f"higher: {verdict.mean:+.2f}, floor {verdict.floor:.2f}: {verdict.word}")
assert verdict.word == "held"

# %% [markdown]
# **Read.** *Held*. 128 answers turned a chatty model into one that adds. It could add before, when
# it kept to the point; the reward made such answers likely.
#
# ## What to remember
#
# - Where gold answers exist, imitate them: more is learned, in a third of the time.
# - A reward needs no gold answer, and finds what no lesson says, if the start draws it at times.
#   With reward 0 everywhere nothing is learned: SFT first.
# - A policy does what the reward pays for. Watch a true measure beside it; a rising reward is none.
# - Rewards stand a lower rate than SFT, and break hard beyond it.
# - "RL forgets less" was not shown here.
#
# ## Sources
#
# - GRPO: Shao et al., *DeepSeekMath*, 2024, arXiv:2402.03300. PPO: Schulman et al., 2017,
#   arXiv:1707.06347.
# - *RL's Razor: Why Online Reinforcement Learning Forgets Less*, 2025, arXiv:2509.04259.
# - Chu et al., 2025, arXiv:2501.17161: outside the training conditions RL gained (80.8 to 91.8)
#   where SFT lost (80.8 to 1.3) in one of their tasks.
# - Liu et al., 2025, arXiv:2503.20783: what GRPO's normalisations do.
# - A cold start needs SFT: github.com/unslothai/unsloth, issue 2614. A format reward that eats the
#   accuracy: github.com/huggingface/open-r1, issues 255 and 407.
#
# <details><summary>中文要点</summary>
#
# 1. **同一任务、同一起点、同一预算**：三十次更新、每次 64 条答案。标准答案的 SFT 约 99 %，自采正确样本的 SFT 约 85 %，
#    GRPO、PPO、REINFORCE 约 75–78 %，起点 47 %。有标准答案时，模仿更快更好。
# 2. **灵活性**：奖励能让模型学会数据里从未出现的更短答案；但只能放大"已经能采到"的答案。奖励全为 0 时什么也学不到（**冷启动**），先做一点
#    SFT 即可修复。
# 3. **奖励作弊**（reward hacking）：奖励有漏洞时，奖励一路上升，真正的正确率先升后降；KL 约束只能减缓。
# 4. **稳定性**：SFT 可用的学习率更高；同样的学习率会让 GRPO、PPO 崩溃。
# 5. "RL 遗忘更少"在这里**未得到证实**：相同准确率下 GRPO 的 KL 反而更大。
# 6. **RLHF** 从偏好对学习奖励（Bradley–Terry）；学到的奖励只在起点答案附近可靠，强行优化会使真实正确率下降。SFT 是对齐的起点。
#
# </details>
