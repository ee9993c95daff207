"""Right answers to the exercises of chapter 05, each in another style; written from the statements
alone."""

import numpy as np
import torch
import torch.nn.functional as F


# 5.1
def _outer_products(update, rank):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    best = torch.zeros_like(update)
    for i in range(rank):
        best = best + S[i] * torch.outer(U[:, i], Vh[i])
    return best, sum((s**2 for s in S[rank:]), torch.tensor(0.0)).sqrt()


def _zeroed(update, rank):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    kept = S.clone()
    kept[rank:] = 0
    return U @ torch.diag(kept) @ Vh, torch.linalg.vector_norm(S[rank:])


def _in_numpy(update, rank):
    U, S, Vh = np.linalg.svd(update.numpy().astype(np.float64), full_matrices=False)
    best = (U[:, :rank] * S[:rank]) @ Vh[:rank]
    error = np.sqrt((S[rank:] ** 2).sum())
    return torch.from_numpy(best).to(update.dtype), torch.tensor(error, dtype=update.dtype)


def _projected(update, rank):
    U, S, _ = torch.linalg.svd(update)
    return U[:, :rank] @ (U[:, :rank].T @ update), S[rank:].norm()


def _of_the_transpose(update, rank):
    left, values, right = torch.svd(update.T)
    best = (right[:, :rank] * values[:rank]) @ left[:, :rank].T
    return best, values[rank:].square().sum().sqrt()


# 5.2
def _by_rows(x, weight, bias, A, B, alpha):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        out = weight @ row + alpha / len(A) * (B @ (A @ row))
        rows.append(out if bias is None else out + bias)
    return torch.stack(rows).reshape(*x.shape[:-1], len(weight))


def _einsum(x, weight, bias, A, B, alpha):
    out = torch.einsum("...i,oi->...o", x, weight)
    out = out + alpha / A.size(0) * torch.einsum("...i,ri,or->...o", x, A, B)
    return out if bias is None else out + bias


def _in_double(x, weight, bias, A, B, alpha):
    big = [part.double() for part in (x, weight, A, B)]
    out = F.linear(big[0], big[1]) + F.linear(F.linear(big[0], big[2]), big[3]) * alpha / len(A)
    if bias is not None:
        out += bias
    return out.to(x.dtype)


# 5.3
def _by_slices(A, B, alpha, rank):
    r = A.shape[0]
    wide_A, wide_B = torch.zeros(rank, A.shape[1]), torch.zeros(B.shape[0], rank)
    wide_A[:r], wide_B[:, :r] = A, B
    return wide_A, wide_B, alpha / r * rank


def _zeros_in_front(A, B, alpha, rank):
    more = rank - len(A)
    wide = (
        torch.cat((A.new_zeros(more, A.shape[1]), A)),
        torch.cat((B.new_zeros(len(B), more), B), 1),
    )
    return *wide, rank * (alpha / len(A))


def _row_by_row(A, B, alpha, rank):
    r = len(A)
    rows = [A[i] if i < r else torch.zeros_like(A[0]) for i in range(rank)]
    columns = [B[:, i] if i < r else torch.zeros_like(B[:, 0]) for i in range(rank)]
    return torch.stack(rows), torch.stack(columns, dim=1), alpha * rank / r


# 5.4
def _counted(shapes, rank):
    trained = 0
    for out, width in shapes:
        trained += rank * width
        trained += out * rank
    return trained, trained * 4 * 3


def _from_tensors(shapes, rank):
    trained = sum(
        torch.empty(rank, width, device="meta").numel()
        + torch.empty(out, rank, device="meta").numel()
        for out, width in shapes
    )
    return trained, 4 * trained + 8 * trained


# 5.5
def _merged_by_rank(weight, A, B, alpha):
    total = weight.float().clone()
    for i in range(len(A)):
        total += alpha / len(A) * B[:, i : i + 1] * A[i : i + 1]
    return total.to(weight.dtype)


