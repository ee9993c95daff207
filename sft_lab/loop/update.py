"""Under "learn": one update: number formats, loss scaling, a whole step's gradient, clipping
(chapters 04 and 08)."""

import contextlib
import math
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from sft_lab.examples import IGNORE_INDEX
from sft_lab.loop.penalties import Penalty
from sft_lab.losses import graded_logits, graded_loss, summed_loss
from sft_lab.token_losses import TokenLoss

SMALLEST_LOSS_SCALE = 1.0  # where even this overflows, the gradients themselves are the trouble


@contextlib.contextmanager
def mixed_precision(
    model: torch.nn.Module,
) -> Iterator[tuple[torch.autocast, torch.amp.GradScaler]]:
    """Train a half-precision model with float32 updates; yields the autocast to run it under and a
    gradient scaler.

    Near 1, bfloat16 numbers lie 1/128 apart and float16 numbers 1/1024, so most updates of SFT
    would be rounded away: trained parameters are held in float32 meanwhile and get their format
    back at the end. The matrix products still run in half precision. float16 also ends at 6e-8: a
    gradient below it becomes 0. So the loss is multiplied by a large number before backward and the
    gradients are divided by it afterwards; float32 weights are also what makes that possible
    ("Attempting to unscale FP16 gradients" otherwise). In float32 neither does anything.
    """
    every = {parameter.dtype for parameter in model.parameters()}
    formats = every & {torch.bfloat16, torch.float16}  # LoRA's float32 stands beside one of them
    if len(formats) == 2:
        raise ValueError(
            "the model has both bfloat16 and float16 weights: load it in one of them, "
            "load(name, dtype=…)"
        )
    dtype = formats.pop() if formats else torch.float32
    device = next(model.parameters()).device.type
    is_half = dtype != torch.float32
    changed = [
        parameter
        for parameter in model.parameters()
        if is_half and parameter.requires_grad and parameter.dtype == dtype
    ]
    # .data keeps the Parameter objects, which optimizers and hooks already hold
    for parameter in changed:
        parameter.data = parameter.data.float()
    try:
        yield (
            torch.autocast(device, dtype=dtype if is_half else None, enabled=is_half),
            # bfloat16 has the range of float32: only float16 needs a scale
            torch.amp.GradScaler(device, enabled=dtype == torch.float16),
        )
    finally:
        for parameter in changed:
            parameter.data = parameter.data.to(dtype)


def optimizer_step(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    batches: list[dict[str, torch.Tensor]],
    *,
    max_grad_norm: float,
    step: int,
    autocast: torch.autocast,
    scaler: torch.amp.GradScaler,
    token_loss: TokenLoss | None = None,
    penalty: Penalty | None = None,
) -> dict[str, float]:
    """One update from one or more batches, every graded token of them weighing the same (or as
    `token_loss` weighs it), and from `penalty`; returns what it measured.

    Raises ValueError when nothing is graded or all with weight 0, and FloatingPointError, with the
    weights as they were, when the loss or the gradient is not finite. With float16 an infinite
    gradient is the scaler's business: it leaves the update out and halves its scale, until that
    reaches SMALLEST_LOSS_SCALE.
    """
    # Counted over all batches before the first one runs: a mean of each batch's mean would give a
    # token of a batch with few graded tokens more weight.
    graded, divisor = _count_graded(batches, token_loss, step)
    device, scale = parameters[0].device, scaler.get_scale()
    factor, parts = scale / divisor, []
    for batch in batches:
        with autocast:
            on_device = {name: tensor.to(device) for name, tensor in batch.items()}
            # the gradients are made inside, on the way forward, so the scale must be there too
            loss, correct, extra = _score(model, on_device, factor, token_loss, penalty, graded)
        scaler.scale(loss / scale + extra).backward()
        parts.append((loss.detach(), correct, extra.detach()))
    losses, ranked_first, added = zip(*parts, strict=True)
    if penalty is not None and not penalty.reads_batch:
        added = [_add_penalty(model, penalty, scale, autocast, scaler)]
    scaler.unscale_(optimizer)  # the norm is clipped in true units
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    # one transfer: each .item() would wait for the device
    measured = torch.stack((sum(losses) / scale, sum(ranked_first).float(), norm, sum(added)))
    total, correct, norm, added = measured.tolist()
    rate = optimizer.param_groups[0]["lr"]
    overflow = scaler.is_enabled() and scale > SMALLEST_LOSS_SCALE
    if not math.isfinite(total + added) or not (math.isfinite(norm) or overflow):
        optimizer.zero_grad()
        raise FloatingPointError(_explain(step, total, added, norm, rate, penalty))
    scaler.step(optimizer)
    if penalty is not None:
        penalty.after_step(model)
    scaler.update()
    optimizer.zero_grad()
    return {
        "loss": total,
        "accuracy": correct / graded,
        "learning_rate": rate,
        "grad_norm": norm,
        "graded": graded,
        **({"loss_scale": scale} if scaler.is_enabled() else {}),
        **({} if penalty is None else {"penalty": added}),
    }


