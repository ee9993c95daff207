"""Checks of chapter 07, the same run in TRL and PEFT."""

import contextlib
import inspect
import io
import math
import numbers
import random
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    need_list,
    need_word,
    random_ids,
    same,
    same_for_all,
    same_in_all,
    shorten,
    unpack,
)
from sft_lab.examples import IGNORE_INDEX


@checks("7.1")
def config_like_ours(attempt: Callable) -> str:
    from trl import SFTConfig  # seconds to import: only for this check and 7.4

    checked = 0
    for batch, windows, share in ((3, 4, 0.05), (5, 2, 0.2)):
        rate = random.uniform(1e-5, 1e-3)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the config, about this machine
            config = attempt(folder, rate, batch, windows, share)
            if not isinstance(config, SFTConfig):
                raise Mistake(f"this is a {type(config).__name__}: return an SFTConfig")
            same(config.output_dir, folder, what="output_dir")
        wanted = _fields_of_the_run(rate, batch, windows, share)
        for name, (values, mistake) in wanted.items():
            found = getattr(config, name)
            found = getattr(found, "value", found)  # what an enumeration stands for
            if not any(_same_setting(found, value) for value in values):
                raise Mistake(f"{mistake}; {name} is {found!r}, expected {values[0]!r}")
        if config.max_length is not None and config.max_length < SFTConfig.max_length:
            raise Mistake(f"rows are cut to {config.max_length} tokens: sft_lab.train cuts none")
        checked = len(wanted) + 2
    return f"{checked} fields agree with sft_lab.train"


def _same_setting(found: Any, value: Any) -> bool:
    if isinstance(value, float) and isinstance(found, float | int):
        return math.isclose(found, value)
    return found == value


def _fields_of_the_run(
    rate: float, batch: int, windows: int, share: float
) -> dict[str, tuple[list[Any], str]]:
    """Every field that changes what is learned: its right values, and what another one means."""
    half = "half precision is on: TRL's default is bf16, and only bf16=False gives float32"
    adam = "sft_lab.train leaves AdamW's own defaults"
    named = {
        "bf16": ([False], half),
        "fp16": ([False, None], half),
        "tf32": ([None, False], "tf32 shortens the products of float32"),
        "learning_rate": ([rate], "the learning rate is not the given one"),
        "num_train_epochs": ([1], "num_train_epochs defaults to 3, sft_lab.train to 1"),
        "max_steps": ([-1], "the run ends with its epoch, not after a number of steps"),
        "per_device_train_batch_size": ([batch], "these are the examples of one forward pass"),
        "gradient_accumulation_steps": ([windows], "accumulation_steps has a field of its own"),
        "lr_scheduler_type": (["cosine"], "the schedule is not a plain cosine"),
        "lr_scheduler_kwargs": ([None, {}, {"num_cycles": 0.5}], "this is another cosine"),
        "warmup_steps": ([share], "warmup_steps takes the share of the steps, a number below 1"),
        "train_sampling_strategy": (["sequential"], "without 'sequential' rows are reordered"),
        "assistant_only_loss": (
            [True],
            "the questions are graded too: rows of messages need assistant_only_loss=True",
        ),
        "weight_decay": ([0.0], "sft_lab.train has no weight decay"),
        "max_grad_norm": ([1.0], "sft_lab.train clips the gradient at 1"),
        "packing": ([False], "packing puts other examples into a step"),
        "optim": (["adamw_torch_fused", "adamw_torch"], "sft_lab.train uses AdamW"),
        "loss_type": (["nll", "chunked_nll"], "sft_lab.train learns from the plain loss"),
        "adam_beta1": ([0.9], adam),
        "adam_beta2": ([0.999], adam),
        "adam_epsilon": ([1e-8], adam),
        "label_smoothing_factor": ([0.0], "sft_lab.train does not smooth labels"),
        "neftune_noise_alpha": ([None, 0], "sft_lab.train adds no noise"),
        "dataloader_drop_last": ([False], "the last, smaller batch is trained on as well"),
        "shuffle_dataset": ([False], "the rows come in the right order already"),
        "auto_find_batch_size": ([False], "the batch size is given"),
        "chat_template_path": ([None], "another template teaches another text"),
        "optim_args": ([None], adam),
        "optim_target_modules": ([None], "sft_lab.train trains all weights"),
    }
    from trl import SFTConfig

    return {name: setting for name, setting in named.items() if hasattr(SFTConfig, name)}


