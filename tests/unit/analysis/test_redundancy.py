"""Ranks and channels of matrices that were made so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.analysis.redundancy import LARGEST, Redundancy, effective_rank, redundancy


def orthogonal(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


@pytest.mark.parametrize(
    ("values", "rank"),
    [([1.0] * 8, 8), ([10.0, 0.1, 0.1], 1), ([3.0, 4.0], 2), ([1.0, 0.0, 0.0], 1), ([99**0.5, 1.0], 1), ([98**0.5, 1.0, 1.0], 2)],
    ids=["flat", "one large", "two", "rank one", "exactly 99 %", "just below"],
)
@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_effective_rank_of_chosen_singular_values(values: list[float], rank: int, shape: tuple[int, int]) -> None:
    k = len(values)
    matrix = orthogonal(shape[0], k, 0) @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ orthogonal(shape[1], k, 1).T
    assert effective_rank(matrix * (1 + 1e-9), energy=0.99 - 1e-9) == rank


def test_zero_and_duplicate_channels_are_counted_once_each() -> None:
    layer = nn.Linear(5, 6)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.weight[3] = layer.weight[0]
        layer.bias[3] = layer.bias[0]
        layer.weight[4] = layer.weight[0]  # another bias: another channel
    found = redundancy(layer)
    assert found is not None and (found.zero_channels, found.duplicate_channels, found.full_rank) == (1, 1, 5)
    assert found.rank is not None and found.rank <= 3


def test_convolutions_count_by_output_channel_and_zeros_have_no_rank() -> None:
    layer = nn.Conv2d(3, 4, 3, bias=False)
    nn.init.zeros_(layer.weight)
    assert redundancy(layer) == Redundancy(0, 4, 4, 0)


def test_what_has_no_matrix_has_none_and_what_is_too_large_is_not_ranked() -> None:
    assert redundancy(nn.BatchNorm2d(3)) is None and redundancy(nn.ReLU()) is None
    large = redundancy(nn.Linear(LARGEST + 1, LARGEST + 1))
    assert large is not None and large.rank is None and large.full_rank == LARGEST + 1
