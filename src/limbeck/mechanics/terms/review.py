"""Deeper layers of the student reviewed with shallower ones, against the teacher's at each level."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, as_map, both_of, resized, some, taps_of, width_of

LEVELS = (4, 2, 1)  # sides to which features are pooled besides their own, each counting half of the one before
WIDEST = 512


def review(
    *,
    pairs: Annotated[tuple[Pair, ...], "layers to match, from the shallowest to the deepest"],
    width: Annotated[int, Range(0, None), "channels in which levels are fused; 0: those of the student's deepest layer, at most 512"] = 0,
) -> Term:
    """ReviewKD: from the deepest pair to the shallowest, each level fused with what came before it, compared by `hierarchical_loss`.

    Fusion is attention-based (one weight a place for each of two sources, from a 1×1 convolution and a sigmoid), between a 1×1 and a
    3×3 convolution with batch norm, which relate the samples of a batch. All of it trains with the student. What came before is
    brought to a level's resolution by the nearest neighbour. Tokens are taken as a square grid.

    Source: Chen et al. 2021, arXiv:2104.09044, §3.2 and §3.3. Differs: where resolutions of a pair differ, the finer is averaged
    down to the coarser; there the student's is interpolated to the teacher's.
    Raises: ConfigError without pairs; TaskError, in a step, for a batch norm over a single value.
    """
    if width < 0:
        raise ConfigError(f"review.width must be ≥ 0, got {width!r}. 0 takes the student's own.")
    found = some("review", pairs)

    def builds(wiring: Wiring) -> nn.Module:
        own, theirs = ([width_of(wiring.shape(side, p.student if side == "student" else p.answer)) for p in found] for side in ("student", "teacher"))
        middle = width or min(WIDEST, own[-1])
        return nn.ModuleList(Fusion(s, middle, t, fuses=i < len(found) - 1) for i, (s, t) in enumerate(zip(own, theirs, strict=True)))

    def term(seen: Seen) -> Tensor:
        losses, before = [], None
        for pair, fusion in reversed(list(zip(found, seen.own, strict=True))):
            student, teacher = both_of(seen, "review", pair)
            student, teacher = as_map(student, "review", pair.student), as_map(teacher, "review", pair.answer)
            if len(student) * student.shape[2] * student.shape[3] < 2:
                raise TaskError(f"review has a batch norm, and a batch of one gives it a single value a channel at '{pair.student}'. Raise the batch size.")
            size = [min(student.shape[axis], teacher.shape[axis]) for axis in (2, 3)]
            fused, before = fusion(student, before, size)
            losses.append(hierarchical_loss(fused, resized(teacher, size)))
        return sum(losses[1:], start=losses[0])

    return Term("review", term, teacher=True, relational=True, builds=builds, agrees=False, **taps_of(found))


class Fusion(nn.Module):
    """One level: the student's features and what the deeper levels left, fused, in the teacher's width."""

    def __init__(self, own: int, middle: int, theirs: int, *, fuses: bool):
        super().__init__()
        self.into = nn.Sequential(nn.Conv2d(own, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.out = nn.Sequential(nn.Conv2d(middle, theirs, 3, padding=1, bias=False), nn.BatchNorm2d(theirs))
        self.attention = nn.Conv2d(2 * middle, 2, 1) if fuses else None

    def forward(self, student: Tensor, before: Tensor | None, size: list[int]) -> tuple[Tensor, Tensor]:
        """What the teacher's features are compared with, at this size; what the shallower level gets."""
        x = self.into(student)
        if self.attention is not None and before is not None:
            deeper = before if before.shape[2:] == x.shape[2:] else F.interpolate(before, x.shape[2:], mode="nearest")
            shares = self.attention(torch.cat([x, deeper], 1)).sigmoid()
            x = x * shares[:, :1] + deeper * shares[:, 1:]
        x = resized(x, size)
        return self.out(x), x


def hierarchical_loss(student: Float[Tensor, "batch channels height width"], teacher: Float[Tensor, "batch channels height width"]) -> Float[Tensor, ""]:
    """The mean squared difference as it is, and pooled to 4, 2 and 1 places a side, with weights 1, ½, ¼, ⅛ over their sum.

    Levels that aren't coarser than the features are left out. ≥ 0; 0 at equal features.
    Source: Chen et al. 2021, arXiv:2104.09044, §3.3 (HCL), with the weights of its public code.
    """
    loss, weight, total = (student - teacher).square().mean(), 1.0, 1.0
    for side in LEVELS:
        if side >= min(student.shape[2:]):
            continue
        weight /= 2
        loss = loss + weight * (resized(student, (side, side)) - resized(teacher, (side, side))).square().mean()
        total += weight
    return loss / total
