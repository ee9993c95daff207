"""Chapter 04b: a short run that is killed and goes on, with all of its state or with one part lost.

A run is a list of steps, each with its loss (nats per graded token, before the update), its rate,
its rows, and how far it moved the weights on average, in learning rates. The chapter, its checks
and its tests share these functions.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch

from sft_lab.batches import group_by_length, pad_batch
from sft_lab.course.plain_loop import step
from sft_lab.examples import Example
from sft_lab.train import learning_rate_at

LOSSES = ("nothing", "weights", "averages", "schedule", "order")  # what a resumed run can lack
Run = list[dict[str, Any]]


def resumed_run(
    base: torch.nn.Module,
    examples: Sequence[Example],
    pad_token_id: int,
    *,
    lost: str = "nothing",
    cut: int,
    steps: int,
    batch_size: int = 8,
    peak: float = 1e-3,
    seed: int = 0,
) -> Run:
    """`steps` steps, cut before step `cut` (from 0), where new objects take over what was not lost.

    lost: "nothing"; "weights", which are the base's again; "averages", AdamW's; "schedule", whose
    rates begin anew; "order", so that the rows of the first steps come again. ValueError for
    another word, or a cut outside the run.
    """
    if lost not in LOSSES or not 0 < cut < steps:
        raise ValueError(
            f"lost is {lost!r} and cut {cut} of {steps}: one of {', '.join(LOSSES)}, and a cut "
            "inside the run"
        )
    lengths = [len(example.input_ids) for example in examples]
    epochs = math.ceil(steps / math.ceil(len(examples) / batch_size))
    orders = [group_by_length(lengths, batch_size, seed=1000 * seed + e) for e in range(epochs)]
    rows = [batch for order in orders for batch in order]
    warmup = math.ceil(0.1 * steps)
    rates = [learning_rate_at(i, steps, peak=peak, warmup_steps=warmup) for i in range(steps)]

    model = copy.deepcopy(base).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.0)
    run: Run = []
    for i in range(steps):
        if i == cut:
            model, optimizer = _take_over(base, model, optimizer, lost)
        late = i >= cut
        rate = rates[i - cut if late and lost == "schedule" else i]
        mine = rows[i - cut if late and lost == "order" else i]
        batch = pad_batch([examples[j] for j in mine], pad_token_id)
        run.append(_one_step(model, optimizer, batch, rate) | {"rows": sorted(mine)})
    return run


def _take_over(
    base: torch.nn.Module, model: torch.nn.Module, optimizer: torch.optim.Optimizer, lost: str
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A model and an optimizer as a new process makes them, with what was saved."""
    again = copy.deepcopy(base).train()
    if lost != "weights":
        again.load_state_dict(model.state_dict())
    other = torch.optim.AdamW(again.parameters(), lr=0.0, weight_decay=0.0)
    if lost != "averages":
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return again, other


def _one_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, torch.Tensor],
    rate: float,
) -> dict[str, float]:
    before = [weight.detach().clone() for weight in model.parameters()]
    loss = step(model, optimizer, [batch], rate)
    pairs = list(zip(model.parameters(), before, strict=True))
    total = sum((weight.detach() - old).abs().sum().item() for weight, old in pairs)
    count = sum(old.numel() for old in before)
    return {"loss": loss, "rate": rate, "moved": total / count / rate if rate else 0.0}
