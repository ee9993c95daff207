"""Wrong answers to the exercises of chapter 08, written from the statements alone."""

import math
from itertools import accumulate

import torch


# 8.1
def _unscale(
    finite=lambda gradient: gradient.isfinite().all().item(),
    true=lambda gradient, scale: gradient.float() / scale,
    after_failure=lambda scale: scale / 2,
    after_success=lambda scale: scale,
):
    """The right answer with one part changed."""

    def answer(gradients, scale):
        if not all(finite(gradient) for gradient in gradients):
            return None, after_failure(scale)
        return [true(gradient, scale) for gradient in gradients], after_success(scale)

    return answer


def _in_place(gradients, scale):
    if not all(gradient.isfinite().all() for gradient in gradients):
        return None, scale / 2
    for i, gradient in enumerate(gradients):
        gradients[i] = gradient.float() / scale
    return gradients, scale


def _values_in_place(gradients, scale):
    finite = all(gradient.isfinite().all() for gradient in gradients)
    true = [gradient.float() / scale for gradient in gradients]
    for gradient in gradients:
        gradient /= scale
    return (true, scale) if finite else (None, scale / 2)


def _bad_one_left_out(gradients, scale):
    good = [gradient.float() / scale for gradient in gradients if gradient.isfinite().all()]
    return (good, scale) if len(good) == len(gradients) else (good, scale / 2)


def _zeros_for_bad_entries(gradients, scale):
    return [gradient.float().nan_to_num(0, 0, 0) / scale for gradient in gradients], scale


def _kept_gradients(gradients, scale):
    true = [gradient.float() / scale for gradient in gradients]
    bad = any(not gradient.isfinite().all() for gradient in true)
    return true, scale / 2 if bad else scale


def _joined(gradients, scale):
    if not all(gradient.isfinite().all() for gradient in gradients):
        return None, scale / 2
    return torch.cat([gradient.flatten().float() for gradient in gradients]) / scale, scale


# 8.3
def _rows(
    room=lambda card, reserve: card - reserve,
    slope=lambda one, two: two - one,
    fixed=lambda one, two: 2 * one - two,
    whole=math.floor,
    least=0,
    more=0,
):
    def answer(peak_1, peak_2, card, reserve):
        free = room(card, reserve) - fixed(peak_1, peak_2)
        return max(least, whole(free / slope(peak_1, peak_2)) + more)

    return answer


def _at_most_a_hundred(peak_1, peak_2, card, reserve):
    rows = 0
    while rows < 100 and peak_1 + rows * (peak_2 - peak_1) <= card - reserve:
        rows += 1
    return rows


def _strictly_less(peak_1, peak_2, card, reserve):
    rows = 0
    while peak_1 + rows * (peak_2 - peak_1) < card - reserve:
        rows += 1
    return rows


def _powers_of_two(peak_1, peak_2, card, reserve):
    rows = _rows()(peak_1, peak_2, card, reserve)
    return 1 << (rows.bit_length() - 1) if rows else 0


# 8.6
PLAN = {
    "method": "lora",
    "rows": 4,
    "accumulation": 4,
    "length": 2048,
    "checkpointing": True,
    "scores": "graded",
    "format": "float16",
    "loss_scaling": True,
}
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


def _without(key):
    return {name: value for name, value in PLAN.items() if name != key}


# 8.7
def _peak(higher=lambda total, best: total > best, count=sum, step=lambda size: size):
    """The meter, with parts to replace."""

    def peak_parts(events):
        held, best, at_best = {part: 0 for part, _ in events}, 0, None
        for part, size in events:
            held[part] += step(size)
            if at_best is None or higher(count(held.values()), best):
                best, at_best = count(held.values()), dict(held)
        return at_best

    return peak_parts


def _finished(finish):
    return lambda events: finish(_peak()(events))


def _held(events, end):
    held = {part: 0 for part, _ in events}
    for part, size in events[:end]:
        held[part] += size
    return held


def _peak_of_each_part(events):
    held, best = {part: 0 for part, _ in events}, {part: 0 for part, _ in events}
    for part, size in events:
        held[part] += size
        best[part] = max(best[part], held[part])
    return best


def _one_moment_early(events):
    totals = list(accumulate(size for _, size in events))
    return _held(events, totals.index(max(totals)))


def _one_moment_late(events):
    totals = list(accumulate(size for _, size in events))
    return _held(events, totals.index(max(totals)) + 2)


