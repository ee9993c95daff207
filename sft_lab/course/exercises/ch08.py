"""Checks of chapter 08, Qwen on a GPU."""

import math
import random

import torch

from sft_lab.course.checks import Mistake, checks, same


@checks("8.2")
def _static_bytes(attempt):
    frozen, trained = random.randint(400, 9_000) * 1_000_003, random.randint(5, 90) * 1_000_033
    expected = 2 * frozen + 16 * trained
    hints = {
        2 * frozen
        + 12
        * trained: "a part of the trained numbers is missing: weight, gradient, and two averages",
        2 * frozen
        + 8 * trained: "these are only two of the four numbers that a trained weight needs",
        4 * frozen + 16 * trained: "frozen weights are held in half precision: 2 bytes each",
        6 * frozen + 16 * trained: "a frozen weight has no gradient",
        16 * (frozen + trained): "frozen weights have no gradient and no averages",
        2 * frozen
        + 2 * trained
        + 12 * trained: "trained weights are held in float32, whatever the frozen ones are",
        2 * frozen
        + 8 * trained
        + 2 * trained: "gradient and averages are float32 too: 4 bytes each",
        16 * trained: "the frozen weights are missing: they fill the card as well",
    }
    same(attempt(frozen, trained), expected, hints=hints, what="the number of bytes", rtol=1e-9)
    same(
        attempt(0, trained), 16 * trained, what="full tuning of a model (nothing frozen)", rtol=1e-9
    )
    return "2 bytes a frozen weight, 16 a trained one; the same for LoRA and for full tuning"


@checks("8.3")
def _rows_that_fit(attempt):
    for _ in range(6):
        a_row, rows = (
            random.uniform(0.3, 1.5),
            random.randint(12, 30),
        )  # ranges in which no two mistakes agree
        fixed, reserve = a_row * random.uniform(6, 12), a_row * random.uniform(2.2, 3.8)
        card = fixed + a_row * (rows + random.uniform(0.2, 0.8)) + reserve
        one, two = fixed + a_row, fixed + 2 * a_row
        found = attempt(one, two, card, reserve)
        if isinstance(found, float) and not found.is_integer():
            raise Mistake("rows are whole: round down")
        hints = {
            int(
                card // one
            ): "weights and averages do not grow with the rows: only the difference of the "
            "peaks does",
            int(
                (card - reserve) // one
            ): "weights and averages do not grow with the rows: only the difference of the "
            "peaks does",
            math.floor((card - fixed) / a_row): "the reserve was not taken off the card",
            rows + 1: "rounded up: a row that fits only in part does not fit",
            int(
                (card - reserve) // a_row
            ): "the part that every step needs, without any row, is missing",
            math.floor(
                (card - reserve - one) / a_row
            ): "the first row is counted in the fixed part: peak_1 holds one row already",
        }
        same(
            int(found),
            rows,
            hints={key: text for key, text in hints.items() if key != rows},
            what="the rows",
        )
    found = attempt(20.0, 21.0, 16.0, 1.0)
    if found < 0:
        raise Mistake("a model that does not fit at all takes 0 rows, not a negative number")
    same(int(found), 0, what="the rows of a model that does not fit")
    return "the largest number of rows whose predicted peak fits, and 0 where none does"


@checks("8.1")
def _unscale(attempt):
    scale = float(2 ** random.randint(13, 17))
    true = [
        torch.rand(5, dtype=torch.float64) * 1e-8 + 3e-8,
        torch.rand(3, 2, dtype=torch.float64) * 1e-3 + 1e-4,
    ]
    true = [part * 2**12 / scale for part in true]
    scaled = [(part * scale).half() for part in true]
    kept = [part.clone() for part in scaled]
    found = attempt(scaled, scale)
    if not (isinstance(found, (tuple, list)) and len(found) == 2):
        raise Mistake("return two things: the gradients (or None) and the scale for the next step")
    gradients, after = found
    if gradients is None:
        raise Mistake("these gradients are finite: the step must not be left out")
    if not all(torch.equal(now, before) for now, before in zip(scaled, kept, strict=True)):
        raise Mistake("the gradients that were given changed: return new tensors")
    if any(part.dtype != torch.float32 for part in gradients):
        raise Mistake(
            "divide in float32: in float16 the small gradients vanish again (this is what the "
            "error says)"
        )
    for part, want, given in zip(gradients, true, scaled, strict=True):
        if (part == 0).any():
            raise Mistake("small gradients became 0: convert to float32 first, divide after that")
        hints = {
            given.float(): "the scale is still in the gradients: divide by it",
            given.float()
            * scale: "multiplied by the scale: the loss was multiplied, so divide the gradients",
        }
        same(part.double(), want, what="a gradient", rtol=2e-3, atol=0, hints=hints)
    same(float(after), scale, what="the scale after a finite step")
    for bad in (math.inf, -math.inf, math.nan):
        for place in (0, 1):
            broken = [part.clone() for part in scaled]
            broken[place].view(-1)[-1] = bad
            found = attempt(broken, scale)
            if found[0] is not None:
                raise Mistake(
                    f"a gradient holds {bad} in tensor {place}: return None, the update must be "
                    "left out"
                )
            same(
                float(found[1]),
                scale / 2,
                what="the scale after an overflow",
                hints={
                    scale: "after an overflow the scale must shrink, or the next step "
                    "overflows as well",
                    scale * 2: "the scale was too large: halve it",
                },
            )
    return (
        "float32 gradients of the true size, and a step left out with half the scale at inf or nan"
    )


