"""A session in a process of its own: an artifact that brings its runtime down is an error here, and takes nobody with it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any, Self

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, ConfigError, Interrupted, MissingLibrary
from limbeck.evaluation.processes.frames import received, send
from limbeck.evaluation.processes.shared import Shared
from limbeck.runtimes import installed
from limbeck.runtimes.card import Feed, InputSpec

POLL_S = 0.1  # how often a stop is looked for while the other process works
TIMEOUT_S = 900.0  # for loading it, and for each answer
Stop = Callable[[], bool]


class Apart:
    """A loaded artifact in a fresh process; a `Session`. The process ends with `close`, with this object, and with this process.

    Raises, where it is made and where it is called: ArtifactError if the artifact can't be loaded or run, brings its process down
    (which is named, with its signal), or takes longer than `timeout_s`; Interrupted when `stop` says so. After a crash, a timeout
    or an interruption it is closed.
    """

    def __init__(self, artifact: Artifact, *, threads: int, timeout_s: float = TIMEOUT_S, stop: Stop = lambda: False):
        installed(artifact.runtime)
        self._artifact, self._timeout_s, self._stop = artifact, timeout_s, stop
        self._started(threads)
        request = {"path": str(artifact.path.absolute()), "runtime": artifact.runtime, "threads": threads, "alive": self._alive, "shared": self._shared.handle}
        told, _ = self._exchanged(request)
        self.inputs = tuple(InputSpec(name, dtype, tuple(shape), tuple(axes)) for name, dtype, shape, axes in told["inputs"])
        self.outputs: tuple[str, ...] = tuple(told["outputs"])

    def _started(self, threads: int) -> None:
        self._alive, ours = os.pipe()
        self._stderr, self._shared = tempfile.TemporaryFile(), Shared()  # noqa: SIM115 - closed by `_end`
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, "-P", "-m", "limbeck.evaluation.processes.answering"]  # -P: a numpy.py in the user's folder isn't numpy
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._stderr, "bufsize": 0}
        try:
            self._process = subprocess.Popen(command, env=environment, pass_fds=(self._alive, self._shared.handle), start_new_session=True, **pipes)
        except BlockingIOError as error:  # too many processes, or no memory for one more
            for end in (self._alive, ours):
                os.close(end)
            self._shared.close()
            raise ArtifactError(f"{self._artifact.path}: no process to run it in can be started: {error.strerror}. Close what else runs here.") from error
        self._to, self._from = (stream.fileno() for stream in (self._process.stdin, self._process.stdout) if stream is not None)
        os.close(self._alive)
        for pipe in (self._to, self._from):
            os.set_blocking(pipe, False)
        self._close = weakref.finalize(self, _end, self._process, ours, self._shared, self._stderr)

    def __call__(self, feed: Feed) -> dict[str, np.ndarray]:
        self._check_open()
        for name, value in feed.items():
            if value.dtype.kind not in "iufb":
                raise ArtifactError(f"input '{name}' must be numbers, got {value.dtype}. Convert it in the task's `inputs`.")
        try:
            laid = self._shared.lay(feed)
        except OSError as error:
            size = sum(a.nbytes for a in feed.values())
            raise ArtifactError(f"there is no room in memory for {size:,} bytes of inputs: {error.strerror}. Use a smaller batch.") from error
        return self._exchanged({"ask": "outputs", "feed": laid})[1]

    def kernels(self) -> dict[str, Any]:
        """What really runs, as its runtime's card describes it."""
        self._check_open()
        return self._exchanged({"ask": "kernels"})[0]["kernels"]

    @property
    def closed(self) -> bool:
        return not self._close.alive

    def close(self) -> None:
        """End its process, at whatever it is."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ArtifactError(f"{self._artifact.path}: its session is closed. Open another.")

    def _exchanged(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        deadline, whole = time.monotonic() + self._timeout_s, False
        try:
            with suppress(BrokenPipeError):  # it died, and what there is to read says how
                send(self._to, message, wait=lambda: self._wait(self._to, select.POLLOUT, deadline))
            answer = received(self._from, wait=lambda: self._wait(self._from, select.POLLIN, deadline))
            if answer is None:
                raise ArtifactError(f"{self._artifact.path} brought its process down: {ending(self._process.wait())}. {last_line(self._said())}")
            whole = True
        finally:
            if not whole:
                self.close()
        if "error" in answer[0]:
            raise raised(answer[0])
        return answer

    def _wait(self, pipe: int, event: int, deadline: float) -> None:
        waiting = select.poll()
        waiting.register(pipe, event)
        while not waiting.poll(POLL_S * 1000):
            if self._stop():
                raise Interrupted("stopped while an artifact was asked; its answers are taken anew. Run the same command again to go on.")
            if time.monotonic() > deadline:
                raise ArtifactError(f"{self._artifact.path} took longer than {self._timeout_s:g} s for one answer. Use a smaller batch, or run it by itself to see why.")

    def _said(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")


def _end(process: subprocess.Popen[Any], alive: int, shared: Shared, stderr: IO[bytes]) -> None:
    process.kill()
    process.wait()
    os.close(alive)
    shared.close()
    for stream in (process.stdin, process.stdout, stderr):
        if stream is not None:
            stream.close()


def raised(answer: Mapping[str, Any]) -> ArtifactError | ConfigError | MissingLibrary:
    """The error that another process answered with."""
    return next((e for e in (ConfigError, MissingLibrary) if e.__name__ == answer["error"]), ArtifactError)(answer["message"])


def ending(code: int) -> str:
    """How a process ended: the name of its signal, or its exit code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name} (memory may have run out)" if name == "SIGKILL" else name


def last_line(stderr: str) -> str:
    """The last thing that a process said, as a sentence."""
    line = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    return f"Its last line: {line}" if line else "It said nothing. Load the artifact in its runtime by itself to see why."
