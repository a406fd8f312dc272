"""How samples correlate in the teacher's space, under a Gaussian kernel."""

from __future__ import annotations

import math
from typing import Annotated

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.features import Pair, taps_of, vectors_of


def correlation_congruence(
    *,
    student: Annotated[str, "module path in the student"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
    gamma: Annotated[float, Range(0, None, closed="neither"), "of the Gaussian kernel exp(−γ · ‖x − y‖²) between vectors of length 1"] = 0.4,
    order: Annotated[int, Range(1, None), "of the kernel's Taylor series: how many powers of the cosine are told apart"] = 2,
) -> Term:
    """Correlation congruence on one vector a sample (maps and tokens are averaged over their places); see `correlation_congruence_loss`.

    Raises: ConfigError for γ ≤ 0 or an order below 1; TaskError, in a step, for a batch of one.
    """
    if not (gamma > 0 and order >= 1):
        raise ConfigError(f"correlation_congruence needs gamma > 0 and order ≥ 1, got {gamma!r} and {order!r}. The paper has 0.4 and 2.")
    pair = Pair(student=student, teacher=teacher)

    def term(seen: Seen) -> Tensor:
        return correlation_congruence_loss(*vectors_of(seen, "correlation_congruence", pair, least=2), gamma=gamma, order=order)

    return Term("correlation_congruence", term, teacher=True, relational=True, **taps_of([pair]))


def correlation_congruence_loss(student: Float[Tensor, "batch own"], teacher: Float[Tensor, "batch theirs"], *, gamma: float = 0.4, order: int = 2) -> Float[Tensor, ""]:
    """‖C_T − C_S‖²_F / b², C_ij = Σ_{p ≤ order} e^(−2γ) · (2γ)^p / p! · cos(x_i, x_j)^p.

    Returns: Dimensionless, ≥ 0; rotating or scaling either side changes nothing. For a high order C is exp(−γ · ‖x_i − x_j‖²) of vectors of length 1.
    Source: Peng et al. 2019, arXiv:1904.01802, §3.2 and §3.3 (the generalised kernel).
    """
    own, theirs = (_kernel(side, gamma, order) for side in (student, teacher))
    return (theirs - own).square().mean()


def _kernel(side: Tensor, gamma: float, order: int) -> Float[Tensor, "batch batch"]:
    unit = F.normalize(side, dim=1)
    cosines = unit @ unit.T
    scale = math.exp(-2 * gamma)
    powers = [scale * (2 * gamma) ** p / math.factorial(p) * cosines**p for p in range(1, order + 1)]
    return sum(powers, start=cosines.new_full((), scale))
