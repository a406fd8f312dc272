"""The teacher's confidence in the label, and its ranking of the other classes, as cross-entropies."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.dkd import others_of
from limbeck.mechanics.terms.logits import Standardize, logits_of


def nkd(
    *,
    gamma: Annotated[float, Range(0, None), "weight of the other classes"] = 1.5,
    temperature: Annotated[float, Range(0, None, closed="neither"), "softening of the other classes; the label's is never softened"] = 1.0,
    standardize: Standardize = False,
) -> Term:
    """Normalised knowledge distillation: the label weighed by the teacher's belief in it, the other classes on their own; see `nkd_loss`.

    The authors' settings on ImageNet are the defaults, beside 1.0 of the labels' loss. It isn't 0 where both agree. Samples and
    tokens labelled −100 are left out.
    """

    def term(seen: Seen) -> Tensor:
        logits = logits_of(seen, "nkd", standardize=standardize, labelled=True)
        return logits.mean(nkd_rows(logits.student, logits.teacher, logits.label, gamma=gamma, temperature=temperature))  # pyright: ignore[reportArgumentType]

    return Term("nkd", term, teacher=True, labels=True, agrees=False)


def nkd_loss(
    student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"], label: Int[Tensor, " batch"], *, gamma: float = 1.5, temperature: float = 1.0
) -> Float[Tensor, ""]:
    """−p[label] · log q[label] − γ · T² · Σ p̂ · log q̂ over the other classes, averaged over the batch.

    p and q are the teacher's and the student's softmax without softening, p̂ and q̂ those of the other classes alone at
    temperature T.

    Args:
        student: Logits; the only input that receives gradient.
        label: The right class of each sample.
        temperature: Softening T > 0, dimensionless.
    Returns: Loss in nats, > 0.
    Source: Yang et al. 2023, arXiv:2303.13005, §3.1; T² as the authors' code has it.
    """
    return nkd_rows(student, teacher, label, gamma=gamma, temperature=temperature).mean()


def nkd_rows(
    student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"], label: Int[Tensor, " rows"], *, gamma: float, temperature: float
) -> Float[Tensor, " rows"]:
    """`nkd_loss` of each row."""
    teacher = teacher.detach().to(student.dtype)
    confidence = teacher.softmax(-1).gather(-1, label[:, None]).squeeze(-1)
    rest = others_of(teacher, label) / temperature, others_of(student, label) / temperature
    others = -(rest[0].softmax(-1) * F.log_softmax(rest[1], dim=-1)).sum(-1)
    return confidence * F.cross_entropy(student, label, reduction="none") + gamma * temperature**2 * others
