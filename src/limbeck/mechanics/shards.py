"""Answers kept on disk, by sample and view: memory-mapped arrays in shards, each with a record of its sizes and hashes.

A shard's arrays are written first, its record last, each under another name, synced and renamed. So a killed process leaves whole
shards or none; what is missing, cut off or changed is made again when its view is asked for. Several processes may read at once, and
those that make the same shard write the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.core.files import write

CACHE_VERSION = 2  # of the files' layout


@dataclass(frozen=True)
class Stored:
    """One array of a shard, samples first. With a scale, what was stored is values · scale, broadcast over the samples."""

    values: np.ndarray
    scale: np.ndarray | None = None

    def rows(self, places: np.ndarray) -> np.ndarray:
        found = self.values[places]
        return found if self.scale is None else found * self.scale


Made = Mapping[str, Stored]


@dataclass(frozen=True)
class Shards:
    """The answers to `count` samples under any view, `size` samples a shard.

    manifest: what the folder is bound to; one that was made with another is refused.
    make: (view, the samples of each missing shard) → that shard's arrays by name, one shard after the other.
    note: told, as an event with a reason, of a shard that must be made again.
    """

    folder: Path
    manifest: Mapping[str, Any]
    count: int
    size: int
    make: Callable[[int, Sequence[np.ndarray]], Iterator[Made]]
    note: Callable[..., None] | None = None
    _open: dict[tuple[int, int], dict[str, Stored]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        wanted = {"version": CACHE_VERSION, "count": self.count, "shard": self.size, **self.manifest}
        path = self.folder / "manifest.json"
        if not path.exists():
            write(path, json.dumps(wanted, sort_keys=True, indent=1).encode())
            return
        wanted = json.loads(json.dumps(wanted))
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f"the teacher's cache {self.folder} has a manifest that isn't JSON ({error}). Delete the folder, or use another.") from error
        if not isinstance(found, dict):
            raise ConfigError(f"the teacher's cache {self.folder} has a manifest that is no table. Delete the folder, or use another.")
        odd = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        if odd:
            was, now = found.get(odd[0]), wanted.get(odd[0])
            raise ConfigError(f"the teacher's cache {self.folder} was made with another {odd[0]}: {was!r}, now {now!r}. Delete the folder, or use another.")

    def read(self, ids: np.ndarray, view: int) -> dict[str, np.ndarray]:
        """What is kept of these samples under this view, in their order; the whole view is made first where it isn't."""
        ids = np.asarray(ids)
        if (view, self._shards() - 1) not in self._open:
            self._complete(view)
        shards, found = ids // self.size, dict[str, np.ndarray]()
        for shard in np.unique(shards):
            places = np.flatnonzero(shards == shard)
            for name, stored in self._open[view, int(shard)].items():
                rows = stored.rows(ids[places] % self.size)
                found.setdefault(name, np.empty((len(ids), *rows.shape[1:]), rows.dtype))[places] = rows
        return found

    def _shards(self) -> int:
        return (self.count + self.size - 1) // self.size

    def _complete(self, view: int) -> None:
        """Open every shard of this view, making those that aren't there, or aren't what their record says."""
        found = {shard: self._opened(view, shard) for shard in range(self._shards())}
        missing = [shard for shard, arrays in found.items() if arrays is None]
        samples = [np.arange(shard * self.size, min(self.count, (shard + 1) * self.size)) for shard in missing]
        for shard, made in zip(missing, self.make(view, samples) if missing else (), strict=True):
            self._write(view, shard, made)
            found[shard] = self._opened(view, shard)
        for shard, arrays in found.items():
            if arrays is None:
                raise ConfigError(f"the teacher's cache {self.folder} can't be read again right after it was written: {self._record(view, shard).name}. Look at the disk.")
            self._open[view, shard] = arrays

    def _record(self, view: int, shard: int) -> Path:
        return self.folder / f"shard.view{view}.{shard}.json"

    def _write(self, view: int, shard: int, made: Made) -> None:
        files, told = 0, dict[str, Any]()
        for name, stored in sorted(made.items()):
            told[name] = {}
            for part, array in (("values", stored.values), ("scale", stored.scale)):
                if array is None:
                    continue
                data = _bytes(array)
                file = f"view{view}.{shard}.{files}.npy"  # a number, not the output's name: names from outside never become paths
                write(self.folder / file, data)
                told[name][part] = {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                files += 1
        write(self._record(view, shard), json.dumps(told, sort_keys=True).encode())

    def _opened(self, view: int, shard: int) -> dict[str, Stored] | None:
        """The arrays of a shard, memory-mapped; None if it isn't there or not as its record says."""
        record = self._record(view, shard)
        if not record.exists():
            return None
        try:
            told = json.loads(record.read_text())
            wrong = next((why for parts in told.values() for part in parts.values() if (why := self._wrong(part))), None)
            arrays = {} if wrong else {name: self._mapped(parts) for name, parts in told.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wrong, arrays = f"its record can't be read ({error})", {}
        if wrong and self.note:
            self.note("teacher's answers are made again", view=view, shard=shard, reason=wrong)
        return None if wrong else arrays

    def _wrong(self, part: Mapping[str, Any]) -> str | None:
        """Why a file isn't the one that was written."""
        path = self.folder / Path(part["file"]).name
        if not path.exists():
            return f"{path.name} is missing"
        if (size := path.stat().st_size) != part["bytes"]:
            return f"{path.name} has {size} bytes of {part['bytes']}: it was cut off"
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == part["sha256"]
        return None if same else f"{path.name} was changed: its bytes don't have their hash"

    def _mapped(self, parts: Mapping[str, Any]) -> Stored:
        scale = np.load(self.folder / Path(parts["scale"]["file"]).name) if "scale" in parts else None
        return Stored(np.load(self.folder / Path(parts["values"]["file"]).name, mmap_mode="r"), scale)


def _bytes(array: np.ndarray) -> bytes:
    """As the bytes of an `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
