# %% [markdown]
# # 12 · Loss functions
#
# **The question.** Cross-entropy is not the only loss for fine-tuning. What do weighted, focal,
# smoothed and DFT losses change, and when does one of them help?
#
# **By the end you can**
# - *derive* the gradient of each loss by the logits, and find the loss again in torch, transformers
#   and TRL;
# - *predict* from that gradient what a loss will learn, and what it will leave out;
# - *diagnose* which loss a run had, and whether it was masked and divided rightly.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | softmax, chapters 01, 03 and 04 | CPU, no network | about 30 s | 6, about 55 minutes | D11 L25 L31 |

# %% tags=["setup"]
import copy
import math
import tempfile
from collections.abc import Callable, Sequence

import datasets
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch.testing import assert_close
from transformers.trainer_pt_utils import LabelSmoother
from trl import SFTConfig, SFTTrainer

# %% tags=["setup"]
from sft_lab import plots, token_losses
from sft_lab.batches import pad_batch
from sft_lab.chat import generate_responses
from sft_lab.course.checks import check
from sft_lab.course.loss_runs import (
    country_facts,
    encode_facts,
    read_values,
    run_ends,
    run_values,
    tune,
)
from sft_lab.course.results import read_results

# %% tags=["setup"]
from sft_lab.course.views.weight import (
    draw_answers,
    draw_calibration,
    draw_weight,
    draw_weights,
    explore_weight,
)
from sft_lab.course.views.widgets import show_widget
from sft_lab.facts import Fact
from sft_lab.labels import IGNORE_INDEX
from sft_lab.losses import graded_logits, response_loss
from sft_lab.metrics import expected_calibration_error
from sft_lab.models import load
from sft_lab.significance import judge_claim

plots.style()
datasets.disable_progress_bars()
base, tokenizer = load("atlas-base")
facts = country_facts()

# %% [markdown]
# ## 1 · One gradient, five losses
#
# Every loss here reads $p$, the probability that the model gives to the right token. Cross-entropy
# charges $-\log p$. The others change what a token *weighs*:
#
# | loss | cost of a token | meant for |
# |---|---|---|
# | cross-entropy | $-\log p$ | |
# | weighted | $-w\,\log p$, with a weight $w$ for each entry of the vocabulary | rare or important tokens |
# | focal | $-(1-p)^\gamma \log p$ | tokens that are still hard |
# | smoothed | $-(1-\varepsilon)\log p \;-\; \varepsilon \cdot \frac{1}{V}\sum_v \log p_v$ | models that are too sure |
# | DFT | $-\bar p \log p$, where $\bar p$ is $p$ held constant | better generalisation |
#
# The authors of DFT (*dynamic fine-tuning*, 2025) report large gains over plain SFT; some users
# report models that never stop.
#
# Let $z$ be the logits of one position and $\ell$ the cost. From chapter 01,
# $\partial \log p / \partial z_j = 1[j = y] - p_j$ for the right token $y$. The chain rule gives
#
# $$\frac{\partial \ell}{\partial z_j} = c\,(p_j - t_j), \qquad c = -\frac{\partial \ell}{\partial \log p}.$$
#
# The target $t$ is 1 on the right token, 0 elsewhere. The factor $c$ is the **weight**: 1 for
# cross-entropy, $w$ for weighted, $p$ for DFT. Smoothing has $c = 1$ and another target:
# $t_y = 1 - \varepsilon + \varepsilon/V$, elsewhere $\varepsilon/V$. We call $c\,(t_y - p)$ the
# **pull**: how hard a step lifts the right token's logit.

# %%
one = next(fact for fact in facts["train"] if fact.say("{v}") == "Kabul")
lie = Fact(one.domain, one.entity, one.column, "Lima")


@torch.no_grad()
def read_answer(fact: Fact) -> list[tuple[str, float]]:
    """The tokens of an answer, each with the probability that the base gives it."""
    (row,) = encode_facts([fact], tokenizer)
    logits, targets = graded_logits(base, pad_batch([row], tokenizer.pad_token_id))
    p = logits.softmax(-1).gather(1, targets[:, None])[:, 0]
    return [(tokenizer.decode(i), q) for i, q in zip(targets, p.tolist(), strict=True)]


answers = {"right answer": read_answer(one), "wrong answer": read_answer(lie)}
for name, tokens in answers.items():
    print(f"{name}: " + " |".join(f"{token} {p:.0e}" for token, p in tokens))
first, last = answers["right answer"][0][1], answers["right answer"][-1][1]
assert max(first, last) < 1e-5

# %% [markdown]
# The base has read that Kabul is the capital of Afghanistan, and has never read a chat. So the first
# word of an answer and the stop token `<|im_end|>` have almost no probability; some tokens between
# them are nearly certain.
#
# **Predict.** Which of the four losses below pulls least on the stop token? And which pulls least
# on "Lima", the value of the wrong answer?

# %% tags=["predict"]
KINDS = {
    "cross-entropy": ("cross-entropy", 0.0),
    "focal, γ 2": ("focal", 2.0),
    "smoothed, ε 0.1": ("smoothed", 0.1),
    "DFT": ("DFT", 0.0),
}
_ = draw_answers(answers, KINDS)

# %% [markdown]
# **Read.** Cross-entropy pulls on everything that is not known yet: the first word, the value, the
# stop token, and the wrong value as well. Focal loss does the same and lets go sooner of what is
# nearly known. DFT does the opposite: it works where the model half knows a token, and leaves both
# ends of the answer alone, and the lie. Smoothing pulls *down* what is more certain than
# $1 - \varepsilon$.
#
# ### By hand
#
# `.detach()` is what holds $\bar p$ constant.


