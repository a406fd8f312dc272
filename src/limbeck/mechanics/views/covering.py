"""What puts one value over part of a sample: a rectangle of an image, a stretch of time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import ConfigError
from limbeck.mechanics.views.draws import below, fraction, words

ASPECT = (0.3, 1 / 0.3)  # height in widths: Zhong et al. 2017, arXiv:1708.04896, §3.2
ERASE_WORDS = 5


def erased(samples: Tensor, state: np.ndarray, *, share: float, least: float, most: float, fill: float) -> Tensor:
    """Images [batch, channels, height, width] with a rectangle of `fill` in that share of the views, the same in all channels.

    The area is drawn evenly in [least, most] of the image, the aspect ratio evenly in [0.3, 3.33], the place evenly. Both sides are
    whole pixels, so chosen that the area stays within its limits.
    Source: Zhong et al. 2017, arXiv:1708.04896, algorithm 1. Differs: a rectangle that doesn't fit is cut to the image's sides
    instead of drawn again; one value instead of random ones.
    Raises: ConfigError if no rectangle of whole pixels has such an area.
    """
    size, drawn = (samples.shape[2], samples.shape[3]), words(state, 0, ERASE_WORDS)
    chosen = fraction(drawn[:, 0]) < share
    heights, widths = _sides(size, fraction(drawn[:, 1]), fraction(drawn[:, 2]), least=least, most=most)
    top, left = below(drawn[:, 3], size[0] - heights + 1), below(drawn[:, 4], size[1] - widths + 1)
    inside = rectangle(size, top, left, heights, widths) & chosen[:, None, None]
    return _filled(samples, torch.from_numpy(inside)[:, None], fill, "erase")


def masked_in_time(samples: Tensor, state: np.ndarray, *, longest: int, count: int, fill: float) -> Tensor:
    """Series [batch, …, time] with `count` stretches of `fill`, each of 0 to `longest` steps, in all channels; they may overlap.

    Source: Park et al. 2019 (SpecAugment), arXiv:1904.08779, §2, time masking alone; the last start is included.
    """
    steps, drawn = samples.shape[-1], words(state, 0, 2 * count)
    lengths = below(drawn[:, :count], longest + 1)
    starts = below(drawn[:, count:], steps - lengths + 1)
    places = np.arange(steps)
    inside = ((places >= starts[..., None]) & (places < (starts + lengths)[..., None])).any(1)
    return _filled(samples, torch.from_numpy(inside).view(len(samples), *[1] * (samples.dim() - 2), steps), fill, "time_mask")


def rectangle(size: tuple[int, int], top: np.ndarray, left: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """[batch, height, width]: whether a pixel lies in its sample's rectangle, as far as that lies in the image."""
    rows, columns = (np.arange(n)[None] for n in size)
    in_rows = (rows >= top[:, None]) & (rows < (top + heights)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + widths)[:, None])
    return in_rows[:, :, None] & in_columns[:, None, :]


def _sides(size: tuple[int, int], area: np.ndarray, aspect: np.ndarray, *, least: float, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of each rectangle: those nearest to the drawn area and aspect whose product keeps the limits."""
    height, width = size
    every, whole = np.arange(1, height + 1), height * width
    narrow = np.maximum(np.ceil(least * whole / every), 1).astype(np.int64)  # for each height, the widths that keep the limits
    wide = np.minimum(np.floor(most * whole / every), width).astype(np.int64)
    able = every[narrow <= wide]
    if not len(able):
        raise ConfigError(
            f"views.erase_least to erase_most, {least:g} to {most:g}, must admit a rectangle of whole pixels; none has such an area in an image of {height} × {width}. Widen them."
        )
    target = (least + area * (most - least)) * whole
    tall = np.sqrt(target * (ASPECT[0] + aspect * (ASPECT[1] - ASPECT[0])))  # a square root is rounded alike everywhere
    heights = able[np.abs(able[None] - tall[:, None]).argmin(1)]
    widths = np.clip(np.rint(target / heights).astype(np.int64), narrow[heights - 1], wide[heights - 1])
    return heights, widths


def _filled(samples: Tensor, inside: Tensor, fill: float, name: str) -> Tensor:
    value = torch.tensor(fill, dtype=samples.dtype)
    if not samples.is_floating_point() and float(value) != fill:
        raise ConfigError(f"views.fill must be a value of the input, {samples.dtype}, got {fill!r} for {name}. Take one that it holds.")
    return samples.masked_fill(inside.to(samples.device), value.item())
