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


def _what_is_dropped(update, rank):
    near, values = _near(update, rank)
    return update - near, values[rank:].norm()


def _error(form):
    def answer(update, rank):
        near, values = _near(update, rank)
        return near, form(values, rank)

    return answer


def _update(x, a, b):
    return x @ a.T @ b.T


def _lora(form):
    """An answer to 5.2 from the frozen layer's output, the update, alpha, A and B."""

    def answer(x, weight, bias, a, b, alpha):
        return form(F.linear(x, weight, bias), _update(x, a, b), alpha, a, b)

    return answer


def _forgets_bias(x, weight, bias, a, b, alpha):
    return F.linear(x, weight) + alpha / len(a) * _update(x, a, b)


def _cannot_do_without_bias(x, weight, bias, a, b, alpha):
    return x @ weight.T + bias + alpha / len(a) * _update(x, a, b)


def _padded(a, b, rank):
    more = rank - len(a)
    return F.pad(a, (0, 0, 0, more)), F.pad(b, (0, more))


def _wide(new_alpha):
    """Padded factors, and an alpha from the old one, the old rank and the new."""
    return lambda a, b, alpha, rank: (*_padded(a, b, rank), new_alpha(alpha, len(a), rank))


def _wider_inputs(a, b, alpha, rank):
    return F.pad(a, (0, rank - len(a))), b, alpha


def _scales_a_factor(a, b, alpha, rank):
    wide_a, wide_b = _padded(a, b, rank)
    return rank / len(a) * wide_a, wide_b, alpha


def _numbers(count):
    """A budget from the count of one layer: (out, in, rank) to trained numbers."""

    def answer(shapes, rank):
        trained = sum(count(rows, columns, rank) for rows, columns in shapes)
        return trained, 12 * trained

    return answer


def _trained(shapes, rank):
    return sum(rank * (rows + columns) for rows, columns in shapes)


def _bytes_a_number(size):
    return lambda shapes, rank: (_trained(shapes, rank), size * _trained(shapes, rank))


def _bytes_of_frozen(shapes, rank):
    return _trained(shapes, rank), 12 * sum(rows * columns for rows, columns in shapes)


def _merged_in_place(weight, a, b, alpha):
    weight += (alpha / len(a) * (b @ a)).to(weight.dtype)
    return weight


def _turned(weight, a, b, alpha):
    return weight + alpha / len(a) * (b @ a)


def _lengths(matrix):
    return matrix.norm(dim=1, keepdim=True)


def _dora(form):
    """An answer to 5.6 from a weight that is made of the turned one, W and the magnitude."""

    def answer(x, weight, bias, a, b, alpha, m):
        return F.linear(x, form(_turned(weight, a, b, alpha), weight, m[:, None]), bias)

    return answer


def _magnitude_on_the_bias(x, weight, bias, a, b, alpha, m):
    turned = _turned(weight, a, b, alpha)
    return m * F.linear(x, turned / _lengths(turned), bias)


def _no_bias(x, weight, bias, a, b, alpha, m):
    turned = _turned(weight, a, b, alpha)
    return F.linear(x, m[:, None] * turned / _lengths(turned))


