"""Checks of chapter 07, the same run in TRL and PEFT."""

import inspect
import math
import random
import tempfile
import warnings

from sft_lab.course.checks import Mistake, checks, same

IGNORE = -100


@checks("7.1")
def _config_like_ours(attempt):
    from trl import SFTConfig  # seconds to import: only for this check and 7.4

    rate, share = random.uniform(1e-5, 1e-3), random.choice([0.05, 0.1, 0.2])
    batch, windows = random.choice([3, 5, 6]), random.choice([2, 4])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = attempt(folder, rate, batch, windows, share)
        if not isinstance(config, SFTConfig):
            raise Mistake(f"this is a {type(config).__name__}: return an SFTConfig")
        same(config.output_dir, folder, what="output_dir")
    half = "half precision is on: TRL's default is bf16, and only bf16=False gives float32"
    wanted = {
        "bf16": (False, half),
        "fp16": (False, half),
        "learning_rate": (rate, "the learning rate is not the given one (TRL's default is 2e-5)"),
        "num_train_epochs": (1, "num_train_epochs defaults to 3, sft_lab.train to 1"),
        "per_device_train_batch_size": (
            batch,
            "batch_size counts the examples of one forward pass",
        ),
        "gradient_accumulation_steps": (
            windows,
            "accumulation_steps is missing: it has a field of its own",
        ),
        "lr_scheduler_type": ("cosine", "the schedule is not a cosine: TRL's default is linear"),
        "warmup_steps": (share, "warmup_steps takes the share of the steps, a number below 1"),
        "train_sampling_strategy": (
            "sequential",
            "the rows come in order: without 'sequential' they are shuffled",
        ),
        "assistant_only_loss": (
            True,
            "the questions are graded too: rows of messages need assistant_only_loss=True",
        ),
        "weight_decay": (0.0, "sft_lab.train has no weight decay"),
        "max_grad_norm": (1.0, "sft_lab.train clips the gradient at 1"),
        "packing": (False, "packing puts other examples into a step"),
    }
    for name, (value, mistake) in wanted.items():
        found = getattr(config, name)
        found = getattr(found, "value", found)
        equal = math.isclose(found, value) if isinstance(value, float) else found == value
        if not equal:
            raise Mistake(f"{mistake}; {name} is {found!r}")
    return "thirteen fields agree with sft_lab.train"


def _conversation(rounds: int, system: bool) -> list[dict[str, str]]:
    turns = [{"role": "system", "content": f"S{random.random()}"}] if system else []
    for number in range(rounds):
        turns.append({"role": "user", "content": f"Q{number} {random.random()}"})
        turns.append({"role": "assistant", "content": f"A{number} {random.random()}"})
    return turns


@checks("7.2")
def _to_prompt_completion(attempt):
    for rounds, system, open_end in ((1, False, False), (3, True, False), (2, False, True)):
        messages = _conversation(rounds, system)
        if open_end:
            messages.append({"role": "user", "content": "and then?"})
        kept = [dict(turn) for turn in messages]
        rows = attempt(messages)
        if messages != kept:
            raise Mistake("your function changed the conversation: slice it instead")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Mistake("return a list of rows, each a dict with prompt and completion")
        if len(rows) != rounds:
            hint = ": only the last answer" if len(rows) == 1 else ""
            raise Mistake(
                f"{rounds} answers, but {len(rows)} rows{hint}; one row for each assistant turn"
            )
        places = [place for place, turn in enumerate(messages) if turn["role"] == "assistant"]
        for row, place in zip(rows, places, strict=True):
            if set(row) != {"prompt", "completion"}:
                raise Mistake(f"a row has the keys {sorted(row)}; TRL wants prompt and completion")
            if isinstance(row["completion"], (dict, str)):
                raise Mistake("the completion is a list of turns, even for one answer: [answer]")
            if row["prompt"] == messages[: place + 1]:
                raise Mistake(
                    "the prompt holds the answer itself: end it before the assistant turn"
                )
            if rounds > 1 and all(len(row["prompt"]) == 1 for row in rows):
                raise Mistake(
                    "the prompt is only the last question: all turns before the answer belong to it"
                )
            if system and row["prompt"] == messages[1:place]:
                raise Mistake("the system turn is lost: it belongs to the prompt")
            same(row["prompt"], messages[:place], what="the prompt")
            same(row["completion"], [messages[place]], what="the completion")
    return "one row an answer, everything before it as the prompt; an open question makes no row"


