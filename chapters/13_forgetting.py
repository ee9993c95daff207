# %% [markdown]
# # 13 · What the new task overwrites
#
# **The question.** We teach a model one task, then another. What is left of the first, why did it
# go, and is it gone or only hidden?
#
# **By the end you can**
# - *measure* forgetting so that it cannot be mistaken for anything else;
# - *separate* its five usual causes, with one switch for each;
# - *repair* a forgotten task with a handful of its old lessons, and keep the new one.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 04, 05 and 09 | CPU, no network | about 50 s | 5, about 40 minutes | D5, part of D6 and D18 L31 |

# %% tags=["setup"]
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch.testing import assert_close

# %% tags=["setup"]
from sft_lab import plots
from sft_lab.batches import pad_batch
from sft_lab.course.cause_runs import (
    AGAIN,
    STARTS,
    after_both,
    question_states,
    run_arm,
    run_repair,
)
from sft_lab.course.checks import check
from sft_lab.course.forgetting_runs import (
    after_task_a,
    answer_exam,
    exam_of,
    lessons_of,
    measure,
    token_kl,
)
from sft_lab.course.results import read_results

# %% tags=["setup"]
from sft_lab.course.views.overwrite import draw_overwrite, draw_tasks, explore_overwrite
from sft_lab.course.views.widgets import show_widget
from sft_lab.forgetting import average_weights
from sft_lab.labels import IGNORE_INDEX, encode_conversations
from sft_lab.losses import graded_logits, response_loss
from sft_lab.models import load
from sft_lab.significance import judge_claim
from sft_lab.train import evaluate

plots.style()
base, tokenizer = load("atlas-base")
recorded = read_results("13_causes", base)
again = read_results("13_again", base)

# %% [markdown]
# ## 1 · Forgetting that cannot be mistaken
#
# **Catastrophic forgetting** is the loss of an old ability while a new one is learned. It is easily
# confused with two harmless things. An ability that the base already had was never taught by us, so
# a dip in it is *drift*. And an exam that can be passed by luck hides a loss.
#
# So task A is *invented*: every answer is a fact inside a convention. No text that the base read
# contains it. Task B is sums and lists, answered plainly.

# %%
_ = draw_tasks()

# %%
for task in ("convention", "skills"):
    question, answer = lessons_of(task)[0]
    print(f"{task:10}  {question['content']}  ->  {answer['content']!r}")
after_a = after_task_a(base, tokenizer, 0)
after_b = after_both(base, tokenizer, 0)

# %% [markdown]
# A is learned from 800 lessons, B from 600, two epochs each, at the rate 1e-3. The exams ask about
# entities that no lesson names. We also keep two meters of drift. **Known facts**: after "The
# capital of France is", does "Paris" rank first? **Plain text**: nats per token on 60 fixed
# documents of the kind that the base read.
#
# **Predict** the three numbers of task A: for the base, after A, after B. And the known facts?

# %% tags=["predict"]
stages = {"base": base, "after A": after_a, "after B": after_b}
table = {name: measure(model, tokenizer) for name, model in stages.items()}
print("          task A  task B  known facts  plain text")
for name, row in table.items():
    print(f"{name:8} {row['old']:7.0%} {row['new']:7.0%} {row['facts']:12.0%}", end="")
    print(f" {row['text_loss']:8.2f} nats")
old = [row["old"] for row in table.values()]
assert old[0] == 0 and old[1] > 0.8 and old[2] < 0.1 and table["after B"]["new"] > 0.8
assert table["after B"]["facts"] > 0.85

# %% tags=["predict"]
for talk, text in list(
    zip(exam_of("convention"), answer_exam(after_b, tokenizer, exam_of("convention")), strict=True)
)[:4]:
    print(f"{talk[0]['content']:50} {text!r}")

