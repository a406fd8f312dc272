"""The measured process: `python -m limbeck.evaluation.processes.child` takes a request (JSON) on stdin and answers (JSON) on stdout.

It imports numpy and the runtimes of the artifacts that it is given, nothing else, so that nobody's memory or threads but theirs
are in the numbers. What a library prints goes to stderr.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, LimbeckError
from limbeck.evaluation.processes import instruments
from limbeck.evaluation.processes.until import Goal, Rounds
from limbeck.evaluation.processes.watch import Watch
from limbeck.runtimes import bind, runtime
from limbeck.runtimes.card import Session

LEAST_WARM_UP = 3  # inferences of each session before the first turn, however long they take
STEADY = 8  # inferences that must take as long as as many before them
NEAR = 0.02  # medians this near are the same, however little they scatter
SLOW_S = 60.0  # that the fewest turns of one model may take; else their blocks are of one inference, unless a percentile's limit wants more
SIGN_S = 1.0  # between two signs of life
PROC = Path("/proc/self")


def main() -> None:
    """Read a request, answer it. A LimbeckError is an answer; all else is a crash, whose last line the parent shows."""
    entered = time.monotonic_ns()
    answer_to = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin) | {"entered": entered}
    threading.Thread(target=end_with_parent, args=(request["alive"],), daemon=True).start()
    try:
        answer = {"peak_memory": peak_memory, "latency": latency, "operators": operators, **DEVICE}[request["measure"]](request)
    except LimbeckError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    with os.fdopen(answer_to, "w") as stream:
        json.dump(answer, stream)


def end_with_parent(pipe: int) -> None:
    """The parent holds the other end of this pipe and never writes: when it dies, however it dies, the read comes back."""
    os.read(pipe, 1)
    os._exit(1)


def _feed(request: dict[str, Any]) -> dict[str, np.ndarray]:
    with np.load(request["feed"], allow_pickle=False) as arrays:
        return {name: arrays[f"arr_{i}"] for i, name in enumerate(request["names"])}


def _at(request: dict[str, Any], index: int | None) -> None:
    """Tell the parent which artifact is on, so that it can name the one that brings the process down."""
    Path(request["at"]).write_text("" if index is None else str(index))


def _signs_of_life(request: dict[str, Any], clock: Callable[[], float] = time.monotonic) -> Callable[[], None]:
    """What tells the parent, once a second at most, that it goes on: slow models take minutes."""
    told = clock()

    def sign() -> None:
        nonlocal told
        if clock() - told >= SIGN_S:
            told = clock()
            _at(request, None)

    return sign


def _load(request: dict[str, Any], index: int, threads: int | None = None) -> Session:
    _at(request, index)
    artifact = Artifact(Path(request["artifacts"][index]["path"]), request["artifacts"][index]["runtime"])
    return runtime(artifact.runtime).load(artifact, threads or request["threads"])


def latency(request: dict[str, Any]) -> dict[str, Any]:
    """Load all, warm all up, take turns. Answers the milliseconds of each block, the share of time spent waiting for a CPU, and what else happened."""
    feed = _feed(request)
    runs: list[Callable[[], Any]] = []
    warm: list[dict[str, Any]] = []
    for index in range(len(request["artifacts"])):
        session = _load(request, index)
        runs.append(partial(session, bind(feed, session.inputs)))  # a feed of another dtype is made one of this once, and isn't timed
        warm.append(warm_up(runs[-1], seconds=request["seconds"]))
    _at(request, None)
    gc.collect()
    gc.disable()
    goal = request["goal"] and Goal(**request["goal"] | {"limits": dict(request["goal"]["limits"])})
    rounds = Rounds(seconds=request["seconds"], runs=len(runs), min_blocks=request["min_blocks"], goal=goal)
    watch, block = Watch(), request["block"]
    if goal is None and request["min_blocks"] * (block + 1) * max(one["seconds"] / one["inferences"] for one in warm) > SLOW_S:
        block = 1
    sign = _signs_of_life(request)

    def look() -> None:
        watch.look()
        sign()

    blocks, waited = take_turns(runs, rounds=rounds, block=block, waiting=waiting_ns(request["threads"]), look=look)
    return {"blocks": blocks, "waited": waited, "warm_up": warm, "reasons": watch.reasons(), "company": watch.company()}


def warm_up(run: Callable[[], Any], *, seconds: float, clock: Callable[[], int] = time.perf_counter_ns) -> dict[str, Any]:
    """Run until it is steady: the median of the last 8 lies in the middle half of the 8 before, or within 2 % of their median.

    At least 3 inferences; after `seconds` no more, steady or not. Returns: what `WarmUp` holds.
    """
    taken: list[int] = []
    start = clock()
    while True:
        before = clock()
        run()
        after = clock()
        taken.append(after - before)
        settled = len(taken) % (STEADY // 2) == 0 and steady(taken)
        if settled or (len(taken) >= LEAST_WARM_UP and after - start >= seconds * 1e9):
            return {"inferences": len(taken), "seconds": (after - start) / 1e9, "steady": settled or steady(taken)}


def steady(taken: Sequence[float]) -> bool:
    """Whether the last 8 took as long as the 8 before them; False where there are fewer than 16."""
    if len(taken) < 2 * STEADY:
        return False
    before, last = sorted(taken[-2 * STEADY : -STEADY]), median(taken[-STEADY:])
    middle = median(before)
    return before[STEADY // 4] <= last <= before[-1 - STEADY // 4] or abs(last - middle) <= NEAR * middle


def operators(request: dict[str, Any]) -> dict[str, Any]:
    """What each operator of an artifact takes, by its runtime's own profiler, and the share of time spent waiting for a CPU."""
    feed, artifact = _feed(request), Artifact(Path(request["artifacts"][0]["path"]), request["artifacts"][0]["runtime"])
    _at(request, 0)
    profiler = runtime(artifact.runtime).operators
    if profiler is None:
        raise ArtifactError(f"{artifact.runtime} can't say what each operator takes. Name the task, so that its modules are timed.")
    waiting = waiting_ns(request["threads"])
    waited, start = waiting(), time.perf_counter_ns()
    taken = profiler.time(artifact, feed, request["threads"], request["blocks"], request["runs"])
    return {"operators": [vars(one) for one in taken], "waited": max(0, waiting() - waited) / (time.perf_counter_ns() - start)}


