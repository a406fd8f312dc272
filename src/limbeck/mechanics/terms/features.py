"""What terms on features share: pairs of layers, one resolution, padding left out, each sample counting alike.

Features are maps [batch, channels, height, width], tokens [batch, tokens, dim] or vectors [batch, dim]. Where resolutions differ, the
finer one is averaged down (adaptive average pooling) to the coarser. A map meets tokens as a square grid, a leading class token
and a distillation token left out. Labels of −100 aren't looked at: a token without a label still has features; padding is what an `attention_mask` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.matching import CHOICES
from limbeck.mechanics.matching import width_of as width_of
from limbeck.mechanics.objective import Seen, Wiring

SPECIAL = 2  # tokens at most that may stand before those of a grid: a class token, a distillation token
TAKEN = "[batch, channels, height, width], [batch, tokens, dim] or [batch, dim]"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A layer of the student and the teacher's that it is matched with."""

    student: Annotated[str, "module path in the student"]
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth, `auto:cka` the one whose features are most alike"] = (
        "auto"
    )

    @property
    def answer(self) -> str:
        """The teacher's tap."""
        return answering(self.student, self.teacher)


@dataclass(frozen=True)
class Features:
    """Both sides at one resolution, place by place. `weight` adds up to 1, so that Σ weight · loss is the mean over samples."""

    student: Float[Tensor, "batch places own"]
    teacher: Float[Tensor, "batch places theirs"]
    weight: Float[Tensor, "batch places"]


def average(losses: Float[Tensor, "batch places"], weight: Float[Tensor, "batch places"] | None) -> Float[Tensor, ""]:
    """The mean over samples of the mean over a sample's places: it doesn't depend on how a batch is split. Without weights, all places count."""
    return losses.mean() if weight is None else (losses * weight).sum()


def answering(student: str, teacher: str) -> str:
    """The teacher's tap for a student's layer: its path, or what "auto" and "auto:cka" will stand for."""
    return CHOICES[teacher] + student if teacher in CHOICES else teacher


