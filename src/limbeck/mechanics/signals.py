"""Where a teacher's answers come from: the model itself, or a cache of what it said to the same views.

`LiveTeacher` asks the model. `CachedTeacher` keeps whole outputs, and features where it is told to; `SparseTeacher` the k largest
probabilities of a large vocabulary. What a source can't give is refused when an objective is bound to it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import ConfigError
from limbeck.core.technique import Reads, Selective, Signals
from limbeck.mechanics.live import LiveTeacher as LiveTeacher
from limbeck.mechanics.live import Pass, Progress
from limbeck.mechanics.matching import Layer
from limbeck.mechanics.shards import Shards, Stored
from limbeck.mechanics.sparse import Layout
from limbeck.mechanics.taps import PREFIX
from limbeck.mechanics.terms.task_loss import main_name

SHARD = 4096  # samples in one file, at most
SHARD_BYTES = 64 << 20  # of features at full precision in one file: what making a shard may hold
DENSE_LIMIT = 4096  # outputs a sample, above which a dense cache is refused
INT8_MAX = 127

Dtype = Literal["float16", "float32"]
FeatureDtype = Literal["float16", "float32", "int8"]


def _cast(name: str, value: Tensor, dtype: str) -> np.ndarray:
    """Raises ConfigError where half precision can't hold a value."""
    with np.errstate(over="ignore"):
        array = value.float().numpy().astype(dtype)
    if not np.isfinite(array).all():
        raise ConfigError(f"the teacher's '{name}' reaches {value.abs().max().item():.3g}, more than {dtype} holds. Take dtype float32, or distill with the teacher live.")
    return array


@dataclass(frozen=True)
class CachedTeacher(Selective):
    """The answers of `live` to every training sample under each view, kept in `folder`.

    identity: what the cache is bound to (weights' hash, data fingerprint, view recipe); a folder of another is refused.
    dtype: "float16" halves the bytes and rounds logits to 3 digits; "float32" equals the live teacher.
    features: how what is tapped is kept, beside the outputs; "live": then the teacher runs each time.
    batch_size, progress, stop, note: as in `Pass`.
    """

    folder: Path
    live: LiveTeacher
    identity: Mapping[str, Any]
    dtype: Dtype = "float16"
    batch_size: int = 128
    progress: Progress | None = None
    stop: Callable[[], bool] = lambda: False
    note: Callable[..., None] | None = None
    features: FeatureDtype | Literal["live"] = "live"
    shard: int = SHARD
    _shards: Shards = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        asking = Pass(self.live, self.batch_size, self.progress, self.stop, self.note)
        manifest = {"holds": "outputs", "dtype": self.dtype, **asking.bound_to(self.identity)}

        def make(view: int, samples: Sequence[np.ndarray]) -> Iterator[dict[str, Stored]]:
            for name, shape in asking.sizes.items():
                if (size := math.prod(shape)) > DENSE_LIMIT:
                    raise ConfigError(
                        f"the teacher's output '{name}' has {size} values a sample; a dense cache holds up to {DENSE_LIMIT}. "
                        "Take a SparseTeacher for forward KL, or the teacher live."
                    )
            for batches in asking.answers(view, samples, lambda name: not name.startswith(PREFIX)):
                parts = [{name: _cast(name, value, self.dtype) for name, value in batch.items()} for batch in batches]
                yield {name: Stored(np.concatenate([p[name] for p in parts])) for name in parts[0]}

        object.__setattr__(self, "_shards", Shards(self.folder, manifest, asking.count, self.shard, make, self.note))

    def serving(self, reads: Reads) -> Signals:
        if reads.live:
            return self.live.tapped(reads.taps) if reads.taps else self.live
        if not reads.taps:
            return self
        if self.features == "live":
            return self.live.tapped(reads.taps)
        taps = CachedTaps(self.folder, self.live, self.identity, reads.taps, dtype=self.features, asking=Pass(self.live, self.batch_size, self.progress, self.stop, self.note))
        return Joined((self, taps)) if reads.outputs or reads.softened else taps

    def tapped(self, paths: tuple[str, ...]) -> Signals:
        return self.serving(Reads(("outputs",), taps=paths))

    def layers(self) -> tuple[Layer, ...]:
        return self.live.layers()

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(rows).float() for name, rows in self._shards.read(ids, view).items()}


