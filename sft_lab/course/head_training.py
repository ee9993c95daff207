"""A real run small enough for a slider (chapter 04): the output head of a model alone is trained.

The frozen rest of the model computes the hidden states once; what is left of a step is one matrix
product. Schedule, AdamW and clipping are those of the course. Deep models break at smaller learning
rates than a head does.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.batches import pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.train import learning_rate_at


class HeadTask(NamedTuple):
    """hidden: (N, D), the state before each graded token; targets: (N,) token ids; head: (V, D),
    the base's."""

    hidden: torch.Tensor
    targets: torch.Tensor
    head: torch.Tensor


class HeadRun(NamedTuple):
    """Learning rate and loss (nats per graded token) of each step; the loss over all tokens before
    and after."""

    rates: list[float]
    losses: list[float]
    before: float
    after: float


@torch.no_grad()
def make_head_task(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> HeadTask:
    """What is trained on: the hidden state before every graded token of `examples`, and the head as
    it is.

    Raises ValueError when no token is graded: usually truncation cut the answers away.
    """
    batch = pad_batch(examples, tokenizer.pad_token_id)
    device = next(model.parameters()).device
    inputs = batch["input_ids"].to(device)
    hidden = model.get_decoder()(inputs, use_cache=False).last_hidden_state  # (B, T, D)
    targets = batch["labels"][:, 1:]
    graded = targets != IGNORE_INDEX
    if not graded.any():
        raise ValueError(
            f"{len(examples)} examples and no graded token: check them with "
            "sft_lab.labels.check_labels"
        )
    # The state at position t predicts token t + 1.
    states = hidden[:, :-1][graded.to(device)].float().cpu().clone()
    head = model.get_output_embeddings().weight.detach().float().cpu().clone()
    return HeadTask(states, targets[graded], head)


def train_head(
    task: HeadTask,
    *,
    peak: float,
    warmup_ratio: float,
    steps: int,
    tokens_a_step: int = 64,
    seed: int = 0,
) -> HeadRun:
    """Train a copy of the head for `steps` steps of `tokens_a_step` graded tokens, drawn by `seed`.

    peak: highest learning rate. warmup_ratio: share of the steps in which the rate rises, 0 to 1.
    """
    if steps < 1 or not 0.0 <= warmup_ratio <= 1.0:
        raise ValueError(
            f"steps is {steps} and warmup_ratio {warmup_ratio}: at least one step, and a ratio "
            "in [0, 1]"
        )
    head = task.head.clone().requires_grad_()
    optimizer = torch.optim.AdamW([head], lr=peak, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    warmup_steps = math.ceil(warmup_ratio * steps)
    rates = [
        learning_rate_at(step, steps, peak=peak, warmup_steps=warmup_steps) for step in range(steps)
    ]
    losses = []
    for rate in rates:
        drawn = torch.randint(len(task.targets), (tokens_a_step,), generator=generator)
        loss = F.cross_entropy(task.hidden[drawn] @ head.T, task.targets[drawn])
        loss.backward()
        torch.nn.utils.clip_grad_norm_([head], 1.0)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return HeadRun(rates, losses, head_loss(task, task.head), head_loss(task, head.detach()))


def head_loss(task: HeadTask, head: torch.Tensor) -> float:
    """Mean loss of all tokens of the task under this head, in nats per graded token. head: (V,
    D)."""
    return F.cross_entropy(task.hidden @ head.T, task.targets).item()


def describe_outcome(run: HeadRun) -> str:
    """The run in a few words, by the loss over all tokens before and after it."""
    kept = run.after / run.before
    if kept > 1.0:
        return "It diverged: the loss ends higher than it began"
    if kept > 0.75:
        return "It barely learned: the learning rate is too low, or the steps are too few"
    if max(run.losses) > 1.75 * run.before:
        return "It learned, after a loss spike on the way"
    return "It learned"
