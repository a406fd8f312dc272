"""Where the teacher looks: the energy of its features, place by place."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.features import Pair, average, features_of, some, taps_of


def attention_transfer(
    *,
    pairs: Annotated[tuple[Pair, ...], "layers to match; their values are added"],
    power: Annotated[float, Range(0, None, closed="neither"), "to which the features' magnitudes are raised before they are added over channels"] = 2.0,
) -> Term:
    """Attention transfer: the map of energies over places, each sample's scaled to length 1; see `attention_transfer_loss`.

    Raises: ConfigError without pairs or for a power ≤ 0; TaskError, in a step, if a layer has one place only.
    """
    if not power > 0:
        raise ConfigError(f"attention_transfer.power must be > 0, got {power!r}. 2 is usual; a higher one looks at the strongest places.")
    found = some("attention_transfer", pairs)

    def term(seen: Seen) -> Tensor:
        losses = []
        for pair in found:
            features = features_of(seen, "attention_transfer", pair)
            if features.student.shape[1] < 2:
                raise TaskError(f"attention_transfer compares places, and '{pair.student}' with '{pair.answer}' has one only. Tap layers before the pooling.")
            kept = features.weight > 0
            own, theirs = (side * kept[:, :, None] for side in (features.student, features.teacher))
            losses.append(attention_transfer_loss(own, theirs, features.weight, power=power))
        return sum(losses[1:], start=losses[0])

    return Term("attention_transfer", term, teacher=True, **taps_of(found))


def attention_transfer_loss(
    student: Float[Tensor, "batch places own"], teacher: Float[Tensor, "batch places theirs"], weight: Float[Tensor, "batch places"] | None = None, *, power: float = 2.0
) -> Float[Tensor, ""]:
    """(Q_S/‖Q_S‖₂ − Q_T/‖Q_T‖₂)², Q = Σ_c |a_c|^power over channels, averaged over places and samples.

    Args:
        weight: Of each place, adding up to 1; without it all count alike.
    Returns: Dimensionless, ≥ 0; 0 where both look at the same places. Permuting channels or scaling a sample's features changes nothing.
    Source: Zagoruyko & Komodakis 2016, arXiv:1612.03928, eq. 2, in the squared form averaged over places that its public code and the weight 1000 belong to.
    """
    own, theirs = (F.normalize(side.abs().pow(power).mean(-1), dim=1) for side in (student, teacher))
    return average((own - theirs).square(), weight)
