"""Right answers to the exercises of chapter 08, each in another style; written from the statements
alone."""

import math
from collections import Counter, OrderedDict, defaultdict
from fractions import Fraction
from functools import reduce
from itertools import accumulate

import numpy as np
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


# 8.6
THEIR_PLAN = {
    "method": "full",
    "rows": 16,
    "accumulation": 1,
    "length": 2048,
    "checkpointing": False,
    "scores": "all",
    "format": "bfloat16",
    "loss_scaling": False,
}


def _changed_in_place():
    plan = THEIR_PLAN.copy()
    plan["method"] = "lora"
    plan["rows"], plan["accumulation"] = 2, 8
    plan["checkpointing"] = not plan["checkpointing"]
    plan.update(scores="graded", format="float16", loss_scaling=True)
    return plan


def _from_pairs():
    values = ["lora", 4, 16 // 4, 2**11, True, "graded", str(torch.float16)[6:], True]
    return dict(zip(THEIR_PLAN, values, strict=True))


# 8.7
def _as_they_come(events):
    held, best, at_best = {part: 0 for part, _ in events}, 0, {}
    for part, size in events:
        held[part] += size
        if sum(held.values()) > best:
            best, at_best = sum(held.values()), held.copy()
    return at_best


def _find_the_moment_first(events):
    totals = list(accumulate(size for _, size in events))
    end = totals.index(max(totals)) + 1
    return {
        part: sum(size for other, size in events[:end] if other == part)
        for part in {part for part, _ in events}
    }


def _a_table_in_numpy(events):
    parts = sorted({part for part, _ in events})
    table = np.zeros((len(events), len(parts)), dtype=np.int64)
    for moment, (part, size) in enumerate(events):
        table[moment, parts.index(part)] = size
    held = table.cumsum(axis=0)
    return dict(zip(parts, held[held.sum(axis=1).argmax()].tolist(), strict=True))


def _in_torch(events):
    totals = torch.tensor([size for _, size in events]).cumsum(0).tolist()
    moment = max(range(len(events)), key=lambda i: totals[i])
    held = defaultdict(int)
    for i, (part, size) in enumerate(events):
        held[part] += size if i <= moment else 0
    return held


def _counted(events):
    held, snapshots = Counter(), []
    for part, size in events:
        held[part] += size
        snapshots.append((held.total(), Counter(held)))
    top = max(total for total, _ in snapshots)
    found = next(snapshot for total, snapshot in snapshots if total == top)
    return OrderedDict((part, found[part]) for part in reversed(list(held)))


def _latest_first(events):
    """Backwards from the end: what is held before each event."""
    held = dict.fromkeys((part for part, _ in events), 0)
    for part, size in events:
        held[part] += size
    best = None
    for part, size in reversed(events):
        if best is None or sum(held.values()) >= sum(best.values()):
            best = dict(held)
        held[part] -= size
    return best


def _halves(events):
    def peak(low, high):
        """Sum, highest sum, and how many events it takes, of a part of the list."""
        if high - low == 1:
            return events[low][1], events[low][1], 1
        middle = (low + high) // 2
        sum_1, top_1, count_1 = peak(low, middle)
        sum_2, top_2, count_2 = peak(middle, high)
        if sum_1 + top_2 > top_1:
            return sum_1 + sum_2, sum_1 + top_2, middle - low + count_2
        return sum_1 + sum_2, top_1, count_1

    count = peak(0, len(events))[2]
    zeros = {part: 0 for part, _ in events}
    return reduce(
        lambda held, event: held | {event[0]: held[event[0]] + event[1]}, events[:count], zeros
    )


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
    "8.6": [
        THEIR_PLAN
        | {
            "method": "lora",
            "rows": 1,
            "accumulation": 16,
            "checkpointing": True,
            "format": "float16",
            "loss_scaling": True,
        },
        {
            "loss_scaling": True,
            "format": "float16",
            "scores": "graded",
            "checkpointing": True,
            "length": 2048,
            "accumulation": 16,
            "rows": 1,
            "method": "lora",
        },
        _changed_in_place(),
        _from_pairs(),
        OrderedDict(
            **dict(method="lora", rows=2, accumulation=8, length=2048, checkpointing=True),
            **dict(scores="graded", format="float16", loss_scaling=True),
        ),
    ],
    "8.7": [
        _as_they_come,
        _find_the_moment_first,
        _a_table_in_numpy,
        _in_torch,
        _counted,
        _latest_first,
        _halves,
    ],
}
