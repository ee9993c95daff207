"""Wrong answers to the exercises of chapter 07, each with the words that must name its mistake."""

import warnings
from functools import partial

IGNORE = -100
RENAMES = {
    "max_seq_length": "max_length",
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",
    "no_cuda": "use_cpu",
    "gradient_checkpointing": "activation_checkpointing",
    "tokenizer": "processing_class",
}
GONE = ("overwrite_output_dir", "logging_dir")
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
        kept = {name: value for name, value in fields.items() if name not in leave_out}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SFTConfig(**kept)

    return answer


def _as_training_arguments(folder, learning_rate, batch_size, accumulation_steps, warmup_ratio):
    from transformers import TrainingArguments

    return TrainingArguments(output_dir=folder, learning_rate=learning_rate, use_cpu=True)


def _masked(ids, masks, quantifier=all):
    return [
        token if quantifier(mask[i] for mask in masks) else IGNORE for i, token in enumerate(ids)
    ]


def _labels(form):
    return lambda ids, masks, limit: (ids[:limit], form(ids, masks)[:limit])


def _check_before_cut(ids, masks, limit):
    labels = _masked(ids, masks)
    return None if set(labels) == {IGNORE} else (ids[:limit], labels[:limit])


def _labels_not_cut(ids, masks, limit):
    return ids[:limit], _masked(ids, masks)


def _modernise(old, *, renames=RENAMES, gone=GONE, trainer=OF_THE_TRAINER, group=True):
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


def _keeps(name):
    renames = {old: new for old, new in RENAMES.items() if old != name}
    return partial(_modernise, renames=renames)


def _modernise_in_place(old):
    for name, new in RENAMES.items():
        if name in old:
            old[new] = old.pop(name)
    return _modernise(old)


def _far(reference, losses, limit=1e-5):
    far = [abs(a - b) > limit for a, b in zip(reference, losses, strict=False)]
    return "start" if far[0] else "drift" if any(far) else "same"


def _only_last(reference, losses, limit=1e-5):
    pairs = list(zip(reference, losses, strict=False))
    if not abs(pairs[0][0] - pairs[0][1]) <= limit:
        return "start"
    return "same" if abs(pairs[-1][0] - pairs[-1][1]) <= limit else "drift"


def _close(reference, losses, limit=1e-5, size=abs):
    close = [size(b - a) <= limit for a, b in zip(reference, losses, strict=False)]
    return "start" if not close[0] else "same" if all(close) else "drift"


def _equal(reference, losses, limit=1e-5):
    if reference[0] != losses[0]:
        return "start"
    return "same" if reference == losses else "drift"


def _same_lengths(reference, losses, limit=1e-5):
    return _close(reference, losses, limit) if len(reference) == len(losses) else "drift"


def _never_start(reference, losses, limit=1e-5):
    return "same" if _close(reference, losses, limit) == "same" else "drift"


MENDED = {
    "A": {"lr_scheduler_type": "cosine"},
    "B": {"assistant_only_loss": True},
    "C": {"train_sampling_strategy": "sequential"},
    "D": {"bf16": False},
    "E": {"max_length": None},
}

WRONG_ANSWERS = {
    "7.1": [
        (_config("bf16"), "half precision is on"),
        (_config("num_train_epochs"), "num_train_epochs defaults to 3"),
        (_config("assistant_only_loss"), "the questions are graded too"),
        (_config("lr_scheduler_type"), "the schedule is not a plain cosine"),
        (_config("gradient_accumulation_steps"), "has a field of its own"),
        (_config("train_sampling_strategy"), "rows are reordered"),
        (_config("warmup_steps"), "the share of the steps"),
        (_config("learning_rate"), "not the given one"),
        (_config(per_device_train_batch_size=1), "examples of one forward pass"),
        (_config(packing=True, max_length=64), "packing puts other examples"),
        (_config(weight_decay=0.01), "no weight decay"),
        (_as_training_arguments, "return an SFTConfig"),
        (lambda folder, rate, batch, steps, share: dict(learning_rate=rate), "return an SFTConfig"),
    ],
    "7.3": [
        (_labels(lambda ids, masks: _masked(ids, masks, any)), "one mask is not enough"),
        (_labels(lambda ids, masks: _masked(ids, masks[:1])), "where every mask says 1"),
        (_check_before_cut, "after the cut, not before"),
        (_labels_not_cut, "cut both"),
        (lambda ids, masks, limit: (ids, _masked(ids, masks)), "was not cut to max_length"),
        (_labels(lambda ids, masks: masks[0] if masks else [1] * len(ids)), "mask bits"),
        (_labels(_masked), "must give None"),
        (lambda ids, masks, limit: _masked(ids, masks)[:limit], "return two things, input_ids"),
    ],
    "7.4": [
        (partial(_modernise, trainer=OF_THE_TRAINER[:-1]), "it belongs to SFTTrainer"),
        (partial(_modernise, trainer=(*OF_THE_TRAINER, "packing")), "it belongs to SFTConfig"),
        (_keeps("max_seq_length"), "takes no max_seq_length"),
        (_keeps("warmup_ratio"), "takes no warmup_ratio"),
        (_keeps("evaluation_strategy"), "takes no evaluation_strategy"),
        (_keeps("gradient_checkpointing"), "say activation_checkpointing"),
        (partial(_modernise, group=False), "train_sampling_strategy is a word"),
        (partial(_modernise, gone=()), "takes no overwrite_output_dir"),
        (partial(_modernise, gone=(*GONE, "packing")), "packing is missing"),
        (_modernise_in_place, "changed `old` in place"),
        (lambda old: _modernise(old)[0], "return two things, the keywords"),
    ],
    "7.5": [
        (_far, "nan compares as False"),
        (_only_last, "look at every step"),
        (partial(_close, size=float), "take abs"),
        (_equal, "rounding must pass"),
        (lambda a, b, limit=1e-5: _close(a, b), "the limit that is given was not used"),
        (lambda *x: _close(*x) == "same", 'return one of "same", "start", "drift"'),
        (_same_lengths, "the steps that both runs"),
        (_never_start, "is another start"),
    ],
    "7.6": [
        (MENDED | {"A": {"warmup_steps": 0.1}}, "had our value already"),
        (MENDED | {"A": {"learning_rate": 7e-5}}, "compare its learning rates"),
        (MENDED | {"B": {"completion_only_loss": True}}, "read which text it grades"),
        (MENDED | {"C": {"bf16": False}}, "had our value already"),
        (MENDED | {"C": {"shuffle_dataset": True}}, "what else can a first loss depend on"),
        (MENDED | {"D": {"fp16": False}}, "as many digits as a number format keeps"),
        (MENDED | {"E": {"max_length": 26}}, "the fault, with another value"),
        (MENDED | {"E": {"max_length": None, "bf16": False}}, "exactly one is wrong"),
        (MENDED | {"D": "bf16"}, "a dict such as"),
        ({"A": {"lr_scheduler_type": "cosine"}}, "the runs are"),
        (MENDED | {"A": {"learning_rate_schedule": "cosine"}}, "no keyword of SFTConfig"),
    ],
}