DROPPED = "None (the row is dropped)"


@checks("7.3", may_return_none=True)
def build_labels(attempt: Callable) -> str:
    def labelled(rule: Callable = all, *, ids_cut: bool = True, cut: bool = True) -> Callable:
        def answer(input_ids, masks, max_length):
            labels = [
                token if rule([mask[place] for mask in masks]) else IGNORE_INDEX
                for place, token in enumerate(input_ids)
            ]
            ids = input_ids[:max_length] if ids_cut else input_ids
            return ids, labels[:max_length] if cut else labels

        return answer

    def bits(rule: Callable) -> Callable:
        def answer(*given):
            ids, labels = labelled(rule)(*given)
            return ids, [int(label != IGNORE_INDEX) for label in labels]

        return answer

    def is_graded(ids, masks):
        return set(labelled()(ids, masks, None)[1]) > {IGNORE_INDEX}

    def first(column):
        return all(column[:1])

    one = "a token is graded where every mask says 1; one mask is not enough"
    mask_bits = "these are mask bits; a graded token's label is its id"
    mistakes = [
        (labelled(any), one),
        (labelled(first), one),
        (labelled(lambda column: all(column[-1:])), one),
        (labelled(lambda column: bool(column) and all(column)), "without a mask, all is graded"),
        (labelled(ids_cut=False), "the labels are cut and the ids are not: cut both"),
        (labelled(cut=False), "the ids are cut and the labels are not: cut both"),
        (labelled(cut=False, ids_cut=False), "the row was not cut to max_length"),
        (bits(all), mask_bits),
        (bits(first), mask_bits),
    ]
    graded, empty = _masked_rows()
    settings = {"form": _ids_and_labels, "what": "ids and labels"}
    same_for_all(attempt, graded, labelled(), mistakes, **settings)
    mistakes = [
        (labelled(), "a row without a graded token must give None: it is to be dropped"),
        (
            lambda ids, masks, limit: (
                labelled()(ids, masks, limit) if is_graded(ids, masks) else DROPPED
            ),
            "look for graded tokens after the cut, not before",
        ),
    ]
    same_for_all(attempt, empty, lambda *given: DROPPED, mistakes, **settings)
    return "the masks' logical and, cut, and None where nothing is left to grade"


def _masked_rows() -> tuple[list[tuple], list[tuple]]:
    """Rows of which something is graded (no mask, one, two and three; cut, cut exactly; token 0
    alone), and rows of which nothing is (cut away, masked)."""
    size = random.randint(14, 18)
    ids = random_ids(size)
    ids[9] = 0
    completion = [int(place >= 5) for place in range(size)]
    assistant = [int(4 <= place < 12 and place != 8) for place in range(size)]
    other = [int(place % 3 != 1) for place in range(size)]
    alone = [int(place == 9) for place in range(size)]
    graded = [
        (ids, [completion], None),
        (ids, [completion, assistant], None),
        (ids, [assistant, completion, other], None),
        (ids, [], None),
        (ids, [], 6),
        (ids, [completion, assistant], 9),
        (ids, [completion], size),
        (ids, [completion], size + 3),
        (ids, [completion, alone], 10),
    ]
    empty = [
        (ids, [completion], 5),
        (ids, [[0] * size], None),
        (ids, [completion, [0] * size], None),
        (ids, [completion], 0),
    ]
    return graded, empty


