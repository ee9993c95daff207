"""Checks of chapter 07, the same run in TRL and PEFT."""

import inspect
import math
import random
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    name_mistake,
    need_list,
    need_word,
    random_conversation,
    random_ids,
    same,
    shorten,
    unpack,
)
from sft_lab.examples import IGNORE_INDEX


@checks("7.1")
def config_like_ours(attempt: Callable) -> str:
    from trl import SFTConfig  # seconds to import: only for this check and 7.4

    rate, share = random.uniform(1e-5, 1e-3), random.choice([0.05, 0.1, 0.2])
    batch, windows = random.choice([3, 5, 6]), random.choice([2, 4])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the config, about this machine
        config = attempt(folder, rate, batch, windows, share)
        if not isinstance(config, SFTConfig):
            raise Mistake(f"this is a {type(config).__name__}: return an SFTConfig")
        same(config.output_dir, folder, what="output_dir")
    half = "half precision is on: TRL's default is bf16, and only bf16=False gives float32"
    questions = "the questions are graded too: rows of messages need assistant_only_loss=True"
    wanted = {
        "bf16": (False, half),
        "fp16": (False, half),
        "learning_rate": (rate, "the learning rate is not the given one (TRL's default is 2e-5)"),
        "num_train_epochs": (1, "num_train_epochs defaults to 3, sft_lab.train to 1"),
        "per_device_train_batch_size": (batch, "these are the examples of one forward pass"),
        "gradient_accumulation_steps": (windows, "accumulation_steps has a field of its own"),
        "lr_scheduler_type": ("cosine", "the schedule is not a cosine: TRL's default is linear"),
        "warmup_steps": (share, "warmup_steps takes the share of the steps, a number below 1"),
        "train_sampling_strategy": ("sequential", "without 'sequential' the rows are shuffled"),
        "assistant_only_loss": (True, questions),
        "weight_decay": (0.0, "sft_lab.train has no weight decay"),
        "max_grad_norm": (1.0, "sft_lab.train clips the gradient at 1"),
        "packing": (False, "packing puts other examples into a step"),
    }
    for name, (value, mistake) in wanted.items():
        found = getattr(config, name)
        found = getattr(found, "value", found)  # what an enumeration stands for
        equal = math.isclose(found, value) if isinstance(value, float) else found == value
        if not equal:
            raise Mistake(f"{mistake}; {name} is {found!r}")
    return "thirteen fields agree with sft_lab.train"


@checks("7.2")
def to_prompt_completion(attempt: Callable) -> str:
    for rounds, system, open_end in ((1, False, False), (3, True, False), (2, False, True)):
        messages = random_conversation(rounds, system=system)
        messages += [{"role": "user", "content": "and then?"}] * open_end
        places = [place for place, turn in enumerate(messages) if turn["role"] == "assistant"]
        rows = need_list(attempt(messages), dict, "rows, each a dict with prompt and completion")
        if len(rows) != rounds:
            hint = ": only the last answer" if len(rows) == 1 else ""
            raise Mistake(
                f"{rounds} answers, but {len(rows)} rows{hint}; one row for each assistant turn"
            )
        for row in rows:
            if set(row) != {"prompt", "completion"}:
                raise Mistake(f"a row has the keys {sorted(row)}; TRL wants prompt and completion")
            if isinstance(row["completion"], dict | str):
                raise Mistake("the completion is a list of turns, even for one answer: [answer]")
        prompts = [messages[:place] for place in places]
        with_answers = [messages[: place + 1] for place in places]
        questions = [messages[place - 1 : place] for place in places]
        without_system = [prompt[system:] for prompt in prompts]
        last = "the prompt is only the last question: all turns before the answer belong to it"
        hints = [
            (with_answers, "the prompt holds the answer itself: end it before the assistant turn"),
            (questions, last),
            (without_system, "the system turn is lost: it belongs to the prompt"),
        ]
        name_mistake([row["prompt"] for row in rows], prompts, hints)
        for row, place in zip(rows, places, strict=True):
            same(row["prompt"], messages[:place], what="the prompt")
            same(row["completion"], [messages[place]], what="the completion")
    return "one row an answer, everything before it as the prompt; an open question makes no row"


