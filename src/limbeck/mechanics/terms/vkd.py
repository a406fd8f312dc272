"""The teacher's standardised features, through a projection that keeps lengths and angles."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, taps_of, vectors_of, width_of


def vkd(
    *,
    student: Annotated[str, "module path in the student, as a rule what goes into its head: `in:<head>`"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
) -> Term:
    """V_kD on one vector a sample (maps and tokens are averaged over their places); see `vkd_loss`.

    The projection is a matrix with orthonormal columns (rows, where the teacher is the narrower), which trains with the student: it can
    turn the student's features into the teacher's space, but can't do the student's work for it.
    """
    pair = Pair(student=student, teacher=teacher)

    def builds(wiring: Wiring) -> nn.Module:
        return Orthonormal(width_of(wiring.shape("student", pair.student)), width_of(wiring.shape("teacher", pair.answer)))

    def term(seen: Seen) -> Tensor:
        own, theirs = vectors_of(seen, "vkd", pair)
        return vkd_loss(seen.own(own), theirs)

    return Term("vkd", term, teacher=True, builds=builds, agrees=False, **taps_of([pair]))


class Orthonormal(nn.Module):
    """A linear map whose matrix is the orthonormal part of a free one (Gram–Schmidt): any step, and any weight decay, leaves it orthonormal."""

    def __init__(self, own: int, theirs: int):
        super().__init__()
        self.wide = theirs >= own
        self.free = nn.Parameter(torch.randn(max(own, theirs), min(own, theirs)))

    @property
    def weight(self) -> Float[Tensor, "theirs own"]:
        q, r = torch.linalg.qr(self.free)
        basis = q * r.diagonal().sign()  # the one with a positive diagonal, so that it follows the free matrix smoothly
        return basis if self.wide else basis.T

    def forward(self, student: Float[Tensor, "batch own"]) -> Float[Tensor, "batch theirs"]:
        return student @ self.weight.T


def vkd_loss(projected: Float[Tensor, "batch width"], teacher: Float[Tensor, "batch width"]) -> Float[Tensor, ""]:
    """Huber(projected − standardised teacher) of width 1, averaged over width and samples.

    Each sample of the teacher is brought to mean 0 and variance 1 over its width.
    Returns: Dimensionless, ≥ 0; a positive affine map of the teacher's features changes nothing.
    Source: Miles, Elezi & Deng 2024, arXiv:2403.06213, §3, in its form for recognition (standardised teacher, as in its public code);
    the whitening that the paper has for generation isn't offered. Differs: the orthonormal matrix comes from a QR decomposition, not
    from a matrix exponential.
    """
    return F.smooth_l1_loss(projected, F.layer_norm(teacher, teacher.shape[-1:]))