@dataclass(frozen=True)
class CachedTaps:
    """What the teacher's modules at `paths` gave for every training sample under each view, in a folder of their own below `folder`.

    dtype: "int8" has a scale for each channel of a shard: off by at most half a step, 1/254 of the channel's largest absolute value.
    """

    folder: Path
    live: LiveTeacher
    identity: Mapping[str, Any]
    paths: tuple[str, ...]
    dtype: FeatureDtype = "float16"
    asking: Pass | None = None  # whose teacher is `live`; the usual one if None
    _shards: Shards = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        live = self.live.tapped(self.paths)
        asking = replace(self.asking, live=live) if self.asking else Pass(live)
        manifest = {"holds": "features", "taps": sorted(self.paths), "dtype": self.dtype, **asking.bound_to(self.identity)}
        folder = self.folder / f"features-{self.dtype}-{hashlib.sha256(json.dumps(sorted(self.paths)).encode()).hexdigest()[:12]}"
        sample = 4 * sum(math.prod(shape) for name, shape in asking.sizes.items() if name.startswith(PREFIX))

        def make(view: int, samples: Sequence[np.ndarray]) -> Iterator[dict[str, Stored]]:
            for batches in asking.answers(view, samples, lambda name: name.startswith(PREFIX)):
                parts = [{name: _cast(name, value, "float32" if self.dtype == "int8" else self.dtype) for name, value in batch.items()} for batch in batches]
                whole = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
                yield {name: _int8(array) if self.dtype == "int8" else Stored(array) for name, array in whole.items()}

        size = max(1, min(SHARD, SHARD_BYTES // max(sample, 1)))
        object.__setattr__(self, "_shards", Shards(folder, manifest, asking.count, size, make, asking.note))

    def tapped(self, paths: tuple[str, ...]) -> LiveTeacher:
        return self.live.tapped((*self.paths, *paths))

    def layers(self) -> tuple[Layer, ...]:
        return self.live.layers()

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(rows).float() for name, rows in self._shards.read(ids, view).items()}


def _int8(array: np.ndarray) -> Stored:
    """Symmetric, a scale for each channel: axis 1 of maps and vectors, the last of tokens."""
    axis = array.ndim - 1 if array.ndim == 3 else min(1, array.ndim - 1)
    largest = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis or array.ndim == 1), keepdims=True)
    scale = np.where(largest > 0, largest / INT8_MAX, 1).astype(np.float32)
    return Stored(np.rint(array / scale).astype(np.int8), np.asarray(scale[0]))


@dataclass(frozen=True)
class SparseTeacher(Selective):
    """The k largest probabilities of the main output and the tail's mass, for forward KL at the temperatures that are declared here.

    Whatever else a term reads is refused when it is bound. The other parameters are those of `CachedTeacher`.
    Raises: ConfigError for a k or a temperature that can't be, and for a folder that was made with another.
    """

    folder: Path
    live: LiveTeacher
    identity: Mapping[str, Any]
    k: int = 10
    temperatures: tuple[float, ...] = (1.0,)
    batch_size: int = 128
    progress: Progress | None = None
    stop: Callable[[], bool] = lambda: False
    note: Callable[..., None] | None = None
    shard: int = SHARD
    layout: Layout = field(init=False, repr=False, compare=False)
    _shards: Shards = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        asking = Pass(self.live, self.batch_size, self.progress, self.stop, self.note)
        main = main_name(self.live.task, asking.sizes)
        layout = Layout(asking.sizes[main][-1] if asking.sizes[main] else 1, self.k, tuple(float(t) for t in self.temperatures))
        manifest = {"holds": "top", "output": main, "classes": layout.classes, "k": self.k, "temperatures": list(layout.temperatures), **asking.bound_to(self.identity)}

        def make(view: int, samples: Sequence[np.ndarray]) -> Iterator[dict[str, Stored]]:
            for batches in asking.answers(view, samples, lambda name: name == main):
                yield {main: Stored(np.concatenate([layout.packed(batch[main]) for batch in batches]))}

        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "_shards", Shards(self.folder, manifest, asking.count, self.shard, make, asking.note))

    def serving(self, reads: Reads) -> Signals:
        if reads.live:
            return self.live.tapped(reads.taps) if reads.taps else self.live
        holds = f"a sparse cache holds the {self.k} largest probabilities for forward KL at temperature {', '.join(f'{t:g}' for t in self.layout.temperatures)}"
        if reads.outputs:
            raise ConfigError(f"{reads.outputs[0]} reads the teacher's whole outputs; {holds}. Leave the term out, or take a CachedTeacher or the teacher live.")
        if reads.taps:
            raise ConfigError(f"the teacher's '{reads.taps[0]}' is tapped; {holds}. Leave the term out, or take a CachedTeacher or the teacher live.")
        for label, temperature in reads.softened.items():
            if temperature not in self.layout.temperatures:
                raise ConfigError(f"{label} softens with temperature {temperature:g}; {holds}. Build the cache with that temperature, or change the term's.")
        return self

    def tapped(self, paths: tuple[str, ...]) -> Signals:
        return self.serving(Reads(taps=paths))

    def layers(self) -> tuple[Layer, ...]:
        return self.live.layers()

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        """As `Layout.answers`: no output by its own name."""
        (rows,) = self._shards.read(ids, view).values()
        return self.layout.answers(rows)


@dataclass(frozen=True)
class Joined:
    """Several sources that answer together."""

    sources: tuple[Signals, ...]

    def tapped(self, paths: tuple[str, ...]) -> Signals:
        return Joined((*self.sources, self.sources[0].tapped(paths)))

    def layers(self) -> Sequence[Layer]:
        return self.sources[0].layers()

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: value for source in self.sources for name, value in source.teacher(ids, view, args, kwargs).items()}
