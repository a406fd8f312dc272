"""Which token looks at which in the teacher, head by head."""

from __future__ import annotations

import math
from typing import Annotated

from jaxtyping import Bool, Float
from torch import Tensor

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.attention import heads_of, inside, named_projections, places, tapped_projections
from limbeck.mechanics.terms.features import Pair, some, taps_of

PARTS = ("query", "key")


def attention_maps(
    *,
    pairs: Annotated[tuple[Pair, ...], "attention modules to match; their values are added"],
    heads: Annotated[int, Range(1, None), "attention heads, as many on both sides"],
    projections: Annotated[
        tuple[str, ...], "the linear layers inside that give query and key, or the one that gives query, key and value side by side; none: the module itself gives probabilities"
    ] = PARTS,
    teacher_projections: Annotated[tuple[str, ...], "their names in the teacher, if others"] = (),
    causal: Annotated[bool, "whether a token looks only at those before it and itself, as in a decoder"] = False,
) -> Term:
    """TinyBERT's attention: the mean squared difference of Q·Kᵀ/√d, before the softmax; see `attention_maps_loss`.

    What the models do to query and key after these layers (rotary positions, a relative bias) isn't in it. Fewer heads for the key than
    for the query (grouped queries) are repeated. With `projections = []` a pair's module must give [batch, heads, tokens, tokens],
    as a dropout on the probabilities does, and those are compared.

    Raises: ConfigError without pairs, or for fewer than one head; TaskError, in a step, where heads or tokens don't agree.
    """
    found = some("attention_maps", pairs)
    named_projections("attention_maps", projections, teacher_projections, PARTS)
    if heads < 1:
        raise ConfigError(f"attention_maps.heads must be ≥ 1, got {heads!r}. Say how many heads both sides have.")
    taps = [inside(pair, projections, teacher_projections) for pair in found]

    def maps(seen: Seen, pair: Pair, paths: tuple[tuple[str, ...], tuple[str, ...]]) -> tuple[Tensor, Tensor]:
        if not projections:
            return _probabilities(seen, pair, heads)
        own, theirs = (_scores(q, k, heads) for q, k in tapped_projections(seen, "attention_maps", pair, paths, 2))
        return own, theirs

    def term(seen: Seen) -> Tensor:
        losses = []
        for pair, paths in zip(found, taps, strict=True):
            own, theirs = maps(seen, pair, paths)
            kept = places(seen, (own.shape[0], own.shape[2]), causal=causal).to(own.device)
            losses.append(attention_maps_loss(own, theirs, kept))
        return sum(losses[1:], start=losses[0])

    if not projections:
        return Term("attention_maps", term, teacher=True, **taps_of(found))
    own, theirs = (tuple(path for sides in taps for path in sides[side]) for side in (0, 1))
    return Term("attention_maps", term, teacher=True, student_taps=own, teacher_taps=theirs)


def attention_maps_loss(
    student: Float[Tensor, "batch heads tokens tokens"], teacher: Float[Tensor, "batch heads tokens tokens"], kept: Bool[Tensor, "batch tokens tokens"]
) -> Float[Tensor, ""]:
    """(A_S − A_T)², averaged over heads and kept places, then over samples.

    Returns: ≥ 0; 0 at equal maps. In squared units of the scores, or of probabilities.
    Source: Jiao et al. 2019, arXiv:1909.10351, eq. 7. Differs: padding is left out, and every sample counts alike.
    """
    losses = (student - teacher).square().mean(1) * kept
    return (losses.sum((1, 2)) / kept.sum((1, 2)).clamp(min=1)).mean()


def _scores(query: Tensor, key: Tensor, heads: int) -> Float[Tensor, "batch heads tokens tokens"]:
    own = heads_of(query, heads, "attention_maps.heads")
    if key.shape[-1] % own.shape[-1] or heads % (groups := key.shape[-1] // own.shape[-1]):
        raise TaskError(f"attention_maps.heads = {heads} gives heads of {own.shape[-1]}, which the key's width {key.shape[-1]} doesn't fit. Give the number of the query's heads.")
    theirs = heads_of(key, groups, "attention_maps.heads").repeat_interleave(heads // groups, dim=1)
    return own @ theirs.transpose(-1, -2) / math.sqrt(own.shape[-1])


def _probabilities(seen: Seen, pair: Pair, heads: int) -> tuple[Tensor, Tensor]:
    own, theirs = seen.tap("student", pair.student), seen.tap("teacher", pair.answer)
    if own.dim() != 4 or own.shape != theirs.shape or own.shape[1] != heads or own.shape[2] != own.shape[3]:
        shapes = f"student {list(own.shape)} and teacher {list(theirs.shape)}"
        raise TaskError(f"attention_maps needs maps [batch, {heads} heads, tokens, tokens] on both sides, got {shapes}. For other numbers of heads use minilm_relations.")
    return own, theirs.detach().to(own.dtype)
