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
# | chapters 03 and 04 | CPU, no network | about a minute | 5, about 50 minutes | A7 L7 L8 L14 |

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
    Cause,
    distances,
    encode,
    exam_rows,
    highest_rate_run,
    loss_of_counting,
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
from sft_lab.course.views.curves import draw_gallery, draw_ladder, draw_smoothing, draw_table
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
# A run of this chapter reads 640 rows: facts, sums, lists and JSON, 16 a step. The loss is the mean
# negative log-likelihood of the graded tokens, in nats. What should it be before anything is
# learned? Three predictors set the scale:
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

# %% [markdown] tags=["explanation"]
# A model that ignores its input reaches this at best.
#
# Usual mistakes: −100 counted as a token; a mean of the rows' means.

# %% [markdown]
# **Predict.** The base has read plain text about Atlas. What is its loss on our rows: near
# guessing (7.6 nats), near counting (5.2), or below 3?

# %% tags=["predict"]
healthy = Cause()
lessons = encode(rows_of(healthy, seed=0), tokenizer, healthy)
exam = encode(exam_rows(), tokenizer, healthy)
labels = [[one.labels for one in group] for group in (lessons, exam)]
first = {
    "guessing": math.log(vocabulary),
    "counting": loss_of_counting(*labels, vocabulary),
    "base": mean_loss(base, exam, pad),
    "base, without the stop token": mean_loss(base, [without_stop(one) for one in exam], pad),
    "base, stop token alone": mean_loss(base, [only_stop(one) for one in exam], pad),
}
_ = draw_ladder(first)
assert first["guessing"] > first["counting"] > first["base"] > 3

# %% tags=["predict"]
graded = sum(label != -100 for one in exam for label in one.labels)
share = len(exam) / graded  # one stop token an answer
words, stop = first["base, without the stop token"], first["base, stop token alone"]
print(f"{1 - share:.3f} × {words:.2f} + {share:.3f} × {stop:.2f} = {first['base']:.2f} nats")
assert abs((1 - share) * words + share * stop - first["base"]) < 1e-3
assert stop > 2 * first["guessing"] and share * stop > 0.4 * first["base"]

# %% [markdown]
# **Read.** The base costs 3.6 nats a token, and half of it comes from one token in twelve: the stop
# token, which never stood in the base's text. The words alone cost 2.0. So each mask has its own
# first number: 3.6 with the stop token graded, 2.0 without. A first loss that differs from yours
# says that something else is graded, or that template or weights are not those you think.
#
# ## 2 · Twelve curves without names
#
# The next cell trains twelve copies of the base for 40 steps. One is healthy. Each other one has
# one thing changed: rate too high; rate too low; no warm-up; not shuffled but sorted by topic; few
# rows, read again; answers of other rows; prompt graded; stop token not graded; nothing graded; one
# batch without a graded token; another template.
#
# **Predict.** Write a name for each letter.

# %% tags=["predict"]
recorded = read_results("18_causes", base)
letters = random.Random(18).sample(list(CAUSES)[:12], 12)
runs = {cause: train_with(base, tokenizer, CAUSES[cause], seed=1)[1] for cause in letters}
band = [row["losses"] for row in recorded.select(cause="healthy")]
_ = draw_gallery(runs, band, names=False)

# %% [markdown]
# Now with names, and five healthy seeds in grey.

# %% tags=["predict"]
_ = draw_gallery(runs, band, names=True)
end = {cause: sum(run.losses[-5:]) / 5 for cause, run in runs.items()}
start = {cause: run.losses[0] for cause, run in runs.items()}
of_seeds = [sum(losses[-5:]) / 5 for losses in band]  # the live run lies in the recorded band
assert end["rate too high"] > start["rate too high"]
assert end["rate too low"] > 0.8 * start["rate too low"]
assert min(of_seeds) - 0.05 < end["healthy"] < max(of_seeds) + 0.05
assert set(runs["nothing graded"].losses) == {0.0} and math.isnan(end["one batch lost"])
assert max(runs["not shuffled"].losses[20:]) > 3 > 0.4 > end["healthy"]
assert start["prompt graded"] > 1.4 * start["healthy"] > 2 * start["stop not graded"]

