# %% [markdown]
# # 17 · From imitation to reward
#
# **The question.** SFT copies right answers that somebody wrote. What can a model learn when it
# writes the answers itself and gets a number for each?
#
# **By the end you can**
# - *derive* the gradient of a reward, and say when SFT is a case of it;
# - *build* GRPO and PPO from parts that you have checked;
# - *read* the numbers of a run: loss 0, flat reward, a ratio that is not 1.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 03, 04 and 13 | CPU, no network | 35 seconds | 6, about 65 minutes | B4 A10 L28 |

# %% tags=["setup"]
import copy
import math
import tempfile
import warnings

import torch
import trl
from datasets import Dataset
from torch.testing import assert_close
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from sft_lab import plots
from sft_lab.course.checks import check
from sft_lab.course.policy_runs import (
    grade_all,
    pick_group,
    questions,
    run_push,
    run_tiny,
    score_completions,
    tune_to_answer,
)
from sft_lab.course.results import read_results

# %% tags=["setup"]
from sft_lab.course.views.push import (
    draw_averages,
    draw_clip,
    draw_push,
    draw_sources,
    explore_push,
    read_push,
)
from sft_lab.course.views.widgets import show_widget
from sft_lab.models import load
from sft_lab.policy import (
    ValueHead,
    at_last_token,
    discounted_advantages,
    group_advantages,
    kl_estimates,
    policy_loss,
    value_loss,
)
from sft_lab.rollouts import answer_log_probs, sample_groups
from sft_lab.significance import judge_claim

plots.style()
warnings.filterwarnings("ignore", message=".*gradient_checkpointing")  # an old name, inside TRL
base, tokenizer = load("atlas-base")

# %% [markdown]
# ## 1 · Two sources, one gradient

# %%
_ = draw_sources()

# %% [markdown]
# A *policy* π is a model seen as a chooser: it draws an answer. We begin with six answers to "What
# is 7 + 8?", each a single token. With rewards $r_k$ the *expected reward* is
# $J = \sum_k \pi_k r_k$. Since $\nabla \pi = \pi\,\nabla \log \pi$, its gradient is an
# expectation too:
#
# $$\nabla J = \sum_k \pi_k\, r_k\, \nabla \log \pi_k = \mathbb{E}_{k \sim \pi}\,[\,r_k\, \nabla
# \log \pi_k\,].$$
#
# **Predict.** "15" and "fifteen" both earn 1; the first is likely, the second rare. Whose score
# rises more in one step?

# %% tags=["predict"]
ANSWERS = ["15", "fifteen", "14", "16", "78", "?"]
logits = torch.tensor([1.5, -1.5, 1.0, 0.5, 0.0, -1.0], dtype=torch.float64)
rewards = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
p = logits.softmax(0)
scores = torch.eye(6, dtype=torch.float64) - p  # row k: gradient of log p[k], by the logits
gradient = (p * rewards) @ scores
for answer, chance, slope in zip(ANSWERS, p, gradient, strict=True):
    print(f"{answer:8} p {chance:.2f}   gradient {slope:+.3f}")
assert gradient[0] > 10 * gradient[1] > 0 > gradient[2]


# %%
def expected_reward(logits: torch.Tensor) -> torch.Tensor:
    """J, by summing over all answers."""
    return (logits.softmax(-1) * rewards).sum(-1)


free = logits.clone().requires_grad_()
by_autograd = torch.autograd.grad(expected_reward(free), free)[0]
nudge = 1e-6 * torch.eye(6, dtype=torch.float64)
by_differences = (expected_reward(logits + nudge) - expected_reward(logits - nudge)) / 2e-6
assert_close(gradient, by_autograd)
assert_close(gradient, by_differences, atol=1e-8, rtol=1e-6)

# %% [markdown]
# **Read.** The gradient is $\pi_k (r_k - J)$: a rare answer is seldom drawn, so it gains little,
# however right it is. Wrong answers fall although they earn 0, because others rise.
#
# SFT is the same formula with another source: the *data* draw the answer, and its weight is 1. Best
# of K lets the model draw and keeps what is right: weight 1 or 0.

# %%
gold = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64)  # how the data draw
sft = torch.autograd.grad((gold * free.log_softmax(0)).sum(), free)[0]
assert_close(sft, gold @ scores)

torch.manual_seed(0)
drawn = torch.multinomial(p, 1000, replacement=True)
kept = drawn[rewards[drawn] == 1]
best_of_k = scores[kept].sum(0) / len(drawn)  # SFT on the right ones
assert_close(best_of_k, (rewards[drawn, None] * scores[drawn]).mean(0))
print(f"kept {len(kept)} of 1000; distance to the exact gradient", end=" ")
print(f"{(best_of_k - gradient).norm():.3f} of {gradient.norm():.3f}")

