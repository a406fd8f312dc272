"""What the tests of terms on features share: what taps gave, the module that a term builds for it, a batch that is split, tasks to train on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from said import CLASSES, seen
from torch import Tensor, nn
from torch.utils.data import Dataset

from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.families.encoder import encoder
from limbeck.mechanics.objective import Seen, Term, Wiring


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(seed: int, width: int) -> Tensor:
    """An orthogonal matrix."""
    return torch.linalg.qr(features(seed, width, width)).Q


def gave(student: Tensor | dict[str, Tensor], teacher: Tensor | dict[str, Tensor], *, mask: Tensor | None = None, **more: Any) -> Seen:
    """A step in which the taps gave this, at the paths "s" and "t" unless named."""
    own, theirs = ({f"tap:{path}": value for path, value in (said if isinstance(said, dict) else {name: said}).items()} for said, name in ((student, "s"), (teacher, "t")))
    return seen(own, theirs, inputs={} if mask is None else {"attention_mask": mask}, **more)


def built(term: Term, step: Seen, *, seed: int = 0) -> nn.Module | None:
    """The module that the term builds for these shapes, in double precision."""
    shapes = ({name: tuple(value.shape) for name, value in side.items()} for side in (step.student, step.teacher))
    torch.manual_seed(seed)
    return term.builds(Wiring(CLASSES, nn.Identity(), *shapes, batches=lambda: iter([step]))).double() if term.builds else None


def value(term: Term, student: Tensor | dict[str, Tensor], teacher: Tensor | dict[str, Tensor], **more: Any) -> Tensor:
    """What the term says of these features."""
    step = gave(student, teacher, **more)
    return term.function(gave(student, teacher, own=built(term, step), **more))


def split_changes_nothing(term: Term, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> None:
    """Oracle 8: loss and gradient of a batch are the means of those of its halves."""
    own, half, found = built(term, gave(student, teacher)), len(student) // 2, []
    for parts in ([slice(None)], [slice(0, half), slice(half, None)]):
        s = student.clone().requires_grad_()
        loss = sum(term.function(gave(s[part], teacher[part], mask=None if mask is None else mask[part], own=own)) for part in parts) / len(parts)
        loss.backward()
        found.append((loss.item(), s.grad))
    (whole, gradient), (halves, other) = found
    assert abs(whole - halves) < 1e-12 and torch.allclose(gradient, other, atol=1e-12), f"{whole} and {halves}"


class Sentences(Dataset):
    """Padded sequences; which half of the vocabulary prevails."""

    def __init__(self, seed: int, count: int = 24, length: int = 7):
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(1, 20, (count, length), generator=generator)
        self.mask = (torch.arange(length)[None] < torch.randint(2, length + 1, (count, 1), generator=generator)).long()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.ids[index], "attention_mask": self.mask[index], "labels": int((self.ids[index] > 9).sum() > 3)}


def sentences() -> Task:
    """A text task: a teacher of four layers and width 24, a student of two and width 12, four heads both."""
    models = {
        "teacher": lambda: encoder(vocabulary=20, classes=2, width=24, layers=4, heads=4, length=7),
        "small": lambda: encoder(vocabulary=20, classes=2, width=12, layers=2, heads=4, length=7),
    }
    torch.manual_seed(5)
    weights = models["teacher"]().state_dict()
    return Task(
        name="sentences", models=models, weights={"teacher": weights}, splits={name: Sentences(i) for i, name in enumerate(("train", "validation", "test"))}, metric=accuracy()
    )


def lengths(*counts: int, tokens: int) -> Tensor:
    """An attention mask of sequences of these lengths."""
    return (torch.arange(tokens)[None] < torch.tensor(counts)[:, None]).long()


IDS = np.arange(8)
