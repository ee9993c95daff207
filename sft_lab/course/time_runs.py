"""Chapter 07b: the same few batches trained in several ways, timed against each other.

What is compared does the same work on the same rows: ratios of seconds in one process, the best of
some rounds, the ways in turn, so that other work on the machine slows all of them. The seconds
themselves belong to a machine and are shown nowhere.
"""

import copy
import ctypes
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from sft_lab.chat import generate_ids
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.kernels import short_rows
from sft_lab.loop.process import keep_freed_memory
from sft_lab.losses import graded_loss

Batch = dict[str, torch.Tensor]
Phases = dict[str, float]  # seconds, by phase of a step
NEW_TOKENS = 24  # of every answer whose speed is taken


def whole_head(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The loss that the transformers model computes itself: scores at every position."""
    return model(**batch).loss


def head_where_graded(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The same loss, from the scores of graded positions alone."""
    graded = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
    return graded_loss(model, batch, factor=1 / graded)[0]


def plain_step_times(
    base: PreTrainedModel,
    batches: Sequence[Batch],
    *,
    loss_of: Callable[[PreTrainedModel, Batch], torch.Tensor] = whole_head,
    keep_memory: bool = False,
    written_out: bool = False,
) -> Phases:
    """Seconds of forward pass, backward pass and update over all batches, in our own loop.

    keep_memory: freed memory stays with the process. written_out: the decoder of
    `sft_lab.kernels.short_rows`, which only `head_where_graded` asks for. The first batch is
    trained once more before the clock starts.
    """
    keep_freed_memory() if keep_memory else _give_memory_back()
    model = copy.deepcopy(base).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    seconds = {"forward": 0.0, "backward": 0.0, "update": 0.0}
    handles = short_rows.handles if written_out else lambda *_: False
    with mock.patch.object(short_rows, "handles", handles):
        for place, batch in enumerate([batches[0], *batches]):
            marks = [time.perf_counter()]
            loss = loss_of(model, batch)
            marks.append(time.perf_counter())
            loss.backward()
            marks.append(time.perf_counter())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            marks.append(time.perf_counter())
            if place > 0:
                for phase, start, end in zip(seconds, marks, marks[1:], strict=False):
                    seconds[phase] += end - start
    return seconds


def trl_step_times(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    batch_size: int,
    **changed: Any,
) -> Phases:
    """Seconds of the steps of SFTTrainer over the same rows in their order, with its defaults and
    what is changed. The first batch is trained once more before the clock starts."""
    _give_memory_back()
    rows = [{"input_ids": one.input_ids, "labels": one.labels} for one in examples]
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about this machine, and names that TRL itself uses
        trainer = SFTTrainer(
            model=copy.deepcopy(base),
            args=SFTConfig(
                output_dir=folder,
                use_cpu=True,
                num_train_epochs=1,
                per_device_train_batch_size=batch_size,
                train_sampling_strategy="sequential",
                save_strategy="no",
                disable_tqdm=True,
                **changed,
            ),
            train_dataset=Dataset.from_list(rows[:batch_size] + rows),
            processing_class=copy.deepcopy(tokenizer),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)  # it would print every log
        trainer.train()
    return {"step": clock.ends[-1] - clock.ends[0]}


class _Clock(TrainerCallback):
    """The time at the end of every step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **_):
        self.ends.append(time.perf_counter())


def race(ways: Mapping[str, Callable[[], Phases]], *, rounds: int) -> dict[str, Phases]:
    """The fastest of some rounds of every way; a round runs all of them once, one after the other.

    Other work on the machine can only add time, so the smallest is nearest to the work itself.
    """
    tries: dict[str, list[Phases]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            tries[name].append(run())
    return {name: min(found, key=lambda one: sum(one.values())) for name, found in tries.items()}


def tokens_per_second(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence, batch_size: int
) -> float:
    """Speed of writing NEW_TOKENS tokens for every prompt, stop token or not; the better of two."""
    seconds = []
    with mock.patch("sft_lab.chat.BATCH_SIZE", batch_size):
        for _ in range(2):
            started = time.perf_counter()
            made = generate_ids(
                model, tokenizer, prompts, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS
            )
            seconds.append(time.perf_counter() - started)
    if {len(row) for row in made} != {NEW_TOKENS}:
        raise RuntimeError(
            f"rows of {sorted({len(row) for row in made})} tokens: {NEW_TOKENS} were asked"
        )
    return NEW_TOKENS * len(prompts) / min(seconds)


def padded_share(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """Share of the positions of these batches of indices that are padding."""
    positions = sum(len(rows) * max(lengths[index] for index in rows) for rows in batches)
    return 1 - sum(lengths[index] for rows in batches for index in rows) / positions


def _give_memory_back() -> None:
    """glibc's thresholds where its own adjusting ends, 32 and 64 MiB; nothing elsewhere."""
    if platform.libc_ver()[0] == "glibc":
        for parameter, mebibytes in ((-3, 32), (-1, 64)):
            ctypes.CDLL("libc.so.6").mallopt(parameter, mebibytes << 20)
