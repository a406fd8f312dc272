"""How samples lie to each other in the teacher's space: their distances and the angles between them."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.features import Pair, taps_of, vectors_of

SMALLEST = 1e-12  # of a squared distance, in units of the features' mean square: below it two samples count as one


def rkd(
    *,
    student: Annotated[str, "module path in the student"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
    distance: Annotated[float, Range(0, None), "weight of the distances; 0 leaves them out"] = 25.0,
    angle: Annotated[float, Range(0, None), "weight of the angles, whose cost grows with the cube of the batch; 0 leaves them out"] = 50.0,
) -> Term:
    """Relational KD on one vector a sample (maps and tokens are averaged over their places); see `rkd_distance_loss` and `rkd_angle_loss`.

    Raises: ConfigError if both weights are 0; TaskError, in a step, for fewer than 3 samples (2 without angles).
    """
    if not (distance >= 0 and angle >= 0 and distance + angle > 0):
        raise ConfigError(f"rkd.distance and rkd.angle must be ≥ 0 and not both 0, got {distance!r} and {angle!r}. The paper has 25 and 50.")
    pair = Pair(student=student, teacher=teacher)

    def term(seen: Seen) -> Tensor:
        own, theirs = vectors_of(seen, "rkd", pair, least=3 if angle else 2)
        parts = [weight * loss(own, theirs) for weight, loss in ((distance, rkd_distance_loss), (angle, rkd_angle_loss)) if weight]
        return sum(parts[1:], start=parts[0])

    return Term("rkd", term, teacher=True, relational=True, **taps_of([pair]))


def rkd_distance_loss(student: Float[Tensor, "batch own"], teacher: Float[Tensor, "batch theirs"]) -> Float[Tensor, ""]:
    """Huber(‖s_i − s_j‖/μ_S − ‖t_i − t_j‖/μ_T), averaged over the pairs i ≠ j; μ is the mean distance of a side, Huber's width 1.

    Returns: Dimensionless, ≥ 0; rotating, shifting or scaling either side changes nothing.
    Source: Park et al. 2019, arXiv:1904.05068, eq. 5 to 8. Differs: the mean over pairs instead of their sum, as in its public code.
    """
    apart = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    own, theirs = (_squared(_gram(side)).clamp(min=0)[apart] for side in (student, teacher))
    own, theirs = (_root(d) / _root(d).mean().clamp(min=SMALLEST) for d in (own, theirs))
    return F.smooth_l1_loss(own, theirs)


def rkd_angle_loss(student: Float[Tensor, "batch own"], teacher: Float[Tensor, "batch theirs"]) -> Float[Tensor, ""]:
    """Huber(cos ∠s_i s_j s_k − cos ∠t_i t_j t_k), averaged over the triplets of three samples; the angle is at j, Huber's width 1.

    Returns: Dimensionless, in [0, 1.5]; rotating, shifting or scaling either side changes nothing. Memory: batch³ numbers.
    Source: Park et al. 2019, arXiv:1904.05068, eq. 9 and 10. Differs: the mean over triplets instead of their sum.
    """
    three = _three(len(student), student.device)
    own, theirs = (_cosines(_gram(side))[three] for side in (student, teacher))
    return F.smooth_l1_loss(own, theirs)


def _gram(side: Float[Tensor, "batch width"]) -> Float[Tensor, "batch batch"]:
    """Inner products of what is centred (which moves no distance) and of mean square 1 (so that the smallest distance means one thing)."""
    centred = side - side.mean(0)
    centred = centred / centred.detach().square().sum(1).mean().sqrt().clamp(min=SMALLEST)
    return centred @ centred.T


def _squared(gram: Float[Tensor, "batch batch"]) -> Float[Tensor, "batch batch"]:
    norms = gram.diagonal()
    return norms[:, None] + norms[None, :] - 2 * gram


def _root(squared: Tensor) -> Tensor:
    """The square root, with gradient 0 where two samples are one."""
    one = squared <= SMALLEST
    return torch.where(one, 0.0, squared.masked_fill(one, 1.0).sqrt())


def _cosines(gram: Float[Tensor, "batch batch"]) -> Float[Tensor, "batch batch batch"]:
    """[j, i, k]: the cosine of the angle at j between i and k, (i − j)·(k − j) = G_ik − G_ij − G_jk + G_jj; 0 where a side has no length."""
    inner = gram[None] - gram[:, :, None] - gram[:, None, :] + gram.diagonal()[:, None, None]
    lengths = _root(_squared(gram).clamp(min=0))
    inverse = torch.where(lengths > 0, 1 / lengths.masked_fill(lengths == 0, 1.0), 0.0)
    return inner * inverse[:, :, None] * inverse[:, None, :]


def _three(count: int, device: torch.device) -> Bool[Tensor, "batch batch batch"]:
    """Which [j, i, k] are three samples."""
    apart = ~torch.eye(count, dtype=torch.bool, device=device)
    return apart[:, :, None] & apart[:, None, :] & apart[None]
