"""Station "spare": how much of a matrix is left at a lower rank; why a thin update can be enough.

Derived in chapter 05. Source: Eckart and Young 1936, Psychometrika 1, 211-218.
"""

import torch


def truncate(update: torch.Tensor, rank: int) -> torch.Tensor:
    """The matrix of this rank that is nearest to `update`, (out, in), in the sum of squared
    differences.

    It keeps the largest `rank` singular values; rank 0 gives zeros. Raises ValueError for what is
    no matrix and for a rank that it cannot have.
    """
    if update.dim() != 2 or not 0 <= rank <= min(update.shape):
        raise ValueError(
            f"rank is {rank}; an update of shape {tuple(update.shape)} must be a matrix and has "
            f"ranks from 0 to {min(update.shape)}"
        )
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def kept_energy(values: torch.Tensor, rank: int) -> float:
    """Share of the squared entries of a matrix with these singular values that its best `rank`
    keeps, 0 to 1."""
    squares = values.double() ** 2
    return (squares[:rank].sum() / squares.sum()).item()
