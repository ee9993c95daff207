# %% [markdown]
# # 04 · The training loop
#
# **The question.** A loss says how wrong the model is. What turns that number, step by step, into a
# model that answers, and how do you see whether it learns, memorises or breaks?
#
# **By the end you can**
# - *write* a whole run of SFT in plain PyTorch, in three functions of your own;
# - *choose* a learning rate and a length limit from what you measure;
# - *read* loss, token accuracy and perplexity, and say when a run memorises.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 01 to 03 | CPU, no network | about 35 s | 7, about 75 minutes | A6 A7 A8 A9 B1 B5 B12 L8 L23 |

# %% tags=["setup"]
import copy
import math
import random
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.testing import assert_close
from transformers import get_cosine_schedule_with_warmup

from sft_lab import atlas, plots
from sft_lab.batches import pad_batch
from sft_lab.course import plain_loop
from sft_lab.course.checks import check
from sft_lab.course.head_training import make_head_task, train_head
from sft_lab.course.results import read_results

# %% tags=["setup"]
from sft_lab.course.short_runs import share_right
from sft_lab.course.views.schedule import draw_schedule, draw_shape, explore_schedule
from sft_lab.course.views.training import (
    draw_cut,
    draw_fit,
    draw_rates,
    draw_rungs,
    draw_two_accuracies,
)
from sft_lab.course.views.widgets import show_widget
from sft_lab.examples import Example
from sft_lab.labels import IGNORE_INDEX, LabelError, encode_conversations
from sft_lab.losses import response_loss, token_nll
from sft_lab.models import load
from sft_lab.train import evaluate, learning_rate_at, train

# %% tags=["setup"]
plots.style()
base, tokenizer = load("atlas-base", dtype=torch.float32)
pad = tokenizer.pad_token_id
facts = atlas.split(atlas.load_facts())
SEEDS = (0, 1, 2)


def encode_facts(part: list, count: int, seed: int) -> list[Example]:
    """`count` facts, drawn and phrased as questions by `seed`, as encoded examples."""
    drawn = random.Random(seed).sample(part, count)
    return encode_conversations(atlas.ask(drawn, seed=seed), tokenizer)


# %% [markdown]
# ## 1 · One update
#
# Chapter 03 made batches: token ids, and labels that say what is graded. An **update** changes
# every weight a little, so that the loss of such a batch falls:

# %%
WITH_WEIGHTS = ("embedding", "norm1", "q", "k", "v", "o", "norm2", "gate", "up", "down")
_ = plots.decoder_layer(
    lit=(*WITH_WEIGHTS, "final_norm", "head"),
    title="Full fine-tuning moves every part with weights",
)

# %% [markdown]
# **Predict.** We update five times on the same eight examples. Does their loss fall by a tenth, by
# half, or by more?

# %% tags=["predict"]
batch = pad_batch(encode_facts(facts["train"], 8, seed=0), pad)
model = copy.deepcopy(base)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
losses = []
for _ in range(5):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    loss = response_loss(logits, batch["labels"])  # nats per graded token
    loss.backward()  # the gradient of the loss with respect to every weight
    optimizer.step()  # every weight moves against its gradient
    optimizer.zero_grad()  # or the next gradient is added to this one
    losses.append(loss.item())
print("  ".join(f"{value:.2f}" for value in losses), "nats per token")
assert losses[-1] < 0.5 * losses[0]

# %% [markdown]
# **Read.** By more than half, and in four updates: each loss is measured before its own update.
# This chapter's loop repeats these lines on other batches.
#
# ### What AdamW does with a gradient
#
# Gradients differ more than a thousandfold between weights, so a step of learning rate × gradient
# is right for few of them. **AdamW** keeps two running means for each weight, of its gradient $g$
# and of $g^2$:
#
# $$m \leftarrow 0.9\, m + 0.1\, g \qquad v \leftarrow 0.999\, v + 0.001\, g^2 \qquad
# \hat m = \frac{m}{1 - 0.9^t} \qquad \hat v = \frac{v}{1 - 0.999^t}$$
#
# $$w \leftarrow w - \eta \lambda w - \eta\, \frac{\hat m}{\sqrt{\hat v} + 10^{-8}}$$
#
# Here $\eta$ is the learning rate and $t$ the number of the step, from 1. $\lambda$, the weight
# decay, pulls each weight towards 0. Both means start at 0; the hats, $\hat m$ and $\hat v$,
# correct for that.
#
# **Predict.** How far does a weight move in the first step: in proportion to its gradient, or
# about $\eta$ whatever the gradient?

