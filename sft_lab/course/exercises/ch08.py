"""Checks of chapter 08, Qwen on a GPU."""

import math
import random
from collections.abc import Callable

import torch

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_dtype,
    need_whole,
    same,
    unpack,
)


@checks("8.1")
def unscale(attempt: Callable) -> str:
    scale = float(2 ** random.randint(13, 17))
    # what float16 can hold only while it is scaled, and a tensor of ordinary size
    small = (3e-8 + 1e-8 * torch.rand(5).double()) * 2**12 / scale
    true = [small, (1e-4 + 1e-3 * torch.rand(3, 2).double()) * 2**12 / scale]
    scaled = [part.mul(scale).half() for part in true]
    gradients, after = unpack(attempt(scaled, scale), "the gradients (or None)", "the next scale")
    if gradients is None:
        raise Mistake("these gradients are finite: the step must not be left out")
    for found, expected, given in zip(gradients, true, scaled, strict=True):
        vanish = "divide in float32: in float16 the small gradients vanish again"
        need_dtype(found, torch.float32, "a gradient", vanish)
        if (found == 0).any():
            raise Mistake("small gradients became 0: convert to float32 first, divide after that")
        twice = "multiplied by the scale: the loss was multiplied, so divide the gradients"
        hints = [
            (given.double(), "the scale is still in the gradients: divide by it"),
            (given.double() * scale, twice),
        ]
        same(found, expected, hints, what="a gradient", rtol=2e-3, atol=0)
    same(after, scale, what="the scale after a finite step")

    shrink = "after an overflow the scale must shrink, or the next step overflows as well"
    hints = [(scale, shrink), (2 * scale, "the scale was too large: halve it")]
    for bad in (math.inf, -math.inf, math.nan):
        for number in range(len(scaled)):
            broken = [part.clone() for part in scaled]
            broken[number].view(-1)[-1] = bad
            gradients, after = attempt(broken, scale)
            if gradients is not None:
                raise Mistake(
                    f"a gradient holds {bad} in tensor {number}: return None, the update must be "
                    "left out"
                )
            same(after, scale / 2, hints, what="the scale after an overflow")
    return "float32 gradients of the true size; at inf or nan no step, and half the scale"


@checks("8.2")
def static_bytes(attempt: Callable) -> str:
    frozen, trained = random.randint(400, 9_000) * 1_000_003, random.randint(5, 90) * 1_000_033
    three_of_four = "a part of the trained numbers is missing: weight, gradient, and two averages"
    hints = [
        (2 * frozen + 12 * trained, three_of_four),
        (2 * frozen + 8 * trained, "these are two of the four numbers that a trained weight needs"),
        (
            2 * frozen + (2 + 12) * trained,
            "trained weights are held in float32, the frozen are not",
        ),
        (2 * frozen + (2 + 8) * trained, "gradient and averages are float32 too: 4 bytes each"),
        (4 * frozen + 16 * trained, "frozen weights are held in half precision: 2 bytes each"),
        (6 * frozen + 16 * trained, "a frozen weight has no gradient"),
        (16 * (frozen + trained), "frozen weights have no gradient and no averages"),
        (16 * trained, "the frozen weights are missing: they fill the card as well"),
    ]
    same(attempt(frozen, trained), 2 * frozen + 16 * trained, hints, what="the number of bytes")
    same(attempt(0, trained), 16 * trained, what="full tuning of a model (nothing frozen)")
    return "2 bytes a frozen weight, 16 a trained one; the same for LoRA and for full tuning"


