"""The direction of the teacher's embedding, whatever its length."""

from __future__ import annotations

from typing import Annotated, cast

from jaxtyping import Float
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.correlation import cosine_rows
from limbeck.mechanics.terms.features import Pair, features_of, taps_of, vectors_of, width_of
from limbeck.mechanics.terms.projection import Project, projection
from limbeck.mechanics.terms.task_loss import main_name, main_output


def cosine(
    *,
    student: Annotated[str, "module path in the student; empty: the main output of both, which is [batch, dim]"] = "",
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
    pool: Annotated[bool, "average over places or tokens first, so that one vector a sample is compared"] = False,
    project: Project = "auto",
) -> Term:
    """Turn the student's embedding (or features) towards the teacher's; see `cosine_loss`.

    Features are compared place by place (token by token) at the coarser of both resolutions, padding left out. Where the
    embedding itself is deployed, give the student the teacher's width: a projection isn't deployed with it.

    Raises: ConfigError for a teacher's path without a student's; where the term is built, for widths that don't fit; TaskError in
    training for shapes that don't.
    """
    if not student and teacher != "auto":
        raise ConfigError(f"cosine.student must be a module path where cosine.teacher is one, got '' and {teacher!r}. Name both, or neither: then the outputs are compared.")
    pair = Pair(student=student, teacher=teacher)

    def builds(wiring: Wiring) -> nn.Module:
        if student:
            shapes = wiring.shape("student", student), wiring.shape("teacher", pair.answer)
        else:
            shapes = wiring.student_shapes[main_name(wiring.task, wiring.student_shapes)], wiring.teacher_shapes[main_name(wiring.task, wiring.teacher_shapes)]
        return projection("cosine", width_of(shapes[0]), width_of(shapes[1]), project)

    def term(seen: Seen) -> Tensor:
        own = cast(nn.Module, seen.own)
        if student and not pool:
            features = features_of(seen, "cosine", pair)
            rows = 1 - cosine_rows(own(features.student).flatten(0, 1), features.teacher.flatten(0, 1))
            return (rows * features.weight.flatten()).sum()
        s, t = vectors_of(seen, "cosine", pair) if student else _outputs(seen)
        return cosine_loss(own(s), t)

    return Term("cosine", term, teacher=True, builds=builds, agrees=project != "always", **(taps_of([pair]) if student else {}))


def cosine_loss(student: Float[Tensor, "batch dim"], teacher: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """1 − cos of the angle between both vectors, averaged over the batch.

    Args:
        student: Vectors; the only input that receives gradient.
    Returns: Loss in [0, 2], dimensionless; 0 when directions agree. A vector of zeros beside one that isn't counts 1, without gradient.
    Source: Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, §3, between hidden states.
    """
    return (1 - cosine_rows(student, teacher.detach().to(student.dtype))).mean()


def _outputs(seen: Seen) -> tuple[Tensor, Tensor]:
    s, t = main_output(seen.task, seen.student), main_output(seen.task, seen.teacher)
    if s.dim() != 2 or t.dim() != 2 or len(s) != len(t):
        raise TaskError(f"cosine without a path compares outputs [batch, dim], got student {tuple(s.shape)} and teacher {tuple(t.shape)}. Name the modules to tap.")
    return s, t
