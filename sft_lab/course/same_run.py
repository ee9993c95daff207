"""Chapter 07: runs of TRL's trainer that repeat our loop, and five with one keyword wrong.

`trl_run` is the plain call, `SFTTrainer(model, SFTConfig(…), …)`, on rows of messages with the
keywords that make it our run (`SAME`, and `assistant_only_loss`). `FAULTS` holds what each run of
exercise 7.6 has wrong: who wants to find it from its evidence does not read on.
"""

import copy
import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    get_cosine_schedule_with_warmup,
)
from trl import SFTConfig, SFTTrainer

from sft_lab import atlas
from sft_lab.batches import group_by_length, pad_batch
from sft_lab.chat import encode_chat
from sft_lab.examples import IGNORE_INDEX
from sft_lab.labels import encode_conversations
from sft_lab.records import Conversation

BATCH, RATE = 8, 8e-5
SAME = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": BATCH,
    "learning_rate": RATE,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "train_sampling_strategy": "sequential",
    "bf16": False,
    "activation_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
}
FAULTS = {
    "A": {"lr_scheduler_type": "linear"},
    "B": {"assistant_only_loss": False},
    "C": {"train_sampling_strategy": "random"},
    "D": {"bf16": True},
    "E": {"max_length": 24},
}
FAULTY_ROWS, SHOWN_STEPS = 80, 4  # rows of such a run, ten steps; of which so many are taken


class StopAfter(TrainerCallback):
    """Ends a run early; the schedule stays that of the whole run."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop |= state.global_step >= self.step


@dataclass(frozen=True)
class Evidence:
    """What a run leaves: losses (nats per graded token) and learning rates of its steps, the number
    of rows and of graded tokens, and the text of the first row that is graded."""

    losses: list[float]
    rates: list[float]
    rows: int
    graded: int
    text: str


def short_rows_of(
    seed: int, count: int, tokenizer: PreTrainedTokenizerBase, *, longest: int = 40
) -> list[Conversation]:
    """`count` of the course's conversations with at most `longest` tokens, in batches of BATCH of
    similar length, drawn by `seed`."""
    drawn = atlas.training_conversations(seed=seed)[: 5 * count]
    lengths = [len(encode_chat(conversation, tokenizer)) for conversation in drawn]
    short = [place for place, length in enumerate(lengths) if length <= longest][:count]
    if len(short) < count:
        raise ValueError(f"{len(short)} of {len(drawn)} conversations are short, {count} asked for")
    batches = group_by_length([lengths[place] for place in short], BATCH, seed=seed)
    return [drawn[short[index]] for indices in batches for index in indices]


def plain_losses(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Conversation],
    steps: int,
    batch_size: int = BATCH,
) -> list[float]:
    """The losses of the first steps of our own loop on these rows, in their order."""
    model, examples = copy.deepcopy(base).train(), encode_conversations(rows, tokenizer)
    starts, losses = range(0, len(examples), batch_size), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    warmup = math.ceil(SAME["warmup_steps"] * len(starts))
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, len(starts))
    for start in starts[:steps]:
        loss = model(**pad_batch(examples[start : start + batch_size], tokenizer.pad_token_id)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trl_run(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Conversation],
    changed: Mapping[str, Any],
    steps: int,
) -> Evidence:
    """The first steps of SFTTrainer on a copy of `base`: SAME, the answers graded, and what is
    changed."""
    keywords = SAME | {"assistant_only_loss": True} | dict(changed)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about this machine, and names that TRL itself uses
        trainer = SFTTrainer(
            model=copy.deepcopy(base),
            args=SFTConfig(output_dir=folder, **keywords),
            train_dataset=Dataset.from_list([{"messages": row} for row in rows]),
            processing_class=copy.deepcopy(tokenizer),
            callbacks=[StopAfter(steps)],
        )
        trainer.remove_callback(PrinterCallback)  # it would print every log
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    labels = [_graded(row["labels"]) for row in trainer.train_dataset]
    return Evidence(
        losses=[entry["loss"] for entry in logs],
        rates=[entry["learning_rate"] for entry in logs],
        rows=len(labels),
        graded=sum(map(len, labels)),
        text=tokenizer.decode(labels[0]),
    )


def faulty_run(
    name: str,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Conversation],
    mended: Mapping[str, Any] | None = None,
) -> Evidence:
    """The first SHOWN_STEPS of run `name` of FAULTS, with its fault, and `mended` laid over it."""
    return trl_run(base, tokenizer, rows, FAULTS[name] | dict(mended or {}), SHOWN_STEPS)


def describe(name: str, evidence: Evidence) -> str:
    """A run's evidence as three lines of text."""
    losses = " ".join(f"{loss:.4f}" for loss in evidence.losses)
    rates = " ".join(f"{1e5 * rate:.2f}" for rate in evidence.rates)
    return (
        f"{name:5}losses {losses}, rates {rates} (e-5)\n"
        f"     {evidence.rows} rows, {evidence.graded} tokens graded\n"
        f"     {evidence.text!r}"
    )


def _graded(labels: Sequence[int]) -> list[int]:
    return [label for label in labels if label != IGNORE_INDEX]