def _ids_and_labels(found: Any) -> Any:
    """Both lists, when they hold whole numbers; or the word for a dropped row."""
    if found is None:
        return DROPPED
    names = ("input_ids", "labels")
    return tuple(
        need_list(part, numbers.Integral, f"token ids as {name}")
        for name, part in zip(names, unpack(found, *names), strict=True)
    )


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
            _compare_keywords(home, part, right, fields[home])
    return "four old calls fit the installed SFTConfig and SFTTrainer, with their values"


def _compare_keywords(home: str, found: dict, wanted: dict, fields: Any) -> None:
    """Raise Mistake where a keyword has another value. What is the default anyway may be left out,
    or said."""
    for name in {**wanted, **found}:
        default = fields[name].default
        value, right = found.get(name, default), wanted.get(name, default)
        if value is right or (type(value) is type(right) and value == right):
            continue
        if name not in found:
            raise Mistake(f"{name} is missing from the keywords of {home}")
        if name not in wanted:
            raise Mistake(f"{name} was not asked for by the old call")
        raise Mistake(f"{name} is {shorten(value)}, expected {shorten(right)}")


def _old_calls() -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """The keywords of an old SFTTrainer, and those of today's SFTConfig and SFTTrainer."""
    model, tokenizer, rows, folder = object(), object(), object(), f"run-{random.randint(0, 999)}"
    length, share = random.randint(64, 900), random.choice([0.03, 0.1])
    calls = []

    settings = {"packing": True, "output_dir": folder, "learning_rate": 1e-4, "seed": 0}
    trainer = {"model": model, "train_dataset": rows}
    old = {"tokenizer": tokenizer, "max_seq_length": length, "warmup_ratio": share}
    old |= {"overwrite_output_dir": True, **settings, **trainer}
    config = {"max_length": length, "warmup_steps": share, **settings}
    calls.append((old, config, {"processing_class": tokenizer, **trainer}))

    settings = {"dataset_text_field": "story", "bf16": False}
    trainer = {"model": model, "train_dataset": rows, "eval_dataset": object()}
    trainer |= {"peft_config": object()}
    old = {"tokenizer": tokenizer, "evaluation_strategy": "epoch", "group_by_length": True}
    old |= {"no_cuda": True, "gradient_checkpointing": False, "logging_dir": "logs"}
    old |= settings | trainer
    config = {"eval_strategy": "epoch", "train_sampling_strategy": "group_by_length"}
    config |= {"use_cpu": True, "activation_checkpointing": False, **settings}
    calls.append((old, config, {"processing_class": tokenizer, **trainer}))

    for grouped in (False, True):
        settings, trainer = {"output_dir": folder}, {"model": model, "train_dataset": rows}
        old = {"group_by_length": grouped, "no_cuda": False, "max_seq_length": None}
        old |= {**settings, **trainer}
        sampling = "group_by_length" if grouped else "random"
        config = {"train_sampling_strategy": sampling, "use_cpu": False, **settings}
        config["max_length"] = None  # cut nothing, which is not the default
        calls.append((old, config, trainer))
    return calls


@checks("7.5")
def verdict(attempt: Callable) -> str:
    cases = []
    for name, reference, losses, limit in _pairs_of_logs():
        found = need_word(attempt(reference, losses, *limit), "same", "start", "drift")
        given = (reference, losses, *(limit or (1e-5,)))
        hints = [([wrong(*given)], mistake) for wrong, mistake in _misjudgements()]
        cases.append(Case([found], [_judge(_far)(*given)], hints, name))
    same_in_all(cases, what="the verdict")
    return "tells rounding from another start and from drift, nan included"


def _far(a: float, b: float, limit: float) -> bool:
    return not abs(a - b) <= limit


