"""How the teacher ranks classes in a sample, and samples within a class, whatever the scale."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.correlation import correlation_rows
from limbeck.mechanics.terms.logits import Standardize, Temperature, logits_of


def dist(
    *,
    inter: Annotated[float, Range(0, None), "weight of the relation between classes, within each sample"] = 2.0,
    intra: Annotated[float, Range(0, None), "weight of the relation between samples, within each class; 0 leaves the batch's company out"] = 2.0,
    temperature: Temperature = 4.0,
    standardize: Standardize = False,
) -> Term:
    """Correlation of probabilities instead of their divergence, for a teacher much stronger than the student; see `dist_loss`.

    The authors' settings on CIFAR-100 are the defaults, beside 1.0 of the labels' loss. With `intra` > 0 it compares the samples
    of a batch (of tokens, all of the batch's), so it depends on who shares one.

    Raises: ConfigError if both weights are 0. In training, TaskError for a batch of one row with `intra` > 0.
    """
    if not inter and not intra:
        raise ConfigError("dist.inter and dist.intra must not both be 0, got 0 and 0. Leave the term out to switch it off.")

    def term(seen: Seen) -> Tensor:
        logits = logits_of(seen, "dist", standardize=standardize)
        if intra and len(logits.student) == 1:
            raise TaskError("dist.intra compares the samples of a batch, which must have at least 2, got 1. Use a larger batch_size, or intra = 0.")
        rows, classes = dist_parts(logits.student, logits.teacher, temperature=temperature)
        return inter * logits.mean(rows) + (intra * classes.mean() if intra else 0.0)

    return Term("dist", term, teacher=True, relational=intra > 0)


def dist_loss(
    student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"], *, inter: float = 2.0, intra: float = 2.0, temperature: float = 4.0
) -> Float[Tensor, ""]:
    """T² · (inter · mean over samples of (1 − r of their rows) + intra · mean over classes of (1 − r of their columns)).

    r is Pearson's correlation between softmax(student/T) and softmax(teacher/T): of a sample's classes, and of a class's
    probabilities over the batch. A row or column that is constant counts as uncorrelated and gives no gradient.

    Args:
        student: Logits; the only input that receives gradient.
        temperature: Softening T > 0, dimensionless.
    Returns: Loss in [0, 2 T² (inter + intra)], dimensionless; 0 when both softmaxes agree.
    Source: Huang et al. 2022, arXiv:2205.10536, §4; T² as the authors' code has it.
    """
    rows, classes = dist_parts(student, teacher, temperature=temperature)
    return inter * rows.mean() + intra * classes.mean()


def dist_parts(student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"], *, temperature: float) -> tuple[Float[Tensor, " rows"], Float[Tensor, " classes"]]:
    """Pearson's distance of each row and of each column, both times T²."""
    p, q = (softened.softmax(-1) for softened in (student / temperature, teacher.detach().to(student.dtype) / temperature))
    return temperature**2 * (1 - correlation_rows(p, q)), temperature**2 * (1 - correlation_rows(p.T, q.T))