# %%
eta = 1e-3
model = copy.deepcopy(base)
optimizer = torch.optim.AdamW(model.parameters(), lr=eta, weight_decay=0.0)
response_loss(model(batch["input_ids"]).logits, batch["labels"]).backward()
before = torch.cat([w.detach().flatten() for w in model.parameters()])
g = torch.cat([w.grad.flatten() for w in model.parameters()])
optimizer.step()
after = torch.cat([w.detach().flatten() for w in model.parameters()])

# %% tags=["predict"]
sizes, moves = g.abs(), (after - before).abs() / eta
for share in (0.1, 0.3, 0.5, 0.7, 0.9):
    print(f"{share:.0%} of the gradients lie below {sizes.quantile(share):.0e}", end=", ")
    print(f"of the moves below {moves.quantile(share):.2f} learning rates")
# in step 1 the hats undo the factors 0.1 and 0.001: they are g and its square
assert_close(after, before - eta * g / ((g**2).sqrt() + 1e-8), rtol=0, atol=1e-6)
assert sizes.quantile(0.9) > 1000 * sizes.quantile(0.1)
assert 0.8 < ((moves - 1).abs() < 0.02).float().mean() < 1
# of the others, 1e-8 in the denominator counts
assert sizes[(moves - 1).abs() >= 0.02].max() < 6e-7

# %% [markdown]
# **Read.** In step 1, $\hat m / \sqrt{\hat v}$ is $g / |g|$: the sign. Most weights move by $\eta$,
# whether their gradient is large or small. So the learning rate is the size of a step.

# %% [markdown] tags=["exercise"]
# ### Exercise 4.1 · One step of AdamW · 10 min · ●●○
# Write step number $t$ for one weight tensor. Return the new weight and both means. The check runs
# several steps against `torch.optim.AdamW`.