def _judge(far: Callable, *, steps: slice = slice(None), first: str = "start") -> Callable:
    """The verdict when `far` says which pairs are apart and only some of the steps count."""

    def answer(reference: list[float], losses: list[float], limit: float) -> str:
        pairs = list(zip(reference, losses, strict=False))
        if far(*pairs[0], limit):
            return first
        return "drift" if any(far(*pair, limit) for pair in pairs[steps]) else "same"

    return answer


def _misjudgements() -> list[tuple[Callable, str]]:
    def of_equal_length(reference, losses, limit):
        right = _judge(_far)(reference, losses, limit)
        return right if len(reference) == len(losses) else "drift"

    def equal_lists(reference, losses, limit):
        if reference[0] != losses[0]:
            return "start"
        return "same" if reference == losses else "drift"

    equality = "rounding must pass: compare with the limit, not for equality"
    signed = "take abs of the difference"
    relative = "this is the relative difference: a difference in nats is asked"
    return [
        (
            _judge(lambda a, b, limit: abs(a - b) > limit),
            "nan compares as False with everything: ask whether a pair is close",
        ),
        (
            _judge(lambda a, b, limit: not b - a <= limit),
            f"a loss that is too low passes: {signed}",
        ),
        (_judge(lambda a, b, limit: not a - b <= limit), f"one that is too high passes: {signed}"),
        (_judge(lambda a, b, limit: a != b), equality),
        (equal_lists, equality),
        (_judge(lambda a, b, limit: _far(a, b, limit * abs(a))), relative),
        (_judge(lambda a, b, limit: _far(a, b, limit * max(abs(a), abs(b)))), relative),
        (
            _judge(lambda a, b, limit: _far(a, b, limit + 1e-5 * abs(b))),
            "isclose adds a part of the loss to the limit: say that the relative tolerance is 0",
        ),
        (
            _judge(lambda a, b, limit: not abs(a - b) < limit),
            "a difference that equals the limit stays within it",
        ),
        (_judge(lambda a, b, limit: _far(a, b, 1e-5)), "the limit that is given was not used"),
        (_judge(_far, steps=slice(-1, None)), "look at every step, not only at the last"),
        (_judge(_far, first="drift"), "a first loss that is off is another start"),
        (of_equal_length, "compare the steps that both runs have"),
    ]


def _pairs_of_logs() -> list[tuple[str, list[float], list[float], tuple[float, ...]]]:
    """What the pair shows, the two logs, and the limit where one is given."""
    reference = [3.0 - 0.1 * step + random.uniform(0, 0.01) for step in range(12)]
    near = [loss + random.choice([-1, 1]) * 8e-7 for loss in reference]
    small = [loss / 60 for loss in reference]
    late = random.randint(3, 8)

    def moved(log: list[float], by: dict[int, float]) -> list[float]:
        return [loss + by.get(step, 0.0) for step, loss in enumerate(log)]

    holed = moved(reference, {late: math.nan})
    return [
        ("two runs within rounding", reference, near, ()),
        ("the first four steps of the same run", reference, near[:4], ()),
        ("a reference of four steps", reference[:4], near, ()),
        ("a step that is too high", reference, moved(near, {late: 0.02}), ()),
        ("a step that is too low", reference, moved(near, {late: -0.02}), ()),
        ("a step too high and one too low", reference, moved(near, {2: -0.02, late: 0.02}), ()),
        ("a run off from the start, too high", reference, [x + 0.5 for x in near], ()),
        ("a run off from the start, too low", reference, [x - 0.5 for x in near], ()),
        ("only the first step off", reference, moved(near, {0: -0.1}), ()),
        ("a first loss that is nan", reference, moved(near, {0: math.nan}), ()),
        ("a nan in the middle", reference, moved(near, {late: math.nan}), ()),
        ("a nan in the middle of the reference", holed, near, ()),
        ("a nan at the same step of both", holed, moved(near, {late: math.nan}), ()),
        ("a nan in two equal lists", holed, [*holed], ()),  # == asks first whether it is one object
        ("1.3e-5 off at one step", reference, moved(reference, {late: 1.3e-5}), ()),
        ("1.3e-5 off at the first step", reference, moved(reference, {0: -1.3e-5}), ()),
        ("exactly as far off as the limit", [2.5, 2.25, 2.0], [2.25, 2.5, 2.0], (0.25,)),
        ("a last step that is off", reference, moved(near, {11: 1e-3}), ()),
        ("0.01 off, limit 0.1", reference, [x + 0.01 for x in reference], (0.1,)),
        ("one step 0.02 off, limit 0.01", reference, moved(reference, {late: 0.02}), (0.01,)),
        ("losses below 0.05, 0.005 off, limit 0.01", small, [x + 0.005 for x in small], (0.01,)),
    ]


