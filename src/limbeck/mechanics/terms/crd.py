"""Whose features are whose: a sample's own in the teacher against those of other samples, which wait in a queue."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, taps_of, vectors_of, width_of


def crd(
    *,
    student: Annotated[str, "module path in the student, as a rule what goes into its head: `in:<head>`"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
    queue: Annotated[int, Range(1, None), "embeddings of past samples that serve as negatives"] = 4096,
    dim: Annotated[int, Range(1, None), "width of the embeddings"] = 128,
    temperature: Annotated[float, Range(0, None, closed="neither"), "divides the cosines; smaller is sharper"] = 0.07,
) -> Term:
    """Contrastive representation distillation with a queue of fixed size; see `crd_loss`.

    One vector a sample (maps and tokens are averaged over their places), each side through a linear layer that trains with the
    student, to length 1. Negatives are the other samples of the batch and the queue, a sample's own past left out. Both directions
    are added: the student's embedding among the teacher's, the teacher's among the student's.

    Differs from the paper: its memory holds every sample of the data set, and negatives are drawn from it; here they are the last
    `queue` embeddings, so the memory doesn't grow with the data, and they are as old as queue ÷ batch steps.

    Raises: ConfigError for a queue or width below 1, or a temperature ≤ 0.
    """
    if not (queue >= 1 and dim >= 1 and temperature > 0):
        raise ConfigError(f"crd needs queue ≥ 1, dim ≥ 1 and temperature > 0, got {queue!r}, {dim!r} and {temperature!r}. 4096, 128 and 0.07 are usual.")
    pair = Pair(student=student, teacher=teacher)

    def builds(wiring: Wiring) -> nn.Module:
        return Contrast(width_of(wiring.shape("student", pair.student)), width_of(wiring.shape("teacher", pair.answer)), dim, queue)

    def term(seen: Seen) -> Tensor:
        return seen.own(*vectors_of(seen, "crd", pair), torch.as_tensor(seen.ids), temperature)

    return Term("crd", term, teacher=True, relational=True, builds=builds, agrees=False, **taps_of([pair]))


class Contrast(nn.Module):
    """Both embeddings, the queues of past ones, and the constants that make an average negative's score 1."""

    students: Tensor
    teachers: Tensor
    ids: Tensor
    at: Tensor
    constants: Tensor

    def __init__(self, own: int, theirs: int, dim: int, queue: int):
        super().__init__()
        self.student, self.teacher = nn.Linear(own, dim), nn.Linear(theirs, dim)
        self.register_buffer("students", torch.zeros(queue, dim))
        self.register_buffer("teachers", torch.zeros(queue, dim))
        self.register_buffer("ids", torch.full((queue,), -1))  # −1: nobody is there yet
        self.register_buffer("at", torch.zeros((), dtype=torch.long))
        self.register_buffer("constants", torch.zeros(2))  # of the student among teachers, of the teacher among students; 0: not known yet

    def forward(self, student: Float[Tensor, "batch own"], teacher: Float[Tensor, "batch theirs"], ids: Int[Tensor, " batch"], temperature: float) -> Float[Tensor, ""]:
        s, t, ids = F.normalize(self.student(student), dim=1), F.normalize(self.teacher(teacher), dim=1), ids.to(self.ids.device)
        waiting = self.ids.clone()
        allowed = torch.cat([ids[:, None] != ids[None], (waiting[None] >= 0) & (ids[:, None] != waiting[None])], dim=1)
        among = (torch.cat([t, self.teachers.clone()]), torch.cat([s, self.students.clone()]))
        losses = []
        for index, (anchor, positive, others) in enumerate(((s, t, among[0]), (t, s, among[1]))):
            self._settle(index, anchor, others, allowed, temperature)
            losses.append(crd_loss(anchor, positive, others, allowed, temperature=temperature, constant=self.constants[index].clone()))
        if torch.is_grad_enabled():
            self._push(s.detach(), t.detach(), ids)
        return losses[0] + losses[1]

    def _settle(self, index: int, anchor: Tensor, others: Tensor, allowed: Tensor, temperature: float) -> None:
        """The constant, once: the mean score of the first negatives that there are."""
        if self.constants[index] == 0 and allowed.any():
            self.constants[index] = (anchor.detach() @ others.detach().T / temperature)[allowed].exp().mean()

    def _push(self, student: Tensor, teacher: Tensor, ids: Tensor) -> None:
        size = len(self.ids)
        student, teacher, ids = student[-size:], teacher[-size:], ids[-size:]
        where = (self.at + torch.arange(len(ids), device=self.ids.device)) % size
        self.students[where], self.teachers[where], self.ids[where] = student.to(self.students.dtype), teacher.to(self.teachers.dtype), ids
        self.at.copy_((self.at + len(ids)) % size)


def crd_loss(
    anchor: Float[Tensor, "batch dim"],
    positive: Float[Tensor, "batch dim"],
    others: Float[Tensor, "others dim"],
    allowed: Bool[Tensor, "batch others"],
    *,
    temperature: float,
    constant: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """−log h(a, p) − Σ_n log(1 − h(a, n)), averaged over the batch; h = u / (u + K), u = exp(a·x / τ) / Z, K negatives.

    Args:
        anchor, positive, others: Embeddings of length 1.
        allowed: Which of the others are negatives of which anchor. An anchor without any adds 0.
        constant: Z, the mean of exp(a·n / τ), so that u estimates how much likelier a pair is than chance; 0 counts as 1.
    Returns: Loss in nats, ≥ 0.
    Source: Tian et al. 2019, arXiv:1910.10699, eq. 17 to 19, with u scaled as its public code does (Z is settled once).
    """
    log_z = torch.where(constant > 0, constant, 1.0).log()
    count = allowed.sum(1, keepdim=True).to(anchor.dtype)
    right = (anchor * positive).sum(1, keepdim=True) / temperature - log_z
    wrong = anchor @ others.T / temperature - log_z
    taken = torch.logaddexp(right, count.log()) - right
    refused = torch.where(allowed, torch.logaddexp(wrong - count.clamp(min=1).log(), torch.zeros_like(wrong)), 0.0)
    return (taken + refused.sum(1, keepdim=True)).mean()
