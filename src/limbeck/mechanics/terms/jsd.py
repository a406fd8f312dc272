"""How far the teacher's and the student's probabilities are apart: from covering the teacher's modes to seeking one."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.sparse import kd_top_rows
from limbeck.mechanics.terms.logits import Standardize, Temperature, logits_of, softened_of


def jsd(
    *,
    beta: Annotated[float, Range(0, 1), "0: forward KL (cover all that the teacher would say); 1: reverse KL (say only what the teacher would); between: JSD"] = 0.5,
    skew: Annotated[
        float, Range(0, 1, closed="left"), "with beta 0 or 1: the second distribution of the KL takes this share of the first, so that its gradient stays bounded"
    ] = 0.0,
    temperature: Temperature = 1.0,
    standardize: Standardize = False,
) -> Term:
    """Generalised Jensen–Shannon divergence of class or token probabilities, with both KLs at its ends; see `jsd_loss`.

    Forward KL: beta 0. Reverse KL: beta 1. Skew KL: beta 0, skew 0.1. Skew reverse KL: beta 1, skew 0.1. Tokens labelled −100
    are left out.

    Raises: ConfigError for a skew between the ends, where the mixture itself keeps the gradient bounded.
    """
    if skew and 0 < beta < 1:
        raise ConfigError(f"jsd.skew must be 0 with a beta between 0 and 1, got skew {skew!r} and beta {beta!r}. Skew a KL: beta = 0 or 1.")

    forward = beta == 0 and not skew and not standardize

    def term(seen: Seen) -> Tensor:
        if forward and (top := softened_of(seen, "jsd", temperature)):
            return top.mean(kd_top_rows(top.student, top.ids, top.teacher, temperature=temperature))
        logits = logits_of(seen, "jsd", standardize=standardize)
        return logits.mean(jsd_rows(logits.student, logits.teacher, beta=beta, skew=skew, temperature=temperature))

    return Term("jsd", term, teacher=True, reads=temperature if forward else "outputs")


def jsd_loss(
    student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"], *, beta: float = 0.5, skew: float = 0.0, temperature: float = 1.0
) -> Float[Tensor, ""]:
    """T² · (β · KL(p ‖ m) + (1 − β) · KL(q ‖ m)), averaged over the batch.

    p is the teacher's softmax at temperature T, q the student's, m = β · p + (1 − β) · q. At β = 0 and 1 that would be 0
    everywhere: by convention it is KL(p ‖ q) at 0 and KL(q ‖ p) at 1, to which JSD/β and JSD/(1 − β) tend. With a skew α these
    are KL(p ‖ α · p + (1 − α) · q) and KL(q ‖ α · q + (1 − α) · p).

    Args:
        student: Logits; the only input that receives gradient.
        beta: In [0, 1]. Near an end JSD is small as β or 1 − β is: weigh it accordingly.
        temperature: Softening T > 0, dimensionless.
    Returns: Loss in nats, ≥ 0; 0 when both softmaxes agree.
    Source: Agarwal et al. 2024 (GKD), arXiv:2306.13649, eq. 1; skew: Ko et al. 2024 (DistiLLM), arXiv:2402.03898, §3.1.
    Differs: T², as kd has it, so that a weight keeps its meaning when T changes.
    """
    return jsd_rows(student, teacher, beta=beta, skew=skew, temperature=temperature).mean()


def jsd_rows(student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"], *, beta: float, skew: float, temperature: float) -> Float[Tensor, " rows"]:
    """`jsd_loss` of each row."""
    p = F.log_softmax(teacher.detach().to(student.dtype) / temperature, dim=-1)
    q = F.log_softmax(student / temperature, dim=-1)
    if beta == 0:
        return _kl(p, _mixed(p, q, skew)) * temperature**2
    if beta == 1:
        return _kl(q, _mixed(q, p, skew)) * temperature**2
    m = _mixed(p, q, beta)
    return (beta * _kl(p, m) + (1 - beta) * _kl(q, m)) * temperature**2


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of each row, from log probabilities."""
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def _mixed(p: Tensor, q: Tensor, share: float) -> Tensor:
    """log(share · p + (1 − share) · q), from log probabilities."""
    return torch.logaddexp(p + math.log(share), q + math.log1p(-share)) if share else q
