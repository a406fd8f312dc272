"""What a data set holds, in one line: the same in every process, another when a sample changes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import TaskError

WHOLE_BYTES = 1 << 30  # up to here every sample is read
CHOSEN = 4096  # beyond it, so many
PROBED = 64  # samples from which the size of all is judged


@runtime_checkable
class MapStyle(Protocol):
    """What a split must offer."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A data set that knows its own fingerprint."""

    fingerprint: str


@dataclass(frozen=True)
class Scan:
    """One pass over a data set: its fingerprint, and a digest of each sample that was read."""

    fingerprint: str
    samples: Mapping[int, bytes]  # id → digest
    size: int

    @property
    def whole(self) -> bool:
        return len(self.samples) == self.size


def fingerprint(dataset: MapStyle) -> str:
    """SHA-256 of the data set: its own `.fingerprint` if it offers one, else of its samples.

    All samples are read up to 1 GiB of content, else 4,096, spread evenly.
    Raises: TaskError for a sample of a type that has no plain bytes.
    """
    if isinstance(dataset, Fingerprinted):
        return _own(dataset, "dataset")
    return scan(dataset, where="dataset").fingerprint


def scan(dataset: MapStyle, *, where: str) -> Scan:
    """Fingerprint and samples' digests in one pass. `where` opens messages. Raises: as `fingerprint`."""
    size = len(dataset)
    own = _own(dataset, where) if isinstance(dataset, Fingerprinted) else None
    samples = {i: digest(dataset[i], where=f"{where}[{i}]") for i in _ids(dataset, size, where)}
    if own is not None:
        return Scan(own, samples, size)
    whole = hashlib.sha256(struct.pack("<Q", size))
    for i, sample in samples.items():
        whole.update(struct.pack("<Q", i) + sample)
    return Scan(whole.hexdigest(), samples, size)


def digest(sample: Any, *, where: str) -> bytes:
    """32 bytes that stand for a sample's content: equal samples have equal ones in every process."""
    parts: list[bytes] = []
    _encode(sample, parts, where)
    return hashlib.sha256(b"".join(parts)).digest()


def spread(size: int, count: int) -> list[int]:
    """`count` ids at even distances, or all if there are no more."""
    return list(range(size)) if size <= count else [i * size // count for i in range(count)]


def _own(dataset: Fingerprinted, where: str) -> str:
    if not isinstance(dataset.fingerprint, str) or not dataset.fingerprint:
        raise TaskError(f"{where}.fingerprint must be a text that isn't empty, got {dataset.fingerprint!r}. Make it an attribute, or take it away.")
    return hashlib.sha256(b"own" + dataset.fingerprint.encode()).hexdigest()


def _ids(dataset: MapStyle, size: int, where: str) -> list[int]:
    probed = spread(size, PROBED)
    total = 0
    for i in probed:
        parts: list[bytes] = []
        _encode(dataset[i], parts, f"{where}[{i}]")
        total += sum(map(len, parts))
    return spread(size, size if total * size <= WHOLE_BYTES * max(len(probed), 1) else CHOSEN)


def _encode(value: Any, parts: list[bytes], where: str) -> None:
    """Append bytes from which the value could be told again: kind, length, content."""
    if isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized:
        flat = value.detach().cpu().contiguous().reshape(-1)
        parts += [f"tensor {value.dtype} {tuple(value.shape)};".encode(), flat.view(torch.uint8).numpy().tobytes()]
    elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        parts += [f"array {value.dtype.str} {value.shape};".encode(), value.tobytes()]
    elif value is None or isinstance(value, (bool, int)):
        parts.append(f"{type(value).__name__} {value};".encode())
    elif isinstance(value, float):
        parts.append(b"float" + struct.pack("<d", value))
    elif isinstance(value, (str, bytes)):
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        parts += [f"{'str' if isinstance(value, str) else 'bytes'} {len(raw)};".encode(), raw]
    elif isinstance(value, Mapping):
        parts.append(f"dict {len(value)};".encode())
        for key in sorted(value, key=repr):
            _encode(key, parts, where)
            _encode(value[key], parts, f"{where}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        parts.append(f"list {len(value)};".encode())
        for i, entry in enumerate(value):
            _encode(entry, parts, f"{where}[{i}]")
    else:
        raise TaskError(f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which has no plain bytes to compare. Return tensors, arrays, numbers or text.")
