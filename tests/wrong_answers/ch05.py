"""Wrong answers to the exercises of chapter 05, each with what its reader is told."""

import torch
import torch.nn.functional as F


def _svd(update):
    return torch.linalg.svd(update, full_matrices=False)


def _near(update, rank):
    left, values, right = _svd(update)
    return (left[:, :rank] * values[:rank]) @ right[:rank], values


def _without_values(update, rank):
    left, values, right = _svd(update)
    return left[:, :rank] @ right[:rank], values[rank:].norm()


def _columns_of_v(update, rank):
    left, values, right = _svd(update)
    return (left[:, :rank] * values[:rank]) @ right[:, :rank].T, values[rank:].norm()


def _smallest(update, rank):
    left, values, right = _svd(update)
    return (left[:, -rank:] * values[-rank:]) @ right[-rank:], values[:-rank].norm()


def _error(form):
    def answer(update, rank):
        near, values = _near(update, rank)
        return near, form(values, rank)

    return answer


def _update(x, a, b):
    return x @ a.T @ b.T


def _padded(a, b, rank):
    more = rank - len(a)
    return F.pad(a, (0, 0, 0, more)), F.pad(b, (0, more))


def _merged_in_place(weight, a, b, alpha):
    weight += (alpha / len(a) * (b @ a)).to(weight.dtype)
    return weight


def _turned(weight, a, b, alpha):
    return weight + alpha / len(a) * (b @ a)


def _dora(form):
    """An answer to 5.6 from a weight that is made of the turned one, W and the magnitude."""

    def answer(x, weight, bias, a, b, alpha, m):
        return F.linear(x, form(_turned(weight, a, b, alpha), weight, m[:, None]), bias)

    return answer


def _magnitude_on_the_bias(x, weight, bias, a, b, alpha, m):
    turned = _turned(weight, a, b, alpha)
    return m * F.linear(x, turned / turned.norm(dim=1, keepdim=True), bias)


def _no_bias(x, weight, bias, a, b, alpha, m):
    turned = _turned(weight, a, b, alpha)
    return F.linear(x, m[:, None] * turned / turned.norm(dim=1, keepdim=True))