def _never_copied(events):
    held, best, at_best = {part: 0 for part, _ in events}, 0, None
    for part, size in events:
        held[part] += size
        if sum(held.values()) > best:
            best, at_best = sum(held.values()), held
    return at_best


def _parts_seen_so_far(events):
    held, best, at_best = {}, 0, {}
    for part, size in events:
        held[part] = held.get(part, 0) + size
        if sum(held.values()) > best:
            best, at_best = sum(held.values()), dict(held)
    return at_best


def _parts_of_the_example(events):
    held, best, at_best = {"weights": 0, "activations": 0, "gradients": 0}, 0, {}
    for part, size in events:
        if part in held:
            held[part] += size
        if sum(held.values()) > best:
            best, at_best = sum(held.values()), dict(held)
    return at_best


def _always_five_parts(events):
    names = ("weights", "gradients", "optimizer", "activations", "logits")
    return dict.fromkeys(names, 0) | _peak()(events)


def _until_something_is_freed(events):
    first = next((i for i, (_, size) in enumerate(events) if size < 0), len(events))
    return _held(events, first)


def _first_local_peak(events):
    held, best = {part: 0 for part, _ in events}, 0
    for part, size in events:
        if sum(held.values()) + size < best:
            break
        held[part] += size
        best = sum(held.values())
    return held


def _after_the_largest_event(events):
    sizes = [size for _, size in events]
    return _held(events, sizes.index(max(sizes)) + 1)


def _last_event_left_out(events):
    totals = list(accumulate(size for _, size in events))[:-1] or [0]
    return _held(events, totals.index(max(totals)) + 1)


def _a_part_is_replaced(events):
    held, best, at_best = {part: 0 for part, _ in events}, 0, None
    for part, size in events:
        held[part] = max(size, 0)
        if sum(held.values()) > best:
            best, at_best = sum(held.values()), dict(held)
    return at_best


def _freed_whole(events):
    held, best, at_best = {part: 0 for part, _ in events}, 0, None
    for part, size in events:
        held[part] = held[part] + size if size > 0 else 0
        if sum(held.values()) > best:
            best, at_best = sum(held.values()), dict(held)
    return at_best


def _sorted_by_part(events):
    return _peak()(sorted(events))


def _sorts_in_place(events):
    found = _peak()(events)
    events.sort()
    return found


def _consumes(events):
    held, best, at_best = {part: 0 for part, _ in events}, 0, None
    while events:
        part, size = events.pop(0)
        held[part] += size
        if sum(held.values()) > best:
            best, at_best = sum(held.values()), dict(held)
    return at_best


def _remembers(held={}):  # noqa: B006
    def peak_parts(events):
        best, at_best = 0, {}
        for part, _ in events:
            held.setdefault(part, 0)
        for part, size in events:
            held[part] += size
            if sum(held.values()) > best:
                best, at_best = sum(held.values()), dict(held)
        return at_best

    return peak_parts


def _short_floats(events):
    totals = torch.tensor([float(size) for _, size in events]).cumsum(0)
    return _held(events, int(totals.argmax()) + 1)


def _in_int32(events):
    """Larger sums overflow, as in numpy; the best moment is right otherwise."""
    totals = [(total + 2**31) % 2**32 - 2**31 for total in accumulate(size for _, size in events)]
    held = _held(events, totals.index(max(totals)) + 1)
    return {part: (size + 2**31) % 2**32 - 2**31 for part, size in held.items()}


def _the_sum_at_the_peak(events):
    return max(accumulate(size for _, size in events))


def _the_example(events):
    return {"weights": 4, "activations": 6, "gradients": 0}