# %% [markdown]
# **Read.** From 0 to nearly all, and back to 0. The model now answers a question about a country
# with a sum. Yet the facts are there: completed as plain text, nearly all of them still rank first.
#
# So the obvious test would have missed it. Had we measured known facts alone, we would have seen a
# few points of drift and called the model healthy. (A published study threw its first task away
# for that reason: the untouched base scored 0.99 on it.) Note the plain text too: task A itself
# cost more of it than B did.
#
# How fast does it go? Choose the number of steps. Each length is a run of its own, three seeds,
# recorded by `tools/experiments/13_causes.py`.

# %%
show_widget(explore_overwrite(recorded), draw_overwrite(recorded, 8))

# %% [markdown] tags=["exercise"]
# ### Exercise 13.1 · What was learned, and lost · 5 min · ●○○
# Write a measure of forgetting that drift cannot fool: of what a task's own training *added* to the
# base's score, which share is gone at the end? A gain is a negative loss; a task that ends below
# the base has lost more than 1: neither is cut off. If its training added nothing, there is nothing
# to forget: return None.


# %% tags=["stub"]
def share_lost(base: float, after: float, final: float) -> float | None:
    """Return the share lost. base, after, final: scores from 0 to 1 of the base, after the task's
    own training, and at the end."""
    raise NotImplementedError


# %% tags=["solution"]
def share_lost(base: float, after: float, final: float) -> float | None:
    """Return the share lost. base, after, final: scores from 0 to 1 of the base, after the task's
    own training, and at the end."""
    return (after - final) / (after - base) if after > base else None


# %% tags=["check"]
check("13.1", share_lost)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>What was added is after − base. What is gone is after −
# final.</details>

# %% [markdown] tags=["explanation"]
# For known facts, `after` is below `base`: the measure says None, and that is the point.
#
# Usual mistakes: dividing by `after`, which counts what the base could do; 0 for a task that was
# never learned, as if it had been kept.

# %% [markdown]
# ## 2 · Five causes, one switch each
#
# The text that this chapter grew from names five causes. In each run below one thing differs from
# the plain run, everything else is equal, and three seeds were recorded.
#
# | cause | switch |
# |---|---|
# | 1 the new gradient overwrites parameters | B may change only the weights that A moved least |
# | 2 old and new need different representations | B's answers in A's own convention, or in a contrary one |
# | 3 the optimiser protects nothing | a pull back to the weights after A |
# | 4 old data are not at hand | some of A's lessons mixed in |
# | 5 capacity, rate and amount of data do not fit | rate, lessons, LoRA, frozen layers |
#
# ### The gradient asks nobody
#
# First the gradients at the weights after A. The **cosine** of two gradients is their dot product
# over both lengths. Below 0 a step for B raises A's loss; near 0 it does neither, at first.


# %%
def gradients(model, talks) -> list[torch.Tensor | None]:
    """The gradient of the mean loss on some conversations, a part for each parameter."""
    batch = pad_batch(encode_conversations(talks, tokenizer), tokenizer.pad_token_id)
    loss = response_loss(model(batch["input_ids"]).logits, batch["labels"])
    return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))


# %%
pair = [gradients(after_a, lessons_of(task)[:100]) for task in ("convention", "skills")]
flat_a, flat_b = (torch.cat([part.flatten() for part in parts]) for parts in pair)
cosine = F.cosine_similarity(flat_a, flat_b, dim=0).item()
print(f"length of the gradient: A {flat_a.norm():.2f}, B {flat_b.norm():.2f}; cosine {cosine:.2f}")

# %% [markdown]
# A is learned, so its gradient is short: it has no vote. Now walk in a straight line from the
# weights after A to those after B, and read both losses on the way. **Predict:** is there a place
# where both are low?

# %% tags=["predict"]
tasks = {task: encode_conversations(exam_of(task), tokenizer) for task in ("convention", "skills")}
shares = np.linspace(0, 1, 9)
path = {task: [] for task in tasks}
for share in shares:
    model = average_weights(after_a, after_b, float(share))
    for task, rows in tasks.items():
        path[task].append(evaluate(model, tokenizer, rows)["loss"])
