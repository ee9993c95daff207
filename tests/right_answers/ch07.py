"""Right answers to the exercises of chapter 07, each in another style; written from the statements
alone."""

import math
from pathlib import Path

import numpy as np
import torch
from transformers import SchedulerType
from trl import SFTConfig

from sft_lab.labels import IGNORE_INDEX


# 7.1
def _keywords(folder, learning_rate, batch_size, accumulation_steps, warmup_ratio):
    return SFTConfig(
        output_dir=folder,
        num_train_epochs=1,
        learning_rate=learning_rate,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation_steps,
        lr_scheduler_type="cosine",
        warmup_steps=warmup_ratio,
        train_sampling_strategy="sequential",
        bf16=False,
        activation_checkpointing=False,
        assistant_only_loss=True,
        max_length=None,
        report_to="none",
    )


def _fully_spelled(folder, learning_rate, batch_size, accumulation_steps, warmup_ratio):
    settings = {
        "output_dir": str(Path(folder)),
        "num_train_epochs": 1.0,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        "learning_rate": learning_rate,
        "lr_scheduler_type": SchedulerType.COSINE,
        "warmup_steps": warmup_ratio,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "train_sampling_strategy": "sequential",
        "bf16": False,
        "fp16": False,
        "packing": False,
        "assistant_only_loss": True,
        "max_length": None,
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
    }
    return SFTConfig(**settings)


def _set_afterwards(folder, learning_rate, batch_size, accumulation_steps, warmup_ratio):
    config = SFTConfig(folder, bf16=False, lr_scheduler_type="cosine")
    config.num_train_epochs = 1
    config.learning_rate = learning_rate
    config.per_device_train_batch_size = batch_size
    config.gradient_accumulation_steps = accumulation_steps
    config.warmup_steps = warmup_ratio
    config.train_sampling_strategy = "sequential"
    config.assistant_only_loss = True
    config.max_length = None
    return config


def _checkpointed(folder, learning_rate, batch_size, accumulation_steps, warmup_ratio):
    return SFTConfig(
        output_dir=folder,
        num_train_epochs=1,
        learning_rate=learning_rate,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation_steps,
        lr_scheduler_type="cosine",
        warmup_steps=warmup_ratio,
        train_sampling_strategy="sequential",
        bf16=False,
        activation_checkpointing=True,
        assistant_only_loss=True,
        completion_only_loss=False,
        max_length=None,
        seed=3,
        logging_steps=7,
    )


def _another_adamw(folder, learning_rate, batch_size, accumulation_steps, warmup_ratio):
    return SFTConfig(
        folder,
        per_device_train_batch_size=batch_size,
        num_train_epochs=1,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=warmup_ratio,
        optim="adamw_torch_fused",
        gradient_accumulation_steps=accumulation_steps,
        train_sampling_strategy="sequential",
        bf16=False,
        tf32=None,
        assistant_only_loss=True,
        max_length=None,
        save_strategy="epoch",
        dataloader_num_workers=0,
    )


def _recursive(messages):
    if not messages:
        return []
    *before, last = messages
    row = [{"prompt": before, "completion": [last]}] if last["role"] == "assistant" else []
    return _recursive(before) + row


# 7.3
def _by_loop(input_ids, masks, max_length):
    labels = []
    for i, token in enumerate(input_ids):
        graded = True
        for mask in masks:
            if not mask[i]:
                graded = False
        labels.append(token if graded else IGNORE_INDEX)
    if max_length is not None:
        input_ids, labels = input_ids[:max_length], labels[:max_length]
    if all(label == IGNORE_INDEX for label in labels):
        return None
    return input_ids, labels


def _cut_first(input_ids, masks, max_length):
    ids = list(input_ids[:max_length])
    masks = [mask[:max_length] for mask in masks]
    labels = [token if all(mask[i] == 1 for mask in masks) else -100 for i, token in enumerate(ids)]
    return (ids, labels) if any(label != -100 for label in labels) else None


def _in_numpy(input_ids, masks, max_length):
    ids = np.array(input_ids, dtype=int)
    graded = np.ones(len(ids), dtype=bool)
    for mask in masks:
        graded &= np.array(mask, dtype=bool)
    ids, graded = ids[:max_length], graded[:max_length]
    return (ids.tolist(), np.where(graded, ids, -100).tolist()) if graded.any() else None


def _by_product(input_ids, masks, max_length):
    together = (
        [math.prod(row) for row in zip(*masks, strict=False)] if masks else [1] * len(input_ids)
    )
    labels = [x if one else -100 for x, one in zip(input_ids, together, strict=False)][:max_length]
    return None if set(labels) <= {-100} else (input_ids[:max_length], labels)


def _blanked(input_ids, masks, max_length):
    labels = input_ids.copy()
    for mask in masks:
        for place, one in enumerate(mask):
            if one == 0:
                labels[place] = IGNORE_INDEX
    labels = labels[:max_length]
    return (input_ids[:max_length], labels) if labels.count(-100) < len(labels) else None


# 7.4
RENAME = {
    "max_seq_length": "max_length",
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",
    "no_cuda": "use_cpu",
    "gradient_checkpointing": "activation_checkpointing",
    "tokenizer": "processing_class",
}
TRAINER = ("model", "train_dataset", "eval_dataset", "peft_config", "processing_class")


