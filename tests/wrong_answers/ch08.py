"""Wrong answers to the exercises of chapter 08, each with the words that must name its mistake."""

import math

import torch


def _best(layers, kept, handed):
    return min(range(1, layers + 1), key=lambda k: math.ceil(layers / k) * handed + k * kept)


def _only_first(gradients, scale):
    if not gradients[0].isfinite().all():
        return None, scale / 2
    return [part.float() / scale for part in gradients], scale


def _unscale(
    gradients,
    scale,
    *,
    finite=torch.isfinite,
    after=0.5,
    divide=lambda part, scale: part.float() / scale,
):
    if not all(finite(part).all() for part in gradients):
        return None, scale * after
    return [divide(part, scale) for part in gradients], scale


def _in_place(gradients, scale):
    for part in gradients:
        part /= 2.0
    return _unscale([part * 2 for part in gradients], scale)


def _operations(weights, trained, layers, width, length, *, frozen=4, attention=3.0, lora=6):
    return (
        (6 if trained == 0 else frozen) * weights
        + lora * trained
        + attention * 2 * length * width * layers
    )


WRONG_ANSWERS = {
    "8.2": [
        (
            lambda frozen, trained: 2 * frozen + 12 * trained,
            "a part of the trained numbers is missing",
        ),
        (lambda frozen, trained: 2 * frozen + 8 * trained, "these are two of the four numbers"),
        (lambda frozen, trained: 4 * frozen + 16 * trained, "held in half precision"),
        (lambda frozen, trained: 16 * (frozen + trained), "no gradient and no averages"),
        (lambda frozen, trained: 2 * frozen + 14 * trained, "trained weights are held in float32"),
        (lambda frozen, trained: 16 * trained, "the frozen weights are missing"),
    ],
    "8.3": [
        (lambda one, two, card, reserve: int(card // one), "only the difference of peaks"),
        (lambda one, two, card, reserve: int((card - reserve) // one), "do not grow with the rows"),
        (
            lambda one, two, card, reserve: max(0, int((card - 2 * one + two) // (two - one))),
            "the reserve was not taken off",
        ),
        (
            lambda one, two, card, reserve: max(
                0, math.ceil((card - reserve - 2 * one + two) / (two - one))
            ),
            "rounded up",
        ),
        (
            lambda one, two, card, reserve: int((card - reserve - 2 * one + two) // (two - one)),
            "is at least 0, not -",
        ),
        (
            lambda one, two, card, reserve: max(
                0.0, (card - reserve - 2 * one + two) / (two - one)
            ),
            "rounded down, is a whole number",
        ),
        (
            lambda one, two, card, reserve: max(0, int((card - reserve - one) // (two - one))),
            "holds one row already",
        ),
    ],
    "8.1": [
        (lambda g, s: _unscale(g, s, divide=lambda part, s: part / s), "divide in float32"),
        (
            lambda g, s: _unscale(g, s, divide=lambda part, s: (part / s).float()),
            "small gradients became 0",
        ),
        (lambda g, s: _unscale(g, s, divide=lambda part, s: part.float()), "divide by it"),
        (
            lambda g, s: _unscale(g, s, divide=lambda part, s: part.float() * s),
            "the loss was multiplied",
        ),
        (lambda g, s: _unscale(g, s, after=1.0), "must shrink"),
        (lambda g, s: _unscale(g, s, after=2.0), "halve it"),
        (lambda g, s: _unscale(g, s, finite=lambda part: ~part.isinf()), "holds nan"),
        (_only_first, "in tensor 1"),
        (_in_place, "changed `gradients` in place"),
        (lambda g, s: ([part.float() / s for part in g], s), "the update must be left out"),
        (lambda g, s: [part.float() / s for part in g][0], "return two things"),
    ],
    "8.5": [
        (
            lambda w, t, n, width, length: _operations(w, t, n, width, length, frozen=6),
            "need no gradient of their own",
        ),
        (
            lambda w, t, n, width, length: _operations(w, t, n, width, length, attention=0),
            "attention is missing",
        ),
        (
            lambda w, t, n, width, length: _operations(w, t, n, width, length, attention=6),
            "half of the row",
        ),
        (
            lambda w, t, n, width, length: _operations(w, t, n, width, length, attention=1),
            "backward pass too",
        ),
        (
            lambda w, t, n, width, length: _operations(w, t, n, width, length, lora=0),
            "LoRA's own products",
        ),
        (
            lambda w, t, n, width, length: 2 * (w + t) + 2 * length * width * n,
            "the forward pass alone",
        ),
        (
            lambda w, t, n, width, length: _operations(w, t, n, width, length) / 2,
            "are two operations",
        ),
        (
            lambda w, t, n, width, length: 4 * w + 6 * t + 6 * length * width * n,
            "with nothing frozen",
        ),
    ],
    "8.4": [
        (lambda layers, kept, handed: 1, "sometimes fewer inputs"),
        (lambda layers, kept, handed: round(math.sqrt(layers)), "√L is right only where"),
        (lambda layers, kept, handed: layers, "all of it is kept"),
        (
            lambda layers, kept, handed: min(layers, _best(layers, kept, handed) + 3),
            "times the least",
        ),
        (
            lambda layers, kept, handed: math.sqrt(layers * handed / kept),
            "an interval is a whole number",
        ),
        (
            lambda layers, kept, handed: max(1, round(math.sqrt(layers * kept / handed)) % layers),
            "times the least",
        ),
    ],
}
