"""Under "learn": the plan of a run: which examples meet in which step.

It is made before the first step, from the examples and the settings alone. A run that goes on from
a checkpoint makes the same plan again and so finds the steps that are left.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sft_lab.batches import group_by_length, join_rows, pack, pad_batch
from sft_lab.examples import Example

Batch = dict[str, torch.Tensor]
# Runs with neighbouring seeds must not share their orders, as they would if epoch 1 of seed 0 and
# epoch 0 of seed 1 were drawn alike. A prime beyond any number of epochs keeps them apart.
SEEDS_APART = 1_000_003


@dataclass
class Plan:
    """`epochs` passes over the examples, in steps of `accumulation_steps` batches of `batch_size`.

    With `pack_to`, examples are packed into rows of at most so many tokens, and a batch holds rows.
    Raises ValueError when there is nothing to train on or a number is below 1.
    """

    examples: Sequence[Example]
    pack_to: int | None
    epochs: int
    batch_size: int
    accumulation_steps: int
    seed: int
    rows: list[Batch] = field(init=False)  # packed rows; empty without pack_to
    lengths: list[int] = field(init=False)  # tokens of each example, or of each packed row

    def __post_init__(self) -> None:
        if not self.examples:
            raise ValueError("no examples to train on")
        for name in ("epochs", "batch_size", "accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        self.rows = pack(self.examples, self.pack_to) if self.pack_to else []
        self.lengths = [row["input_ids"].shape[1] for row in self.rows] or [
            len(example.input_ids) for example in self.examples
        ]

    @property
    def steps_an_epoch(self) -> int:
        batches = math.ceil(len(self.lengths) / self.batch_size)
        return math.ceil(batches / self.accumulation_steps)

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_an_epoch

    def windows(self, first: int = 0) -> Iterator[list[list[int]]]:
        """What each step takes, from step `first` on (counted from 0): its batches, as indices."""
        for step in range(first, self.total_steps):
            epoch, position = divmod(step, self.steps_an_epoch)
            if position == 0 or step == first:
                seed = SEEDS_APART * self.seed + epoch
                batches = group_by_length(self.lengths, self.batch_size, seed=seed)
            start = position * self.accumulation_steps
            yield batches[start : start + self.accumulation_steps]

    def gather(self, window: list[list[int]], pad_token_id: int) -> list[Batch]:
        """The tensors of the batches of one step."""
        if self.rows:
            return [join_rows([self.rows[i] for i in batch], pad_token_id) for batch in window]
        return [pad_batch([self.examples[i] for i in batch], pad_token_id) for batch in window]

    def count_tokens(self, window: list[list[int]]) -> int:
        """Tokens of one step that are not padding."""
        return sum(self.lengths[i] for batch in window for i in batch)

    def settings(self) -> dict[str, Any]:
        """What makes this plan the one it is, for JSON; the examples by their fingerprint."""
        contents = repr([(example.input_ids, example.labels) for example in self.examples])
        return {
            "examples": hashlib.sha256(contents.encode()).hexdigest(),
            "pack_to": self.pack_to,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "accumulation_steps": self.accumulation_steps,
            "seed": self.seed,
        }
