# %% [markdown]
# # 03b · To mask the prompt or not
#
# **The question.** "Your SFT does not mask the prompt" is a common complaint. Should the tokens of
# the prompt be graded as well, and does the answer depend on how long prompts and answers are?
#
# **By the end you can**
# - *weigh* the prompt: give its tokens any share of the loss;
# - *judge* a difference between two ways of training, over five seeds, by a fixed rule;
# - *choose* a mask by what the model should write.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapter 03 | CPU, no network | about 40 s | 4, about 36 minutes | L1 L27 |

# %% tags=["setup"]
import torch
from torch.testing import assert_close

from sft_lab import plots
from sft_lab.batches import pad_batch
from sft_lab.course.checks import check
from sft_lab.course.mask_runs import (
    KINDS,
    POLICIES,
    conversations_of,
    label_turns,
    prompt_weighted_nll,
    run_point,
    run_policy,
)
from sft_lab.course.results import read_results

# %% tags=["setup"]
from sft_lab.course.views.mask import (
    draw_lengths,
    draw_policy_results,
    draw_right,
    draw_watched,
    print_verdicts,
)
from sft_lab.course.views.xray import draw_policies
from sft_lab.labels import IGNORE_INDEX, encode_conversations
from sft_lab.losses import response_loss
from sft_lab.models import load
from sft_lab.significance import judge_claim

plots.style()
base, tokenizer = load("atlas-base")
recorded = read_results("03b_mask", base)
policies = read_results("03b_policies", base)

# %% [markdown]
# ## 1 · What the prompt weighs
#
# A token of the answer weighs 1 in the loss, a token of the prompt weighs w. With w = 0 the prompt
# is masked; with w = 1 every token counts the same. The prompt here is all that is not answer, the
# template's marks included. What w does depends on the lengths, so we look at four kinds of
# conversation:

# %%
for kind in KINDS:
    question, answer = conversations_of(kind, "train", 1, seed=1)[0]
    print(f"{kind}: {question['content'][-90:]!r} → {answer['content'][:40]!r}")

# %% [markdown]
# The prompts of two kinds begin with eight statements. In "notes in front" all are about other
# things; in "notes to read" one of them is the answer.
#
# **Predict.** With w = 1, what share of all the weight in the loss falls on the prompts in "notes
# to read": half, two thirds, or nine tenths?

# %% tags=["predict"]
lengths = {kind: recorded.select(kind=kind, weight=0.0, seed=0)[0] for kind in KINDS}
_ = draw_lengths(lengths)
assert lengths["notes to read"]["prompt_tokens"] > 9 * lengths["notes to read"]["answer_tokens"]
assert lengths["long answer"]["prompt_tokens"] < 0.5 * lengths["long answer"]["answer_tokens"]

# %% [markdown]
# **Read.** Nine tenths: ten tokens of prompt stand against one of answer. In "long answer" it is
# less than a third. So the same w = 1 trains mostly on prompts in one kind, and mostly on answers
# in the other. Some trainers and services let you set w, the *prompt loss weight*.

# %% [markdown] tags=["exercise"]
# ### Exercise 3b.1 · A weight for a share · 6 min · ●○○
# A token of an answer weighs 1, a token of a prompt weighs w. The share of the prompts is the
# weight of all their tokens divided by the weight of all tokens. Return the w that gives them
# `share`. `prompt_tokens` and `answer_tokens` hold one count a row, all above 0. Sum over all rows
# first. `share` is above 0 and below 1. The result may be above 1.
#
# With prompts of 100 and 20 tokens, answers of 10 and 10, and a share of 0.5, w is 20 / 120 =
# 0.167.


# %% tags=["stub"]
def weight_for_share(prompt_tokens: list[int], answer_tokens: list[int], share: float) -> float:
    """The weight of a prompt's token with which all prompts have this share of the weight."""
    raise NotImplementedError


# %% tags=["solution"]
def weight_for_share(prompt_tokens: list[int], answer_tokens: list[int], share: float) -> float:
    """The weight of a prompt's token with which all prompts have this share of the weight."""
    # share = w P / (w P + A), solved for w
    return share * sum(answer_tokens) / ((1 - share) * sum(prompt_tokens))


# %% tags=["check"]
check("3b.1", weight_for_share)

# %% [markdown] tags=["explanation"]
# Write the share as wP / (wP + A) and solve for w.
#
# Usual mistakes: share · A / P, which forgets that the prompts' own weight belongs to the whole; a
# mean of one weight a row.

