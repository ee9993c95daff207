# %% [markdown]
# # 18 · Is my run healthy?
#
# **The question.** A run prints one number a step. What does the curve of these numbers tell about
# the run, and which faults leave it as it is?
#
# **By the end you can**
# - *say* which loss to expect at the first step, before you start;
# - *read* a curve, smooth it honestly, and set a training loss beside an evaluation;
# - *name* the faults that no curve shows, and what to look at instead.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 03 and 04 | CPU, no network | about a minute | 5, about 50 minutes | L14, A7, L7, L8 |

# %% tags=["setup"]
import copy
import math
import random
from collections import Counter, defaultdict

import torch
import torch.nn.functional as F

from sft_lab import plots
from sft_lab.course.checks import check

# %% tags=["setup"]
from sft_lab.course.curve_runs import (
    CAUSES,
    EVERY,
    STEPS,
    Cause,
    distances,
    encode,
    exam_rows,
    highest_rate_run,
    mean_loss,
    only_stop,
    rows_of,
    smooth,
    train_with,
    unknown_rows,
    without_stop,
)

# %% tags=["setup"]
from sft_lab.course.results import read_results
from sft_lab.course.views.curves import draw_gallery, draw_ladder, draw_smoothing
from sft_lab.labels import encode_conversations
from sft_lab.models import load
from sft_lab.significance import judge_claim
from sft_lab.train import evaluate, train

plots.style()
base, tokenizer = load("atlas-base")
pad, vocabulary = tokenizer.pad_token_id, base.config.vocab_size

# %% [markdown]
# ## 1 · The number before the first step
#
# A run of this chapter reads 640 rows: facts, sums, lists and JSON, 16 at a time. The loss is the
# mean negative log-likelihood of the graded tokens, in nats. Before anything is learned, we can say
# what it should be. Three predictors set the scale:
#
# - **guessing** gives every token of the vocabulary the same probability;
# - **counting** knows how often each token occurs among the graded ones, and nothing else;
# - **the base** reads the question, and has never seen a chat.

# %% [markdown] tags=["exercise"]
# ### Exercise 18.1 · The loss of counting · 8 min · ●○○
# `train` and `test` are lists of rows of labels; −100 marks what is not graded, and the first label
# of a row is always −100. Count the graded tokens of `train`. A token that stood there c times
# among N gets the probability (c + 1) / (N + `vocabulary`), so that none is impossible. Return the
# mean of −ln p over the graded tokens of `test`, in nats, as a float. Every token of `test` weighs
# the same. `train` may have no graded token, or be empty; `test` has at least one. Token 0 is a
# token like any other.
#
# With `train = [[-100, 1, 1, 2]]`, `test = [[-100, 1, 3]]` and 4 tokens in the vocabulary, p is 3/7
# for token 1 and 1/7 for token 3. The loss is (0.847 + 1.946) / 2 = 1.397.


# %% tags=["stub"]
def counting_loss(train: list[list[int]], test: list[list[int]], vocabulary: int) -> float:
    """Loss of a predictor that has counted the graded tokens of `train`, in nats per token."""
    raise NotImplementedError


# %% tags=["solution"]
def counting_loss(train: list[list[int]], test: list[list[int]], vocabulary: int) -> float:
    """Loss of a predictor that has counted the graded tokens of `train`, in nats per token."""
    counts = Counter(label for row in train for label in row if label != -100)
    total = sum(counts.values()) + vocabulary
    asked = [label for row in test for label in row if label != -100]
    return sum(-math.log((counts[token] + 1) / total) for token in asked) / len(asked)


# %% tags=["check"]
check("18.1", counting_loss)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A <code>Counter</code> gives 0 for what it never saw. First flatten
# the rows into one list of graded tokens.</details>

# %% [markdown] tags=["explanation"]
# This is what a model reaches that ignores its input. A run that ends near this number has learned
# the frequencies and nothing more.
#
# Usual mistakes: −100 counted as a token; the 1 missing for a token that `train` never had; a mean
# of the rows' means.

# %% [markdown]
# **Predict.** The base has read plain text about Atlas. What is its loss on our rows: near that of
# guessing (8.3 nats), near counting (5.3), or below 3?