@checks("7.3")
def _build_labels(attempt):
    size = random.randint(14, 20)
    ids = random.sample(range(10, 999), size)
    completion = [int(place >= 5) for place in range(size)]
    assistant = [int(7 <= place < 12) for place in range(size)]
    cases = {
        "one mask": ([completion], None),
        "two masks": ([completion, assistant], None),
        "no mask": ([], None),
        "a row that is cut": ([completion, assistant], 9),
        "a row cut exactly": ([completion], size),
    }
    for what, (masks, limit) in cases.items():
        labels = [
            token if all(mask[i] for mask in masks) else IGNORE for i, token in enumerate(ids)
        ]
        either = [
            token if any(mask[i] for mask in masks) else IGNORE for i, token in enumerate(ids)
        ]
        found = attempt(list(ids), [list(mask) for mask in masks], limit)
        if found is None:
            raise Mistake(f"{what}: this row has graded tokens, but you dropped it")
        if not (isinstance(found, (tuple, list)) and len(found) == 2):
            raise Mistake("return two lists, input_ids and labels")
        got_ids, got_labels = list(found[0]), list(found[1])
        if len(got_ids) != len(got_labels):
            raise Mistake(
                f"{what}: {len(got_ids)} input_ids but {len(got_labels)} labels: cut both"
            )
        if limit is not None and len(got_ids) > limit:
            raise Mistake(f"{what}: {len(got_ids)} tokens, max_length is {limit}")
        if got_labels == either[:limit] and got_labels != labels[:limit]:
            raise Mistake(
                f"{what}: a token is graded where every mask says 1; one mask is not enough"
            )
        if got_labels == [mask_bit for mask_bit in (masks[0] if masks else [1] * size)][:limit]:
            raise Mistake(f"{what}: these are mask bits; a graded token's label is its id")
        same(got_ids, ids[:limit], what=f"{what}: input_ids")
        same(got_labels, labels[:limit], what=f"{what}: labels")
    if _drops(attempt, ids, completion, 5) is not None:
        raise Mistake(
            "cut to 5 tokens nothing is graded any more: return None (look after the cut, not "
            "before)"
        )
    if _drops(attempt, ids, [0] * size, None) is not None:
        raise Mistake("a row without a graded token must give None")
    return "the masks' logical and, cut, and None where nothing is left to grade"


def _drops(attempt, ids, mask, limit):
    """None is a right answer here, which the check otherwise takes for a forgotten return."""
    try:
        return inspect.unwrap(attempt)(list(ids), [list(mask)], limit)
    except Mistake:
        return None


