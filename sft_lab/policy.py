"""Station "reinforce": from rewards to a loss, as plain tensors (derived in chapter 17).

N answers, padded on the right to T tokens; `mask` is 1 where an answer has a token. The tokens were
drawn from the policy that `old_log_probs` belong to; log-probabilities are natural logarithms.
"""

import math

import torch
from torch import nn

from sft_lab.arguments import SettingError, real_number, whole_number

SPREAD_FLOOR = 1e-4  # added to a group's standard deviation, as TRL does
AVERAGES = ("token", "answer", "length")
KINDS = ("k1", "k2", "k3")


def group_advantages(rewards: torch.Tensor, *, scale: str = "std") -> torch.Tensor:
    """How much better each answer is than the mean of its group: (P, K) rewards of K answers to
    each of P prompts -> (P, K).

    scale: "std" divides by the group's standard deviation (over K - 1) plus 1e-4, "none" does not.
    A group of equal rewards gives exactly 0. Raises ValueError for K below 2: an answer alone is
    its own mean; and for a reward that is not finite. Sources: GRPO, Shao et al. 2024, arXiv
    2402.03300; without the division, Liu et al. 2025, arXiv 2503.20783.
    """
    _check_choice("scale", scale, ("std", "none"))
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(
            f"rewards have the shape {tuple(rewards.shape)}: expected (prompts, samples) with at "
            "least 2 samples, because an answer alone is its own mean and teaches nothing"
        )
    check_rewards(rewards)
    # relative to the first answer: a mean of equal numbers may differ from them in the last bit,
    # and an optimizer that divides by the size of a gradient makes a whole step of that
    gains = rewards - rewards[:, :1]
    gains = gains - gains.mean(dim=1, keepdim=True)
    if scale == "std":
        gains = gains / (gains.std(dim=1, keepdim=True) + SPREAD_FLOOR)
    return gains


def policy_loss(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip: float = 0.2,
    average: str = "token",
    max_length: int | None = None,
) -> torch.Tensor:
    """Minus the mean of min(ratio · A, clipped ratio · A), with ratio = exp(log_probs - old).

    log_probs, old_log_probs, mask: (N, T); advantages: (N,), one for all tokens of an answer, or
    (N, T). The ratio is clipped to 1 - clip … 1 + clip; math.inf never clips. average: what the
    mean is over, see `average_tokens`. No gradient reaches `old_log_probs` and `advantages`. Where
    they equal the log_probs, the gradient is that of -A · log_probs: REINFORCE. Source: PPO,
    Schulman et al. 2017, arXiv 1707.06347.
    """
    clip = _check_clip(clip)
    ratio, advantages = _ratio(log_probs, old_log_probs, advantages, mask)
    gains = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -average_tokens(gains, mask, average=average, max_length=max_length)


def clipped_tokens(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip: float = 0.2,
) -> torch.Tensor:
    """(N, T) bool: the tokens that `policy_loss` gives no gradient, because their ratio has left
    the range on the side that their advantage pushes to."""
    clip = _check_clip(clip)
    ratio, advantages = _ratio(log_probs, old_log_probs, advantages, mask)
    too_high = (ratio > 1 + clip) & (advantages > 0)
    too_low = (ratio < 1 - clip) & (advantages < 0)
    return (too_high | too_low) & mask.bool()


