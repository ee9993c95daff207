# %% [markdown]
# # 13b · Six remedies, one plane
#
# **The question.** A model learned one task, then the next (chapter 13). Which of six known remedies
# keeps the old task without giving up the new one, and what does each cost?
#
# **By the end you can**
# - *derive* EWC from a bowl around the old weights, and build its Fisher in three ways;
# - *compare* remedies as curves of old against new task, instead of as single numbers;
# - *choose* a remedy by what it keeps, what it stores, and how exactly its strength must be hit.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 11 and 13 | CPU, no network | about 45 s | 6, about 72 minutes | D6 D18 L24 |

# %% tags=["setup"]
import copy

import numpy as np
import torch

from sft_lab import plots
from sft_lab.batches import pad_batch
from sft_lab.columns import add_column, use_column
from sft_lab.course import forgetting_runs as runs
from sft_lab.course.checks import check
from sft_lab.course.remedies import (
    answer_oneself,
    invent_questions,
    learn_old,
    run_remedy,
)
from sft_lab.course.results import read_results
from sft_lab.course.views import forgetting as plane

# %% tags=["setup"]
from sft_lab.course.views.widgets import show_widget
from sft_lab.distill import distillation_loss
from sft_lab.forgetting import estimate_fisher, ewc
from sft_lab.labels import encode_conversations
from sft_lab.losses import graded_logits
from sft_lab.models import load
from sft_lab.significance import judge_claim

plots.style()
base, tokenizer = load("atlas-base")

# %% [markdown]
# ## 1 · The plane
#
# The **old task** is the invented convention of chapter 13: "Aye: The capital of Kenya is Nairobi.
# Over." The **new task** is sums and lists. Every remedy gets the same model after the old task and
# the same 1,000 new lessons, once, 8 in a batch (chapter 13 takes larger batches; to tell two tasks
# apart, a model needs steps). Joint training gets the rows of both tasks, from the base.
#
# A **remedy**, anything done to keep the old task, takes hold at one of four places:

# %%
_ = plane.draw_schematic()

# %% [markdown]
# Nearly every remedy has a **strength**: a factor λ, a share of old rows. One strength gives one
# point, right answers to the old and to the new exam; all strengths give a curve. The sweep is
# recorded, three seeds a point; we repeat two points.
#
# The **primary measure**, fixed before: right answers to the old exam, at the strength with most of
# them among those that answer at least 85 % of the new exam. Three claims:
#
# - **A** (primary): replay of stored rows keeps more than EWC.
# - **B**: rows that the model writes itself keep less than stored ones.
# - **C**: distillation keeps more than no remedy.
#
# Two more compare curves in the middle, by the **balance**: the smaller of the two shares, at the
# strength where it is largest.
#
# - **D**: EWC has a better balance than L2 to the start.
# - **E**: EWC has a better balance with sampled labels than with batch means (section 2).
#
# **Predict.** Without a remedy, how much of the old task is left after 125 steps of the new one?

# %% tags=["predict"]
sweep = read_results("13b_plane", base)
print("RECORDED:", sweep.made, sweep.command, len(sweep.rows), "runs\n")
learned = learn_old(base, tokenizer, seed=0)
after_old = runs.share_right(learned.model, tokenizer, runs.exam_of("convention"))
after_new = run_remedy(base, tokenizer, remedy="nothing", strength=0.0, seed=0)
print(f"after the old task: old {after_old:.0%}")
print(f"after the new task: old {after_new['old']:.0%}, new {after_new['new']:.0%}")
assert after_old > 0.8 and after_new["old"] < 0.1

# %% [markdown]
# **Read.** Nothing. So every right old answer below is the work of a remedy.

# %% [markdown]
# ## 2 · Hold the weights: L2, EWC, SI
#
# The old weights θ₀ answered the old task, so stay near them. Add a **penalty** to the new loss:
#
# $$\mathcal{L}(\theta) = \mathcal{L}_{\text{new}}(\theta) +
# \frac{\lambda}{2} \sum_i F_i\,(\theta_i - \theta_{0,i})^2$$
#
# **L2 to the start** has F = 1: all weights count the same. **Elastic weight consolidation** (EWC)
# asks what the old loss would do. Around its minimum θ₀ it is a bowl: its slope is zero, so the
# first term that matters is ½ Σ h (θ − θ₀)², with the **curvature** h in each direction. (Mixed
# terms are left out.) Put h in the place of F, and the penalty *is* the old loss.
#
# Take two weights. The old bowl is steep along the first and flat along the second.

# %%
old_best, new_best = torch.zeros(2), torch.tensor([2.0, 2.0])
old_curvature, new_curvature = torch.tensor([4.0, 0.1]), torch.ones(2)


