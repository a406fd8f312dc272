"""The process of a session apart: `python -m limbeck.evaluation.processes.answering` loads an artifact and answers feeds until its pipe closes.

The request is the first message on stdin (`limbeck.evaluation.processes.frames`); answers go to what was stdout, what a library prints to stderr.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import LimbeckError
from limbeck.evaluation.processes.child import end_with_parent
from limbeck.evaluation.processes.frames import received, send
from limbeck.evaluation.processes.shared import Shared
from limbeck.runtimes import runtime
from limbeck.runtimes.card import Session

Answer = tuple[dict[str, Any], Mapping[str, np.ndarray]]


def main() -> None:
    """Load, say what it takes and gives, then answer. A LimbeckError is an answer; all else is a crash, whose last line the parent shows."""
    say = os.dup(1)
    os.dup2(2, 1)
    first = received(0)
    if first is None:
        return
    request, _ = first
    threading.Thread(target=end_with_parent, args=(request["alive"],), daemon=True).start()
    shared = Shared(request["shared"])
    artifact = Artifact(Path(request["path"]), request["runtime"])
    loaded: list[Session] = []

    def load() -> Answer:
        session = runtime(artifact.runtime).load(artifact, request["threads"])
        loaded.append(session)
        return {"inputs": [[i.name, i.dtype, i.shape, i.axes] for i in session.inputs], "outputs": session.outputs}, {}

    send(say, *_answered(load))
    while loaded and (asked := received(0)) is not None:
        message = asked[0]
        send(say, *_answered(lambda message=message: _asked(message, loaded[0], artifact, shared)))


def _asked(message: Mapping[str, Any], session: Session, artifact: Artifact, shared: Shared) -> Answer:
    if message["ask"] == "kernels":
        return {"kernels": runtime(artifact.runtime).describe(artifact)}, {}
    return {}, session(shared.see(message["feed"]))


def _answered(work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except LimbeckError as error:
        return {"error": type(error).__name__, "message": str(error)}, {}


if __name__ == "__main__":
    main()
