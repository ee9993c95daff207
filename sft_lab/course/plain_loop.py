"""Chapter 04: the loop of SFT in three small functions, each resting on the one before.

`run_batch` gives the loss of a batch, `step` makes one update of it, `sft` makes a run of steps.
`sft_lab.train` does the same faster, and adds checkpoints, logs and errors that name their cause.
"""

import ast
import copy
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from sft_lab.atlas import ask, load_facts, split
from sft_lab.batches import group_by_length, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.loop.plan import SEEDS_APART
from sft_lab.train import evaluate, learning_rate_at

Batch = dict[str, torch.Tensor]
RunBatch = Callable[[torch.nn.Module, Batch], tuple[torch.Tensor, int]]
Step = Callable[[torch.nn.Module, torch.optim.Optimizer, list[Batch], float], float]


def run_batch(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, int]:
    """Summed loss of a padded batch in nats, and the number of its graded tokens.

    batch: input_ids, labels and attention_mask, each (B, T), as `pad_batch` makes them. Their
    quotient is the masked mean. Without a graded token both are 0.
    """
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    guesses, targets = logits[:, :-1], batch["labels"][:, 1:]  # row t predicts token t + 1
    graded = targets != IGNORE_INDEX
    loss = F.cross_entropy(guesses[graded], targets[graded], reduction="sum")
    return loss, int(graded.sum())


def count_graded(batch: Batch) -> int:
    """How many tokens of a batch are graded; the first of a row is never predicted."""
    return int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())


def step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[Batch],
    rate: float,
    run_batch: RunBatch = run_batch,
) -> float:
    """One update from one or more batches, in which every graded token weighs the same.

    Returns the loss before the update, in nats per graded token. The gradient's global norm is
    clipped at 1.
    """
    # counted before the first batch runs: so each can be freed before the next one begins
    total = sum(count_graded(batch) for batch in batches)
    optimizer.zero_grad()
    value = 0.0
    for batch in batches:
        loss, _ = run_batch(model, batch)
        (loss / total).backward()
        value += loss.item() / total
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return value


def sft(
    model: torch.nn.Module,
    examples: Sequence[Example],
    pad_token_id: int,
    step: Step = step,
    evaluate: Callable[[torch.nn.Module], float] | None = None,
    *,
    epochs: int = 1,
    batch_size: int = 16,
    accumulation: int = 1,
    peak: float = 1e-3,
    seed: int = 0,
) -> tuple[list[float], list[float]]:
    """Tune `model` in place: AdamW, warm-up over a tenth of the steps, then cosine decay.

    Returns the loss of every step, and what `evaluate(model)` gives before the first step and after
    every epoch.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.0)
    batches_an_epoch = math.ceil(len(examples) / batch_size)
    total = epochs * math.ceil(batches_an_epoch / accumulation)
    warmup, losses = math.ceil(0.1 * total), []
    values = [_judge(model, evaluate)]
    lengths = [len(example.input_ids) for example in examples]
    for epoch in range(epochs):
        # another order in every epoch, which no neighbouring seed has
        order = group_by_length(lengths, batch_size, seed=SEEDS_APART * seed + epoch)
        batches = [pad_batch([examples[i] for i in indices], pad_token_id) for indices in order]
        for first in range(0, len(batches), accumulation):
            rate = learning_rate_at(len(losses), total, peak=peak, warmup_steps=warmup)
            losses.append(step(model, optimizer, batches[first : first + accumulation], rate))
        values.append(_judge(model, evaluate))
    return losses, [value for value in values if value is not None]


def _judge(model: torch.nn.Module, evaluate: Callable | None) -> float | None:
    """What `evaluate` says of the model, with dropout off; then the model is ready to train."""
    model.eval()
    value = evaluate(model) if evaluate else None
    model.train()
    return value


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
ROWS, JUDGED = 240, 64  # of a run of the sweep: what it learns from, and what it is judged on


def try_rate(
    base: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, *, rate: float, seed: int
) -> dict[str, float]:
    """One epoch on ROWS questions at this peak: the held-out loss before and after, in nats per
    graded token."""
    facts = split(load_facts())
    known = random.Random(seed).sample(facts["train"], ROWS)
    asked = random.Random(0).sample(facts["held_out"], JUDGED)
    judged = encode_conversations(ask(asked, seed=0), tokenizer)
    model = copy.deepcopy(base)
    _, values = sft(
        model,
        encode_conversations(ask(known, seed=seed), tokenizer),
        tokenizer.pad_token_id,
        evaluate=lambda model: evaluate(model, tokenizer, judged)["loss"],
        peak=rate,
        seed=seed,
    )
    return {"before": values[0], "loss": values[-1]}


def show_function(path: Path | str, name: str) -> str:
    """The source of one function of a Python file. ValueError when there is none of this name."""
    text = Path(path).read_text("utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])
    raise ValueError(f"no function {name} in {path}")
