"""The teacher's hidden states, layer by layer, through linear projections that train with the student."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, features_of, projector, some, taps_of
from limbeck.mechanics.terms.hint import hint_loss


def hidden_states(*, pairs: Annotated[tuple[Pair, ...], "layers to match, the embeddings too; their values are added"]) -> Term:
    """TinyBERT's hidden states: MSE(H_S · W, H_T) for each pair, W linear without bias and trained with the student; see `hint_loss`.

    Padded tokens are left out, and every sample counts alike.
    Source: Jiao et al. 2019, arXiv:1909.10351, eq. 8 and, with the embeddings tapped, eq. 9. Differs: each pair has a W of its own.
    Raises: ConfigError without pairs.
    """
    found = some("hidden_states", pairs)

    def builds(wiring: Wiring) -> nn.Module:
        return nn.ModuleList(projector(wiring, pair, bias=False) for pair in found)

    def term(seen: Seen) -> Tensor:
        sides = [features_of(seen, "hidden_states", pair) for pair in found]
        losses = [hint_loss(project(f.student), f.teacher, f.weight) for f, project in zip(sides, seen.own, strict=True)]
        return sum(losses[1:], start=losses[0])

    return Term("hidden_states", term, teacher=True, builds=builds, agrees=False, **taps_of(found))
