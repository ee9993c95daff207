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
# | chapters 04, 05 and 09 | CPU, no network | about 50 s | 5, about 40 minutes | D5, part of D6 and D18 |

# %% tags=["setup"]
from collections import Counter

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
    between,
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

# %%
for talk, text in list(zip(exam_of("convention"), answer_exam(after_b, tokenizer, exam_of("convention")), strict=True))[:4]:
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
    model = between(after_a, after_b, float(share))
    for task, rows in tasks.items():
        path[task].append(evaluate(model, tokenizer, rows)["loss"])
ax = plots.curve(
    shares,
    {"task A": [path["convention"]], "task B": [path["skills"]]},
    xlabel="way from the weights after A (0) to those after B (1)",
    ylabel="nats per token",
    title="One loss falls, the other rises",
)
assert path["convention"][0] < 0.2 * path["convention"][-1]
assert path["skills"][-1] < 0.2 * path["skills"][0]

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
    dot = sum((a * b).sum().item() for a, b in zip(old, new) if a is not None and b is not None)
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
# > **Claims.** Each switch leaves more of task A than the plain run does. Primary measure: A's loss
# > on its exam, in nats per token, which still moves when no answer is right any more. Beside it:
# > the share of right answers to A and to B.
#
# **Predict:** which of the switches brings right answers back?

# %% tags=["predict"]
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


def judge(arm: str, measure: str = "old_loss", claim: str = "lower", to: str = "plain"):
    """The verdict on an arm against another one."""
    first, second = (recorded.measured(measure, arm=name) for name in (to, arm))
    return judge_claim(first, second, claim=claim)


print(f"{'':38}  A right  its fact  B right   A's loss")
for label, arm in {"plain": "plain", **SWITCHES}.items():
    means = [np.mean(recorded.measured(m, arm=arm)) for m in ("old", "fact", "new", "old_loss")]
    word = judge(arm).word if arm != "plain" else ""
    print(f"{label:38} {means[0]:8.0%} {means[1]:9.0%} {means[2]:8.0%} {means[3]:10.2f}  {word}")
