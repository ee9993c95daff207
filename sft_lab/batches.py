"""Station "gather": examples become tensors: padded, grouped by length, or packed without
contamination."""

import random
from collections.abc import Sequence

import torch

from sft_lab.examples import IGNORE_INDEX, Example

SORTED_BATCHES = 32  # batches whose examples are sorted by length together


def pad_batch(examples: Sequence[Example], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest example: input_ids, labels and attention_mask, each (B, T),
    int64.

    Padding is never graded: its labels are IGNORE_INDEX and its attention_mask is 0.
    """
    if not examples:
        raise ValueError("an empty batch: there is nothing to pad")
    check_pad(pad_token_id)
    longest = max(len(example.input_ids) for example in examples)

    def padded(rows: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])

    return {
        "input_ids": padded([example.input_ids for example in examples], pad_token_id),
        "labels": padded([example.labels for example in examples], IGNORE_INDEX),
        "attention_mask": padded([[1] * len(example.input_ids) for example in examples], 0),
    }


def check_pad(pad_token_id: int | None) -> None:
    """Raise ValueError where there is no pad token, with what sets one."""
    if pad_token_id is None:
        raise ValueError(
            "pad_token_id is None: the tokenizer has no pad token. sft_lab.models.load sets one"
        )


def group_by_length(lengths: Sequence[int], batch_size: int, *, seed: int) -> list[list[int]]:
    """Index batches of similar length in random order; every index exactly once, the last batch may
    be smaller.

    Examples are shuffled, sorted within windows of some batches, cut, and the batches shuffled:
    padding almost vanishes, and which examples meet in a batch still changes with the seed (one
    seed an epoch).
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it counts examples, so at least 1")
    rng = random.Random(seed)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    # Sorting all examples would save a little more padding and make every epoch meet the same
    # examples in the same batches.
    window = SORTED_BATCHES * batch_size
    batches = []
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lengths.__getitem__)
        batches += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    rng.shuffle(batches)
    return batches


def pack(examples: Sequence[Example], max_tokens: int) -> list[dict[str, torch.Tensor]]:
    """Rows of at most `max_tokens` tokens that hold several whole examples: input_ids, labels,
    position_ids, (1, T).

    position_ids start again at 0 with every example; given those and no attention mask, Qwen3,
    Llama and most decoders like them let no example see another. Others do, above all those with
    a state (Mamba, Qwen3-Next): `train` asks the model first (loop.probes). The first label of each
    example is IGNORE_INDEX, or the last token of its neighbour would be asked to predict it. First
    fit, longest first. Raises ValueError for an example longer than a row.
    """
    rows: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda example: -len(example.input_ids)):
        length = len(example.input_ids)
        if length > max_tokens:
            raise ValueError(
                f"an example of {length} tokens does not fit a row of {max_tokens}; encode shorter"
            )
        index = next((i for i, free in enumerate(room) if free >= length), None)
        if index is None:
            rows.append([])
            room.append(max_tokens)
            index = len(rows) - 1
        rows[index].append(example)
        room[index] -= length
    return [_row_tensors(row) for row in rows]


def _row_tensors(examples: list[Example]) -> dict[str, torch.Tensor]:
    """One packed row, (1, T)."""
    input_ids, labels, position_ids = [], [], []
    for example in examples:
        input_ids += example.input_ids
        labels += [IGNORE_INDEX, *example.labels[1:]]
        position_ids += range(len(example.input_ids))
    return {
        "input_ids": torch.tensor([input_ids]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([position_ids]),
    }


def join_rows(
    rows: Sequence[dict[str, torch.Tensor]], pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Several packed rows of (1, T) as one batch, (B, longest T), padded on the right by an example
    of padding.

    Its position_ids start again at 0, so that no example sees it, and as often as it takes not to
    go beyond those of the rows: a model may have no more positions. Its labels are IGNORE_INDEX.
    """
    longest = max(row["input_ids"].shape[1] for row in rows)
    positions = 1 + max(int(row["position_ids"].max()) for row in rows)

    def filled(row: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        missing = longest - row[name].shape[1]
        filler = {
            "input_ids": torch.full((missing,), pad_token_id),
            "labels": torch.full((missing,), IGNORE_INDEX),
            "position_ids": torch.arange(missing) % positions,
        }[name]
        return torch.cat((row[name], filler[None]), dim=1)

    return {name: torch.cat([filled(row, name) for row in rows]) for name in rows[0]}