# %% [markdown]
# | | who writes the answer | its weight |
# |---|---|---|
# | SFT | the data | 1 |
# | best of K | the model | 1 if right, else 0 |
# | REINFORCE | the model | reward − baseline |
# | GRPO, PPO | the model, some steps ago | clipped ratio · advantage |

# %% [markdown] tags=["exercise"]
# ### Exercise 17.1 · The gradient from samples · 10 min · ●●○
# Nobody can sum over all texts, so we draw. `logits`, (V,), are a softmax policy over V one-token
# answers. It drew `samples`, (K,), whole numbers; they earned `rewards`, (K,). Estimate the
# gradient of the expected reward by the logits, (V,): the mean over the K samples of (reward −
# `baseline`) · ∇ log π(sample). Write ∇ log π by hand, without autograd.
#
# With logits [0, 0], samples [0], rewards [1.0] and baseline 0.0: [0.5, −0.5].


# %% tags=["stub"]
def gradient_from_samples(
    logits: torch.Tensor, samples: torch.Tensor, rewards: torch.Tensor, baseline: float
) -> torch.Tensor:
    """An estimate of the gradient of the expected reward, (V,)."""
    raise NotImplementedError


# %% tags=["solution"]
def gradient_from_samples(
    logits: torch.Tensor, samples: torch.Tensor, rewards: torch.Tensor, baseline: float
) -> torch.Tensor:
    """An estimate of the gradient of the expected reward, (V,)."""
    scores = torch.eye(len(logits), dtype=logits.dtype) - logits.softmax(0)
    return ((rewards - baseline)[:, None] * scores[samples]).mean(0)


# %% tags=["check"]
check("17.1", gradient_from_samples)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The matrix <code>scores</code> above holds ∇ log π of every
# answer.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: raising the drawn score without lowering the others; weighting by π once more,
# which drawing has done.

# %% [markdown]
# ## 2 · The baseline
#
# **Predict.** We add 10 to every reward. Does the expectation of the estimate change? Does its
# spread?


# %% tags=["predict"]
def estimates(rewards: torch.Tensor, baseline: float | str, k: int = 8) -> torch.Tensor:
    """The estimate of 4,000 groups of k answers each, (4000, 6)."""
    groups = torch.multinomial(p, 4000 * k, replacement=True).view(-1, k)
    earned = rewards[groups]
    gains = earned - (earned.mean(1, keepdim=True) if baseline == "group" else baseline)
    return (gains[..., None] * scores[groups]).mean(1)


spread = {}
for name, shift, baseline in (
    ("no baseline", 0, 0.0),
    ("+10, no baseline", 10, 0.0),
    ("+10, baseline 10 + J", 10, 10 + expected_reward(logits).item()),
    ("+10, mean of the group", 10, "group"),
):
    found = estimates(rewards + shift, baseline)
    spread[name] = found.var(0).sum().sqrt().item()
    print(f"{name:23} mean off by {(found.mean(0) - gradient).norm():.3f}, ", end="")
    print(f"spread {spread[name]:.2f}; the gradient {gradient.norm():.2f}")
assert spread["+10, no baseline"] > 10 * spread["no baseline"]
assert spread["+10, mean of the group"] < spread["no baseline"]

# %% [markdown]
# **Read.** A baseline leaves the expectation alone, because $\mathbb{E}[\nabla \log \pi] = 0$, and
# decides the spread. The mean of the group is a baseline that costs nothing. It contains the answer
# itself, which shrinks the expectation by the factor $1 - 1/K$. The next cell sums over all 216
# groups of three.

# %%
groups = torch.cartesian_prod(*[torch.arange(6)] * 3)
gains = rewards[groups] - rewards[groups].mean(1, keepdim=True)
by_group = (gains[..., None] * scores[groups]).mean(1)
assert_close((p[groups].prod(1)[:, None] * by_group).sum(0), (1 - 1 / 3) * gradient)

# %% [markdown] tags=["exercise"]
# ### Exercise 17.2 · Advantages of groups · 8 min · ●●○
# GRPO divides by the spread as well. `rewards`, (P, K): K ≥ 2 answers to each of P questions, any
# finite numbers. Return `(advantages, share)`. `advantages`, (P, K): the reward minus the mean of
# its group, divided by the group's standard deviation plus 1e-4. The variance has K − 1 below the
# line. `share`, a float: the share of groups in which all rewards are equal. Their advantages are
# 0.
#
# For [[1, 0], [1, 1]]: [[0.707, −0.707], [0, 0]] and 0.5.


