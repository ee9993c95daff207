"""Wrong answers to the exercises of chapter 08, each with the words that must name its mistake."""

import math
from functools import partial

import torch


def _best(layers, kept, handed):
    return min(range(1, layers + 1), key=lambda k: math.ceil(layers / k) * handed + k * kept)


def _upside_down(layers, kept, handed):
    return max(1, round(math.sqrt(layers * kept / handed)) % layers)


def _unscale(gradients, scale, *, finite=torch.isfinite, after=0.5, divide=None):
    if not all(finite(part).all() for part in gradients):
        return None, scale * after
    divide = divide or (lambda part, scale: part.float() / scale)
    return [divide(part, scale) for part in gradients], scale


def _divides(divide):
    return partial(_unscale, divide=divide)


def _looks_at_the_first(gradients, scale):
    if not gradients[0].isfinite().all():
        return None, scale / 2
    return [part.float() / scale for part in gradients], scale


def _in_place(gradients, scale):
    for part in gradients:
        part /= 2.0
    return _unscale([part * 2 for part in gradients], scale)


def _rows(peak_1, peak_2, card, reserve):
    """How many rows fit, in parts of a row too."""
    a_row = peak_2 - peak_1
    return (card - reserve - peak_1 + a_row) / a_row


def _no_reserve(peak_1, peak_2, card, reserve):
    return max(0, int(_rows(peak_1, peak_2, card, 0.0)))


def _first_row_twice(peak_1, peak_2, card, reserve):
    return max(0, int((card - reserve - peak_1) // (peak_2 - peak_1)))


def _operations(weights, trained, layers, width, length, *, frozen=4, full=6, attention=3, lora=6):
    linear = (full if trained == 0 else frozen) * weights + lora * trained
    return linear + attention * 2 * length * width * layers


def _forward_alone(weights, trained, layers, width, length):
    return 2 * (weights + trained) + 2 * length * width * layers


WRONG_ANSWERS = {
    "8.1": [
        (_divides(lambda part, scale: part / scale), "divide in float32"),
        (_divides(lambda part, scale: (part / scale).float()), "small gradients became 0"),
        (_divides(lambda part, scale: part.float()), "divide by it"),
        (_divides(lambda part, scale: part.float() * scale), "the loss was multiplied"),
        (partial(_unscale, after=1.0), "must shrink"),
        (partial(_unscale, after=2.0), "halve it"),
        (partial(_unscale, finite=lambda part: ~part.isinf()), "holds nan"),
        (_looks_at_the_first, "in tensor 1"),
        (_in_place, "changed `gradients` in place"),
        (lambda g, scale: ([part.float() / scale for part in g], scale), "must be left out"),
        (lambda g, scale: [part.float() / scale for part in g][0], "return two things"),
    ],
    "8.2": [
        (lambda frozen, trained: 2 * frozen + 12 * trained, "a part of the trained numbers"),
        (lambda frozen, trained: 2 * frozen + 8 * trained, "these are two of the four numbers"),
        (lambda frozen, trained: 4 * frozen + 16 * trained, "held in half precision"),
        (lambda frozen, trained: 16 * (frozen + trained), "no gradient and no averages"),
        (lambda frozen, trained: 2 * frozen + 14 * trained, "trained weights are held in float32"),
        (lambda frozen, trained: 16 * trained, "the frozen weights are missing"),
    ],
    "8.3": [
        (lambda peak_1, peak_2, card, reserve: int(card // peak_1), "only the difference of peaks"),
        (lambda peak_1, _, card, reserve: int((card - reserve) // peak_1), "do not grow with the"),
        (_no_reserve, "the reserve was not taken off"),
        (lambda *sizes: max(0, math.ceil(_rows(*sizes))), "rounded up"),
        (lambda *sizes: math.floor(_rows(*sizes)), "is at least 0, not -"),
        (lambda *sizes: max(0.0, _rows(*sizes)), "rounded down, is a whole number"),
        (_first_row_twice, "holds one row already"),
    ],
    "8.4": [
        (lambda layers, kept, handed: 1, "sometimes fewer inputs"),
        (lambda layers, kept, handed: round(math.sqrt(layers)), "√L is right only where"),
        (lambda layers, kept, handed: layers, "all of it is kept"),
        (lambda layers, *sizes: min(layers, _best(layers, *sizes) + 3), "the best interval is"),
        (lambda layers, kept, handed: math.sqrt(layers * handed / kept), "is a whole number"),
        (_upside_down, "the best interval is"),
    ],
    "8.5": [
        (partial(_operations, frozen=6), "need no gradient of their own"),
        (partial(_operations, attention=0), "attention is missing"),
        (partial(_operations, attention=6), "half of the row"),
        (partial(_operations, attention=1), "backward pass too"),
        (partial(_operations, lora=0), "LoRA's own products"),
        (partial(_operations, full=4), "with nothing frozen"),
        (_forward_alone, "the forward pass alone"),
        (lambda *sizes: _operations(*sizes) / 2, "are two operations"),
    ],
}
