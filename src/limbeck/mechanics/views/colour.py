"""Brightness, contrast and saturation, in products, sums and a clamp alone: the same bits on any machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import ConfigError
from limbeck.mechanics.views.draws import fraction, words

LUMA = (0.299, 0.587, 0.114)  # red, green, blue: ITU-R BT.601
BEYOND = 1e-3  # of the range: what rounding may put a value outside of black and white


def coloured(samples: Tensor, state: np.ndarray, *, brightness: float, contrast: float, saturation: float, black: Sequence[float], white: Sequence[float]) -> Tensor:
    """Images [batch, channels, height, width] under three factors a sample, each drawn evenly in [1 − strength, 1 + strength].

    With x on a scale from black 0 to white 1, g its grey value (luma of three channels, else their mean) and m the mean of g:
    clamp(m' + c · (b · (g + s · (x − g)) − m'), 0, 1), m' = b · m: saturation, then brightness, then contrast around the mean.
    One clamp at the end, where image libraries clamp after each. Whole numbers are rounded to the nearest.

    Raises: ConfigError for channels that black and white don't fit, and for values beyond them.
    """
    channels = samples.shape[1]
    if saturation and channels != 3:
        raise ConfigError(f"views.saturation needs images of 3 channels, red, green and blue, got {channels}. Set it to 0.")
    low, high = (_ends(values, channels, name) for name, values in (("black", black), ("white", white)))
    _within(samples, low, high)
    kind = samples.dtype if samples.dtype in (torch.float32, torch.float64) else torch.float32
    drawn = 2 * fraction(words(state, 0, 3)) - 1
    b, c, s = (torch.from_numpy(1 + strength * drawn[:, i]).to(samples.device, kind).view(-1, 1, 1, 1) for i, strength in enumerate((brightness, contrast, saturation)))
    plain = not low.any() and bool((high == 1).all())
    low, span = (t.to(samples.device, kind).view(1, -1, 1, 1) for t in (low, high - low))
    x = samples.to(kind) if plain else (samples.to(kind) - low).div_(span)
    grey = _grey(x) if contrast or saturation else None
    seen = x * (b * c * s) if plain else x.mul_(b * c * s)
    if grey is not None:
        rest = grey * (b * c * (1 - s))
        seen += rest + _mean(grey) * (b * (1 - c)) if contrast else rest
    seen.clamp_(0, 1)
    if not plain:
        seen.mul_(span).add_(low)
    return (seen if samples.is_floating_point() else seen.round_()).to(samples.dtype)


def _ends(values: Sequence[float], channels: int, name: str) -> Tensor:
    if len(values) not in (1, channels):
        raise ConfigError(f"views.{name} must have one number, or one a channel, got {len(values)} for {channels} channels. Give {channels}.")
    return torch.tensor(values, dtype=torch.float64).expand(channels)


def _within(samples: Tensor, low: Tensor, high: Tensor) -> None:
    """Raises ConfigError for values that would be cut off because the scale is another: normalised or 8-bit images."""
    least, most = (t.double().cpu() for t in (samples.amin((0, 2, 3)), samples.amax((0, 2, 3))))
    slack = BEYOND * (high - low)
    if (least < low - slack).any() or (most > high + slack).any():
        raise ConfigError(
            f"views.brightness, contrast and saturation need values from black to white, {low.tolist()} to {high.tolist()}, got {least.min():.4g} to {most.max():.4g}. "
            "Give views.black and views.white: 0 and 255 for 8 bits; (0 − mean) / std and (1 − mean) / std, one a channel, for images that are normalised so."
        )


def _grey(x: Tensor) -> Tensor:
    """[batch, 1, height, width]; channels are added in their order."""
    channels = x.shape[1]
    shares = LUMA if channels == 3 else (1 / channels,) * channels
    grey = x[:, :1] * shares[0]
    for channel in range(1, channels):
        grey += x[:, channel : channel + 1] * shares[channel]
    return grey


def _mean(grey: Tensor) -> Tensor:
    """[batch, 1, 1, 1], added up by halves: a fixed order, whatever the batch and the processor."""
    values = grey.flatten(1)
    count = values.shape[1]
    while values.shape[1] > 1:
        half, odd = divmod(values.shape[1], 2)
        folded = values[:, :half] + values[:, half : 2 * half]
        values = torch.cat([folded, values[:, 2 * half :]], 1) if odd else folded
    return (values / count).view(-1, 1, 1, 1)
