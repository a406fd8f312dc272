"""What a weight matrix holds twice or not at all: exact counts, from which nothing follows before it is tried."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

ENERGY = 0.99  # share of the sum of squares that the effective rank keeps
LARGEST = 1024  # rows or columns, whichever are fewer: beyond it the eigenvalues take too long
ZERO = 1e-6  # a channel with a norm below this share of the largest is as good as zero
MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Redundancy:
    """Of a weight seen as output channels × the rest.

    rank: the least number of singular values whose squares hold 99 % of the sum of all; None where the matrix is too large.
    full_rank: how many there are.
    zero_channels: output channels whose norm is below a millionth of the largest.
    duplicate_channels: output channels that are equal, bias too, to an earlier one that isn't zero.
    """

    rank: int | None
    full_rank: int
    zero_channels: int
    duplicate_channels: int


def redundancy(module: nn.Module) -> Redundancy | None:
    """Of a linear layer's or a convolution's weight; None for any other module.

    Source: the best rank-r approximation of a matrix keeps its r largest singular values (Eckart and Young 1936).
    """
    weight = module._parameters.get("weight")
    if not isinstance(module, MATRICES) or weight is None or not weight.numel():
        return None
    matrix = weight.detach().flatten(1).double()
    norms = matrix.norm(dim=1)
    alive = norms > ZERO * norms.max()
    bias = module._parameters.get("bias")
    rows = matrix if bias is None else torch.cat((matrix, bias.detach().double()[:, None]), 1)
    distinct = torch.unique(rows[alive], dim=0).shape[0] if alive.any() else 0
    small = min(matrix.shape)
    return Redundancy(effective_rank(matrix) if small <= LARGEST else None, small, int((~alive).sum()), int(alive.sum()) - distinct)


def effective_rank(matrix: Tensor, *, energy: float = ENERGY) -> int:
    """The least r such that the r largest squared singular values hold `energy` of their sum; 0 for a matrix of zeros."""
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    squares = torch.linalg.eigvalsh(gram).clamp(min=0).flip(0)  # of the smaller side: its eigenvalues are the squared singular values
    total = squares.sum()
    return int((squares.cumsum(0) < energy * total).sum()) + 1 if total > 0 else 0