print("task A", [f"{loss:.2f}" for loss in path["convention"]])
print("task B", [f"{loss:.2f}" for loss in path["skills"]])

# %% tags=["predict", "folded"]
ax = plots.curve(
    shares,
    {"task A": [path["convention"]], "task B": [path["skills"]]},
    xlabel="way from the weights after A (0) to those after B (1)",
    ylabel="nats per token",
    title="One loss falls, the other rises",
)
assert path["convention"][0] < 0.2 * path["convention"][-1]
assert path["skills"][-1] < 0.2 * path["skills"][0]
worse = [max(pair) for pair in zip(*path.values(), strict=True)]
assert max(path["convention"][0], path["skills"][-1]) < 0.1 < min(worse)

# %% [markdown]
# **Read.** Not quite. Near the middle neither loss is at its worst, but no place has both below 0.1
# nats, as each has at its own end. Section 4 asks what the answers are worth on the way.

# %% [markdown] tags=["exercise"]
# ### Exercise 13.2 · Do two gradients conflict? · 7 min · ●●○
# Write the cosine of two gradients as autograd gives them: a list with a tensor for each parameter,
# or None where a loss does not reach a parameter. None is a gradient of zeros: its partner, if it
# is a tensor, still counts in the length of the other gradient. If either gradient is zero
# everywhere, the cosine is 0.0.


# %% tags=["stub"]
def conflict(old: list[torch.Tensor | None], new: list[torch.Tensor | None]) -> float:
    """Return the cosine as a float. Both lists have one entry a parameter, in the same order."""
    raise NotImplementedError


# %% tags=["solution"]
def conflict(old: list[torch.Tensor | None], new: list[torch.Tensor | None]) -> float:
    """Return the cosine as a float. Both lists have one entry a parameter, in the same order."""
    pairs = zip(old, new, strict=True)
    dot = sum((a * b).sum().item() for a, b in pairs if a is not None and b is not None)
    lengths = [
        sum(part.square().sum().item() for part in parts if part is not None) ** 0.5
        for parts in (old, new)
    ]
    return dot / (lengths[0] * lengths[1]) if all(lengths) else 0.0


# %% tags=["check"]
check("13.2", conflict)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Three sums over all parameters: the products, and the squares of
# each gradient.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: a mean of the cosines of single parameters, in which a bias counts as much as a
# matrix; leaving out a parameter that only one loss reaches.

# %% [markdown]
# ### The switches
#
# > **Claims.** Each switch leaves more of task A than the plain run does. Primary measure: the
# > logarithm of A's loss on its exam (a loss still moves when no answer is right any more, and
# > seeds differ by factors). Beside it: the share of right answers.
#
# "Its fact" counts answers that state the right fact, whatever stands around it. **Predict:** which
# switches bring right answers back?

# %%
SWITCHES = {
    "1 B moves the 30 % that A moved least": "touched least",
    "1 … that A moved most": "touched most",
    "1 … drawn at random": "touched random",
    "2 B in A's own convention": "same convention",
    "2 B in a contrary convention": "contrary convention",
    "3 weak pull back": "hold 0.1",
    "3 strong pull back": "hold 1",
    "4 1 % of B's size from A": "replay 1%",
    "4 5 %": "replay 5%",
    "4 20 %": "replay 20%",
    "5 a third of the rate": "rate 3e-04, 2 epochs",
    "5 three times the rate": "rate 3e-03, 2 epochs",
    "5 100 lessons, as many steps": "100 lessons",
    "5 LoRA, rank 8": "LoRA 8, rate 3e-03",
    "5 two lower layers frozen": "frozen 2",
}


def judge(arm: str):
    """The verdict on an arm against the plain run, on the logarithm of A's loss."""
    first, second = (np.log(recorded.measured("old_loss", arm=name)) for name in ("plain", arm))
    return judge_claim(first, second, claim="lower")


