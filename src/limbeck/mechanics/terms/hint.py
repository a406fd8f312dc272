"""The teacher's features at one layer, through a projection that trains with the student."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.features import Pair, average, features_of, projector, taps_of


def hint(
    *,
    student: Annotated[str, "module path in the student"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
) -> Term:
    """FitNets: the teacher's features, guessed from the student's by a 1×1 convolution (a linear layer on tokens and vectors); see `hint_loss`."""
    pair = Pair(student=student, teacher=teacher)

    def term(seen: Seen) -> Tensor:
        features = features_of(seen, "hint", pair)
        return hint_loss(seen.own(features.student), features.teacher, features.weight)

    return Term("hint", term, teacher=True, builds=lambda wiring: projector(wiring, pair), agrees=False, **taps_of([pair]))


def hint_loss(
    projected: Float[Tensor, "batch places width"], teacher: Float[Tensor, "batch places width"], weight: Float[Tensor, "batch places"] | None = None
) -> Float[Tensor, ""]:
    """(projected − teacher)², averaged over width, places and samples.

    Args:
        weight: Of each place, adding up to 1; without it all count alike.
    Returns: ≥ 0, in squared units of the teacher's features.
    Source: Romero et al. 2014, arXiv:1412.6550, eq. 3. Differs: the regressor is 1×1 whatever the sizes, for the finer side is averaged
    down to the coarser; it trains with the student, not in a stage before; the mean is taken instead of half the sum.
    """
    return average((projected - teacher).square().mean(-1), weight)
