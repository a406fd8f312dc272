"""How much the student's features tell of the teacher's: a Gaussian guess whose variance is learnt by channel."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, average, features_of, some, taps_of, width_of

SMALLEST = 1e-5  # of a variance


def vid(
    *,
    pairs: Annotated[tuple[Pair, ...], "layers to match; their values are added"],
    variance: Annotated[float, Range(SMALLEST, None, closed="neither"), "of every channel at the start, in squared units of the teacher's features"] = 5.0,
) -> Term:
    """Variational information distillation: −log q(teacher | student), q Gaussian; see `vid_loss`.

    The mean is guessed by three linear layers with ReLU between (1×1 convolutions on maps), the variance is one number a channel;
    both train with the student. The value falls below 0 once the guess is good, for it is the logarithm of a density.

    Raises: ConfigError without pairs, or for a variance ≤ 1e-5.
    """
    if not variance > SMALLEST:
        raise ConfigError(f"vid.variance must be > {SMALLEST:g}, got {variance!r}. The paper's code begins with 5.")
    found = some("vid", pairs)

    def builds(wiring: Wiring) -> nn.Module:
        widths = ((width_of(wiring.shape("student", pair.student)), width_of(wiring.shape("teacher", pair.answer))) for pair in found)
        return nn.ModuleList(Guess(own, theirs, variance) for own, theirs in widths)

    def term(seen: Seen) -> Tensor:
        losses = []
        for pair, guess in zip(found, seen.own, strict=True):
            features = features_of(seen, "vid", pair)
            mean, spread = guess(features.student)
            losses.append(vid_loss(mean, spread, features.teacher, features.weight))
        return sum(losses[1:], start=losses[0])

    return Term("vid", term, teacher=True, builds=builds, agrees=False, **taps_of(found))


class Guess(nn.Module):
    """Mean and variance of the teacher's features, given the student's."""

    def __init__(self, own: int, theirs: int, variance: float):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(own, theirs), nn.ReLU(), nn.Linear(theirs, theirs), nn.ReLU(), nn.Linear(theirs, theirs))
        self.raw = nn.Parameter(torch.full((theirs,), variance - SMALLEST + math.log(-math.expm1(SMALLEST - variance))))  # softplus's inverse

    def forward(self, student: Float[Tensor, "batch places own"]) -> tuple[Float[Tensor, "batch places theirs"], Float[Tensor, " theirs"]]:
        return self.mean(student), F.softplus(self.raw) + SMALLEST


def vid_loss(
    mean: Float[Tensor, "batch places width"],
    variance: Float[Tensor, " width"],
    teacher: Float[Tensor, "batch places width"],
    weight: Float[Tensor, "batch places"] | None = None,
) -> Float[Tensor, ""]:
    """½ · ((teacher − mean)² / variance + log variance), averaged over width, places and samples.

    Args:
        variance: One a channel, > 0.
        weight: Of each place, adding up to 1; without it all count alike.
    Returns: Loss in nats a value, without the constant ½ · log 2π; may be below 0.
    Source: Ahn et al. 2019, arXiv:1904.05835, eq. 5 and 6. Differs: the mean over values instead of the sum.
    """
    return average((0.5 * ((teacher - mean).square() / variance + variance.log())).mean(-1), weight)
