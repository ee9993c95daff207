"""Wrong answers to the exercises of chapter 07, each with the words that must name its mistake."""

import warnings

IGNORE = -100
RENAMES = {
    "max_seq_length": "max_length",
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",
    "no_cuda": "use_cpu",
    "gradient_checkpointing": "activation_checkpointing",
    "tokenizer": "processing_class",
}
OF_THE_TRAINER = ("model", "train_dataset", "eval_dataset", "peft_config", "processing_class")


def _config(*leave_out, **changes):
    def answer(folder, learning_rate, batch_size, accumulation_steps, warmup_ratio):
        from trl import SFTConfig

        fields = {
            "output_dir": folder,
            "learning_rate": learning_rate,
            "per_device_train_batch_size": batch_size,
            "gradient_accumulation_steps": accumulation_steps,
            "num_train_epochs": 1,
            "lr_scheduler_type": "cosine",
            "warmup_steps": warmup_ratio,
            "train_sampling_strategy": "sequential",
            "bf16": False,
            "use_cpu": True,
            "activation_checkpointing": False,
            "assistant_only_loss": True,
            **changes,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SFTConfig(
                **{name: value for name, value in fields.items() if name not in leave_out}
            )

    return answer


def _as_training_arguments(folder, learning_rate, batch_size, accumulation_steps, warmup_ratio):
    from transformers import TrainingArguments

    return TrainingArguments(output_dir=folder, learning_rate=learning_rate, use_cpu=True)


def _places(messages):
    return [place for place, turn in enumerate(messages) if turn["role"] == "assistant"]


def _without_system(messages):
    rest = [turn for turn in messages if turn["role"] != "system"]
    return [{"prompt": rest[:place], "completion": [rest[place]]} for place in _places(rest)]


def _masked(ids, masks, quantifier=all):
    return [
        token if quantifier(mask[i] for mask in masks) else IGNORE for i, token in enumerate(ids)
    ]


def _check_before_cut(ids, masks, limit):
    labels = _masked(ids, masks)
    return None if set(labels) == {IGNORE} else (ids[:limit], labels[:limit])


def _labels_not_cut(ids, masks, limit):
    return ids[:limit], _masked(ids, masks)


def _modernise(
    old,
    *,
    renames=RENAMES,
    gone=("overwrite_output_dir", "logging_dir"),
    trainer=OF_THE_TRAINER,
    group=True,
):
    config, of_trainer = {}, {}
    for name, value in old.items():
        name = renames.get(name, name)
        if name in trainer:
            of_trainer[name] = value
        elif name == "group_by_length" and group:
            config["train_sampling_strategy"] = "group_by_length" if value else "random"
        elif name not in gone:
            config["train_sampling_strategy" if name == "group_by_length" else name] = value
    return config, of_trainer


def _without(name):
    return {old: new for old, new in RENAMES.items() if old != name}


def _modernise_in_place(old):
    for name, new in RENAMES.items():
        if name in old:
            old[new] = old.pop(name)
    return _modernise(old)


def _far(reference, losses, limit=2e-6):
    far = [abs(a - b) > limit for a, b in zip(reference, losses, strict=False)]
    return "start" if far[0] else "drift" if any(far) else "same"


def _only_last(reference, losses, limit=2e-6):
    pairs = list(zip(reference, losses, strict=False))
    if not abs(pairs[0][0] - pairs[0][1]) <= limit:
        return "start"
    return "same" if abs(pairs[-1][0] - pairs[-1][1]) <= limit else "drift"


def _close(reference, losses, limit=2e-6, size=abs):
    close = [size(b - a) <= limit for a, b in zip(reference, losses, strict=False)]
    return "start" if not close[0] else "same" if all(close) else "drift"


WRONG_ANSWERS = {
    "7.1": [
        (_config("bf16"), "half precision is on"),
        (_config("num_train_epochs"), "num_train_epochs defaults to 3"),
        (_config("assistant_only_loss"), "the questions are graded too"),
        (_config("lr_scheduler_type"), "the schedule is not a cosine"),
        (_config("gradient_accumulation_steps"), "has a field of its own"),
        (_config("train_sampling_strategy"), "the rows are shuffled"),
        (_config("warmup_steps"), "the share of the steps"),
        (_config("learning_rate"), "not the given one"),
        (_config(per_device_train_batch_size=1), "examples of one forward pass"),
        (_config(packing=True, max_length=64), "packing puts other examples"),
        (_config(weight_decay=0.01), "no weight decay"),
        (_as_training_arguments, "return an SFTConfig"),
        (lambda folder, rate, batch, steps, share: dict(learning_rate=rate), "return an SFTConfig"),
    ],
    "7.2": [
        (lambda m: [{"prompt": m[:-1], "completion": m[-1:]}], "only the last answer"),
        (
            lambda m: [{"prompt": m[:i], "completion": m[i]} for i in _places(m)],
            "is a list of turns",
        ),
        (
            lambda m: [{"prompt": m[i - 1 : i], "completion": [m[i]]} for i in _places(m)],
            "only the last question",
        ),
        (
            lambda m: [{"prompt": m[: i + 1], "completion": [m[i]]} for i in _places(m)],
            "holds the answer itself",
        ),
        (_without_system, "the system turn is lost"),
        (
            lambda m: [{"prompt": m[:i], "response": [m[i]]} for i in _places(m)],
            "TRL wants prompt and completion",
        ),
        (
            lambda m: [{"prompt": m[:i], "completion": m[i : i + 2]} for i in _places(m)],
            "the completion",
        ),
    ],
    "7.3": [
        (
            lambda ids, masks, limit: (ids[:limit], _masked(ids, masks, any)[:limit]),
            "one mask is not enough",
        ),
        (
            lambda ids, masks, limit: (ids[:limit], _masked(ids, masks[:1])[:limit]),
            "where every mask says 1",
        ),
        (_check_before_cut, "look after the cut"),
        (_labels_not_cut, "cut both"),
        (lambda ids, masks, limit: (ids, _masked(ids, masks)), "max_length is"),
        (
            lambda ids, masks, limit: (
                ids[:limit],
                (masks[0] if masks else [1] * len(ids))[:limit],
            ),
            "mask bits",
        ),
        (lambda ids, masks, limit: (ids[:limit], _masked(ids, masks)[:limit]), "return None"),
        (lambda ids, masks, limit: _masked(ids, masks)[:limit], "return two things, input_ids"),
    ],
    "7.4": [
        (lambda old: _modernise(old, trainer=(*OF_THE_TRAINER[:-1],)), "it belongs to SFTTrainer"),
        (
            lambda old: _modernise(old, renames=_without("max_seq_length")),
            "takes no max_seq_length",
        ),
        (lambda old: _modernise(old, renames=_without("warmup_ratio")), "takes no warmup_ratio"),
        (
            lambda old: _modernise(old, renames=_without("evaluation_strategy")),
            "takes no evaluation_strategy",
        ),
        (
            lambda old: _modernise(old, renames=_without("gradient_checkpointing")),
            "say activation_checkpointing",
        ),
        (lambda old: _modernise(old, group=False), "train_sampling_strategy is a word"),
        (lambda old: _modernise(old, gone=()), "takes no overwrite_output_dir"),
        (
            lambda old: _modernise(old, trainer=(*OF_THE_TRAINER, "packing")),
            "it belongs to SFTConfig",
        ),
        (
            lambda old: _modernise(old, gone=("overwrite_output_dir", "logging_dir", "packing")),
            "packing is missing",
        ),
        (_modernise_in_place, "changed `old` in place"),
        (lambda old: _modernise(old)[0], "return two things, the keywords"),
    ],
    "7.5": [
        (_far, "nan compares as False"),
        (_only_last, "look at every step"),
        (lambda a, b, limit=2e-6: _close(a, b, limit, size=float), "take abs"),
        (
            lambda a, b, limit=2e-6: "same" if a == b else "start" if a[0] != b[0] else "drift",
            "rounding must pass",
        ),
        (lambda a, b, limit=2e-6: _close(a, b), "the limit that is given was not used"),
        (
            lambda a, b, limit=2e-6: _close(a, b, limit) == "same",
            'return one of "same", "start", "drift"',
        ),
        (
            lambda a, b, limit=2e-6: "drift" if len(a) != len(b) else _close(a, b, limit),
            "the steps that both runs",
        ),
        (
            lambda a, b, limit=2e-6: "same" if _close(a, b, limit) == "same" else "drift",
            "the first loss decides first",
        ),
    ],
}
