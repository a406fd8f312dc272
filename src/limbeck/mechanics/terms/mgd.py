"""The teacher's whole features, generated from a part of the student's."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, as_map, both_of, resized, taps_of, width_of


def mgd(
    *,
    student: Annotated[str, "module path in the student"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
    masked: Annotated[float, Range(0, 1, closed="left"), "share of the student's places that are hidden, drawn anew in each step"] = 0.5,
) -> Term:
    """Masked generative distillation: hide places of the student's map, generate the teacher's; see `Generator` and `mgd_loss`.

    Places are drawn from torch's generator, as dropout is. Tokens are taken as a square grid.

    Raises: ConfigError for a share outside [0, 1); TaskError, in a step, if there is one place only.
    """
    if not 0 <= masked < 1:
        raise ConfigError(f"mgd.masked must be in [0, 1), got {masked!r}. It is a fraction: the paper has 0.15 to 0.75.")
    pair = Pair(student=student, teacher=teacher)

    def builds(wiring: Wiring) -> nn.Module:
        return Generator(width_of(wiring.shape("student", pair.student)), width_of(wiring.shape("teacher", pair.answer)))

    def term(seen: Seen) -> Tensor:
        own, theirs = both_of(seen, "mgd", pair)
        own, theirs = as_map(own, "mgd", pair.student), as_map(theirs, "mgd", pair.answer)
        size = [min(own.shape[axis], theirs.shape[axis]) for axis in (2, 3)]
        if size == [1, 1]:
            raise TaskError(f"mgd hides places, and '{pair.student}' with '{pair.answer}' has one only. Tap layers before the pooling.")
        shown = (torch.rand(len(own), 1, *size, device=own.device) >= masked).to(own.dtype)
        return mgd_loss(seen.own(resized(own, size), shown), resized(theirs, size))

    return Term("mgd", term, teacher=True, builds=builds, agrees=False, **taps_of([pair]))


class Generator(nn.Module):
    """From the student's map to the teacher's width, hidden places set to 0, then two 3×3 convolutions with ReLU between."""

    def __init__(self, own: int, theirs: int):
        super().__init__()
        self.align = nn.Conv2d(own, theirs, 1) if own != theirs else nn.Identity()
        self.generate = nn.Sequential(nn.Conv2d(theirs, theirs, 3, padding=1), nn.ReLU(), nn.Conv2d(theirs, theirs, 3, padding=1))

    def forward(self, student: Float[Tensor, "batch own h w"], shown: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch theirs h w"]:
        return self.generate(self.align(student) * shown)


def mgd_loss(generated: Float[Tensor, "batch channels height width"], teacher: Float[Tensor, "batch channels height width"]) -> Float[Tensor, ""]:
    """(teacher − generated)², averaged over values and samples; ≥ 0.

    Source: Yang et al. 2022, arXiv:2205.01529, eq. 2 to 4. Differs: the mean over a sample's values instead of the sum, so that
    the paper's weights (7e-5, 2e-5) are to be multiplied by channels · height · width.
    """
    return (teacher - generated).square().mean()
