"""Whether a run keeps its teacher's answers, and how: chosen from what the terms read, what it would weigh, and what may be spent.

The choice is an event of the run, an entry of its journal where it isn't the usual one, and kept beside the cache: a run that is
started again goes on with the same answers, whatever the disk has room for by then.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from limbeck.core.technique import Log, Reads, Selective, Signals
from limbeck.mechanics.data import arguments, batch_of
from limbeck.mechanics.live import LiveTeacher, Pass
from limbeck.mechanics.shards import CACHE_VERSION
from limbeck.mechanics.signals import DENSE_LIMIT, CachedTaps, CachedTeacher, FeatureDtype, Joined, SparseTeacher
from limbeck.mechanics.sparse import Layout, top_of
from limbeck.mechanics.taps import PREFIX
from limbeck.mechanics.terms.task_loss import main_name
from limbeck.pipeline.guard import LEAST_FREE_BYTES
from limbeck.pipeline.journal import Journal
from limbeck.pipeline.store import digest, write

KS = (10, 32, 100)  # how many probabilities a sparse cache may keep of each row
TAIL = 0.05  # the mass that those left out may share, on average, for a sparse cache to be taken
HALF_SAFE = 32000.0  # beyond this, answers are kept at full precision: half of what half precision holds
PROBED = 5  # samples that are looked at before choosing
BYTES: Mapping[str, int] = {"float32": 4, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Choice:
    """outputs, features: "float16", "float32", "int8", "sparse", or "live"; empty: not read. k: of "sparse". bytes: what it will weigh on disk."""

    outputs: str = ""
    features: str = ""
    k: int = 0
    bytes: int = 0
    why: str = ""

    @property
    def usual(self) -> bool:
        """Outputs at half precision, and nothing else: the rule, which a journal needn't tell."""
        return self.outputs == "float16" and not self.features


@dataclass(frozen=True)
class Answers(Selective):
    """A run's teacher as signals: cached where that is exact enough and fits, else live.

    budget: bytes that all cached answers to what one objective reads may take.
    """

    live: LiveTeacher
    folder: Path
    identity: Mapping[str, Any]
    budget: int
    log: Log
    journal: Journal
    stop: Callable[[], bool]

    def serving(self, reads: Reads) -> Signals:
        live = self.live.tapped(reads.taps) if reads.taps else self.live
        choice = _live(reads, "what it is asked isn't in the training split") if reads.live else self._kept_choice(reads, live)
        if not choice.usual:
            self.journal.record("teacher's answers", **asdict(choice))
        self.log.event("teacher's answers", **{k: v for k, v in asdict(choice).items() if v})
        if "live" in (choice.outputs, choice.features):
            return live
        sources = [self._outputs(choice, reads)] if choice.outputs else []
        if choice.features:
            asking = Pass(live, progress=self.log.progress, stop=self.stop, note=self.log.event)
            sources.append(CachedTaps(self._place, self.live, self.identity, reads.taps, dtype=cast(FeatureDtype, choice.features), asking=asking))
        return sources[0] if len(sources) == 1 else Joined(tuple(sources))

    def tapped(self, paths: tuple[str, ...]) -> Signals:
        return self.serving(Reads(("outputs",), taps=paths))

    def layers(self) -> Sequence[Any]:
        return self.live.layers()

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> Mapping[str, Tensor]:
        return self.serving(Reads(("outputs",))).teacher(ids, view, args, kwargs)

    @cached_property
    def _place(self) -> Path:
        return self.folder / digest({**self.identity, "cache": CACHE_VERSION})[:16]

    def _outputs(self, choice: Choice, reads: Reads) -> Signals:
        if choice.outputs == "sparse":
            temperatures = _temperatures(reads)
            folder = self._place / f"top-{choice.k}-{digest(temperatures)[:12]}"
            return SparseTeacher(folder, self.live, self.identity, choice.k, temperatures, progress=self.log.progress, stop=self.stop, note=self.log.event)
        dtype = "float16" if choice.outputs == "float16" else "float32"
        return CachedTeacher(self._place / f"outputs-{dtype}", self.live, self.identity, dtype, progress=self.log.progress, stop=self.stop, note=self.log.event)

    def _kept_choice(self, reads: Reads, live: LiveTeacher) -> Choice:
        asked = {"outputs": bool(reads.outputs), "softened": _temperatures(reads), "taps": list(reads.taps), "budget": self.budget}
        path = self._place / f"choice-{digest(asked)[:16]}.json"
        if path.exists():
            return Choice(**json.loads(path.read_text()))
        choice = chosen(reads, live, self.budget, _room(self.folder))
        write(path, json.dumps(asdict(choice), sort_keys=True).encode())
        return choice


