"""Latency, memory and download size of artifacts, each measured in a fresh process of its own (`limbeck.evaluation.processes.child`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, ConfigError, Interrupted
from limbeck.core.evidence import Latency, WarmUp
from limbeck.evaluation.processes.apart import ending, last_line, raised
from limbeck.runtimes import runtime
from limbeck.runtimes.card import OperatorTime

DISTURBED = 0.05  # of the time of its turns that the process waited for a CPU that another had
PAUSE_MS, PAUSE_TIMES = 250.0, 20  # one inference this long, and this much longer than the median: the machine stood still
REPEATS = 2  # of a disturbed timing
REPEATED_S = 60.0  # that all tries of a timing may have taken, before another: who waits for minutes wants to see what there is
POLL_S = 0.1  # how often a stop is looked for while a child measures
TIMEOUT_S = 900.0
BLOCKS = 15  # of inferences, over whose means a median is taken
CHUNK = 1 << 20


def latency(
    artifacts: Sequence[Artifact],
    feed: Mapping[str, np.ndarray],
    *,
    threads: int,
    seconds: float = 2.0,
    block: int = 5,
    min_blocks: int = 20,
    limits: Mapping[float, float] | None = None,
    judged: int = -1,
    early: bool = True,
    repeats: int = REPEATS,
    told: Callable[[str, str], None] = lambda event, text: None,
    timeout_s: float = TIMEOUT_S,
    stop: Callable[[], bool] = lambda: False,
) -> list[Latency]:
    """Milliseconds of single inferences of artifacts that take turns (A B C C B A) in one fresh process.

    All are loaded and warmed up first, until they are steady. A turn is one inference that isn't counted and a block of `block`
    that are; rounds go on until `seconds` for each artifact are over and there are `min_blocks`, so that all have equally many
    blocks, taken side by side. Collection of garbage is off. What is timed is the session's call: numpy arrays in, numpy arrays out.

    With `limits` (milliseconds, by the percentile as a fraction) on the artifact of number `judged`, rounds end before, after
    `min_blocks` and a quarter of the time, once all are settled, unless `early` is False because a ratio is judged by them too;
    and where the time isn't enough they go on, up to 5 times as long, while the samples that a limit takes are within reach.
    What is told of percentiles must then allow for that: `Latency.anytime`.

    A disturbed measurement is repeated, `repeats` times at most and not after a minute, and the calmest is kept, by how much was disturbed and never by
    what was timed; `told` hears of it (an event's name, and why). `disturbed`, with the reason in `why`: for more than 5 % of the
    time of its turns the process was ready to run and another had the CPU (Linux: run queue delay of all its threads; elsewhere,
    with one thread, wall time without CPU time); one inference took over 250 ms and 20 times the median (the machine slept, or
    the process was held); the clock moved by over 10 %; the processor was throttled; the host had over 5 % of the time.

    Raises: ArtifactError if an artifact can't be loaded or run, brings its process down, or takes longer than `timeout_s` for a round;
        ConfigError if a number is out of its range; Interrupted when `stop` says so: the process is ended, nothing is kept.
    """
    for name, value in {"threads": threads, "block": block, "min_blocks": min_blocks}.items():
        if value < 1:
            raise ConfigError(f"latency.{name} must be at least 1, got {value}. Leave it out for the default.")
    if not artifacts:
        return []
    goal = {"limits": list(limits.items()), "judged": judged % len(artifacts), "early": early} if limits else None
    request = {"measure": "latency", "seconds": seconds, "block": block, "min_blocks": min_blocks, "goal": goal}

    def take() -> list[Latency]:
        answer = asked(artifacts, feed, request, threads=threads, timeout_s=timeout_s, stop=stop)
        return _latencies(answer, anytime=goal is not None)

    return _calmest(take, repeats, told)


def _calmest(take: Callable[[], list[Latency]], repeats: int, told: Callable[[str, str], None]) -> list[Latency]:
    """What was taken, again while it is disturbed and may be repeated."""
    begun = time.monotonic()
    tries = [take()]
    while any(one.disturbed for one in tries[-1]) and len(tries) <= repeats and time.monotonic() - begun < REPEATED_S:
        told("timing again", max((one for one in tries[-1] if one.disturbed), key=lambda one: one.waited).why)
        tries.append(take())
    kept = min(tries, key=_unrest)
    if len(tries) > 1:
        shaken = next((one.why for one in kept if one.disturbed), "")
        told("timing kept", f"the calmest of {len(tries)}" + (f", disturbed too: {shaken}" if shaken else ""))
    return kept


def _latencies(answer: Mapping[str, Any], *, anytime: bool) -> list[Latency]:
    """What the child answered, with the reasons to doubt it."""
    found = []
    for blocks, waited, warm in zip(answer["blocks"], answer["waited"], answer["warm_up"], strict=True):
        others = [f"another process had the CPU for {min(waited, 1):.0%} of the time ({answer['company']})"] if waited > DISTURBED else []
        why = [*others, *_paused(blocks), *answer["reasons"]]
        kept = tuple(tuple(samples) for samples in blocks)
        found.append(Latency(blocks=kept, disturbed=bool(why), why="; ".join(why), waited=waited, anytime=anytime, warm_up=WarmUp(**warm)))
    return found


def _paused(blocks: Sequence[Sequence[float]]) -> list[str]:
    samples = [s for block in blocks for s in block]
    return [f"it stood still for {max(samples):.0f} ms"] if max(samples) > max(PAUSE_MS, PAUSE_TIMES * median(samples)) else []


def _unrest(taken: Sequence[Latency]) -> tuple[int, float]:
    """How disturbed a measurement is: how many of its artifacts were, then how long they waited. What they took doesn't count."""
    return sum(one.disturbed for one in taken), sum(one.waited for one in taken)


def peak_memory(artifact: Artifact, feed: Mapping[str, np.ndarray], *, threads: int, runs: int = 10, timeout_s: float = TIMEOUT_S, stop: Callable[[], bool] = lambda: False) -> int:
    """Resident bytes, at their peak, of loading an artifact and running it, above an empty session of its runtime; ≥ 0.

    One fresh process imports the runtime, reads the feed, opens and runs the runtime's empty artifact, and sets its peak back;
    then it loads the artifact and runs it. On Linux the peak is VmHWM, set back through clear_refs. Elsewhere it is the rise
    of ru_maxrss, which is too low by what importing the runtime took for a moment.

    Raises: as `latency`.
    """
    if runs < 1:
        raise ConfigError(f"peak_memory.runs must be at least 1, got {runs}. Leave it out for the default.")
    with tempfile.TemporaryDirectory() as folder:
        empty = runtime(artifact.runtime).empty(Path(folder))
        request = {"measure": "peak_memory", "empty": str(empty.path), "runs": runs}
        return int(asked([artifact], feed, request, threads=threads, timeout_s=timeout_s, stop=stop)["bytes"])


def operators(
    artifact: Artifact, feed: Mapping[str, np.ndarray], *, threads: int, blocks: int = BLOCKS, runs: int = 10, stop: Callable[[], bool] = lambda: False
) -> tuple[list[OperatorTime], bool]:
    """What each operator of an artifact takes, by its runtime's own profiler in a fresh process, and whether that was disturbed.

    Raises: as `latency`; ArtifactError if the runtime has no profiler.
    """
    request = {"measure": "operators", "blocks": blocks, "runs": runs}
    answer = asked([artifact], feed, request, threads=threads, stop=stop)
    return [OperatorTime(**{**one, "block_ms": tuple(one["block_ms"])}) for one in answer["operators"]], answer["waited"] > DISTURBED


def download_bytes(artifact: Artifact) -> int:
    """What has to be sent: the sum over its files of their size as zlib (deflate) compresses them at level 9."""
    total = 0
    for path in artifact.files():
        packer = zlib.compressobj(9)
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                total += len(packer.compress(chunk))
        total += len(packer.flush())
    return total


def asked(
    artifacts: Sequence[Artifact],
    feed: Mapping[str, np.ndarray],
    request: Mapping[str, Any],
    *,
    threads: int,
    timeout_s: float = TIMEOUT_S,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """What a fresh process answers to a request that `limbeck.evaluation.processes.child` knows.

    Raises: the LimbeckError that it answers with, or ArtifactError if it doesn't answer; Interrupted when `stop` says so.
    """
    for name, value in feed.items():
        if value.dtype.kind not in "iufb":
            raise ArtifactError(f"input '{name}' must be numbers, got {value.dtype}. Convert it in the task's `inputs`.")
    with tempfile.TemporaryDirectory() as folder:
        at, arrays = Path(folder) / "at", Path(folder) / "feed.npz"
        np.savez(arrays, *feed.values())
        listed = [{"path": str(a.path.absolute()), "runtime": a.runtime} for a in artifacts]
        whole = {**request, "artifacts": listed, "feed": str(arrays), "names": list(feed), "threads": threads, "at": str(at), "asked": time.monotonic_ns()}
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, "-P", "-m", "limbeck.evaluation.processes.child"]  # -P: a numpy.py in the user's folder isn't numpy
        try:
            done = _ended(command, whole, at=at, environment=environment, timeout_s=timeout_s, stop=stop)
        except subprocess.TimeoutExpired as error:
            raise ArtifactError(
                f"{_on(at, artifacts)}: measuring took longer than {timeout_s:g} s without a sign of life. Use a smaller batch, or run it by itself to see why."
            ) from error
        except BlockingIOError as error:  # too many processes, or no memory for one more
            raise ArtifactError(f"{_on(at, artifacts)}: no process to measure in can be started: {error.strerror}. Close what else runs here.") from error
        if done.returncode != 0:
            raise ArtifactError(f"{_on(at, artifacts)} brought its process down: {ending(done.returncode)}. {last_line(done.stderr)}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise raised(answer)
    return answer


def _ended(
    command: Sequence[str], request: Mapping[str, Any], *, at: Path, environment: Mapping[str, str], timeout_s: float, stop: Callable[[], bool]
) -> subprocess.CompletedProcess[str]:
    """The child at its end. It is of a session of its own, so that Ctrl-C reaches it through us alone, and ends when we do.

    It may take as long as it likes while it writes to `at` in between. Raises: TimeoutExpired; Interrupted. The child is gone then.
    """
    alive, ours = os.pipe()
    said: str | None = json.dumps({**request, "alive": alive})
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    deadline, written = time.monotonic() + timeout_s, 0
    try:
        with subprocess.Popen(command, env=environment, pass_fds=(alive,), start_new_session=True, **pipes) as process:
            try:
                while True:
                    try:
                        out, err = process.communicate(said, timeout=POLL_S)
                        return subprocess.CompletedProcess(command, process.returncode, out, err)
                    except subprocess.TimeoutExpired:
                        said = None
                    if (now := at.stat().st_mtime_ns if at.exists() else 0) != written:
                        deadline, written = time.monotonic() + timeout_s, now
                    if stop():
                        raise Interrupted("stopped in a measurement; it is taken anew. Run the same command again to go on.")
                    if time.monotonic() > deadline:
                        raise subprocess.TimeoutExpired(command, timeout_s)
            finally:
                process.kill()
    finally:
        os.close(alive)
        os.close(ours)


def _on(at: Path, artifacts: Sequence[Artifact]) -> str:
    """The artifact that the child was at; all of them if they were taking turns."""
    index = at.read_text() if at.exists() else ""
    names = [str(a.path) for a in artifacts]
    return names[int(index)] if index else names[0] if len(names) == 1 else f"one of {', '.join(names)}"