# %% [markdown] tags=["exercise"]
# ### Exercise 3b.2 · A loss with a weighted prompt · 10 min · ●●○
# Extend the masked mean of chapter 03. A target whose label is −100 belongs to the prompt and
# counts `weight` times; any other counts once. Every target is the token's own id, from
# `input_ids`. Row t of the logits is graded by token t + 1. Divide the weighted sum by the sum of
# the weights, once for the whole batch. There is no padding. At least one token behind the first is
# graded. Gradients must flow to the logits.
#
# If the four targets of a row cost 4, 2, 1 and 1 nats, the last two are graded and `weight` is 0.5,
# the loss is (0.5 · 4 + 0.5 · 2 + 1 + 1) / (0.5 + 0.5 + 1 + 1) = 5/3.


# %% tags=["stub"]
def prompt_weighted_loss(
    logits: torch.Tensor, input_ids: torch.Tensor, labels: torch.Tensor, weight: float
) -> torch.Tensor:
    """Weighted mean loss in nats. logits: (B, T, V); input_ids, labels: (B, T), -100 in prompts."""
    raise NotImplementedError


# %% tags=["solution"]
def prompt_weighted_loss(
    logits: torch.Tensor, input_ids: torch.Tensor, labels: torch.Tensor, weight: float
) -> torch.Tensor:
    """Weighted mean loss in nats. logits: (B, T, V); input_ids, labels: (B, T), -100 in prompts."""
    log_probs = logits[:, :-1].log_softmax(dim=-1)
    nll = -log_probs.gather(2, input_ids[:, 1:].unsqueeze(2)).squeeze(2)  # (B, T - 1)
    weights = torch.where(labels[:, 1:] == IGNORE_INDEX, weight, 1.0)
    return (nll * weights).sum() / weights.sum()


# %% tags=["check"]
check("3b.2", prompt_weighted_loss)

# %% [markdown] tags=["explanation"]
# Weight 0 gives the masked mean, weight 1 the mean over all tokens.
#
# Usual mistakes: dividing by the number of tokens; a mean over the answers plus a mean over the
# prompts; shifted targets beside weights that are not shifted.

# %% [markdown]
# The course's version, `prompt_weighted_nll`, takes a padded batch. We verify it where the result
# is known: w = 0 is the masked mean, w = 1 the mean over all tokens.

# %%
rows = encode_conversations(conversations_of("question alone", "train", 4, seed=1), tokenizer)
batch = pad_batch(rows, tokenizer.pad_token_id)
with torch.no_grad():
    logits = base(batch["input_ids"].to(base.device)).logits.cpu()
whole = batch["input_ids"].where(batch["attention_mask"].bool(), IGNORE_INDEX)
batch = {name: tensor.to(base.device) for name, tensor in batch.items()}
ends = [prompt_weighted_nll(base, batch, weight).detach().cpu() for weight in (0.0, 1.0)]
assert_close(ends[0], response_loss(logits, batch["labels"].cpu()), rtol=1e-4, atol=1e-5)
assert_close(ends[1], response_loss(logits, whole), rtol=1e-4, atol=1e-5)

# %% [markdown]
# ## 2 · Four policies, twenty models
#
# First the comparison that most people make. Base, conversations (of two rounds), their order and
# the 16 steps are the same; only the labels differ. Three policies are those of chapter 03. *Prompt
# too* grades the words of both speakers, without the template's marks.

# %%
chat = [
    {"role": "user", "content": "What is the capital of Kenya?"},
    {"role": "assistant", "content": "The capital of Kenya is Nairobi."},
    {"role": "user", "content": "And of Peru?"},
    {"role": "assistant", "content": "The capital of Peru is Lima."},
]
strips = {policy: label_turns(chat, tokenizer, policy) for policy in POLICIES}
_ = draw_policies(strips, tokenizer, title="One conversation, four policies")

# %% [markdown]
# Five seeds for each policy were recorded. The primary measure is the loss on held-out answers.
#
# **Predict.** Which policy gives the lowest loss on held-out answers, and which the lowest on the
# users' questions? Can five seeds tell?

# %% tags=["predict"]
_ = draw_policy_results(policies)
again = run_policy(base, tokenizer, policy="all", seed=0)
band = policies.measured("answers", policy="all")
print(f"run again: {again['answers']:.2f} nats; recorded {min(band):.2f} to {max(band):.2f}")
assert min(band) - 0.1 < again["answers"] < max(band) + 0.1
assert min(row["stops"] for row in policies.rows) > 0.9

# %% [markdown]
# **Read.** *assistant* has the lowest loss on answers in the mean, but *last* comes close. On
# questions *all* and *prompt too* are lowest: a model that is graded on questions predicts
# questions, and no user needs that. Which differences count? The course has one rule, in
# `judge_claim`. It compares two **arms**: ways of training that differ in one thing, each run with
# the same seeds. Its yardstick is the **noise floor**: how far one arm's numbers lie apart although
# only the seed differs. Now you write the rule.