def chosen(reads: Reads, live: LiveTeacher, budget: int, room: int) -> Choice:
    """How to keep what is read, within `budget` bytes and `room` bytes of disk.

    Whole outputs at half precision up to 4,096 values a sample; above, the fewest of 10, 32 or 100 probabilities that leave 5 % of the
    mass to the rest, if forward KL is all that reads them. Features at half precision, in 8 bits if that doesn't fit.
    """
    task = live.task
    count, views = len(task.split("train")), task.views.versions if task.views else 1
    cuts = [range(min(2, count)), range(2, min(PROBED, count))]
    parts = [live.teacher(np.array(ids), 0, *arguments(task, batch_of(task, "train", list(ids)))) for ids in cuts if len(ids)]
    floats = [name for name, value in parts[0].items() if value.is_floating_point()]
    ragged = [name for name in floats if len({tuple(p[name].shape[1:]) for p in parts}) > 1]
    seen = {name: torch.cat([p[name].cpu() for p in parts]) for name in floats if name not in ragged}
    left, spent = min(budget, room), 0
    outputs, features, k, why = "", "", 0, ""
    if ragged:
        return _live(reads, f"'{ragged[0]}' differs in size between samples")
    if reads.outputs or reads.softened:
        outputs, k, spent, why = _outputs(reads, live, {n: v for n, v in seen.items() if not n.startswith(PREFIX)}, count * views)
        if spent > left:
            return _live(reads, f"{why}: {spent / 1e9:.2f} GB, and {left / 1e9:.2f} may be taken")
    if outputs == "live":
        return _live(reads, why)
    if reads.taps:
        taps = {n: v for n, v in seen.items() if n.startswith(PREFIX)}
        values = count * views * sum(math.prod(v.shape[1:]) for v in taps.values())
        able = ("float32",) if any(v.abs().max() > HALF_SAFE for v in taps.values()) else ("float16", "int8")
        features = next((dtype for dtype in able if spent + BYTES[dtype] * values <= left), "live")
        if features == "live":
            return _live(reads, f"features would weigh {BYTES[able[-1]] * values / 1e9:.2f} GB as {able[-1]}, and {max(left - spent, 0) / 1e9:.2f} may be taken")
        spent, why = spent + BYTES[features] * values, why or "features alone are read"
    return Choice(outputs, features, k, spent, why)


def _outputs(reads: Reads, live: LiveTeacher, seen: Mapping[str, Tensor], answers: int) -> tuple[str, int, int, str]:
    """How outputs are kept, k, the bytes, and why."""
    sizes = {name: math.prod(value.shape[1:]) for name, value in seen.items()}
    if all(size <= DENSE_LIMIT for size in sizes.values()):
        dtype = "float32" if any(value.abs().max() > HALF_SAFE for value in seen.values()) else "float16"
        return dtype, 0, BYTES[dtype] * answers * sum(sizes.values()), f"{sum(sizes.values())} values a sample"
    largest = max(sizes, key=lambda name: sizes[name])
    if reads.outputs:
        return "live", 0, 0, f"'{largest}' has {sizes[largest]} values a sample, more than {DENSE_LIMIT}, and {reads.outputs[0]} reads all of them"
    main = seen[main_name(live.task, seen)].flatten(0, -2).float()
    for k in (k for k in KS if k < main.shape[-1]):
        tail = max(top_of(main, k, temperature=t)[1][:, -1].exp().mean().item() for t in _temperatures(reads))
        if tail <= TAIL:
            rows = sizes[main_name(live.task, seen)] // main.shape[-1]
            size = answers * rows * Layout(main.shape[-1], k, _temperatures(reads)).row_bytes
            return "sparse", k, size, f"forward KL alone reads {main.shape[-1]} classes, and {k} hold all but {tail:.2%} of the mass"
    return "live", 0, 0, f"'{largest}' has {sizes[largest]} values a sample, more than {DENSE_LIMIT}, and its {KS[-1]} largest leave more than {TAIL:.0%} of the mass to the rest"


def _live(reads: Reads, why: str) -> Choice:
    return Choice("live" if reads.outputs or reads.softened else "", "live" if reads.taps else "", 0, 0, why)


def _temperatures(reads: Reads) -> tuple[float, ...]:
    return tuple(sorted(set(reads.softened.values())))


def _room(folder: Path) -> int:
    """Bytes that may be written before the guard would stop the run."""
    place = next(p for p in (folder, *folder.parents) if p.exists())
    return max(shutil.disk_usage(place).free - LEAST_FREE_BYTES, 0)
