"""What an artifact answers on this machine, asked in a process of its own: one that crashes takes nobody with it.

`python -m limbeck.package.answers` is that process: a request (JSON) on stdin, arrays into the file that it names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, LimbeckError, RunError
from limbeck.package.golden import npz, samples_of

TIMEOUT_S = 300.0


def answers(artifact: Artifact, feeds: Sequence[Mapping[str, np.ndarray]], *, threads: int, timeout_s: float = TIMEOUT_S) -> list[dict[str, np.ndarray]]:
    """The outputs for each feed.

    Raises: ArtifactError if the artifact can't be loaded or run, brings its process down, or takes longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="limbeck-") as folder:
        inputs, outputs = Path(folder) / "in.npz", Path(folder) / "out.npz"
        inputs.write_bytes(npz(feeds))
        request = {"path": str(artifact.path.absolute()), "runtime": artifact.runtime, "threads": threads, "inputs": str(inputs), "outputs": str(outputs)}
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, "-P", "-m", "limbeck.package.answers"]  # -P: a numpy.py in the user's folder isn't numpy
        try:
            done = subprocess.run(command, input=json.dumps(request), env=environment, capture_output=True, text=True, errors="replace", timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ArtifactError(f"{artifact.path.name} took longer than {timeout_s:g} s for {len(feeds)} samples. Run it by itself to see why.") from error
        if done.returncode == 3:
            raise ArtifactError(done.stdout.strip())
        if done.returncode != 0:
            raise ArtifactError(f"{artifact.path.name} brought its process down: {_ending(done.returncode)}. {_last_line(done.stderr)}")
        return samples_of(outputs.read_bytes(), where=f"the answers of {artifact.path.name}")


def _ending(code: int) -> str:
    known = {-s.value: s.name for s in signal.Signals}
    return known.get(code, f"exit code {code}")


def _last_line(stderr: str) -> str:
    line = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    return f"Its last line: {line}" if line else "It said nothing."


def main() -> None:
    """Answer one request. A LimbeckError goes to stdout with exit code 3; all else is a crash."""
    from limbeck.runtimes import runtime

    request = json.load(sys.stdin)
    say = os.dup(1)
    os.dup2(2, 1)  # what a library prints isn't our answer
    try:
        feeds = samples_of(Path(request["inputs"]).read_bytes(), where="the request")
        session = runtime(request["runtime"]).load(Artifact(Path(request["path"]), request["runtime"]), request["threads"])
        found = [session(feed) for feed in feeds]
        if not found:
            raise RunError("no sample was given. Ask for at least one.")
        Path(request["outputs"]).write_bytes(npz(found))
    except LimbeckError as error:
        os.write(say, str(error).encode())
        sys.exit(3)


if __name__ == "__main__":
    main()