# %% tags=["stub"]
def advantages_of_groups(rewards: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Advantages (P, K), and the share of groups without a spread."""
    raise NotImplementedError


# %% tags=["solution"]
def advantages_of_groups(rewards: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Advantages (P, K), and the share of groups without a spread."""
    centred = rewards - rewards.mean(1, keepdim=True)
    share = (rewards == rewards[:, :1]).all(1).double().mean().item()
    return centred / (rewards.std(1, keepdim=True) + 1e-4), share


# %% tags=["check"]
check("17.2", advantages_of_groups)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>std</code> of torch divides by K − 1.
# <code>keepdim=True</code> keeps a column for the group.</details>

# %% [markdown] tags=["explanation"]
# A group without a spread teaches nothing. TRL logs the share as `frac_reward_zero_std`.
#
# Usual mistakes: one mean for all questions; counting groups of zeros only, where all-right groups
# are as silent.

# %% [markdown]
# Why divide? We sum over all outcomes of a group: c right answers of 8.


# %%
def pull(rate: float, scale: str, k: int = 8) -> float:
    """Expected push on the log-odds of "right", exactly: over c right answers of k."""
    total = 0.0
    for c in range(1, k):
        group = torch.tensor([[1.0] * c + [0.0] * (k - c)])
        push = group_advantages(group, scale=scale)[0, :c].sum().item() / k
        total += math.comb(k, c) * rate**c * (1 - rate) ** (k - c) * push
    return total


# %% [markdown]
# **Predict.** Which questions gain most by the division: the easy, the hard, or those in the
# middle?

# %% tags=["predict"]
rates = torch.linspace(0, 1, 41).tolist()
lines = {
    name: [pull(rate, scale) / pull(0.5, scale) for rate in rates]
    for name, scale in (("divided", "std"), ("not divided", "none"))
}
for place in (4, 20, 36):
    print(
        f"pass rate {rates[place]:.0%}:",
        {name: f"{line[place]:.0%}" for name, line in lines.items()},
    )

# %% tags=["predict", "folded"]
_ = plots.curve(
    rates,
    lines,
    xlabel="pass rate of the question",
    ylabel="expected push, next to\na pass rate of 0.5",
    title="Dividing lifts the easy and the hard questions",
)
assert abs(pull(0.3, "none") - 7 / 8 * 0.3 * 0.7) < 1e-6
assert lines["divided"][4] > 1.2 * lines["not divided"][4]

# %% [markdown]
# **Read.** Without the division a question pulls in proportion to rate · (1 − rate). Divided, the
# pull comes near the square root of that: questions that are nearly always right or wrong gain. So
# the division is a weight on questions. Dr. GRPO leaves it out for that reason.
#
# ## 3 · Old answers, and a leash
#
# Drawing is slow, so one batch of answers serves several updates. Then the policy is no longer the
# one that drew. The *importance ratio* $\rho = \pi / \pi_\text{old}$ corrects the weight. *Clipping*
# cuts the gain where the ratio has gone far enough. Gain: $\min(\rho A,\ \text{clip}(\rho)\,A)$.

# %%
_ = draw_clip()

# %% [markdown] tags=["exercise"]
# ### Exercise 17.3 · The clipped loss · 12 min · ●●○
# `log_probs`, `old_log_probs`, `advantages`: a number for each of n drawn tokens, (n,) each. Return
# `(loss, share)`. `loss`, a scalar tensor through which the gradient reaches `log_probs`: minus the
# mean over the tokens of the smaller of ratio · A and clipped ratio · A, clipped to 1 − `clip` … 1
# + `clip`. `share`, a float: the share of tokens that are cut (red above). A token with A = 0 is
# never cut; no ratio lies on a border.
#
# For ratios [1.5, 1.5, 0.5, 0.5], A = [1, −1, 1, −1] and clip 0.2: 0.15 and 0.5.


# %% tags=["stub"]
def clipped_loss(
    log_probs: torch.Tensor, old_log_probs: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, float]:
    """The loss, and the share of tokens that are cut."""
    raise NotImplementedError


# %% tags=["solution"]
def clipped_loss(
    log_probs: torch.Tensor, old_log_probs: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, float]:
    """The loss, and the share of tokens that are cut."""
    ratio = (log_probs - old_log_probs).exp()
    near = ratio.clamp(1 - clip, 1 + clip)
    cut = torch.where(advantages > 0, ratio > near, (advantages < 0) & (ratio < near))
    loss = -torch.minimum(ratio * advantages, near * advantages).mean()
    return loss, cut.double().mean().item()


# %% tags=["check"]
check("17.3", clipped_loss)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Which of the two products does the minimum take in each of the
# four corners: A above or below 0, ratio too high or too low?</details>

# %% [markdown] tags=["explanation"]
# A token whose ratio went the *wrong* way keeps its gradient, so that it can come back.
#
# Usual mistakes: the clipped product alone; counting every ratio outside the range.

# %% [markdown]
# **Predict.** Before the first update every ratio is 1. Two answers of four earn 1, all have three
# tokens. What is the loss of the first step, and what its gradient?

# %% tags=["predict"]
torch.manual_seed(0)
log_probs = -torch.rand(4, 3).requires_grad_()
mask, won = torch.ones(4, 3), torch.tensor([[1.0, 0.0, 0.0, 1.0]])
loss = policy_loss(log_probs, log_probs.detach(), group_advantages(won)[0], mask)
slope = torch.autograd.grad(loss, log_probs)[0]
print(f"size of the loss {loss.abs():.4f}, of its gradient {slope.norm():.3f}")
assert abs(loss) < 1e-6 and slope.norm() > 0.1
assert_close(slope, -group_advantages(won)[0][:, None].expand(4, 3) / 12)  # REINFORCE

# %% [markdown]
# **Read.** Loss 0 is right: the advantages of a group sum to 0. The gradient is that of REINFORCE.
# This loss says nothing about success; watch the reward.
#
# The *leash* is a penalty on KL(π ‖ reference), the distance to the model of the start. One drawn
# token gives an *estimate* of it.

# %% [markdown] tags=["exercise"]
# ### Exercise 17.4 · Estimate the KL · 12 min · ●●●
# Tokens were drawn from π. Of each we know two numbers, `log_probs` under π and
# `reference_log_probs`, two tensors of one shape. Return an estimate for each token, of that shape,
# in nats, such that
#
# - its expectation over tokens of π is exactly KL(π ‖ reference) = E[log π − log reference];
# - it is never negative.
#
# Take log π − log reference, and add something made of the ratio reference / π whose expectation is
# 0. For probability 0.5 under π and 0.25 under the reference: 0.1931.


# %% tags=["stub"]
def kl_from_samples(log_probs: torch.Tensor, reference_log_probs: torch.Tensor) -> torch.Tensor:
    """An estimate of KL(π ‖ reference) from each token, in nats."""
    raise NotImplementedError


# %% tags=["solution"]
def kl_from_samples(log_probs: torch.Tensor, reference_log_probs: torch.Tensor) -> torch.Tensor:
    """An estimate of KL(π ‖ reference) from each token, in nats."""
    log_ratio = reference_log_probs - log_probs
    return log_ratio.expm1() - log_ratio


# %% tags=["check"]
check("17.4", kl_from_samples)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Under π the ratio r = reference / π has the expectation 1. The line
# r − 1 touches the curve ln r at r = 1 and lies above it elsewhere.</details>

# %% [markdown] tags=["explanation"]
# Schulman calls log π − log reference k1, its half square k2, and this k3.
#
# Usual mistakes: the ratio upside down; the absolute value, whose expectation is another.

# %% [markdown]
# We check each by its expectation, summed over a vocabulary of eight. The fourth is `approx_kl3`
# from the code of the *RLHF Book*, where the ratio stands upside down.
#
# **Predict.** In a loss only the gradient counts. Which estimate has that of the KL?

# %% tags=["predict"]
torch.manual_seed(0)
policy, reference = torch.randn(8).requires_grad_(), torch.randn(8)
log_p, log_q = policy.log_softmax(0), reference.log_softmax(0)
found = {kind: kl_estimates(log_p, log_q, kind) for kind in ("k1", "k2", "k3")}
found["the book"] = torch.expm1(log_p - log_q) - (log_p - log_q)
exact = (log_p.exp() * (log_p - log_q)).sum()
towards = torch.autograd.grad(exact, policy, retain_graph=True)[0]
chance = log_p.exp().detach()  # who draws is not differentiated
slopes, values = {}, {}
print(f"exact     {exact:.4f}")
for kind, estimate in found.items():
    values[kind] = (chance * estimate).sum()
    slopes[kind] = torch.autograd.grad(values[kind], policy, retain_graph=True)[0]
    error = (slopes[kind] - towards).norm() / towards.norm()
    print(f"{kind:9} {values[kind]:.4f}   gradient off by {error:.0%}")
assert_close(values["k1"], exact)
assert_close(values["k3"], exact)
assert abs(exact - 0.8208) < 1e-3 and abs(values["the book"] - 1.5962) < 1e-3
assert_close(slopes["k2"], towards)
assert_close(slopes["k1"], torch.zeros(8), atol=1e-6, rtol=0)
assert_close(slopes["k3"], (log_p.exp() - log_q.exp()).detach())  # that of KL(reference ‖ π)

# %% [markdown]
# **Read.** Right value and right gradient are two things. k1 has the value, and no gradient on
# average. k2 has the gradient, and a wrong value. k3, TRL's penalty, has the value, and the gradient
# of the KL in the *other direction*. The book's form has twice the value here. Summing the
# expectation finds all this in ten lines.
#
# ## 4 · Who gets how much: averaging
#
# A loss over answers of different lengths needs an average. Three are in use: over all tokens
# (DAPO, TRL's default), over each answer first (GRPO), or by a fixed limit (Dr. GRPO). We fix a
# group before anything is trained: a short and a long right answer, a short and a long wrong one.
#
# **Predict.** Which average pushes a token of the long wrong answer least?

# %% tags=["predict"]
lengths = torch.tensor([3, 12, 3, 12])
mask = (torch.arange(12) < lengths[:, None]).float()
advantages = group_advantages(torch.tensor([[1.0, 1.0, 0.0, 0.0]]))[0]
weights = {
    "answer": 1 / (4 * lengths[:, None]),
    "token": 1 / lengths.sum(),
    "length": torch.tensor(1 / (4 * 20)),  # the limit: 20 tokens
}
pushes = {kind: advantages[:, None] * weight * mask for kind, weight in weights.items()}
titles = {
    "answer": "each answer (GRPO)",
    "token": "all tokens (DAPO)",
    "length": "limit (Dr. GRPO)",
}
_ = draw_averages(
    {titles[kind]: push for kind, push in pushes.items()},
    mask,
    ["right, short", "right, long", "wrong, short", "wrong, long"],
)

# %% tags=["predict"]
old = torch.zeros(4, 12)
for kind, push in pushes.items():
    new = old.clone().requires_grad_()
    limit = 20 if kind == "length" else None
    loss = policy_loss(new, old, advantages, mask, average=kind, max_length=limit)
    assert_close(-torch.autograd.grad(loss, new)[0], push)
    print(f"{kind:7} push on the long wrong answer as a whole {push[3].sum():+.3f}")
assert_close(pushes["answer"][3, 0] * 4, pushes["answer"][2, 0])

# %% [markdown]
# **Read.** Averaged over each answer, a token of the long wrong answer is pushed down a quarter as
# hard as one of the short: being wrong at length is cheap. Over all tokens, or by the limit, every
# token counts alike, so a long answer counts more as a whole. The limit also keeps the weight of a
# token the same in every batch.
#
# Now with a model's own answers. We tune atlas to answer in three lengths, and ask other questions.

# %%
tuned = tune_to_answer(base, tokenizer, seed=0)
tasks = questions(64, seed=0)
rollout = sample_groups(tuned, tokenizer, [task[:-1] for task in tasks[:4]], 8, seed=0)
for text, reward in list(zip(rollout.texts, grade_all(tasks, rollout).flatten(), strict=True))[:6]:
    print(f"{reward:.0f}  {text}")

# %% [markdown]
# **Claim.** Averaging over each answer pushes a token of a long wrong answer less, compared with
# one of a short wrong answer, than averaging over all tokens. Long: above the median. We also take
# one step and look at what becomes of the long wrong answers as a whole.

# %%
real = read_results("17_smollm2")
rows = {
    ("atlas", "push"): [
        run_push(tuned, tokenizer, questions(16, seed=s), seed=s) for s in range(3)
    ],
    ("SmolLM2", "push"): real.select(part="push"),
    ("SmolLM2", "long"): real.select(part="step"),
}
rows["atlas", "long"] = rows["atlas", "push"]
words = {}
for (model, measure), seeds in sorted(rows.items(), key=lambda item: item[0][1], reverse=True):
    arms = [[row[f"{kind} {measure}"] for row in seeds] for kind in ("token", "answer")]
    found = judge_claim(*arms, claim="lower" if measure == "push" else "higher")
    words[model, measure] = found.word
    means = " → ".join(f"{sum(arm) / len(arm):+.2f}" for arm in arms)
    print(f"{model:8} {measure:5} {means}, noise floor {found.floor:.2f}: {found.word}")
assert words["atlas", "push"] == words["SmolLM2", "push"] == "held"
assert words["atlas", "long"] == words["SmolLM2", "long"] == "not shown"

# %% [markdown]
# **Read.** The push falls by more than half: *held* on both models. (On SmolLM2 six questions a
# seed were too few; these are 24.) Whether the long wrong answers as a whole come off better in one
# step (`long`, nats) is *not shown*: the weights are shared, and the seeds scatter.
#
# ### TRL on the same answers
#
# The call as a practitioner writes it. On a CPU, `bf16=False` must be said.


# %%
def reward_value(completions: list, value: list[str], **_: object) -> list[float]:
    """1 where the value stands in the answer; TRL hands over each column of the data."""
    return [float(v in said[0]["content"]) for said, v in zip(completions, value, strict=True)]


trainer = GRPOTrainer(
    model=copy.deepcopy(tuned),
    processing_class=tokenizer,
    reward_funcs=reward_value,
    train_dataset=Dataset.from_list([{"prompt": t[:-1], "value": t[-1]["content"]} for t in tasks]),
    args=GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=32,
        num_generations=8,
        max_completion_length=40,
        learning_rate=3e-4,
        max_steps=2,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    ),
)