# %% [markdown]
# **Read.** *Rates.* Too high: the loss leaps, and settles near the loss of counting: what the base
# knew is gone. Too low: nothing moves. A missing warm-up does no harm here. *Order.* Sorted rows
# jump where a topic begins. *Mask.* A graded prompt and an ungraded stop token stand out at the
# first step; later their curves look well. *Answers of other rows* falls and stays high, as a hard
# task does. *Few rows* ends lower than the healthy run. *Other template* is inside the band. Its
# rows are plain text, "Question: …", and no user asks in that form.
#
# ### 0.0 and NaN
#
# Both come from a batch in which no token is graded: truncation took the answers, or a marker was
# not found.
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
# **Read.** The first way looks like success: 0.0, and nothing is learned. The second leaves a hole
# in the curve. The third puts NaN into every weight, for good. `sft_lab` refuses such rows before
# the first step. The other road to NaN is overflow: float16 ends at 65,504, and inf − inf is NaN.

# %% [markdown] tags=["exercise"]
# ### Exercise 18.2 · Name the curve · 12 min · ●●○
# Write a judge. `losses` are the losses of all steps, 12 to 60 floats; `epoch` is the number of
# steps in an epoch, at least 6 and at most `len(losses)`. Return the first word whose rule holds.
# *End* is the mean of the last five losses, *fall* the first loss minus the end.
#
# 1. `"nan"`: a loss, anywhere, is NaN or infinite;
# 2. `"zero"`: every loss is exactly 0.0;
# 3. `"diverged"`: the end is above the first loss;
# 4. `"flat"`: the end is above 80 % of the first loss;
# 5. `"saw-tooth"`: at some step t, from 3 to `len(losses) - 3`, the mean of losses t, t + 1, t + 2
#    exceeds the mean of the three before by more than half of the fall;
# 6. `"staircase"`: at each border between epochs b = epoch, 2 · epoch, … below `len(losses) - 2`,
#    take the mean of the three losses before b minus the mean of losses b, b + 1, b + 2. Their sum
#    is more than half of the fall;
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
    borders = range(epoch, len(losses) - 2, epoch)
    falls = sum(means[b - 3] - means[b] for b in borders)
    return "staircase" if falls > half else "healthy"


# %% tags=["check"]
check("18.2", judge_curve)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Ask for NaN first: every comparison with it is False. Then make a
# list of the means of three neighbouring losses; rules 5 and 6 both read it.</details>

# %% [markdown] tags=["explanation"]
# The judge calls two runs healthy that answer badly: the one without a graded stop token, and the
# one on another template.
#
# Usual mistakes: NaN tested with `==`; one high step taken for a saw-tooth.

# %% [markdown]
# ## 3 · Smoothing
#
# A step's loss is measured on 16 rows, so it jitters. The usual remedy is an **exponential moving
# average**: each step keeps the share β of what was before. Three mistakes are common: the average
# begins at 0 or at the first loss, every step counts alike whatever it graded, and the raw curve is
# hidden.

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

# %% [markdown] tags=["explanation"]
# Dividing by the weights is the *bias correction* of AdamW (chapter 04).
#
# Usual mistakes: a start at 0; a start at the first loss; NaN · 0, which is NaN.

# %% [markdown]
# **Predict.** Below, one healthy run is smoothed in three ways with β = 0.9. In which step does the
# start at 0 first agree with the honest curve to 0.1 nats?

# %% tags=["predict"]
run = runs["healthy"]
honest = smooth(run.losses, run.graded, beta=0.9)
from_zero, from_first, value = [], [], run.losses[0]
for step, loss in enumerate(run.losses):
    value = 0.9 * value + 0.1 * loss
    from_first.append(value)
    from_zero.append(value - 0.9 ** (step + 1) * run.losses[0])
