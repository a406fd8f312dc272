"""How often the test split was looked at: a split that is looked at often is a validation split."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from limbeck.core.files import disk
from limbeck.pipeline.store import write


def count_look(root: Path, *, fingerprint: str, run: str, artifact: str) -> int:
    """Note that this artifact was judged on the test data of this fingerprint; how many were, over all runs of `root`.

    Judging the same artifact of the same run again, from its records, is the same look.
    """
    path = root / "looks.jsonl"
    with _alone(root):
        return _counted(path, fingerprint=fingerprint, run=run, artifact=artifact)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two runs of one root that come to their verdict at once wait for each other here: no look is lost."""
    with disk(root):
        handle = os.open(root / ".looks.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for half in root.glob(".looks.jsonl.*.tmp"):  # of a killed run: nobody else writes it now
            half.unlink(missing_ok=True)
        yield
    finally:
        os.close(handle)


def _counted(path: Path, *, fingerprint: str, run: str, artifact: str) -> int:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    mine = [x for x in lines if x["fingerprint"] == fingerprint]
    if not any(x["run"] == run and x["artifact"] == artifact for x in mine):
        lines.append({"time": datetime.now(UTC).isoformat(timespec="seconds"), "fingerprint": fingerprint, "run": run, "artifact": artifact})
        mine.append(lines[-1])
        write(path, "".join(json.dumps(x) + "\n" for x in lines).encode())
    return len(mine)
