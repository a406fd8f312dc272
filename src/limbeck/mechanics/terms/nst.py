"""What each of the teacher's neurons answers to, as a distribution over places."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import TaskError
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.features import Pair, features_of, some, taps_of


def nst(*, pairs: Annotated[tuple[Pair, ...], "layers to match; their values are added"]) -> Term:
    """Neuron selectivity transfer with the polynomial kernel: the MMD between both sides' channels; see `nst_loss`.

    Channels may differ in number: nothing is projected.
    Raises: ConfigError without pairs; TaskError, in a step, if a layer has one place only.
    """
    found = some("nst", pairs)

    def term(seen: Seen) -> Tensor:
        losses = []
        for pair in found:
            features = features_of(seen, "nst", pair)
            if features.student.shape[1] < 2:
                raise TaskError(f"nst compares channels over places, and '{pair.student}' with '{pair.answer}' has one only. Tap layers before the pooling.")
            kept = (features.weight > 0)[:, :, None]
            losses.append(nst_loss(features.student * kept, features.teacher * kept))
        return sum(losses[1:], start=losses[0])

    return Term("nst", term, teacher=True, **taps_of(found))


def nst_loss(student: Float[Tensor, "batch places own"], teacher: Float[Tensor, "batch places theirs"]) -> Float[Tensor, ""]:
    """mean k(t_i, t_j) + mean k(s_i, s_j) − 2 · mean k(s_i, t_j) over channels, averaged over samples; k(x, y) = (x · y)², each channel's map of length 1.

    Returns: Dimensionless, ≥ 0; permuting channels, or scaling any of them, changes nothing; rotating channels does.
    Memory: batch · channels² numbers.
    Source: Huang & Wang 2017, arXiv:1707.01219, eq. 5 to 8 with d = 2 and c = 0. Differs: the squared MMD isn't halved.
    """
    own, theirs = (F.normalize(side, dim=1) for side in (student, teacher))
    kernel = lambda a, b: (a.transpose(1, 2) @ b).square().mean()  # noqa: E731
    return kernel(theirs, theirs) + kernel(own, own) - 2 * kernel(own, theirs)