@checks("7.3", may_return_none=True)
def build_labels(attempt: Callable) -> str:
    size = random.randint(14, 20)
    ids = random_ids(size)
    completion = [int(place >= 5) for place in range(size)]
    assistant = [int(7 <= place < 12) for place in range(size)]
    cases = {
        "one mask": ([completion], None),
        "two masks": ([completion, assistant], None),
        "no mask": ([], None),
        "a row that is cut": ([completion, assistant], 9),
        "a row cut exactly": ([completion], size),
    }
    for case, (masks, limit) in cases.items():
        found = attempt(ids, masks, limit)
        if found is None:
            raise Mistake(f"{case}: this row has graded tokens, but you dropped it")
        found_ids, labels = unpack(found, "input_ids", "labels")
        if len(found_ids) != len(labels):
            raise Mistake(f"{case}: {len(found_ids)} input_ids, {len(labels)} labels: cut both")
        if limit is not None and len(labels) > limit:
            raise Mistake(f"{case}: {len(labels)} tokens, max_length is {limit}")
        same(found_ids, ids[:limit], what=f"{case}: input_ids")
        first = masks[0] if masks else [1] * size
        one = "a token is graded where every mask says 1; one mask is not enough"
        hints = [
            (_mask(ids, masks, any)[:limit], f"{case}: {one}"),
            (_mask(ids, [first], all)[:limit], f"{case}: {one}"),
            (first[:limit], f"{case}: these are mask bits; a graded token's label is its id"),
        ]
        same(labels, _mask(ids, masks, all)[:limit], hints, what=f"{case}: labels")
    if attempt(ids, [completion], 5) is not None:
        raise Mistake(
            "cut to 5 tokens nothing is graded any more: return None (look after the cut, not "
            "before)"
        )
    if attempt(ids, [[0] * size], None) is not None:
        raise Mistake("a row without a graded token must give None")
    return "the masks' logical and, cut, and None where nothing is left to grade"


def _mask(ids: list[int], masks: list[list[int]], quantifier: Callable) -> list[int]:
    """The ids where all (or any) of the masks are 1."""
    return [
        token_id if quantifier(mask[place] for mask in masks) else IGNORE_INDEX
        for place, token_id in enumerate(ids)
    ]


@checks("7.4")
def modernise(attempt: Callable) -> str:
    from trl import SFTConfig, SFTTrainer

    homes = {"SFTConfig": SFTConfig, "SFTTrainer": SFTTrainer}
    fields = {name: inspect.signature(home).parameters for name, home in homes.items()}
    for old, *wanted in _old_calls():
        found = unpack(attempt(old), "the keywords of SFTConfig", "those of SFTTrainer")
        config, trainer = need_list(found, dict, "two dicts")
        for home, part in zip(fields, (config, trainer), strict=True):
            other = "SFTTrainer" if home == "SFTConfig" else "SFTConfig"
            for name in part:
                if name not in fields[home]:
                    moved = f"; it belongs to {other}" if name in fields[other] else ""
                    raise Mistake(f"{home} takes no {name}{moved}")
        if config.get("train_sampling_strategy") in (True, False):
            raise Mistake(
                "train_sampling_strategy is a word: 'group_by_length' for True, 'random' for False"
            )
        if "gradient_checkpointing" in config:
            raise Mistake(
                "gradient_checkpointing still works and warns: say activation_checkpointing"
            )
        for home, part, right in zip(fields, (config, trainer), wanted, strict=True):
            _compare_keywords(home, part, right)
    return "three old calls fit the installed SFTConfig and SFTTrainer, with their values"


