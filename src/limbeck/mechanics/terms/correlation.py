"""Cosine and Pearson's correlation of rows, as terms use them: finite where a row says nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

CONSTANT = 1e-6  # a row whose deviation is below this share of its size is constant, up to rounding


def cosine_rows(a: Float[Tensor, "rows values"], b: Float[Tensor, "rows values"]) -> Float[Tensor, " rows"]:
    """The cosine of the angle between each pair of rows, in [−1, 1].

    A row of zeros has no direction: two of them agree (1), one alone is at right angles to all (0), and neither gives a gradient.
    """
    return _cosine(a, b, _size(a) > 0, _size(b) > 0)


def correlation_rows(a: Float[Tensor, "rows values"], b: Float[Tensor, "rows values"]) -> Float[Tensor, " rows"]:
    """Pearson's r of each pair of rows, in [−1, 1].

    A row that is constant has no pattern: two of them agree (1), one alone is uncorrelated (0), and neither gives a gradient.
    """
    x, y = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return _cosine(x, y, _varies(a, x), _varies(b, y))


def standardized(rows: Float[Tensor, "rows values"]) -> Float[Tensor, "rows values"]:
    """Each row to mean 0 and standard deviation 1: unchanged by any positive affine map of it. A constant row becomes 0, and gives no gradient."""
    centred = rows - rows.mean(-1, keepdim=True)
    varies = _varies(rows, centred)[..., None]
    spread = torch.where(varies, _size(centred)[..., None] / rows.shape[-1] ** 0.5, 1.0)
    return torch.where(varies, centred / spread, 0.0)


def _cosine(x: Tensor, y: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Of rows of which some say nothing; those are put aside before the division, so that no gradient goes through it."""
    tells = first & second
    x, y = (torch.where(tells[:, None], v, torch.ones_like(v)) for v in (x, y))
    return torch.where(tells, (x * y).sum(-1) / (_size(x) * _size(y)), (first == second).to(x.dtype))


def _varies(rows: Tensor, centred: Tensor) -> Tensor:
    return _size(centred) > CONSTANT * _size(rows)


def _size(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1)