OTHER_WRONG_ANSWERS = {
    "8.1": [
        _unscale(true=lambda gradient, scale: (gradient / scale).float()),
        _unscale(true=lambda gradient, scale: gradient / scale),
        _unscale(true=lambda gradient, scale: (gradient.float() / scale).half()),
        _unscale(true=lambda gradient, scale: gradient.double() / scale),
        _unscale(true=lambda gradient, scale: gradient.bfloat16().float() / scale),
        _unscale(true=lambda gradient, scale: gradient.float() * scale),
        _unscale(true=lambda gradient, scale: gradient.float()),
        _unscale(true=lambda gradient, scale: gradient.float() / (2 * scale)),
        _unscale(true=lambda gradient, scale: gradient.float() / 65536),
        _unscale(true=lambda gradient, scale: (gradient.float() / scale).clamp(-1, 1)),
        _unscale(true=lambda gradient, scale: (gradient.float() / scale).tolist()),
        _unscale(true=lambda gradient, scale: (gradient.float() / scale).abs()),
        _unscale(true=lambda gradient, scale: (gradient.float() / scale).flatten()),
        _unscale(finite=lambda gradient: not gradient.isnan().any()),
        _unscale(finite=lambda gradient: not gradient.isinf().any()),
        _unscale(finite=lambda gradient: not (gradient.isnan() | (gradient == torch.inf)).any()),
        _unscale(finite=lambda gradient: not (gradient.isnan() | (gradient == -torch.inf)).any()),
        _unscale(finite=lambda gradient: gradient.isfinite().any()),
        _unscale(finite=lambda gradient: gradient.sum().isfinite()),
        _unscale(finite=lambda gradient: gradient.norm().isfinite()),
        _unscale(finite=lambda gradient: gradient.flatten()[0].isfinite()),
        _unscale(finite=lambda gradient: gradient.max().isfinite()),
        _unscale(finite=lambda gradient: gradient.abs().max() < 60_000),
        _unscale(finite=lambda gradient: True),
        _unscale(after_failure=lambda scale: scale),
        _unscale(after_failure=lambda scale: scale // 2),
        _unscale(after_failure=lambda scale: scale * 2),
        _unscale(after_failure=lambda scale: scale / 4),
        _unscale(after_failure=lambda scale: scale - 1),
        _unscale(after_failure=lambda scale: 2.0**15),
        _unscale(after_failure=lambda scale: max(1.0, scale / 2)),
        _unscale(after_success=lambda scale: scale * 2),
        _unscale(after_success=lambda scale: scale / 2),
        lambda gradients, scale: _unscale()(gradients[:1], scale),
        lambda gradients, scale: (
            (None, scale / 2)
            if not gradients[0].isfinite().all()
            else ([gradient.float() / scale for gradient in gradients], scale)
        ),
        lambda gradients, scale: (
            (None, scale / 2)
            if not gradients[-1].isfinite().all()
            else ([gradient.float() / scale for gradient in gradients], scale)
        ),
        lambda gradients, scale: (
            (None, scale / 2)
            if not any(gradient.isfinite().all() for gradient in gradients)
            else ([gradient.float() / scale for gradient in gradients], scale)
        ),
        lambda gradients, scale: _unscale()(gradients, scale)[0],
        lambda gradients, scale: (
            (map(torch.Tensor.float, gradients), scale)
            if all(gradient.isfinite().all() for gradient in gradients)
            else (None, scale / 2)
        ),
        _in_place,
        _values_in_place,
        _bad_one_left_out,
        _zeros_for_bad_entries,
        _kept_gradients,
        _joined,
        _unscale(finite=lambda gradient: gradient.abs().max() < 65_504),
        _unscale(finite=lambda gradient: gradient.min() > -65_504),
    ],
    "8.3": [
        _rows(room=lambda card, reserve: card),
        _rows(room=lambda card, reserve: card + reserve),
        _rows(room=lambda card, reserve: card * (1 - reserve)),
        _rows(room=lambda card, reserve: card - 1),
        _rows(slope=lambda one, two: one),
        _rows(slope=lambda one, two: two),
        _rows(slope=lambda one, two: two / 2),
        _rows(fixed=lambda one, two: 0),
        _rows(fixed=lambda one, two: one),
        _rows(fixed=lambda one, two: two),
        _rows(fixed=lambda one, two: two - one),
        _rows(fixed=lambda one, two: 0, slope=lambda one, two: one),
        _rows(fixed=lambda one, two: 0, slope=lambda one, two: two / 2),
        _rows(whole=round),
        _rows(whole=math.ceil),
        _rows(whole=float),
        _rows(whole=lambda rows: float(math.floor(rows))),
        _rows(least=-1000),
        _rows(least=1),
        _rows(more=1),
        _rows(more=-1),
        lambda *given: str(_rows()(*given)),
        _at_most_a_hundred,
        _strictly_less,
        _powers_of_two,
    ],
    "8.6": [
        THEIR_PLAN,
        THEIR_PLAN | {"rows": 1, "accumulation": 16},
        PLAN | {"rows": 8, "accumulation": 2},
        PLAN | {"rows": 16, "accumulation": 1},
        PLAN | {"scores": "all"},
        PLAN | {"rows": 2, "accumulation": 8, "scores": "all"},
        PLAN | {"checkpointing": False},
        PLAN | {"rows": 1, "accumulation": 16, "checkpointing": False},
        PLAN | {"method": "full"},
        PLAN | {"method": "full", "rows": 1, "accumulation": 16},
        PLAN | {"method": "qlora"},
        PLAN | {"method": "qlora", "rows": 8, "accumulation": 2},
        PLAN | {"method": "LoRA"},
        PLAN | {"method": "freeze"},
        PLAN | {"accumulation": 1},
        PLAN | {"accumulation": 16},
        PLAN | {"rows": 1, "accumulation": 1},
        PLAN | {"rows": 2, "accumulation": 4},
        PLAN | {"rows": 3, "accumulation": 5},
        PLAN | {"rows": 3, "accumulation": 6},
        PLAN | {"rows": 1, "accumulation": 15},
        PLAN | {"rows": 0.5, "accumulation": 32},
        PLAN | {"rows": 3, "accumulation": 16 / 3},
        PLAN | {"rows": 4.0},
        PLAN | {"accumulation": 16 / 4},
        PLAN | {"rows": True, "accumulation": 16},
        PLAN | {"rows": 1, "accumulation": 16, "length": True},
        PLAN | {"rows": "4"},
        PLAN | {"rows": -4, "accumulation": -4},
        PLAN | {"rows": 0, "accumulation": 16},
        PLAN | {"length": 1024},
        PLAN | {"length": 1024, "rows": 8, "accumulation": 2},
        PLAN | {"length": 2000},
        PLAN | {"length": 4096, "rows": 1, "accumulation": 16},
        PLAN | {"length": 2048.0},
        PLAN | {"format": "bfloat16"},
        PLAN | {"format": "bfloat16", "loss_scaling": False},
        PLAN | {"format": "float32", "loss_scaling": False},
        PLAN | {"format": "float32"},
        PLAN | {"format": "fp16"},
        PLAN | {"format": "half"},
        PLAN | {"format": torch.float16},
        PLAN | {"loss_scaling": False},
        PLAN | {"loss_scaling": 2.0**16},
        PLAN | {"loss_scaling": 1},
        PLAN | {"loss_scaling": "True"},
        PLAN | {"loss_scaling": None},
        PLAN | {"checkpointing": 1},
        PLAN | {"checkpointing": "yes"},
        PLAN | {"scores": "half"},
        PLAN | {"scores": 0.5},
        PLAN | {"scores": True},
        PLAN | {"rank": 16},
        PLAN | {"graded": 0.5},
        _without("loss_scaling"),
        _without("length"),
        _without("accumulation"),
        list(PLAN.items()),
        list(PLAN.values()),
        str(PLAN),
        lambda: PLAN,
        {},
    ],
    "8.7": [
        _peak(higher=lambda total, best: total >= best),
        _peak(higher=lambda total, best: total < best),
        _peak(higher=lambda total, best: True),
        _peak(count=max),
        _peak(count=len),
        _peak(count=lambda sizes: sum(map(abs, sizes)) // 1000),
        _peak(step=abs),
        _peak(step=lambda size: max(size, 0)),
        _peak(step=lambda size: -size),
        _peak(step=lambda size: 1 if size > 0 else -1),
        _finished(lambda held: {part: size for part, size in held.items() if size}),
        _finished(lambda held: held | {"total": sum(held.values())}),
        _finished(lambda held: list(held.items())),
        _finished(lambda held: tuple(held.values())),
        _finished(lambda held: {part: str(size) for part, size in held.items()}),
        _finished(lambda held: {part: size / 2**30 for part, size in held.items()}),
        _finished(lambda held: {part: size or None for part, size in held.items()}),
        _finished(lambda held: {max(held, key=held.get): max(held.values())}),
        _finished(lambda held: None),
        lambda events: _held(events, len(events)),
        lambda events: _held(events, 1),
        lambda events: _held(events, 2),
        _peak_of_each_part,
        _one_moment_early,
        _one_moment_late,
        _never_copied,
        _parts_seen_so_far,
        _parts_of_the_example,
        _always_five_parts,
        _until_something_is_freed,
        _first_local_peak,
        _after_the_largest_event,
        _last_event_left_out,
        _a_part_is_replaced,
        _freed_whole,
        _sorted_by_part,
        _sorts_in_place,
        _consumes,
        _remembers(),
        _short_floats,
        _in_int32,
        _the_sum_at_the_peak,
        _the_example,
    ],
}
