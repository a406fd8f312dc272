"""The teacher's features before the ReLU, where its answer differs from the student's in what counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, average, features_of, some, taps_of, width_of


def overhaul(
    *,
    pairs: Annotated[tuple[Pair, ...], "layers to match, before their ReLU (the batch norms); their values are added"],
    samples: Annotated[int, Range(1, None), "training samples on which the margins are measured, before training"] = 1024,
) -> Term:
    """The comprehensive overhaul of feature distillation: margin ReLU and partial L2; see `overhaul_loss`.

    The student's features go through a 1×1 convolution and a batch norm, which train with it and relate the samples of a batch. A
    channel's margin is the mean of the teacher's values below 0.

    Differs from the paper: margins are measured on samples, not read off batch norms, so that any layer can be tapped; the mean over
    values instead of the sum.
    Raises: ConfigError without pairs, or if the teacher's layer never goes below 0; TaskError, in a step, for a single value a channel.
    """
    found = some("overhaul", pairs)
    if samples < 1:
        raise ConfigError(f"overhaul.samples must be ≥ 1, got {samples!r}. 1024 is plenty.")

    def builds(wiring: Wiring) -> nn.Module:
        margins = _margins(wiring.batches(), found, samples)
        return nn.ModuleList(Connector(width_of(wiring.shape("student", pair.student)), margin) for pair, margin in zip(found, margins, strict=True))

    def term(seen: Seen) -> Tensor:
        losses = []
        for pair, connect in zip(found, seen.own, strict=True):
            features = features_of(seen, "overhaul", pair)
            if features.student.shape[0] * features.student.shape[1] < 2:
                raise TaskError(f"overhaul has a batch norm, and a batch of one gives it a single value a channel at '{pair.student}'. Raise the batch size.")
            losses.append(overhaul_loss(connect(features.student), features.teacher, connect.margin, features.weight))
        return sum(losses[1:], start=losses[0])

    return Term("overhaul", term, teacher=True, relational=True, builds=builds, agrees=False, **taps_of(found))


class Connector(nn.Module):
    """From the student's width to the teacher's, and the teacher's margins."""

    margin: Tensor

    def __init__(self, own: int, margin: Float[Tensor, " theirs"]):
        super().__init__()
        self.project, self.norm = nn.Linear(own, len(margin), bias=False), nn.BatchNorm1d(len(margin))
        self.register_buffer("margin", margin)

    def forward(self, student: Float[Tensor, "batch places own"]) -> Float[Tensor, "batch places theirs"]:
        return self.norm(self.project(student).transpose(1, 2)).transpose(1, 2)


def overhaul_loss(
    projected: Float[Tensor, "batch places width"],
    teacher: Float[Tensor, "batch places width"],
    margin: Float[Tensor, " width"],
    weight: Float[Tensor, "batch places"] | None = None,
) -> Float[Tensor, ""]:
    """(projected − max(teacher, margin))², 0 where both are at most 0 and the student is the lower; averaged over width, places and samples.

    Args:
        margin: One a channel, ≤ 0.
    Returns: ≥ 0, in squared units of the teacher's features.
    Source: Heo et al. 2019, arXiv:1904.01866, eq. 2 to 6.
    """
    target = torch.maximum(teacher, margin)
    counts = (projected > target) | (target > 0)
    return average(((projected - target).square() * counts).mean(-1), weight)


@torch.no_grad()
def _margins(steps: Iterator[Seen], pairs: tuple[Pair, ...], samples: int) -> list[Float[Tensor, " width"]]:
    """For each pair, the mean of a channel's values below 0; 0 for a channel without any."""
    sums: list[Tensor] = []
    counts: list[Tensor] = []
    passed = 0
    for step in steps:
        values = [features_of(step, "overhaul", pair) for pair in pairs]
        below = [(f.teacher < 0) & (f.weight > 0)[:, :, None] for f in values]
        found = [(f.teacher * b).sum((0, 1)) for f, b in zip(values, below, strict=True)], [b.sum((0, 1)) for b in below]
        sums, counts = (new if not old else [a + b for a, b in zip(old, new, strict=True)] for old, new in zip((sums, counts), found, strict=True))
        passed += len(step.ids)
        if passed >= samples:
            break
    for pair, count in zip(pairs, counts, strict=True):
        if not count.any():
            raise ConfigError(
                f"overhaul reads features before the ReLU, and the teacher's '{pair.answer}' never goes below 0. Tap the batch norm before it (an in-place ReLU overwrites it)."
            )
    return [s / c.clamp(min=1) for s, c in zip(sums, counts, strict=True)]
