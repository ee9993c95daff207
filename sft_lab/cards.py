"""Station "world": does a training step fit a card, and if not, what to change.

The need is `sft_lab.memory`'s prediction for a step in half precision, and an allowance for what no
tensor holds. Chapter 08 measures the same step.
"""

from transformers import PreTrainedConfig

from sft_lab.memory import PARTS, predict_memory
from sft_lab.shapes import named_config

GIB = 2**30
# GiB that PyTorch reports as the card's total (torch.cuda.get_device_properties); a driver may take
# a little more.
CARDS = {
    "T4": 14.7,
    "L4": 22.0,
    "RTX 4090": 23.6,
    "A100 40 GB": 39.4,
    "A100 80 GB": 79.1,
    "H100 80 GB": 79.1,
}
# GiB for the CUDA context, library workspaces and fragmentation: an allowance, not a prediction
ALLOWANCE = 1.0
RANK, GRADED = 16, 0.5  # of LoRA, and the share of the positions that belongs to answers


def card_gib(card: str) -> float:
    """GiB of a card; ValueError for one that is not in CARDS."""
    if card not in CARDS:
        raise ValueError(
            f"no card named {card!r}; known: {', '.join(CARDS)}. For another, add its GiB to CARDS"
        )
    return CARDS[card]


def needed_gib(
    model: str | PreTrainedConfig,
    method: str,
    batch_size: int,
    length: int,
    checkpointing: bool,
    head: str,
    *,
    rank: int = RANK,
) -> dict[str, float]:
    """GiB of each part of a step in half precision at its peak, and of the allowance; settings as
    predict_memory's. model: a name of sft_lab.shapes, or a config."""
    parts = predict_memory(
        named_config(model) if isinstance(model, str) else model,
        method=method,
        rank=rank,
        batch_size=batch_size,
        length=length,
        half=True,
        checkpointing=checkpointing,
        head=head,
        graded=GRADED,
    )
    return {part: parts[part] / GIB for part in PARTS} | {"allowance": ALLOWANCE}


def find_changes(
    model: str | PreTrainedConfig,
    card: str,
    method: str,
    batch_size: int,
    length: int,
    checkpointing: bool,
    head: str,
) -> list[str]:
    """What to change so that the step fits, in words: one change if one is enough, else several; []
    if nothing helps.

    Tried in the order of what they cost: scores of the graded positions alone (nothing), one row at
    a time with accumulation (some speed), checkpointing (a forward pass more), LoRA, QLoRA, and
    rows of half the length.
    """
    settings = {
        "method": method,
        "batch_size": batch_size,
        "length": length,
        "checkpointing": checkpointing,
        "head": head,
    }
    changes = [
        ("score only the graded positions", {"head": "graded"}),
        (f"take 1 row at a time and accumulate over {batch_size} of them", {"batch_size": 1}),
        ("switch checkpointing on", {"checkpointing": True}),
        ("use LoRA", {"method": "lora" if method == "full" else method}),
        ("use QLoRA", {"method": "qlora"}),
        (f"cut the rows to {length // 2:,} tokens", {"length": max(1, length // 2)}),
    ]
    changes = [(words, change) for words, change in changes if settings | change != settings]
    for words, change in changes:
        if _fits(model, card, settings | change):
            return [words]
    taken: dict[str, str] = {}  # by setting, so that QLoRA takes LoRA's place
    for words, change in changes:
        settings |= change
        taken[next(iter(change))] = words
        if _fits(model, card, settings):
            return list(taken.values())
    return []


def _fits(model: str | PreTrainedConfig, card: str, settings: dict[str, object]) -> bool:
    return sum(needed_gib(model, **settings).values()) <= card_gib(card)