# %%
def focal(p: torch.Tensor, gamma: float) -> torch.Tensor:
    """What tokens of probability p cost under focal loss."""
    return -((1 - p) ** gamma) * p.log()


def dft(p: torch.Tensor) -> torch.Tensor:
    """What tokens of probability p cost under DFT: p is a weight, and gets no gradient as such."""
    return -p.detach() * p.log()


def smoothed(logits: torch.Tensor, targets: torch.Tensor, epsilon: float) -> torch.Tensor:
    """What tokens cost under label smoothing, (N,), from scores (N, V) and targets (N,)."""
    log_p = logits.log_softmax(-1)
    right = log_p.gather(1, targets[:, None])[:, 0]
    return -(1 - epsilon) * right - epsilon * log_p.mean(-1)


# %% [markdown]
# Is the formula for the gradient right? We ask autograd, and a finite difference: move one logit a
# little and see what the loss does.

# %%
_ = torch.manual_seed(0)
logits = (3 * torch.randn(8, 50, dtype=torch.float64)).requires_grad_()
targets = torch.randint(50, (8,))
onehot = F.one_hot(targets, 50)


def gradient(cost: torch.Tensor) -> torch.Tensor:
    """The derivative of the summed cost by the logits, (N, V)."""
    return torch.autograd.grad(cost.sum(), logits, retain_graph=True)[0]


probabilities = logits.softmax(-1)
p = (probabilities * onehot).sum(-1)
plain = probabilities - onehot
assert_close(gradient(-p.log()), plain)  # cross-entropy: c = 1
assert_close(gradient(dft(p)), p[:, None] * plain)  # DFT: c = p
spread = 0.9 * onehot + 0.1 / 50  # the target of smoothing
assert_close(gradient(smoothed(logits, targets, 0.1)), probabilities - spread)

# %%
nudge, moved = 1e-6, logits.detach().clone()
moved[0, 7] += nudge
change = smoothed(moved, targets, 0.1).sum() - smoothed(logits, targets, 0.1).sum()
print(f"finite difference {change / nudge:.6f}, by formula {(probabilities - spread)[0, 7]:.6f}")
assert_close(change / nudge, (probabilities - spread)[0, 7], rtol=1e-4, atol=1e-6)

# %% [markdown]
# `sft_lab.token_losses` has the same losses for `train(loss=…)`. Tests compare them with the
# libraries on hundreds of random cases. Here is one.

# %%
pairs = {
    "focal": (token_losses.focal(2.0), focal(p, 2.0)),
    "DFT": (token_losses.dft(), dft(p)),
    "smoothed": (token_losses.smoothed(0.1), smoothed(logits, targets, 0.1)),
}
for name, (ours, by_hand) in pairs.items():
    assert_close(ours.per_token(logits, targets), by_hand)
    assert_close(gradient(ours.per_token(logits, targets)), gradient(by_hand))
    print(f"{name}: cost and gradient are those by hand")

# %% [markdown]
# Divide the pull by that of cross-entropy, and all five losses fit into one figure. **Predict:** at
# which $p$ is focal loss above 1, and at which DFT?

# %% tags=["predict"]
LINES = {**KINDS, "weighted, w 2": ("weighted", 2.0)}
_ = draw_weights(LINES)

# %% [markdown]
# **Read.** Focal loss spends its gradient on what the model does not know, DFT on what it knows.
# Neither is better as such: what is unknown is to be learned, if the labels are right, and left
# alone, if they are wrong. Both cases have a small $p$.
#
# DFT is nowhere above 1; focal loss is, where $p$ is small. You derive that next.

# %% [markdown] tags=["exercise"]
# ### Exercise 12.1 · The weight of focal loss · 7 min · ●●○
# Derive $c = -\partial \ell / \partial \log p$ of the focal loss, and write it without autograd.
# Mind that $\partial p / \partial \log p = p$. `p` holds any number of probabilities, all above 0
# and below 1; `gamma` is at least 0.


