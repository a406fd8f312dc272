"""What terms on attention share: query, key and value as they are tapped, split into heads; which places count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.matching import CHOICES, INSIDE
from limbeck.mechanics.objective import Seen
from limbeck.mechanics.terms.features import Pair, padding


def inside(pair: Pair, names: Sequence[str], teacher_names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The taps of the modules of these names in both attention modules; the teacher's names are the student's unless given."""
    theirs = teacher_names or names
    own = tuple(f"{pair.student}.{name}" for name in names)
    return own, tuple(f"{pair.answer}{INSIDE if pair.teacher in CHOICES else '.'}{name}" for name in theirs)


def named_projections(term: str, names: Sequence[str], teacher_names: Sequence[str], parts: Sequence[str]) -> None:
    """Raises ConfigError unless there is a name for each part, or one for all."""
    for option, given in (("projections", names), ("teacher_projections", teacher_names)):
        if given and len(given) not in (1, len(parts)):
            raise ConfigError(
                f"{term}.{option} must name {' and '.join(parts)}, or the one module that gives query, key and value side by side, got {list(given)}. Name them in this order."
            )


def tapped_projections(seen: Seen, term: str, pair: Pair, taps: tuple[tuple[str, ...], tuple[str, ...]], parts: int) -> tuple[list[Tensor], list[Tensor]]:
    """The first `parts` of query, key and value on both sides, [batch, tokens, width] each. Raises TaskError for other shapes or lengths."""
    sides = [[seen.tap("student", path) for path in taps[0]], [seen.tap("teacher", path) for path in taps[1]]]
    for side, tensors in zip(("student", "teacher"), sides, strict=True):
        odd = next((t for t in tensors if t.dim() != 3), None)
        if odd is not None:
            raise TaskError(f"{term} reads projections of shape [batch, tokens, width], got {list(odd.shape)} from the {side}'s side of '{pair.student}'. Name its linear layers.")
    if sides[0][0].shape[:2] != sides[1][0].shape[:2]:
        shapes = [list(side[0].shape) for side in sides]
        raise TaskError(f"{term} relates tokens to each other, and student {shapes[0]} and teacher {shapes[1]} have other ones. Both must read the same tokens.")
    own, theirs = (list(side[0].chunk(3, dim=-1)[:parts]) if len(side) == 1 else side for side in sides)
    return own, [t.detach().to(own[0].dtype) for t in theirs]


def heads_of(tensor: Float[Tensor, "batch tokens width"], heads: int, where: str) -> Float[Tensor, "batch heads tokens size"]:
    """Split by heads. Raises TaskError if they don't divide the width."""
    if tensor.shape[-1] % heads:
        raise TaskError(f"{where} = {heads} must divide the width of what is tapped, got {tensor.shape[-1]}. Take a divisor of both sides' widths.")
    return tensor.unflatten(-1, (heads, -1)).transpose(1, 2)


def places(seen: Seen, shape: Sequence[int], *, causal: bool) -> Bool[Tensor, "batch tokens tokens"]:
    """Which token may look at which: none at padding, none from it, with `causal` none ahead."""
    kept = padding(seen, shape)
    kept = torch.ones(tuple(shape), dtype=torch.bool) if kept is None else kept
    pairs = kept[:, :, None] & kept[:, None, :]
    return pairs & torch.ones(shape[1], shape[1], dtype=torch.bool, device=pairs.device).tril() if causal else pairs
