"""The measured process: `python -m limbeck.evaluation.child` takes a request (JSON) on stdin and answers (JSON) on stdout.

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
from typing import Any

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, LimbeckError
from limbeck.runtimes import runtime
from limbeck.runtimes.card import Session

WARM_UP = 3  # inferences of each session before the first turn
MOST_BLOCKS = 1000  # rounds: more settle nothing that these don't, and fill disks
PROC = Path("/proc/self")


def main() -> None:
    """Read a request, answer it. A LimbeckError is an answer; all else is a crash, whose last line the parent shows."""
    answer_to = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    threading.Thread(target=_end_with_parent, args=(request["alive"],), daemon=True).start()
    try:
        answer = {"peak_memory": peak_memory, "latency": latency, "answers": answers, "operators": operators}[request["measure"]](request)
    except LimbeckError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    with os.fdopen(answer_to, "w") as stream:
        json.dump(answer, stream)


def _end_with_parent(pipe: int) -> None:
    """The parent holds the other end of this pipe and never writes: when it dies, however it dies, the read comes back."""
    os.read(pipe, 1)
    os._exit(1)


def _feed(request: dict[str, Any]) -> dict[str, np.ndarray]:
    with np.load(request["feed"], allow_pickle=False) as arrays:
        return {name: arrays[f"arr_{i}"] for i, name in enumerate(request["names"])}


def _at(request: dict[str, Any], index: int | None) -> None:
    """Tell the parent which artifact is on, so that it can name the one that brings the process down."""
    Path(request["at"]).write_text("" if index is None else str(index))


def _load(request: dict[str, Any], index: int) -> Session:
    _at(request, index)
    artifact = Artifact(Path(request["artifacts"][index]["path"]), request["artifacts"][index]["runtime"])
    return runtime(artifact.runtime).load(artifact, request["threads"])


def answers(request: dict[str, Any]) -> dict[str, Any]:
    """What the artifact answers to the feed: its names, the arrays in the file that the request names."""
    found = _load(request, 0)(_feed(request))
    np.savez(request["answers"], *found.values())
    return {"names": list(found)}


def latency(request: dict[str, Any]) -> dict[str, Any]:
    """Load all, warm all up, take turns. Answers the milliseconds of each block, and the share of time spent waiting for a CPU."""
    feed = _feed(request)
    runs: list[Callable[[], Any]] = []
    for index in range(len(request["artifacts"])):
        session = _load(request, index)
        runs.append(partial(session, feed))
        for _ in range(WARM_UP):
            runs[-1]()
    _at(request, None)
    gc.collect()
    gc.disable()
    blocks, waited = take_turns(runs, seconds=request["seconds"], block=request["block"], min_blocks=request["min_blocks"], waiting=waiting_ns(request["threads"]))
    return {"blocks": blocks, "waited": waited}


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
    seconds: float,
    block: int,
    min_blocks: int,
    waiting: Callable[[], int],
    clock: Callable[[], int] = time.perf_counter_ns,
) -> tuple[list[list[list[float]]], list[float]]:
    """A B C A B C: each turn is one inference that isn't counted and `block` that are.

    Ends when `min_blocks` rounds are done and `seconds` for each of the runs have gone by, or there are MOST_BLOCKS; every run
    has equally many blocks.

    Returns: for each run its blocks of milliseconds, and the share of its turns' time that the process waited for a CPU.
    """
    blocks: list[list[list[float]]] = [[] for _ in runs]
    lost, spent = [0] * len(runs), [0] * len(runs)
    start = clock()
    while len(blocks[0]) < min_blocks or (len(blocks[0]) < MOST_BLOCKS and clock() - start < seconds * 1e9 * len(runs)):
        for index, run in enumerate(runs):
            waited, turn = waiting(), clock()
            run()
            marks = [clock()]
            for _ in range(block):
                run()
                marks.append(clock())
            lost[index] += max(0, waiting() - waited)
            spent[index] += marks[-1] - turn
            blocks[index].append([(after - before) / 1e6 for before, after in pairwise(marks)])
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
    for _ in range(request["runs"]):
        session(feed)
    return {"bytes": max(0, _peak_bytes() - before)}


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


if __name__ == "__main__":
    main()
