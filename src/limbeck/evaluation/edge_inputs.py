"""Inputs at the edge of what a model takes, made from an ordinary batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.evaluation.ranges import Ranges, is_mask, stays
from limbeck.runtimes.card import Feed, InputSpec

Shapes = Mapping[str, tuple[int, ...]]
HALF_MOST = 65504.0  # the largest number of float16
SUBNORMAL = {"float16": 1e-7, "float32": 1e-40, "float64": 1e-310}  # below the least that is held at full precision


@dataclass(frozen=True)
class Case:
    """An input and what it is. `endless`: it holds infinities, so that answers may."""

    name: str
    what: str
    feed: dict[str, np.ndarray]
    endless: bool = False


def cases_of(inputs: Sequence[InputSpec], base: Feed, *, ranges: Ranges, longest: Shapes) -> list[Case]:
    """All edges that these inputs have.

    Args:
        inputs: As the session says them: which axes are free.
        base: An ordinary batch, by the names of the inputs.
        ranges: Of each input the least and largest value seen.
        longest: Of each input the shape in which every axis is as long as any sample's.
    """
    return [*_empty(inputs, base), *_constant(base, ranges), *_extreme(base, ranges), *_lengths(inputs, base, longest), *_padding(base, ranges)]


def batch_of_any_size(inputs: Sequence[InputSpec]) -> bool:
    """Whether the first axis of every input that has axes is free: then it is the batch."""
    return any(spec.shape for spec in inputs) and all(not spec.shape or spec.shape[0] is None for spec in inputs)


def samples(feed: Feed, start: int, stop: int) -> dict[str, np.ndarray]:
    """These samples of a batch; an input without axes is of all of them."""
    return {name: value[start:stop] if value.ndim else value for name, value in feed.items()}


def length(feed: Feed) -> int:
    """How many samples a batch has; 1 where no input has axes."""
    return next((len(value) for value in feed.values() if value.ndim), 1)


def _empty(inputs: Sequence[InputSpec], base: Feed) -> list[Case]:
    return [Case("empty batch", "no sample at all", samples(base, 0, 0))] if batch_of_any_size(inputs) else []


def _filled(base: Feed, ranges: Ranges, values: Mapping[str, float]) -> dict[str, np.ndarray]:
    """One value everywhere, but in inputs that say how to read another."""
    return {name: v if stays(name, v, ranges) else np.full_like(v, values[name]) for name, v in base.items()}


def _constant(base: Feed, ranges: Ranges) -> list[Case]:
    whole = all(v.dtype.kind in "iu" for n, v in base.items() if not stays(n, v, ranges))
    most = "the largest id seen everywhere" if whole else "the largest value seen everywhere"
    zero, least = dict.fromkeys(base, 0.0), {n: r[0] for n, r in ranges.items()}
    found = [Case("all zero", "0 everywhere", _filled(base, ranges, zero))]
    if any(least[n] for n, v in base.items() if not stays(n, v, ranges)):
        found.append(Case("all least", "the least value seen everywhere", _filled(base, ranges, least)))
    return [*found, Case("all largest", most, _filled(base, ranges, {n: r[1] for n, r in ranges.items()}))]


def _extreme(base: Feed, ranges: Ranges) -> list[Case]:
    """Of floating-point inputs alone: whole numbers beyond those seen are another vocabulary."""
    floats = [n for n, v in base.items() if v.dtype.kind == "f"]
    if not floats:
        return []

    def scaled(by: float) -> dict[str, np.ndarray]:
        with np.errstate(over="ignore"):
            return dict(base) | {n: (base[n].astype(np.float64) * by).astype(base[n].dtype) for n in floats}

    def everywhere(value: float) -> dict[str, np.ndarray]:
        return dict(base) | {n: np.full_like(base[n], value) for n in floats}

    most = dict(base) | {n: np.where(base[n] < 0, -HALF_MOST, HALF_MOST).astype(base[n].dtype) for n in floats}
    tiny = dict(base) | {n: np.full_like(base[n], SUBNORMAL[str(base[n].dtype)]) for n in floats}
    return [
        Case("10 × range", "ordinary samples, ten times as large", scaled(10)),
        Case("1000 × range", "ordinary samples, a thousand times as large", scaled(1000)),
        Case("float16's largest", "± 65504, by the sign of ordinary samples", most),
        Case("subnormal", "numbers so small that they are held with fewer digits", tiny),
        Case("+ infinity", "infinity everywhere", everywhere(np.inf), endless=True),
        Case("− infinity", "minus infinity everywhere", everywhere(-np.inf), endless=True),
    ]


def _lengths(inputs: Sequence[InputSpec], base: Feed, longest: Shapes) -> list[Case]:
    """Axes that are free beside the batch, at 1, at the longest seen and at twice that; those that belong together together."""
    free = _free_axes(inputs, base)
    if not free:
        return []
    seen = {group: max(longest[name][axis] for name, axis in places) for group, places in free.items()}
    names = " × ".join(str(n) for n in seen.values())
    return [
        Case("shortest", "free axes of length 1", _resized(base, free, dict.fromkeys(free, 1))),
        Case("longest seen", f"free axes as long as any sample's ({names})", _resized(base, free, seen)),
        Case("twice the longest", f"free axes twice as long as any sample's ({names})", _resized(base, free, {g: 2 * n for g, n in seen.items()})),
    ]


def _free_axes(inputs: Sequence[InputSpec], base: Feed) -> dict[str, list[tuple[str, int]]]:
    """Axes that must be equally long, by a name: the artifact's own where it has one, else their length."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for spec in inputs:
        for axis, size in enumerate(spec.shape):
            if axis and size is None:
                own = spec.axes[axis] if axis < len(spec.axes) else None
                found[own or f"length {base[spec.name].shape[axis]}"].append((spec.name, axis))
    return dict(found)


def _resized(base: Feed, free: Mapping[str, Sequence[tuple[str, int]]], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The batch with its free axes cut off, or repeated from the start."""
    feed = dict(base)
    for group, places in free.items():
        for name, axis in places:
            value = feed[name]
            if value.shape[axis]:
                feed[name] = np.take(value, np.arange(sizes[group]) % value.shape[axis], axis=axis)
    return feed


def _padding(base: Feed, ranges: Ranges) -> list[Case]:
    masks = [n for n, v in base.items() if is_mask(n, v, ranges)]
    return [Case("all padding", "a mask that hides everything", dict(base) | {n: np.zeros_like(base[n]) for n in masks})] if masks else []