def some(name: str, pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs, of which there must be one. Raises ConfigError."""
    if not pairs:
        raise ConfigError(f"{name}.pairs must name at least one pair of layers, got none. Give pairs = [{{ student = 'layer3', teacher = 'auto' }}].")
    return tuple(pairs)


def taps_of(pairs: Sequence[Pair]) -> dict[Literal["student_taps", "teacher_taps"], tuple[str, ...]]:
    """What a term on these pairs taps."""
    return {"student_taps": tuple(p.student for p in pairs), "teacher_taps": tuple(p.answer for p in pairs)}


def projector(wiring: Wiring, pair: Pair, *, bias: bool = True) -> nn.Linear:
    """From the student's width to the teacher's, place by place: a 1×1 convolution, a linear layer."""
    return nn.Linear(width_of(wiring.shape("student", pair.student)), width_of(wiring.shape("teacher", pair.answer)), bias=bias)


def features_of(seen: Seen, name: str, pair: Pair) -> Features:
    """Both sides of a pair at the coarser of their resolutions; padded tokens weigh nothing. Raises TaskError for other shapes."""
    student, teacher = both_of(seen, name, pair)
    if len(student) != len(teacher):
        raise TaskError(f"{name} needs as many samples from both sides, got student {list(student.shape)} and teacher {list(teacher.shape)}. Tap modules with the batch first.")
    if min(student.dim(), teacher.dim()) == 2:
        s, t, kept = _pooled(seen, student)[:, None], _pooled(seen, teacher)[:, None], None
    elif student.dim() == teacher.dim() == 3:
        s, t, kept = _tokens(student, teacher, mask_of(seen, student), mask_of(seen, teacher))
    else:
        maps = as_map(student, name, pair.student), as_map(teacher, name, pair.answer)
        size = [min(m.shape[axis] for m in maps) for axis in (2, 3)]
        s, t = (resized(m, size).flatten(2).transpose(1, 2) for m in maps)
        kept = None
    kept = torch.ones(s.shape[:2], dtype=torch.bool, device=s.device) if kept is None else kept
    kept = kept.to(s.dtype)
    return Features(s, t, kept / (len(s) * kept.sum(1, keepdim=True).clamp(min=1)))


def vectors_of(seen: Seen, name: str, pair: Pair, *, least: int = 1) -> tuple[Float[Tensor, "batch own"], Float[Tensor, "batch theirs"]]:
    """One vector a sample on both sides: the mean over places, without padding. Raises TaskError for fewer than `least` samples."""
    student, teacher = both_of(seen, name, pair)
    return _pooled(seen, enough(student, name, least)), _pooled(seen, teacher)


def flat_of(seen: Seen, name: str, pair: Pair, *, least: int = 1) -> tuple[Float[Tensor, "batch own"], Float[Tensor, "batch theirs"]]:
    """All that a sample has on both sides, in a row, padding as 0. Raises TaskError for fewer than `least` samples."""
    student, teacher = both_of(seen, name, pair)
    found = []
    for tensor in (enough(student, name, least), teacher):
        mask = mask_of(seen, tensor)
        found.append((tensor if mask is None else tensor * mask[:, :, None]).flatten(1))
    return found[0], found[1]


def enough(tensor: Tensor, name: str, least: int) -> Tensor:
    """The tensor, if its batch is large enough. Raises TaskError."""
    if len(tensor) < least:
        raise TaskError(f"{name} compares the samples of a batch with each other and needs at least {least}, got {len(tensor)}. Raise the batch size.")
    return tensor


def mask_of(seen: Seen, tensor: Tensor) -> Bool[Tensor, "batch tokens"] | None:
    """Which of a tensor's tokens aren't padding; None where nothing says so, or the tensor has no tokens."""
    return padding(seen, tensor.shape[:2]) if tensor.dim() == 3 else None


def padding(seen: Seen, shape: Sequence[int]) -> Bool[Tensor, "batch tokens"] | None:
    """Where tokens of this [batch, tokens] are kept, by the `attention_mask` that the models were called with or that the batch has."""
    mask = seen.inputs.get("attention_mask", seen.batch.get("attention_mask") if isinstance(seen.batch, Mapping) else None)
    return mask.bool() if isinstance(mask, Tensor) and tuple(mask.shape) == tuple(shape) else None


def as_map(tensor: Tensor, name: str, path: str) -> Float[Tensor, "batch channels height width"]:
    """A map as it is, a vector as one place, tokens as a square grid (leading class and distillation tokens left out). Raises TaskError if they form none."""
    if tensor.dim() == 4:
        return tensor
    if tensor.dim() == 2:
        return tensor[:, :, None, None]
    side = math.isqrt(tensor.shape[1])
    extra = tensor.shape[1] - side**2
    if extra > SPECIAL:
        raise TaskError(f"{name} meets maps with tokens as a square grid, and the {tensor.shape[1]} tokens of '{path}' form none. Tap a layer of the other side that gives no map.")
    return tensor[:, extra:].transpose(1, 2).unflatten(2, (side, side))


def resized(features: Float[Tensor, "batch channels height width"], size: Sequence[int]) -> Float[Tensor, "batch channels h w"]:
    """Averaged down to this size; as they are, if they have it."""
    return features if tuple(features.shape[2:]) == tuple(size) else F.adaptive_avg_pool2d(features, (size[0], size[1]))


def both_of(seen: Seen, name: str, pair: Pair) -> tuple[Tensor, Tensor]:
    """What both taps gave; the teacher's without gradient and in the student's precision. Raises TaskError for other shapes."""
    student, teacher = seen.tap("student", pair.student), seen.tap("teacher", pair.answer)
    for side, path, tensor in (("student", pair.student, student), ("teacher", pair.answer, teacher)):
        if tensor.dim() not in (2, 3, 4) or not tensor.is_floating_point():
            raise TaskError(f"{name} takes features of shape {TAKEN}, got {list(tensor.shape)} of {tensor.dtype} from the {side}'s '{path}'. Tap another module.")
    return student, teacher.detach().to(student.dtype)


def _pooled(seen: Seen, tensor: Tensor) -> Float[Tensor, "batch width"]:
    if tensor.dim() == 2:
        return tensor
    if tensor.dim() == 4:
        return tensor.mean((2, 3))
    mask = mask_of(seen, tensor)
    return tensor.mean(1) if mask is None else (tensor * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def _tokens(s: Tensor, t: Tensor, s_mask: Tensor | None, t_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Both sequences at the shorter's length; a place is kept if any of its tokens is, on both sides."""
    length, found, kept = min(s.shape[1], t.shape[1]), [], torch.ones(len(s), 1, dtype=torch.bool, device=s.device)
    for tensor, mask in ((s, s_mask), (t, t_mask)):
        share = torch.ones(tensor.shape[:2], dtype=tensor.dtype, device=tensor.device) if mask is None else mask.to(tensor.dtype)
        if tensor.shape[1] != length:
            tensor = F.adaptive_avg_pool1d((tensor * share[:, :, None]).transpose(1, 2), length).transpose(1, 2)
            share = F.adaptive_avg_pool1d(share, length)
            tensor = tensor / share.clamp(min=1e-6)[:, :, None]
        found.append(tensor)
        kept = kept & (share > 0)
    return found[0], found[1], kept
