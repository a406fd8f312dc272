"""What the teacher's outputs say, as numbers: for regression, and for logits that should be matched as they are."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from limbeck.core.errors import TaskError
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.logits import Standardize, logits_of
from limbeck.mechanics.terms.task_loss import main_output


def logit_mse(
    *,
    centre: Annotated[bool, "subtract each sample's mean logit on both sides first: a softmax doesn't see it"] = False,
    standardize: Standardize = False,
) -> Term:
    """Squared difference of the main output from the teacher's; see `logit_mse_loss`.

    Plain, it takes any output of one shape; tokens labelled −100 are left out where a task labels tokens. `centre` and
    `standardize` need class logits (at least two values a row); standardized, half of it is Pearson's distance of the logits.
    """

    def term(seen: Seen) -> Tensor:
        s, t = main_output(seen.task, seen.student), main_output(seen.task, seen.teacher)
        if s.shape != t.shape:
            raise TaskError(f"logit_mse needs outputs of one shape, got student {tuple(s.shape)} and teacher {tuple(t.shape)}. Give the student the teacher's outputs.")
        if (s.dim() < 2 or s.shape[-1] < 2) and not (centre or standardize):
            return (s - t.detach().to(s.dtype)).square().mean()
        logits = logits_of(seen, "logit_mse", standardize=standardize)
        return logits.mean(logit_mse_rows(logits.student, logits.teacher, centre=centre))

    return Term("logit_mse", term, teacher=True)


def logit_mse_loss(student: Float[Tensor, "batch values"], teacher: Float[Tensor, "batch values"], *, centre: bool = False) -> Float[Tensor, ""]:
    """(student − teacher)², averaged over a sample's values and the batch; with `centre`, of each row less its mean.

    Args:
        student: Outputs; the only input that receives gradient.
    Returns: Loss in the square of the outputs' unit, ≥ 0; 0 when both agree (centred: up to a constant a row).
    Source: Ba & Caruana 2014, arXiv:1312.6184, eq. 1 (there without the ½ it is summed; here averaged over values). Centred:
    twice kd's limit as its temperature grows (Hinton et al. 2015, arXiv:1503.02531, §2.1).
    """
    return logit_mse_rows(student, teacher, centre=centre).mean()


def logit_mse_rows(student: Float[Tensor, "rows values"], teacher: Float[Tensor, "rows values"], *, centre: bool) -> Float[Tensor, " rows"]:
    """`logit_mse_loss` of each row."""
    apart = student - teacher.detach().to(student.dtype)
    return ((apart - apart.mean(-1, keepdim=True)) if centre else apart).square().mean(-1)
