"""Checks of chapter 08, Qwen on a GPU."""

import math
import operator
import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import torch

from sft_lab.cards import ALLOWANCE, GIB, card_gib
from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    named,
    need_dtype,
    need_list,
    need_whole,
    need_word,
    same_for_all,
    same_in_all,
    shorten,
    unpack,
)
from sft_lab.memory import HEADS, METHODS, PARTS, predict_memory
from sft_lab.shapes import named_config

# Exercise 8.6: what was asked for, and the words a plan may use
PLAN_MODEL, PLAN_CARD, PLAN_ROWS, PLAN_LENGTH = "Qwen3-4B", "T4", 16, 2048
FORMATS = ("float32", "bfloat16", "float16")
PLAN_KEYS = (
    "method",
    "rows",
    "accumulation",
    "length",
    "checkpointing",
    "scores",
    "format",
    "loss_scaling",
)


def need_int(found: object, what: str, *, low: int, high: float = math.inf) -> int:
    """The answer as an int, when it is one from low to high; 3.0 is a float."""
    whole = need_whole(found, what, low=low, high=high)
    with named(TypeError, f"{what} is the float {found}: return an int"):
        operator.index(found)
    return whole


@checks("8.1")
def unscale(attempt: Callable) -> str:
    for power in random.sample(range(11, 16), 2):
        scale = float(2**power)
        # what float16 can hold only while it is scaled; numbers of both signs; and numbers that
        # are finite while their sum and their length are not
        small = (3e-8 + 1e-8 * torch.rand(5)) * 2**12
        usual = torch.tensor([[-3.0, 1.5], [2.0, -0.5]]) * random.uniform(0.5, 2.0)
        large = torch.tensor([65_504.0, 64_000.0, -500.0])  # 65,504 is the largest of float16
        _finite_step(attempt, [part.half() for part in (small, usual, large, -large)], scale)
    for scale in (float(2 ** random.randint(11, 14)), 1.0):
        _overflow(attempt, scale)
    return "float32 gradients of the true size; at inf or nan no step, and half the scale"


def _finite_step(attempt: Callable, scaled: list[torch.Tensor], scale: float) -> None:
    found = unpack(attempt(scaled, scale), "the gradients (or None)", "the next scale")
    if found[0] is None:
        raise Mistake("these gradients are finite: the step must not be left out")
    gradients = need_list(found[0], torch.Tensor, "gradients, one tensor each")
    if len(gradients) != len(scaled):
        raise Mistake(f"{len(scaled)} gradients went in, {len(gradients)} came out")
    cases = []
    for number, (gradient, given) in enumerate(zip(gradients, scaled, strict=True)):
        vanish = "divide in float32: in float16 the small gradients vanish again"
        need_dtype(gradient, torch.float32, "a gradient", vanish)
        hints = [
            (
                (given / scale).float(),
                "small gradients became 0: convert to float32 first, divide after that",
            ),
            (given.float(), "the scale is still in the gradients: divide by it"),
            (
                given.float() * scale,
                "multiplied by the scale: the loss was multiplied, so divide the gradients",
            ),
        ]
        cases.append(Case(gradient, given.double() / scale, hints, f"gradient {number}"))
    same_in_all(cases, what="a gradient", rtol=1e-6, atol=0.0)
    hints = [
        (2 * scale, "a finite step keeps its scale"),
        (scale / 2, "this step did not overflow"),
    ]
    same_in_all([Case(found[1], scale, hints)], what="the scale after a finite step")


def _overflow(attempt: Callable, scale: float) -> None:
    scales = []
    for bad in (math.inf, -math.inf, math.nan):
        for number in range(3):
            broken = [torch.randn(2, 3).half(), torch.randn(4).half(), torch.randn(3).half()]
            broken[number].view(-1)[random.choice((0, -1))] = bad
            gradients, after = unpack(attempt(broken, scale), "None", "the next scale")
            if gradients is not None:
                raise Mistake(
                    f"a gradient holds {bad} in tensor {number}: return None, the update must be "
                    "left out"
                )
            hints = [
                (scale, "after an overflow the scale must shrink, or the next one overflows too"),
                (2 * scale, "the scale was too large: halve it"),
            ]
            scales.append(Case(after, scale / 2, hints, f"scale = {scale}"))
    same_in_all(scales, what="the scale after an overflow")


