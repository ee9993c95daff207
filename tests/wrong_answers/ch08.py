"""Wrong answers to the exercises of chapter 08, each with the words that must name its mistake."""

import math
from functools import partial

import torch


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


PLAN = {  # a right one
    "method": "lora",
    "rows": 4,
    "accumulation": 4,
    "length": 2048,
    "checkpointing": True,
    "scores": "graded",
    "format": "float16",
    "loss_scaling": True,
}


def _peak(events, *, last=False):
    held = {part: 0 for part, _ in events}
    best = dict(held)
    for part, size in events:
        held[part] += size
        gain = sum(held.values()) - sum(best.values())
        if gain > 0 or (last and gain == 0):
            best = dict(held)
    return best


def _own_maxima(events):
    highest = {}
    for stop in range(len(events)):
        for part, size in _at_the_end(events[: stop + 1]).items():
            highest[part] = max(size, highest.get(part, 0))
    return highest


def _at_the_end(events):
    held = {}
    for part, size in events:
        held[part] = held.get(part, 0) + size
    return held


def _nothing_freed(events):
    return _at_the_end([(part, size) for part, size in events if size > 0])


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
    "8.3": [
        (lambda peak_1, peak_2, card, reserve: int(card // peak_1), "only the difference of peaks"),
        (lambda peak_1, _, card, reserve: int((card - reserve) // peak_1), "do not grow with the"),
        (_no_reserve, "the reserve was not taken off"),
        (lambda *sizes: max(0, math.ceil(_rows(*sizes))), "rounded up"),
        (lambda *sizes: math.floor(_rows(*sizes)), "is at least 0, not -"),
        (lambda *sizes: max(0.0, _rows(*sizes)), "rounded down, is a whole number"),
        (_first_row_twice, "holds one row already"),
    ],
    "8.6": [
        (PLAN | {"rows": 16, "accumulation": 1}, "it does not fit"),
        (PLAN | {"checkpointing": False}, "most of it activations"),
        (PLAN | {"method": "full"}, "most of it optimizer"),
        (PLAN | {"scores": "all"}, "it does not fit"),
        (PLAN | {"accumulation": 1}, "accumulate over the rows"),
        (PLAN | {"length": 1024}, "lose their answers"),
        (PLAN | {"length": 4096}, "2,048 are enough"),
        (PLAN | {"format": "bfloat16", "loss_scaling": False}, "no bfloat16 in hardware"),
        (PLAN | {"loss_scaling": False}, "gradients below 6e-8"),
        (PLAN | {"format": "float32", "loss_scaling": False}, "16 bits were asked for"),
        (PLAN | {"format": "bfloat16"}, "loss scaling is for float16"),
        (PLAN | {"method": "qlora"}, "LoRA can be made to fit"),
        ({"method": "lora", "rows": 4}, "missing: ['accumulation'"),
        (PLAN | {"card": "A100"}, "unknown: ['card']"),
        (PLAN | {"rows": 4.0}, "is the float 4.0"),
        (PLAN | {"rows": True, "accumulation": 16}, "is an int, not True"),
        (PLAN | {"method": "LoRA"}, 'return one of "full"'),
        (PLAN | {"checkpointing": 1}, "is True or False"),
        (list(PLAN.values()), "a dict with eight keys"),
    ],
    "8.7": [
        (_own_maxima, "not largest at the same moment"),
        (_at_the_end, "held at the end"),
        (_nothing_freed, "must leave the sum"),
        (partial(_peak, last=True), "the first one was asked for"),
        (
            lambda events: {part: n for part, n in _peak(events).items() if n},
            "stands in the result with 0",
        ),
        (lambda events: sum(_peak(events).values()), "return the bytes of each part"),
        (lambda events: _peak(events[:-1]), "the bytes of each part at the peak"),
    ],
}