WRONG_ANSWERS = {
    "5.1": [
        (_without_values, "the singular values are missing"),
        (_columns_of_v, "the third factor is transposed already"),
        (_smallest, "you kept the smallest singular values"),
        (
            lambda u, k: (u - _near(u, k)[0], _near(u, k)[1][k:].norm()),
            "this is the part that is dropped",
        ),
        (_error(lambda values, k: (values[k:] ** 2).sum()), "this is the squared error"),
        (_error(lambda values, k: values[k:].sum()), "singular values do not add"),
        (_error(lambda values, k: values[k]), "the spectral norm"),
        (_error(lambda values, k: values[:k].norm()), "the length of what is kept"),
        (_error(lambda values, k: values[k:].norm() / values.norm()), "this is the relative error"),
        (lambda u, k: _near(u, k)[0], "return two things"),
    ],
    "5.2": [
        (
            lambda x, w, c, a, b, s: F.linear(x, w, c) + s * _update(x, a, b),
            "alpha is not divided by the rank",
        ),
        (
            lambda x, w, c, a, b, s: F.linear(x, w, c) + _update(x, a, b),
            "the scale alpha / rank is missing",
        ),
        (
            lambda x, w, c, a, b, s: F.linear(x, w, c) + len(a) / s * _update(x, a, b),
            "the scale is upside down",
        ),
        (
            lambda x, w, c, a, b, s: F.linear(x, w, c) + s / a.shape[1] * _update(x, a, b),
            "the inputs of A",
        ),
        (
            lambda x, w, c, a, b, s: F.linear(x, w, c) + s / b.shape[0] * _update(x, a, b),
            "the outputs of B",
        ),
        (
            lambda x, w, c, a, b, s: F.linear(x, w, c) + s / len(a) ** 0.5 * _update(x, a, b),
            "this is rsLoRA's scale",
        ),
        (
            lambda x, w, c, a, b, s: s / len(a) * (F.linear(x, w, c) + _update(x, a, b)),
            "scales the update alone",
        ),
        (lambda x, w, c, a, b, s: s / len(a) * _update(x, a, b), "the frozen layer is missing"),
        (
            lambda x, w, c, a, b, s: F.linear(x, w) + s / len(a) * _update(x, a, b),
            "the bias is missing",
        ),
        (lambda x, w, c, a, b, s: x @ w.T + c + s / len(a) * _update(x, a, b), "NoneType"),
    ],
    "5.3": [
        (lambda a, b, s, r: (*_padded(a, b, r), s), "alpha stayed the same"),
        (lambda a, b, s, r: (*_padded(a, b, r), s * len(a) / r), "upside down"),
        (lambda a, b, s, r: (*_padded(a, b, r), s / len(a)), "this is the scale"),
        (
            lambda a, b, s, r: (*_padded(a, b, r), s * (r / len(a)) ** 0.5),
            "this keeps alpha / √rank",
        ),
        (
            lambda a, b, s, r: (F.pad(a, (0, r - len(a))), b, s),
            "the rank is the dimension that grows",
        ),
        (
            lambda a, b, s, r: (r / len(a) * _padded(a, b, r)[0], _padded(a, b, r)[1], s),
            "the scale belongs into alpha",
        ),
        (lambda a, b, s, r: _padded(a, b, r), "return three things"),
    ],
    "5.4": [
        (
            lambda shapes, r: (c := sum(r * m * n for m, n in shapes), 12 * c),
            "counts full matrices",
        ),
        (
            lambda shapes, r: (c := sum(m * n for m, n in shapes), 12 * c),
            "this counts the frozen weights",
        ),
        (
            lambda shapes, r: (c := sum(m * n + r * (m + n) for m, n in shapes), 12 * c),
            "are not trained: count A",
        ),
        (lambda shapes, r: (c := sum(r * n for _, n in shapes), 12 * c), "B is missing"),
        (lambda shapes, r: (c := sum(r * m for m, _ in shapes), 12 * c), "A is missing"),
        (lambda shapes, r: (c := sum(m + n for m, n in shapes), 12 * c), "the rank is missing"),
        (
            lambda shapes, r: (c := sum(r * (m + n) for m, n in shapes), 8 * c),
            "the gradient is missing",
        ),
        (
            lambda shapes, r: (c := sum(r * (m + n) for m, n in shapes), 3 * c),
            "these are numbers, not bytes",
        ),
        (
            lambda shapes, r: (c := sum(r * (m + n) for m, n in shapes), 16 * c),
            "the weights themselves",
        ),
        (
            lambda shapes, r: (
                sum(r * (m + n) for m, n in shapes),
                12 * sum(m * n for m, n in shapes),
            ),
            "frozen weights have no gradient",
        ),
    ],
    "5.5": [
        (lambda w, a, b, s: w + s * (b @ a), "alpha is not divided by the rank"),
        (lambda w, a, b, s: w + b @ a, "the scale alpha / rank is missing"),
        (lambda w, a, b, s: w - s / len(a) * (b @ a), "the sign is reversed"),
        (lambda w, a, b, s: s / len(a) * (b @ a), "the frozen weight is missing"),
        (lambda w, a, b, s: s / len(a) * (w + b @ a), "scales the update alone"),
        (_merged_in_place, "changed `weight` in place"),
        (lambda w, a, b, s: w.float() + s / len(a) * (b @ a), "give back weight's own dtype"),
        (lambda w, a, b, s: w + (s / len(a) * (b @ a)).to(w.dtype), "rounded more than once"),
    ],
    "5.6": [
        (_dora(lambda turned, w, m: turned), "this is LoRA"),
        (_dora(lambda turned, w, m: m * turned), "the rows are not normalised"),
        (
            _dora(lambda turned, w, m: turned / turned.norm(dim=1, keepdim=True)),
            "the magnitude is missing",
        ),
        (
            _dora(lambda turned, w, m: m * turned / turned.norm(dim=0, keepdim=True)),
            "you normalised columns",
        ),
        (_dora(lambda turned, w, m: m * turned / turned.norm()), "the norm of the whole matrix"),
        (_dora(lambda turned, w, m: m * turned / w.norm(dim=1, keepdim=True)), "the lengths of W"),
        (
            _dora(lambda turned, w, m: m * turned / (turned**2).sum(dim=1, keepdim=True)),
            "this is the squared length",
        ),
        (_dora(lambda turned, w, m: m * w / w.norm(dim=1, keepdim=True)), "the update is missing"),
        (_magnitude_on_the_bias, "the magnitude multiplied the bias"),
        (_no_bias, "the bias is missing"),
    ],
}