# %%
trainer.remove_callback(PrinterCallback)
_ = trainer.train()
asked = [trainer.train_dataset[i] for i in range(4) for _ in range(8)]
inputs = trainer._generate_and_score_completions(asked)  # TRL draws, grades, compares
for row in trainer.state.log_history[:2]:
    print({key: round(row[key], 3) for key in ("loss", "reward", "frac_reward_zero_std")})

# %%
texts = tokenizer.batch_decode(inputs["completion_ids"], skip_special_tokens=True)
won = torch.tensor([float(row["value"] in said) for row, said in zip(asked, texts, strict=True)])
advantages = group_advantages(won.view(4, 8)).flatten()
assert_close(advantages, inputs["advantages"], atol=1e-3, rtol=1e-3)
model = trainer.model
for kind, name in {"answer": "grpo", "token": "dapo", "length": "dr_grpo"}.items():
    trainer.loss_type, sides = name, {}
    log_probs = score_completions(model, inputs)
    mask = inputs["completion_mask"]
    limit = {"max_length": 40} if kind == "length" else {}
    ours = policy_loss(log_probs, log_probs.detach(), advantages, mask, average=kind, **limit)
    sides = (trainer._compute_loss(model, inputs), ours)
    slopes = [torch.autograd.grad(loss, list(model.parameters())) for loss in sides]
    flat = [torch.cat([part.flatten() for part in slope]) for slope in slopes]
    print(f"{name:8} size of the loss {sides[0].abs():.4f}, of the gradient {flat[0].norm():.4f}")
    assert_close(*sides, atol=1e-4, rtol=1e-3)
    assert (flat[0] - flat[1]).norm() < 1e-3 * flat[0].norm()

