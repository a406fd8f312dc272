"""What the measured process does for studies of a device: a cold start, throughput, energy, and the flow of tensors."""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError
from limbeck.evaluation.powercap import Meter, zones
from limbeck.runtimes import bind, runtime
from limbeck.runtimes.card import Feed, Session

Load = Callable[[int, int], Session]  # number of the artifact, threads
Request = Mapping[str, Any]
ROUNDS, MOST_ROUNDS = 8, 1000  # of a point; 8 give its median an interval at 99 %
LEAST_NS = 2_000_000  # that a round of one model takes: shorter ones are repeated inside
WARM_UP = 2
WINDOW_S = (0.05, 1.0)  # of a round of energy: the counter moves about once a millisecond
ROOM = 0.5  # share of the free memory that the next batch may take


def cold_start(request: Request, feed: Feed, load: Load, waiting: Callable[[], int]) -> dict[str, float]:
    """Milliseconds of each part of this process's own start, up to the first answer; reading the request and the feed isn't in it."""
    start = runtime(request["artifacts"][0]["runtime"]).start
    waited, begun = waiting(), time.monotonic_ns()
    if start:
        start()
    imported = time.monotonic_ns()
    session = load(0, request["threads"])
    loaded = time.monotonic_ns()
    session(feed)
    answered = time.monotonic_ns()
    parts = {"process": request["entered"] - request["asked"], "import": imported - begun, "load": loaded - imported, "first": answered - loaded}
    return {name: ns / 1e6 for name, ns in parts.items()} | {"waited": max(0, waiting() - waited) / (answered - begun)}


def flow(request: Request, feed: Feed) -> dict[str, Any]:
    """What passes through the first artifact in one inference."""
    artifact = Artifact(Path(request["artifacts"][0]["path"]), request["artifacts"][0]["runtime"])
    follow = runtime(artifact.runtime).flow
    if follow is None:
        raise ArtifactError(f"{artifact.runtime} can't say what passes through an artifact. Look at it in another runtime.")
    return asdict(follow(artifact, feed, request["threads"]))


def throughput(request: Request, feed: Feed, load: Load, waiting: Callable[[], int]) -> dict[str, Any]:
    """Milliseconds a sample at several batch sizes and numbers of threads, models in turn; what was left out, and why.

    The first number of threads and the feed's own batch have their rounds whatever they take; the others only while the seconds
    last and there is memory for them. A round goes through all batch sizes of a number of threads, so that what slows the
    machine for a while slows all of them.
    """
    count, counts = len(request["artifacts"]), request["thread_counts"]
    gc.disable()
    begun, waited = time.perf_counter_ns(), waiting()
    allowance = request["seconds"] * 1e9 * count / len(counts)
    points, left_out, fixed = [], [], [False] * count
    for number, threads in enumerate(counts):
        sessions = [load(index, threads) for index in range(count)]
        sizes = [_Sizes(feed, session, request["batch"]) for session in sessions]
        fixed = [not one.free for one in sizes]
        ready, refused = _ready(sizes, request["batches"], request["batch"], allowance, must=number == 0)
        left_out += [{"threads": threads, "batch": batch, "why": why} for batch, why in refused.items()]
        points += [{"threads": threads, "batch": batch, "blocks": blocks} for batch, blocks in _rounds(ready, count, allowance).items()]
    return {"points": points, "left_out": left_out, "fixed": fixed, "waited": max(0, waiting() - waited) / (time.perf_counter_ns() - begun)}


class _Sizes:
    """A session and its feed at other batch sizes: its samples again and again along the first axis of what has the batch there."""

    def __init__(self, feed: Feed, session: Session, batch: int):
        self.session = session
        self._bound = bind(feed, session.inputs)
        self._along = [s.name for s in session.inputs if s.shape and s.shape[0] is None and self._bound[s.name].shape[0] == batch]
        self.free = bool(self._along) and all(s.name in self._along or not s.shape or s.shape[0] is not None for s in session.inputs)

    def of(self, batch: int) -> dict[str, np.ndarray]:
        return {k: np.resize(v, (batch, *v.shape[1:])) if k in self._along else v for k, v in self._bound.items()}