@checks("8.5")
def _training_operations(attempt):
    layers, width, length = (
        random.randint(4, 30),
        random.choice([1024, 2048, 4096]),
        random.choice([512, 1024, 4096]),
    )
    weights, lora = random.randint(200, 900) * 10**6, random.randint(2, 30) * 10**6
    scores = 2 * length * width * layers
    for trained, backward in ((0, 2), (lora, 1)):
        expected = 2 * weights * (1 + backward) + 6 * trained + 3 * scores
        hints = {
            6 * weights
            + 6 * trained
            + 3 * scores: "frozen weights need no gradient of their own: 4 a weight, not 6",
            2 * weights * (1 + backward)
            + 6 * trained: "attention is missing: q kᵀ and the mean of the values",
            2 * weights * (1 + backward)
            + 6 * trained
            + 6 * scores: "causal: a token looks at half of the row on average",
            2 * weights * (1 + backward)
            + 6 * trained
            + scores: "attention has a backward pass too, twice its forward",
            2 * weights * (1 + backward)
            + 3 * scores: "LoRA's own products are missing: 6 operations a number",
            2 * weights + 2 * trained + scores: "this is the forward pass alone",
            weights * (1 + backward)
            + 3 * trained
            + 1.5 * scores: "a multiplication and an addition are two operations",
        }
        if trained == 0:
            hints[4 * weights + 3 * scores] = (
                "with nothing frozen every weight has a gradient of its own: 6 a weight"
            )
        hints = {key: text for key, text in hints.items() if abs(key / expected - 1) > 1e-3}
        same(
            attempt(weights, trained, layers, width, length),
            expected,
            hints=hints,
            rtol=1e-6,
            what="the operations a token",
        )
    return "6 a weight in full tuning, 4 a frozen one beside LoRA, and three times causal attention"


@checks("8.4")
def _best_interval(attempt):
    def peak(interval: int, layers: int, kept: float, handed: float) -> float:
        return math.ceil(layers / interval) * handed + interval * kept

    for _ in range(12):
        layers, handed = random.randint(20, 90), random.uniform(1.0, 3.0)
        kept = handed * random.choice([random.uniform(1.5, 4.0), random.uniform(6.0, 40.0)])
        found = attempt(layers, kept, handed)
        if found != int(found) or not 1 <= found <= layers:
            raise Mistake(f"an interval of {found}: it counts layers, from 1 to {layers}")
        best = min(range(1, layers + 1), key=lambda k: peak(k, layers, kept, handed))
        least, here = peak(best, layers, kept, handed), peak(int(found), layers, kept, handed)
        if here > least * (1 + 1e-9):
            if found == round(math.sqrt(layers)) or found == int(math.sqrt(layers)):
                why = "√L is right only where a layer keeps as much as it hands on: weigh the two"
            elif found == 1:
                why = (
                    "1 keeps the input of every layer; sometimes fewer inputs and more "
                    "recomputed layers are less"
                )
            elif found == layers:
                why = (
                    "one interval of all layers recomputes everything at once: then all of "
                    "it is kept"
                )
            else:
                why = "try every interval and take the least"
            raise Mistake(
                f"{layers} layers, {kept / handed:.1f} times as much kept as handed on: interval "
                f"{found} takes {here / least:.2f} times the least; {why}"
            )
    return "the least memory for random layers, kept and handed bytes"