# %% [markdown]
# **Read.** Advantages, losses and gradients agree. `grpo` begins at loss 0. TRL's default `dapo`
# need not: a token average of advantages counts long answers more often.
#
# ## 5 · PPO: a value head says what to expect
#
# GRPO gives all tokens of an answer one advantage. **PPO** learns a *value* $V_t$ at each place:
# the reward still expected there. A token's surprise is $\delta_t = r_t + \gamma V_{t+1} - V_t$.
# *Generalised advantage estimation* (GAE) adds up the later ones:
# $A_t = \sum_{k \ge t} (\gamma \lambda)^{k-t}\, \delta_k$.
# Values learn the *return* $A_t + V_t$ from a squared error. It too is clipped: of a value and the
# value kept within `clip` of the old one, the larger error counts.
#
# **Predict.** Four tokens, all values 0.5, reward 1 at the end. Which get an advantage at λ = 0,
# and which at λ = 1?


# %% tags=["predict"]
def gae_by_sum(
    rewards: list[float], values: list[float], gamma: float, decay: float
) -> list[float]:
    """Advantages of one answer, each by its whole sum."""
    after = [*values[1:], 0.0]  # behind the end nothing is expected
    surprise = [r + gamma * n - v for r, n, v in zip(rewards, after, values, strict=True)]
    places = range(len(values))
    return [sum((gamma * decay) ** (k - t) * surprise[k] for k in places[t:]) for t in places]