# %% tags=["predict"]
healthy = Cause()
lessons = encode(rows_of(healthy, seed=0), tokenizer, healthy)
exam = encode(exam_rows(), tokenizer, healthy)
labels = [[one.labels for one in group] for group in (lessons, exam)]
first = {
    "guessing": math.log(vocabulary),
    "counting": counting_loss(*labels, vocabulary),
    "base": mean_loss(base, exam, pad),
    "base, without the stop token": mean_loss(base, [without_stop(one) for one in exam], pad),
    "base, stop token alone": mean_loss(base, [only_stop(one) for one in exam], pad),
}
_ = draw_ladder(first)
assert first["guessing"] > first["counting"] > first["base"] > 3

# %%
graded = sum(label != -100 for one in exam for label in one.labels)
share = len(exam) / graded  # one stop token an answer
words, stop = first["base, without the stop token"], first["base, stop token alone"]
print(f"{1 - share:.3f} × {words:.2f} + {share:.3f} × {stop:.2f} = {first['base']:.2f} nats")
assert abs((1 - share) * words + share * stop - first["base"]) < 1e-3
assert stop > 2 * first["guessing"] and share * stop > 0.4 * first["base"]

# %% [markdown]
# **Read.** The base costs 3.6 nats a token, and half of it comes from one token in twelve. The stop
# token never stood in the base's text, so it is far worse than a guess. The words alone cost 2.0.
# So two first numbers are possible, and each names its mask: 3.6 with the stop token graded, 2.0
# without it. Compute yours before the run. A first loss that differs says that something else is
# graded, that the template is another, or that other weights were loaded.
#
# ## 2 · Twelve curves without names
#
# The next cell trains twelve copies of the base for 40 steps. One is healthy. Each of the others
# has one thing changed:
#
# | | | | |
# |---|---|---|---|
# | healthy | rate too high | rate too low | no warm-up |
# | not shuffled: sorted by topic | few rows, read again | answers of other rows | prompt graded |
# | stop token not graded | nothing graded | one batch without a graded token | other template |
#
# **Predict.** Write a name for each letter. For how many of them are you sure?

# %% tags=["predict"]
recorded = read_results("18_causes", base)
letters = random.Random(18).sample(list(CAUSES)[:12], 12)
runs = {cause: train_with(base, tokenizer, CAUSES[cause], seed=1)[1] for cause in letters}
band = [row["losses"] for row in recorded.select(cause="healthy")]
_ = draw_gallery(runs, band, names=False)

# %% [markdown]
# Now with names. The grey band holds five healthy runs that differ in their seed alone.

# %% tags=["predict"]
_ = draw_gallery(runs, band, names=True)
end = {cause: sum(run.losses[-5:]) / 5 for cause, run in runs.items()}
start = {cause: run.losses[0] for cause, run in runs.items()}
assert end["rate too high"] > start["rate too high"]
assert end["rate too low"] > 0.8 * start["rate too low"]
assert set(runs["nothing graded"].losses) == {0.0} and math.isnan(end["one batch lost"])
assert max(runs["not shuffled"].losses[20:]) > 3 > 0.4 > end["healthy"]
assert start["prompt graded"] > 1.4 * start["healthy"] > 2 * start["stop not graded"]

# %% [markdown]
# **Read.** *Rates.* Too high: the loss leaps, and comes back to about the loss of counting: what the
# base knew is destroyed. Too low: nothing moves. A missing warm-up does not show at this rate.
# *Order.* Sorted rows jump where a topic begins. *Mask.* A graded prompt and an ungraded stop token
# stand out at the first step, as section 1 said; later their curves look well. *Answers of other
# rows*: falls, and stays high. That is the look of a hard task, too. *Few rows* ends lower than the
# healthy run. *Other template*: inside the band. Its rows are plain text, "Question: …", and no
# user will ask in that form.
#
# ### 0.0 and NaN
#
# Both come from a batch in which no token is graded: truncation took the answers, or a marker was
# not found. Which of the two appears depends on how the mean is written.
#
# **Predict.** Three ways to write it, one batch without a graded token. Which loss comes out, and
# which gradient?

# %% tags=["predict"]
scores = torch.randn(6, vocabulary, requires_grad=True)
targets, mask = torch.randint(0, vocabulary, (6,)), torch.zeros(6)
ignored = torch.full((6,), -100)
nll = F.cross_entropy(scores, targets, reduction="none")
ways = {
    "sum / max(1, count)": (nll * mask).sum() / max(1, mask.sum()),
    "cross_entropy, ignore_index": F.cross_entropy(scores, ignored),
    "sum / count": (nll * mask).sum() / mask.sum(),
}
for name, loss in ways.items():
    scores.grad = None
    loss.backward(retain_graph=True)
    print(f"{name:28} loss {loss.item():4.1f}, gradient {scores.grad.abs().max().item():.1f}")