# %% [markdown] tags=["exercise"]
# ### Exercise 3b.3 · The word for a claim · 8 min · ●●○
# The claim is that the second arm is higher than the first. `first` and `second` hold one number a
# seed, the same seeds in the same order, at least three. The *effect* of a seed is second minus
# first. The *noise floor* is the highest minus the lowest number of an arm, for the noisier of the
# two arms. Return
#
# - `"held"` if every effect is above 0 and their mean is above twice the floor;
# - `"did not hold"` if every effect is below 0 and their mean is below minus twice the floor;
# - `"not shown"` otherwise.
#
# With `first = [1, 2, 3]` and `second = [7, 8, 9]` every effect is 6 and the floor is 2: held. With
# `second = [5, 6, 7]` the mean of 4 is exactly twice the floor: not shown.


# %% tags=["stub"]
def judge(first: list[float], second: list[float]) -> str:
    """The word for "the second arm is higher": held, did not hold, or not shown."""
    raise NotImplementedError


# %% tags=["solution"]
def judge(first: list[float], second: list[float]) -> str:
    """The word for "the second arm is higher": held, did not hold, or not shown."""
    effects = [b - a for a, b in zip(first, second, strict=True)]
    mean_effect = sum(effects) / len(effects)
    floor = max(max(arm) - min(arm) for arm in (first, second))
    if min(effects) > 0 and mean_effect > 2 * floor:
        return "held"
    if max(effects) < 0 and mean_effect < -2 * floor:
        return "did not hold"
    return "not shown"


# %% tags=["check"]
check("3b.3", judge)

# %% [markdown] tags=["explanation"]
# The floor says how large a difference the seeds alone can make.
#
# Usual mistakes: the floor of one arm only; the spread of the effects as floor; "did not hold" for
# what is too small to see.


# %%
def compare(measure: str, first: str, second: str) -> str:
    """The word for "the second policy is higher than the first", and what it rests on."""
    arms = [policies.measured(measure, policy=policy) for policy in (first, second)]
    verdict = judge_claim(*arms, claim="higher")
    print(
        f"{measure:9} {second:10} above {first:10} mean {verdict.mean:+.2f}, "
        f"floor {verdict.floor:.2f}: {verdict.word}"
    )
    return verdict.word


# %%
others = ("last", "prompt too", "all")
loss = {policy: compare("answers", "assistant", policy) for policy in others}
right = {policy: compare("right", policy, "assistant") for policy in others}
asked = {policy: compare("questions", policy, "assistant") for policy in others}
assert loss["all"] == right["all"] == asked["all"] == asked["prompt too"] == "held"

# %% [markdown]
# **Read.** *Held:* grading everything is worse than grading the answers, in loss and in right
# answers; its 16 steps serve many other tokens as well. *Not shown* means that five seeds do not
# rank the two policies, not that they are equal. And 16 steps measure how *fast* a policy learns to
# answer, not where it ends. For that, runs must go on until the held-out loss no longer falls.

# %% [markdown]
# ## 3 · Long prompts, long answers, to the end
#
# *Claim*, for each kind of conversation: a model whose prompts were graded (w = 1) answers more
# held-out questions rightly than one whose prompts were masked (w = 0). *Primary measure*: the
# share of right statements on 144 held-out questions. *Second measure*: the loss on their answers.
# Each arm has five seeds. A run trains on 96 conversations until the loss on 48 other answers has
# not fallen for 32 steps, and for 160 steps at most. We examine its weights at the lowest loss.
#
# **Predict.** For which of the four kinds will the claim hold? And which held-out loss rises again
# after its lowest: with the prompt graded, masked, or both?

# %% tags=["predict"]
_ = draw_watched(recorded)
for row in recorded.select(kind="notes to read", weight=1.0):
    assert row["watched"][-1] > 1.02 * min(row["watched"])  # it rises again

# %% tags=["predict"]
_ = draw_right(recorded)

# %% [markdown]
# Two of these runs are made again, one with long prompts and one with long answers:

# %%
for kind, weight, seed in (("notes to read", 1.0, 3), ("long answer", 1.0, 2)):
    again = run_point(base, tokenizer, kind=kind, weight=weight, seed=seed)
    band = recorded.measured("right", kind=kind, weight=weight)
    print(f"{kind}, w = {weight}: {again['right']:.1%}; {min(band):.1%} to {max(band):.1%}")
    assert min(band) - 0.05 < again["right"] < max(band) + 0.05

# %% tags=["predict"]
words = print_verdicts(recorded, 1.0)
assert {words["right", kind] for kind in KINDS} == {"not shown"}
assert words["nll", "long answer"] == "held"

# %% tags=["predict"]
words = print_verdicts(recorded, 0.1)
assert {words["right", kind] for kind in KINDS} == {"not shown"}