_ = draw_smoothing(
    run.losses, {"from 0": from_zero, "from the first": from_first, "honest": honest}
)
apart = [abs(one - other) for one, other in zip(from_zero, honest, strict=True)]
agrees = next(step for step, gap in enumerate(apart) if gap < 0.1)
print(f"step {agrees}; at the end raw {run.losses[-1]:.2f}, honest {honest[-1]:.2f}")
assert from_zero[0] < 0.2 * run.losses[0] and 12 < agrees < 28 and honest[-1] > run.losses[-1]

# %% [markdown]
# **Read.** The curve from 0 *rises* in a run that falls, and is off for some twenty steps. The one
# from the first loss stays too high. The honest one still lags, as every average of the past does:
# it ends above the raw loss. So draw the raw curve behind it, and compare runs at one β.
#
# ## 4 · How high may the rate be?
#
# The gallery has a rate a hundred times too high. Where is the border?

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
assert highest_rate_run(base, tokenizer, rate=rate, seed=0) < 0.6

# %% tags=["check"]
check("18.4", rate)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Go up by factors of three from 1e-3 until it breaks. The border
# lies between the last two.</details>

# %% [markdown] tags=["explanation"]
# The highest rate that trains is not the best: at 3e-3 the loss ends lower.
#
# Usual mistakes: the first rate that trains; one seed.

# %% [markdown]
# ## 5 · Training loss beside evaluation
#
# A **training loss** says how well the run fits what it reads. An **evaluation loss** is measured
# on rows that it never reads. When the first falls and the second rises, the model *over-fits*: it
# learns the rows instead of the task. Compare them on the same footing: one mask, one template, the
# mean over tokens, no dropout.
#
# The base learns 112 facts that it never read, six times over. The evaluation's 93 rows are other
# such facts, which nobody can know.
#
# **Predict.** When the evaluation loss begins to rise, what does the evaluation's token accuracy
# do?

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
    print(
        f"epoch {number}: evaluation loss {one['loss']:.2f}, token accuracy {one['accuracy']:.1%}"
    )
print(f"training rows at the end: {on_train['loss']:.3f}, {on_train['accuracy']:.1%}")
lowest = min(range(len(held)), key=lambda i: held[i]["loss"])
assert lowest in (1, 2) and held[-1]["loss"] > 1.04 * held[lowest]["loss"]
assert on_train["loss"] < 0.1
assert held[-1]["accuracy"] > held[lowest]["accuracy"] - 0.02

