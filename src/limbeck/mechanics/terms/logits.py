"""What terms on class logits share: rows to compare, one a sample or token, each sample counting alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limbeck.core.errors import TaskError
from limbeck.core.fields import Range
from limbeck.mechanics.data import labels
from limbeck.mechanics.objective import Seen
from limbeck.mechanics.sparse import TOP_CLASSES, TOP_IDS, top_name
from limbeck.mechanics.terms.correlation import standardized
from limbeck.mechanics.terms.task_loss import IGNORED, in_range, main_output

Standardize = Annotated[bool, "z-score each sample's logits on both sides first, so that only their pattern is matched"]
Temperature = Annotated[float, Range(0, None, closed="neither"), "softening of both softmaxes"]


@dataclass(frozen=True)
class Logits:
    """Logits of student and teacher, row by row; `weight` adds up to 1, so that Σ weight · loss is the mean over samples."""

    student: Float[Tensor, "rows classes"]
    teacher: Float[Tensor, "rows classes"]
    weight: Float[Tensor, " rows"]
    label: Int[Tensor, " rows"] | None

    def mean(self, losses: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
        """The mean over samples of the mean over a sample's rows: it doesn't depend on how a batch is split."""
        return (losses * self.weight).sum()


def logits_of(seen: Seen, name: str, *, standardize: bool = False, labelled: bool = False) -> Logits:
    """Both models' class logits. Tokens labelled −100 are left out where a task labels tokens.

    standardize: each row by its mean and standard deviation (Sun et al. 2024, arXiv:2403.01427, §4).
    labelled: whether the term needs each row's label; samples labelled −100 are then left out too.
    Raises: TaskError if they aren't class logits of one shape, with both shapes, or if labels are needed and missing.
    """
    return paired(seen, name, main_output(seen.task, seen.student), main_output(seen.task, seen.teacher), standardize=standardize, labelled=labelled)


def paired(seen: Seen, name: str, student: Tensor, teacher: Tensor, *, standardize: bool = False, labelled: bool = False) -> Logits:
    """`logits_of`, of any two tensors of class logits; the second gives no gradient."""
    if student.shape != teacher.shape or student.dim() < 2 or student.shape[-1] < 2:
        raise TaskError(f"{name} needs class logits of one shape, got student {tuple(student.shape)} and teacher {tuple(teacher.shape)}. {_way(student, teacher)}")
    kept, weight, label = rows_of(seen, name, student, labelled=labelled)
    s, t = (z.flatten(0, -2)[kept] for z in (student, teacher.detach().to(student.dtype)))
    if standardize:
        s, t = standardized(s), standardized(t)
    return Logits(s, t, weight, label)


@dataclass(frozen=True)
class Softened:
    """The student's logits, and the teacher's k largest log probabilities with the tail's, as a sparse cache gives them."""

    student: Float[Tensor, "rows classes"]
    ids: Int[Tensor, "rows k"]
    teacher: Float[Tensor, "rows k+1"]
    weight: Float[Tensor, " rows"]

    def mean(self, losses: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
        """As `Logits.mean`."""
        return (losses * self.weight).sum()


def softened_of(seen: Seen, name: str, temperature: float) -> Softened | None:
    """What a sparse cache says at this temperature, row by row; None if the teacher's answers don't come from one.

    Raises: TaskError if the student's classes or rows are others than the teacher's, with both shapes.
    """
    if (ids := seen.teacher.get(TOP_IDS)) is None:
        return None
    student, teacher = main_output(seen.task, seen.student), seen.teacher[top_name(temperature)]
    theirs = (*ids.shape[:-1], int(seen.teacher[TOP_CLASSES]))
    if tuple(student.shape) != theirs:
        raise TaskError(f"{name} needs class logits of one shape, got student {tuple(student.shape)} and teacher {theirs}. {_way(student, torch.empty(theirs, device='meta'))}")
    kept, weight, _ = rows_of(seen, name, student, labelled=False)
    s, i, t = (x.flatten(0, -2) for x in (student, ids, teacher))
    return Softened(s, i, t, weight) if kept.all() else Softened(s[kept], i[kept], t[kept], weight)  # rows of a vocabulary aren't copied for nothing


def rows_of(seen: Seen, name: str, student: Tensor, *, labelled: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Which rows of logits count, the weight of each of these, and their labels if there are any. Raises as `logits_of`."""
    rows, label = student[..., 0].numel() // len(student), _labels(seen, student)
    if labelled and label is None:
        raise TaskError(f"{name} needs a class for each row of the logits {tuple(student.shape)}, and the batch has none. Give samples as (input, label).")
    leaves_out = label is not None and (labelled or student.dim() > 2)
    if seen.mixed is not None and leaves_out:
        raise TaskError(f"{name} reads one label a row, and samples were mixed in twos. Leave views.mixup and cutmix out, or the term.")
    kept = label != IGNORED if label is not None and leaves_out else torch.ones(len(student) * rows, dtype=torch.bool, device=student.device)
    counts = kept.view(len(student), rows).sum(1).clamp(min=1)
    shares = 1.0 / (len(student) * counts).to(torch.promote_types(student.dtype, torch.float32))
    weight = shares.repeat_interleave(rows)[kept].to(student.dtype)
    label = None if label is None else label[kept]
    if labelled and label is not None:
        in_range(label, student.shape[-1], seen.task)
    return kept, weight, label


def _labels(seen: Seen, student: Tensor) -> Tensor | None:
    """The labels, one a row, if the batch has whole numbers of that shape."""
    found = labels(seen.batch)
    if found is None:
        return None
    target = torch.as_tensor(found, device=student.device)
    return target.long().flatten() if target.shape == student.shape[:-1] and not target.is_floating_point() else None


def _way(student: Tensor, teacher: Tensor) -> str:
    if student.dim() > 1 and teacher.dim() > 1 and min(student.shape[-1], teacher.shape[-1]) > 1:
        return f"Classes (or a vocabulary) must agree in number and order: give the student {teacher.shape[-1]} of them."
    return "For regression use logit_mse; classes must agree in number and order."
