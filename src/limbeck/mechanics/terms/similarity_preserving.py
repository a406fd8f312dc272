"""What the teacher holds to be alike: the pattern of similarities within a batch."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.features import Pair, flat_of, taps_of


def similarity_preserving(
    *,
    student: Annotated[str, "module path in the student"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
) -> Term:
    """Match the similarities within a batch of what two modules give; see `similarity_loss`.

    It relates samples to each other, so features of any two shapes fit and nothing is projected; the loss depends on which
    samples share a batch. Padded tokens count as 0.

    Raises: TaskError, in a step, for a batch of one, which has nothing to be alike to.
    """
    pair = Pair(student=student, teacher=teacher)

    def term(seen: Seen) -> Tensor:
        return similarity_loss(*flat_of(seen, "similarity_preserving", pair, least=2))

    return Term("similarity_preserving", term, teacher=True, relational=True, **taps_of([pair]))


def similarity_loss(student: Float[Tensor, "batch own"], teacher: Float[Tensor, "batch theirs"]) -> Float[Tensor, ""]:
    """‖G̃_T − G̃_S‖²_F / b², with G = A·Aᵀ over the batch and each row of G scaled to length 1.

    0 for equal features; unchanged by rotating or scaling either side.
    Source: Tung & Mori 2019, arXiv:1907.09682, eq. 1 to 4.
    """
    own, theirs = (F.normalize(a @ a.T, dim=1) for a in (student, teacher.detach().to(student.dtype)))
    return (theirs - own).square().sum() / len(student) ** 2
