"""Wrong answers to the exercises of chapter 05, written from the statements alone."""

import torch
import torch.nn.functional as F


# 5.1
def _truncated(update, rank, error):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank], error(S, rank)


def _cut(update, rank):
    """The matrix alone."""
    return _truncated(update, rank, lambda S, rank: S)[0]


def _left_only(update, rank):
    U, S, _ = torch.linalg.svd(update, full_matrices=False)
    best = torch.zeros_like(update)
    best[:, :rank] = U[:, :rank] * S[:rank]
    return best, S[rank:].norm()


def _first_columns(update, rank):
    best = update.clone()
    best[:, rank:] = 0
    return best, torch.linalg.svdvals(update)[rank:].norm()


def _longest_rows(update, rank):
    best = torch.zeros_like(update)
    longest = update.norm(dim=1).topk(rank).indices
    best[longest] = update[longest]
    return best, torch.linalg.svdvals(update)[rank:].norm()


def _in_place(update, rank):
    best, error = _truncated(update, rank, lambda S, rank: S[rank:].norm())
    return update.copy_(best), error


def _smallest_values(update, rank):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    return (U[:, -rank:] * S[-rank:]) @ Vh[-rank:], S[:-rank].norm()


def _measured(update, rank):
    """The statement asks for the error from the singular values alone."""
    best = _cut(update, rank)
    return best, ((update - best) ** 2).sum().sqrt()


# 5.2
def _lora(x, weight, bias, A, B, scale):
    out = x @ weight.T + scale * (x @ A.T) @ B.T
    return out if bias is None else out + bias


def _everything_scaled(x, weight, bias, A, B, alpha):
    scale = alpha / len(A)
    out = x @ weight.T + (x @ A.T @ B.T + (0 if bias is None else bias)) * scale
    return out


def _weight_in_place(x, weight, bias, A, B, alpha):
    weight += alpha / len(A) * B @ A
    return F.linear(x, weight, bias)


def _x_in_place(x, weight, bias, A, B, alpha):
    out = x @ weight.T + (0 if bias is None else bias)
    x *= alpha / len(A)
    return out + x @ A.T @ B.T


def _A_in_place(x, weight, bias, A, B, alpha):
    A.mul_(alpha / len(A))
    return F.linear(x, weight + B @ A, bias)


def _rows_flattened(x, weight, bias, A, B, alpha):
    return _lora(x.reshape(-1, x.shape[-1]), weight, bias, A, B, alpha / len(A))


def _bias_twice(x, weight, bias, A, B, alpha):
    return F.linear(x, weight, bias) + F.linear(F.linear(x, A), B, bias) * alpha / len(A)


# 5.3
def _pad(A, B, rank):
    more = rank - len(A)
    return F.pad(A, (0, 0, 0, more)), F.pad(B, (0, more))


def _random_rows_of_A(A, B, alpha, rank):
    """B's zeros silence them, but the statement asks for zeros in both."""
    more = torch.randn(rank - len(A), A.shape[1], dtype=A.dtype)
    return torch.cat((A, more)), _pad(A, B, rank)[1], alpha * rank / len(A)


def _random_columns_of_B(A, B, alpha, rank):
    more = torch.randn(len(B), rank - len(A), dtype=B.dtype)
    return _pad(A, B, rank)[0], torch.cat((B, more), dim=1), alpha * rank / len(A)


def _at_unlike_ends(A, B, alpha, rank):
    more = rank - len(A)
    return F.pad(A, (0, 0, more, 0)), F.pad(B, (0, more)), alpha * rank / len(A)


def _repeated(A, B, alpha, rank):
    places = [i % len(A) for i in range(rank)]
    return A[places], B[:, places], alpha


def _scaled_A(A, B, alpha, rank):
    """Computes the same, but the statement asks for the alpha that does it."""
    wide_A, wide_B = _pad(A, B, rank)
    return wide_A * rank / len(A), wide_B, alpha


def _scaled_in_place(A, B, alpha, rank):
    r = len(A)
    B.mul_(rank / r)
    return *_pad(A, B, rank), alpha


def _split_in_two(A, B, alpha, rank):
    return *_pad(A / 2, B * 2, rank), alpha * rank / len(A)


# 5.4
def _per_layer(count, bytes_each=12):
    def answer(shapes, rank):
        trained = sum(count(out, width, rank) for out, width in shapes)
        return trained, trained * bytes_each

    return answer


