"""What this machine can do at best, measured: multiply-adds a second and bytes a second. And which of the two bounds a layer.

Source: Williams, Waterman, Patterson 2009, "Roofline: an insightful visual performance model".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

SIDE = 768  # of the square FP32 matrices
COPIED = 64 << 20  # bytes: beyond the caches of most machines
SECONDS = 0.3  # for each of the two


@dataclass(frozen=True)
class Peak:
    """The best of several short tries, FP32, with this many threads; what a layer in int8 reaches may lie above."""

    flops: float  # floating-point operations a second; a multiply-add is two
    bytes: float  # bytes a second, read and written
    threads: int

    @property
    def ridge(self) -> float:
        """Operations a byte at which a layer turns from memory-bound to compute-bound."""
        return self.flops / self.bytes

    def bound(self, intensity: float) -> Literal["compute", "memory"]:
        return "compute" if intensity >= self.ridge else "memory"

    def least_ms(self, macs: int, moved: int) -> float:
        """No layer of so many MACs and moved bytes is faster on this machine in FP32."""
        return 1e3 * max(2 * macs / self.flops, moved / self.bytes)


def measured_peak(threads: int, *, seconds: float = SECONDS, clock: Callable[[], float] = time.perf_counter) -> Peak:
    """A matrix product and a copy, again and again for `seconds` each, with torch; its number of threads is set back."""
    before = torch.get_num_threads()
    left, right, out = (torch.ones(SIDE, SIDE) for _ in range(3))
    source = torch.zeros(COPIED // 4)
    copy = torch.empty_like(source)
    try:
        torch.set_num_threads(threads)
        product = _fastest(lambda: torch.mm(left, right, out=out), seconds, clock)
        stream = _fastest(lambda: copy.copy_(source), seconds, clock)
    finally:
        torch.set_num_threads(before)
    return Peak(2 * SIDE**3 / product, 2 * COPIED / stream, threads)


def _fastest(work: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    work()
    best, start = float("inf"), clock()
    while best == float("inf") or clock() - start < seconds:
        begin = clock()
        work()
        best = min(best, clock() - begin)
    return best