# %% tags=["stub"]
def adamw_step(
    w: torch.Tensor,
    g: torch.Tensor,
    m: torch.Tensor,
    v: torch.Tensor,
    t: int,
    lr: float,
    weight_decay: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the new (w, m, v), all of one shape. t counts from 1; betas 0.9 and 0.999, eps
    1e-8."""
    raise NotImplementedError


# %% tags=["solution"]
def adamw_step(
    w: torch.Tensor,
    g: torch.Tensor,
    m: torch.Tensor,
    v: torch.Tensor,
    t: int,
    lr: float,
    weight_decay: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the new (w, m, v), all of one shape. t counts from 1; betas 0.9 and 0.999, eps
    1e-8."""
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
    return w - lr * weight_decay * w - lr * m_hat / (v_hat.sqrt() + 1e-8), m, v


# %% tags=["check"]
check("4.1", adamw_step)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Return the means without hats: the next step starts from them.
# Weight decay acts on the weight, never on the gradient.</details>

# %% [markdown] tags=["explanation"]
# The W stands for decoupled **w**eight decay: it shrinks the weight directly. Adam adds it to the
# gradient, and so divides it by $\sqrt{\hat v}$.
#
# Usual mistakes: no hats, which makes the first step 3.2 times too long; hats returned as means;
# decay inside the gradient; the root forgotten.

# %% [markdown]
# ## 2 · The learning rate
#
# ### Its shape
#
# At first the means of AdamW rest on few batches, so the rate begins low. It ends low too, so that
# the weights settle. The usual shape is a linear **warm-up**, then a **cosine decay**. **Predict**
# the rate of the very first step.

# %% tags=["predict"]
total, warmup, peak = 100, 10, 5e-4
shape = [learning_rate_at(t, total, peak=peak, warmup_steps=warmup) for t in range(total)]
optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
theirs = get_cosine_schedule_with_warmup(optimizer, warmup, total).lr_lambdas[0]
assert_close(shape, [peak * theirs(t) for t in range(total)])
_ = draw_shape(shape, warmup)
assert shape[0] == 0.0 and shape[warmup] == peak and math.isclose(shape[55], peak / 2)

# %% [markdown]
# **Read.** Zero, as in `transformers`: the first batch moves nothing.

# %% [markdown] tags=["exercise"]
# ### Exercise 4.2 · Warm-up and cosine · 6 min · ●○○
# Write the schedule. It must also work without warm-up.


# %% tags=["stub"]
def rate_at(step: int, total: int, warmup: int, peak: float) -> float:
    """Return the learning rate of a step; steps count from 0, `warmup` of `total` are warm-up."""
    raise NotImplementedError


# %% tags=["solution"]
def rate_at(step: int, total: int, warmup: int, peak: float) -> float:
    """Return the learning rate of a step; steps count from 0, `warmup` of `total` are warm-up."""
    if step < warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


# %% tags=["check"]
check("4.2", rate_at)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>How much of the way after the warm-up is done, from 0 to 1? Take
# the cosine of π times that.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: the cosine over all steps, which jumps at the end of the warm-up; the cosine
# without 1 + … and ½, which becomes negative; a warm-up that starts at 1, one step ahead.

# %% [markdown]
# ### Its height
#
# The sliders below train anew at every move. To be fast, only the *output head* learns here. The
# layers below it are frozen.
#
# **Predict**, then try 1e-4, then 3e-1, then 3e-1 with half of the steps as warm-up: does a longer
# warm-up repair a peak that is too high? Your last setting stays in grey.

# %%
task = make_head_task(base, tokenizer, encode_facts(facts["train"], 200, seed=0))
good = train_head(task, peak=1e-2, warmup_ratio=0.1, steps=100)
show_widget(explore_schedule(task), draw_schedule(good))

# %% tags=["predict"]
print(f"{'before':18} {good.before:5.2f} nats per graded token")
ends = {}
for peak, warmup_ratio in [(1e-4, 0.1), (1e-2, 0.1), (0.3, 0.1), (0.3, 0.5)]:
    run = train_head(task, peak=peak, warmup_ratio=warmup_ratio, steps=100)
    ends[peak, warmup_ratio] = run.after
    print(f"{peak:<6g} warm-up {warmup_ratio:.0%}  {run.after:5.2f}")
assert ends[1e-2, 0.1] < 0.75 * good.before < ends[1e-4, 0.1] < good.before
assert good.before < min(ends[0.3, 0.1], ends[0.3, 0.5])

# %% [markdown]
# **Read.** No. A rate too low barely moves the loss; one too high leaves it above the start. The
# long warm-up passes through good rates, but the peak comes all the same.
#
# Now the whole model: 15 steps of 16 questions, nine peaks, five seeds (recorded). **Predict** the
# peak with the lowest held-out loss, between 1e-5 and 1e-1. Does the loss rise faster below or
# above it?

# %% tags=["predict"]
recorded = read_results("04_rates", base)
here = plain_loop.try_rate(base, tokenizer, rate=1e-3, seed=0)["loss"]
_ = draw_rates(recorded, here)
mean = {rate: statistics.mean(recorded.measured("loss", rate=rate)) for rate in plain_loop.RATES}
before = recorded.rows[0]["before"]
for rate, loss in mean.items():
    print(f"{rate:5.0e} {loss:5.2f} nats, before training {before:.2f}")
band = recorded.measured("loss", rate=1e-3)
assert min(band) - 0.05 < here < max(band) + 0.05
assert min(mean, key=mean.get) == 3e-3 and mean[1e-2] > 3 * mean[3e-3]
assert mean[3e-2] > before > mean[1e-5]

# %% [markdown]
# **Read.** 3e-3 is best. At a third of it, and at three times it, the loss is three to four times
# as high. At ten times it, the model ends worse than it began: the loss rises faster above. Blogs
# give 1e-5 to 1e-4 for SFT: for models with billions of weights. There ours, with a million, learns
# slowly. So search with short runs, in factors of three, and stay below the rate that breaks.

# %% [markdown]
# ## 3 · Two guards around the update
#
# ### Clipping
#
# The gradients of all weights together are one long vector. In an odd batch it may be far longer.
# **Clipping** limits its length, the **global norm**; the direction stays.

# %%
model.zero_grad()
response_loss(model(batch["input_ids"]).logits, batch["labels"]).backward()
gradients = [w.grad.clone() for w in model.parameters()]
norm = torch.stack([(g**2).sum() for g in gradients]).sum().sqrt()  # one norm over all tensors
returned = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
assert_close(returned, norm, rtol=1e-4, atol=0)
for w, g in zip(model.parameters(), gradients, strict=True):
    assert_close(w.grad, g / norm, rtol=1e-4, atol=1e-7)  # every tensor by the same factor
print(f"norm {norm:.1f}, clipped to 1.0: every gradient is divided by {norm:.1f}")
assert norm > 2

# %% [markdown]
# AdamW divides by the size of past gradients. We give one weight the
# gradient 1 in every step, and 1,000 once, in step 30. **Predict.** Are the updates after step 30,
# without clipping, larger than before, the same, or smaller?


# %%
def update_sizes(max_norm: float) -> list[float]:
    """How far AdamW moves one weight in each of 300 steps, in learning rates."""
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.AdamW([w], lr=1.0, weight_decay=0.0)
    sizes = []
    for t in range(1, 301):
        before = w.item()
        w.grad = torch.tensor([1000.0 if t == 30 else 1.0])
        torch.nn.utils.clip_grad_norm_([w], max_norm)
        optimizer.step()
        sizes.append(before - w.item())
    return sizes


# %% tags=["predict"]
free, clipped = update_sizes(math.inf), update_sizes(1.0)
late = [statistics.mean(sizes[59:]) for sizes in (clipped, free)]
print(f"mean update from step 60 on: {late[0]:.2f} clipped, {late[1]:.3f} not clipped")

# %% tags=["predict", "folded"]
_ = plots.curve(
    range(1, 301),
    {"clipped at 1": clipped, "not clipped": free},
    xlabel="step",
    ylabel="update, in learning rates",
    colours=[plots.BLUE, plots.VERMILLION],
    title="After one outlier, AdamW without clipping nearly stops",
)
assert late[0] > 0.99 and late[1] < 0.1 and max(free) < 1.01

# %% [markdown]
# **Read.** Smaller. The outlier's *square* fades from $v$ slowly, by 0.999 a step, and
# $\sqrt{\hat v}$ divides every later update. Clipping keeps it out.

# %% [markdown] tags=["exercise"]
# ### Exercise 4.3 · Clip by the global norm · 6 min · ●●○
# Return the clipped gradients; leave the tensors you are given as they are. A gradient that is
# short enough stays as it is.


# %% tags=["stub"]
def clip(gradients: list[torch.Tensor], max_norm: float) -> list[torch.Tensor]:
    """Return the gradients, scaled so that their global norm is at most max_norm. Shapes may
    differ."""
    raise NotImplementedError


# %% tags=["solution"]
def clip(gradients: list[torch.Tensor], max_norm: float) -> list[torch.Tensor]:
    """Return the gradients, scaled so that their global norm is at most max_norm. Shapes may
    differ."""
    norm = torch.stack([(g**2).sum() for g in gradients]).sum().sqrt()
    scale = min(1.0, max_norm / norm.item()) if norm > 0 else 1.0
    return [g * scale for g in gradients]


# %% tags=["check"]
check("4.3", clip)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Add the squares of all tensors first, then take one
# root.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: a norm for each tensor, or a clamp of each number, which both turn the direction;
# scaling short gradients *up*; 0 / 0 when every gradient is 0.

# %% [markdown]
# ### Accumulation
#
# A batch of 32 does not fit into memory? Then run four micro-batches of 8, add up their gradients,
# and update once. The loss is the mean of their four means (chapter 01). **Predict.** By
# how much does its gradient differ from that of the whole batch: by less than 1 %, or more?


# %%
def gradient_of(micro_batches: list, divisors: list[float]) -> torch.Tensor:
    """The added gradients of all micro-batches; each loss is a sum, divided by its divisor."""
    model.zero_grad()
    for rows, divisor in zip(micro_batches, divisors, strict=True):
        inputs = pad_batch(rows, pad)
        nll = token_nll(model(inputs["input_ids"]).logits, inputs["labels"])
        (nll.sum() / divisor).backward()
    return torch.cat([w.grad.flatten() for w in model.parameters()]).double()


# %%
def count(rows: list[Example]) -> int:
    """Graded tokens of the rows."""
    return sum(label != IGNORE_INDEX for row in rows for label in row.labels)


# %% tags=["predict"]
course_set = atlas.training_conversations(seed=0)  # questions, sums, lists, JSON, passages, notes
rows = sorted(encode_conversations(course_set[:32], tokenizer), key=lambda row: count([row]))
micro = [rows[i : i + 8] for i in range(0, 32, 8)]
graded = [count(part) for part in micro]
whole = gradient_of([rows], [sum(graded)])
by_token = gradient_of(micro, [sum(graded)] * 4)
mean_of_means = gradient_of(micro, [4 * tokens for tokens in graded])
errors = [((g - whole).norm() / whole.norm()).item() for g in (by_token, mean_of_means)]
print("graded tokens of the micro-batches:", graded)
print(f"off the whole batch: by token {errors[0]:.0e}, mean of means {errors[1]:.0%}")
assert errors[0] < 1e-4 and errors[1] > 0.02 and graded[-1] > 1.3 * graded[0]

# %% [markdown]
# **Read.** More. Where a micro-batch has few graded tokens, each of them weighs more. Many trainers
# had this bug until late 2024. Count the graded tokens of the whole step first.

# %% [markdown]
# ## 4 · Write the loop
#
# You write three functions, each calling the one before. Each can be tried without the others.

# %%
_ = draw_rungs()

# %% [markdown] tags=["exercise"]
# ### Exercise 4.7 · `run_batch`: the loss of a batch · 8 min · ●●○
# `batch` is what `pad_batch` makes: `input_ids`, `labels` and `attention_mask`, each (B, T).
# `model(input_ids, attention_mask=…).logits` is (B, T, V), and row t predicts token t + 1. Return
# two things: the **sum** of the losses of the graded tokens in nats (a tensor of one number,
# through which a gradient flows), and their number, an int. A label in the first column is never
# predicted, so it counts for nothing. In a batch without a graded token both are 0: no nan, and
# `backward` still works.
#
# Labels `[[-100, -100, 7, 2]]`: tokens 7 and 2 are graded. If the model gives them ½ and ¼, return
# ln 2 + ln 4 = 2.08 and 2. The masked mean is their quotient, 1.04 nats.


# %% tags=["stub"]
def run_batch(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Return the summed loss of the graded tokens in nats, and how many they are."""
    raise NotImplementedError


# %% tags=["solution"]
def run_batch(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Return the summed loss of the graded tokens in nats, and how many they are."""
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    guesses, targets = logits[:, :-1], batch["labels"][:, 1:]
    graded = targets != IGNORE_INDEX
    loss = F.cross_entropy(guesses[graded], targets[graded], reduction="sum")
    return loss, int(graded.sum())


# %% tags=["check"]
check("4.7", run_batch)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Drop the last row of the logits and the first column of the
# labels.
# `F.cross_entropy(…, reduction="sum")` of no token is 0; a mean would be 0 / 0.</details>

# %% [markdown] tags=["explanation"]
# Why a sum? Sums of several batches add up; means do not.
#
# Usual mistakes: no shift, so that a token predicts itself; the mean; padding or prompts counted.

# %% [markdown] tags=["exercise"]
# ### Exercise 4.8 · `step`: one update · 12 min · ●●○
# Make one update from one or more batches, as if they were one. `run_batch(model, batch)` returns
# the summed loss and the number of graded tokens, as in 4.7.
#
# - Gradients that are there when you are called do not count.
# - Every graded token of the step weighs the same, whichever batch it stands in: the gradient is
#   that of the mean over all of them. A batch may have none; at least one of the batches has some.
# - Run each batch once, and call `backward` for it before the next one runs. Only then does
#   accumulation save memory.
# - Clip the gradient's global norm at 1, once, over all parameters.
# - Set `rate` as the learning rate of every group in `optimizer.param_groups`; then update. The
#   optimizer may be any of torch's.
# - Return the loss before the update, in nats per graded token, as a float.
#
# Two batches with sums 6.0 (2 tokens) and 4.0 (8 tokens): the loss is 10 / 10 = 1.0.


# %% tags=["stub"]
def step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[dict[str, torch.Tensor]],
    rate: float,
    run_batch: Callable,
) -> float:
    """Update the model in place; return the loss before, in nats per graded token."""
    raise NotImplementedError


# %% tags=["solution"]
def step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[dict[str, torch.Tensor]],
    rate: float,
    run_batch: Callable,
) -> float:
    """Update the model in place; return the loss before, in nats per graded token."""
    # counted from the labels, before the first batch runs
    graded = sum(int((batch["labels"][:, 1:] != IGNORE_INDEX).sum()) for batch in batches)
    optimizer.zero_grad()
    value = 0.0
    for batch in batches:
        loss, _ = run_batch(model, batch)
        (loss / graded).backward()
        value += loss.item() / graded
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return value