# 5.5
def _delta(A, B, alpha):
    return alpha / len(A) * (B @ A)


def _add_in_place(weight, A, B, alpha):
    weight += _delta(A, B, alpha).to(weight.dtype)
    return weight


def _float_is_no_copy(weight, A, B, alpha):
    return weight.float().add_(_delta(A, B, alpha)).to(weight.dtype)


def _same_when_nothing_changes(weight, A, B, alpha):
    delta = _delta(A, B, alpha)
    return weight if not delta.any() else (weight.float() + delta).to(weight.dtype)


def _factor_in_place(weight, A, B, alpha):
    B.mul_(alpha / len(A))
    return (weight.float() + B @ A).to(weight.dtype)


def _copied_into_the_old(weight, A, B, alpha):
    return weight.copy_(weight.float() + _delta(A, B, alpha))


def _cut_off_to_half(weight, A, B, alpha):
    """bfloat16 are the first 16 bits of a float32: the others cut off instead of rounded."""
    merged = weight.float() + _delta(A, B, alpha)
    if weight.dtype == torch.bfloat16:
        merged = (merged.view(torch.int32) & -(2**16)).view(torch.float32)
    return merged.to(weight.dtype)


def _float16_rounded_twice(weight, A, B, alpha):
    update = _delta(A, B, alpha)
    half = weight.dtype == torch.float16
    return weight + update.half() if half else (weight.float() + update).to(weight.dtype)


# 5.6
def _dora(x, weight, bias, A, B, alpha, magnitude, length, scale=None):
    turned = weight + (alpha / len(A) if scale is None else scale) * B @ A
    return F.linear(x, magnitude[:, None] * turned / length(turned, weight), bias)


def _rows(matrix):
    return matrix.norm(dim=1, keepdim=True)


def _bias_scaled(x, weight, bias, A, B, alpha, magnitude):
    turned = weight + alpha / len(A) * B @ A
    return F.linear(x, turned, bias) * (magnitude / turned.norm(dim=1))


def _bias_needed(x, weight, bias, A, B, alpha, magnitude):
    turned = weight + alpha / len(A) * B @ A
    return x @ (magnitude[:, None] * turned / _rows(turned)).T + bias


def _magnitude_of_columns(x, weight, bias, A, B, alpha, magnitude):
    turned = weight + alpha / len(A) * B @ A
    scale = magnitude.mean() * torch.ones(weight.shape[1])
    return F.linear(x, turned / _rows(turned) * scale, bias)


def _update_alone_normalised(x, weight, bias, A, B, alpha, magnitude):
    update = alpha / len(A) * B @ A
    return F.linear(x, weight + magnitude[:, None] * update / _rows(update), bias)


def _turns_the_weight(x, weight, bias, A, B, alpha, magnitude):
    weight += alpha / len(A) * B @ A
    return F.linear(x, magnitude[:, None] * weight / _rows(weight), bias)


def _normalises_the_input(x, weight, bias, A, B, alpha, magnitude):
    turned = weight + alpha / len(A) * B @ A
    return F.linear(F.normalize(x, dim=-1), magnitude[:, None] * turned, bias)


def _normalises_the_output(x, weight, bias, A, B, alpha, magnitude):
    out = F.linear(x, weight + alpha / len(A) * B @ A)
    return magnitude * F.normalize(out, dim=-1) + (0 if bias is None else bias)


