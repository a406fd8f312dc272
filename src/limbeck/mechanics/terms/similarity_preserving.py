"""What the teacher holds to be alike: the pattern of similarities within a batch."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.task import Task
from limbeck.mechanics.objective import Outputs, Term
from limbeck.mechanics.taps import PREFIX


def similarity_preserving(*, student: str, teacher: str) -> Term:
    """Match the similarities within a batch of what two modules give; see `similarity_loss`.

    It relates samples to each other, so features of any two shapes fit and nothing is projected; the loss depends on which
    samples share a batch.

    Args:
        student, teacher: Module paths to tap.
    """

    def term(task: Task, own: Outputs, theirs: Outputs, batch: Any) -> Tensor:
        return similarity_loss(own[PREFIX + student].flatten(1), theirs[PREFIX + teacher].flatten(1))

    return Term("similarity_preserving", term, teacher=True, student_taps=(student,), teacher_taps=(teacher,))


def similarity_loss(student: Float[Tensor, "batch own"], teacher: Float[Tensor, "batch theirs"]) -> Float[Tensor, ""]:
    """‖G̃_T − G̃_S‖²_F / b², with G = A·Aᵀ over the batch and each row of G scaled to length 1.

    0 for equal features; unchanged by rotating or scaling either side.
    Source: Tung & Mori 2019, arXiv:1907.09682, eq. 1 to 4.
    """
    own, theirs = (F.normalize(a @ a.T, dim=1) for a in (student, teacher.detach().to(student.dtype)))
    return (theirs - own).square().sum() / len(student) ** 2
