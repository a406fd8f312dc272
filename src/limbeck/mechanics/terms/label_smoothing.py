"""What the labels say, with less certainty: the control for what soft targets do without a teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import TaskError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.logits import rows_of
from limbeck.mechanics.terms.task_loss import main_output


def label_smoothing(*, smoothing: Annotated[float, Range(0, 1), "share of the label's probability that is spread evenly over all classes"] = 0.1) -> Term:
    """Cross-entropy with smoothed labels, instead of `task_loss`; see `label_smoothing_loss`.

    A teacher that says no more than "don't be so sure" does no better than this. Samples and tokens labelled −100 are left out. Where
    samples are mixed, λ of the loss is with a sample's own label and 1 − λ with its partner's.
    """

    def term(seen: Seen) -> Tensor:
        scores = main_output(seen.task, seen.student)
        if scores.dim() < 2 or scores.shape[-1] < 2:
            raise TaskError(f"label_smoothing needs class logits, at least 2 a row, got {tuple(scores.shape)}. Use task_loss.")
        own = _each(replace(seen, mixed=None), scores, smoothing)
        return (own if seen.mixed is None else seen.mixed.blend(own, _each(replace(seen, batch=seen.mixed.batch, mixed=None), scores, smoothing))).sum()

    return Term("label_smoothing", term, labels=True, mixes=True)


def _each(seen: Seen, scores: Tensor, smoothing: float) -> Float[Tensor, " batch"]:
    """What each sample adds to the loss; 0 for one without a label."""
    kept, weight, label = rows_of(seen, "label_smoothing", scores, labelled=True)
    losses = label_smoothing_rows(scores.flatten(0, -2)[kept], label, smoothing=smoothing)  # pyright: ignore[reportArgumentType]
    rows = torch.zeros(len(kept), dtype=losses.dtype, device=losses.device).masked_scatter(kept, losses * weight)
    return rows.view(len(scores), -1).sum(1)


def label_smoothing_loss(student: Float[Tensor, "batch classes"], label: Int[Tensor, " batch"], *, smoothing: float = 0.1) -> Float[Tensor, ""]:
    """(1 − ε) · −log q[label] + ε · mean over classes of −log q, q = softmax(student), averaged over the batch.

    Args:
        label: The right class of each sample.
        smoothing: ε in [0, 1]; 0 is plain cross-entropy.
    Returns: Loss in nats, > 0.
    Source: Szegedy et al. 2015, arXiv:1512.00567, §7. As a control for distillation: Yuan et al. 2020, arXiv:1909.11723.
    """
    return label_smoothing_rows(student, label, smoothing=smoothing).mean()


def label_smoothing_rows(student: Float[Tensor, "rows classes"], label: Int[Tensor, " rows"], *, smoothing: float) -> Float[Tensor, " rows"]:
    """`label_smoothing_loss` of each row."""
    return F.cross_entropy(student, label, reduction="none", label_smoothing=smoothing)
