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


RIGHT_ANSWERS = {
    "5.1": [_outer_products, _zeroed, _in_numpy, _projected, _of_the_transpose],
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
}