assert ways["sum / max(1, count)"] == 0 and scores.grad.isnan().all()

# %%
lost = encode(rows_of(healthy, seed=0)[:16], tokenizer, Cause(graded="none"))
try:
    train(copy.deepcopy(base), tokenizer, lost)
except ValueError as error:
    print("train:", error)
large = torch.tensor([300.0]).half()
print("float16:", large * large, (large * large) - (large * large))
assert (large * large).isinf() and (large * large - large * large).isnan()

# %% [markdown]
# **Read.** The first way looks like success: 0.0 at every step, and a gradient of 0. The second
# leaves a hole in the curve, and the weights stay whole. The third puts NaN into every weight, and
# no later step repairs them. `sft_lab` refuses such rows before the first step. The other road to
# NaN is overflow: float16 ends at 65,504, and inf − inf is NaN.

# %% [markdown] tags=["exercise"]
# ### Exercise 18.2 · Name the curve · 12 min · ●●○
# Write a judge. `losses` are the losses of all steps, 20 to 60 floats (12 at least); `epoch` is the
# number of steps in an epoch, at least 6 and at most `len(losses)`. Return the first word whose rule
# holds. *End* is the mean of the last five losses, *fall* the first loss minus the end.
#
# 1. `"nan"`: a loss, anywhere, is NaN or infinite;
# 2. `"zero"`: every loss is exactly 0.0;
# 3. `"diverged"`: the end is above the first loss;
# 4. `"flat"`: the end is above 80 % of the first loss;
# 5. `"saw-tooth"`: at some step t, from 3 to `len(losses) - 3`, the mean of losses t, t + 1, t + 2
#    exceeds the mean of the three before by more than half of the fall;
# 6. `"staircase"`: at each border between epochs b = epoch, 2 · epoch, … below `len(losses)`, take
#    the mean of the three losses before b minus the mean of losses b, b + 1, b + 2. Their sum is
#    more than half of the fall;
# 7. `"healthy"`: none of these.
#
# No curve is near a border. `[4, 4, 4, 4, 4, 4, 1, 1, 1, 1, 1, 1]` with `epoch = 6` is a staircase:
# end 1, fall 3, and 3 of it at the border. With `epoch = 12` it is healthy. The check asks about
# curves drawn anew, and about recorded runs of the gallery.


# %% tags=["stub"]
def judge_curve(losses: list[float], epoch: int) -> str:
    """The word for a loss curve."""
    raise NotImplementedError


# %% tags=["solution"]
def judge_curve(losses: list[float], epoch: int) -> str:
    """The word for a loss curve."""
    if not all(math.isfinite(loss) for loss in losses):
        return "nan"
    if all(loss == 0 for loss in losses):
        return "zero"
    end = sum(losses[-5:]) / 5
    if end > 0.8 * losses[0]:
        return "diverged" if end > losses[0] else "flat"
    half = (losses[0] - end) / 2
    means = [sum(losses[t : t + 3]) / 3 for t in range(len(losses) - 2)]
    if any(means[t] - means[t - 3] > half for t in range(3, len(means))):
        return "saw-tooth"
    borders = range(epoch, len(losses), epoch)
    falls = sum(means[b - 3] - means[b] for b in borders)
    return "staircase" if falls > half else "healthy"


# %% tags=["check"]
check("18.2", judge_curve)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Ask for NaN first: every comparison with it is False. Then make a
# list of the means of three neighbouring losses; rules 5 and 6 both read it.</details>

# %% [markdown] tags=["explanation"]
# The judge calls the run without a graded stop token healthy, and the run on another template. Both
# give wrong answers, as section 6 shows. No rule on the losses alone could tell.
#
# Usual mistakes: NaN tested with `==`; one high step taken for a saw-tooth; the fast fall of a
# first epoch taken for a step of a staircase.

# %% [markdown]
# ## 3 · Smoothing
#
# A step's loss is measured on 16 rows, so it jitters. The usual remedy is an **exponential moving
# average**: each step keeps the share β of what was there before. Three mistakes are common. The
# average begins at 0, or at the first loss, and carries that along. Every step counts alike,
# whether it graded 100 tokens or 300. And the raw curve is hidden.