@dataclass(frozen=True)
class _Run:
    """One model at one batch size; `times` inferences make a round of it long enough for the clock."""

    model: int
    batch: int
    session: Session
    feed: Feed
    ns: int  # of one inference, when it was tried

    @property
    def times(self) -> int:
        return max(1, -(-LEAST_NS // max(1, self.ns)))

    def ms_a_sample(self) -> float:
        start = time.perf_counter_ns()
        for _ in range(self.times):
            self.session(self.feed)
        return (time.perf_counter_ns() - start) / 1e6 / self.times / self.batch


def _ready(sizes: Sequence[_Sizes], batches: Sequence[int], own: int, allowance: float, *, must: bool) -> tuple[list[list[_Run]], dict[int, str]]:
    """The runs of each batch size that there is time and memory for, tried once; and why the other sizes are left out.

    must: The own batch is in, whatever it takes.
    """
    ready: list[list[_Run]] = []
    refused: dict[int, str] = {}
    for batch in batches:
        taking = [(i, one) for i, one in enumerate(sizes) if batch == own or one.free]
        due = must and batch == own
        why = "" if due or not taking else _no_room(ready, batch, allowance)
        if taking and not why:
            try:
                runs = [_tried(i, one, batch, own) for i, one in taking]
            except ArtifactError as error:
                if due:
                    raise
                why = str(error)
            else:
                late = not due and _cost([*ready, runs]) > allowance
                why = "there was no time left for it" if late else ""
                ready += [] if late else [runs]
        if why:
            refused[batch] = why
    return ready, refused


def _tried(model: int, sizes: _Sizes, batch: int, own: int) -> _Run:
    feed, answer = sizes.of(batch), {}
    for _ in range(WARM_UP):
        answer = sizes.session(feed)
    if batch != own and not any(value.ndim and value.shape[0] == batch for value in answer.values()):
        raise ArtifactError(f"no output has {batch} rows at batch {batch}: its first axis isn't one of samples")
    start = time.perf_counter_ns()
    sizes.session(feed)
    return _Run(model, batch, sizes.session, feed, time.perf_counter_ns() - start)


def _cost(ready: Sequence[Sequence[_Run]]) -> float:
    """Nanoseconds of the fewest rounds."""
    return ROUNDS * sum(run.times * run.ns for runs in ready for run in runs)


def _no_room(ready: Sequence[Sequence[_Run]], batch: int, allowance: float) -> str:
    """Why a batch isn't even tried, by what the largest before it took; empty where there is time and memory."""
    if not ready:
        return ""
    last = max(ready, key=lambda runs: runs[0].batch)
    growth = batch / last[0].batch
    if _cost(ready) + growth * (ROUNDS + WARM_UP) * sum(run.ns for run in last) > allowance:
        return "there was no time left for it"
    free, resident = _available(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return "it might need more memory than is free" if free is not None and resident * max(0.0, growth - 1) > ROOM * free else ""


def _available() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _rounds(ready: Sequence[Sequence[_Run]], count: int, allowance: float) -> dict[int, list[list[float] | None]]:
    """By batch size, for each model its milliseconds a sample in each round; None for one that doesn't take that size."""
    found: dict[int, list[list[float] | None]] = {runs[0].batch: [None] * count for runs in ready}
    taken: dict[tuple[int, int], list[float]] = {(run.batch, run.model): [] for runs in ready for run in runs}
    begun, number = time.perf_counter_ns(), 0
    while ready and (number < ROUNDS or (number < MOST_ROUNDS and time.perf_counter_ns() - begun < allowance)):
        for runs in ready:
            for run in runs:
                taken[run.batch, run.model].append(run.ms_a_sample())
        number += 1
    for (batch, model), samples in taken.items():
        found[batch][model] = samples
    return found


def energy(request: Request, feed: Feed, load: Load) -> dict[str, Any]:
    """Rounds of an idle window and a window of each model's inferences: microjoules and seconds of each; `why` there are none, else."""
    found, why = zones(Path(request["powercap"]))
    if not found:
        return {"why": why}
    sessions = [load(index, request["threads"]) for index in range(len(request["artifacts"]))]
    for session in sessions:
        for _ in range(WARM_UP):
            session(feed)
    window = min(max(request["seconds"] * len(sessions) / (ROUNDS * (1 + len(sessions))), WINDOW_S[0]), WINDOW_S[1])
    meter, rounds, others = Meter(found), [], _Others()
    gc.disable()
    for _ in range(ROUNDS):
        before, start = meter.microjoules(), time.perf_counter()
        time.sleep(window)
        idle = {"uj": meter.microjoules() - before, "seconds": time.perf_counter() - start}
        rounds.append({"idle": idle, "models": [_window(session, feed, meter, window) for session in sessions]})
    return {"zones": [zone.name for zone in found], "rounds": rounds, "window_s": window, "others": others.share()}


def _window(session: Session, feed: Feed, meter: Meter, window: float) -> dict[str, float]:
    before, start, count = meter.microjoules(), time.perf_counter(), 0
    while not count or time.perf_counter() - start < window:
        session(feed)
        count += 1
    return {"uj": meter.microjoules() - before, "seconds": time.perf_counter() - start, "inferences": count}


class _Others:
    """Processor time that other processes used meanwhile, in cores; None where the system doesn't tell."""

    def __init__(self) -> None:
        self._busy, self._own, self._start = _busy_s(), time.process_time(), time.perf_counter()

    def share(self) -> float | None:
        busy = _busy_s()
        if busy is None or self._busy is None:
            return None
        return max(0.0, busy - self._busy - (time.process_time() - self._own)) / (time.perf_counter() - self._start)


def _busy_s() -> float | None:
    try:
        fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and iowait
    except (OSError, ValueError, IndexError):
        return None
