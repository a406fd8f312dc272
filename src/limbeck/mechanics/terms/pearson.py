"""Where in the batch each of the teacher's channels is strong, whatever its scale."""

from __future__ import annotations

from typing import Annotated, cast

from jaxtyping import Float
from torch import Tensor, nn

from limbeck.core.errors import TaskError
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.correlation import correlation_rows
from limbeck.mechanics.terms.features import Pair, features_of, taps_of, width_of
from limbeck.mechanics.terms.projection import Project, projection


def pearson(
    *,
    student: Annotated[str, "module path in the student"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
    project: Project = "auto",
) -> Term:
    """Correlate features channel by channel over all places of a batch (PKD); see `pearson_loss`.

    Between probabilities, Pearson's distance is `dist`; between logits, half of `logit_mse` with `standardize`. This is the third
    use, on features. They are compared at the coarser of both resolutions, padding left out. It depends on who shares a batch.

    Raises: where the term is built, ConfigError for widths that don't fit; TaskError in training for shapes that don't, or a batch
    with fewer than two places in all.
    """
    pair = Pair(student=student, teacher=teacher)

    def builds(wiring: Wiring) -> nn.Module:
        return projection("pearson", width_of(wiring.shape("student", student)), width_of(wiring.shape("teacher", pair.answer)), project)

    def term(seen: Seen) -> Tensor:
        features = features_of(seen, "pearson", pair)
        kept = features.weight > 0
        s, t = cast(nn.Module, seen.own)(features.student[kept]), features.teacher[kept]
        if len(s) < 2:
            raise TaskError(f"pearson correlates over a batch's samples and places, which must be at least 2, got {len(s)}. Raise the batch size, or tap a layer with places.")
        return pearson_loss(s, t)

    return Term("pearson", term, teacher=True, relational=True, builds=builds, agrees=project != "always", **taps_of([pair]))


def pearson_loss(student: Float[Tensor, "places channels"], teacher: Float[Tensor, "places channels"]) -> Float[Tensor, ""]:
    """1 − r, averaged over channels; r is Pearson's correlation of a channel in student and teacher over all places of the batch.

    It is half the mean squared difference of features that are standardized by channel. Unchanged by positive affine maps of
    each channel on either side. Channels that are constant on both sides agree; on one, they count 1, without gradient.

    Args:
        student: Features; the only input that receives gradient.
    Returns: Loss in [0, 2], dimensionless; 0 when every channel agrees up to scale and shift.
    Source: Cao et al. 2022 (PKD), arXiv:2207.02039, §3.
    """
    return (1 - correlation_rows(student.T, teacher.detach().to(student.dtype).T)).mean()
