"""A matrix at a lower rank: it keeps what numpy keeps."""

import numpy as np
import pytest
import torch

from sft_lab.low_rank import kept_energy, truncate


def random_update(seed: int, shape: tuple[int, int] = (12, 7)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (9, 9)], ids=["tall", "wide", "square"])
def test_the_truncation_is_numpys_and_its_error_the_tail_of_the_singular_values(shape):
    for seed in range(20):
        update = random_update(seed, shape).double()
        left, values, right = np.linalg.svd(update.numpy(), full_matrices=False)
        for rank in range(min(shape) + 1):
            near = truncate(update, rank)
            expected = left[:, :rank] @ np.diag(values[:rank]) @ right[:rank]
            np.testing.assert_allclose(near, expected, atol=1e-12)
            assert (update - near).norm().item() == pytest.approx(
                np.linalg.norm(values[rank:]), abs=1e-12
            )
            energy = kept_energy(torch.linalg.svdvals(update), rank)
            assert energy == pytest.approx((values[:rank] ** 2).sum() / (values**2).sum())


def test_full_rank_gives_the_update_back():
    torch.testing.assert_close(truncate(random_update(0), 7), random_update(0))


@pytest.mark.parametrize("rank", [-1, 8])
def test_a_rank_that_the_matrix_cannot_have_is_refused(rank):
    with pytest.raises(ValueError, match=f"rank is {rank}.*from 0 to 7"):
        truncate(random_update(0), rank)


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match="must be a matrix"):
        truncate(torch.ones(3), 1)