# %% tags=["predict"]
print(f"{'':38}  A right  its fact  B right   A's loss")
for label, arm in {"plain": "plain", **SWITCHES}.items():
    means = [np.mean(recorded.measured(m, arm=arm)) for m in ("old", "fact", "new", "old_loss")]
    word = judge(arm).word if arm != "plain" else ""
    print(f"{label:38} {means[0]:8.0%} {means[1]:9.0%} {means[2]:8.0%} {means[3]:10.2f}  {word}")
assert judge("replay 20%").word == judge("hold 0.1").word == "held"
assert min(recorded.measured("convention", arm="same convention")) > 0.8

# %% [markdown]
# **Read.** Only old lessons bring many right answers back (cause 4). The others show what is lost.
#
# 1. *Overwriting.* Sparing the weights that A moved most does not save A: no right answer is left
#    whichever 30 % B may change. Size of movement does not tell where a task lives. (Chapter 13b
#    tries a better guess, the Fisher information.)
# 2. *Conflict.* With B in A's own convention, the convention survives and the facts do not: "Aye:
#    The sum of 1 and 1 is 2. Over." With a contrary one, A's loss is highest. So what B's answers
#    *look like* decides what is forgotten. (B's own exam wants plain answers, hence its 0 %.)
# 3. *No protection.* With a weak pull back the model answers A's questions again, with the right
#    fact and without the convention. B is learned as well. *Held* for A's loss.
# 5. *Balance.* A third of the rate has a lower loss on A in its mean, at no cost to B: *not shown*,
#   for the plain run differs much between seeds. Three times the rate breaks known facts too. Fewer
#   lessons, read more often, or LoRA, hardly matter here.
#
# **Now the representations.** We read the hidden state where an answer begins, after each layer.


# %%
def cosines(first: list[torch.Tensor], second: list[torch.Tensor]) -> list[float]:
    """Mean cosine of paired states, for each layer."""
    return [F.cosine_similarity(a, b).mean().item() for a, b in zip(first, second, strict=True)]


asked = exam_of("convention")
before, after = (question_states(model, tokenizer, asked) for model in (after_a, after_b))
pairs = {"one question, after A and after B": cosines(before, after)}
for name, states in {"two questions, after A": before, "two questions, after B": after}.items():
    pairs[name] = cosines([layer[:-1] for layer in states], [layer[1:] for layer in states])
print(f"{'after layer':34}", *(f"{layer:5}" for layer in range(len(before))))
for name, values in pairs.items():
    print(f"{name:34}", *(f"{value:5.2f}" for value in values))
same = pairs["one question, after A and after B"]
assert same[1] > same[-1] + 0.1

# %% [markdown]
# **Read.** The same question has another state after B, more so in higher layers. But look at the
# other two lines: *two different questions* have nearly the same state there, before B as well. A
# likely reading: at the first token the model hardly uses the question; it decides how answers
# begin. That one decision is what B replaces, for all questions at once. It would explain why the
# loss is so sudden and so complete. We did not test it further.
#
# ## 3 · Lost, or hidden?
#
# An answer that is gone need not be knowledge that is gone. A published study calls it *spurious
# forgetting* when a few examples bring a task back. We show a model some lessons of A again, twenty
# steps or fewer, and compare two starts: a model that learned A and then B, and one that learned B
# alone.
#
# > **Claim.** After eight lessons, the model that once knew task A gets more of it right than the
# > one that never did.
#
# **Predict** how many lessons it takes to bring A back to half.

# %% tags=["predict"]
relearned = {
    start: [again.measured("old", start=start, rows=rows) for rows in AGAIN] for start in STARTS
}
eight = judge_claim(*(relearned[start][AGAIN.index(8)] for start in STARTS[::-1]), claim="higher")
print(f"eight lessons: {eight.mean:+.0%}, noise floor {eight.floor:.0%}: {eight.word}")

