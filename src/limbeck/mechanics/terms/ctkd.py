"""The teacher's softened probabilities, at a temperature that learns to make it hard for the student."""

from __future__ import annotations

import math
from typing import Annotated, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.kd import kd_rows
from limbeck.mechanics.terms.logits import Standardize, logits_of

LOWEST, RANGE, START = 1.0, 20.0, 1.0  # T = LOWEST + RANGE · sigmoid(what is learned), which begins at START


def ctkd(
    *,
    rise: Annotated[float, Range(0, 1), "share of the training over which the temperature's opposition grows from 0 to 1"] = 0.04,
    standardize: Standardize = False,
) -> Term:
    """kd at one temperature for all samples, which is learned against the student: it climbs the loss that the student descends.

    T = 1 + 20 · sigmoid(τ) lies in [1, 21] and starts at 15.6. The gradient of the loss for τ is multiplied by −λ on its way back, and
    λ goes from 0 to 1 as a cosine over the first `rise` of the training (`Seen.done`): from easy to hard. A history shows T as
    "temperature of ctkd".

    Source: Li et al. 2022, arXiv:2211.16231, §3, the global temperature; its λ rises over 10 of 240 epochs. Differs: λ goes by
    steps, not by epochs.
    Raises: ConfigError for a rise outside [0, 1].
    """
    if not 0 <= rise <= 1:
        raise ConfigError(f"ctkd.rise must be in [0, 1], got {rise!r}. It is a share of the training; the paper has 0.04.")

    def term(seen: Seen) -> Tensor:
        logits = logits_of(seen, "ctkd", standardize=standardize)
        temperature = cast(Temperature, seen.own)(opposition(seen.done, rise))
        return logits.mean(kd_rows(logits.student, logits.teacher, temperature=temperature.to(logits.student.dtype)))

    def tells(seen: Seen) -> dict[str, Tensor]:
        return {"temperature": cast(Temperature, seen.own)(0.0)}

    return Term("ctkd", term, teacher=True, reads="outputs", builds=lambda wiring: Temperature(), tells=tells)


def opposition(done: float, rise: float) -> float:
    """λ = ½ · (1 − cos(π · min(done / rise, 1))): from 0 to 1 over the first `rise` of the training, 1 from then on."""
    return 0.5 - 0.5 * math.cos(math.pi * min(done / rise, 1.0)) if rise else 1.0


class Temperature(nn.Module):
    """One temperature, which learns against whatever it softens."""

    def __init__(self) -> None:
        super().__init__()
        self.tau = nn.Parameter(torch.tensor(START))

    def forward(self, strength: float) -> Float[Tensor, ""]:
        """The temperature; the gradient that comes back for it is multiplied by −strength."""
        return LOWEST + RANGE * cast(Tensor, _Reversed.apply(self.tau, strength)).sigmoid()


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is multiplied by −strength (Ganin & Lempitsky 2015, arXiv:1409.7495, §3.2)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return -ctx.strength * given[0], None
