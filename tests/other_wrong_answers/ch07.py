"""Wrong answers to the exercises of chapter 07, written from the statements alone."""

import itertools
import math

import numpy as np
import torch
from transformers import TrainingArguments
from trl import SFTConfig

from sft_lab.course import same_run

IGNORE_INDEX = -100


# 7.1
def _config(*left_out, kind=SFTConfig, **changed):
    """The right settings without some, or with others; a function as value gets all five given."""

    def answer(folder, learning_rate, batch_size, accumulation_steps, warmup_ratio):
        given = (folder, learning_rate, batch_size, accumulation_steps, warmup_ratio)
        settings = {
            "output_dir": folder,
            "num_train_epochs": 1,
            "learning_rate": learning_rate,
            "per_device_train_batch_size": batch_size,
            "gradient_accumulation_steps": accumulation_steps,
            "lr_scheduler_type": "cosine",
            "warmup_steps": warmup_ratio,
            "train_sampling_strategy": "sequential",
            "bf16": False,
            "assistant_only_loss": True,
            "max_length": None,
        }
        settings |= {name: v(*given) if callable(v) else v for name, v in changed.items()}
        return kind(**{name: v for name, v in settings.items() if name not in left_out})

    return answer


# 7.3
def _graded(input_ids, masks, rule=all):
    """The right labels of the whole row, if the rule is all."""
    return [
        token if rule([mask[i] for mask in masks]) else IGNORE_INDEX
        for i, token in enumerate(input_ids)
    ]


def _cut(input_ids, labels, max_length):
    labels = labels[:max_length]
    return None if set(labels) <= {IGNORE_INDEX} else (input_ids[:max_length], labels)


def _by_rule(rule):
    return lambda input_ids, masks, max_length: _cut(
        input_ids, _graded(input_ids, masks, rule), max_length
    )


def _dropped_before_the_cut(input_ids, masks, max_length):
    labels = _graded(input_ids, masks)
    if set(labels) <= {IGNORE_INDEX}:
        return None
    return input_ids[:max_length], labels[:max_length]


def _truthy(input_ids, masks, max_length):
    """The labels that are 0 count as nothing."""
    labels = _graded(input_ids, masks)[:max_length]
    return (input_ids[:max_length], labels) if any(x > 0 for x in labels) else None


def _never_none(input_ids, masks, max_length):
    return input_ids[:max_length], _graded(input_ids, masks)[:max_length]


def _input_cut_in_place(input_ids, masks, max_length):
    labels = _graded(input_ids, masks)[:max_length]
    if max_length is not None:
        del input_ids[max_length:]
    return None if set(labels) <= {IGNORE_INDEX} else (input_ids, labels)


def _masks_joined_in_place(input_ids, masks, max_length):
    first, *others = masks or [[1] * len(input_ids)]
    for mask in others:
        for i, one in enumerate(mask):
            first[i] *= one
    return _cut(input_ids, _graded(input_ids, [first]), max_length)


def _labels_written_into_the_ids(input_ids, masks, max_length):
    labels = _graded(input_ids, masks)
    ids = input_ids
    for i, label in enumerate(labels):
        ids[i] = label
    return _cut(ids, labels, max_length)


def _needs_a_mask(input_ids, masks, max_length):
    labels = _graded(input_ids, masks) if masks else [IGNORE_INDEX] * len(input_ids)
    return _cut(input_ids, labels, max_length)


def _ungraded_taken_out(input_ids, masks, max_length):
    labels = [x for x in _graded(input_ids, masks) if x != IGNORE_INDEX][:max_length]
    return (input_ids[:max_length], labels) if labels else None


def _cut_on_the_left(input_ids, masks, max_length):
    labels = _graded(input_ids, masks)
    if max_length is not None:
        input_ids, labels = input_ids[-max_length:], labels[-max_length:]
    return _cut(input_ids, labels, max_length)


