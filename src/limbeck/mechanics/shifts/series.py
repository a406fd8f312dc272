"""What befalls recordings and other series: noise, clipping, a gain that is too low."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.mechanics.shifts.corruption import Corruption, Place, in_dtype

LEVELS = {
    "noise": (25.0, 20.0, 15.0, 10.0, 5.0),  # signal to noise, dB
    "clipping": (0.7, 0.5, 0.35, 0.2, 0.1),  # of the sample's own peak
    "gain": (-3.0, -6.0, -10.0, -15.0, -20.0),  # dB
}


def series_shifts(*, input: Place = None) -> dict[str, Corruption]:
    """Three kinds for series [time] or [channels, time], by name: noise, clipping, gain.

    Noise is white, so strong that the ratio of the signal's power (about its mean) to it is 25, 20, 15, 10, 5 dB. Clipping cuts off
    what is further from the mean than 0.7, 0.5, 0.35, 0.2, 0.1 of the sample's peak. Gain makes all of it smaller, by 3, 6, 10, 15,
    20 dB. Each is measured by the sample itself: no range need be known. The strengths are limbeck's own.

    Args:
        input: Where in a sample the series stands: a key or a position; None: the first of a tuple, the only one of a dict.
    """
    return {name: Corruption(partial(_changed, name, change), "series, time last", input) for name, change in CHANGES.items()}


def _changed(name: str, change: Callable[..., np.ndarray], series: Any, strength: int, rng: np.random.Generator) -> np.ndarray:
    if not isinstance(series, np.ndarray) or series.ndim < 1 or series.dtype.kind not in "iuf":
        got = f"{series.dtype} {list(series.shape)}" if isinstance(series, np.ndarray) else type(series).__name__
        raise ConfigError(f"series_shifts must get series of numbers, got {got}. Name the input.")
    return in_dtype(change(series.astype(np.float64), LEVELS[name][strength - 1], rng), series.dtype)


def _noise(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    return x + x.std() * 10 ** (-amount / 20) * rng.standard_normal(x.shape)


def _clipping(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    mean = x.mean()
    far = amount * np.abs(x - mean).max(initial=0.0)
    return np.clip(x, mean - far, mean + far)


def _gain(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    return x * 10 ** (amount / 20)


CHANGES = {"noise": _noise, "clipping": _clipping, "gain": _gain}
