"""Under "score": the output head, softmax and loss in one, without ever holding the scores of all
positions."""

from typing import Any

import torch

from sft_lab.token_losses import TokenLoss

# 1,766 positions of Qwen3's vocabulary: 0.5 GiB in bfloat16, 1 GiB in float32
SCORES_AT_ONCE = 1 << 28


class HeadLoss(torch.autograd.Function):
    """Output head, softmax and loss in one, in chunks of positions; the gradients are made on the
    way forward.

    For one position with scores z = W h and target y: the gradient of its NLL by z is softmax(z) -
    onehot(y) (chapter 01), by h it is W^T of that, by W the outer product with h. Another loss has
    another factor before it, and the smoothed one another target than onehot(y) (chapter 12).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        factor: float,
        loss: TokenLoss | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        device = hidden.device.type
        # autocast acts on torch's own functions alone, so here it is asked what it would do
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
        states, matrix = hidden.detach().to(dtype), weight.detach().to(dtype)
        needs_states, needs_weight, *_ = ctx.needs_input_grad
        to_states = torch.empty_like(states) if needs_states else None
        # a sum over all chunks: in half precision it would lose what the later ones add
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        # float16 ends at 6e-8: there the factor, which holds a loss scale, comes before rounding
        inside = factor if dtype == torch.float16 else 1.0
        total = torch.zeros((), device=device)
        correct = torch.zeros((), device=device, dtype=torch.int64)
        size = max(1, SCORES_AT_ONCE // len(matrix))
        for start in range(0, len(states), size):
            part, target = states[start : start + size], targets[start : start + size, None]
            scores = part @ matrix.t()  # (n, V)
            correct += (scores.argmax(-1, keepdim=True) == target).sum()
            log_probs = scores.log_softmax(-1, dtype=torch.float32)
            costs, slopes = _weigh(log_probs, target, loss)
            total += costs.sum()
            if to_states is None and to_weight is None:
                continue
            epsilon = loss.epsilon if loss else 0.0
            to_scores = _differentiate(log_probs, target, slopes, epsilon, inside).to(dtype)
            if to_states is not None:
                torch.mm(to_scores, matrix, out=to_states[start : start + size])
            if to_weight is not None:
                to_weight += to_scores.t() @ part
            del scores, log_probs, to_scores  # or they would live on beside the next chunk's
        ctx.gradients, ctx.factor = (to_states, to_weight), factor / inside
        ctx.mark_non_differentiable(correct)
        return total * factor, correct

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: None) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:  # they were multiplied in place
            raise RuntimeError(
                "graded_loss allows backward once: call it again for another gradient"
            )
        gradient = gradient * ctx.factor
        to_states, to_weight = (
            None if part is None else part.mul_(gradient) for part in ctx.gradients
        )
        ctx.gradients = None
        return to_states, to_weight, None, None, None


def _weigh(
    log_probs: torch.Tensor, target: torch.Tensor, loss: TokenLoss | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cost and slope of each position, (n, 1), from all log-probabilities, (n, V); None: 1."""
    own = log_probs.gather(1, target)
    if loss is None:
        return -own, None
    costs, slopes = loss.weigh(own, target)
    if loss.epsilon:
        costs = (1 - loss.epsilon) * costs - loss.epsilon * log_probs.mean(-1, keepdim=True)
    return costs, slopes


def _differentiate(
    log_probs: torch.Tensor,
    target: torch.Tensor,
    slopes: torch.Tensor | None,
    epsilon: float,
    factor: float,
) -> torch.Tensor:
    """`factor` times the gradient by the scores, (n, V); takes the place of `log_probs`, because a
    second tensor of this size is what costs."""
    to_scores = log_probs.exp_()
    if epsilon:
        to_scores.sub_(epsilon / to_scores.shape[1])
    if slopes is None:
        slopes = torch.full_like(target, factor, dtype=torch.float32)
        if factor != 1.0:
            to_scores.mul_(factor)
    else:
        slopes = slopes * factor
        to_scores.mul_(slopes)
    return to_scores.scatter_add_(1, target, slopes * (epsilon - 1))
