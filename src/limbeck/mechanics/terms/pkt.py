"""Which samples are neighbours in the teacher's space, as probabilities."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.features import Pair, taps_of, vectors_of

SMALLEST = 1e-7  # added to each similarity, so that a neighbour never has probability 0


def pkt(
    *,
    student: Annotated[str, "module path in the student"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
) -> Term:
    """Probabilistic knowledge transfer on one vector a sample (maps and tokens are averaged over their places); see `pkt_loss`.

    Raises: TaskError, in a step, for fewer than 3 samples: of two, each is the other's only neighbour.
    """
    pair = Pair(student=student, teacher=teacher)
    return Term("pkt", lambda seen: _value(seen, pair), teacher=True, relational=True, **taps_of([pair]))


def _value(seen: Seen, pair: Pair) -> Tensor:
    return pkt_loss(*vectors_of(seen, "pkt", pair, least=3))


def pkt_loss(student: Float[Tensor, "batch own"], teacher: Float[Tensor, "batch theirs"]) -> Float[Tensor, ""]:
    """Σ_j Σ_{i ≠ j} p_{i|j} · log(p_{i|j} / q_{i|j}) / b², p of the teacher, q of the student.

    p_{i|j} = K_ij / Σ_{k ≠ j} K_kj, K = (1 + cos) / 2.
    Returns: Loss in nats, ≥ 0; rotating either side, or scaling any sample, changes nothing.
    Source: Passalis & Tefas 2018, arXiv:1803.10837, eq. 1 to 5 with the cosine kernel. Differs: divided by b², as its public code averages, to which the weight 30000 belongs.
    """
    own, theirs = (_neighbours(side).log() for side in (student, teacher))
    return F.kl_div(own, theirs, reduction="sum", log_target=True) / len(student) ** 2


def _neighbours(side: Tensor) -> Float[Tensor, "batch others"]:
    """Each sample's probabilities over the others."""
    unit, count = F.normalize(side, dim=1), len(side)
    similar = ((unit @ unit.T + 1) / 2).clamp(min=0) + SMALLEST
    others = similar[~torch.eye(count, dtype=torch.bool, device=side.device)].view(count, count - 1)
    return others / others.sum(1, keepdim=True)