@checks("7.4")
def _modernise(attempt):
    from trl import SFTConfig, SFTTrainer

    model, tokenizer, rows, folder = object(), object(), object(), f"run-{random.randint(0, 999)}"
    length, share, grouped = (
        random.randint(64, 900),
        random.choice([0.03, 0.1]),
        random.random() < 0.5,
    )
    olds = [
        {
            "model": model,
            "tokenizer": tokenizer,
            "train_dataset": rows,
            "max_seq_length": length,
            "packing": True,
            "output_dir": folder,
            "learning_rate": 1e-4,
            "warmup_ratio": share,
            "overwrite_output_dir": True,
        },
        {
            "model": model,
            "tokenizer": tokenizer,
            "train_dataset": rows,
            "eval_dataset": rows,
            "peft_config": None,
            "evaluation_strategy": "epoch",
            "group_by_length": True,
            "no_cuda": True,
            "gradient_checkpointing": False,
            "logging_dir": "logs",
            "dataset_text_field": "text",
        },
        {"model": model, "train_dataset": rows, "group_by_length": grouped, "output_dir": folder},
    ]
    news = [
        (
            {
                "max_length": length,
                "packing": True,
                "output_dir": folder,
                "learning_rate": 1e-4,
                "warmup_steps": share,
            },
            {"model": model, "processing_class": tokenizer, "train_dataset": rows},
        ),
        (
            {
                "eval_strategy": "epoch",
                "train_sampling_strategy": "group_by_length",
                "use_cpu": True,
                "activation_checkpointing": False,
                "dataset_text_field": "text",
            },
            {
                "model": model,
                "processing_class": tokenizer,
                "train_dataset": rows,
                "eval_dataset": rows,
                "peft_config": None,
            },
        ),
        (
            {
                "train_sampling_strategy": "group_by_length" if grouped else "random",
                "output_dir": folder,
            },
            {"model": model, "train_dataset": rows},
        ),
    ]
    for old, (config, trainer) in zip(olds, news, strict=True):
        kept = dict(old)
        found = attempt(old)
        if not (
            isinstance(found, (tuple, list))
            and len(found) == 2
            and all(isinstance(part, dict) for part in found)
        ):
            raise Mistake("return two dicts: the keywords of SFTConfig, and those of SFTTrainer")
        if old != kept:
            raise Mistake("your function changed the dict it was given: build new ones")
        parts = ((SFTConfig, found[0], config), (SFTTrainer, found[1], trainer))
        for kind, part, _ in parts:
            known = inspect.signature(kind).parameters
            for name in part:
                if name not in known:
                    where = "SFTTrainer" if kind is SFTConfig else "SFTConfig"
                    other = inspect.signature(
                        SFTTrainer if kind is SFTConfig else SFTConfig
                    ).parameters
                    moved = f"; it belongs to {where}" if name in other else ""
                    raise Mistake(f"{kind.__name__} takes no {name}{moved}")
        if found[0].get("train_sampling_strategy") in (True, False):
            raise Mistake(
                "train_sampling_strategy is a word: 'group_by_length' for True, 'random' for False"
            )
        if "gradient_checkpointing" in found[0]:
            raise Mistake(
                "gradient_checkpointing still works and warns: say activation_checkpointing"
            )
        for kind, part, want in parts:
            for name, value in want.items():
                if name not in part:
                    raise Mistake(f"{name} is missing from the keywords of {kind.__name__}")
                if part[name] is not value and part[name] != value:
                    raise Mistake(f"{name} is {part[name]!r}, expected {value!r}")
            if extra := sorted(set(part) - set(want)):
                raise Mistake(f"{extra[0]} was not asked for by the old call")
    return "three old calls fit the installed SFTConfig and SFTTrainer, with their values"


@checks("7.5")
def _verdict(attempt):
    reference = [3.0 - 0.1 * step + random.uniform(0, 0.01) for step in range(12)]
    near = [loss + random.choice([-1, 1]) * 8e-7 for loss in reference]
    late = random.randint(3, 8)

    def moved(step: int, by: float) -> list[float]:
        return [loss + by if place == step else loss for place, loss in enumerate(near)]

    cases = [
        (
            "two runs within rounding",
            near,
            "same",
            "rounding must pass: compare with the limit, not for equality",
        ),
        (
            "the first four steps of the same run",
            near[:4],
            "same",
            "compare the steps that both runs have",
        ),
        (
            "a difference in the middle that vanishes again",
            moved(late, 0.02),
            "drift",
            "look at every step, not only at the last",
        ),
        (
            "a loss that is too low",
            moved(late, -0.02),
            "drift",
            "a difference has a size: take abs",
        ),
        (
            "a first loss that is off",
            [loss + 0.5 for loss in reference],
            "start",
            "the first loss decides first",
        ),
        (
            "a first loss that is nan",
            [math.nan, *near[1:]],
            "start",
            "nan compares as False with everything: ask whether a pair is close",
        ),
        (
            "a nan in the middle",
            moved(late, math.nan),
            "drift",
            "nan compares as False with everything: ask whether a pair is close",
        ),
        (
            "a last step that is off",
            moved(11, 1e-3),
            "drift",
            "every step counts, the last one too",
        ),
    ]
    for what, losses, want, mistake in cases:
        found = attempt(list(reference), list(losses))
        if found not in ("same", "start", "drift"):
            raise Mistake(f'return "same", "start" or "drift", not {found!r}')
        if found != want:
            raise Mistake(f'{what}: you say "{found}", it is "{want}"; {mistake}')
    if attempt(list(reference), [loss + 0.01 for loss in reference], 0.1) != "same":
        raise Mistake("the limit that is given was not used")
    return "tells rounding from another start and from drift, nan included"
