"""By how much the teacher prefers one answer to another: for rankers, whose scores mean nothing by themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from jaxtyping import Float
from torch import Tensor

from limbeck.core.errors import TaskError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.task_loss import main_output


def margin_mse(
    *,
    pairs: Annotated[Literal["columns", "batch"], "`columns`: a sample's scores are one positive and its negatives; `batch`: one score a sample, all pairs of a batch"] = "columns",
    positive: Annotated[int, Range(0, None), "with `columns`: which column is the positive"] = 0,
) -> Term:
    """Match the margins between scores instead of the scores; see `margin_mse_loss`.

    The output is [batch, candidates], the paper's triples being two columns; or, with pairs = "batch", one score a sample, whose
    margins depend on who shares a batch.

    Raises: in training, TaskError if the scores are of other shapes, or a batch has one sample and pairs = "batch".
    """

    def term(seen: Seen) -> Tensor:
        s, t = main_output(seen.task, seen.student), main_output(seen.task, seen.teacher)
        if s.shape != t.shape:
            raise TaskError(f"margin_mse needs scores of one shape, got student {tuple(s.shape)} and teacher {tuple(t.shape)}. Give both models the same candidates.")
        if pairs == "batch":
            if s.numel() != len(s) or len(s) < 2:
                raise TaskError(f'margin_mse.pairs = "batch" needs one score a sample and at least 2 samples, got {tuple(s.shape)}. Else take pairs = "columns".')
            return margin_mse_batch_loss(s.reshape(len(s)), t.reshape(len(t)))
        if s.dim() != 2 or s.shape[1] < 2 or positive >= s.shape[1]:
            raise TaskError(
                f"margin_mse needs scores [batch, candidates] with the positive in column {positive}, at least 2 candidates, got {tuple(s.shape)}. "
                'For one score a sample: pairs = "batch".'
            )
        return margin_mse_loss(s, t, positive=positive)

    return Term("margin_mse", term, teacher=True, relational=pairs == "batch")


def margin_mse_loss(student: Float[Tensor, "batch candidates"], teacher: Float[Tensor, "batch candidates"], *, positive: int = 0) -> Float[Tensor, ""]:
    """((s₊ − s₋) − (t₊ − t₋))², averaged over a sample's negatives and the batch.

    Args:
        student: Scores; the only input that receives gradient.
        positive: The column of the candidate that all others are set against.
    Returns: Loss in the square of the scores' unit, ≥ 0; unchanged by adding a constant to a sample's scores on either side.
    Source: Hofstätter et al. 2020, arXiv:2010.02666, §3.2, Margin-MSE, there with one negative.
    """
    apart = student - teacher.detach().to(student.dtype)
    margins = apart[:, positive : positive + 1] - apart  # 0 in the positive's own column
    return margins.square().sum() / (margins.numel() - len(margins))


def margin_mse_batch_loss(student: Float[Tensor, " batch"], teacher: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """((sᵢ − sⱼ) − (tᵢ − tⱼ))², averaged over all pairs i ≠ j of a batch, which is twice the variance of s − t.

    Args:
        student: Scores; the only input that receives gradient.
    Returns: As `margin_mse_loss`.
    Source: as `margin_mse_loss`. Differs: every pair is a margin, where the paper has pairs of one query.
    """
    return 2 * (student - teacher.detach().to(student.dtype)).var(correction=1)
