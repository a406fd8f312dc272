"""Where a teacher's answers come from: the model itself, or a cache of what it said to the same views.

A cache is a folder: `manifest.json` and one `.npy` a view and shard, memory-mapped when read. A shard is written under
another name, synced and renamed, so a killed run leaves whole shards or none; what is missing is made when it is asked for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, Interrupted, TaskError
from limbeck.core.files import write
from limbeck.core.task import Task
from limbeck.mechanics.data import Reader, arguments, batch_of, named_outputs
from limbeck.mechanics.matching import Layer, layers
from limbeck.mechanics.taps import shapes, tapped, with_taps

CACHE_VERSION = 1
SHARD = 4096  # samples in one file
DENSE_LIMIT = 4096  # outputs a sample, above which a dense cache is refused


@dataclass(frozen=True)
class LiveTeacher:
    """Asks the model each time, in eval mode and without gradient. Raises TaskError on NaN or Inf in its outputs."""

    task: Task
    model: nn.Module
    taps: tuple[str, ...] = ()

    def tapped(self, paths: tuple[str, ...]) -> LiveTeacher:
        shapes(self.model, paths, *arguments(self.task, batch_of(self.task, "train", [0, 1])))  # refuses a path that isn't there
        return LiveTeacher(self.task, self.model, (*self.taps, *paths))

    def layers(self) -> tuple[Layer, ...]:
        return layers(self.model, *arguments(self.task, batch_of(self.task, "train", [0, 1])))

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        self.model.eval()
        with torch.no_grad(), tapped(self.model, self.taps) as seen:
            outputs = with_taps(named_outputs(self.task, self.model(*args, **kwargs)), seen)
        for name, value in outputs.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise TaskError(f"the teacher's output '{name}' holds NaN or Inf for one of the samples {ids[:8].tolist()}. Look at these inputs and at the weights.")
        return outputs


@dataclass(frozen=True)
class CachedTeacher:
    """The answers of `live` to every training sample under each view, kept in `folder`.

    identity: what the cache is bound to (weights' hash, data fingerprint, view recipe); a folder of another is refused.
    stop: asked between batches; True raises Interrupted, and the shards that are whole stay.
    dtype: "float16" halves the bytes and rounds logits to 3 digits; "float32" equals the live teacher.
    """

    folder: Path
    live: LiveTeacher
    identity: Mapping[str, Any]
    dtype: str = "float16"
    batch_size: int = 256
    progress: Callable[[float, float, str], None] | None = None
    stop: Callable[[], bool] = lambda: False
    _open: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        manifest = {"version": CACHE_VERSION, "dtype": self.dtype, "shard": SHARD, **self.identity}
        path = self.folder / "manifest.json"
        if path.exists():
            found = json.loads(path.read_text())
            odd = sorted(k for k in manifest.keys() | found.keys() if manifest.get(k) != found.get(k))
            if odd:
                raise ConfigError(
                    f"the teacher's cache {self.folder} was made with another {odd[0]}: {found.get(odd[0])!r}, now {manifest.get(odd[0])!r}. Delete the folder, or use another."
                )
        else:
            write(path, json.dumps(manifest, sort_keys=True, indent=1).encode())

    def tapped(self, paths: tuple[str, ...]) -> LiveTeacher:
        """Features aren't cached: with taps the teacher runs live."""
        return self.live.tapped(paths)

    def layers(self) -> tuple[Layer, ...]:
        return self.live.layers()

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        if (self.folder / f"view{view}.json").exists() is False:
            self._make(view)
        names = json.loads((self.folder / f"view{view}.json").read_text())
        return {name: torch.from_numpy(self._read(name, view, np.asarray(ids))).float() for name in names}

    def _read(self, name: str, view: int, ids: np.ndarray) -> np.ndarray:
        shards = ids // SHARD
        first = self._shard(name, view, int(shards[0]))
        out = np.empty((len(ids), *first.shape[1:]), first.dtype)
        for shard in np.unique(shards):
            rows = shards == shard
            out[rows] = self._shard(name, view, int(shard))[ids[rows] % SHARD]
        return out

    def _shard(self, name: str, view: int, shard: int) -> np.ndarray:
        key = (name, view, shard)
        if key not in self._open:
            self._open[key] = np.load(self.folder / f"{name}.view{view}.{shard}.npy", mmap_mode="r")
        return self._open[key]

    def _make(self, view: int) -> None:
        """Every shard of this view that isn't there yet; the list of outputs last, which says that the view is whole."""
        count = len(self.live.task.split("train"))
        reader, names = Reader(self.live.task, "train"), []
        for shard in range((count + SHARD - 1) // SHARD):
            ids = np.arange(shard * SHARD, min(count, (shard + 1) * SHARD))
            done = self.folder / f"shard.view{view}.{shard}.json"
            if not done.exists():
                outputs = self._asked(ids, view, reader)
                for name, value in outputs.items():
                    write(self.folder / f"{name}.view{view}.{shard}.npy", _array(value))
                write(done, json.dumps(sorted(outputs)).encode())
            names = json.loads(done.read_text())
            if self.progress:
                self.progress(float(ids[-1] + 1), float(count), f"teacher's answers to view {view}")
        write(self.folder / f"view{view}.json", json.dumps(names).encode())

    def _asked(self, ids: np.ndarray, view: int, reader: Reader) -> dict[str, np.ndarray]:
        task, parts = self.live.task, []
        for start in range(0, len(ids), self.batch_size):
            if self.stop():
                raise Interrupted("stopped while the teacher's answers were taken; those that are whole are kept. Run the same command again to go on.")
            part = ids[start : start + self.batch_size]
            batch = reader.batch(part)
            args, kwargs = task.views.apply_to(task, batch, part, np.full(len(part), view)) if task.views else arguments(task, batch)
            parts.append(self.live.teacher(part, view, args, kwargs))
        floats = [n for n, v in parts[0].items() if v.is_floating_point()]
        for name in floats:
            if (size := parts[0][name][0].numel()) > DENSE_LIMIT:
                raise ConfigError(f"the teacher's output '{name}' has {size} values a sample; a dense cache holds up to {DENSE_LIMIT}. Distill with the teacher live.")
        return {n: torch.cat([p[n] for p in parts]).numpy().astype(self.dtype) for n in floats}


def _array(array: np.ndarray) -> bytes:
    """As the bytes of an `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