# %% [markdown]
# **Read.** The evaluation loss turns early. The accuracy does not fall with it: it asks which token
# ranks first, and the loss also asks how sure the model is. It grows surer of guesses. So a rising
# loss alone does not say that answers get worse: choose by the measure you care about.
#
# An evaluation needs the right rows, too. If another wording of a trained fact stands among them,
# its loss falls with the training loss.

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
def choose_eval(rows: list[dict[str, str]], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Places of the rows to train on, and of those to evaluate on."""
    raise NotImplementedError


# %% tags=["solution"]
def choose_eval(rows: list[dict[str, str]], share: float, seed: int) -> tuple[list[int], list[int]]:
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

# %% [markdown] tags=["explanation"]
# Drawn by topic, the evaluation has the mix of the training rows.
#
# Usual mistakes: rows drawn at random; one row of a chosen fact; shares of rows.

# %% [markdown]
# ## 6 · What no curve shows
#
# Now we measure. Fourteen runs, five seeds each: those of the gallery, a *mean of means* over four
# parts of a batch, and one *resumed badly*: from step 20 on, optimizer, rates and row order begin
# anew. A curve's distance is its mean absolute difference from the healthy runs of the other seeds.
# Healthy runs measured so are the noise floor, A against A.
#
# **Claim.** A fault that spoils the answers moves the loss curve out of the healthy band. Primary
# measure: the distance of the smoothed training loss. *Answers*: the share of 60 right ones, asked
# in the chat template.
#
# **Predict.** Which faults spoil the answers and leave the loss inside the band?

# %% tags=["predict"]
CURVES = {"losses": "training loss", "evals": "evaluation loss", "norms": "gradient norm"}
healthy_right = recorded.measured("right", cause="healthy")
words, table = {}, {}
for cause in list(CAUSES)[1:]:
    for name in CURVES:
        apart = [
            distances(recorded, of, name, uniform=math.log(vocabulary)) for of in ("healthy", cause)
        ]
        words[cause, name] = judge_claim(*apart, claim="higher").word
    right = recorded.measured("right", cause=cause)
    words[cause, "answers"] = judge_claim(healthy_right, right, claim="lower").word
    share = f"{words[cause, 'answers']} {sum(right) / len(right):.0%}"
    table[cause] = [*(words[cause, name] for name in CURVES), share]
usual = sum(healthy_right) / len(healthy_right)
_ = draw_table(
    table,
    [f"{text}\ntells it" for text in CURVES.values()] + [f"answers worse\n(healthy {usual:.0%})"],
    "What each curve tells from a healthy run",
)

# %% tags=["predict"]
spoilt = [cause for cause in table if words[cause, "answers"] == "held"]
missed = [cause for cause in spoilt if words[cause, "losses"] != "held"]
told = sum(words[cause, "losses"] == "held" for cause in table)
print(f"told apart by the training loss: {told} of {len(table)}")
print(f"spoil the answers: {len(spoilt)}; of these the training loss misses {missed}")
stop = {cause: recorded.measured("stop", cause=cause) for cause in ("healthy", "stop not graded")}
print("the stop token's loss at the end:", {cause: max(loss) for cause, loss in stop.items()})
right = {cause: recorded.measured("right", cause=cause) for cause in table}
assert missed == ["other template"] and told == 9
assert max(stop["healthy"]) < 1.5 < 15 < min(stop["stop not graded"])
for one, other, healthy in zip(
    right["prompt graded"], right["stop not graded"], healthy_right, strict=True
):
    assert max(one, other) < healthy

# %% [markdown]
# **Read.** The claim *held* for six of the seven faults that spoil the answers. For *other
# template* it is *not shown*: the training loss is as healthy as any, and 8 % of the answers are
# right. Two runs stand out by looking *better*: without a graded stop token the loss is lower,
# without warm-up it falls faster. Few rows show in the gradient norm alone. The mean of means and
# the bad resume show nowhere in runs so short. Graded prompts and ungraded stop tokens answer worse
# in every seed, by less than twice the noise; the stop token's own loss, above, tells the second at
# once.
#
# One number has no noise at all: the evaluation before the first step, on fixed rows.

# %%
before = {cause: recorded.measured("evals", cause=cause)[0][0] for cause in CAUSES}
moved = {cause: value for cause, value in before.items() if abs(value - before["healthy"]) > 0.01}
print(f"expected {first['base']:.2f}, healthy {before['healthy']:.2f}; others:", moved)
assert abs(before["healthy"] - first["base"]) < 0.01
assert set(moved) == {"prompt graded", "stop not graded", "nothing graded", "other template"}

# %% [markdown]
# **Read.** The four faults of mask and template stand out before a weight has moved; that is how
# the evaluation loss told *other template*. So encode rows as the model will be *asked*, and
# compare.
#
# ### "Lower, so it is better"
#
# **Predict.** People report that a graded prompt lowers the loss. Here each row has one
# instruction in front. Does it? Take answers that can be learned, then answers of other rows.


# %% tags=["predict"]
def ends_of(cause: str) -> list[float]:
    """Mean loss of the last five steps, a number a seed."""
    return [sum(losses[-5:]) / 5 for losses in recorded.measured("losses", cause=cause)]


for answers, what in {"policy": "own answers", "policy, other answers": "other answers"}.items():
    alone, both = ends_of(answers), ends_of(f"{answers}, all graded")
    words[answers] = judge_claim(alone, both, claim="lower").word
    print(f"{what:14} {sum(alone) / 3:.2f}, prompt graded {sum(both) / 3:.2f}: {words[answers]}")
assert words["policy"] == "did not hold" and words["policy, other answers"] == "held"

# %% [markdown]
# **Read.** It depends on which tokens are dearer. Learnable answers cost less than questions, so
# the loss *rises*. Answers of no sense cost more, and it falls. Never compare losses of different
# masks.
#
# ### A real model
#
# The upper ten layers of SmolLM2-135M learn twelve invented facts in three epochs. The same claim,
# three seeds, for two of the faults: *rate too high* and *other template*. **Predict** the verdicts.

# %% tags=["predict"]
real = read_results("18_smollm2")
for cause in ("rate too high", "other template"):
    apart = [distances(real, of, "losses", uniform=math.log(49152)) for of in ("healthy", cause)]
    asked = [real.measured("asked", cause=of) for of in ("healthy", cause)]
    words[cause, "real"] = judge_claim(*apart, claim="higher").word
    words[cause, "asked"] = judge_claim(*asked, claim="higher").word
    print(f"{cause}: the loss tells it: {words[cause, 'real']}; asked in the chat template it is")
    print(f"  worse: {words[cause, 'asked']} ({sum(asked[1]) / 3:.2f} nats a token)")
assert words["rate too high", "real"] == words["rate too high", "asked"] == "held"
assert words["other template", "real"] == words["other template", "asked"] == "not shown"

# %%
curves = torch.tensor(real.measured("losses", cause="healthy"))  # (seeds, steps), 3 an epoch
ax = plots.curve(
    range(9),
    {"healthy": curves},
    xlabel="step (dotted: a new epoch)",
    ylabel="loss (nats per token)",
    title="A real model falls at the first border of an epoch",
)
_ = [ax.axvline(border, color=plots.MUTED, linestyle=":") for border in (2.5, 5.5)]
inside, border = curves[:, 3] - curves[:, 5], curves[:, 2] - curves[:, 3]
found = judge_claim(inside.tolist(), border.tolist(), claim="higher")
print(f"first border over inside of epoch 2: {found.mean:+.2f} nats, {found.word}")
assert found.word == "held"

# %% [markdown]
# **Read.** The rate a hundred times too high *held*. The other template is *not shown* on the loss
# here, either, and spoils little: this model knew its chat template before. The curve is silent
# either way.
#
# The healthy run looks like a **staircase**: a fall of a nat at the first border, little inside the
# second epoch. Rows come back, and the model may remember them. We ran no control on new rows.
#
# ## What to remember
#
# - Compute the first loss before the run: ln V for a guess, the loss of counting, the base's own.
#   It names faults of mask and template.
# - A curve shows rates, order and broken numbers by its shape, a wrong mask by its level alone.
# - It does not show a template that nobody asks in. Ask the model.
# - Lower is not better where mask, rows or template differ.
# - Smooth by tokens, with the raw curve behind. No fact on both sides of an evaluation.
#
# With dozens of verdicts a few are luck, and thresholds of a small model do not carry over.
#
# ## Sources
#
# - 0.0 or NaN when nothing is graded: trl#6668, trl PR #6320, happy-llm#50; overflow:
#   stanford_alpaca#298.
# - A graded prompt behind a normal curve: nanochat PR #582.
# - Means of means: transformers PR #34191, #46204.
# - After a resume: transformers#23099, #27749.
# - Templates that differ: QwenLM/Qwen3#112.
#
# <details><summary>中文要点</summary>
#
# 1. **先算第一步的损失**：均匀猜测是 ln V；只数词频是“计数损失”；还有基座自己的损失。它没有噪声，能看出**掩码**和**模板**的错误。
#
# 2. **看得见的**：学习率过高（发散）或过低（不动）、数据没有打乱（锯齿）、损失恒为 0.0（没有任何监督的
# token）、NaN（0/0 或溢出）。提示词被计入损失、停止符没有监督：看**水平**，不看形状。
#
# 3. **看不见的**：训练模板与提问模板不同：曲线完全正常，回答几乎全错。要直接提问。
#
# 4. **“更低”不等于“更好”**：掩码、数据、模板不同的损失不能比较。
#
# 5. **平滑**：保留原始曲线，按 token 数加权，做偏差修正。**验证集**：同一事实不能同时出现在两边；验证损失上升时，准确率不一定下降。
#
# </details>