OTHER_WRONG_ANSWERS = {
    "5.1": [
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank:].sum()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: (S[rank:] ** 2).sum()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank:][:1].sum()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[:rank].norm()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank + 1 :].norm()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank:].norm() / S.norm()),
        lambda update, rank: _truncated(
            update, rank, lambda S, rank: S[rank:].norm() / update.numel() ** 0.5
        ),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S.norm() - S[:rank].norm()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank:]),
        lambda update, rank: _truncated(update, rank + 1, lambda S, rank: S[rank - 1 :].norm()),
        lambda update, rank: _truncated(update, max(rank - 1, 1), lambda S, rank: S[rank:].norm()),
        lambda update, rank: _truncated(update, 2, lambda S, rank: S[rank:].norm()),
        lambda update, rank: (
            torch.linalg.svd(update)[0][:, :rank] @ torch.linalg.svd(update)[2][:rank],
            torch.linalg.svdvals(update)[rank:].norm(),
        ),
        lambda update, rank: (_cut(update, rank).T, torch.linalg.svdvals(update)[rank:].norm()),
        lambda update, rank: (
            _cut(update, rank).tolist(),
            torch.linalg.svdvals(update)[rank:].norm(),
        ),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank:].norm())[::-1],
        lambda update, rank: _cut(update, rank),
        _left_only,
        _first_columns,
        _longest_rows,
        _in_place,
        _smallest_values,
        _measured,
    ],
    "5.2": [
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, None, A, B, alpha / len(A)),
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, alpha),
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, 1),
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, alpha / len(B)),
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, alpha / A.shape[1]),
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, alpha / len(A) ** 0.5),
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, alpha // len(A)),
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, -alpha / len(A)),
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, len(A) / alpha),
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, 16 / 8),
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, alpha / 8),
        lambda x, weight, bias, A, B, alpha: _lora(x, 0 * weight, bias, A, B, alpha / len(A)),
        lambda x, weight, bias, A, B, alpha: x @ weight.T + alpha / len(A) * x @ A.T @ B.T + bias,
        lambda x, weight, bias, A, B, alpha: _lora(x, weight, bias, A, B, alpha / len(A)).tolist(),
        lambda x, weight, bias, A, B, alpha: F.linear(
            F.linear(x, weight, bias), (torch.eye(len(B)) + alpha / len(A) * B @ B.T)
        ),
        _everything_scaled,
        _weight_in_place,
        _x_in_place,
        _A_in_place,
        _rows_flattened,
        _bias_twice,
    ],
    "5.3": [
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha * len(A) / rank),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha * (rank // len(A))),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), int(alpha * rank / len(A))),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha * (rank / len(A)) ** 0.5),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha * 2),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha + rank - len(A)),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), 2 * rank),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha / len(A)),
        lambda A, B, alpha, rank: (*_pad(A, B, rank)[::-1], alpha * rank / len(A)),
        lambda A, B, alpha, rank: (*_pad(A, B, rank + len(A)), alpha * rank / len(A)),
        lambda A, B, alpha, rank: (A, B, alpha),
        lambda A, B, alpha, rank: (
            F.pad(A, (0, rank - len(A))),
            F.pad(B, (0, 0, 0, rank - len(A))),
            alpha * rank / len(A),
        ),
        lambda A, B, alpha, rank: (
            F.pad(A, (0, 0, 0, rank - len(A)), value=1.0),
            F.pad(B, (0, rank - len(A)), value=1.0),
            alpha * rank / len(A),
        ),
        _random_rows_of_A,
        _random_columns_of_B,
        _at_unlike_ends,
        _repeated,
        _scaled_A,
        _scaled_in_place,
        _split_in_two,
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha * rank / len(B)),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), round(alpha * rank / len(A))),
    ],
    "5.4": [
        _per_layer(lambda out, width, rank: rank * (out + width), 16),
        _per_layer(lambda out, width, rank: rank * (out + width), 8),
        _per_layer(lambda out, width, rank: rank * (out + width), 4),
        _per_layer(lambda out, width, rank: rank * (out + width), 3),
        _per_layer(lambda out, width, rank: rank * (out + width), 12.0),
        _per_layer(lambda out, width, rank: rank * (out + width), 6),
        _per_layer(lambda out, width, rank: rank * width),
        _per_layer(lambda out, width, rank: rank * out),
        _per_layer(lambda out, width, rank: out * width),
        _per_layer(lambda out, width, rank: rank * out * width),
        _per_layer(lambda out, width, rank: rank + out + width),
        _per_layer(lambda out, width, rank: out + width),
        _per_layer(lambda out, width, rank: 2 * rank * width),
        _per_layer(lambda out, width, rank: 8 * (out + width)),
        _per_layer(lambda out, width, rank: rank * (out + width) + rank * rank),
        _per_layer(lambda out, width, rank: out * width + rank * (out + width)),
        lambda shapes, rank: _per_layer(lambda o, w, r: r * (o + w))(set(shapes), rank),
        lambda shapes, rank: _per_layer(lambda o, w, r: r * (o + w))(shapes[:1], rank),
        lambda shapes, rank: _per_layer(lambda o, w, r: r * (o + w))(shapes[-1:], rank),
        lambda shapes, rank: _per_layer(lambda o, w, r: r * (o + w))(
            shapes[:1] * len(shapes), rank
        ),
        lambda shapes, rank: _per_layer(lambda o, w, r: r * (o + w))(shapes, rank)[::-1],
        lambda shapes, rank: _per_layer(lambda o, w, r: r * (o + w))(shapes, rank)[0],
        lambda shapes, rank: _per_layer(lambda o, w, r: min(r, o, w) * (o + w))(shapes, rank),
    ],
    "5.5": [
        lambda weight, A, B, alpha: weight + _delta(A, B, alpha).to(weight.dtype),
        lambda weight, A, B, alpha: weight.float() + _delta(A, B, alpha),
        lambda weight, A, B, alpha: (weight.float() + alpha * (B @ A)).to(weight.dtype),
        lambda weight, A, B, alpha: (weight.float() + B @ A).to(weight.dtype),
        lambda weight, A, B, alpha: (weight.float() - _delta(A, B, alpha)).to(weight.dtype),
        lambda weight, A, B, alpha: (weight.float() + alpha / len(B) * (B @ A)).to(weight.dtype),
        lambda weight, A, B, alpha: (weight.float() + alpha / len(A) ** 0.5 * (B @ A)).to(
            weight.dtype
        ),
        lambda weight, A, B, alpha: (
            weight + alpha / len(A) * B.to(weight.dtype) @ A.to(weight.dtype)
        ),
        lambda weight, A, B, alpha: weight.clone(),
        lambda weight, A, B, alpha: _delta(A, B, alpha).to(weight.dtype),
        lambda weight, A, B, alpha: (weight.float() + _delta(A, B, alpha)).half(),
        lambda weight, A, B, alpha: (weight.float() + _delta(A, B, alpha)).bfloat16(),
        lambda weight, A, B, alpha: (
            (weight.float() + _delta(A, B, alpha)).bfloat16().to(weight.dtype)
        ),
        lambda weight, A, B, alpha: (weight.float() + (B @ A).to(weight.dtype) * alpha / len(A)).to(
            weight.dtype
        ),
        lambda weight, A, B, alpha: (weight.float() + _delta(A, B, alpha)).to(weight.dtype).T,
        lambda weight, A, B, alpha: (weight.float() + _delta(A, B, alpha)).tolist(),
        _add_in_place,
        _float_is_no_copy,
        _same_when_nothing_changes,
        _factor_in_place,
        _copied_into_the_old,
        _cut_off_to_half,
        _float16_rounded_twice,
    ],
    "5.6": [
        lambda *given: _dora(*given, lambda turned, weight: turned.norm(dim=0, keepdim=True)),
        lambda *given: _dora(*given, lambda turned, weight: turned.norm()),
        lambda *given: _dora(*given, lambda turned, weight: _rows(weight)),
        lambda *given: _dora(*given, lambda turned, weight: 1),
        lambda *given: _dora(*given, lambda turned, weight: _rows(turned) ** 2),
        lambda *given: _dora(*given, lambda turned, weight: turned.abs().sum(1, keepdim=True)),
        lambda *given: _dora(*given, lambda turned, weight: turned.amax(1, keepdim=True)),
        lambda *given: _dora(*given, lambda turned, weight: turned.mean(1, keepdim=True)),
        lambda *given: _dora(*given, lambda turned, weight: _rows(turned) + 0.1),
        lambda *given: _dora(*given, lambda turned, weight: _rows(turned), scale=given[5]),
        lambda *given: _dora(*given, lambda turned, weight: _rows(turned), scale=1),
        lambda *given: _dora(*given, lambda turned, weight: _rows(turned), scale=0),
        lambda *given: _dora(
            *given, lambda turned, weight: _rows(turned), scale=given[5] / len(given[3]) ** 0.5
        ),
        lambda *given: _dora(*given[:6], given[6] * 0 + 1, lambda turned, weight: _rows(turned)),
        lambda *given: _dora(*given[:6], given[6] ** 2, lambda turned, weight: _rows(turned)),
        lambda *given: _dora(
            *given[:6], _rows(given[1])[:, 0], lambda turned, weight: _rows(turned)
        ),
        lambda *given: _dora(
            given[0], given[1], None, *given[3:], lambda turned, weight: _rows(turned)
        ),
        _bias_scaled,
        _bias_needed,
        _magnitude_of_columns,
        _update_alone_normalised,
        _turns_the_weight,
        _normalises_the_input,
        _normalises_the_output,
    ],
}
