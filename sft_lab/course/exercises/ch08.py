"""Checks of chapter 08, Qwen on a GPU."""

import math
import operator
import random
from collections.abc import Callable
from fractions import Fraction

import torch

from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    named,
    need_dtype,
    need_list,
    need_number,
    need_whole,
    same_for_all,
    same_in_all,
    unpack,
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


@checks("8.2")
def static_bytes(attempt: Callable) -> str:
    frozen, trained = random.randint(400, 9_000) * 1_000_003, random.randint(5, 90) * 1_000_033

    def weighed(of_frozen: int, of_trained: int) -> Callable:
        return lambda frozen, trained: of_frozen * frozen + of_trained * trained

    mistakes = [
        (
            weighed(2, 12),
            "a part of the trained numbers is missing: weight, gradient, and two averages",
        ),
        (weighed(2, 8), "these are two of the four numbers that a trained weight needs"),
        (weighed(2, 14), "trained weights are held in float32, the frozen are not"),
        (weighed(2, 10), "gradient and averages are float32 too: 4 bytes each"),
        (weighed(4, 16), "frozen weights are held in half precision: 2 bytes each"),
        (weighed(6, 16), "a frozen weight has no gradient"),
        (weighed(16, 16), "frozen weights have no gradient and no averages"),
        (weighed(0, 16), "the frozen weights are missing: they fill the card as well"),
    ]
    what = "the number of bytes"
    inputs = [(frozen, trained), (0, trained), (frozen, 0)]

    def form(found):
        return need_int(found, what, low=0)

    same_for_all(attempt, inputs, weighed(2, 16), mistakes, form=form, what=what)
    return "2 bytes a frozen weight, 16 a trained one; the same for LoRA and for full tuning"


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


@checks("8.4")
def best_interval(attempt: Callable) -> str:
    def memory(k: int, layers: int, kept: float, handed: float) -> float:
        return math.ceil(layers / k) * handed + k * kept

    def best(layers, kept, handed):
        return min(range(1, layers + 1), key=lambda k: memory(k, layers, kept, handed))

    def found(layers, kept, handed):
        """The interval of the answer; the best one for another that is as good."""
        sizes = (layers, kept, handed)
        interval = need_int(attempt(*sizes), "an interval", low=1, high=layers)
        right = best(*sizes)
        as_good = memory(interval, *sizes) <= memory(right, *sizes) * (1 + 1e-9)
        return right if as_good else interval

    mistakes = [
        (
            lambda layers, kept, handed, rounded=rounded: rounded(math.sqrt(layers)),
            "√L is right only where a layer keeps as much as it hands on: weigh the two",
        )
        for rounded in (round, int, math.ceil)
    ]
    mistakes += [
        (
            lambda layers, kept, handed: 1,
            "1 keeps every layer's input; sometimes fewer inputs and more recomputing are less",
        ),
        (
            lambda layers, kept, handed: layers,
            "one interval of all layers recomputes everything at once: then all of it is kept",
        ),
    ]
    same_for_all(found, _depths(), best, mistakes, what="the best interval")
    return "the least memory for random layers, kept and handed bytes"


def _depths() -> list[tuple[int, float, float]]:
    """Layers, kept and handed: one layer; where all layers make the best interval; random ones."""
    handed = random.uniform(1.0, 3.0)
    depths = [(1, 20.0, 1.0), (random.randint(7, 12), 0.02 * handed, handed)]
    for _ in range(40):
        ratio = random.choice([(0.05, 1.0), (1.5, 4.0), (6.0, 40.0)])
        handed = random.uniform(1.0, 3.0)
        depths.append((random.randint(5, 90), handed * random.uniform(*ratio), handed))
    return depths


@checks("8.5")
def training_operations(attempt: Callable) -> str:
    def count(frozen=4, full=6, lora=6, attention=3, all_of_it=1.0) -> Callable:
        def answer(weights, trained_lora, layers, width, length):
            products = (frozen if trained_lora else full) * weights + lora * trained_lora
            scores = 2 * length * width * layers  # causal: half of the row, q kᵀ and values
            return float(all_of_it * (products + attention * scores))

        return answer

    mistakes = [
        (count(frozen=6), "frozen weights need no gradient of their own: 4 a weight, not 6"),
        (count(full=4), "with nothing frozen every weight has a gradient of its own: 6 a weight"),
        (count(attention=0), "attention is missing: q kᵀ and the mean of the values"),
        (count(attention=6), "causal: a token looks at half of the row on average"),
        (count(attention=1), "attention has a backward pass too, twice its forward"),
        (count(lora=0), "LoRA's own products are missing: 6 operations a number"),
        (count(2, 2, 2, 1), "this is the forward pass alone"),
        (count(all_of_it=0.5), "a multiplication and an addition are two operations"),
    ]
    inputs = []
    for width, length in random.sample([(1024, 512), (2048, 4096), (4096, 1024)], 2):
        weights, lora = random.randint(200, 900) * 10**6, random.randint(2, 30) * 10**6
        layers = random.randint(4, 30)
        inputs += [(weights, trained, layers, width, length) for trained in (0, lora)]

    def form(found):
        return float(need_number(found, "the operations a token"))

    what = "the operations a token"
    same_for_all(attempt, inputs, count(), mistakes, form=form, what=what, rtol=1e-6)
    return "6 a weight in full tuning, 4 a frozen one beside LoRA, and three times causal attention"