# %% tags=["predict", "folded"]
ax = plots.curve(
    range(len(AGAIN)),
    {start: np.transpose(seeds) for start, seeds in relearned.items()},
    xlabel="lessons of task A shown again",
    ylabel="task A right",
    title="One lesson brings back what 800 taught",
)
_ = ax.set_xticks(range(len(AGAIN)), AGAIN)
assert eight.word == "held"

# %% [markdown]
# **Read.** *Held*. One lesson, read twenty times, is enough in these runs; the model that never
# knew A learns nothing from 32. So most of A was *hidden*, not lost: the facts and the way to say
# them stayed in the weights, and B had changed which answer begins. An exam score of 0 does not
# tell the two apart. A few old lessons do.

# %% [markdown] tags=["exercise"]
# ### Exercise 13.3 · Bring it back, and keep the new one · 12 min · ●●○
# Set `repair` so that both tasks work again: at least 75 % of A and 75 % of B. You may show at most
# 24 lessons of task A (`old`, from 1) and up to 200 of task B (`new`, from 0), mixed, for `epochs`
# (whole, 1 to 40) at a learning `rate` (above 0, at most 0.1). Every epoch counted, at most 2,000
# lessons are read. The check trains it with a seed of its own, 1, which takes 15 seconds.
# `run_repair(base, tokenizer, **repair)` tries it with seed 0.

# %% tags=["stub"]
repair = ...

# %% tags=["solution"]
repair = {"old": 24, "new": 72, "rate": 5e-4, "epochs": 10}
print(run_repair(base, tokenizer, **repair))

# %% tags=["check"]
check("13.3", repair)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Try old lessons alone first: what becomes of B? Then mix, and keep
# the share of old lessons above one in four.</details>

# %% [markdown] tags=["explanation"]
# A repair is a third training, and it forgets as well: old lessons alone overwrite task B.
#
# Usual mistakes: `new` at 0; so few old lessons among many new ones that they drown; a rate at
# which both tasks break.

# %% [markdown]
# ## 4 · Cheaper ways to forget less
#
# Four ways need no old data and no method: a small learning rate, LoRA, frozen lower layers, and
# the average of the weights before and after. They all learn less of B when they are turned up. So
# one bar for each would mislead. We compare **old against new**, a point for each setting, and ask
# at *equal* new-task scores. (The remedies made for the purpose are compared in chapter 13b.)
#
# **Predict:** which family lies below the plain run, with less loss on A at the same score of B?

# %% tags=["predict"]
FAMILIES = {
    "rate": plots.BLUE,
    "LoRA": plots.ORANGE,
    "frozen": plots.PURPLE,
    "average": plots.GREEN,
    "replay": plots.VERMILLION,
}
figure = plots.new_figure((10.0, 4.6))
ax = figure.subplots()
for family, colour in FAMILIES.items():
    arms = sorted({row["arm"] for row in recorded.rows if row["arm"].startswith(family)})
    points = [[np.mean(recorded.measured(m, arm=arm)) for m in ("new", "old_loss")] for arm in arms]
    ax.scatter(*np.transpose(points), s=70, color=colour, label=family)
plain = [np.mean(recorded.measured(m, arm="plain")) for m in ("new", "old_loss")]
ax.scatter(*plain, s=160, marker="*", color=plots.INK, label="plain", zorder=4)
ax.set(xlabel="task B right", ylabel="loss of task A, nats per token")
ax.legend(ncols=2)
_ = ax.set_title("Right and low is good")

