"""What a model's inputs hold: the range of each, which of them say how to read another, and which entries count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from limbeck.runtimes.card import Feed

Ranges = dict[str, tuple[float, float]]


def ranges_of(feeds: Sequence[Feed]) -> Ranges:
    """Of each input the least and the largest value in these feeds; finite ones alone, 0 and 0 where there is none."""
    found = {}
    for name in feeds[0]:
        values = np.concatenate([f[name].reshape(-1).astype(np.float64) for f in feeds])
        finite = values[np.isfinite(values)]
        found[name] = (float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))) if finite.size else (0.0, 0.0)
    return found


def stays(name: str, values: np.ndarray, ranges: Ranges) -> bool:
    """Whether an input says how to read another (a mask, token types): booleans, or whole numbers of 0 and 1 alone beside other inputs."""
    low, high = ranges[name]
    return values.dtype.kind == "b" or (values.dtype.kind in "iu" and len(ranges) > 1 and low >= 0 and high <= 1)


def is_mask(name: str, values: np.ndarray, ranges: Ranges) -> bool:
    """Whether an input hides entries of another where it is 0: named so, and it stays."""
    return "mask" in name.lower() and stays(name, values, ranges)


def counting(fed: Feed, name: str, ranges: Ranges) -> np.ndarray:
    """Which entries of an input count: those that a mask of its shape beside it doesn't hide."""
    masks = [m for other, m in fed.items() if other != name and is_mask(other, m, ranges) and m.shape == fed[name].shape]
    return masks[0] != 0 if masks else np.ones(fed[name].shape, bool)
