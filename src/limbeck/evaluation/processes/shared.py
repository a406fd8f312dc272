"""Memory that two processes see: what one lays down, the other reads where it lies."""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ALIGNED = 64  # bytes; what vector instructions like
Laid = list[list[Any]]  # name, dtype, shape, offset of each array


class Shared:
    """A file without a name that is mapped into memory; it grows with what is laid down, and goes when both ends closed it."""

    def __init__(self, handle: int | None = None):
        self.handle = _nameless() if handle is None else handle
        self._map: mmap.mmap | None = None

    def lay(self, arrays: Mapping[str, np.ndarray]) -> Laid:
        """Write the arrays over what lay there; where they lie now. Raises OSError if there is no room for them."""
        laid, end = [], 0
        for name, array in arrays.items():
            laid.append([name, array.dtype.str, array.shape, end])
            end += -(-array.nbytes // ALIGNED) * ALIGNED
        if end > (len(self._map) if self._map else 0):
            if sys.platform == "linux":
                os.posix_fallocate(self.handle, 0, end)  # without it, too little memory is a crash at the first write
            else:
                os.truncate(self.handle, end)
            self._map = mmap.mmap(self.handle, end)
        for (_, _, _, offset), array in zip(laid, arrays.values(), strict=True):
            if array.nbytes and self._map:
                np.frombuffer(self._map, array.dtype, array.size, offset).reshape(array.shape)[...] = array
        return laid

    def see(self, laid: Sequence[Sequence[Any]]) -> dict[str, np.ndarray]:
        """The arrays where they lie; they hold until the other end lays down others."""
        size = os.fstat(self.handle).st_size
        if size and (self._map is None or len(self._map) < size):
            self._map = mmap.mmap(self.handle, size)
        return {name: self._seen(np.dtype(dtype), shape, offset) for name, dtype, shape, offset in laid}

    def _seen(self, dtype: np.dtype, shape: Sequence[int], offset: int) -> np.ndarray:
        count = math.prod(shape)
        return (np.frombuffer(self._map, dtype, count, offset) if count and self._map else np.zeros(count, dtype)).reshape(shape)

    def close(self) -> None:
        self._map = None
        os.close(self.handle)


def _nameless() -> int:
    if sys.platform == "linux":
        return os.memfd_create("limbeck")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