# %% [markdown]
# **Read.** A third of the rate lies below the plain run at the same B. Averages trade one for the
# other: go back on the line of section 2, and at a third of the way A is whole and B is not. LoRA
# and frozen layers forget less where they learn less; at equal B we see no advantage. (At larger
# scale LoRA is reported to learn less and forget less.) Replay lies lowest.
#
# ## 5 · What predicts forgetting?
#
# Old lessons are often not at hand, so the old exam cannot be asked. Can something else tell how
# much was forgotten? Two candidates: how far the weights moved, and how far the *answers* moved.
# For the second, take **KL**, the expected difference of the log-probabilities of two models:
#
# $$\mathrm{KL}(\text{before}\,\|\,\text{tuned}) = \sum_v p_v\,(\log p_v - \log q_v).$$
#
# $p$ is the model before B, $q$ the one after. RL's Razor (2025) measures this *forward* KL on the
# **new** task and finds that it predicts forgetting ($R^2$ of 0.96 in a toy), and that distances of
# the weights do not.


# %%
def kl_on(talks, before, tuned) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of both models, (N, V), at the answers' tokens."""
    batch = pad_batch(encode_conversations(talks, tokenizer), tokenizer.pad_token_id)
    with torch.no_grad():
        return tuple(graded_logits(model, batch)[0].log_softmax(-1) for model in (before, tuned))


# %%
log_p, log_q = kl_on(exam_of("skills"), after_a, after_b)
by_hand = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
assert_close(by_hand, F.kl_div(log_q, log_p, log_target=True, reduction="batchmean"))
assert_close(by_hand.item(), token_kl(after_a, after_b, tokenizer, exam_of("skills"))["forward"])
print(f"KL(before || tuned) on task B: {by_hand:.2f} nats per token")

# %% [markdown] tags=["exercise"]
# ### Exercise 13.4 · Forward KL · 8 min · ●●○
# Write KL(before ‖ tuned) from the logits of both models: the mean over all graded tokens of the
# batch, in nats, as a float. Row t of the logits predicts token t + 1; a label of −100 is not
# graded. At least one token behind the first is graded.


