"""Two samples as one: mixup and CutMix. The partner follows from (id, view), not from the batch, so a cache of (id, view) is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import ConfigError
from limbeck.mechanics.views.covering import rectangle
from limbeck.mechanics.views.draws import below, fraction, words

LEVELS = 256  # mixup's λ is a multiple of 1/256: exact in every floating-point type, and in 8-bit whole numbers
MIX_WORDS = 5


@dataclass(frozen=True)
class Mixed:
    """How the samples of a batch were mixed, each with a partner.

    partners: their numbers in the training split; a sample that isn't mixed is its own.
    share: λ, how much of the sample's own is left, [batch], float64; 1 for one that isn't mixed.
    batch: the partners, with their labels, in the same order.
    """

    partners: np.ndarray
    share: Tensor
    batch: Any

    def blend(self, own: Tensor, partner: Tensor) -> Tensor:
        """λ · own + (1 − λ) · partner, of one value a sample: what a loss that is linear in the label becomes."""
        share = self.share.to(own.device)
        return share.to(own.dtype) * own + (1 - share).to(own.dtype) * partner


@dataclass(frozen=True)
class Mix:
    """What is drawn for each sample. cut: whether a rectangle of the partner is pasted, instead of both being blended."""

    partners: np.ndarray
    blended: np.ndarray
    cut: np.ndarray
    words: np.ndarray

    def applied(self, own: Tensor, partner: Tensor) -> tuple[Tensor, np.ndarray]:
        """The mixed samples, and λ of each. Shapes must be equal."""
        share = np.ones(len(own))
        if self.blended.any():
            levels = np.where(self.blended, below(self.words[:, 2], LEVELS + 1), LEVELS)
            share = levels / LEVELS
            own = _blended(own, partner, torch.from_numpy(levels).to(own.device).view(-1, *[1] * (own.dim() - 1)))
        if self.cut.any():
            inside = self._rectangles((own.shape[2], own.shape[3]))
            share = share - inside.sum((1, 2)) / (own.shape[2] * own.shape[3])
            own = torch.where(torch.from_numpy(inside)[:, None].to(own.device), partner, own)
        return own, share

    def _rectangles(self, size: tuple[int, int]) -> np.ndarray:
        """Sides √(1 − λ) of the image's around an even place, cut off at its edge: Yun et al. 2019, arXiv:1905.04899, eq. 2."""
        side = np.sqrt(fraction(self.words[:, 2]))
        heights, widths = (np.floor(n * side).astype(np.int64) for n in size)
        top, left = below(self.words[:, 3], size[0]) - heights // 2, below(self.words[:, 4], size[1]) - widths // 2
        return rectangle(size, top, left, heights, widths) & self.cut[:, None, None]


def drawn_mix(state: np.ndarray, ids: np.ndarray, count: int, *, mixup: float, cutmix: float) -> Mix:
    """For each sample whether it is mixed, how, and with which of the `count` training samples."""
    found = words(state, 0, MIX_WORDS)
    kind = fraction(found[:, 0])
    blended, cut = kind < mixup, (kind >= mixup) & (kind < mixup + cutmix)
    return Mix(np.where(blended | cut, below(found[:, 1], count), ids), blended, cut, found)


def _blended(own: Tensor, partner: Tensor, levels: Tensor) -> Tensor:
    """λ · own + (1 − λ) · partner, λ = levels / 256; each product and the sum rounded for itself, never fused."""
    if own.is_floating_point():
        share = levels.to(own.dtype) / LEVELS
        return (own * share).add_(partner * (1 - share))
    if own.dtype != torch.uint8:
        raise ConfigError(f"views.mixup must get floating-point numbers or 8-bit pixels, got {own.dtype}. Point views.input at such an input, or set mixup to 0.")
    levels = levels.to(torch.int32)
    return (own * levels).add_(partner * (LEVELS - levels)).add_(LEVELS // 2).floor_divide_(LEVELS).to(torch.uint8)


def beside(batch: Any, device: torch.device) -> Any:
    """The same batch with its tensors on this device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: beside(value, device) for key, value in batch.items()}
    return type(batch)(beside(value, device) for value in batch) if type(batch) in (tuple, list) else batch