@checks("7.6")
def mended(attempt: dict) -> str:
    from trl import SFTConfig

    from sft_lab.course import same_run  # seconds to import, as above
    from sft_lab.models import load

    _need_one_keyword_each(attempt, same_run.FAULTS, SFTConfig)
    with contextlib.redirect_stdout(io.StringIO()):  # it says which model it loads
        base, tokenizer = load("atlas-base")
    seed, steps = random.randint(10, 99), same_run.SHOWN_STEPS
    rows = same_run.short_rows_of(seed, same_run.FAULTY_ROWS, tokenizer)
    ours = same_run.plain_losses(base, tokenizer, rows, steps)
    for name, fault in same_run.FAULTS.items():
        ((keyword, value),) = attempt[name].items()
        found = same_run.faulty_run(name, base, tokenizer, rows, attempt[name]).losses
        apart = [abs(a - b) for a, b in zip(found, ours, strict=False)]
        if len(apart) == steps and max(apart) <= 1e-5:
            continue
        step = next((i + 1 for i, gap in enumerate(apart) if not gap <= 1e-5), len(apart) + 1)
        also = "; it is the fault, with another value" if keyword in fault else ""
        raise Mistake(
            f"{name} is another run with {keyword}={value!r}, from step {step} on: "
            f"{_where_to_look(fault, keyword, value)}{also}"
        )
    return "five keywords mended: five times our losses, on rows that were drawn now"


def _need_one_keyword_each(attempt: Any, names: Any, config: type) -> None:
    """Raise Mistake unless the answer has one keyword of the config for every name."""
    if not isinstance(attempt, dict):
        raise Mistake(f"mended is a dict of five runs, not {shorten(attempt)}")
    if set(attempt) != set(names):
        raise Mistake(f"mended has {sorted(map(str, attempt))}, the runs are {sorted(names)}")
    known = inspect.signature(config).parameters
    for name, blamed in attempt.items():
        if not isinstance(blamed, dict):
            raise Mistake(f'{name}: a dict such as {{"weight_decay": 0.0}}, not {shorten(blamed)}')
        if len(blamed) != 1:
            raise Mistake(f"{name} blames {len(blamed)} keywords: exactly one is wrong")
        for keyword in blamed:
            if keyword not in known or keyword == "output_dir":
                raise Mistake(f"{name}: {keyword} is no keyword of SFTConfig that changes a run")


def _where_to_look(fault: dict, keyword: str, value: Any) -> str:
    """The evidence that the reader should read again, by the kind of fault."""
    from sft_lab.course.same_run import SAME

    same = SAME | {"assistant_only_loss": True}
    if keyword in same and same[keyword] == value and keyword not in fault:
        return "that keyword had our value already"
    evidence = {
        "lr_scheduler_type": "compare its learning rates with ours",
        "assistant_only_loss": "read which text it grades",
        "train_sampling_strategy": "all that is graded and all rates are ours: what else can a "
        "first loss depend on?",
        "bf16": "its first loss is off by some thousandths before any update: as many digits as a "
        "number format keeps",
        "max_length": "count its rows and graded tokens, and read where its text ends",
    }
    return evidence[next(iter(fault))]
