"""How tokens relate to each other in the teacher's queries, keys and values, over as many heads as you like."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.attention import heads_of, inside, named_projections, places, tapped_projections
from limbeck.mechanics.terms.features import Pair

PARTS = ("query", "key", "value")


def minilm_relations(
    *,
    student: Annotated[str, "path of an attention module in the student, as a rule the last"],
    teacher: Annotated[str, "path of one in the teacher; `auto` takes the one that answers by name and depth (the paper names an upper middle one)"] = "auto",
    relation_heads: Annotated[int, Range(1, None), "heads into which queries, keys and values are split anew; must divide both sides' widths"] = 12,
    projections: Annotated[tuple[str, ...], "the linear layers inside that give query, key and value, or the one that gives them side by side"] = PARTS,
    teacher_projections: Annotated[tuple[str, ...], "their names in the teacher, if others"] = (),
    causal: Annotated[bool, "whether a token relates only to those before it and itself, as in a decoder"] = False,
) -> Term:
    """MiniLMv2: Q-Q, K-K and V-V relations of one layer, with equal weights; see `minilm_relations_loss`.

    Widths and numbers of attention heads may differ between the sides, for the heads are split anew.

    Raises: ConfigError for a number of projections that isn't 3 or 1; TaskError, in a step, if the heads don't divide a width.
    """
    if not projections or relation_heads < 1:
        raise ConfigError(f"minilm_relations needs relation_heads ≥ 1 and projections, got {relation_heads!r} and {list(projections)}. Name query, key and value.")
    named_projections("minilm_relations", projections, teacher_projections, PARTS)
    pair = Pair(student=student, teacher=teacher)
    taps = inside(pair, projections, teacher_projections)

    def term(seen: Seen) -> Tensor:
        own, theirs = tapped_projections(seen, "minilm_relations", pair, taps, 3)
        kept = places(seen, own[0].shape[:2], causal=causal).to(own[0].device)
        losses = [minilm_relations_loss(s, t, kept, relation_heads=relation_heads) for s, t in zip(own, theirs, strict=True)]
        return sum(losses[1:], start=losses[0])

    return Term("minilm_relations", term, teacher=True, student_taps=taps[0], teacher_taps=taps[1])


def minilm_relations_loss(
    student: Float[Tensor, "batch tokens own"], teacher: Float[Tensor, "batch tokens theirs"], kept: Bool[Tensor, "batch tokens tokens"], *, relation_heads: int
) -> Float[Tensor, ""]:
    """KL(softmax(T_h·T_hᵀ/√d_T) ‖ softmax(S_h·S_hᵀ/√d_S)), averaged over heads and tokens, then over samples.

    Args:
        student, teacher: Queries, or keys, or values of all heads side by side; d is the width of a relation head.
        kept: Which token relates to which. A token that relates to none (padding) is left out.
    Returns: Loss in nats, ≥ 0; 0 at equal relations. Rotating a relation head of either side changes nothing.
    Source: Wang et al. 2020, arXiv:2012.15828, §3.1. Differs: padding is left out, and every sample counts alike.
    """
    own, theirs = (_relations(side, kept, relation_heads) for side in (student, teacher))
    losses = F.kl_div(own, theirs, reduction="none", log_target=True).sum(-1).mean(1)
    rows = kept.any(-1)
    return ((losses * rows).sum(1) / rows.sum(1).clamp(min=1)).mean()


def _relations(side: Tensor, kept: Tensor, heads: int) -> Float[Tensor, "batch heads tokens tokens"]:
    """Logarithms of the relations."""
    split = heads_of(side, heads, "minilm_relations.relation_heads")
    scores = split @ split.transpose(-1, -2) / math.sqrt(split.shape[-1])
    return scores.masked_fill(~kept[:, None], torch.finfo(scores.dtype).min / 2).log_softmax(-1)