def _compare_keywords(home: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if name not in found:
            raise Mistake(f"{name} is missing from the keywords of {home}")
        if found[name] is not value and found[name] != value:
            raise Mistake(f"{name} is {shorten(found[name])}, expected {shorten(value)}")
    if extra := sorted(set(found) - set(wanted)):
        raise Mistake(f"{extra[0]} was not asked for by the old call")


def _old_calls() -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """The keywords of an old SFTTrainer, and those of today's SFTConfig and SFTTrainer."""
    model, tokenizer, rows, folder = object(), object(), object(), f"run-{random.randint(0, 999)}"
    length, share = random.randint(64, 900), random.choice([0.03, 0.1])
    grouped = random.random() < 0.5
    calls = []

    settings = {"packing": True, "output_dir": folder, "learning_rate": 1e-4}
    trainer = {"model": model, "train_dataset": rows}
    old = {"tokenizer": tokenizer, "max_seq_length": length, "warmup_ratio": share}
    old |= {"overwrite_output_dir": True, **settings, **trainer}
    config = {"max_length": length, "warmup_steps": share, **settings}
    calls.append((old, config, {"processing_class": tokenizer, **trainer}))

    settings = {"dataset_text_field": "text"}
    trainer = {"model": model, "train_dataset": rows, "eval_dataset": rows, "peft_config": None}
    old = {"tokenizer": tokenizer, "evaluation_strategy": "epoch", "group_by_length": True}
    old |= {"no_cuda": True, "gradient_checkpointing": False, "logging_dir": "logs"}
    old |= settings | trainer
    config = {"eval_strategy": "epoch", "train_sampling_strategy": "group_by_length"}
    config |= {"use_cpu": True, "activation_checkpointing": False, **settings}
    calls.append((old, config, {"processing_class": tokenizer, **trainer}))

    settings, trainer = {"output_dir": folder}, {"model": model, "train_dataset": rows}
    old = {"group_by_length": grouped, **settings, **trainer}
    sampling = "group_by_length" if grouped else "random"
    calls.append((old, {"train_sampling_strategy": sampling, **settings}, trainer))
    return calls


@checks("7.5")
def verdict(attempt: Callable) -> str:
    reference = [3.0 - 0.1 * step + random.uniform(0, 0.01) for step in range(12)]
    near = [loss + random.choice([-1, 1]) * 8e-7 for loss in reference]
    late = random.randint(3, 8)

    def moved(step: int, by: float) -> list[float]:
        return [loss + by if place == step else loss for place, loss in enumerate(near)]

    first = "the first loss decides first"
    both = "compare the steps that both runs have"
    rounding = "rounding must pass: compare with the limit, not for equality"
    not_a_number = "nan compares as False with everything: ask whether a pair is close"
    vanishes = "a difference in the middle that vanishes again"
    cases = [
        ("two runs within rounding", near, "same", rounding),
        ("the first four steps of the same run", near[:4], "same", both),
        (vanishes, moved(late, 0.02), "drift", "look at every step, not only at the last"),
        ("a loss that is too low", moved(late, -0.02), "drift", "take abs of the difference"),
        ("a run off from the start", [loss + 0.5 for loss in near], "start", first),
        ("a first loss that is nan", moved(0, math.nan), "start", not_a_number),
        ("a nan in the middle", moved(late, math.nan), "drift", not_a_number),
        ("a last step that is off", moved(11, 1e-3), "drift", "every step counts, the last too"),
    ]
    for case, losses, expected, mistake in cases:
        found = need_word(attempt(reference, losses), "same", "start", "drift")
        if found != expected:
            raise Mistake(f'{case}: you say "{found}", it is "{expected}"; {mistake}')
    if attempt(reference, [loss + 0.01 for loss in reference], 0.1) != "same":
        raise Mistake("the limit that is given was not used")
    return "tells rounding from another start and from drift, nan included"
