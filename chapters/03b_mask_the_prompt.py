# %% [markdown]
# # 03b · To mask the prompt or not
#
# **The question.** Should the tokens of the prompt be graded as well? Does the answer depend on how
# long prompts and answers are?
#
# **By the end you can**
# - *weigh* the prompt: give its tokens any share of the loss;
# - *judge* a difference between two arms over five seeds by a fixed rule;
# - *choose* a mask by what the model shall write.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapter 03 | CPU, no network | about 30 s | 4, about 40 minutes | L1 L27 |

# %% tags=["setup"]
import torch

from sft_lab.course.checks import check
from sft_lab.labels import IGNORE_INDEX

# %% [markdown]
# ## 1 · Four policies
#
# ## 2 · How much of the loss is the prompt?

# %% [markdown] tags=["exercise"]
# ### Exercise 3b.1 · A weight for a share · 6 min · ●○○
# A token of an answer weighs 1, a token of a prompt weighs w. The share of the prompts is the weight
# of all their tokens divided by the weight of all tokens. Return the w that gives them `share`.
# `prompt_tokens` and `answer_tokens` hold one count a row, all above 0. Sum over all rows first.
# `share` is above 0 and below 1. The result may be above 1.
#
# With prompts of 100 and 20 tokens, answers of 10 and 10, and a share of 0.5, w is 20 / 120 = 0.167.


# %% tags=["stub"]
def weight_for_share(prompt_tokens: list[int], answer_tokens: list[int], share: float) -> float:
    """The weight of a prompt's token with which all prompts have this share of the loss's weight."""
    raise NotImplementedError


# %% tags=["solution"]
def weight_for_share(prompt_tokens: list[int], answer_tokens: list[int], share: float) -> float:
    """The weight of a prompt's token with which all prompts have this share of the loss's weight."""
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
# Extend the masked mean of chapter 03. A target whose label is −100 belongs to the prompt and counts
# `weight` times; any other counts once. Every target is the token's own id, from `input_ids`. Row t
# of the logits is graded by token t + 1. Divide the weighted sum by the sum of the weights, once for
# the whole batch. There is no padding. At least one token behind the first is graded. Gradients must
# flow to the logits.
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
# ## 3 · When does a difference count?

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
# The floor asks what seeds alone do: an arm compared with itself shows as much.
#
# Usual mistakes: the floor of one arm only; the spread of the effects as floor; "did not hold" for
# what is too small to see.

# %% [markdown] tags=["exercise"]
# ### Exercise 3b.4 · A model that asks · 12 min · ●●○
# A mask chooses what the model learns to write. Train one that writes the *user's* part: given the
# opening of a user's turn, it shall ask a question and stop. Such models make test questions.
#
# A row is one user's turn and one answer. `opening` are the ids of `<|im_start|>user` and the line
# break behind it; the row begins with them. `stop` is the id of `<|im_end|>`. Return the labels of
# the row, each the token's own id or −100. Nothing behind the *first* stop token may be graded.
# The check trains 3 epochs on 96 rows with your labels and draws 16 texts behind `opening`. At least
# 12 must begin with the first word of a trained question and end with `<|im_end|>`.
#
# With `input_ids = [1, 6, 3, 20, 21, 2, 3, 1, 7, 3, 30, 2, 3]`, `opening = [1, 6, 3]` and `stop = 2`,
# the question is 20 21 and its stop token stands at place 5.


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