def _table_and_leaving_out(old):
    config, trainer = {}, {}
    for name, value in old.items():
        if name in ("logging_dir", "overwrite_output_dir"):
            continue
        if name == "group_by_length":
            if value:
                config["train_sampling_strategy"] = "group_by_length"
            continue
        new = RENAME.get(name, name)
        (trainer if new in TRAINER else config)[new] = value
    return config, trainer


def _table_and_random(old):
    new = {RENAME.get(name, name): value for name, value in old.items()}
    for gone in ("logging_dir", "overwrite_output_dir"):
        new.pop(gone, None)
    if "group_by_length" in new:
        by_length = new.pop("group_by_length")
        new["train_sampling_strategy"] = "group_by_length" if by_length else "random"
    trainer = {name: new.pop(name) for name in TRAINER if name in new}
    return new, trainer


def _popping_from_a_copy(old):
    rest = dict(old)
    rest.pop("overwrite_output_dir", None)
    rest.pop("logging_dir", None)
    trainer = {}
    for name in ("model", "train_dataset", "eval_dataset", "peft_config", "processing_class"):
        if name in rest:
            trainer[name] = rest.pop(name)
    if "tokenizer" in rest:
        trainer["processing_class"] = rest.pop("tokenizer")
    if rest.pop("group_by_length", False):
        rest["train_sampling_strategy"] = "group_by_length"
    for before, after in RENAME.items():
        if before in rest:
            rest[after] = rest.pop(before)
    return rest, trainer


def _without_the_idle_switches(old):
    """no_cuda=False asks for what is the default anyway."""
    config, trainer = _table_and_leaving_out(old)
    if config.get("use_cpu") is False:
        del config["use_cpu"]
    return config, trainer


def _without_defaults(old):
    """Whatever says what SFTConfig does anyway is left out."""
    config, trainer = _table_and_random(old)
    plain = {"use_cpu": False, "packing": False, "train_sampling_strategy": "random"}
    return {k: v for k, v in config.items() if k not in plain or v != plain[k]}, trainer


def _match(old):
    config, trainer = {}, {}
    for name, value in old.items():
        match name:
            case "tokenizer" | "processing_class":
                trainer["processing_class"] = value
            case "model" | "train_dataset" | "eval_dataset" | "peft_config":
                trainer[name] = value
            case "logging_dir" | "overwrite_output_dir":
                pass
            case "group_by_length":
                config["train_sampling_strategy"] = "group_by_length" if value else "random"
            case _:
                config[RENAME.get(name, name)] = value
    return config, trainer


# 7.5
def _first_then_all(reference, losses, limit=1e-5):
    pairs = list(zip(reference, losses, strict=False))
    close = [abs(a - b) <= limit for a, b in pairs]
    if not close[0]:
        return "start"
    return "same" if all(close) else "drift"


def _in_arrays(reference, losses, limit=1e-5):
    n = min(len(reference), len(losses))
    apart = ~(np.abs(np.array(reference[:n]) - np.array(losses[:n])) <= limit)
    return "start" if apart[0] else "drift" if apart.any() else "same"


def _by_the_step_that_parts(reference, losses, limit=1e-5):
    for step, (a, b) in enumerate(zip(reference, losses, strict=False)):
        if math.isnan(a) or math.isnan(b) or abs(b - a) > limit:
            return "drift" if step else "start"
    return "same"


def _isclose(reference, losses, limit=1e-5):
    together = [
        math.isclose(a, b, rel_tol=0.0, abs_tol=limit)
        for a, b in zip(reference, losses, strict=False)
    ]
    return "same" if all(together) else ("drift" if together[0] else "start")


def _in_torch(reference, losses, limit=1e-5):
    n = min(map(len, (reference, losses)))
    a, b = (torch.tensor(log[:n], dtype=torch.float64) for log in (reference, losses))
    if torch.allclose(a, b, rtol=0, atol=limit):
        return "same"
    return "drift" if (a - b).abs()[0].item() <= limit else "start"


# 7.6
MENDED = {
    "A": {"lr_scheduler_type": "cosine"},
    "B": {"assistant_only_loss": True},
    "C": {"train_sampling_strategy": "sequential"},
    "D": {"bf16": False},
    "E": {"max_length": None},
}


RIGHT_ANSWERS = {
    "7.1": [_keywords, _fully_spelled, _set_afterwards, _checkpointed, _another_adamw],
    "7.3": [_by_loop, _cut_first, _in_numpy, _by_product, _blanked],
    "7.4": [
        _table_and_leaving_out,
        _table_and_random,
        _popping_from_a_copy,
        _without_the_idle_switches,
        _without_defaults,
        _match,
    ],
    "7.5": [_first_then_all, _in_arrays, _by_the_step_that_parts, _isclose, _in_torch],
    "7.6": [
        MENDED,
        MENDED | {"E": {"max_length": 1024}},
        MENDED | {"A": {"lr_scheduler_type": SchedulerType.COSINE}, "E": {"max_length": 256}},
        MENDED | {"A": {"lr_scheduler_type": "cosine_with_restarts"}},
        {name: dict(MENDED[name]) for name in "EDCBA"},
    ],
}