def _explain(
    step: int, total: float, added: float, norm: float, rate: float, penalty: Penalty | None
) -> str:
    """What to say of a step whose loss or gradient is not finite."""
    term = f", penalty {added} ({penalty.name})" if penalty else ""
    return (
        f"step {step}: loss {total}{term}, gradient norm {norm}, learning rate {rate:.1e}. Usual "
        f"causes: a learning rate {'or a strength ' * bool(penalty)}too high, half precision, "
        "broken weights. The weights are those of the step before"
    )


def _score(
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    factor: float,
    token_loss: TokenLoss | None,
    penalty: Penalty | None,
    graded: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss and right tokens of a batch, and its share of a penalty that reads the batch, from one
    pass through the model; `graded` counts the tokens of the whole step."""
    nothing = torch.zeros((), device=batch["labels"].device)
    if penalty is None or not penalty.reads_batch:
        return *graded_loss(model, batch, factor=factor, loss=token_loss), nothing
    logits, targets = graded_logits(model, batch)
    loss, correct = summed_loss(logits, targets, factor=factor, loss=token_loss)
    if len(targets) == 0:  # one batch of several: a mean of nothing
        return loss, correct, nothing
    extra = _checked(penalty, penalty.loss(model, {**batch, "logits": logits}))
    return loss, correct, nothing if extra is None else extra * (len(targets) / graded)


def _add_penalty(
    model: PreTrainedModel,
    penalty: Penalty,
    scale: float,
    autocast: torch.autocast,
    scaler: torch.amp.GradScaler,
) -> torch.Tensor:
    """Add the gradient of a penalty on the weights, once a step; returns its value."""
    penalty.before_penalty(model, scale)
    with autocast:
        extra = _checked(penalty, penalty.loss(model, None))
    if extra is None:
        return torch.zeros((), device=next(model.parameters()).device)
    scaler.scale(extra).backward()
    return extra.detach()


def _checked(penalty: Penalty, extra: torch.Tensor | None) -> torch.Tensor | None:
    if extra is None or (extra.dim() == 0 and extra.requires_grad):
        return extra
    raise ValueError(
        f"the penalty {penalty.name!r} is a tensor of shape {tuple(extra.shape)}, "
        f"requires_grad={extra.requires_grad}: its loss must be one number (0-dim) that depends on "
        "the weights of the model in training, or it teaches nothing. Usual cause: it compares two "
        "saved copies"
    )


def _count_graded(
    batches: list[dict[str, torch.Tensor]], token_loss: TokenLoss | None, step: int
) -> tuple[int, float]:
    """How many tokens of a step are graded, and what makes a mean of their summed losses."""
    labels = [batch["labels"][:, 1:] for batch in batches]
    targets = torch.cat([label[label != IGNORE_INDEX] for label in labels])
    graded = len(targets)
    if graded == 0:
        raise ValueError(
            f"step {step}: no graded token in its batches; check the examples with check_labels"
        )
    divisor = graded if token_loss is None else token_loss.divisor(targets)
    if divisor == 0:
        raise ValueError(f"step {step}: every one of its {graded} graded tokens has weight 0")
    return graded, divisor