# %% tags=["check"]
check("4.8", step)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The labels tell how many tokens are graded before any batch has
# run. `backward` adds to the gradients that are there.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: each batch divided by its own tokens; the sum of all losses kept for one
# `backward` at the end, which keeps every batch in memory; clipping inside the loop.

# %% [markdown] tags=["exercise"]
# ### Exercise 4.9 · `sft`: a whole run · 15 min · ●●●
# Tune `model` in place.
#
# - Make one `torch.optim.AdamW` over all parameters, with `weight_decay=0.0`.
# - An epoch takes every example once, in an order drawn anew from `seed`: the same seed gives the
#   same orders, another seed others. Cut it into batches of `batch_size`; the last may be smaller.
#   Which examples meet is up to you. Pad each batch with `pad_batch(rows, pad_token_id)`.
# - A step takes `accumulation` batches, the last step of an epoch those that are left:
#   `step(model, optimizer, batches, rate)` returns its loss. (It is 4.8, its `run_batch` filled
#   in.)
# - `rate` is the schedule of 4.2, with `peak`, over all steps of the run, counted from 0. The
#   warm-up takes a tenth of them, rounded up.
# - Call `evaluate(model)`, which returns a float, before the first step and after every epoch. The
#   model is in eval mode then (`model.eval()`), and in training mode in every step.
# - Return two lists: the loss of every step, and the evaluations.
#
# 23 examples, `batch_size=4`, `accumulation=4`, `epochs=2`, `peak=1.0`: an epoch has 6 batches in 2
# steps, of 4 and 2. The four rates are 0, 1, 0.75 and 0.25, and there are 3 evaluations.