@checks("8.3")
def rows_that_fit(attempt: Callable) -> str:
    def right(peak_1, peak_2, card, reserve):
        one, two, size, free = map(Fraction, (peak_1, peak_2, card, reserve))
        return max(0, math.floor((size - free - one) / (two - one)) + 1)

    all_grows = "weights and averages do not grow with the rows: only the difference of peaks does"
    mistakes = [
        (lambda one, two, card, reserve: int(card // one), all_grows),
        (lambda one, two, card, reserve: int((card - reserve) // one), all_grows),
        (
            lambda one, two, card, reserve: right(one, two, card, 0.0),
            "the reserve was not taken off the card",
        ),
        (
            lambda one, two, card, reserve: max(
                0, math.ceil((card - reserve - one) / (two - one)) + 1
            ),
            "rounded up: a row that fits only in part does not fit",
        ),
        (
            lambda one, two, card, reserve: int((card - reserve) // (two - one)),
            "what every step needs, without any row, is missing",
        ),
        (
            lambda *sizes: max(0, right(*sizes) - 1),
            "the first row is counted in the fixed part: peak_1 holds one row already",
        ),
    ]
    what = "the number of rows, rounded down,"

    def form(found):
        return need_int(found, what, low=0)

    same_for_all(attempt, _cards(), right, mistakes, form=form, what=what)
    return "the largest number of rows whose predicted peak fits, and 0 where none does"


def _cards() -> list[tuple[float, float, float, float]]:
    """peak_1, peak_2, card and reserve: a part of a row left over, hardly one and nearly one; no
    part at all (in eighths, which floats hold exactly); hundreds of rows; one row; and none."""
    cards = []
    for left_over in (0.25, 0.75, random.uniform(0.2, 0.8)):
        a_row, rows = random.uniform(0.3, 1.5), random.randint(12, 30)
        fixed, reserve = a_row * random.uniform(6, 12), a_row * random.uniform(2.2, 3.8)
        card = fixed + a_row * (rows + left_over) + reserve
        cards.append((fixed + a_row, fixed + 2 * a_row, card, reserve))
    rows = random.randint(5, 11)
    return [
        *cards,
        (5.125, 6.25, 4.0 + 1.125 * rows + 1.5, 1.5),
        (2.0 + 1 / 64, 2.0 + 2 / 64, 16.0 + 1 / 128, 3.0),
        (14.5, 16.25, 16.0, 1.0),
        (15.5, 16.5, 16.0, 1.0),
        (20.0, 21.0, 16.0, 1.0),
    ]


@checks("8.6")
def fit_plan(attempt: object) -> str:
    plan = _read_plan(attempt)
    faults = _what_was_thrown_away(plan) + _what_does_not_fit(plan)
    if faults:
        raise Mistake("; ".join(faults))
    need = sum(_plan_gib(plan).values())
    return (
        f"{need:.1f} of {card_gib(PLAN_CARD):.1f} GiB, the allowance included, with "
        f"{PLAN_ROWS} rows an update and every row whole"
    )


def _read_plan(attempt: object) -> dict:
    """The plan, when it has the eight keys and a value of the right kind for each."""
    if not isinstance(attempt, dict):
        raise Mistake(f"a plan is a dict with eight keys, not {shorten(attempt)}")
    missing = [key for key in PLAN_KEYS if key not in attempt]
    unknown = [key for key in attempt if key not in PLAN_KEYS]
    if missing or unknown:
        raise Mistake(
            f"a plan has the keys {', '.join(PLAN_KEYS)}; missing: {missing}, unknown: {unknown}"
        )
    for key, words in (("method", METHODS), ("scores", HEADS), ("format", FORMATS)):
        need_word(attempt[key], *words)
    for key in ("rows", "accumulation", "length"):
        if isinstance(attempt[key], bool):
            raise Mistake(f"`{key}` is an int, not {attempt[key]}")
        need_int(attempt[key], f"`{key}`", low=1)
    for key in ("checkpointing", "loss_scaling"):
        if not isinstance(attempt[key], bool):
            raise Mistake(f"`{key}` is True or False, not {shorten(attempt[key])}")
    return attempt


def _what_was_thrown_away(plan: dict) -> list[str]:
    """What the plan gives up, although it was asked for, in words."""
    faults, update = [], plan["rows"] * plan["accumulation"]
    if update != PLAN_ROWS:
        faults.append(
            f"{plan['rows']} × {plan['accumulation']} = {update} rows an update, asked for "
            f"{PLAN_ROWS}: accumulate over the rows that you take away"
        )
    if plan["length"] < PLAN_LENGTH:
        faults.append(f"rows cut to {plan['length']:,} tokens lose their answers: keep 2,048")
    if plan["length"] > PLAN_LENGTH:
        faults.append(f"no row has {plan['length']:,} tokens: 2,048 are enough")
    if plan["format"] == "bfloat16":
        faults.append("a T4 (capability 7.5) has no bfloat16 in hardware, and emulates it slowly")
    if plan["format"] == "float32":
        faults.append("float32 products: 16 bits were asked for")
    if plan["format"] == "float16" and not plan["loss_scaling"]:
        faults.append("float16 without loss scaling: gradients below 6e-8 become 0")
    if plan["format"] != "float16" and plan["loss_scaling"]:
        faults.append(f"loss scaling is for float16, {plan['format']} has the range it needs")
    if plan["method"] == "qlora":
        faults.append("4-bit weights are a price that need not be paid: LoRA can be made to fit")
    return faults


def _what_does_not_fit(plan: dict) -> list[str]:
    """How much is missing on the card and which part is most of it; nothing where it fits."""
    parts, has = _plan_gib(plan), card_gib(PLAN_CARD)
    need = sum(parts.values())
    if need <= has:
        return []
    largest = max(PARTS, key=parts.__getitem__)
    return [
        f"it does not fit: {need:.1f} GiB with the allowance, {need - has:.1f} more than the "
        f"{PLAN_CARD} has; most of it {largest}, {parts[largest]:.1f} GiB"
    ]


def _plan_gib(plan: dict) -> dict[str, float]:
    """GiB of each part at the peak, and the allowance."""
    parts = predict_memory(
        named_config(PLAN_MODEL),
        method=plan["method"],
        batch_size=plan["rows"],
        length=plan["length"],
        half=plan["format"] != "float32",
        checkpointing=plan["checkpointing"],
        head=plan["scores"],
        graded=0.5,
    )
    return {part: parts[part] / GIB for part in PARTS} | {"allowance": ALLOWANCE}


@checks("8.7")
def peak_parts(attempt: Callable) -> str:
    mistakes = [
        (
            _own_maxima,
            "each part at its own maximum: the parts are not largest at the same moment",
        ),
        (_at_the_end, "this is what is held at the end, not at the peak"),
        (
            lambda events: _at_the_peak([(part, size) for part, size in events if size > 0]),
            "what is freed must leave the sum",
        ),
        (
            lambda events: _at_the_peak(events, last=True),
            "two moments are equal: the first one was asked for",
        ),
        (
            lambda events: {part: size for part, size in _at_the_peak(events).items() if size},
            "a part that holds nothing at the peak stands in the result with 0",
        ),
        (
            lambda events: sum(_at_the_peak(events).values()),
            "this is the sum: return the bytes of each part",
        ),
    ]
    inputs = [(events,) for events in _memory_events()]
    what = "the bytes of each part at the peak"
    same_for_all(attempt, inputs, _at_the_peak, mistakes, form=_read_parts, what=what)
    return "the parts at the first highest moment, for random steps"


def _read_parts(found: object) -> object:
    """The answer with plain ints where it is a mapping of whole numbers."""
    if not isinstance(found, dict):
        return found
    return {part: need_int(size, f"the bytes of {part!r}", low=0) for part, size in found.items()}


def _at_the_peak(events: list[tuple[str, int]], *, last: bool = False) -> dict[str, int]:
    held = {part: 0 for part, _ in events}
    best = dict(held)
    for part, size in events:
        held[part] += size
        total, highest = sum(held.values()), sum(best.values())
        if total > highest or (last and total == highest):
            best = dict(held)
    return best


def _own_maxima(events: list[tuple[str, int]]) -> dict[str, int]:
    held, highest = Counter(), Counter()
    for part, size in events:
        held[part] += size
        highest[part] = max(highest[part], held[part])
    return {part: highest[part] for part, _ in events}


def _at_the_end(events: list[tuple[str, int]]) -> dict[str, int]:
    held = Counter()
    for part, size in events:
        held[part] += size
    return {part: held[part] for part, _ in events}


def _memory_events() -> list[list[tuple[str, int]]]:
    """Steps like real ones: activations grow and are freed while gradients grow; one with two equal
    peaks; one in which a part comes after the peak; one event alone; all freed at the end; ones in
    which a share of a part is freed before the peak, the last event; sums one byte apart."""
    steps = []
    for _ in range(3):
        weights, layers = random.randint(20, 90), random.randint(3, 6)
        kept = [random.randint(5, 30) for _ in range(layers)]
        forward = [("activations", size) for size in kept]
        logits = random.randint(10, 60)
        backward = []
        for size in reversed(kept):
            backward += [("gradients", random.randint(1, 4)), ("activations", -size)]
        steps.append(
            [
                ("weights", weights),
                ("optimizer", 2 * weights),
                *forward,
                ("logits", logits),
                ("logits", -logits),
                *backward,
            ]
        )
    same = random.randint(5, 9)
    tie = [("weights", 10), ("logits", same), ("logits", -same), ("gradients", same)]
    freed = [("weights", 7), ("weights", -7), ("gradients", 3), ("gradients", -3)]
    for _ in range(3):
        climb = [("weights", random.randint(20, 90))]
        for _ in range(random.randint(2, 4)):
            kept = random.randint(5, 30)
            climb += [("activations", kept), ("activations", -random.randint(1, kept - 1))]
        steps.append([*climb, ("logits", random.randint(40, 60))])
    gib = random.randint(15, 60) * GIB
    close = [("weights", gib), ("logits", 8), ("logits", -8), ("gradients", 9), ("gradients", -1)]
    return [*steps, tie, freed, close, [("weights", random.randint(1, 99))]]