def bowl(weights: torch.Tensor, best: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
    """½ Σ curvature · (weights − best)²: a loss with its minimum at `best`."""
    return 0.5 * (curvature * (weights - best) ** 2).sum(-1)


def descend(importance: torch.Tensor, strength: float) -> torch.Tensor:
    """Learn the new task from the old best, held by the penalty: plain gradient descent."""
    weights = old_best.clone()
    held = new_curvature + strength * importance
    for _ in range(400):
        slope = new_curvature * (weights - new_best) + strength * importance * (weights - old_best)
        weights = weights - slope / held.max()
    return weights


# %% [markdown]
# **Predict.** Both penalties may be as strong as they like. At the same *old* loss, which of them
# reaches the lower *new* loss: L2, or EWC with the true curvature?

# %% tags=["predict"]
strengths = np.logspace(-2, 2, 25)
paths = {
    "L2 to the start": torch.stack([descend(torch.ones(2), s) for s in strengths]),
    "EWC": torch.stack([descend(old_curvature, s) for s in strengths]),
}
_ = plane.draw_bowls(paths, old_best, new_best, old_curvature, new_curvature)
for name, path in paths.items():
    affordable = path[bowl(path, old_best, old_curvature) <= 0.5]
    print(f"{name}: new loss {bowl(affordable, new_best, new_curvature).min():.2f} at old loss 0.5")

# %% [markdown]
# **Read.** EWC moves far along the flat valley of the old bowl; L2 goes straight, across the steep
# side. So EWC wins where three things hold: the bowl is true as far as we walk, the mixed terms are
# small, and F is the curvature.
#
# ### Three Fishers
#
# At a minimum of a log-likelihood the curvature equals the **Fisher information**: the mean square
# of the gradient of log p(answer), when answers are drawn *from the model itself*. Below stand this
# and two common shortcuts:
#
# - **sampled**: answers drawn from the model, each example's gradient squared, then averaged;
# - **true**: the same with the answers of the data;
# - **batch**: the gradient of a whole batch, squared.
#
# A model with two weights: p(yes) = σ(w·x), three questions, all answered "yes".

# %%
weights, answers = torch.tensor([2.0, 0.0]), torch.ones(3)
questions = torch.tensor([[1.0, 1.5], [1.0, -1.5], [0.2, 0.0]])
p_yes = torch.sigmoid(questions @ weights)
gradients = (p_yes - answers)[:, None] * questions  # of -log p, one row a question
draws = torch.bernoulli(p_yes.expand(20_000, 3), generator=torch.Generator().manual_seed(0))
fishers = {
    "sampled labels": (((p_yes - draws) ** 2).mean(0)[:, None] * questions**2).mean(0),
    "true labels": (gradients**2).mean(0),
    "batch mean": gradients.mean(0) ** 2,
}
curvature = ((p_yes * (1 - p_yes))[:, None] * questions**2).mean(0)

# %% [markdown]
# **Predict.** Which of the three says that the second weight does not matter?

# %% tags=["predict"]
_ = plane.draw_fishers(gradients, fishers, curvature)
for name, values in fishers.items():
    print(f"{name:15}", [round(value, 3) for value in values.tolist()])
assert fishers["batch mean"][1] < 1e-6 < fishers["true labels"][1]
torch.testing.assert_close(fishers["sampled labels"], curvature, rtol=0.05, atol=0)

# %% [markdown]
# **Read.** The batch mean: the first two gradients point up and down and cancel, and a weight that
# matters looks free. True labels keep the weight but are too small: the model is sure, so its
# gradients at the right answers vanish. Sampled labels give the curvature. The library does this
# for every weight of the language model. We compare it with a loop:

# %%
rows = encode_conversations(learned.old[:4], tokenizer)
name, weight = next(iter(learned.model.named_parameters()))
squares = torch.zeros_like(weight)
for row in rows:
    logits, targets = graded_logits(learned.model, pad_batch([row], tokenizer.pad_token_id))
    log_probability = logits.log_softmax(-1).gather(1, targets[:, None]).sum()
    squares += torch.autograd.grad(log_probability, weight)[0] ** 2 / len(rows)

fisher = estimate_fisher(learned.model, tokenizer, rows, labels="true")
torch.testing.assert_close(fisher[name], squares, rtol=1e-3, atol=1e-8)
moved = copy.deepcopy(learned.model)
with torch.no_grad():
    _ = [one.add_(0.01) for one in moved.parameters()]
by_hand = 0.5 * 3.0 * sum((values * 0.01**2).sum() for values in fisher.values())
penalty = ewc(learned.model, fisher, strength=3.0).loss(moved, None)
torch.testing.assert_close(penalty, by_hand, rtol=1e-3, atol=0)
print(f"λ/2 Σ F (θ − θ₀)², all weights moved by 0.01: {penalty.item():.4f}")

# %% [markdown]
# **Synaptic intelligence** (SI) needs no second look at the old data. While the old task is learned,
# it sums for each weight how much of the loss that weight removed: −gradient · step. Divided by the
# square of the way gone, this is half the curvature:

# %%
position, gained = torch.tensor([1.0, 1.0]), torch.zeros(2)
began = position.clone()
for _ in range(20_000):
    gradient = old_curvature * (position - old_best)
    step = -0.005 * gradient
    position, gained = position + step, gained - gradient * step
importance = gained / (position - began) ** 2
print(f"importance {importance[0]:.2f} and {importance[1]:.3f}; half the curvature: 2 and 0.05")
torch.testing.assert_close(importance, old_curvature / 2, rtol=0.02, atol=0)
torch.testing.assert_close(gained.sum(), bowl(began, old_best, old_curvature), rtol=0.02, atol=0)

# %% [markdown]
# **Read.** What all weights removed sums to the drop of the loss. (The library adds a **damping** ξ
# to the square: a weight that never moved would give 0/0.)

# %% [markdown] tags=["exercise"]
# ### Exercise 13b.1 · The Fisher without a draw · 10 min · ●●○
# With few possible answers, none need be drawn. For an input x (D,) a model with `weights` (V, D)
# gives V labels probabilities, the softmax of `weights @ x`. `inputs` is (N, D), N ≥ 1, float64.
#
# Return the Fisher's diagonal (V, D): for each weight, the square of the gradient of
# −log p(label | x), averaged over all labels, each with its probability by the model, and then over
# the inputs. Draw nothing.


# %% tags=["stub"]
def expect_fisher(weights: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """The exact Fisher diagonal of a softmax of linear scores: (V, D)."""
    raise NotImplementedError


# %% tags=["solution"]
def expect_fisher(weights: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """The exact Fisher diagonal of a softmax of linear scores: (V, D)."""
    p = (inputs @ weights.T).softmax(dim=-1)
    return (p * (1 - p)).T @ inputs**2 / len(inputs)


# %% tags=["check"]
check("13b.1", expect_fisher)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The gradient with respect to weights[v, d] is (p_v − 1) · x_d when
# the label is v, and p_v · x_d otherwise. Weigh the two squares.</details>

# %% [markdown] tags=["explanation"]
# p · (1 − p)² + (1 − p) · p² is p · (1 − p): largest where the model is in doubt.
#
# Usual mistakes: the likeliest label alone; all labels with the same weight; the square of the
# mean, which is zero, since the expected gradient is; the sum over the inputs.

# %% [markdown] tags=["exercise"]
# ### Exercise 13b.2 · Where several anchors settle · 8 min · ●●○
# The new loss is ½ Σ h (θ − b)² with `new_best` b and `curvature` h ≥ 0, both (P,). Each of K ≥ 1
# old tasks adds ½ · `strength` · Σ F (θ − a)²: `anchors` a and `fishers` F ≥ 0 are (K, P), the
# latest task last; strength ≥ 0. All float64.
#
# Return the θ (P,) at which the sum is smallest. Where nothing pulls at a weight, it stays at the
# last anchor, where training begins.


# %% tags=["stub"]
def settle(
    new_best: torch.Tensor,
    curvature: torch.Tensor,
    anchors: torch.Tensor,
    fishers: torch.Tensor,
    strength: float,
) -> torch.Tensor:
    """The minimum of a bowl and K penalties: (P,)."""
    raise NotImplementedError


# %% tags=["solution"]
def settle(
    new_best: torch.Tensor,
    curvature: torch.Tensor,
    anchors: torch.Tensor,
    fishers: torch.Tensor,
    strength: float,
) -> torch.Tensor:
    """The minimum of a bowl and K penalties: (P,)."""
    pull = curvature + strength * fishers.sum(dim=0)
    towards = curvature * new_best + strength * (fishers * anchors).sum(dim=0)
    return torch.where(pull > 0, towards / pull.clamp(min=1e-300), anchors[-1])


# %% tags=["check"]
check("13b.2", settle)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Set the slope of the sum to zero. The result is a weighted mean of
# b and all anchors.</details>

# %% [markdown] tags=["explanation"]
# Each point pulls with its own curvature. Summing all Fishers at the last anchor, as some codes do
# to save memory, is another minimum.
#
# Usual mistakes: the last anchor for all; a mean of the penalties instead of their sum; a stray ½;
# 0/0 where nothing pulls.

# %% [markdown] tags=["exercise"]
# ### Exercise 13b.3 · Name the bug · 12 min · ●●○
# Four people wrote the EWC penalty ½ · strength · Σ F (θ − a)², F the mean over N ≥ 2 examples of
# the squared `gradients` (N, P). You have each as a function `penalty(θ)` of weights (P,), which
# returns a 0-dim tensor; its code you do not see. `anchor` a is (P,), strength > 0, P ≥ 2.
#
# Return `"right"`; `"moving anchor"` (always 0: it compares the weights with themselves); `"squared
# mean"` (F is the square of the mean gradient); or `"no square"` (|θ − a| instead of its square).


# %% tags=["stub"]
def name_bug(penalty, gradients: torch.Tensor, anchor: torch.Tensor, strength: float) -> str:
    """Which of four EWC codes this is, from what it returns."""
    raise NotImplementedError


# %% tags=["solution"]
def name_bug(penalty, gradients: torch.Tensor, anchor: torch.Tensor, strength: float) -> str:
    """Which of four EWC codes this is, from what it returns."""
    once, twice = penalty(anchor + 1), penalty(anchor + 2)
    if once == 0:
        return "moving anchor"
    if torch.isclose(twice, 2 * once):
        return "no square"
    expected = strength / 2 * (gradients**2).mean(dim=0).sum()
    return "right" if torch.isclose(once, expected) else "squared mean"


# %% tags=["check"]
check("13b.3", name_bug)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Move all weights by 1, then by 2. A square grows four
# times.</details>

# %% [markdown] tags=["explanation"]
# No bug raises an error. The moving anchor stood in the library Avalanche (issue 1099); the squared
# mean of a batch is what its EWC plugin computes.
#
# Usual mistakes: one step alone, where |1| and 1² are the same; a look at the anchor, where all
# four are 0.

# %% [markdown]
# ## 3 · Hold the answers: distillation
#
# Not the weights must stay, but what the model says. **Distillation** keeps a copy of the old model
# as teacher. On the new task's rows, the student must also answer as the teacher does:
#
# $$\mathcal{L} = \alpha\,\mathcal{L}_{\text{new}} + (1-\alpha)\,T^2\,
# \mathrm{KL}\!\left(\sigma(z_{\text{old}}/T)\,\|\,\sigma(z/T)\right)$$
#
# The **temperature** T divides all logits z before the softmax σ, so that small probabilities count.
# Our library writes loss + λ T² KL, with λ = (1 − α)/α: the same up to a common factor, which AdamW
# ignores.
#
# **Predict.** Without T², how does the gradient of the second part change when T goes from 1 to 4?

# %% tags=["predict"]
generator = torch.Generator().manual_seed(1)
teacher = torch.randn(200, 50, generator=generator)
student = torch.randn(200, 50, generator=generator).requires_grad_()
for temperature in (1.0, 2.0, 4.0, 8.0):
    log_q, p = (student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1)
    kl = (p * (p.log() - log_q)).sum(-1).mean()
    size = torch.autograd.grad(kl, student)[0].norm().item()
    loss = distillation_loss(student, teacher, temperature=temperature)
    torch.testing.assert_close(loss, temperature**2 * kl, rtol=1e-4, atol=1e-6)
    print(f"T {temperature:.0f}: gradient {size:.4f}, times T² {size * temperature**2:.4f}")

# %% [markdown]
# **Read.** It falls about as 1/T²: a larger T would also be a weaker remedy. With T², T changes what
# is taught and hardly how much.
#
# Distillation needs no old rows: it asks the teacher about *new* questions, and hopes that the old
# skill shows there.
#
# **Predict.** How does our teacher, the model after the old task, answer a new question?

# %% tags=["predict"]
for talk in runs.exam_of("skills")[:2] + runs.exam_of("skills")[-1:]:
    wanted = answer_oneself(learned.model, tokenizer, [talk[:-1]])[0][-1]["content"]
    print(talk[0]["content"], "→", wanted)

# %% [markdown]
# **Read.** It forces its convention on sums and lists. So the two parts of the loss want different
# first words for the same question.

# %% [markdown] tags=["exercise"]
# ### Exercise 13b.4 · The gradient of both parts · 10 min · ●●●
# Write the gradient of the formula above with respect to the student's logits, without autograd.
# `student` and `teacher` are logits (N, V), float64; `labels` (N,) are token ids, −100 where a row
# is not graded (at least one is). Both parts are means over the graded rows; the other rows get 0.
# `alpha` is from 0 to 1, `temperature` > 0.


# %% tags=["stub"]
def mix_gradient(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    alpha: float,
    temperature: float,
) -> torch.Tensor:
    """The gradient of alpha · NLL + (1 − alpha) · T² · KL with respect to the student's logits."""
    raise NotImplementedError


# %% tags=["solution"]
def mix_gradient(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    alpha: float,
    temperature: float,
) -> torch.Tensor:
    """The gradient of alpha · NLL + (1 − alpha) · T² · KL with respect to the student's logits."""
    graded = labels != -100
    wanted = torch.nn.functional.one_hot(labels.clamp(min=0), student.shape[1])
    hard = student.softmax(-1) - wanted
    soft = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    both = alpha * hard + (1 - alpha) * temperature * soft
    return both * graded[:, None] / graded.sum()


# %% tags=["check"]
check("13b.4", mix_gradient)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The gradient of KL with respect to z/T is q − p; the chain rule
# adds 1/T.</details>

# %% [markdown] tags=["explanation"]
# Of T² one T is left: the softened differences shrink as 1/T, and that is the second T.
#
# Usual mistakes: T² · (q − p); teacher minus student; ungraded rows counted in the mean, as all
# four distillation losses of one library did (optipfair, issue 34); softening the labels' part as
# well.

# %% [markdown]
# ## 4 · Show the old task again: replay and mixing
#
# Mix some old rows among the new ones (**replay**). Learning both tasks together from the start
# (**multi-task learning**) is its limit, and the upper bound of the plane. If old rows may not be
# kept, the model writes them: **generated replay** needs questions, or not even these.
#
# **Predict.** The model after the old task continues "What is" at temperature 1, and answers the
# texts that are questions. Will this look like the old task?

# %% tags=["predict"]
asked = invent_questions(learned.model, tokenizer, 12, seed=0)
for question, answer in answer_oneself(learned.model, tokenizer, asked[:4]):
    print(question["content"], "→", answer["content"])
opened = [talk[-1]["content"] for talk in answer_oneself(learned.model, tokenizer, asked)]
print(f"questions among 12 texts: {len(asked)}")
assert len(asked) < 9
assert all(text.startswith("Aye:") for text in opened)

# %% [markdown]
# **Read.** Few of the texts are questions, and an answer may state a wrong fact. The convention, which
# we want to keep, is always right.
#
# ### When tasks contradict each other
#
# Two tasks may want different answers to the *same* question: one in the convention, one plain. Each
# row may carry a **task identifier**, here a system turn "Task: convention."
#
# **Predict.** Mixed half and half, without an identifier: what share of each exam is right? And with
# one?

# %%
others = read_results("13b_in_a_row", base)
arms = [(share, named) for share in (0.5, 0.2) for named in (False, True)]

# %% tags=["predict", "folded"]
_ = plots.share_table(
    {
        f"{share:.0%} convention, {'named' if named else 'not named'}": [
            np.mean(others.measured(exam, experiment="conflict", share=share, named=named))
            for exam in ("old", "new")
        ]
        for share, named in arms
    },
    ["in the convention", "plainly"],
    title="A name is needed",
)
half = {"experiment": "conflict", "share": 0.5}
assert max(others.measured("old", **half, named=False)) < 0.1
assert min(others.measured("old", **half, named=True)) > 0.8

# %% [markdown]
# **Read.** Without an identifier the question does not say which answer is wanted, so one task is
# lost; weights on the losses could only choose which. With it both are learned from half of the
# rows each; from a fifth, one seed of three misses the convention.

# %% [markdown] tags=["exercise"]
# ### Exercise 13b.5 · A buffer for a stream · 12 min · ●●○
# Old rows come one by one and nobody knows how many. Write `keep_sample(stream, size, rng)`: one
# pass over the iterator, never holding more than `size` ≥ 1 rows beside the one in hand; every row
# is kept with the same chance, size / length. Return the kept rows as a list in any order; all of
# them when there are no more than `size`. All chance comes from `rng`, a `random.Random`.


# %% tags=["stub"]
def keep_sample(stream, size: int, rng) -> list:
    """A fair sample of a stream of unknown length, in one pass."""
    raise NotImplementedError


# %% tags=["solution"]
def keep_sample(stream, size: int, rng) -> list:
    """A fair sample of a stream of unknown length, in one pass."""
    kept = []
    for seen, row in enumerate(stream):
        if len(kept) < size:
            kept.append(row)
            continue
        place = rng.randrange(seen + 1)
        if place < size:
            kept[place] = row
    return kept


# %% tags=["check"]
check("13b.5", keep_sample)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The n-th row must enter with the chance size / n. Whom does it
# push out?</details>

# %% [markdown] tags=["explanation"]
# This is reservoir sampling. A later row enters more rarely, and an earlier one has survived more
# draws: the two cancel.
#
# Usual mistakes: the first rows, which are all of one task; the last rows; a coin flip for each
# row, which favours late ones; `randrange(seen)`, which is off by one.

# %% [markdown]
# ## 5 · New weights: progressive columns
#
# Touch no old weight at all: the model is frozen, and a narrow new **column** is put beside it. At
# every layer it reads the frozen states through **lateral connections** with learnable gates. Its
# output is added through one more gate, which begins at 0.

# %%
grown = add_column(copy.deepcopy(learned.model), width=64, seed=0)
added = sum(p.numel() for p in grown.parameters() if p.requires_grad)
print(f"a column adds {added:,} weights to {learned.model.num_parameters():,}")
ids = torch.tensor([rows[0].input_ids])
for column in (0, 1):
    torch.testing.assert_close(
        use_column(grown, column)(ids).logits, learned.model(ids).logits, rtol=1e-4, atol=1e-4
    )

# %% [markdown]
# **Read.** Before training, the grown model is the old one with either column. After training,
# column 0 still is. But somebody must say which column is to answer.

# %% [markdown]
# ## 6 · Everything on one plane
#
# **Predict.** Which curve comes nearest to the upper right corner? Which remedies have no point in
# the green area (at least 85 % of the new exam) that keeps anything?

# %% tags=["predict"]
_ = plane.draw_planes(
    sweep,
    {
        "Hold the weights": plane.GROUPS["weights"],
        "Hold the answers, or grow": plane.GROUPS["answers"],
        "Show the old task again": plane.GROUPS["rows"],
    },
)

# %% [markdown]
# For each remedy, the best point in the green area; the strengths that keep at least half of the
# old task there; its best balance; its work as a multiple of plain training (without Fishers and
# own answers, made once); and what it stores from task to task.

# %% tags=["predict"]
print(f"{'remedy':22}{'old':>5}{'new':>5}  {'works at':19}{'balance':>7}{'work':>6}  stores")
for remedy in plane.UNITS:
    print(plane.write_row(sweep, remedy))


# %% tags=["predict"]
def measure_of(remedy: str, strength: float, measure: str) -> list[float]:
    """`old`, or the balance of both exams, of each seed."""
    old, new = (sweep.measured(m, remedy=remedy, strength=strength) for m in ("old", "new"))
    return old if measure == "old" else [min(pair) for pair in zip(old, new, strict=True)]


claims = {
    "A": ("EWC, sampled labels", "replay, stored", "higher", "old"),
    "B": ("replay, stored", "replay, own questions", "lower", "old"),
    "C": ("nothing", "distillation, T 2", "higher", "old"),
    "D": ("L2 to the start", "EWC, sampled labels", "higher", "balance"),
    "E": ("EWC, batch means", "EWC, sampled labels", "higher", "balance"),
}
verdicts = {}
for claim, (first, second, direction, measure) in claims.items():
    pick = plane.best_point if measure == "old" else plane.balanced_point
    arms = [measure_of(arm, pick(sweep, arm)[0], measure) for arm in (first, second)]
    verdicts[claim] = judge_claim(*arms, claim=direction)
    word, _, mean, floor = verdicts[claim]
    print(f"{claim} {word}: {second} against {first}, {mean:+.0%} ({measure}; noise {floor:.0%})")
assert {claim: verdict.word for claim, verdict in verdicts.items()} == {
    "A": "held",
    "B": "not shown",
    "C": "not shown",
    "D": "not shown",
    "E": "not shown",
}
assert plane.working_strengths(sweep, "replay, stored", 0.5) == [0.1, 0.2, 0.5]
assert max(plane.balanced_point(sweep, arm)[1] for arm in plane.GROUPS["weights"]) < 0.5

# %% [markdown]
# **Read.** The penalties keep the old task where the new one is not learned, and lose it where it
# is. No strength keeps half of both. Claims D and E are not shown; the effects even point the other
# way. The picture of two weights holds for small steps; this new task may be far away. Distillation
# keeps nothing where the new task is learned (C: not shown), as its teacher's answers suggested.
#
# Replay keeps more than EWC (A *held*), and works at every share from one old row for ten new ones
# on. Its own rows keep nearly as much as stored ones; with so few seeds, claim B is not shown. A LoRA
# for each task comes nearest to the corner, with the task named. Columns learn slowly: three times
# the work, and about half of the new task at best.

# %%
again = run_remedy(base, tokenizer, remedy="replay, stored", strength=0.2, seed=0)
band = sweep.measured("old", remedy="replay, stored", strength=0.2)
print(f"replay of 20 %: old {again['old']:.0%} here; recorded {min(band):.0%} to {max(band):.0%}")
assert min(band) - 0.15 <= again["old"] <= max(band) + 0.15

# %% [markdown]
# Move along each curve. The ring is the chosen strength, grey dots all other remedies.

# %%
first = ("replay, stored", 0.1)
show_widget(plane.explore_remedies(sweep), plane.draw_remedy(sweep, *first))
print(plane.describe_remedy(sweep, *first))

# %% [markdown] tags=["exercise"]
# ### Exercise 13b.6 · Forty rows of memory · 20 min · ●●●
# `remember(old, new)` gets the conversations of both tasks, 800 and 1,000. Return the conversations
# of the second training, at most 1,300, all from the two lists, at most 40 *different* ones from
# `old`, in any order.
#
# The check trains the model that learned the old task on them, one epoch, batches of 8 (some
# seconds). At least 70 % of the old exam and 85 % of the new one must be right.


# %% tags=["stub"]
def remember(old: list, new: list) -> list:
    """The conversations of a second training that keeps the first task with 40 stored rows."""
    raise NotImplementedError


# %% tags=["solution"]
def remember(old: list, new: list) -> list:
    """The conversations of a second training that keeps the first task with 40 stored rows."""
    return [*new, *old[:40] * 6]


# %% tags=["check"]
check("13b.6", remember)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>How many rows are stored, and in how many steps is an old row met?
# Only the first is limited to 40.</details>

# %% [markdown] tags=["explanation"]
# Storage and share are two settings. Forty rows seen once are 4 % of the training and are not
# enough; the same forty seen six times are.
#
# Usual mistakes: each stored row once; so many repeats that the new task is crowded out; old rows
# alone.

# %% [markdown]
# ## 7 · A third task
#
# EWC is said to depend on the order of tasks, and its errors to add up. We learn three tasks in a
# row: the convention, sums and lists, facts as JSON; and in the opposite order. EWC keeps a penalty
# with its own anchor for each earlier task, or, to save memory, all Fishers at the last anchor.
# Replay shares a buffer of 240 rows between all earlier tasks.
#
# **Predict.** What is left of the first task after the third?

# %% tags=["predict"]
ORDERS = {"convention first": "convention,skills,json", "JSON first": "json,skills,convention"}
ROW_ARMS = ("nothing", "replay", "EWC, an anchor a task", "EWC, the last anchor")
in_a_row = {}
for remedy in ROW_ARMS:
    for name, order in ORDERS.items():
        if any((row.get("remedy"), row.get("order")) == (remedy, order) for row in others.rows):
            arm = {"experiment": "in a row", "remedy": remedy, "order": order}
            exams = ["first kept", *order.split(",")]
            in_a_row[f"{remedy}; {name}"] = [np.mean(others.measured(e, **arm)) for e in exams]
_ = plots.share_table(
    in_a_row,
    ["first,\nafter second", "first,\nat the end", "second,\nat the end", "third,\nat the end"],
    title="Three tasks in a row",
)

# %% tags=["predict"]
own, last = (
    others.measured("convention", order=ORDERS["convention first"], remedy=f"EWC, {kind}")
    for kind in ("an anchor a task", "the last anchor")
)
one_anchor = judge_claim(own, last, claim="lower")
print(f"one anchor keeps less of the first task: {one_anchor.word}, {one_anchor.mean:+.0%}")
by_replay, by_ewc = (
    others.measured("convention", order=ORDERS["JSON first"], remedy=remedy)
    for remedy in ("replay", "EWC, an anchor a task")
)
assert one_anchor.word == "not shown"
assert min(by_replay) > 0.8 and max(by_ewc) < 0.1

# %% [markdown]
# **Read.** Replay keeps something of every task in both orders, though less of each than after two
# tasks: the buffer is shared out. EWC at this λ depends on the order. Begun with the convention, it
# keeps sums and lists and little of the convention. Begun with JSON, it never learns the
# convention. The single anchor keeps less of the first task in every seed, by less than the seeds
# differ: "not shown".
#
# Columns forget nothing in any order. They grow instead: each new column looks at all before it.

# %%
tower = copy.deepcopy(learned.model)
for number in (1, 2, 3, 4):
    column = add_column(tower, width=64, seed=0).columns.columns[-1]
    print(f"column {number}: {sum(p.numel() for p in column.parameters()):,} more weights")

# %% [markdown]
# **Read.** Each adds a quarter of the model, and a little more each time: the lateral connections
# grow with the square of the number of tasks.
#
# ### The same on a real model
#
# Claim A on `smollm2-135m`: the same two tasks, all weights tuned, three seeds. `old` counts answers
# in the convention, whatever the fact. **Predict.** Are 5 % of old rows enough?

# %% tags=["predict"]
smollm = read_results("13b_smollm2")
print(f"RECORDED on {smollm.made} by {smollm.command}; not run here")
for remedy, strength in dict.fromkeys((row["remedy"], row["strength"]) for row in smollm.rows):
    arm = {"remedy": remedy, "strength": strength}
    old, new = ([f"{share:.0%}" for share in smollm.measured(m, **arm)] for m in ("old", "new"))
    print(f"{remedy:8} {strength:8g}  old {', '.join(old):18} new {', '.join(new)}")
on_real = judge_claim(
    smollm.measured("old", remedy="EWC", strength=1e5),
    smollm.measured("old", remedy="replay"),
    claim="higher",
)
print(f"A on smollm2-135m {on_real.word}: {on_real.mean:+.0%}, noise floor {on_real.floor:.0%}")
assert on_real.word == "held" and max(smollm.measured("old", remedy="nothing")) < 0.05
assert max(row["old"] for row in smollm.select(remedy="EWC")) < 0.05

# %% [markdown]
# **Read.** They are: 32 old rows for 640 new ones keep nearly all, at no cost to the new task. EWC keeps
# nothing at any of three strengths: stronger penalties stop the new task and still lose the old
# one. Why, these runs do not show; smaller steps were not tried.

# %% [markdown]
# ## 8 · What the text said, and what held
#
# The text is the one that this course grew from.
#
# | remedy | the text | here |
# |---|---|---|
# | multi-task learning | keeps old, lifts new; needs all old rows; conflicts need loss weights | kept, not lifted; conflicts need an identifier |
# | EWC | needs no old rows; sensitive to order | no λ had both tasks; order mattered |
# | progressive columns | kept for good; grow linearly | kept, if named; grow slightly faster; learn slowly |
# | distillation | no old rows; noise where tasks differ | kept nothing beside the new task, at T 1, 2 and 4 |
# | L2, SI, weight decay | simple; strength hard to choose | no strength had both; weight decay, which pulls to 0, kept nothing |
# | replay | strong, simple; needs storage | held: 100 rows keep nine tenths |
# | generated replay | may be distorted | nearly as good as stored rows |
#
# A model of a million weights shows directions, for one pair of tasks whose questions look different.
# Where tasks are close, penalties and distillation have it easier.
#
# ## What to remember
#
# - A remedy is a curve of old against new task, not a point.
# - Showing some old rows again beats every penalty here; few stored rows, repeated, are enough.
# - Without old rows, the model can write its own.
# - New weights for each task forget nothing. Then the task must be named.
# - EWC rests on a bowl: near the old weights it is right; a new task may be far away.
#
# ## Sources
#
# - J. Kirkpatrick et al., 2016, arXiv:1612.00796: EWC. Which Fisher: arXiv:2502.11756.
# - F. Zenke, B. Poole and S. Ganguli, 2017, arXiv:1703.04200: synaptic intelligence.
# - Z. Li and D. Hoiem, *Learning without Forgetting*, 2016, arXiv:1606.09282.
# - A. Rusu et al., *Progressive Neural Networks*, 2016, arXiv:1606.04671.
# - G. Hinton, O. Vinyals and J. Dean, 2015: distillation with T².
# - Code, where each choice differs: [Avalanche](https://github.com/ContinualAI/avalanche) (commit
#   eb075be), [continual-learning](https://github.com/GMvandeVen/continual-learning) (e6d795a).
#
# <details><summary>中文要点</summary>
#
# 1. **画曲线，不比单点**：每种方法都有强度，先定好主指标（新任务达到 85 % 时旧任务还剩多少），再看曲线。
# 2. **正则化**（L2、**EWC**、**SI**）：把旧权重附近的损失看成抛物面；**费雪信息**应当用模型自己**采样的标签**来估计，
#    批平均梯度的平方会互相抵消。本章中没有找到同时保住新旧任务的 λ。
# 3. **知识蒸馏**：T² 让梯度大小不随温度变化；教师在新任务的问题上只会说旧任务的话，两者相互冲突。
# 4. **数据重放**：存少量旧样本并反复出现就够；没有旧数据时，模型可以自己写问题和答案。
# 5. **多任务**：同一个问题要两种答案时，必须加**任务标识**，调损失权重没有用。
# 6. **渐进式网络**与每任务一个 LoRA：旧任务完全不变，但要知道当前是哪个任务，体积也随任务增长。
#
# </details>