for decay in (0.0, 0.5, 1.0):
    print(f"λ {decay:.1f}:", gae_by_sum([0.0, 0.0, 0.0, 1.0], [0.5] * 4, 1.0, decay))


# %%
def ppo_loss(
    log_probs: torch.Tensor,
    old: torch.Tensor,
    rewards: torch.Tensor,
    values: torch.Tensor,
    old_values: torch.Tensor,
    clip: float = 0.2,
) -> torch.Tensor:
    """PPO on N answers of T tokens, rewarded (N,) at their ends; no padding."""
    given = [[0.0] * (old.shape[1] - 1) + [reward] for reward in rewards.tolist()]
    rows = zip(given, old_values.tolist(), strict=True)
    advantages = torch.tensor([gae_by_sum(*row, 1.0, 0.95) for row in rows], dtype=old.dtype)
    returns = advantages + old_values
    ratio = (log_probs - old).exp()
    gains = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    near = old_values + (values - old_values).clamp(-clip, clip)
    errors = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    return -gains.mean() + errors.mean() / 2


# %%
torch.manual_seed(0)
x = [torch.randn(3, 5, dtype=torch.float64) for _ in range(4)]
old, new = -x[0].abs(), (-x[0].abs() + 0.3 * x[1]).requires_grad_()
old_values, values = x[2], (x[2] + 0.3 * x[3]).requires_grad_()
won = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
loss = ppo_loss(new, old, won, values, old_values)
slopes = torch.autograd.grad(loss, (new, values))

mask = torch.ones(3, 5, dtype=torch.float64)
advantages, returns = discounted_advantages(at_last_token(won, mask), old_values, mask)
library = policy_loss(new, old, advantages, mask) + value_loss(values, old_values, returns, mask)
assert_close(loss, library)
for place in [(0, 0), (1, 3), (2, 4)]:
    step = torch.zeros(3, 5, dtype=torch.float64)
    step[place] = 1e-6
    up, down = (ppo_loss(new + s, old, won, values + s, old_values) for s in (step, -step))
    assert_close((up - down) / 2e-6, slopes[0][place] + slopes[1][place], atol=1e-7, rtol=1e-5)