# %% [markdown] tags=["exercise"]
# ### Exercise 18.3 · Smooth honestly · 8 min · ●●○
# Return one float a step. At step t it is
#
# $$\frac{\sum_{s \le t} \beta^{\,t-s}\, n_s L_s}{\sum_{s \le t} \beta^{\,t-s}\, n_s}$$
#
# with the losses $L$, the numbers of graded tokens $n$ (`graded`), and β (`beta`) between 0 and 1.
# Where n is 0 the loss may be NaN: such a step adds nothing to either sum, and is a step all the
# same. The first n is above 0. `losses` and `graded` have the same length, at least 1.
#
# `smooth_losses([4.0, 2.0], [10, 30], 0.5)` gives `[4.0, 2.2857…]`: (0.5 · 10 · 4 + 30 · 2) /
# (0.5 · 10 + 30).


# %% tags=["stub"]
def smooth_losses(losses: list[float], graded: list[int], beta: float) -> list[float]:
    """Running mean over graded tokens in which older steps fade."""
    raise NotImplementedError


# %% tags=["solution"]
def smooth_losses(losses: list[float], graded: list[int], beta: float) -> list[float]:
    """Running mean over graded tokens in which older steps fade."""
    total = weight = 0.0
    smoothed = []
    for loss, tokens in zip(losses, graded, strict=True):
        total = beta * total + (tokens * loss if tokens else 0.0)
        weight = beta * weight + tokens
        smoothed.append(total / weight)
    return smoothed


# %% tags=["check"]
check("18.3", smooth_losses)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Keep two running sums, one with the losses and one without, and
# multiply both by β in every step.</details>

# %% [markdown] tags=["explanation"]
# Dividing by the weights is the *bias correction* that AdamW has too (chapter 04): with equal n the
# denominator is (1 − βᵗ⁺¹) / (1 − β).
#
# Usual mistakes: a start at 0, which looks like a loss that rises; a start at the first loss, which
# holds the curve up; NaN · 0, which is NaN.

# %% [markdown]
# **Predict.** Below, one healthy run is smoothed in three ways with β = 0.9. In which step does the
# start at 0 first agree with the honest curve to 0.1 nats?

# %% tags=["predict"]
run = runs["healthy"]
honest = smooth(run.losses, run.graded, beta=0.9)
assert all(map(math.isclose, honest, smooth_losses(run.losses, run.graded, 0.9)))
from_zero, from_first, value = [], [], run.losses[0]
for step, loss in enumerate(run.losses):
    value = 0.9 * value + 0.1 * loss
    from_first.append(value)
    from_zero.append(value - 0.9 ** (step + 1) * run.losses[0])
_ = draw_smoothing(run.losses, {"from 0": from_zero, "from the first": from_first, "honest": honest})
agrees = next(t for t, gap in enumerate(zip(from_zero, honest)) if abs(gap[0] - gap[1]) < 0.1)
print(f"step {agrees}; at step 39 the raw loss is {run.losses[-1]:.2f}, the smoothed {honest[-1]:.2f}")
assert from_zero[0] < 0.2 * run.losses[0] and honest[-1] > run.losses[-1]

# %% [markdown]
# **Read.** The curve from 0 *rises* in a run that falls. The one from the first loss stays too high.
# The honest one has no bias at the start, but it lags in a fall, as every average of the past does:
# it ends above the raw loss. So show the raw curve behind it, and compare two runs only with the
# same β.
#
# ## 4 · How high may the rate be?
#
# The gallery shows a rate that is a hundred times too high. Where is the border?

# %% [markdown] tags=["exercise"]
# ### Exercise 18.4 · The highest rate that trains · 10 min · ●●○
# A run here has 20 steps on rows like those of the gallery. It *trains* when the mean loss of its
# last five steps is below 0.6 nats. Find a peak `rate` that trains, for seeds 0 and 1, while three
# times the rate trains for neither. `highest_rate_run(base, tokenizer, rate=1e-3, seed=0)` makes
# one run in a second or two and returns that mean.

# %% tags=["stub"]
rate = ...

# %% tags=["solution"]
rate = 5e-3

# %% tags=["check"]
check("18.4", rate)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Go up by factors of three from 1e-3 until it breaks. The border
# lies between the last two.</details>

