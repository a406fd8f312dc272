"""Range observers: what interval of reals an activation's grid should span, from the values that pass.

A family of one shape: `update(x)` sees a finite tensor, `range()` gives (low, high). Deterministic; memory is constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from limbeck.core.errors import StageError
from limbeck.mechanics.quantizers import affine, limits

BINS = 4096
SHRINKS = 64  # how many clipped ranges `Mse` tries on each side


class Observer(Protocol):
    """Sees tensors, gives a range."""

    def update(self, x: Tensor) -> None: ...
    def range(self) -> tuple[float, float]: ...


class MinMax:
    """From the least to the greatest value seen."""

    def __init__(self) -> None:
        self.low, self.high = float("inf"), float("-inf")

    def update(self, x: Tensor) -> None:
        low, high = torch.aminmax(x.detach())
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))

    def range(self) -> tuple[float, float]:
        return self.low, self.high


class Histogram:
    """Counts over [-width, width), whose width doubles when a value falls outside: pairs of bins merge, nothing is lost."""

    def __init__(self) -> None:
        self.extremes = MinMax()
        self.width = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def update(self, x: Tensor) -> None:
        self.extremes.update(x)
        largest = max(abs(self.extremes.low), abs(self.extremes.high))
        if largest == 0.0 and self.width == 0.0:
            self.counts[BINS // 2] += x.numel()
            return
        if self.width == 0.0:
            self.width = largest * 1.0001
        while largest >= self.width:
            inner = self.counts.view(-1, 2).sum(1)
            self.counts = torch.zeros(BINS, dtype=torch.float64)
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = inner
            self.width *= 2
        places = ((x.detach().double().flatten() / self.width + 1) * (BINS / 2)).long().clamp_(0, BINS - 1)
        self.counts += torch.bincount(places, minlength=BINS)

    def centres(self) -> Tensor:
        """The middle of each bin, in the unit of the values."""
        return ((torch.arange(BINS, dtype=torch.float64) + 0.5) / (BINS / 2) - 1) * self.width


class Percentile:
    """Leaves the same fraction outside on each side, (1 − fraction) / 2; never wider than the extremes."""

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction
        self.histogram = Histogram()

    def update(self, x: Tensor) -> None:
        self.histogram.update(x)

    def range(self) -> tuple[float, float]:
        seen, low, high = self.histogram.counts.cumsum(0), self.histogram.extremes.low, self.histogram.extremes.high
        outside = float(seen[-1]) * (1 - self.fraction) / 2
        edges = (torch.arange(BINS + 1, dtype=torch.float64) / (BINS / 2) - 1) * self.histogram.width
        lower = float(edges[int(torch.searchsorted(seen, outside, right=True).clamp(max=BINS - 1))])
        upper = float(edges[int(torch.searchsorted(seen, float(seen[-1]) - outside).clamp(max=BINS - 1)) + 1])
        return max(low, lower), min(high, upper)


class Mse:
    """The range, among clipped ones, whose grid of 2^bits steps is nearest to the values seen in mean squared error."""

    def __init__(self, bits: int = 8) -> None:
        self.bits = bits
        self.histogram = Histogram()

    def update(self, x: Tensor) -> None:
        self.histogram.update(x)

    def range(self) -> tuple[float, float]:
        low, high = min(self.histogram.extremes.low, 0.0), max(self.histogram.extremes.high, 0.0)
        if high == low:
            return low, high
        for _ in range(2):  # one side, then the other, twice: they hardly depend on one another
            high = self._best([(low, high * k / SHRINKS) for k in range(SHRINKS, 0, -1)])[1]
            low = self._best([(low * k / SHRINKS, high) for k in range(SHRINKS, 0, -1)])[0]
        return low, high

    def _best(self, ranges: list[tuple[float, float]]) -> tuple[float, float]:
        return min(ranges, key=self._error)  # the first, which is the widest, where equal

    def _error(self, span: tuple[float, float]) -> float:
        low, high = span
        if high == low:
            return float("inf")
        scale, zero_point = affine(low, high, bits=self.bits)
        least, greatest = limits(self.bits)
        centres = self.histogram.centres()
        rounded = ((centres / scale).round() + zero_point).clamp(least, greatest).sub(zero_point).mul(scale)
        return float((self.histogram.counts * (centres - rounded) ** 2).sum())


def observe(modules: Mapping[str, nn.Module], new: Callable[[], Observer], run: Callable[[], None]) -> dict[str, tuple[float, float]]:
    """The range of what enters each of these modules while `run` runs; no hook stays.

    Raises: StageError, with the name, for NaN, Inf, a tensor that isn't float32, or a module that was never reached.
    """
    observers = {name: new() for name in modules}
    reached: set[str] = set()

    def hook(name: str) -> Callable[..., None]:
        def see(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0]
            if x.dtype is not torch.float32:
                raise StageError(f"tensor at '{name}' is {x.dtype}, but only torch.float32 can be quantized. Convert the model and its inputs with .float().")
            if not torch.isfinite(x).all():
                raise StageError(f"tensor at '{name}' holds NaN or Inf on calibration samples; it has no range. Look at the samples, or keep that module in float.")
            if x.numel():
                observers[name].update(x)
                reached.add(name)

        return see

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    for name in modules:
        if name not in reached:
            raise StageError(f"no calibration sample reached '{name}'; it has no range. Take more samples, or keep that module in float.")
    return {name: observer.range() for name, observer in observers.items()}
