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

from sft_lab.arguments import SettingError, check_seed, whole_number
from sft_lab.batches import group_by_length, join_rows, pack, pad_batch
from sft_lab.examples import IGNORE_INDEX, Example

Batch = dict[str, torch.Tensor]
# Runs with neighbouring seeds must not share their orders, as they would if epoch 1 of seed 0 and
# epoch 0 of seed 1 were drawn alike. A prime beyond any number of epochs keeps them apart.
SEEDS_APART = 1_000_003
WHOLE_NUMBERS = {  # from 1 on; what to do with another
    "epochs": "It counts whole passes over the examples",
    "batch_size": "It counts the examples of a batch",
    "accumulation_steps": "It counts the batches of a step; 1 accumulates nothing",
}


def grades(labels: Sequence[int]) -> bool:
    """Whether a row has a graded token; its first token is never predicted, so never graded."""
    return any(label != IGNORE_INDEX for label in labels[1:])


def check_examples(examples: Sequence[Example], name: str) -> None:
    """Refuse, by `name` and place, what is no example or has not one label a token."""
    if not examples:
        raise SettingError(f"no {name}: the list is empty. Did a filter or a cut take all?")
    for index, example in enumerate(examples):
        if not hasattr(example, "input_ids") or not hasattr(example, "labels"):
            raise SettingError(
                f"{name}[{index}] is {example!r:.60} ({type(example).__name__}), not an Example: "
                "encode_conversations makes them of conversations"
            )
        if len(example.input_ids) != len(example.labels):
            raise SettingError(
                f"{name}[{index}] has {len(example.input_ids)} input_ids and "
                f"{len(example.labels)} labels: one label a token, unshifted"
            )


@dataclass
class Plan:
    """`epochs` passes over the examples, in steps of `accumulation_steps` batches of `batch_size`.

    With `pack_to`, examples are packed into rows of at most so many tokens, and a batch holds rows.
    Raises SettingError, a ValueError, for a number that is none or below 1, a negative seed, a
    `pack_to` below the longest example, something else than examples, and a step that would grade
    nothing.
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
        self.examples = list(self.examples)
        check_examples(self.examples, "examples")
        for name, advice in WHOLE_NUMBERS.items():
            setattr(self, name, whole_number(name, getattr(self, name), advice=advice))
        self.seed = check_seed(self.seed)
        self.rows = self._pack() if self.pack_to is not None else []
        self.lengths = [row["input_ids"].shape[1] for row in self.rows] or [
            len(example.input_ids) for example in self.examples
        ]
        self._check_graded()

    def _pack(self) -> list[Batch]:
        self.pack_to = whole_number("pack_to", self.pack_to, advice="None: do not pack")
        longest = max(self.examples, key=lambda example: len(example.input_ids))
        length = len(longest.input_ids)
        if length > self.pack_to:
            raise SettingError(
                f"pack_to is {self.pack_to}, but examples[{self.examples.index(longest)}] has "
                f"{length} tokens, and none is cut: pack_to={length} holds them all; or encode "
                f"with max_tokens={self.pack_to}"
            )
        return pack(self.examples, self.pack_to)

    def _check_graded(self) -> None:
        """Refuse a plan with a step that grades nothing: it would end the run when it comes."""
        graded = [grades(labels) for labels in self.labels()]
        if all(graded):
            return
        for step, window in enumerate(self.windows(), start=1):
            if not any(graded[i] for batch in window for i in batch):
                raise SettingError(
                    f"step {step}: no graded token in its batches; {graded.count(False)} of "
                    f"{len(graded)} {'packed rows' if self.rows else 'examples'} have none, the "
                    f"first is number {graded.index(False) + 1}; check the examples with "
                    "check_labels"
                )

    def labels(self) -> list[list[int]]:
        """The labels of each example, or of each packed row."""
        return [row["labels"][0].tolist() for row in self.rows] or [
            example.labels for example in self.examples
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
