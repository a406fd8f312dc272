"""The teacher's last features, normalised, through a linear projector, under a soft maximum."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, projector, taps_of, vectors_of, width_of

EPSILON = 1e-4  # of the batch norms
SMALLEST = 1e-12  # below it the mean's logarithm stops falling


def srd(
    *,
    student: Annotated[str, "module path in the student, as a rule what goes into its head: `in:<head>`"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
    power: Annotated[float, Range(1, None), "of the differences: the higher, the more the largest count"] = 4.0,
) -> Term:
    """Simple recipe distillation on one vector a sample (maps and tokens are averaged over their places); see `srd_loss`.

    The student's goes through a linear layer that trains with it; both through a batch norm without weights.

    Raises: ConfigError for a power below 1; TaskError, in a step, for a batch of one.
    """
    if not power >= 1:
        raise ConfigError(f"srd.power must be ≥ 1, got {power!r}. The paper has 4.")
    pair = Pair(student=student, teacher=teacher)

    def builds(wiring: Wiring) -> nn.Module:
        return Normed(projector(wiring, pair), width_of(wiring.shape("teacher", pair.answer)))

    def term(seen: Seen) -> Tensor:
        return srd_loss(*seen.own(*vectors_of(seen, "srd", pair, least=2)), power=power)

    return Term("srd", term, teacher=True, relational=True, builds=builds, agrees=False, **taps_of([pair]))


class Normed(nn.Module):
    """The student's vectors projected, and both sides with mean 0 and variance 1 over the batch."""

    def __init__(self, project: nn.Module, width: int):
        super().__init__()
        self.project = project
        self.own, self.theirs = (nn.BatchNorm1d(width, eps=EPSILON, affine=False) for _ in range(2))

    def forward(self, student: Float[Tensor, "batch own"], teacher: Float[Tensor, "batch theirs"]) -> tuple[Float[Tensor, "batch theirs"], Float[Tensor, "batch theirs"]]:
        return self.own(self.project(student)), self.theirs(teacher)


def srd_loss(student: Float[Tensor, "batch width"], teacher: Float[Tensor, "batch width"], *, power: float = 4.0) -> Float[Tensor, ""]:
    """log mean |student − teacher|^power, over width and batch.

    Returns: In nats, below 0 once the mean is below 1.
    Source: Miles & Mikolajczyk 2023, arXiv:2303.11098, §3 (LogSum). Differs: the mean instead of the sum, which moves the value by a
    constant and leaves the gradient alone.
    """
    return (student - teacher).abs().pow(power).mean().clamp(min=SMALLEST).log()
