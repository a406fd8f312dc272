"""How alike both spaces are, whatever their axes: centred kernel alignment."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.features import Pair, flat_of, taps_of

SMALLEST = 1e-12


def cka(
    *,
    student: Annotated[str, "module path in the student"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
) -> Term:
    """1 − linear CKA of all that a layer gives, padded tokens as 0; see `cka_loss`. Features of any two shapes fit, and nothing is projected.

    Raises: TaskError, in a step, for fewer than 3 samples: two centred samples are always alike.
    """
    pair = Pair(student=student, teacher=teacher)
    return Term("cka", lambda seen: _value(seen, pair), teacher=True, relational=True, **taps_of([pair]))


def _value(seen: Seen, pair: Pair) -> Tensor:
    return cka_loss(*flat_of(seen, "cka", pair, least=3))


def cka_loss(student: Float[Tensor, "batch own"], teacher: Float[Tensor, "batch theirs"]) -> Float[Tensor, ""]:
    """1 − ⟨K, L⟩ / (‖K‖_F · ‖L‖_F), K = S·Sᵀ and L = T·Tᵀ of centred features.

    Returns: In [0, 1]; 0 where one side is a rotation and scaling of the other. Biased: the fewer samples for the width, the nearer to 0.
    Source: Kornblith et al. 2019, arXiv:1905.00414, eq. 3 and 4 with a linear kernel. As a loss for distillation:
    Zhou et al. 2024, arXiv:2401.11824 (over samples alone, without its patches).
    """
    own, theirs = (_gram(side) for side in (student, teacher))
    return 1 - (own * theirs).sum() / (own.norm() * theirs.norm()).clamp(min=SMALLEST)


def _gram(side: Tensor) -> Float[Tensor, "batch batch"]:
    centred = side - side.mean(0)
    return centred @ centred.T