def take_turns(
    runs: Sequence[Callable[[], Any]],
    *,
    rounds: Rounds,
    block: int,
    waiting: Callable[[], int],
    look: Callable[[], None] = lambda: None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> tuple[list[list[list[float]]], list[float]]:
    """A B C C B A A B C: each turn is one inference that isn't counted and `block` that are; the order is turned round each time.

    Goes on while there are more `rounds`; every run has equally many blocks. Between two rounds it has a `look` at the machine.

    Returns: for each run its blocks of milliseconds, and the share of its turns' time that the process waited for a CPU.
    """
    blocks: list[list[list[float]]] = [[] for _ in runs]
    lost, spent = [0] * len(runs), [0] * len(runs)
    start, order = clock(), list(enumerate(runs))
    while rounds.more(blocks, clock() - start):
        for index, run in order:
            waited, turn = waiting(), clock()
            run()
            marks = [clock()]
            for _ in range(block):
                run()
                marks.append(clock())
            lost[index] += max(0, waiting() - waited)
            spent[index] += marks[-1] - turn
            blocks[index].append([(after - before) / 1e6 for before, after in pairwise(marks)])
        order.reverse()
        look()
    return blocks, [a / b if b else 0.0 for a, b in zip(lost, spent, strict=True)]


def waiting_ns(threads: int) -> Callable[[], int]:
    """A clock of the nanoseconds that this process was ready to run and another had the CPU.

    Linux counts them for each thread (schedstat). Elsewhere, one thread's wall time without its CPU time stands for it; with
    more threads, which also wait for each other, nothing is known and nothing is claimed: 0.
    """
    if _schedstat() is not None:
        return lambda: _schedstat() or 0
    if threads == 1:
        return lambda: time.perf_counter_ns() - time.process_time_ns()
    return lambda: 0


def _schedstat() -> int | None:
    total = 0
    try:
        for task in os.listdir(PROC / "task"):
            try:
                total += int((PROC / "task" / task / "schedstat").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                if task == str(os.getpid()):
                    return None
    except (OSError, IndexError, ValueError):
        return None
    return total


def peak_memory(request: dict[str, Any]) -> dict[str, Any]:
    """Runtime, feed and an empty session first; then the artifact, and by how much the peak rose above them."""
    feed = _feed(request)
    _at(request, None)
    name = request["artifacts"][0]["runtime"]
    empty = runtime(name).load(Artifact(Path(request["empty"]), name), request["threads"])
    empty({"x": np.zeros(1, np.float32)})
    gc.collect()
    before = _resident_bytes()
    session = _load(request, 0)
    loaded = _peak_bytes()
    for _ in range(request["runs"]):
        session(feed)
    return {"bytes": max(0, _peak_bytes() - before), "loading_bytes": max(0, loaded - before)}


def _resident_bytes() -> int:
    """What is resident now, and the peak set back to it. Where that can't be done, the peak so far: then the rise may be understated."""
    try:
        (PROC / "clear_refs").write_text("5")
        return _status("VmHWM")
    except (OSError, KeyError):
        return _peak_bytes()


def _peak_bytes() -> int:
    try:
        return _status("VmHWM")
    except (OSError, KeyError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB


def _status(key: str) -> int:
    lines = dict(line.split(":", 1) for line in (PROC / "status").read_text().splitlines() if ":" in line)
    return int(lines[key].split()[0]) * 1024


DEVICE: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {  # what `evaluation.device` asks
    "cold_start": lambda r: instruments.cold_start(r, _feed(r), partial(_load, r), waiting_ns(r["threads"])),
    "throughput": lambda r: instruments.throughput(r, _feed(r), partial(_load, r), waiting_ns(max(r["thread_counts"]))),
    "energy": lambda r: instruments.energy(r, _feed(r), partial(_load, r)),
    "memory": lambda r: peak_memory(r) | {"flow": instruments.flow(r, _feed(r))},
    "flow": lambda r: instruments.flow(r, _feed(r)),
}

if __name__ == "__main__":
    main()
