"""What moves values and never changes them: crop, shift and flip of images, shift of series."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from limbeck.mechanics.views.draws import WORD, below

GEOMETRY_WORDS = 5  # crop's row and column, shift's row and column, flip


def moved(samples: Tensor, words: np.ndarray, *, crop: int, shift: int, flip: bool) -> Tensor:
    """Images [batch, channels, height, width] cut out of a mirrored frame, moved over zeros, and mirrored in half of the views."""
    height, width = samples.shape[2:]
    rows = _sources(height, words[:, 0], words[:, 2], crop=crop, shift=shift)
    columns = _sources(width, words[:, 1], words[:, 3], crop=crop, shift=shift)
    if flip:
        mirrored = (words[:, 4] >> WORD(63)).astype(bool)
        columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
    gap = (rows < 0)[:, :, None] | (columns < 0)[:, None, :]
    places = np.maximum(rows, 0)[:, :, None] * width + np.maximum(columns, 0)[:, None, :]
    return _taken(samples.flatten(2), places.reshape(len(samples), -1), gap.reshape(len(samples), -1)).view(samples.shape)


def moved_in_time(samples: Tensor, words: np.ndarray, *, shift: int) -> Tensor:
    """Series [batch, …, time] moved along their last axis; zeros fill the gap."""
    places = _sources(samples.shape[-1], words[:, 1], words[:, 3], crop=0, shift=shift)
    flat = samples.reshape(len(samples), -1, samples.shape[-1])
    return _taken(flat, np.maximum(places, 0), places < 0).view(samples.shape)


def _taken(samples: Tensor, places: np.ndarray, gap: np.ndarray) -> Tensor:
    """[batch, channels, places]: what stood at these places, 0 at a gap; every channel alike."""
    taken = samples.gather(2, torch.from_numpy(places).to(samples.device)[:, None].expand(-1, samples.shape[1], -1))
    return taken.masked_fill_(torch.from_numpy(gap)[:, None].to(samples.device), 0) if gap.any() else taken


def _sources(size: int, crop_words: np.ndarray, shift_words: np.ndarray, *, crop: int, shift: int) -> np.ndarray:
    """Along one axis: for each sample and each new place, the old place, or −1 where a zero goes."""
    shifted = np.arange(size) + (below(shift_words, 2 * shift + 1) - shift)[:, None]
    old = shifted + (below(crop_words, 2 * crop + 1) - crop)[:, None]
    mirrored = (size - 1) - np.abs((size - 1) - np.abs(old))
    return np.where((shifted >= 0) & (shifted < size), mirrored, -1)
