"""The teacher's probabilities, softened, for a student that isn't."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.logits import Standardize, logits_of


def ttm(
    *,
    temperature: Annotated[float, Range(0, None, closed="neither"), "softening of the teacher's softmax; the student's isn't softened"] = 4.0,
    weighted: Annotated[bool, "count a sample the more, the more evenly the teacher spreads its probability (WTTM)"] = False,
    standardize: Standardize = False,
) -> Term:
    """Transformed teacher matching: only the teacher is softened, which also keeps the student from being too sure; see `ttm_loss`.

    At temperature 1 it is kd at temperature 1. Above that it is 0 only where the student equals the softened teacher.
    """

    def term(seen: Seen) -> Tensor:
        logits = logits_of(seen, "ttm", standardize=standardize)
        return logits.mean(ttm_rows(logits.student, logits.teacher, temperature=temperature, weighted=weighted))

    return Term("ttm", term, teacher=True, agrees=temperature == 1)


def ttm_loss(student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"], *, temperature: float = 4.0, weighted: bool = False) -> Float[Tensor, ""]:
    """U · KL(p̂ ‖ softmax(student)), averaged over the batch; p̂ = softmax(teacher/T), which is p^(1/T) made to add up to 1.

    U is 1, or with `weighted` Σ p^(1/T), between 1 (the teacher is sure) and K^(1 − 1/T) (it can't tell; T ≥ 1).

    Args:
        student: Logits; the only input that receives gradient.
        temperature: T > 0, dimensionless.
    Returns: Loss in nats, ≥ 0; 0 when the student's softmax is p̂.
    Source: Zheng & Yang 2024, arXiv:2402.11148, §3; weighted: eq. 22. There is no T²: the student's gradient isn't scaled by 1/T.
    """
    return ttm_rows(student, teacher, temperature=temperature, weighted=weighted).mean()


def ttm_rows(student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"], *, temperature: float, weighted: bool) -> Float[Tensor, " rows"]:
    """`ttm_loss` of each row."""
    teacher = teacher.detach().to(student.dtype)
    apart = F.kl_div(F.log_softmax(student, dim=-1), F.log_softmax(teacher / temperature, dim=-1), reduction="none", log_target=True).sum(-1)
    return apart * torch.logsumexp(F.log_softmax(teacher, dim=-1) / temperature, dim=-1).exp() if weighted else apart