def average_tokens(
    values: torch.Tensor,
    mask: torch.Tensor,
    *,
    average: str = "token",
    max_length: int | None = None,
) -> torch.Tensor:
    """One number of (N, T) values where the mask is 1; the three averages that losses are made of.

    "token": the sum over all tokens / their number, so a long answer weighs more (DAPO, arXiv
    2503.14476). "answer": the mean of each answer's mean, so a token of a long answer weighs less
    (GRPO). "length": the sum / (N · max_length), so every token weighs the same in every batch
    (Dr. GRPO, arXiv 2503.20783). Raises ValueError when no token is left.
    """
    _check_choice("average", average, AVERAGES)
    _check_pair("values", values, "mask", mask)
    if not mask.any():
        raise ValueError(f"the mask of shape {tuple(mask.shape)} is 0 throughout: nothing to mean")
    if (average == "length") != (max_length is not None):
        raise SettingError(
            f"average is {average!r} and max_length is {max_length!r}: 'length' divides by "
            "max_length, the largest number of tokens of an answer, and the others do not read it"
        )
    kept = values * mask
    if average == "token":
        return kept.sum() / mask.sum()
    if average == "length":
        longest = whole_number("max_length", max_length, least=int(mask.sum(dim=1).max()))
        return kept.sum() / (len(kept) * longest)
    return (kept.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


def kl_estimates(
    log_probs: torch.Tensor, reference_log_probs: torch.Tensor, kind: str = "k3"
) -> torch.Tensor:
    """KL(policy ‖ reference) estimated from each token, in nats; any shape. The tokens must have
    been drawn from the policy.

    With x = reference_log_probs - log_probs: k1 is -x, right on average and often negative; k2 is
    x² / 2, never negative and biased; k3 is exp(x) - 1 - x, right on average and never negative.
    With the sign of x turned round, k1 estimates -KL and k3 another number. As a term of a loss
    they differ once more: on average the gradient of k1 is 0, that of k2 is KL(policy ‖
    reference)'s, and that of k3 is KL(reference ‖ policy)'s (see `kl_terms`). Source: Schulman
    2020, joschu.net/blog/kl-approx.html.
    """
    _check_choice("kind", kind, KINDS)
    _check_pair("log_probs", log_probs, "reference_log_probs", reference_log_probs)
    x = reference_log_probs - log_probs
    if kind == "k1":
        return -x
    return x.square() / 2 if kind == "k2" else x.expm1() - x


def kl_terms(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    reference_log_probs: torch.Tensor,
    *,
    corrected: bool = True,
) -> torch.Tensor:
    """What a loss adds for each token, times a strength, to stay near the reference: k3, and with
    `corrected` k3 times the ratio exp(log_probs - old), through which the gradient goes as well.

    Then the gradient is on average that of KL(policy ‖ reference), because the ratio stands for
    what the tokens' own probabilities change; without it that of KL(reference ‖ policy). TRL's
    default is corrected, after DeepSeek-V3.2, arXiv 2512.02556.
    """
    _check_pair("log_probs", log_probs, "old_log_probs", old_log_probs)
    estimates = kl_estimates(log_probs, reference_log_probs, "k3")
    if not corrected:
        return estimates
    return (log_probs - old_log_probs.detach()).exp() * estimates


def discounted_advantages(
    rewards: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    *,
    gamma: float = 1.0,
    decay: float = 0.95,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of every token, (N, T) each, 0 behind the end: generalised advantage
    estimation.

    rewards: what a token earned, (N, T), for an answer graded as a whole see `at_last_token`;
    values: what was expected before it. A token's surprise is reward + gamma · next value - value,
    and its advantage the sum of the surprises from it on, each (gamma · decay) times less than the
    one before. decay 0: its own surprise alone; decay 1: the rewards to come minus the value.
    Nothing is expected after the last token. Returns are advantages + values, what a value head
    learns. Source: Schulman et al. 2015, arXiv 1506.02438 (decay is its λ).
    """
    gamma = real_number("gamma", gamma, least=0, most=1)
    decay = real_number("decay", decay, least=0, most=1)
    _check_pair("rewards", rewards, "mask", mask)
    _check_pair("values", values, "mask", mask)
    check_right_padded(mask)
    advantages = torch.zeros_like(values)
    advantage = next_value = values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        surprise = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = (surprise + gamma * decay * advantage) * mask[:, t]
        next_value = values[:, t] * mask[:, t]
        advantages[:, t] = advantage
    return advantages, (advantages + values) * mask


def at_last_token(rewards: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(N,) rewards of whole answers -> (N, T), 0 but for the last token of each answer."""
    check_right_padded(mask)
    lengths = mask.long().sum(dim=1)
    if rewards.shape != lengths.shape or not (lengths > 0).all():
        raise ValueError(
            f"rewards {tuple(rewards.shape)} and a mask {tuple(mask.shape)} with rows of "
            f"{lengths.tolist()!r:.60} tokens: one reward for each row, and a token in each row"
        )
    placed = rewards.new_zeros(mask.shape)
    return placed.scatter(1, lengths[:, None] - 1, rewards[:, None])


def whiten(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(N, T) values with mean 0 and standard deviation 1 over the tokens of the mask, 0 elsewhere;
    equal values become 0."""
    _check_pair("values", values, "mask", mask)
    kept = values[mask.bool()]
    if len(kept) < 2:
        return torch.zeros_like(values)
    centred = (values - kept.mean()) * mask
    spread = kept.std()
    return centred / spread if spread > 1e-8 else torch.zeros_like(values)


def value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip: float = 0.2,
) -> torch.Tensor:
    """Half the mean squared error of the values, over all tokens; all (N, T).

    A value counts with the larger error of itself and of itself kept within `clip` of its old
    value, so it gets no gradient for going further (math.inf: never). No gradient reaches
    `old_values` and `returns`. Source: PPO2 in OpenAI's baselines.
    """
    clip = _check_clip(clip)
    for name, other in (("values", values), ("old_values", old_values), ("returns", returns)):
        _check_pair(name, other, "mask", mask)
    old_values, returns = old_values.detach(), returns.detach()
    near = old_values + (values - old_values).clamp(-clip, clip)
    errors = torch.maximum((values - returns).square(), (near - returns).square())
    return average_tokens(errors, mask) / 2


class ValueHead(nn.Module):
    """A linear layer from a hidden state to the reward that is still to come: (…, D) -> (…). It
    begins at 0, so that before anything is learned an advantage is the reward itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(whole_number("width", width), 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.linear(states).squeeze(-1)


def check_rewards(rewards: torch.Tensor) -> None:
    """ValueError, with the first place, for a reward that is not finite."""
    bad = (~rewards.isfinite()).nonzero()
    if len(bad):
        place = bad[0].tolist()
        raise ValueError(
            f"the reward at {place} is {rewards[tuple(place)].item()}: every answer needs a finite "
            "number; what the reward cannot grade gets the lowest one"
        )


def check_right_padded(mask: torch.Tensor) -> None:
    """ValueError for a mask that is no (N, T) of ones followed by zeros."""
    wrong = mask.ndim != 2 or bool((mask.long().diff(dim=1) > 0).any())
    if wrong:
        raise ValueError(
            f"the mask of shape {tuple(mask.shape)} must be (N, T), ones and then zeros in every "
            "row: an answer begins in the first column and is padded on the right"
        )


def _ratio(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ratios (N, T), and advantages that fit them: (N, 1) or (N, T)."""
    _check_pair("log_probs", log_probs, "old_log_probs", old_log_probs)
    _check_pair("log_probs", log_probs, "mask", mask)
    if advantages.shape not in (log_probs.shape[:1], log_probs.shape):
        raise ValueError(
            f"advantages {tuple(advantages.shape)} for log_probs {tuple(log_probs.shape)}: one for "
            "each answer, (N,), or for each token, (N, T). Usual cause: groups (P, K) that were "
            "not flattened"
        )
    advantages = advantages.detach()
    if advantages.ndim == 1:
        advantages = advantages[:, None]
    return (log_probs - old_log_probs.detach()).exp(), advantages


def _check_pair(name: str, one: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    # (N, 1) beside (N, T) would be broadcast without a word
    if one.shape != other.shape:
        raise ValueError(
            f"{name} {tuple(one.shape)} and {other_name} {tuple(other.shape)} differ in shape"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingError(f"{name} is {value!r:.60}; it must be one of {', '.join(choices)}")


def _check_clip(clip: float) -> float:
    return real_number(
        "clip", clip, above=0, infinite=True, advice=f"To clip nothing, give {math.inf}"
    )
