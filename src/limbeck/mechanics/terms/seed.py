"""Which past samples a sample is like, as the teacher sees them: features alone, and no labels."""

from __future__ import annotations

from typing import Annotated, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.depths import HEAD
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, vectors_of, width_of


def seed(
    *,
    student: Annotated[str, "module path in the student; `auto`: what goes into its head"] = "auto",
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
    queue: Annotated[int, Range(1, None), "the teacher's features of past samples that a sample is compared with"] = 4096,
    student_temperature: Annotated[float, Range(0, None, closed="neither"), "divides the student's cosines; smaller is sharper"] = 0.2,
    teacher_temperature: Annotated[float, Range(0, None, closed="neither"), "divides the teacher's cosines; smaller is sharper"] = 0.01,
) -> Term:
    """Self-supervised distillation: how like a sample is to those in a queue, and to itself, in the teacher's features; see `seed_loss`.

    One vector a sample (maps and tokens are averaged over their places), of length 1; the student's goes through two linear layers with
    a ReLU between, which train with it. The queue holds the teacher's vectors, the newest in place of the oldest; it starts with random
    directions, and a batch joins it after its own step, so no sample depends on who shares its batch. It is kept with the training.

    Source: Fang et al. 2021, arXiv:2101.04731, §3.2; 65,536 vectors there.
    Raises: ConfigError for a queue below 1 or a temperature ≤ 0.
    """
    if not (queue >= 1 and student_temperature > 0 and teacher_temperature > 0):
        raise ConfigError(f"seed needs queue ≥ 1 and both temperatures > 0, got {queue!r}, {student_temperature!r} and {teacher_temperature!r}. 4096, 0.2 and 0.01 are usual.")
    pair = Pair(student=HEAD if student == "auto" else student, teacher=teacher)

    def builds(wiring: Wiring) -> nn.Module:
        return Queue(width_of(wiring.shape("student", pair.student)), width_of(wiring.shape("teacher", pair.answer)), queue)

    def term(seen: Seen) -> Tensor:
        own = cast(Queue, seen.own)
        s, t = vectors_of(seen, "seed", pair)
        s, t = F.normalize(own.project(s), dim=1), F.normalize(t, dim=1)
        loss = seed_loss(s, t, own.past.clone().to(t.dtype), student_temperature=student_temperature, teacher_temperature=teacher_temperature)
        if torch.is_grad_enabled():
            own.push(t)
        return loss

    found = student == "auto"
    return Term("seed", term, teacher=True, builds=builds, agrees=False, teacher_taps=(pair.answer,), student_taps=() if found else (student,), chosen=(HEAD,) if found else ())


class Queue(nn.Module):
    """The student's projection, and the teacher's directions of past samples."""

    past: Tensor
    at: Tensor

    def __init__(self, own: int, theirs: int, size: int):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(own, own), nn.ReLU(), nn.Linear(own, theirs))
        self.register_buffer("past", F.normalize(torch.randn(size, theirs), dim=1))
        self.register_buffer("at", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, teacher: Float[Tensor, "batch theirs"]) -> None:
        """These in place of the oldest; of more than there is room for, the last."""
        size = len(self.past)
        kept = teacher[-size:].to(self.past.dtype)
        self.past[(self.at + torch.arange(len(kept), device=self.at.device)) % size] = kept
        self.at.copy_((self.at + len(kept)) % size)


def seed_loss(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    past: Float[Tensor, "queue dim"],
    *,
    student_temperature: float = 0.2,
    teacher_temperature: float = 0.01,
) -> Float[Tensor, ""]:
    """Cross-entropy between two distributions over the queue and the sample's own vector of the teacher, averaged over the batch.

    −Σ_j softmax(t · d_j / τ_T) · log softmax(s · d_j / τ_S), the d_j being the queue and, last, the teacher's own vector t.

    Args:
        student, teacher, past: Vectors of length 1; only the student's get a gradient.
    Returns: In nats, never below the entropy of the teacher's distribution.
    Source: Fang et al. 2021, arXiv:2101.04731, §3.2.
    """
    teacher = teacher.detach()
    wanted = torch.cat([teacher @ past.T, (teacher * teacher).sum(1, keepdim=True)], 1) / teacher_temperature
    given = torch.cat([student @ past.T, (student * teacher).sum(1, keepdim=True)], 1) / student_temperature
    return -(wanted.softmax(1) * given.log_softmax(1)).sum(1).mean()