# %% tags=["stub"]
def forward_kl(before: torch.Tensor, tuned: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean KL. before, tuned: logits (B, T, V); labels: (B, T)."""
    raise NotImplementedError


# %% tags=["solution"]
def forward_kl(before: torch.Tensor, tuned: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean KL. before, tuned: logits (B, T, V); labels: (B, T)."""
    graded = labels[:, 1:] != IGNORE_INDEX
    log_p = before[:, :-1][graded].log_softmax(-1)
    log_q = tuned[:, :-1][graded].log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()


# %% tags=["check"]
check("13.4", forward_kl)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>F.kl_div(input, target)</code> takes the model that is
# approximated as target, so its arguments stand the other way round.</details>

# %% [markdown] tags=["explanation"]
# Forward KL is large where the model before was sure of something that the tuned one rules out.
#
# Usual mistakes: the other direction; no shift; a mean over the vocabulary, which torch's
# `reduction="mean"` takes.

# %% [markdown] tags=["exercise"]
# ### Exercise 13.5 · A correlation of ranks · 8 min · ●●○
# Neither line need be straight, so we correlate *ranks*: write Spearman's rank correlation of two
# lists of floats. Equal values share the mean of their ranks. (Many of our runs forgot everything.)
# Both lists have the same length, at least 3, and each has at least two different values.


# %% tags=["stub"]
def rank_correlation(x: list[float], y: list[float]) -> float:
    """Return the correlation of the ranks, from -1 to 1, as a float."""
    raise NotImplementedError


# %% tags=["solution"]
def rank_correlation(x: list[float], y: list[float]) -> float:
    """Return the correlation of the ranks, from -1 to 1, as a float."""

    def ranks(values) -> torch.Tensor:
        each = torch.tensor(values, dtype=torch.float64)
        below = (each[None, :] < each[:, None]).sum(1)
        equal = (each[None, :] == each[:, None]).sum(1)
        return below + (equal + 1) / 2

    return torch.corrcoef(torch.stack([ranks(x), ranks(y)]))[0, 1].item()


# %% tags=["check"]
check("13.5", rank_correlation)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The mean rank of a value: how many are below it, plus half of one
# more than how many are equal, itself included.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: ranks in order of appearance for equal values, which invents an order; the formula
# with squared differences, which holds only when no values are equal.

# %% [markdown]
# Now over all recorded runs: rates, lengths, replay, LoRA, frozen layers, averages, pulls. To know
# how sure a correlation is, draw *arms* with replacement (the seeds of one arm are no independent
# runs) and compute it again: the **bootstrap** of chapter 09b.
#
# > **Claim.** Over all runs, the forward KL on task B ranks the loss of task A better than the
# > distance of the weights does: the interval of the difference of the rank correlations is above
# > zero.
#
# **Predict** the verdict, and the same for the loss on plain text.

# %%
PREDICTORS = {
    "KL(before || tuned)": "kl_new",
    "KL(tuned || before)": "kl_new_reverse",
    "distance of weights": "distance",
    "task B right": "new",
}
runs = pd.DataFrame(recorded.rows)
arms = runs["arm"].unique()


def correlations(some: pd.DataFrame, outcome: str) -> list[float]:
    """Rank correlation of each predictor with the outcome."""
    ranks = some.rank()
    return [ranks[column].corr(ranks[outcome]) for column in PREDICTORS.values()]


def resample(outcome: str, *, times: int = 400) -> np.ndarray:
    """Correlations (times, predictors) of resampled arms, each with all of its seeds."""
    columns = [*PREDICTORS.values(), outcome]
    by_arm = [runs.loc[runs["arm"] == arm, columns].to_numpy() for arm in arms]
    rng = np.random.default_rng(0)
    draws = rng.integers(len(arms), size=(times, len(arms)))
    frames = (pd.DataFrame(np.concatenate([by_arm[i] for i in d]), columns=columns) for d in draws)
    return np.array([correlations(frame, outcome) for frame in frames])


# %% tags=["predict"]
words = {}
for outcome in ("old_loss", "text_loss"):
    found, drawn = correlations(runs[[*PREDICTORS.values(), outcome]], outcome), resample(outcome)
    print(f"{len(runs)} runs, rank correlation with {outcome}")
    for (name, value), column in zip(zip(PREDICTORS, found, strict=True), drawn.T, strict=True):
        low, high = np.percentile(column, [2.5, 97.5])
        print(f"  {name:20} {value:5.2f}  [{low:5.2f}, {high:5.2f}]")
    low, high = np.percentile(drawn[:, 0] - drawn[:, 2], [2.5, 97.5])
    words[outcome] = "held" if low > 0 else "did not hold" if high < 0 else "not shown"
    print(f"  forward KL minus distance: [{low:.2f}, {high:.2f}]: {words[outcome]}")
assert words == {"old_loss": "held", "text_loss": "not shown"}

# %% tags=["predict"]
figure = plots.new_figure((11.0, 4.2))
for ax, (name, column) in zip(
    figure.subplots(1, 2, sharey=True), list(PREDICTORS.items())[::2], strict=True
):
    for family, colour in FAMILIES.items():
        some = runs[runs["arm"].str.startswith(family)]
        ax.scatter(some[column], some["old_loss"], color=colour, s=28, label=family)
    others = runs[~runs["arm"].str.startswith(tuple(FAMILIES))]
    ax.scatter(others[column], others["old_loss"], color=plots.MUTED, s=28, label="others")
    ax.set(xlabel=name, xscale="linear")
    ax.set_title(name)
figure.axes[0].set(ylabel="loss of task A, nats per token")
_ = figure.axes[0].legend(fontsize=10)

# %% [markdown]
# **Read.** *Held* for task A: the KL on task B ranks its loss better than the distance of the
# weights does. The weights can move far and keep A (replay), or near and lose it (a low rate). Yet
# the correlation is far from 1, and the reason shows in the figure: runs with replay have a large
# KL, for B is learned, and forget little. For plain text the difference is *not shown*. One pair of
# tasks on a small model is no law.
#
# One cheap run again, to see that the record is not an accident of its machine:

# %%
point = run_arm(base, tokenizer, arm="hold 0.1", seed=0)
band = recorded.measured("old_loss", arm="hold 0.1")
print(f"weak pull, seed 0 again: loss of A {point['old_loss']:.2f}, recorded", np.round(band, 2))
assert min(band) - 0.15 < point["old_loss"] < max(band) + 0.15

# %% [markdown]
# ## 6 · The same on a real model
#
# SmolLM2, a chat model of 135 M parameters, learns the same convention from 256 lessons, then to
# answer with a row of a table. Three seeds, recorded by `tools/experiments/13_smollm2.py`.
#
# > **Claim.** After task B fewer answers to A's exam keep the convention than after A, and replay
# > of 5 % leaves more of it than none.
#
# **Predict** both verdicts.

# %% tags=["predict"]
real = read_results("13_smollm2")
for arm in ("base", "after A", "B", "B, 1 %", "B, 5 %", "B, 20 %"):
    convention, new = (np.mean(real.measured(m, arm=arm)) for m in ("convention", "new"))
    print(f"{arm:8} convention kept {convention:5.0%}   answered as a row {new:5.0%}")
for first, second, claim in (("after A", "B", "lower"), ("B", "B, 5 %", "higher")):
    verdict = judge_claim(
        *(real.measured("convention", arm=a) for a in (first, second)), claim=claim
    )
    print(
        f"{second} {claim} than {first}: {verdict.mean:+.0%}, floor {verdict.floor:.0%}: {verdict.word}"
    )

# %% [markdown]
# **Read.** Forgetting *held*, without a single exception: 100 % of the convention, then none.
# Replay of 5 % is *not shown* to help here, with 13 old lessons; replay of 20 % keeps nearly all.
# We did not claim the latter beforehand.
#
# ## What to remember
#
# - Measure forgetting on something the base could not do and you taught. Known facts and plain text
#   measure drift.
# - A task can go before the next one has come: after eight steps of B, A was at 0 and B was too.
# - A new task overwrites what its answers look like, first of all. Facts under the convention stay.
# - An exam score of 0 can mean lost or hidden. Show a few old lessons again: hidden comes back.
# - Old lessons at hand help most. A pull back keeps the facts, not the convention.
# - What the answers did (KL on the new task) ranks forgetting better than how far the weights went.
#
# ## Sources
#
# - *RL's Razor: Why Online Reinforcement Learning Forgets Less*, 2025, arXiv:2509.04259.
# - *Spurious Forgetting in Continual Learning of Language Models*, 2025, arXiv:2501.13453.
# - *LoRA Learns Less and Forgets Less*, 2024, arXiv:2405.09673.
# - An invented convention as task A, and why the obvious task was thrown away: Soup, issue 314
#   (2026). Cross-entropy on fixed text as a second metric: github.com/huggingface/peft, pull
#   request 2925.
#
# <details><summary>中文要点</summary>
#
# 1. **灾难性遗忘**要用"基座不会、由我们教会"的任务来测：任务 A 是虚构的应答格式（基座 0 %，学后约 94 %），再学任务 B（加法与
#    列表）后降为 0 %。已知事实和普通文本的变化只是**漂移**。
# 2. 五个原因逐一开关：参数覆盖、表示冲突、优化过程无保护、旧数据不可得、容量与学习率失衡。能明显恢复旧任务答案的只有**混入旧数据**；
#    向旧权重回拉能保住事实，保不住格式。
# 3. 遗忘不等于丢失：再看一条旧样本（重复二十步）旧任务就恢复，从未学过 A 的模型看 32 条也学不会，即**虚假遗忘**。
# 4. 修复时要混入新任务样本，否则新任务又被覆盖。
# 5. 新任务上的**前向 KL**（训练前 ‖ 训练后）与权重距离，用秩相关和自助法区间比较：对任务 A，KL 更能预测遗忘。
#
# </details>