states = torch.randn(3, 5, 128)  # a value head is one linear layer on the last hidden states
print("values", tuple(ValueHead(128)(states).shape), "in TRL:", hasattr(trl, "PPOTrainer"))
assert not hasattr(trl, "PPOTrainer")

# %% [markdown]
# **Read.** At λ = 0 the surprise stays where it came; at λ = 1 every token before it shares it. Loss
# and gradient equal the library and finite differences. TRL is no third witness: `PPOTrainer` moved
# to `trl.experimental` and was removed in September 2026 (pull request 7020). PPO is found in TRL's
# older releases, in verl, and in the RLHF Book's code.
#
# | | GRPO | PPO |
# |---|---|---|
# | what is expected | mean of the group | a value head |
# | advantage | one an answer | one a token |
# | needs | K answers to each question | values to train |
# | silent when | all K earn the same | the values are right |

# %% [markdown] tags=["exercise"]
# ### Exercise 17.5 · GAE in one pass · 14 min · ●●●
# N answers, padded on the right. `rewards`, `values`, `mask`: (N, T) each; `mask` is 1.0 where an
# answer has a token, then 0.0. Return `(advantages, returns)`, (N, T) each, 0 where the mask is 0.
# The formulas are those above, with `decay` for λ. Behind the last token nothing is expected, and
# what stands there in `rewards` and `values` is arbitrary. One loop over T, from the end.
#
# For rewards [[0, 1]], values [[0.5, 0.6]], mask of ones, gamma 1.0, decay 0.5: [[0.3, 0.4]] and
# [[0.8, 1.0]].


# %% tags=["stub"]
def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, decay: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of every token, (N, T) each."""
    raise NotImplementedError


# %% tags=["solution"]
def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, decay: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of every token, (N, T) each."""
    advantages, following, advantage = torch.zeros_like(values), 0.0, 0.0
    for t in reversed(range(values.shape[1])):
        surprise = rewards[:, t] + gamma * following - values[:, t]
        advantage = (surprise + gamma * decay * advantage) * mask[:, t]
        following = values[:, t] * mask[:, t]
        advantages[:, t] = advantage
    return advantages, (advantages + values) * mask


# %% tags=["check"]
check("17.5", gae)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A<sub>t</sub> = δ<sub>t</sub> + γλ · A<sub>t+1</sub>. Multiply by
# the mask what you carry to the left.</details>

# %% [markdown] tags=["explanation"]
# Usual mistake: the first value of the padding read as $V_{t+1}$ of the last token, where the whole
# reward stands.

# %% [markdown]
# ## 6 · A run
#
# GRPO by hand: draw, grade, compare, push. Each of 16 steps takes 8 questions with 8 answers.


# %%
def grpo_step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tasks: list, seed: int
) -> float:
    """One step of GRPO; returns the mean reward."""
    rollout = sample_groups(model, tokenizer, [task[:-1] for task in tasks], 8, seed=seed)
    rewards = grade_all(tasks, rollout)
    advantages = group_advantages(rewards).view(-1, 1)
    ratio = (answer_log_probs(model, rollout) - rollout.old_log_probs).exp()
    gains = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    loss = -(gains * rollout.mask).sum() / rollout.mask.sum()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return rewards.mean().item()


# %%
def reward_on(model: torch.nn.Module, tasks: list) -> tuple[float, float]:
    """Mean reward and length of 8 answers to each of some questions."""
    drawn = sample_groups(model, tokenizer, [task[:-1] for task in tasks], 8, seed=99)
    return grade_all(tasks, drawn).mean().item(), drawn.mask.sum(1).float().mean().item()


rewarded = copy.deepcopy(tuned).eval()
optimizer = torch.optim.AdamW(rewarded.parameters(), lr=3e-4, weight_decay=0.0)
asked = questions(160, seed=1)
earned = [grpo_step(rewarded, optimizer, asked[8 * i : 8 * i + 8], i) for i in range(16)]
_ = plots.curve(
    range(1, 17),
    {"mean reward": earned},
    xlabel="step (64 answers each)",
    ylabel="answers with the value",
    title="The reward rises, and nobody wrote an answer",
)
(first, short), (last, long) = (reward_on(model, asked[128:]) for model in (tuned, rewarded))
print(f"32 other questions: reward {first:.2f} → {last:.2f}, tokens {short:.1f} → {long:.1f}")
assert last > first + 0.1

# %% [markdown]
# **Read.** In 16 steps the reward rises by about a third, on questions that were not in the run. The
# loop is still that of chapter 04: state, step, evaluation; only the source is new. SFT had to come
# first: where nothing is ever right, nothing is learned. The reward here is a rule. In *RLHF* it is
# a model of human preferences (chapter 17b).
#
# Move the controls: who is pushed, and what becomes likelier? The KL is to the model before this
# run.