def _zero_is_no_limit(input_ids, masks, max_length):
    labels = _graded(input_ids, masks)
    return _cut(input_ids, labels, max_length or None)


def _marked_with(value):
    def answer(input_ids, masks, max_length):
        found = _cut(input_ids, _graded(input_ids, masks), max_length)
        return found and (found[0], [value if x == IGNORE_INDEX else x for x in found[1]])

    return answer


def _changed_result(change):
    def answer(input_ids, masks, max_length):
        found = _cut(input_ids, _graded(input_ids, masks), max_length)
        return found and change(*found)

    return answer


# 7.4
RENAME = {
    "max_seq_length": "max_length",
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",
    "no_cuda": "use_cpu",
    "gradient_checkpointing": "activation_checkpointing",
    "tokenizer": "processing_class",
}
KEPT = ("model", "train_dataset", "eval_dataset", "peft_config", "processing_class")
GONE = ("logging_dir", "overwrite_output_dir")


def _translate(
    *,
    forget=(),
    rename=(),
    kept=KEPT,
    gone=GONE,
    by_length=lambda value: value,
    if_true=None,
    keep=None,
):
    """The right translation, with one thing changed. by_length: for which values of group_by_length
    the strategy is set; keep: which values of the new names stay."""
    names = {old: new for old, new in (RENAME | dict(rename)).items() if old not in forget}
    chosen = if_true or "group_by_length"

    def answer(old):
        config, trainer = {}, {}
        for name, value in old.items():
            if name in gone:
                continue
            if name == "group_by_length" and "group_by_length" not in forget:
                if by_length(value):
                    config["train_sampling_strategy"] = chosen
                continue
            if keep is not None and not keep(value):
                continue
            new = names.get(name, name)
            (trainer if new in kept else config)[new] = value
        return config, trainer

    return answer


def _popping_the_old(old):
    new = {name: old.pop(name) for name in list(old)}
    return _translate()(new)


def _cpu_turned_round(old):
    config, trainer = _translate()(old)
    return {k: not v if k == "use_cpu" else v for k, v in config.items()}, trainer


def _warmup_in_whole_steps(old):
    config, trainer = _translate()(old)
    if "warmup_ratio" in old:
        config["warmup_steps"] = int(100 * old["warmup_ratio"])
    return config, trainer


def _only_the_table(old):
    """Names that are valid today are lost."""
    config, trainer = _translate()(old)
    table = {*RENAME.values(), "dataset_text_field", "packing", "train_sampling_strategy"}
    return {k: v for k, v in config.items() if k in table}, trainer


def _length_as_text(old):
    config, trainer = _translate()(old)
    if "max_length" in config:
        config["max_length"] = str(config["max_length"])
    return config, trainer


# 7.5
def _verdict(apart, common=zip):
    """The right verdict with another rule for what is apart."""

    def answer(reference, losses, limit=1e-5):
        found = [apart(a, b, limit) for a, b in common(reference, losses)]
        return "start" if found[0] else "drift" if any(found) else "same"

    return answer


def _apart(a, b, limit):
    return not abs(a - b) <= limit


def _last_only(reference, losses, limit=1e-5):
    n = min(len(reference), len(losses))
    if _apart(reference[0], losses[0], limit):
        return "start"
    return "drift" if _apart(reference[n - 1], losses[n - 1], limit) else "same"


def _on_average(reference, losses, limit=1e-5):
    gaps = [abs(a - b) for a, b in zip(reference, losses, strict=False)]
    if sum(gaps) / len(gaps) <= limit:
        return "same"
    return "start" if not gaps[0] <= limit else "drift"


def _of_the_means(reference, losses, limit=1e-5):
    n = min(len(reference), len(losses))
    if abs(sum(reference[:n]) - sum(losses[:n])) <= limit * n:
        return "same"
    return "start" if _apart(reference[0], losses[0], limit) else "drift"


