"""Measurements of a device beside single inferences: cold starts, throughput, memory tensor by tensor, energy. Each in fresh processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.analysis.flow import Arena, Flow, Step
from limbeck.core.candidate import Artifact
from limbeck.evaluation.measure import DISTURBED, asked
from limbeck.evaluation.powercap import POWERCAP
from limbeck.runtimes import runtime

Feed = Mapping[str, np.ndarray]
Stop = Callable[[], bool]
FEWEST = 3  # starts of each artifact that are counted, however long they take
PARTS = ("process", "import", "load", "first")
BUSY = 0.05  # cores that other processes may use while energy is counted


@dataclass(frozen=True)
class Start:
    """Milliseconds of one cold start, by PARTS: the process, the runtime's libraries, the session, its first answer."""

    parts: Mapping[str, float]
    disturbed: bool = False

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def cold_starts(artifacts: Sequence[Artifact], feed: Feed, *, threads: int, seconds: float, most: int, cached: bool = False, stop: Stop = lambda: False) -> list[list[Start]]:
    """Starts of artifacts that take turns, each in a process of its own, from its making to the first answer.

    The first start of each isn't counted: it brings the files into the page cache, where all others find them; with `cached`
    they are there already. Rounds go on until there are `most`, or `seconds` for each artifact are over and there are FEWEST.

    Raises: as `measure.latency`.
    """
    found: list[list[Start]] = [[] for _ in artifacts]
    begun = time.monotonic()
    for number in range(1 if cached else 0, most + 1):
        if number > FEWEST and time.monotonic() - begun > seconds * len(artifacts):
            break
        for own, artifact in zip(found, artifacts, strict=True):
            answer = asked([artifact], feed, {"measure": "cold_start"}, threads=threads, stop=stop)
            if number:
                own.append(Start({name: answer[name] for name in PARTS}, answer["waited"] > DISTURBED))
    return found


def throughput(
    artifacts: Sequence[Artifact], feed: Feed, *, batch: int, batches: Sequence[int], thread_counts: Sequence[int], seconds: float, stop: Stop = lambda: False
) -> dict[str, Any]:
    """Milliseconds a sample at each number of threads and batch size, models in turn in one process, as `instruments.throughput` gives them.

    Args:
        batch: Of the feed; it and the first number of threads come first.
        seconds: For each artifact, about, over all points.
    Raises: as `measure.latency`.
    """
    request = {"measure": "throughput", "batch": batch, "batches": [batch, *(b for b in batches if b != batch)], "thread_counts": list(thread_counts), "seconds": seconds}
    return asked(artifacts, feed, request, threads=max(thread_counts), stop=stop)


@dataclass(frozen=True)
class Memory:
    """Resident bytes above an empty session of the runtime, at their peak while loading and over all, and the flow of tensors."""

    loading_bytes: int
    peak_bytes: int
    flow: Flow


def memory(artifact: Artifact, feed: Feed, *, threads: int, runs: int = 3, stop: Stop = lambda: False) -> Memory:
    """Both in one fresh process, the resident bytes first. Raises: as `measure.latency`; ArtifactError if the runtime can't say what flows."""
    with tempfile.TemporaryDirectory() as folder:
        empty = runtime(artifact.runtime).empty(Path(folder))
        answer = asked([artifact], feed, {"measure": "memory", "empty": str(empty.path), "runs": runs}, threads=threads, stop=stop)
    return Memory(answer["loading_bytes"], answer["bytes"], _flow(answer["flow"]))


def flow(artifact: Artifact, feed: Feed, *, threads: int, stop: Stop = lambda: False) -> Flow:
    """What passes through an artifact in one inference. Raises: as `memory`."""
    return _flow(asked([artifact], feed, {"measure": "flow"}, threads=threads, stop=stop))


def _flow(data: Mapping[str, Any]) -> Flow:
    steps = tuple(Step(**{**step, "reads": tuple(step["reads"])}) for step in data["steps"])
    return Flow(steps, data["inputs"], tuple(data["outputs"]), data["weight_bytes"], Arena(**data["arena"]) if data["arena"] else None)


@dataclass(frozen=True)
class Energy:
    """Rounds of counted energy. In each: watts while idle, and for each model millijoules an inference, all of them and above idle."""

    zones: tuple[str, ...]
    idle_watts: tuple[float, ...]
    gross_mj: tuple[tuple[float, ...], ...]
    net_mj: tuple[tuple[float, ...], ...]
    window_s: float
    disturbed: bool


def energy(artifacts: Sequence[Artifact], feed: Feed, *, threads: int, seconds: float, powercap: Path = POWERCAP, stop: Stop = lambda: False) -> Energy | str:
    """Energy of an inference by the processor's own counter, models in turn, with an idle window in each round; or why there is none.

    powercap: Where the counters stand.
    Raises: as `measure.latency`.
    """
    answer = asked(artifacts, feed, {"measure": "energy", "seconds": seconds, "powercap": str(powercap)}, threads=threads, stop=stop)
    if "why" in answer:
        return answer["why"]
    idle = tuple(r["idle"]["uj"] / 1e6 / r["idle"]["seconds"] for r in answer["rounds"])
    models = list(zip(*(r["models"] for r in answer["rounds"]), strict=True))
    gross = tuple(tuple(w["uj"] / 1e3 / w["inferences"] for w in windows) for windows in models)
    net = tuple(tuple((w["uj"] / 1e3 - watts * w["seconds"] * 1e3) / w["inferences"] for w, watts in zip(windows, idle, strict=True)) for windows in models)
    others = answer["others"]
    return Energy(tuple(answer["zones"]), idle, gross, net, answer["window_s"], others is not None and others > BUSY)
