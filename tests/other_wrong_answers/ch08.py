"""Wrong answers to the exercises of chapter 08, written from the statements alone."""

import math

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
}
