"""Messages between two processes: a length, a header of JSON, then the bytes of arrays as they lie in memory. No pickles."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

LENGTH = struct.Struct("<I")
PART = 1 << 24  # bytes that one system call is asked to move
Wait = Callable[[], None]  # returns when a pipe may be ready again


def now() -> None:
    """For a pipe that blocks: there is nothing to wait for."""


def send(pipe: int, message: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None, *, wait: Wait = now) -> None:
    """Write one message. Raises BrokenPipeError if nobody reads it any more."""
    held = {name: a if a.flags.c_contiguous else a.copy(order="C") for name, a in (arrays or {}).items()}
    header = json.dumps({**message, "arrays": [[name, a.dtype.str, a.shape] for name, a in held.items()]}).encode()
    _write(pipe, memoryview(LENGTH.pack(len(header)) + header), wait)
    for array in held.values():
        if array.nbytes:
            _write(pipe, array.reshape(-1).view(np.uint8).data, wait)


def received(pipe: int, *, wait: Wait = now) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Read one message and its arrays; None if the other end is closed."""
    length = bytearray(LENGTH.size)
    if not _filled(pipe, length, wait):
        return None
    header = bytearray(LENGTH.unpack(length)[0])
    if not _filled(pipe, header, wait):
        return None
    message, arrays = json.loads(header), {}
    for name, dtype, shape in message.pop("arrays"):
        raw = bytearray(np.dtype(dtype).itemsize * math.prod(shape))
        if not _filled(pipe, raw, wait):
            return None
        arrays[name] = np.frombuffer(raw, dtype).reshape(shape)
    return message, arrays


def _write(pipe: int, data: memoryview, wait: Wait) -> None:
    while data:
        try:
            data = data[os.write(pipe, data[:PART]) :]
        except BlockingIOError:
            wait()


def _filled(pipe: int, buffer: bytearray, wait: Wait) -> bool:
    """Whether the buffer could be filled before the other end closed."""
    left = memoryview(buffer)
    while left:
        try:
            count = os.readv(pipe, [left[:PART]])
        except BlockingIOError:
            wait()
            continue
        if not count:
            return False
        left = left[count:]
    return True
