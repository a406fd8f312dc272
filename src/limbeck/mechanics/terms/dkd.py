"""What the teacher says of the right class, and apart from it what it says of the others."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.logits import Standardize, Temperature, logits_of


def dkd(
    *,
    alpha: Annotated[float, Range(0, None), "weight of how sure the teacher is of the right class"] = 1.0,
    beta: Annotated[float, Range(0, None), "weight of how it ranks the others; the more confident the teacher, the larger"] = 2.0,
    temperature: Temperature = 4.0,
    warm_up: Annotated[float, Range(0, 1), "share of the training over which the term's weight grows from 0 to its own"] = 0.0,
    standardize: Standardize = False,
) -> Term:
    """Decoupled knowledge distillation: kd's two parts with a weight of their own; see `dkd_loss`.

    Published: α 1, T 4, warm-up over 20 of 240 epochs (0.083), β 2 (resnet56 → resnet20) to 8 (resnet32x4 → resnet8x4), beside
    1.0 of the labels' loss. `warm_up` grows by step, from 0. Samples labelled −100 are left out: which class is the right one
    must be known.
    """

    def term(seen: Seen) -> Tensor:
        logits = logits_of(seen, "dkd", standardize=standardize, labelled=True)
        target, others = dkd_rows(logits.student, logits.teacher, logits.label, temperature=temperature)  # pyright: ignore[reportArgumentType]
        return min(seen.done / warm_up, 1.0) * logits.mean(alpha * target + beta * others) if warm_up else logits.mean(alpha * target + beta * others)

    return Term("dkd", term, teacher=True, labels=True)


def dkd_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    label: Int[Tensor, " batch"],
    *,
    alpha: float = 1.0,
    beta: float = 2.0,
    temperature: float = 4.0,
) -> Float[Tensor, ""]:
    """T² · (α · KL(b_t ‖ b_s) + β · KL(p̂_t ‖ p̂_s)), averaged over the batch.

    b is the pair (p of the label, 1 − that), p̂ the probabilities of the other classes made to add up to 1, all at temperature T.
    With α = 1 and β = 1 − p_t(label) it is kd; with two classes the second part is 0.

    Args:
        student: Logits; the only input that receives gradient.
        label: The right class of each sample.
        temperature: Softening T > 0, dimensionless.
    Returns: Loss in nats, ≥ 0; 0 when both softmaxes agree.
    Source: Zhao et al. 2022, arXiv:2203.08679, eq. 7, with kd's T² as the authors' code has it.
    """
    target, others = dkd_rows(student, teacher, label, temperature=temperature)
    return (alpha * target + beta * others).mean()


def dkd_rows(
    student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"], label: Int[Tensor, " rows"], *, temperature: float
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """The divergence of the pair and that of the other classes, of each row, both times T²."""
    s, t = student / temperature, teacher.detach().to(student.dtype) / temperature
    pairs, rest = [_pair(z, label) for z in (s, t)], [F.log_softmax(others_of(z, label), dim=-1) for z in (s, t)]
    target, others = (F.kl_div(own, theirs, reduction="none", log_target=True).sum(-1) for own, theirs in (pairs, rest))
    return target * temperature**2, others * temperature**2


def others_of(logits: Float[Tensor, "rows classes"], label: Int[Tensor, " rows"]) -> Float[Tensor, "rows others"]:
    """Each row without its label's column."""
    rows, classes = logits.shape
    kept = torch.arange(classes, device=logits.device) != label[:, None]
    return logits[kept].view(rows, classes - 1)


def _pair(logits: Tensor, label: Tensor) -> Tensor:
    """log p of the label, and log(1 − p) without a difference that would cancel."""
    both = torch.stack([logits.gather(-1, label[:, None]).squeeze(-1), others_of(logits, label).logsumexp(-1)], -1)
    return F.log_softmax(both, dim=-1)