# %%
task, group, graded = pick_group(rewarded, tokenizer, questions(40, seed=2))
print(task[0]["content"])
still = draw_push(read_push(rewarded, tuned, tokenizer, group, graded))
show_widget(explore_push(rewarded, tuned, tokenizer, group, graded), still)

# %% [markdown]
# A run can look well and be broken. Two tiny ones:

# %%
for fault in ("healthy", "wrong sign"):
    tiny = run_tiny(fault, seed=0)
    for when, row in (("first", tiny[0]), ("last", tiny[-1])):
        shown = ", ".join(f"{key} {abs(value):.2f}" for key, value in row.items())
        print(f"{fault:10} {when:5} {shown}")

# %% [markdown] tags=["exercise"]
# ### Exercise 17.6 · Find the fault · 10 min · ●●○
# `log` holds a row for each step of a small run, a dict of five numbers: `reward` (mean), `no_spread`
# (share of groups whose answers all earned the same), `ratio` (the largest distance of a ratio from
# 1, before the step's update), `loss`, `grad_norm`. Return one of
#
# - `"healthy"`: the reward rises;
# - `"cold start"`: nothing is ever right; `"solved"`: everything is, from the first step on;
# - `"wrong old log-probs"`: those of another temperature than the draw's;
# - `"wrong sign"`: the advantages are negated; `"no gradient"`: a `.detach()` cuts the way back.
#
# Except in `"cold start"` and `"solved"`, the first step has `no_spread` below 0.5. A ratio is off
# by less than 1e-6 or by more than 0.1. Get logs with `run_tiny(fault, seed=0)`.


# %% tags=["stub"]
def find_the_fault(log: list[dict[str, float]]) -> str:
    """What is wrong with a run, in one of six words."""
    raise NotImplementedError


# %% tags=["solution"]
def find_the_fault(log: list[dict[str, float]]) -> str:
    """What is wrong with a run, in one of six words."""
    first, last = log[0], log[-1]
    if first["no_spread"] == 1:
        return "solved" if first["reward"] == 1 else "cold start"
    if first["ratio"] > 0.01:
        return "wrong old log-probs"
    if first["grad_norm"] == 0:
        return "no gradient"
    return "healthy" if last["reward"] > first["reward"] else "wrong sign"


# %% tags=["check"]
check("17.6", find_the_fault)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Read the first row before the last one. Which number tells the
# same story in a healthy and in a broken run?</details>

# %% [markdown] tags=["explanation"]
# The loss is near 0 in five of the six. Usual mistakes: judging by it; calling a run without spread
# "no gradient", though only the rewards are at fault.

# %% [markdown]
# ## What to remember
#
# - SFT and rewards share one gradient, weight · ∇ log π(y). They differ in who writes y.
# - A baseline changes the spread, not the expectation. Equal rewards teach nothing.
# - Loss 0 at the first step is no fault; a ratio other than 1 there is one.
# - Check an estimate by its expectation, and a penalty by its gradient.
# - The average decides what a long wrong answer costs.
#
# Chapter 17b lets SFT, best of K, GRPO and PPO run against each other.
#
# ## Sources
#
# - J. Schulman et al., *Proximal Policy Optimization Algorithms*, 2017, arXiv:1707.06347; GAE:
#   arXiv:1506.02438; *Approximating KL Divergence*, joschu.net/blog/kl-approx.html.
# - Z. Shao et al., *DeepSeekMath* (GRPO), 2024, arXiv:2402.03300.
# - Z. Liu et al., *Understanding R1-Zero-Like Training* (Dr. GRPO), 2025, arXiv:2503.20783. DAPO:
#   arXiv:2503.14476.
# - N. Lambert, *RLHF Book*, github.com/natolambert/rlhf-book, `code/policy_gradients/loss.py`.
#
# <details><summary>中文要点</summary>
#
# 1. **策略梯度**：∇J = E[r ∇log π]。SFT 是其特例：答案由数据给出，权重恒为 1；best-of-K 的权重是 0 或 1。
#
# 2. **基线**（baseline）不改变期望，只减小方差；组内奖励全相同则没有信号。除以标准差会抬高难题和易题的权重。
#
# 3. **重要性比率与裁剪**（clipping）：第一步比率为 1，损失为 0 是正常的，梯度不为 0。
#
# 4. **KL 估计**：k1、k3 的期望正确；k2 的梯度正确；k3 的梯度属于反方向的 KL。用小词表上的精确求和来检验符号。
#
# 5. **长度归一化**：按答案平均时，长而错的答案每个 token 受罚较轻；按 token 或按上限平均则一视同仁。PPO 用价值头和 GAE，GRPO 用组均值。
#
# </details>