# %% tags=["stub"]
def sft(
    model: torch.nn.Module,
    examples: list[Example],
    pad_token_id: int,
    step: Callable,
    evaluate: Callable,
    *,
    epochs: int,
    batch_size: int,
    accumulation: int,
    peak: float,
    seed: int,
) -> tuple[list[float], list[float]]:
    """Tune the model in place; return the loss of every step, and the evaluations."""
    raise NotImplementedError


# %% tags=["solution"]
def sft(
    model: torch.nn.Module,
    examples: list[Example],
    pad_token_id: int,
    step: Callable,
    evaluate: Callable,
    *,
    epochs: int,
    batch_size: int,
    accumulation: int,
    peak: float,
    seed: int,
) -> tuple[list[float], list[float]]:
    """Tune the model in place; return the loss of every step, and the evaluations."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.0)
    total = epochs * math.ceil(math.ceil(len(examples) / batch_size) / accumulation)
    warmup = math.ceil(0.1 * total)
    losses, evaluations = [], [evaluate(model.eval())]
    for epoch in range(epochs):
        model.train()
        order = random.Random(f"{seed} {epoch}").sample(examples, len(examples))
        rows = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        batches = [pad_batch(few, pad_token_id) for few in rows]
        for first in range(0, len(batches), accumulation):
            rate = learning_rate_at(len(losses), total, peak=peak, warmup_steps=warmup)
            losses.append(step(model, optimizer, batches[first : first + accumulation], rate))
        evaluations.append(evaluate(model.eval()))
    return losses, evaluations


# %% tags=["check"]
check("4.9", sft)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Count the steps of the run before it starts: the schedule needs
# them. `len(losses)` is the number of the next step. `random.Random(f"{seed} {epoch}")` draws
# another order in every epoch.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: a new optimizer in every epoch, whose means begin at 0 again; the last, smaller
# batch dropped; `random.shuffle(examples)`, which changes the caller's list; `model.train()`
# forgotten after an evaluation.

# %% [markdown]
# The course goes on with its own three, in `sft_lab/course/plain_loop.py`. Batches hold examples of
# similar length, so that little is padding, as in `sft_lab.train`.

# %%
examples = encode_facts(facts["train"], 96, seed=3)
for accumulation in (1, 2):
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    sizes = {"batch_size": 16 // accumulation, "seed": 3}
    losses, _ = plain_loop.sft(ours, examples, pad, accumulation=accumulation, **sizes)
    history = train(
        theirs, tokenizer, examples, learning_rate=1e-3, accumulation_steps=accumulation, **sizes
    )
    apart = max(abs(one - other) for one, other in zip(losses, history.losses, strict=True))
    print(f"{accumulation} batch(es) a step: {losses[0]:.2f} → {losses[-1]:.2f} nats")
    assert apart < 1e-4, f"the loss curves differ by {apart:.1e} nats"
print("plain_loop.sft and sft_lab.train: the same losses to 1e-4 nats in every step")

# %% [markdown]
# `train` adds checkpoints, logs and half precision.

# %% [markdown] tags=["exercise"]
# ### Exercise 4.10 · Your loop reaches 95 % · 15 min · ●●●
# Now all three of yours train atlas-base. The check tunes a copy of the base with your `sft`,
# `step` and `run_batch`, on 480 questions about countries and animals. Then it asks 300 questions
# about countries and animals that no training question named. **95 % of the answers must be
# right.**
#
# You choose the settings: a dict with the keys `epochs`, `batch_size`, `accumulation` (whole
# numbers from 1 on) and `peak` (a float between 0 and 1). The budget: at most 960 rows read (480 ×
# `epochs`), and at most 120 steps. If the choice is wrong, the check says how its run went.


# %% tags=["stub"]
settings = ...  # {"epochs": …, "batch_size": …, "accumulation": …, "peak": …}


# %% tags=["solution"]
settings = {"epochs": 2, "batch_size": 16, "accumulation": 1, "peak": 1e-3}


# %% tags=["check"]
check("4.10", (run_batch, step, sft, settings))

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The best peak of section 2's figure is for 15 steps. A longer run
# wants a lower one.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: a rate so high that facts are lost; one epoch in large batches, which is few
# steps.

# %% [markdown]
# ### One file
#
# [examples/sft.py](../examples/sft.py) is the same loop as a script, with nothing of this course:
# `python examples/sft.py` tunes atlas-base in under a minute on a CPU. Its `run_batch` adds one
# thing: only graded positions meet the output head.

# %%
SCRIPT = plain_loop.EXAMPLES / "sft.py"
print(plain_loop.show_function(SCRIPT, "run_batch"))

# %%
print(plain_loop.show_function(SCRIPT, "sft"))

# %% [markdown]
# ## 5 · What to watch
#
# ### Right tokens and right answers
#
# From the same logits come three numbers. **Loss** $\ell$: the mean of $-\ln p$ over graded tokens.
# **Token accuracy**: the share of graded tokens that the model ranks first, always given the right
# tokens before them (teacher forcing, chapter 03). **Perplexity**: $e^{\ell}$.
#
# **Predict.** How many of 100 answers does atlas-base give right before any tuning? And what is its
# token accuracy: near 0, near 30 %, or above 50 %?

# %%
exam = atlas.exam("held_out", 100, seed=4)
held_out = encode_conversations(exam, tokenizer)
tokens, answers = [], []


def measure(model: torch.nn.Module) -> float:
    """Held-out loss; token accuracy and the share of right answers go into two lists."""
    judged = evaluate(model, tokenizer, held_out)
    tokens.append(judged["accuracy"])
    answers.append(share_right(model, tokenizer, exam, max_new_tokens=40))
    return judged["loss"]


# %% tags=["predict"]
student = copy.deepcopy(base)
eighty = encode_facts(facts["train"], 80, seed=0)
_, losses = plain_loop.sft(student, eighty, pad, evaluate=measure, epochs=6)
_ = draw_two_accuracies(range(0, 31, 5), tokens, answers)
print("tokens ", "  ".join(f"{share:.0%}" for share in tokens))
print("answers", "  ".join(f"{share:.0%}" for share in answers))
assert answers[0] == 0 and tokens[0] > 0.4

# %% tags=["predict"]
length = count(held_out) / len(held_out)
print(f"an answer has {length:.0f} tokens: {tokens[2]:.0%} of each make {tokens[2] ** length:.0%}")
assert answers[1] < 0.1 < 0.6 < tokens[1] and tokens[2] - answers[2] > 0.1

# %% [markdown]
# **Read.** Not one answer is right, and two thirds of the tokens are. Teacher forcing puts the
# right tokens in front, and much of an answer repeats its question. One wrong token spoils an
# answer: at 97 % a token, 11 tokens in a row are right in about two of three cases. So report the
# share of right answers.
#
# ### Perplexity
#
# One text behind this course says that a perplexity of 10 to 30 is normal. **Predict.** We count
# one loss per token, per character and per word. Which gives the highest perplexity?

# %% tags=["predict"]
sizes = [evaluate(student, tokenizer, held_out, batch_size=size)["loss"] for size in (1, 16, 100)]
assert_close(sizes, [sizes[0]] * 3, rtol=1e-4, atol=0)  # whatever the batches
nats = sizes[0] * count(held_out)
texts = [turns[-1]["content"] + "\n" for turns in exam]  # the stop token counted as one sign
units = {
    "token": count(held_out),
    "character": sum(len(text) for text in texts),
    "word": sum(len(text.split()) for text in texts),
}
perplexity = {unit: math.exp(nats / number) for unit, number in units.items()}
print("  ".join(f"per {unit} {value:.2f}" for unit, value in perplexity.items()))
assert perplexity["character"] < perplexity["token"] < perplexity["word"] < 10

# %% [markdown]
# **Read.** Per word: one sum of nats is divided among fewer, longer units. A tokenizer with longer
# tokens does the same. So a range such as 10 to 30 belongs to one tokenizer and one text. So does a
# rule such as "the training loss should fall below 1.0". The batch size changes nothing.
#
# ### Learning or memorising
#
# Whether a model learned something *general*, only examples outside the training set tell: the
# **validation loss**. **Over-fitting** is learning the training examples by heart. We make it
# happen: 24 facts about entities that the base never read about, seven times over. Validation asks
# about other such entities. **Predict.** Does the validation loss fall, rise, or first one and then
# the other?


# %%
def split_unknown(seed: int) -> tuple[list[Example], list[Example]]:
    """24 training and 40 validation examples; no entity stands on both sides."""
    names = sorted({fact.entity for fact in facts["unknown"]})
    random.Random(seed).shuffle(names)
    mine = set(names[: len(names) // 2])
    ours = [fact for fact in facts["unknown"] if fact.entity in mine]
    others = [fact for fact in facts["unknown"] if fact.entity not in mine]
    return encode_facts(ours, 24, seed), encode_facts(others, 40, seed)


def memorise(seed: int) -> tuple[list[float], list[float]]:
    """Training loss of each epoch, and validation loss before training and after each."""
    ours, others = split_unknown(seed)
    losses, unseen = plain_loop.sft(
        copy.deepcopy(base),
        ours,
        pad,
        evaluate=lambda model: evaluate(model, tokenizer, others)["loss"],
        **{"epochs": 7, "batch_size": 8, "peak": 4e-3, "seed": seed},
    )
    return [statistics.mean(losses[i : i + 3]) for i in range(0, len(losses), 3)], unseen


# %% tags=["predict"]
runs = [memorise(seed) for seed in SEEDS]
seen, unseen = zip(*runs, strict=True)
_ = draw_fit(seen, unseen)
for training, curve in runs:
    print("validation", "  ".join(f"{loss:.2f}" for loss in curve), end="; ")
    print(f"training at the end {training[-1]:.2f}")
for training, curve in runs:
    assert 0 < curve.index(min(curve)) < len(curve) - 1 and curve[-1] > 1.05 * min(curve)
    assert training[-1] < 0.3

# %% [markdown]
# **Read.** First *both* fall: the form of an answer is general. (A training point is the mean over
# its epoch.) Then validation rises: 24 facts do not help with others. The model grows sure of
# answers that it cannot know, and a sure wrong answer costs much.
#
# | training loss | validation loss | it means |
# |---|---|---|
# | falls | falls | learning something general |
# | falls | flat or rising | memorising: stop, or bring more data |
# | flat | flat | rate too low, or nothing left to learn |
#
# Chapter 04b watches such a run and stops it in time.
#
# ## 6 · The length limit
#
# `cutoff_len` or `max_length` limits the tokens of an example, because memory grows with them. Some
# programs cut what is too long; ours refuses. **Predict** what a cut removes first.


# %%
def left_after_cut(rows: list[Example], limit: int) -> tuple[float, float, float]:
    """Shares of the rows that stay whole, keep some graded tokens, keep none."""
    whole = [row for row in rows if len(row.input_ids) <= limit]
    kept = [row for row in rows if any(label != IGNORE_INDEX for label in row.labels[:limit])]
    full, some = len(whole) / len(rows), len(kept) / len(rows)
    return full, some - full, 1 - some


# %% tags=["predict"]
conversations = course_set[:400]
rows = encode_conversations(conversations, tokenizer)
limits = range(16, max(len(row.input_ids) for row in rows) + 4, 4)
shares = zip(*(left_after_cut(rows, limit) for limit in limits), strict=True)
left = dict(zip(("whole", "some graded tokens left", "none left"), shares, strict=True))
_ = draw_cut(limits, left)
assert left["whole"][-1] == 1 and max(left["some graded tokens left"]) > 0.05

# %%
try:
    encode_conversations(conversations, tokenizer, max_tokens=40)
except LabelError as error:
    print(f"{len(error.problems)} rows refused at 40 tokens, the first: {error.problems[0]}")

# %% [markdown]
# **Read.** The stop token stands last, so a cut removes it first: the row shows an answer without
# an end. A little shorter, and no graded token is left. Blogs give 1,024 tokens, but look at the
# lengths of *your* data. Take a limit that keeps nearly all rows, and drop the rest on purpose.
#
# ## What to remember
#
# - Forward, loss, backward, update. AdamW's first step moves most weights by the learning rate,
#   whatever their gradient.
# - Search the learning rate first, in factors of three: too low learns little, too high destroys.
# - Add sums and divide by the graded tokens of the whole step.
# - Token accuracy can be high while no answer is right.
# - A falling training loss with a rising validation loss is memorising.
#
# ## Sources
#
# - I. Loshchilov and F. Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019: AdamW; and
#   *SGDR*, ICLR 2017: the cosine.
# - D. P. Kingma and J. Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015.
# - R. Pascanu, T. Mikolov, Y. Bengio, *On the difficulty of training recurrent neural networks*,
#   ICML 2013: clipping by the global norm.
# - Hugging Face, *Fixing Gradient Accumulation*, blog, October 2024; Unsloth, *Bug Fixes in LLM
#   Training*, 2024.
#
# <details><summary>中文要点</summary>
#
# 1. 训练循环：前向、损失、反向、更新。**AdamW** 用梯度的一阶、二阶滑动平均；第一步大多数权重
#    都移动一个**学习率**的距离。
# 2. **预热（warm-up）+ 余弦衰减**；学习率过低几乎不动，过高则毁掉模型：验证损失随学习率呈 U 形。
# 3. **梯度裁剪**按全局范数缩放；**梯度累积**要除以整个步的计分 token 总数。
# 4. **token 准确率**以正确的前文为条件：它可以很高，而一个答案都不对。**困惑度 = exp(平均损失)**，
#    取决于分词器与文本。
# 5. 训练损失下降而验证损失上升 = **过拟合**。截断长度会先切掉停止符。
#
# </details>