@checks("8.3")
def rows_that_fit(attempt: Callable) -> str:
    for _ in range(6):
        # in these ranges every mistake changes the number of rows
        a_row, rows = random.uniform(0.3, 1.5), random.randint(12, 30)
        fixed, reserve = a_row * random.uniform(6, 12), a_row * random.uniform(2.2, 3.8)
        card = fixed + a_row * (rows + random.uniform(0.2, 0.8)) + reserve
        peak_1 = fixed + a_row
        all_grows = (
            "weights and averages do not grow with the rows: only the difference of peaks does"
        )
        hints = [
            (card // peak_1, all_grows),
            ((card - reserve) // peak_1, all_grows),
            ((card - fixed) // a_row, "the reserve was not taken off the card"),
            (rows + 1, "rounded up: a row that fits only in part does not fit"),
            ((card - reserve) // a_row, "what every step needs, without any row, is missing"),
            (rows - 1, "the first row is counted in the fixed part: peak_1 holds one row already"),
        ]
        found = attempt(peak_1, peak_1 + a_row, card, reserve)
        found = need_whole(found, "the number of rows, rounded down,", low=0)
        same(found, rows, hints, what="the number of rows")
    what = "the number of rows of a model that does not fit at all"
    same(need_whole(attempt(20.0, 21.0, 16.0, 1.0), what, low=0), 0, what=what)
    return "the largest number of rows whose predicted peak fits, and 0 where none does"


@checks("8.4")
def best_interval(attempt: Callable) -> str:
    for _ in range(12):
        layers, handed = random.randint(20, 90), random.uniform(1.0, 3.0)
        kept = handed * random.choice([random.uniform(1.5, 4.0), random.uniform(6.0, 40.0)])
        interval = need_whole(attempt(layers, kept, handed), "an interval", low=1, high=layers)
        peaks = {k: math.ceil(layers / k) * handed + k * kept for k in range(1, layers + 1)}
        excess = peaks[interval] / min(peaks.values())
        if excess > 1 + 1e-9:  # two intervals may be equally good
            raise Mistake(
                f"{layers} layers, {kept / handed:.1f} times as much kept as handed on: interval "
                f"{interval} takes {excess:.2f} times the least; {_name_interval(interval, layers)}"
            )
    return "the least memory for random layers, kept and handed bytes"


def _name_interval(interval: int, layers: int) -> str:
    if interval in (round(math.sqrt(layers)), int(math.sqrt(layers))):
        return "√L is right only where a layer keeps as much as it hands on: weigh the two"
    if interval == 1:
        return "1 keeps every layer's input; sometimes fewer inputs and more recomputing are less"
    if interval == layers:
        return "one interval of all layers recomputes everything at once: then all of it is kept"
    return "try every interval and take the least"


@checks("8.5")
def training_operations(attempt: Callable) -> str:
    layers, width = random.randint(4, 30), random.choice([1024, 2048, 4096])
    length = random.choice([512, 1024, 4096])
    weights, lora = random.randint(200, 900) * 10**6, random.randint(2, 30) * 10**6
    scores = 2 * length * width * layers  # causal: half of the row on average, q kᵀ and values
    for trained, backward in ((0, 2), (lora, 1)):
        linear, added = 2 * weights * (1 + backward), 6 * trained
        expected = linear + added + 3 * scores
        everywhere = 6 * weights + added + 3 * scores
        no_own = 4 * weights + added + 3 * scores
        one_pass = linear + added + scores
        hints = [
            (everywhere, "frozen weights need no gradient of their own: 4 a weight, not 6"),
            (no_own, "with nothing frozen every weight has a gradient of its own: 6 a weight"),
            (linear + added, "attention is missing: q kᵀ and the mean of the values"),
            (expected + 3 * scores, "causal: a token looks at half of the row on average"),
            (one_pass, "attention has a backward pass too, twice its forward"),
            (linear + 3 * scores, "LoRA's own products are missing: 6 operations a number"),
            (2 * weights + 2 * trained + scores, "this is the forward pass alone"),
            (expected / 2, "a multiplication and an addition are two operations"),
        ]
        found = attempt(weights, trained, layers, width, length)
        same(found, float(expected), hints, rtol=1e-6, what="the operations a token")
    return "6 a weight in full tuning, 4 a frozen one beside LoRA, and three times causal attention"
