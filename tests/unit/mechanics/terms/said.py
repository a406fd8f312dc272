"""What the tests of terms share: logits, a step in which models said this and that, and a batch that is split."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.objective import Seen, Term
from limbeck.testing import small_task

CLASSES = Task(metric=accuracy(), splits={}, name="classes")


@cache
def quarters() -> Task:
    """A small task, its teacher trained once."""
    return small_task()


def logits(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*(shape or (8, 5)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(seed: int, *shape: int, classes: int = 5) -> Tensor:
    return torch.randint(0, classes, shape or (8,), generator=torch.Generator().manual_seed(seed))


def seen(student: Tensor | dict[str, Tensor], teacher: Tensor | dict[str, Tensor] | None = None, *, label: Tensor | None = None, task: Task = CLASSES, **more: Any) -> Seen:
    """A step in which the models said this, of samples with these labels."""
    own, theirs = ({} if said is None else said if isinstance(said, dict) else {"logits": said} for said in (student, teacher))
    count = len(next(iter(own.values())))
    return Seen(task, nn.Identity(), own, theirs, (torch.zeros(count), label) if label is not None else torch.zeros(count), np.arange(count), **more)


def split_changes_nothing(term: Term, student: Tensor, teacher: Tensor, label: Tensor | None = None) -> None:
    """Oracle 8: loss and gradient of a batch are the means of those of its halves."""
    found = []
    half = len(student) // 2
    for parts in ([slice(None)], [slice(0, half), slice(half, None)]):
        s = student.clone().requires_grad_()
        loss = sum(term.function(seen(s[part], teacher[part], label=None if label is None else label[part])) for part in parts) / len(parts)
        loss.backward()
        found.append((loss.item(), s.grad))
    (whole, gradient), (halves, other) = found
    assert abs(whole - halves) < 1e-12 and torch.allclose(gradient, other, atol=1e-12), f"{whole} and {halves}"


def some_tokens(seed: int = 0, *, rows: int = 4, length: int = 6, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Token logits of student and teacher, and labels of which some are −100, as many as never alike in two samples."""
    label = labels(seed, rows, length, classes=classes)
    for row in range(rows):
        label[row, row + 2 :] = -100
    return logits(seed, rows, length, classes), logits(seed + 1, rows, length, classes), label
