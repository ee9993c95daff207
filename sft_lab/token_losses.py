"""Under "score": what one graded token costs, other than its plain NLL (derived in chapter 12).

p is the probability that the model gives to the target. Weighted: w NLL, a weight w for each entry
of the vocabulary. Focal: (1 - p)^gamma NLL, little for a token that is known. DFT: p NLL, little
for one that is unknown, and p counts as a constant. Smoothed: (1 - epsilon) NLL plus epsilon times
the mean NLL of the whole vocabulary.

Each has one number, its slope c, from which its gradient follows: by the scores z of a position it
is c (softmax(z) - t), t being the target distribution: all on one token, but for the smoothed loss.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sft_lab.arguments import SettingError, real_number


def _nll(log_probs: torch.Tensor) -> torch.Tensor:
    return -log_probs


@dataclass(frozen=True, eq=False)
class TokenLoss:
    """What a graded token costs, as a function of log p of its target; made by the functions below.

    settings: its name and numbers, as JSON holds them. value: the cost. slope: c = -d cost/d log p,
    by hand; None: 1 everywhere. weights: one for each entry of the vocabulary, (V,), float32 on the
    CPU; None: 1 each. epsilon: the share of the target distribution that is spread evenly over the
    vocabulary.
    """

    settings: dict[str, Any]
    value: Callable[[torch.Tensor], torch.Tensor] = field(default=_nll, repr=False)
    slope: Callable[[torch.Tensor], torch.Tensor] | None = field(default=None, repr=False)
    weights: torch.Tensor | None = field(default=None, repr=False)
    epsilon: float = 0.0

    def per_token(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The cost of every token, (N,), of its scores (N, V) and its target (N,).

        The readable version, whose gradient is torch's own; `graded_loss` takes the slope.
        """
        self.check_vocabulary(logits.shape[-1])
        # a softmax in half precision loses small probabilities
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probs = logits.log_softmax(-1, dtype=dtype)
        cost = self.value(log_probs.gather(1, targets[:, None])[:, 0])
        if self.epsilon:
            cost = (1 - self.epsilon) * cost - self.epsilon * log_probs.mean(-1)
        return cost if self.weights is None else cost * self._weights_of(targets)

    def weigh(
        self, log_probs: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Cost and slope of tokens, both of the shape of their `log_probs` and `targets`; None for
        slopes that are all 1. What epsilon adds is left to the caller, who has all scores."""
        costs = self.value(log_probs)
        slopes = None if self.slope is None else self.slope(log_probs)
        if self.weights is not None:
            weights = self._weights_of(targets)
            costs, slopes = costs * weights, weights if slopes is None else slopes * weights
        return costs, slopes

    def divisor(self, targets: torch.Tensor) -> float:
        """What makes a mean of the sum over the tokens `targets`, (N,): their weights' sum, or
        their number. Take it over a whole step: a mean of batches' means is another loss."""
        if self.weights is None:
            return float(len(targets))
        return self._weights_of(targets).double().sum().item()

    def check_vocabulary(self, size: int) -> None:
        """SettingError when there is not one weight for each of the `size` scores of a position."""
        if self.weights is not None and len(self.weights) != size:
            raise SettingError(
                f"weights has {len(self.weights)} entries, but the model has {size} scores for a "
                "position: give one weight for each, its unused tokens too"
            )

    def _weights_of(self, targets: torch.Tensor) -> torch.Tensor:
        return self.weights.to(targets.device)[targets]


def weighted(weights: Sequence[float] | torch.Tensor) -> TokenLoss:
    """NLL times a weight for each entry of the vocabulary, divided by the sum of the weights of the
    graded tokens (torch's `F.cross_entropy(weight=…)`). SettingError for a weight below 0 or not
    finite, and when none is above 0."""
    try:
        numbers = torch.as_tensor(weights).detach().to("cpu", torch.float32, copy=True)
    except (TypeError, ValueError, RuntimeError):  # words, None, rows of different lengths
        numbers = torch.zeros(0, 0)
    if numbers.dim() != 1 or len(numbers) == 0:
        raise SettingError(
            f"weights is {weights!r:.60}; it must be a list of numbers, one for each entry of the "
            "vocabulary"
        )
    wrong = ~(numbers.isfinite() & (numbers >= 0))  # also for nan
    if wrong.any():
        place = int(wrong.nonzero()[0])
        raise SettingError(
            f"weights[{place}] is {numbers[place].item():g}; it must be a finite number, at least 0"
        )
    if not numbers.any():
        raise SettingError(
            f"weights are {len(numbers)} zeros: nothing would be trained. Give 1 to the usual token"
        )
    digest = hashlib.sha256(numbers.numpy().tobytes()).hexdigest()
    return TokenLoss({"name": "weighted", "weights": digest}, weights=numbers)


def focal(gamma: float) -> TokenLoss:
    """(1 - p)^gamma NLL (Lin et al., 2017), divided by the number of graded tokens; gamma 0 is the
    NLL itself. SettingError for a gamma below 0."""
    gamma = real_number("gamma", gamma, least=0, advice="0 is plain NLL; usual are 1 to 3")

    def value(log_probs: torch.Tensor) -> torch.Tensor:
        # 1 - p without its rounding; never 0, where a power below 1 has no gradient
        rest = (-log_probs.expm1()).clamp(min=torch.finfo(log_probs.dtype).tiny)
        return -log_probs * rest**gamma

    def slope(log_probs: torch.Tensor) -> torch.Tensor:
        # (1 - p)^gamma - gamma p (1 - p)^(gamma - 1) log p, with (1 - p)^gamma taken out
        rest = -log_probs.expm1()
        ratio = torch.where(rest > 0, log_probs / rest, -1.0)  # log p / (1 - p), at p = 1 its limit
        return rest**gamma * (1 - gamma * log_probs.exp() * ratio)

    return TokenLoss({"name": "focal", "gamma": gamma}, value, slope)


def smoothed(epsilon: float) -> TokenLoss:
    """(1 - epsilon) NLL + epsilon times the mean NLL of all V tokens: label smoothing as torch and
    transformers have it, divided by the number of graded tokens. fairseq spreads its epsilon over
    the V - 1 wrong tokens, which is epsilon V/(V - 1) here. SettingError outside 0 ≤ epsilon < 1.
    """
    epsilon = real_number("epsilon", epsilon, least=0, below=1, advice="0 is plain NLL; usual: 0.1")
    return TokenLoss({"name": "smoothed", "epsilon": epsilon}, epsilon=epsilon)


def dft() -> TokenLoss:
    """p NLL with p as a constant: dynamic fine-tuning (arXiv 2508.05629), TRL's `loss_type="dft"`,
    divided by the number of graded tokens. A token at p = 0 gets no gradient."""

    def value(log_probs: torch.Tensor) -> torch.Tensor:
        return -log_probs * log_probs.detach().exp()

    return TokenLoss({"name": "dft"}, value, torch.exp)
