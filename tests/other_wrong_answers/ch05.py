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
}
