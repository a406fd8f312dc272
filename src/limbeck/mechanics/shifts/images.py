"""What befalls images: noise, blur, loss of contrast, JPEG, something in front, another place in the frame."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.core.require import require
from limbeck.mechanics.shifts.corruption import Corruption, Place, in_dtype

SMALL, LARGE = 32, 224  # sides for which Hendrycks & Dietterich give strengths; sizes between lie geometrically between
TRANSLATION = "translation"
LEVELS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),  # standard deviation, of the range
    "blur": ((0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0)),  # standard deviation of the Gaussian, pixels
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),  # what is left of it
    "jpeg": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),  # quality
    "occlusion": ((0.02, 0.05, 0.10, 0.17, 0.25), (0.02, 0.05, 0.10, 0.17, 0.25)),  # share of the area; limbeck's own
    TRANSLATION: ((0.04, 0.08, 0.12, 0.17, 0.22), (0.04, 0.08, 0.12, 0.17, 0.22)),  # of the shorter side; limbeck's own
}
Ends = float | Sequence[float]
Layout = Literal["CHW", "HWC", "HW"]


def image_shifts(*, low: Ends = 0.0, high: Ends = 1.0, mean: Ends | None = None, std: Ends | None = None, layout: Layout = "CHW", input: Place = None) -> dict[str, Corruption]:
    """Six kinds for images, by name: noise, blur, contrast, jpeg (with Pillow), occlusion, translation.

    Args:
        low: The value that stands for black, one for all channels or one each; what gets darker is cut off there. 0 for 8 bits.
        high: The value that stands for white; 255 for 8 bits.
        mean: Instead of low and high, of images that were normalised as (x − mean) / std with x in [0, 1].
        std: As mean.
        layout: Order of a sample's axes: channels, height, width.
        input: Where in a sample the image stands: a key or a position; None: the first of a tuple, the only one of a dict.
    Returns: what `Task(shifts=…)` takes; more kinds can be added to it.
    Raises: ConfigError for a range or a layout that can't be.
    Source: Hendrycks & Dietterich 2019, arXiv:1903.12261, §3, and their code's strengths for 32 and 224 pixels. Differs: sizes
        between lie geometrically between; occlusion (a grey square) and translation (edges repeated) are not among theirs.
    """
    if (mean is None) != (std is None):
        raise ConfigError("image_shifts: mean and std must be given together. Give both, or low and high.")
    if mean is not None and std is not None:
        if np.any(np.asarray(std) <= 0):
            raise ConfigError(f"image_shifts.std must be > 0, got {std!r}. It is what pixels were divided by.")
        low, high = (((end - np.asarray(mean, dtype=np.float64)) / np.asarray(std)).tolist() for end in (0.0, 1.0))
    if layout not in ("CHW", "HWC", "HW"):
        raise ConfigError(f"image_shifts.layout must be 'CHW', 'HWC' or 'HW', got {layout!r}. Name a sample's axes in their order, without the batch.")
    ends = np.atleast_1d(np.asarray(low, dtype=np.float64)), np.atleast_1d(np.asarray(high, dtype=np.float64))
    if np.any(ends[0] >= ends[1]) or not np.isfinite(ends[0]).all() or not np.isfinite(ends[1]).all():
        raise ConfigError(f"image_shifts: low must be below high, got {_words(ends[0])} and {_words(ends[1])}. They are the values of black and white.")
    assumes = f"images {layout}, black {_words(ends[0])}, white {_words(ends[1])}"
    return {
        name: Corruption(partial(_changed, name, change, ends[0], ends[1], layout), assumes, input, needs="pillow" if name == "jpeg" else None) for name, change in CHANGES.items()
    }


def level(name: str, strength: int, side: int) -> float:
    """How much of a kind a strength is for images whose shorter side has so many pixels."""
    small, large = (of_size[strength - 1] for of_size in LEVELS[name])
    share = min(max(math.log(side / SMALL) / math.log(LARGE / SMALL), 0.0), 1.0)
    return small ** (1 - share) * large**share


def _changed(name: str, change: Callable[..., np.ndarray], low: np.ndarray, high: np.ndarray, layout: Layout, image: Any, strength: int, rng: np.random.Generator) -> np.ndarray:
    """One image on the scale from black 0 to white 1, as [channels, height, width], changed, and back."""
    if not isinstance(image, np.ndarray) or image.ndim != len(layout) or image.dtype.kind not in "iuf":
        got = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ConfigError(f"image_shifts must get images {layout}, numbers, got {got}. Set layout, or name the input.")
    x = image.astype(np.float64)
    x = x[None] if layout == "HW" else np.moveaxis(x, -1, 0) if layout == "HWC" else x
    if len(low) not in (1, len(x)) or len(high) not in (1, len(x)):
        raise ConfigError(f"image_shifts.low and high must have one number, or one a channel, got {len(low)} and {len(high)} for {len(x)} channels.")
    black, span = low[:, None, None], (high - low)[:, None, None]
    seen = change((x - black) / span, level(name, strength, min(x.shape[1:])), rng)
    back = np.clip(seen, 0, 1) * span + black
    return in_dtype(back[0] if layout == "HW" else np.moveaxis(back, 0, -1) if layout == "HWC" else back, image.dtype)


def _noise(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    return x + amount * rng.standard_normal(x.shape)


def _blur(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(x, (0, amount, amount), mode="nearest")


def _contrast(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    mean = x.mean((1, 2), keepdims=True)
    return (x - mean) * amount + mean


def _jpeg(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Written and read again; with other than 1 or 3 channels, each as a grey image."""
    pillow = require("PIL.Image", pip="pillow")

    def again(pixels: np.ndarray) -> np.ndarray:
        stream = io.BytesIO()
        pillow.fromarray(pixels).save(stream, "JPEG", quality=round(amount))
        return np.asarray(pillow.open(stream), dtype=np.float64) / 255

    pixels = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    if len(x) == 3:
        return np.moveaxis(again(np.moveaxis(pixels, 0, -1)), -1, 0)
    return np.stack([again(channel) for channel in pixels])


def _occlusion(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    height, width = x.shape[1:]
    side = max(1, round(math.sqrt(amount * height * width)))
    tall, wide = min(side, height), min(side, width)
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    seen = x.copy()
    seen[:, top : top + tall, left : left + wide] = 0.5
    return seen


def _translation(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    height, width = x.shape[1:]
    far, angle = max(1.0, amount * min(height, width)), 2 * math.pi * rng.random()
    rows = np.clip(np.arange(height) - round(far * math.sin(angle)), 0, height - 1)
    columns = np.clip(np.arange(width) - round(far * math.cos(angle)), 0, width - 1)
    return x[:, rows][:, :, columns]


def _words(ends: np.ndarray) -> str:
    return ", ".join(f"{v:.4g}" for v in ends)


CHANGES = {"noise": _noise, "blur": _blur, "contrast": _contrast, "jpeg": _jpeg, "occlusion": _occlusion, TRANSLATION: _translation}
