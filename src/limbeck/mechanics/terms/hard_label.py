"""What the teacher would have answered: its most probable class as a label."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.logits import logits_of


def hard_label() -> Term:
    """Cross-entropy with the teacher's most probable class; see `hard_label_loss`.

    DeiT takes it with weight ½ beside ½ of the labels' loss. The student isn't softened and nothing is standardized: a
    teacher's argmax is the same at any temperature and scale. It isn't 0 where both agree.
    """

    def term(seen: Seen) -> Tensor:
        logits = logits_of(seen, "hard_label")
        return logits.mean(hard_label_rows(logits.student, logits.teacher))

    return Term("hard_label", term, teacher=True, agrees=False)


def hard_label_loss(student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
    """−log softmax(student)[argmax teacher], averaged over the batch; of equal classes the first is the label.

    Args:
        student: Logits; the only input that receives gradient.
    Returns: Loss in nats, > 0.
    Source: Touvron et al. 2021 (DeiT), arXiv:2012.12877, §3, eq. 3, its second half. Differs: the labels' half is the caller's.
    """
    return hard_label_rows(student, teacher).mean()


def hard_label_rows(student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """`hard_label_loss` of each row."""
    return F.cross_entropy(student, teacher.argmax(-1), reduction="none")