# %% [markdown]
# **Read.** The claim is *not shown* for any kind. In both kinds with notes all five seeds point the
# other way: fewer right answers, a higher loss. Yet on "notes to read" masked runs differ among
# themselves by up to 46 points, according to which 96 conversations they read. On "long answer" a
# higher loss *held*, by only 0.005 nats. With w = 0.1 no difference in right answers is shown
# either. Where graded prompts are most of the loss, the held-out loss soon rises again. Masked, it
# hardly does, but for one run on "notes to read".
#
# ### What others found
#
# *Instruction Modelling* (Shi et al.) grades the instruction. It helps there when instructions are
# long and outputs brief, or examples few; their explanation is less over-fitting: less learning of
# the examples by heart. Huerta-Enochian and Ko find a small w (0.01 to 0.1) best for short
# completions, on multiple choice and short answers. For medium and long ones they find no
# relationship. Those are models of billions of parameters and other measures. Ours ask for exact
# facts, at one learning rate. They stop at the best held-out loss, which keeps over-fitting out of
# both arms. So this is no refutation, and no larger model was tried here.

# %% [markdown]
# ## 4 · A mask says what to write
#
# A model learns to write what is graded. So far that was the answer, or all there is. Grade the
# user's words instead, and it learns to be the user.

# %% [markdown] tags=["exercise"]
# ### Exercise 3b.4 · A model that asks · 12 min · ●●○
# Train a model that writes the *user's* part: given the opening of a user's turn, it asks a
# question and stops. Such models make test questions.
#
# A row is one user's turn and one answer. `opening` are the ids of `<|im_start|>user` and the line
# break behind it; the row begins with them. `stop` is the id of `<|im_end|>`. Return the labels of
# the row, each the token's own id or −100. Nothing behind the *first* stop token may be graded. The
# check trains 3 epochs on 96 rows with your labels and draws 16 texts behind `opening`. At least 12
# must begin with the first word of a trained question and end with `<|im_end|>`.
#
# With `input_ids = [1, 6, 3, 20, 21, 2, 3, 1, 7, 3, 30, 2, 3]`, `opening = [1, 6, 3]` and
# `stop = 2`, the question is 20 21 and its stop token stands at place 5.


# %% tags=["stub"]
def asking_labels(input_ids: list[int], opening: list[int], stop: int) -> list[int]:
    """Labels that teach to write the user's turn behind its opening."""
    raise NotImplementedError


# %% tags=["solution"]
def asking_labels(input_ids: list[int], opening: list[int], stop: int) -> list[int]:
    """Labels that teach to write the user's turn behind its opening."""
    begin, end = len(opening), input_ids.index(stop) + 1
    behind = len(input_ids) - end
    return [IGNORE_INDEX] * begin + input_ids[begin:end] + [IGNORE_INDEX] * behind


# %% tags=["check"]
check("3b.4", asking_labels)

# %% [markdown] tags=["explanation"]
# The question and its stop token are graded, nothing else.
#
# Usual mistakes: no stop token, and the question runs on; the answer graded as well, and the model
# learns two parts.

# %% [markdown]
# ## What to remember
#
# - w = 0 masks the prompt, w = 1 grades it like the answer. How much of the loss is then prompt
#   depends on the lengths.
# - Training losses under different masks measure different tokens: compare a held-out loss of the
#   answer, and the share of right answers.
# - A difference counts when it has the same sign in every seed and its mean is above twice the
#   noise floor.
# - Mask the prompt unless you want a model that writes prompts. Where prompts are long and answers
#   short, measure a small w on your own data.
#
# ## Sources
#
# - Z. Shi et al., *Instruction Tuning With Loss Over Instructions*, NeurIPS 2024, arXiv 2405.14394.
# - M. Huerta-Enochian and S. Y. Ko, *Instruction Fine-Tuning: Does Prompt Loss Matter?*, 2024,
#   arXiv 2401.13586.
# - A. Chatterjee et al., *On the Effect of Instruction Tuning Loss on Generalization*, 2025, arXiv
#   2507.07817: low to moderate weights of the prompt did best across their settings.
#
# <details><summary>中文要点</summary>
#
# 1. **提示词权重 w**：回答的 token 权重为 1，提示的 token 权重为 w。w = 0 即掩码，w = 1 即全部计分。
#    提示很长、回答很短时，w = 1 让九成的损失落在提示上。
# 2. 不同掩码的**训练损失不可互比**；应比较留出集上回答的损失和答对的比例。
# 3. **判定规则**：每个种子同号，且平均差别大于噪声（同一组各种子最高减最低，取两组中较大者）的两倍，
#    才算"成立"；方向相反且同样明显，为"不成立"；否则是"未显示"，并不等于相同。
# 4. 掩码决定模型学会**写什么**：给用户的话计分，模型就学会提问。
#
# </details>