WRONG_ANSWERS = {
    "5.1": [
        (_without_values, "the singular values are missing"),
        (_columns_of_v, "the third factor is transposed already"),
        (_smallest, "you kept the smallest singular values"),
        (_what_is_dropped, "this is the part that is dropped"),
        (_error(lambda values, k: (values[k:] ** 2).sum()), "this is the squared error"),
        (_error(lambda values, k: values[k:].sum()), "singular values do not add"),
        (_error(lambda values, k: values[k]), "the spectral norm"),
        (_error(lambda values, k: values[:k].norm()), "the length of what is kept"),
        (_error(lambda values, k: values[k:].norm() / values.norm()), "this is the relative error"),
        (lambda u, k: _near(u, k)[0], "return two things"),
    ],
    "5.2": [
        (_lora(lambda plain, update, s, a, b: plain + s * update), "not divided by the rank"),
        (_lora(lambda plain, update, s, a, b: plain + update), "the scale alpha / rank is missing"),
        (_lora(lambda plain, update, s, a, b: plain + len(a) / s * update), "upside down"),
        (_lora(lambda plain, update, s, a, b: plain + s / a.shape[1] * update), "the inputs of A"),
        (_lora(lambda plain, update, s, a, b: plain + s / len(b) * update), "the outputs of B"),
        (_lora(lambda plain, update, s, a, b: plain + s / len(a) ** 0.5 * update), "rsLoRA's"),
        (_lora(lambda plain, update, s, a, b: s / len(a) * (plain + update)), "the update alone"),
        (_lora(lambda plain, update, s, a, b: s / len(a) * update), "the frozen layer is missing"),
        (_forgets_bias, "the bias is missing"),
        (_cannot_do_without_bias, "NoneType"),
    ],
    "5.3": [
        (_wide(lambda alpha, old, new: alpha), "alpha stayed the same"),
        (_wide(lambda alpha, old, new: alpha * old / new), "upside down"),
        (_wide(lambda alpha, old, new: alpha / old), "this is the scale"),
        (_wide(lambda alpha, old, new: alpha * (new / old) ** 0.5), "this keeps alpha / √rank"),
        (_wider_inputs, "the rank is the dimension that grows"),
        (_scales_a_factor, "the scale belongs into alpha"),
        (lambda a, b, alpha, rank: _padded(a, b, rank), "return three things"),
    ],
    "5.4": [
        (_numbers(lambda rows, columns, rank: rank * rows * columns), "counts full matrices"),
        (_numbers(lambda rows, columns, rank: rows * columns), "this counts the frozen weights"),
        (_numbers(lambda m, n, rank: m * n + rank * (m + n)), "are not trained: count A"),
        (_numbers(lambda rows, columns, rank: rank * columns), "B is missing"),
        (_numbers(lambda rows, columns, rank: rank * rows), "A is missing"),
        (_numbers(lambda rows, columns, rank: rows + columns), "the rank is missing"),
        (_bytes_a_number(8), "the gradient is missing"),
        (_bytes_a_number(3), "these are numbers, not bytes"),
        (_bytes_a_number(16), "the weights themselves"),
        (_bytes_of_frozen, "frozen weights have no gradient"),
    ],
    "5.5": [
        (lambda w, a, b, s: w + s * (b @ a), "alpha is not divided by the rank"),
        (lambda w, a, b, s: w + b @ a, "the scale alpha / rank is missing"),
        (lambda w, a, b, s: w - s / len(a) * (b @ a), "the sign is reversed"),
        (lambda w, a, b, s: s / len(a) * (b @ a), "the frozen weight is missing"),
        (lambda w, a, b, s: s / len(a) * (w + b @ a), "scales the update alone"),
        (_merged_in_place, "changed `weight` in place"),
        (lambda w, a, b, s: w.float() + s / len(a) * (b @ a), "give back weight's own dtype"),
        (lambda w, a, b, s: w + (s / len(a) * (b @ a)).to(w.dtype), "one rounding gives at most"),
    ],
    "5.6": [
        (_dora(lambda turned, w, m: turned), "this is LoRA"),
        (_dora(lambda turned, w, m: m * turned), "the rows are not normalised"),
        (_dora(lambda turned, w, m: turned / _lengths(turned)), "the magnitude is missing"),
        (_dora(lambda turned, w, m: m * turned / turned.norm(dim=0)), "you normalised columns"),
        (_dora(lambda turned, w, m: m * turned / turned.norm()), "the norm of the whole matrix"),
        (_dora(lambda turned, w, m: m * turned / _lengths(w)), "the lengths of W"),
        (_dora(lambda turned, w, m: m * turned / _lengths(turned) ** 2), "the squared length"),
        (_dora(lambda turned, w, m: m * w / _lengths(w)), "the update is missing"),
        (_magnitude_on_the_bias, "the magnitude multiplied the bias"),
        (_no_bias, "the bias is missing"),
    ],
}