# %% tags=["stub"]
def focal_weight(p: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the weight c of each token, of the shape of p."""
    raise NotImplementedError


# %% tags=["solution"]
def focal_weight(p: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the weight c of each token, of the shape of p."""
    return (1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * p.log()


# %% tags=["check"]
check("12.1", focal_weight)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Write q = log p, so that the loss is −(1 − e^q)^γ · q. Both
# factors depend on q: the product rule gives two terms.</details>

# %% [markdown] tags=["explanation"]
# The first term is the factor itself. The second comes from the factor's own slope, and it is never
# negative, because $\log p$ is. At $\gamma = 0$ it vanishes and $c = 1$.
#
# Usual mistakes: the first term alone, which treats the factor as a constant (as DFT does with its
# own); the derivative by $p$ instead of $\log p$; the sign of the second term.

# %% [markdown]
# Choose a loss and its number, and move $p$. On the right stand our two answers. Find a floor for
# DFT, a least weight, that pulls the stop token and hardly moves "Lima".

# %%
show_widget(explore_weight(answers, "focal"), draw_weight("focal", 2.0, 0.01, answers))

# %% [markdown]
# ## 2 · The same losses in three libraries
#
# Somebody must also decide what the sum is divided by, and what happens at the label −100. First
# **weighted** loss. **Predict:** all weights of the vocabulary are doubled. What happens to the
# loss that torch reports?

# %% tags=["predict"]
_ = torch.manual_seed(0)
logits, targets = 3 * torch.randn(12, 50), torch.randint(50, (12,))
weights = torch.rand(50) + 0.1
reported = F.cross_entropy(logits, targets, weight=weights)
doubled = F.cross_entropy(logits, targets, weight=2 * weights)
costs = F.cross_entropy(logits, targets, reduction="none") * weights[targets]
print(f"torch {reported:.4f}, doubled weights {doubled:.4f}")
print(f"divided by the number of tokens instead: {costs.mean():.4f}")
ours = token_losses.weighted(weights)
assert_close(doubled, reported)
assert_close(reported, costs.sum() / weights[targets].sum())
assert abs(reported - costs.mean()) > 0.01
assert_close(ours.per_token(logits, targets).sum() / ours.divisor(targets), reported)

# %% [markdown]
# **Read.** Nothing: torch divides by the sum of the weights that occur. In a batch with one kind of
# token they cancel: take the divisor of a whole step (exercise 12.3).
#
# Now **smoothing**. Ours spreads $\varepsilon$ over all $V$ tokens, the right one included. Another
# convention, known from fairseq (not run here), spreads it over the $V - 1$ wrong ones.


# %%
def spread_over_the_wrong(logits, targets, epsilon: float) -> torch.Tensor:
    """Label smoothing with epsilon spread over the V − 1 wrong tokens; the mean."""
    target = torch.full_like(logits, epsilon / (logits.shape[1] - 1))
    target.scatter_(1, targets[:, None], 1 - epsilon)
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


by_hand = smoothed(logits, targets, 0.1).mean()
assert_close(F.cross_entropy(logits, targets, label_smoothing=0.1), by_hand)
theirs = LabelSmoother(epsilon=0.1)({"logits": logits}, targets)
assert_close(theirs, by_hand)
assert_close(
    spread_over_the_wrong(logits, targets, 0.1), smoothed(logits, targets, 0.1 * 50 / 49).mean()
)
print(
    f"ours, torch, transformers {by_hand:.4f}; spread over the wrong ones "
    f"{spread_over_the_wrong(logits, targets, 0.1):.4f}"
)

# %% [markdown]
# **Read.** Our formula is torch's and transformers'. The other is the same with
# $\varepsilon V / (V-1)$ in place of $\varepsilon$, which hardly differs at 50,000 tokens.
#
# Last **DFT** in TRL. **Predict:** the second trainer also asks for label smoothing. What does its
# loss become?

# %%
rows = encode_facts(facts["train"][:6], tokenizer)
batch = pad_batch(rows, tokenizer.pad_token_id)


def trl_loss(**settings) -> torch.Tensor:
    """The loss of the base on `batch`, by TRL's own trainer."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=copy.deepcopy(base),
            args=SFTConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=False,
                activation_checkpointing=False,
                report_to="none",
                loss_type="dft",
                **settings,
            ),
            train_dataset=Dataset.from_list([vars(row) for row in rows]),
            processing_class=tokenizer,
        )
        return trainer.compute_loss(trainer.model, dict(batch)).detach()


# %% tags=["predict"]
ours = response_loss(base(batch["input_ids"]).logits, batch["labels"], token_losses.dft()).detach()
alone, with_smoothing = trl_loss(), trl_loss(label_smoothing_factor=0.1)
plain = response_loss(base(batch["input_ids"]).logits, batch["labels"]).detach()
print(f"DFT: ours {ours:.5f}, TRL {alone:.5f}, TRL with smoothing {with_smoothing:.5f}")
print(f"cross-entropy of the same batch: {plain:.5f}")
assert_close(alone, ours, rtol=1e-4, atol=1e-6)
assert_close(with_smoothing, alone)
assert plain > 10 * alone

# %% [markdown]
# **Read.** It stays the same: the smoothing was dropped without a word. A DFT loss is tens of times
# smaller than the cross-entropy, because costly tokens weigh nothing in it. The two cannot be
# compared, so `evaluate` always reports cross-entropy.

# %% [markdown] tags=["exercise"]
# ### Exercise 12.2 · Smoothing beside −100 · 8 min · ●●○
# Write the smoothed loss of a batch: row t of the logits predicts token t + 1, a label of −100 is
# not graded, and the mean runs over all graded tokens of the batch. Not even a huge logit where
# nothing is graded may change it. At least one token is graded. Use `log_softmax`, not
# `cross_entropy`.


# %% tags=["stub"]
def smoothed_loss(logits: torch.Tensor, labels: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return the mean smoothed loss, a scalar with gradient. logits: (B, T, V); labels: (B, T)."""
    raise NotImplementedError


# %% tags=["solution"]
def smoothed_loss(logits: torch.Tensor, labels: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return the mean smoothed loss, a scalar with gradient. logits: (B, T, V); labels: (B, T)."""
    targets = labels[:, 1:]
    graded = targets != IGNORE_INDEX
    log_p = logits[:, :-1][graded].log_softmax(-1)  # (N, V): what is not graded is gone
    right = log_p.gather(1, targets[graded][:, None])[:, 0]
    return (-(1 - epsilon) * right - epsilon * log_p.mean(-1)).mean()


# %% tags=["check"]
check("12.2", smoothed_loss)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Take the graded rows out first:
# <code>logits[:, :-1][labels[:, 1:] != -100]</code> has the shape (N, V).</details>

# %% [markdown] tags=["explanation"]
# `gather` fails at −100, so many implementations replace it by 0 and mask the result. That masks
# the first term. The second term, the mean over the vocabulary, needs the same mask: without it
# every padding position is pulled towards the uniform distribution.
#
# Usual mistakes: a mask on one term only; no shift (transformers once had this in its smoother);
# dividing by all B · T positions; a sum over the vocabulary instead of a mean.

# %% [markdown] tags=["exercise"]
# ### Exercise 12.3 · Weights and accumulation · 8 min · ●●○
# A step is split into micro-batches, and `backward()` is called on the loss of each. Return these
# losses, each made of its own micro-batch. Their **sum** must equal the weighted loss of all tokens
# together, as torch computes it. A target of −100 is not graded and has no weight. A micro-batch
# with no graded token, or with graded tokens of weight 0 only, contributes 0, on which `backward()`
# works as well. At least one token of the step has a weight above 0.


# %% tags=["stub"]
def micro_losses(
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]], weights: torch.Tensor
) -> list[torch.Tensor]:
    """Return a scalar for each micro-batch. batches: logits (N, V) and targets (N,), N varies;
    weights: (V,), none below 0."""
    raise NotImplementedError


# %% tags=["solution"]
def micro_losses(
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]], weights: torch.Tensor
) -> list[torch.Tensor]:
    """Return a scalar for each micro-batch. batches: logits (N, V) and targets (N,), N varies;
    weights: (V,), none below 0."""
    divisor = sum(weights[t[t != IGNORE_INDEX]].sum() for _, t in batches)
    return [
        F.cross_entropy(logits, t, weight=weights, ignore_index=IGNORE_INDEX, reduction="sum")
        / divisor
        for logits, t in batches
    ]


# %% tags=["check"]
check("12.3", micro_losses)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Two passes: first the divisor of the whole step, then the sums.
# And what does <code>weights[-100]</code> give?</details>

# %% [markdown] tags=["explanation"]
# The divisor of a step is the sum of its weights, and must be known before the first `backward()`.
#
# Usual mistakes: the mean of the micro-batches' means, in which a batch of light tokens counts as
# much as a heavy one, and an empty one makes nan; dividing by the number of tokens;
# `weights[-100]`, which is no error in Python. It counts from the end and adds a weight that
# belongs to nobody.

# %% [markdown] tags=["exercise"]
# ### Exercise 12.4 · Which loss is this? · 12 min · ●●●
# A colleague has forgotten which loss this function is. `loss(logits, targets)` takes (N, 50),
# float32 or float64, and (N,), no −100 among them, and returns the mean over the N tokens, with a
# gradient. Find out by asking it, and return one of six names:
#
# - `"cross-entropy"`, `"focal"` ($\gamma$ from 0.5 to 4), `"smoothed"` ($\varepsilon$ from 0.05 to
#   0.4), `"DFT"`;
# - `"weighted"`: 25 of the 50 entries weigh 1 and the others from 2 to 5; divided by the sum of the
#   weights, as torch does;
# - `"DFT, not detached"`: somebody forgot `.detach()`.


# %% tags=["stub"]
def name_loss(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> str:
    """Return which of the six losses this is."""
    raise NotImplementedError


# %% tags=["solution"]
def name_loss(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> str:
    """Return which of the six losses this is."""

    def weights_at(p: float) -> torch.Tensor:
        """The weights of all 50 entries, each as target of a token of probability p."""
        logits = torch.zeros(50, 50, dtype=torch.float64)
        logits.fill_diagonal_(math.log(49 * p / (1 - p))).requires_grad_()
        (slopes,) = torch.autograd.grad(loss(logits, torch.arange(50)), logits)
        return -50 * slopes.diagonal() / (1 - p)

    unknown, known = weights_at(0.1), weights_at(0.999)
    if unknown.std() > 0.1 * unknown.mean().abs():
        return "weighted"  # only a batch of many targets shows it: one weight divides itself away
    low, high = unknown.mean(), known.mean()
    if high < -0.1:
        return "smoothed"  # pulls down what is more certain than 1 - epsilon
    if low < 0:
        return "DFT, not detached"  # its weight, p (1 + log p), is negative below 1/e
    if low < 0.5:
        return "DFT"
    return "focal" if high < 0.5 else "cross-entropy"


# %% tags=["check"]
check("12.4", name_loss)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Build logits that give one target the probability p, take the
# gradient, and divide the pull by 1 − p. Two values of p tell most losses apart; the weighted one
# needs a batch with all 50 targets.</details>

# %% [markdown] tags=["explanation"]
# A loss that is not detached has the value of DFT and another gradient:
# $c = p\,(1 + \log p)$. Below $p = 1/e$ it is negative: such a loss pushes unknown tokens *down*.
# The loss curve falls all the same, since $-p \log p$ goes to 0 at $p = 0$. Only the gradient, or
# the answers, show the error.
#
# Usual mistakes: asking at one $p$ only; comparing values, which do not see the missing `detach`;
# asking with one token, where a weight divides itself away.

# %% [markdown]
# ## 3 · A token that DFT cannot reach
#
# Now to training: one epoch over 425 questions about countries, and an exam about others. The
# claim:
#
# > **Claim.** A token that the model gives almost no probability is not learned under DFT. After
# > DFT fewer held-out answers stop by themselves than after cross-entropy. Primary measure: the
# > share of 60 greedy answers that end with `<|im_end|>`.
#
# **Predict** the share for each. And will the DFT model begin its answers rightly, although the
# word "The" starts at $10^{-8}$ too?

# %% tags=["predict"]
rows = encode_facts(facts["train"], tokenizer)
question = [[{"role": "user", "content": "What is the capital of Kenya?"}]]
for name, loss in {"cross-entropy": None, "DFT": token_losses.dft()}.items():
    model = tune(base, tokenizer, rows, loss, seed=0)
    (text,) = generate_responses(model, tokenizer, question, max_new_tokens=24)
    print(f"{name:14} {text}")

# %% [markdown]
# **Read.** Both know the answer, and one does not stop. Five seeds were recorded by
# `tools/experiments/12_stop.py`, at three rates, with four epochs, and with floors:
# $\max(p, \text{floor})$ as weight. One of these runs is repeated here.

# %% tags=["predict"]
ends = read_results("12_stop", base)
usual = {"rate": 1.5e-3, "epochs": 1, "first_graded": True}
arms = {
    "cross-entropy": {**usual, "floor": 1.0},
    "DFT": {**usual, "floor": 0.0},
    "DFT, a third of the rate": {**usual, "floor": 0.0, "rate": 5e-4},
    "DFT, three times the rate": {**usual, "floor": 0.0, "rate": 5e-3},
    "DFT, 4 epochs": {**usual, "floor": 0.0, "epochs": 4},
}
again = run_ends(base, tokenizer, facts, floor=0.0, seed=0)
print(f"DFT, seed 0 again: {again['stops']:.0%} stop, log10 P(stop) {again['log_stop']:.1f}")
print(f"{'mean of five seeds':25}  begins rightly   stops   log10 P(first)   log10 P(stop)")
for name, arm in arms.items():
    says, stops, start, stop = (
        torch.tensor(ends.measured(m, **arm)).mean()
        for m in ("says", "stops", "log_first", "log_stop")
    )
    print(f"{name:25} {says:15.0%} {stops:7.0%} {start:16.1f} {stop:15.1f}")

# %% tags=["predict"]
record = ends.measured("log_stop", **arms["DFT"])
verdict = judge_claim(
    ends.measured("stops", **arms["cross-entropy"]),
    ends.measured("stops", **arms["DFT"]),
    claim="lower",
)
print(
    f"DFT stops less often: {verdict.mean:+.0%} on average, noise floor {verdict.floor:.0%}: "
    f"{verdict.word}"
)
assert min(record) - 1 < again["log_stop"] < max(record) + 1 and again["stops"] < 0.1
assert verdict.word == "held"
assert max(max(ends.measured("stops", **arm)) for name, arm in arms.items() if "DFT" in name) < 0.1

# %% [markdown]
# **Read.** *Held*, and no rate or length in the table mends it: $P(\text{stop})$ stays where the
# base had it. But "The" also began at $10^{-8}$, and at the usual rate it is learned. At a third of
# the rate it is not, in most seeds.
#
# The gradient *at these positions* is nearly zero in both cases. But positions share weights, so a
# token can rise with the others. A test: take the first token out of the loss, and train again.

# %%
for name, floor in {"cross-entropy": 1.0, "DFT": 0.0}.items():
    ungraded = ends.measured("log_first", **{**usual, "floor": floor, "first_graded": False})
    print(f"{name:13} first token not graded: log10 P(first)", [round(x, 1) for x in ungraded])
    assert max(ungraded) < -5 if floor == 1 else min(ungraded) > -5

# %% [markdown]
# **Read.** Under DFT "The" rises by many orders of magnitude although nobody grades it: its
# neighbours carry it. Under cross-entropy, without a label, it stays where it was. Why the two
# differ we did not test.
#
# So under DFT a token at $p \approx 0$ learns nothing *from its own label*; others may carry it. A
# likely reason: "The" begins many sentences that the base has read, `<|im_end|>` stood in none.
#
# ### A floor under the weight
#
# The author of DFT advises a floor of 0.1 under the weight. **Predict:** how small may it be, if
# the stop token shall still be learned in one epoch: 0.1, 0.01 or 0.001?

# %%
floors = sorted({row["floor"] for row in ends.rows} - {0.0})
stops = [ends.measured("stops", **usual, floor=f) for f in floors]
says = [ends.measured("says", **usual, floor=f) for f in floors]

# %% tags=["predict", "folded"]
ax = plots.curve(
    range(len(floors)),
    {"stop": torch.tensor(stops).T, "begin rightly": torch.tensor(says).mean(dim=1)},
    xlabel="floor of the weight (1: cross-entropy)",
    ylabel="share of 60 answers",
    title="A floor of a few hundredths teaches the stop token",
)
_ = ax.set_xticks(range(len(floors)), floors)
by_floor = dict(zip(floors, stops, strict=True))
assert min(by_floor[0.1]) > 0.9 and max(by_floor[0.001]) < 0.1

# %% [markdown]
# **Read.** Between 0.005 and 0.02 the model goes from never to always (bands: lowest to highest of
# five seeds). The advised 0.1 is on the safe side. Below it right beginnings get rarer too, in some
# seeds.
#
# ### The same on a real model
#
# SmolLM2, a chat model of 135 M parameters, knows its stop token. So we ask for one that it
# practically never writes: answers end with `<filename>`, at $p \approx 10^{-12}$. Sixteen steps of
# four answers, three seeds, recorded by `tools/experiments/12_smollm2.py`.

# %%
real = read_results("12_smollm2")
print(f"before: log10 P(marker) {real.measured('log_marker', loss='before')[0]:.1f}")
for name in ("cross-entropy", "DFT", "DFT, floor 0.1"):
    marker, usual_stop, right = (
        torch.tensor(real.measured(m, loss=name)).mean()
        for m in ("log_marker", "log_usual", "other_right")
    )
    print(
        f"{name:14} log10 P(marker) {marker:5.1f}, log10 P(<|im_end|>) {usual_stop:5.1f}, "
        f"other tokens right {right:.0%}"
    )
on_real = judge_claim(
    real.measured("marker_first", loss="cross-entropy"),
    real.measured("marker_first", loss="DFT"),
    claim="lower",
)
print(
    f"how often the marker ranks first, DFT minus cross-entropy: {on_real.mean:+.0%}: "
    f"{on_real.word}"
)
assert on_real.word == "held"

# %% [markdown]
# **Read.** *Held* again. After DFT as many other tokens are right as after cross-entropy; the marker
# stays near zero, and the old stop token where it was. For a *base* model tuned on a chat template,
# the stop token is such a marker. That is what users of DFT reported.

# %% [markdown] tags=["exercise"]
# ### Exercise 12.5 · Find the edge · 12 min · ●●○
# Find a floor (a float) that is just large enough: with `run_ends(base, tokenizer, facts,
# floor=floor, seed=…)` at least 90 % of the answers stop (`["stops"]`), and with a **quarter** of
# the floor at most 10 %. The check trains both, with a seed of its own, in some seconds.

# %% tags=["stub"]
floor = ...

# %% tags=["solution"]
floor = 0.025
for tried in (floor, floor / 4):
    stops = run_ends(base, tokenizer, facts, floor=tried, seed=0)["stops"]
    print(f"floor {tried}: {stops:.0%} of the answers stop")

# %% tags=["check"]
check("12.5", floor)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The figure above shows the edge. Halve the floor until a quarter of
# it no longer teaches the stop token, and look at two seeds.</details>

# %% [markdown] tags=["explanation"]
# A number that works is worth little without knowing how near the edge is.
#
# Usual mistakes: the advised 0.1, whose quarter still teaches the token; a floor at which half of
# the answers stop; one seed, near the edge.

# %% [markdown]
# ## 4 · What is wrong, and what is new
#
# Next, 30 % of the training facts have a wrong value, that of another country. The base knows most
# of the true ones, so a wrong value has a small $p$.
#
# > **Claim.** With 30 % wrong values, DFT answers more held-out questions rightly than
# > cross-entropy, and focal loss fewer. Primary measure: the share of 200 held-out answers whose
# > value is right (teacher forcing). Three seeds, four epochs: time enough to memorise.
#
# **Predict** the order of the six losses.

# %%
recorded = read_results("12_losses", base)
NAMES = ("cross-entropy", "weighted", "focal", "smoothed", "DFT", "DFT, floor 0.1")
two_lines = {name: name.replace(", ", ",\n").replace("-", "-\n") for name in NAMES}
four = {"epochs": 4, "rate": 1.5e-3}


def measured(measure: str, data: str, **settings) -> dict[str, list[float]]:
    """One number a seed for every loss."""
    return {name: recorded.measured(measure, loss=name, data=data, **settings) for name in NAMES}


right = measured("right", "noisy", **four)
lies = measured("fitted_odd", "noisy", **four)

# %% tags=["predict", "folded"]
_ = plots.bars_with_spread(
    {
        title: {two_lines[name]: seeds for name, seeds in values.items()}
        for title, values in {"held-out right": right, "wrong values learned": lies}.items()
    },
    title="DFT refuses the wrong values",
    ylabel="share of answers",
    colours=[plots.GREEN, plots.VERMILLION],
    percent=True,
    ax=plots.new_figure((12.0, 4.4)).subplots(),
)


# %% tags=["predict"]
def compare(
    values: dict[str, list[float]], name: str, claim: str, to: str = "cross-entropy"
) -> str:
    """Print the verdict on a loss against another one; return its word."""
    verdict = judge_claim(values[to], values[name], claim=claim)
    print(
        f"{name} {claim} than {to}: {verdict.mean:+.2f}, noise floor {verdict.floor:.2f}: "
        f"{verdict.word}"
    )
    return verdict.word


print("right answers with 30 % wrong values")
claims = {"DFT": "higher", "DFT, floor 0.1": "higher", "focal": "lower", "smoothed": "higher"}
words = {name: compare(right, name, claim) for name, claim in claims.items()}
assert words["DFT"] == "held" and words["focal"] == words["smoothed"] == "not shown"

# %% [markdown]
# **Read.** *Held* for DFT, in the stated setting: nine of ten held-out answers are right, two of
# three under cross-entropy, which has learned most of the wrong values by heart. For focal loss,
# smoothing and DFT with a floor: *not shown*; the mean of smoothing is below that of cross-entropy.
#
# Two objections. Perhaps cross-entropy wants another learning rate, or it is enough to stop early,
# before the wrong values are memorised.


# %%
def of_pair(measure: str, **settings) -> dict[str, list[float]]:
    """One number a seed for cross-entropy and for DFT, with noisy data."""
    pair = ("cross-entropy", "DFT")
    return {name: recorded.measured(measure, loss=name, data="noisy", **settings) for name in pair}


words = {}
for rate, epochs in ((5e-4, 4), (1.5e-3, 4), (5e-3, 4), (1.5e-3, 1)):
    print(f"rate {rate}, {epochs} epoch(s)")
    for measure, claim in (("right", "higher"), ("fitted_odd", "lower")):
        values = of_pair(measure, rate=rate, epochs=epochs)
        print(f"  {measure:10} {[round(sum(seeds) / 3, 2) for seeds in values.values()]}", end="  ")
        words[rate, epochs, measure] = compare(values, "DFT", claim)
assert words[5e-4, 4, "right"] == words[1.5e-3, 1, "right"] == "not shown"
assert all(words[rate, 4, "fitted_odd"] == "held" for rate in (5e-4, 1.5e-3, 5e-3))

# %%
point = run_values(base, tokenizer, facts, loss="DFT", data="noisy", seed=0, epochs=1)
print(f"DFT for one epoch, seed 0 again: {point['right']:.0%} right")
assert abs(point["right"] - of_pair("right", rate=1.5e-3, epochs=1)["DFT"][0]) < 0.05

# %% [markdown]
# **Read.** The stated setting was fixed after a trial with one of the three seeds, so the objections
# count. At the lowest rate, the best one for both, and after one epoch, DFT is ahead in every seed,
# but the word is *not shown*. What stays at all rates is the mechanism (`fitted_odd`): DFT learns
# fewer of the wrong values. It needs a base that *knew* the true ones; else nothing tells a wrong
# label from a right one.
#
# **Predict.** Now the labels are right but *new*: 90 facts about countries that the base never read
# join the training set. Which share of them can each model repeat after four epochs?

# %% tags=["predict"]
new = measured("fitted_odd", "unknown", **four)
untrained = recorded.measured("unknown_right", loss="cross-entropy", data="clean", **four)
word = compare(new, "DFT", "lower")

# %% tags=["predict", "folded"]
_ = plots.bars_with_spread(
    {two_lines[name]: seeds for name, seeds in new.items()} | {"never\ntrained": untrained},
    title="DFT does not learn what the base does not know",
    percent=True,
    ylabel="new facts repeated",
    colours=[plots.BLUE] * 6 + [plots.MUTED],
)
assert word == "held"

# %% [markdown]
# **Read.** *Held*: cross-entropy stores most of the new facts, DFT few, twice what a model guesses
# that never saw them. For the gradient a new fact and a wrong value are the same: unexpected. So
# "does DFT beat SFT?" is a question about the data. Where the base holds what is taught and some
# labels are wrong, it can win. A new fact or format it can hardly learn.

# %% [markdown]
# ## 5 · Rare tokens, and how sure a model is
#
# **Focal** loss is said to help rare words, because frequent ones no longer dominate. **Weighted**
# loss is meant for tokens that matter: here a token that stands in some value weighs 5. We measure
# nats per value token on held-out answers: of tokens that training graded at most once, and of all.
# **Predict:** does either loss help?

# %% tags=["predict"]
words = []
for epochs in (1, 4):
    rare, every = (measured(m, "clean", epochs=epochs, rate=1.5e-3) for m in ("rare_nll", "nll"))
    print(f"{epochs} epoch(s), nats of a value token")
    for name in NAMES:
        print(f"  {name:15} rare {sum(rare[name]) / 3:.2f}   all {sum(every[name]) / 3:.2f}")
    words += [compare(rare, name, "lower") for name in ("focal", "weighted")]
assert set(words) == {"not shown"}

# %% [markdown]
# **Read.** *Not shown*, for both losses and both lengths. A likely reason: frequent tokens are
# known after a few steps, and then their pull is near 0 under cross-entropy too.
#
# Three more epochs make the loss on rare held-out tokens several times *larger*, least under DFT. We
# noticed this afterwards and claim nothing.
#
# ### Calibration
#
# A model is **calibrated** when, among the guesses that it gives 70 %, 70 % are right. Sort guesses
# into ten bins by confidence. The **expected calibration error** (ECE) is the distance between mean
# confidence and share of right guesses, averaged over bins, each weighed by its share of guesses. We
# look at the first token of each value, for held-out countries that the base has read of, and for
# others that it has not.


# %%
def calibration_table(sure: torch.Tensor, right: torch.Tensor) -> list[tuple[int, float, float]]:
    """Guesses, mean confidence and share of right ones, for each bin that holds any."""
    bins = (sure * 10).long().clamp(max=9)
    return [
        (int(here.sum()), sure[here].mean().item(), right[here].float().mean().item())
        for here in (bins == b for b in range(10))
        if here.any()
    ]


# %% [markdown]
# **Predict.** Smoothing is said to mend models that are too sure. Does it lower the ECE here: on
# known countries, on unknown ones, on both?

# %% tags=["predict"]
tables = {}
for name, loss in {"cross-entropy": None, "smoothed": token_losses.smoothed(0.1)}.items():
    model = tune(base, tokenizer, rows, loss, seed=0)
    asked = facts["held_out"][:90] + facts["unknown"]
    values = read_values(model, tokenizer, asked)
    tables[name] = calibration_table(values.confidence, values.first_right)
    by_hand = sum(n * abs(sure - share) for n, sure, share in tables[name]) / len(asked)
    ours = expected_calibration_error(values.confidence, values.first_right)
    assert abs(by_hand - ours) < 1e-6
    print(f"{name}: ECE {by_hand:.2f} after one epoch, seed 0")
_ = draw_calibration(tables)

# %% tags=["predict"]
before = {}
for part in ("held_out", "unknown"):
    values = read_values(base, tokenizer, facts[part])
    before[part] = expected_calibration_error(values.confidence, values.first_right)
print(f"base: ECE {before['held_out']:.2f} known, {before['unknown']:.2f} unknown")
groups = {"ece": "known", "unknown_ece": "unknown", "ece_mixed": "both"}
ece = {m: measured(m, "clean", **four) for m in groups}
for name in NAMES:
    print(f"{name:15}", "  ".join(f"{groups[m]} {sum(v[name]) / 3:.2f}" for m, v in ece.items()))
words = []
for measure, group in groups.items():
    print(group, end=": ")
    words.append(compare(ece[measure], "smoothed", "lower"))
assert words == ["did not hold", "not shown", "did not hold"]

# %% [markdown]
# **Read.** On known countries the claim *did not hold*, nor on both together: smoothing makes a
# model too modest that was about right. On unknown countries, where cross-entropy is too sure, its
# mean is lower: *not shown*.
#
# The base is badly calibrated *inside the chat template*: right far more often than sure. Tuning
# mends that. On larger models tuning is reported to make ECE worse, and smoothing to restore it. So
# measure the ECE before you mend it.

# %% [markdown] tags=["exercise"]
# ### Exercise 12.6 · Calibration error · 8 min · ●●○
# Write the ECE, as a fraction, with ten bins of equal width from 0 to 1. A confidence on a border
# (0.5) belongs to the bin above it, and 1.0 to the last bin. Empty bins count nothing.


# %% tags=["stub"]
def calibration_error(confidence: torch.Tensor, right: torch.Tensor) -> float:
    """Return the ECE as a float. confidence: (N,) float64 from 0 to 1; right: (N,) bool; N ≥ 1."""
    raise NotImplementedError


# %% tags=["solution"]
def calibration_error(confidence: torch.Tensor, right: torch.Tensor) -> float:
    """Return the ECE as a float. confidence: (N,) float64 from 0 to 1; right: (N,) bool; N ≥ 1."""
    bins = (confidence * 10).long().clamp(max=9)
    total = 0.0
    for b in range(10):
        inside = bins == b
        total += abs((confidence[inside] - right[inside].double()).sum().item())
    return total / len(confidence)


# %% tags=["check"]
check("12.6", calibration_error)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The share of guesses in a bin times the distance of two means is
# the distance of two sums, divided by N.</details>

# %% [markdown] tags=["explanation"]
# ECE asks for honesty and not for knowledge: a model that gives every guess 50 % and is right half
# of the time has an ECE of 0. Report it beside accuracy.
#
# Usual mistakes: every bin counts the same, so one odd guess in an empty region moves the number;
# distances with a sign, which cancel; a confidence of 1.0 that falls into an eleventh bin.

# %% [markdown]
# ## What to remember
#
# - The gradient of a token's loss by the logits is $c\,(p - t)$. The weight $c$ says what a loss will
#   learn: 1 for cross-entropy, more for what is unknown (focal), $p$ for DFT.
# - DFT leaves alone what the base does not expect: wrong labels, new facts, a new stop token. A floor
#   under its weight gives the stop token back: look at that token's $p$ before you use DFT.
# - Compare losses by formula, not by name: the divisor, and what happens at −100. Compare runs by
#   cross-entropy and by answers.
# - Most promises of the other losses are not borne out here: measure on your own task, over seeds.
#
# ## Sources
#
# - T.-Y. Lin et al., *Focal Loss for Dense Object Detection*, 2017, arXiv:1708.02002.
# - DFT: *On the Generalization of SFT: A Reinforcement Learning Perspective with Reward
#   Rectification*, 2025, arXiv:2508.05629. User reports: github.com/yongliang-wu/DFT, issues 1 (the
#   stop token, and the floor of 0.1), 11, 14, 18.
# - Calibration after SFT, and smoothing: 2025, arXiv:2508.00264. ECE: C. Guo et al., *On Calibration
#   of Modern Neural Networks*, 2017, arXiv:1706.04599.
# - The opposite of focal loss was proposed for text as well: *Anti-Focal*, 2020, arXiv:2010.04924.
# - PyTorch: `torch.nn.functional.cross_entropy`; transformers: `LabelSmoother`; TRL:
#   `SFTConfig(loss_type="dft")`. Smoothing without the shift: github.com/huggingface/transformers,
#   issue 27161.
#
# <details><summary>中文要点</summary>
#
# 1. 各种**损失函数**对 logits 的梯度都是 c·(p − t)：交叉熵 c = 1，**加权损失** c = w，**聚焦损失**（focal）偏重
#    概率小的词元，**DFT** 的权重就是 p，二者方向相反；**标签平滑**改变的是目标分布。
# 2. DFT 对概率接近 0 的词元几乎没有梯度：基座没见过的**停止词元** `<|im_end|>` 学不会，模型停不下来；给权重设
#    **下限**（如 0.1）即可恢复。在 SmolLM2-135M 上用一个几乎不会出现的结束标记重复实验，结论相同。
# 3. 同一性质也有好处：训练数据含 30 % 错误答案时，DFT 几乎不学错误答案；代价是也学不会基座不知道的新事实。
# 4. 公式要看清：加权损失除以权重之和；平滑项在 −100 处也要屏蔽；torch、transformers 的平滑与 fairseq 相差因子
#    V/(V−1)；TRL 使用 DFT 时会悄悄忽略 label smoothing。
# 5. **校准**（calibration）用 ECE 衡量：置信度与正确率之差的加权平均。训练损失不能在不同损失函数之间比较。
#
# </details>