def _largest_gap(reference, losses, limit=1e-5):
    gaps = [abs(a - b) for a, b in zip(reference, losses, strict=False)]
    if gaps[0] > limit:
        return "start"
    return "drift" if max(gaps) > limit else "same"


def _other_length_is_drift(reference, losses, limit=1e-5):
    if len(reference) != len(losses):
        return "drift"
    return _verdict(_apart)(reference, losses, limit)


def _drift_first(reference, losses, limit=1e-5):
    found = [_apart(a, b, limit) for a, b in zip(reference, losses, strict=False)]
    return "drift" if any(found[1:]) else "start" if found[0] else "same"


def _from_the_end(reference, losses, limit=1e-5):
    return _verdict(_apart)(reference[::-1], losses[::-1], limit)


def _sorted(reference, losses, limit=1e-5):
    return _verdict(_apart)(sorted(reference), sorted(losses), limit)


# 7.6
MENDED = {
    "A": {"lr_scheduler_type": "cosine"},
    "B": {"assistant_only_loss": True},
    "C": {"train_sampling_strategy": "sequential"},
    "D": {"bf16": False},
    "E": {"max_length": None},
}


OTHER_WRONG_ANSWERS = {
    "7.1": [
        _config("num_train_epochs"),
        _config("learning_rate"),
        _config("per_device_train_batch_size"),
        _config("gradient_accumulation_steps"),
        _config("lr_scheduler_type"),
        _config("warmup_steps"),
        _config("train_sampling_strategy"),
        _config("bf16"),
        _config("assistant_only_loss"),
        _config("output_dir"),
        _config("assistant_only_loss", completion_only_loss=True),
        _config("bf16", fp16=True, bf16=False, use_cpu=False),
        _config(num_train_epochs=2),
        _config(max_steps=10),
        _config(lr_scheduler_type="cosine_with_restarts"),
        _config(lr_scheduler_type="constant_with_warmup"),
        _config(lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr": 1e-6}),
        _config(lr_scheduler_kwargs={"num_cycles": 1}),
        _config(train_sampling_strategy="group_by_length"),
        _config(packing=True, max_length=512),
        _config(max_length=64),
        _config(max_grad_norm=0.0),
        _config(max_grad_norm=0.3),
        _config(weight_decay=0.01),
        _config(adam_beta2=0.95),
        _config(adam_beta1=0.8),
        _config(adam_epsilon=1e-6),
        _config(optim="sgd"),
        _config(optim="adafactor"),
        _config(label_smoothing_factor=0.1),
        _config(neftune_noise_alpha=5.0),
        _config(dataloader_drop_last=True),
        _config(shuffle_dataset=True),
        _config(loss_type="dft"),
        _config(warmup_steps=lambda f, r, b, a, w: int(w * 100)),
        _config(warmup_steps=10),
        _config(learning_rate=8e-5),
        _config(learning_rate=lambda f, r, b, a, w: r * a),
        _config(per_device_train_batch_size=8),
        _config(
            per_device_train_batch_size=lambda f, r, b, a, w: a,
            gradient_accumulation_steps=lambda f, r, b, a, w: b,
        ),
        _config(
            per_device_train_batch_size=lambda f, r, b, a, w: b * a, gradient_accumulation_steps=1
        ),
        _config("assistant_only_loss", "max_length", kind=TrainingArguments),
        _config(kind=dict),
    ],
    "7.3": [
        _by_rule(any),
        _by_rule(lambda column: column[0] if column else 1),
        _by_rule(lambda column: column[-1] if column else 1),
        _by_rule(lambda column: sum(column) == 1 or not column),
        _by_rule(lambda column: sum(column) >= len(column) / 2),
        _by_rule(lambda column: not any(column)),
        _by_rule(lambda column: len(column) < 2 or column[0] and column[1]),
        _by_rule(lambda column: sum(column) == 2 or not column),
        _by_rule(lambda column: True),
        _marked_with(0),
        _marked_with(-1),
        _marked_with(None),
        _changed_result(lambda ids, labels: (labels, ids)),
        _changed_result(lambda ids, labels: labels),
        _changed_result(lambda ids, labels: (ids, labels[1:] + [IGNORE_INDEX])),
        _changed_result(lambda ids, labels: (ids, [int(x != IGNORE_INDEX) for x in labels])),
        _changed_result(lambda ids, labels: (ids, [float(x) for x in labels])),
        _changed_result(lambda ids, labels: (ids[:-1], labels[:-1])),
        lambda input_ids, masks, max_length: _cut(input_ids, _graded(input_ids, masks), None),
        lambda input_ids, masks, max_length: _cut(
            input_ids, _graded(input_ids, masks), max_length and max_length - 1
        ),
        lambda input_ids, masks, max_length: _cut(
            input_ids, _graded(input_ids, masks), max_length + 0
        ),
        lambda input_ids, masks, max_length: (
            _cut(input_ids, _graded(input_ids, masks), max_length) or ([], [])
        ),
        lambda input_ids, masks, max_length: (
            None
            if max_length is not None and len(input_ids) > max_length
            else _cut(input_ids, _graded(input_ids, masks), max_length)
        ),
        lambda input_ids, masks, max_length: (
            _cut(input_ids, _graded(input_ids, masks), max_length)
            and (input_ids, _graded(input_ids, masks)[:max_length])
        ),
        _dropped_before_the_cut,
        _truthy,
        _never_none,
        _input_cut_in_place,
        _masks_joined_in_place,
        _labels_written_into_the_ids,
        _needs_a_mask,
        _ungraded_taken_out,
        _cut_on_the_left,
        _zero_is_no_limit,
    ],
    "7.4": [
        *(_translate(forget=(name,)) for name in (*RENAME, "group_by_length")),
        *(_translate(kept=[name for name in KEPT if name != one]) for one in KEPT),
        *(_translate(gone=[one]) for one in GONE),
        _translate(kept=()),
        _translate(kept=(*KEPT, "max_length")),
        _translate(kept=(*KEPT, "packing", "dataset_text_field")),
        _translate(gone=(*GONE, "packing")),
        _translate(gone=(*GONE, "dataset_text_field")),
        _translate(gone=(*GONE, "eval_dataset")),
        _translate(gone=(*GONE, "group_by_length")),
        _translate(rename={"warmup_ratio": "warmup_ratio_steps"}),
        _translate(rename={"logging_dir": "output_dir"}, gone=["overwrite_output_dir"]),
        _translate(by_length=lambda value: True),
        _translate(by_length=lambda value: not value),
        _translate(if_true=True),
        _translate(if_true="length"),
        _translate(keep=bool),
        _translate(keep=lambda value: value is not False),
        lambda old: _translate()(old)[::-1],
        lambda old: {**_translate()(old)[0], **_translate()(old)[1]},
        lambda old: (_translate()(old)[0], {**_translate()(old)[1], **old}),
        lambda old: (old, {}),
        _popping_the_old,
        _cpu_turned_round,
        _warmup_in_whole_steps,
        _only_the_table,
        _length_as_text,
        _translate(keep=lambda value: value is not None),
    ],
    "7.5": [
        _verdict(lambda a, b, limit: abs(a - b) > limit),
        _verdict(lambda a, b, limit: not abs(a - b) <= limit * abs(a)),
        _verdict(lambda a, b, limit: not abs(a - b) <= limit * max(abs(a), abs(b))),
        _verdict(lambda a, b, limit: not abs(a - b) / a <= limit),
        _verdict(lambda a, b, limit: not abs(a - b) <= 2e-6),
        _verdict(lambda a, b, limit: not abs(a - b) <= 1e-5),
        _verdict(lambda a, b, limit: not abs(a - b) <= limit**0.5),
        _verdict(lambda a, b, limit: not (a - b) ** 2 <= limit),
        _verdict(lambda a, b, limit: a != b),
        _verdict(lambda a, b, limit: not a - b <= limit),
        _verdict(lambda a, b, limit: not b - a <= limit),
        _verdict(lambda a, b, limit: round(a, 6) != round(b, 6)),
        _verdict(lambda a, b, limit: not math.isclose(a, b)),
        _verdict(lambda a, b, limit: not math.isclose(a, b, rel_tol=limit)),
        _verdict(lambda a, b, limit: not (abs(a - b) <= limit or (a != a and b != b))),
        _verdict(lambda a, b, limit: b != b or abs(a - b) > limit),
        _verdict(lambda a, b, limit: a != a or abs(a - b) > limit),
        _verdict(lambda a, b, limit: _apart(a or 0, b or 0, limit), itertools.zip_longest),
        _verdict(_apart, lambda a, b: zip(a, b, strict=True)),
        _verdict(_apart, lambda a, b: list(zip(a, b, strict=False))[:10]),
        _verdict(_apart, lambda a, b: list(zip(a, b, strict=False))[:-1]),
        _verdict(_apart, lambda a, b: list(zip(a, b, strict=False))[1:]),
        lambda reference, losses, limit=1e-5: (
            "same" if _verdict(_apart)(reference, losses, limit) == "same" else "drift"
        ),
        lambda reference, losses, limit=1e-5: (
            "same" if _verdict(_apart)(reference, losses, limit) == "same" else "start"
        ),
        lambda reference, losses, limit=1e-5: _verdict(_apart)(reference, losses, limit).upper(),
        lambda reference, losses, limit=1e-5: _verdict(_apart)(reference, losses, limit) == "same",
        _last_only,
        _on_average,
        _of_the_means,
        _largest_gap,
        _other_length_is_drift,
        _drift_first,
        _from_the_end,
        _sorted,
        _verdict(lambda a, b, limit: not abs(a - b) < limit),
        _verdict(lambda a, b, limit: not np.isclose(a, b, atol=limit)),
        _verdict(lambda a, b, limit: not torch.isclose(*torch.tensor([a, b]), atol=limit)),
        lambda reference, losses, limit=1e-5: (
            "same" if reference == losses else _verdict(_apart)(reference, losses, limit)
        ),
        _verdict(lambda a, b, limit: not round(abs(a - b), 5) <= limit),
        _verdict(lambda a, b, limit: not math.isclose(a, b, rel_tol=1e-5, abs_tol=limit)),
    ],
    "7.6": [
        MENDED | {"A": {"lr_scheduler_type": "linear"}},
        MENDED | {"A": {"lr_scheduler_type": "constant_with_warmup"}},
        MENDED | {"A": {"learning_rate": 8e-5}},
        MENDED | {"A": {"warmup_steps": 0.1}},
        MENDED | {"B": {"completion_only_loss": True}},
        MENDED | {"C": {"seed": 0}},
        MENDED | {"C": {"shuffle_dataset": False}},
        MENDED | {"C": {"train_sampling_strategy": "group_by_length"}},
        MENDED | {"D": {"fp16": False}},
        MENDED | {"D": {"bf16": True}},
        MENDED | {"E": {"max_length": 24}},
        MENDED | {"E": {"max_seq_length": None}},
        MENDED | {"E": same_run.SAME | {"max_length": None, "assistant_only_loss": True}},
        MENDED | {"A": {"lr_scheduler_type": "cosine", "learning_rate": 8e-5}},
        {name: MENDED[name] for name in "ABCD"},
        {name: next(iter(MENDED[name])) for name in MENDED},
        {name: {} for name in MENDED},
        list(MENDED.values()),
        {keyword: value for one in MENDED.values() for keyword, value in one.items()},
        MENDED | {"C": MENDED["D"], "D": MENDED["C"]},
    ],
}