# 5.6
def _dora_by_rows(x, weight, bias, A, B, alpha, magnitude):
    turned = weight + alpha / A.shape[0] * B @ A
    columns = []
    for i, row in enumerate(turned):
        column = (x * row).sum(dim=-1) * magnitude[i] / row.square().sum().sqrt()
        columns.append(column if bias is None else column + bias[i])
    return torch.stack(columns, dim=-1)


def _dora_on_the_output(x, weight, bias, A, B, alpha, magnitude):
    scale = alpha / B.shape[1]
    length = (weight + scale * B @ A).norm(dim=1).detach()
    out = (x @ weight.T + scale * (x @ A.T) @ B.T) * (magnitude / length)
    return out + bias if bias is not None else out


def _dora_diagonal(x, weight, bias, A, B, alpha, magnitude):
    turned = torch.addmm(weight, B, A, alpha=alpha / len(A))
    new = torch.diag(magnitude / torch.linalg.vector_norm(turned, dim=1)) @ turned
    return F.linear(x, new, bias)


def _dora_einsum(x, weight, bias, A, B, alpha, magnitude):
    turned = weight + torch.einsum("or,ri->oi", B, A).mul(alpha / len(A))
    unit = turned / torch.einsum("oi,oi->o", turned, turned).sqrt().unsqueeze(-1)
    out = torch.einsum("...i,oi,o->...o", x, unit, magnitude)
    return out + (0 if bias is None else bias)


RIGHT_ANSWERS = {
    "5.1": [_outer_products, _zeroed, _in_numpy, _projected, _of_the_transpose],
    "5.2": [
        lambda x, weight, bias, A, B, alpha: F.linear(x, weight + alpha / len(A) * B @ A, bias),
        lambda x, weight, bias, A, B, alpha: (
            x @ weight.T + (x @ A.T) @ B.T * (alpha / B.shape[1]) + (0 if bias is None else bias)
        ),
        _by_rows,
        _einsum,
        _in_double,
    ],
    "5.3": [
        lambda A, B, alpha, rank: (
            F.pad(A, (0, 0, 0, rank - len(A))),
            F.pad(B, (0, rank - len(A))),
            alpha * rank / len(A),
        ),
        lambda A, B, alpha, rank: (
            torch.vstack((A, torch.zeros(rank - len(A), A.shape[1]))),
            torch.hstack((B, torch.zeros(len(B), rank - len(A)))),
            alpha / (len(A) / rank),
        ),
        _by_slices,
        _zeros_in_front,
        _row_by_row,
    ],
    "5.4": [
        lambda shapes, rank: (
            rank * sum(map(sum, shapes)),
            12 * rank * sum(map(sum, shapes)),
        ),
        lambda shapes, rank: (
            int(np.array(shapes, dtype=np.int64).sum() * rank),
            int(np.array(shapes, dtype=np.int64).sum() * rank * 12),
        ),
        lambda shapes, rank: tuple(
            factor * sum(rank * width + out * rank for out, width in shapes) for factor in (1, 12)
        ),
        _counted,
        _from_tensors,
    ],
    "5.5": [
        lambda weight, A, B, alpha: (weight.float() + alpha / len(A) * (B @ A)).to(weight.dtype),
        lambda weight, A, B, alpha: torch.addmm(weight.float(), B, A, alpha=alpha / len(A)).type_as(
            weight
        ),
        lambda weight, A, B, alpha: (
            weight.to(torch.float32)
            .add(torch.einsum("or,ri->oi", B, A), alpha=alpha / A.size(0))
            .to(weight.dtype)
        ),
        lambda weight, A, B, alpha: (weight + (alpha / B.shape[1] * B) @ A).to(weight.dtype),
        _merged_by_rank,
    ],
    "5.6": [
        lambda x, weight, bias, A, B, alpha, magnitude: F.linear(
            x, magnitude[:, None] * F.normalize(weight + alpha / len(A) * B @ A, dim=1), bias
        ),
        _dora_by_rows,
        _dora_on_the_output,
        _dora_diagonal,
        _dora_einsum,
    ],
}
