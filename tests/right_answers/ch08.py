"""Right answers to the exercises of chapter 08, each in another style; written from the statements
alone."""

import math
from fractions import Fraction

import torch


# 8.1
def _look_first(gradients, scale):
    if not all(gradient.isfinite().all() for gradient in gradients):
        return None, scale / 2
    return [gradient.float() / scale for gradient in gradients], scale


def _convert_first(gradients, scale):
    true = []
    for gradient in gradients:
        gradient = gradient.to(torch.float32) / scale
        if gradient.isnan().any() or gradient.isinf().any():
            return None, scale * 0.5
        true.append(gradient)
    return true, scale


def _joined(gradients, scale):
    together = torch.cat([gradient.flatten() for gradient in gradients])
    if not torch.isfinite(together).all():
        return (None, scale / 2)
    return (list(map(lambda gradient: gradient.float() * (1 / scale), gradients)), scale)


def _by_the_largest(gradients, scale):
    biggest = max(gradient.float().abs().max().item() for gradient in gradients)
    total = sum(gradient.float().sum().item() for gradient in gradients)
    if biggest == float("inf") or math.isnan(total):
        return None, scale / 2
    return [torch.div(gradient.float(), scale) for gradient in gradients], scale


def _in_double(gradients, scale):
    true = [(gradient.double() / scale).float() for gradient in gradients]
    if sum(int((~gradient.isfinite()).sum()) for gradient in gradients):
        return None, scale / 2
    return true, scale


# 8.3
def _counting_up(peak_1, peak_2, card, reserve):
    rows = 0
    while peak_1 + rows * (peak_2 - peak_1) <= card - reserve:
        rows += 1
    return rows


def _in_fractions(peak_1, peak_2, card, reserve):
    one, two, size, free = map(Fraction, (peak_1, peak_2, card, reserve))
    return max(0, int((size - free - (2 * one - two)) / (two - one)))


def _two_unknowns(peak_1, peak_2, card, reserve):
    slope = peak_2 - peak_1
    fixed = peak_1 - slope
    room = card - reserve - fixed
    return 0 if room < slope else int(room / slope)


def _bisection(peak_1, peak_2, card, reserve):
    slope, low, high = peak_2 - peak_1, 0, 1 << 40
    while high - low > 1:
        middle = (low + high) // 2
        fits = peak_1 + (middle - 1) * slope <= card - reserve
        low, high = (middle, high) if fits else (low, middle)
    return low


RIGHT_ANSWERS = {
    "8.1": [_look_first, _convert_first, _joined, _by_the_largest, _in_double],
    "8.3": [
        lambda peak_1, peak_2, card, reserve: max(
            0, math.floor((card - reserve - (2 * peak_1 - peak_2)) / (peak_2 - peak_1))
        ),
        lambda peak_1, peak_2, card, reserve: max(
            0, int((card - reserve - peak_1) // (peak_2 - peak_1)) + 1
        ),
        _counting_up,
        _in_fractions,
        _two_unknowns,
        _bisection,
    ],
}