# %% [markdown] tags=["explanation"]
# The highest rate that trains is not the best: at 3e-3 the loss ends lower. Common practice takes a
# third to a tenth of the border.
#
# Usual mistakes: to stop at the first rate that trains; to look at one seed.

# %% [markdown]
# ## 5 · Training loss beside evaluation
#
# A **training loss** says how well the run fits what it reads. An **evaluation loss** is measured on
# rows that it never reads. When the first falls and the second rises, the model *over-fits*: it
# learns the rows instead of the task. The two can be compared only on the same footing: the same
# mask and template, the mean over tokens, no dropout.
#
# We let the base learn 112 facts that it never read, six times over. The 93 rows of the evaluation
# are about other such facts: nobody can know these answers.
#
# **Predict.** When the evaluation loss begins to rise, what does the evaluation's token accuracy do?

# %% tags=["predict"]
known, unknown = (encode_conversations(rows, tokenizer) for rows in unknown_rows(seed=0))
model = copy.deepcopy(base)
history = train(
    model,
    tokenizer,
    known,
    eval_examples=unknown,
    epochs=6,
    learning_rate=3e-3,
    seed=0,
    progress=False,
)
on_train = evaluate(model, tokenizer, known)
held = history.evaluations
for number, one in enumerate(held, start=1):
    print(f"epoch {number}: evaluation loss {one['loss']:.2f}, token accuracy {one['accuracy']:.1%}")
print(f"training rows at the end: {on_train['loss']:.3f}, {on_train['accuracy']:.1%}")
lowest = min(range(len(held)), key=lambda i: held[i]["loss"])
assert held[-1]["loss"] > 1.1 * held[lowest]["loss"] and on_train["loss"] < 0.1
assert held[-1]["accuracy"] > held[lowest]["accuracy"] - 0.02

# %% [markdown]
# **Read.** The evaluation loss turns after two epochs, and the training loss goes on to zero. The
# accuracy does not fall with it: it counts which token ranks first, and the loss also counts how
# sure the model is. It grows surer of guesses. So a rising loss does not say that answers get worse.
# Choose a checkpoint by the measure that you care about.
#
# An evaluation also needs the right rows. Data often say one fact in several wordings. If another
# wording of a trained fact stands in the evaluation, its loss falls with the training loss.

# %% [markdown] tags=["exercise"]
# ### Exercise 18.5 · Design the evaluation set · 12 min · ●●○
# `rows` are dicts with `"fact"`, `"topic"` and `"text"`. Rows with the same `"fact"` tell the same
# thing in other words; a fact belongs to one topic, and every topic has at least two facts. Return
# `(train, eval)`: two lists of places in `rows`, from 0, in any order.
#
# - Every row is in one of the two lists, once. No fact has rows in both.
# - Of a topic with f different facts, `eval` holds all rows of max(1, round(`share` · f)) facts.
#   (`share` · f is never a half.)
# - Which facts is drawn at random by `seed`: the same seed gives the same choice, other seeds give
#   others.
#
# Five facts of topic A told three times each, two of topic B told once, and `share` 0.2: `eval` has
# the three rows of one fact of A and the row of one fact of B.


# %% tags=["stub"]
def choose_eval(
    rows: list[dict[str, str]], share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Places of the rows to train on, and of those to evaluate on."""
    raise NotImplementedError


# %% tags=["solution"]
def choose_eval(
    rows: list[dict[str, str]], share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Places of the rows to train on, and of those to evaluate on."""
    facts = defaultdict(set)
    for row in rows:
        facts[row["topic"]].add(row["fact"])
    rng, chosen = random.Random(seed), set()
    for topic in sorted(facts):
        chosen |= set(rng.sample(sorted(facts[topic]), max(1, round(share * len(facts[topic])))))
    places = range(len(rows))
    held = [i for i in places if rows[i]["fact"] in chosen]
    return [i for i in places if rows[i]["fact"] not in chosen], held


# %% tags=["check"]
check("18.5", choose_eval)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Collect the different facts of each topic, draw among those, and
# then sort the rows into two lists.</details>

# %% [markdown] tags=["explanation"]
# Drawn topic by topic, a rare topic is in the evaluation too, and the mix is that of the training
# rows: the same footing.
#
# Usual mistakes: rows drawn at random, so that a wording of most facts is trained; only one row of
# a chosen fact kept; shares counted in rows.

# %% [markdown]
# ## 6 · What no curve shows
