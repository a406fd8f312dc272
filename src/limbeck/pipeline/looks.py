"""How often the test split was looked at: a split that is looked at often is a validation split."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from limbeck.core.errors import RunError
from limbeck.core.files import disk
from limbeck.core.foreign import users_code
from limbeck.core.task import Task
from limbeck.evaluation.spending import CONFIDENCE, Look
from limbeck.intake.fingerprint import fingerprint
from limbeck.pipeline.store import write

UNKNOWN = 1 - CONFIDENCE  # what a look of limbeck before it noted that is taken to have spent


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Test data that is looked at: whose, which, how many samples, and the fingerprint of its first n, where it can be taken."""

    fingerprint: str
    task: str | None = None
    samples: int | None = None
    first: Callable[[int], str] | None = None


def looked(task: Task, of_all: str) -> Looked:
    """The test split of a task, whose fingerprint is known."""
    data = task.split("test")

    def first(count: int) -> str:
        with users_code(f"task '{task.name}': its data", always=True):
            return fingerprint(Subset(data, range(count)))  # pyright: ignore[reportArgumentType]

    return Looked(fingerprint=of_all, task=task.name, samples=len(data), first=first)


def count_look(root: Path, data: Looked, *, run: str, artifact: str, error: float = UNKNOWN) -> Look:
    """Note that this artifact was judged on this test data; which look it is, over all runs of `root`, and what those before it spent.

    Judging the same artifact of the same run again, from its records, is the same look. Data that grew is looked at again: if a task of
    this name was judged on fewer samples, and these are the first of now, both are looks of one series.

    Args:
        error: The probability with which this look may pass what doesn't hold; the greatest counts, if it is judged again at another.
    """
    with _alone(root):
        return _counted(root / "looks.jsonl", data, run=run, artifact=artifact, error=error)


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


def _counted(path: Path, data: Looked, *, run: str, artifact: str, error: float) -> Look:
    lines = _read(path)
    series = _series(lines, data)
    mine = [x for x in lines if _of(x) in series]
    own = next((x for x in mine if (x["fingerprint"], x["run"], x["artifact"]) == (data.fingerprint, run, artifact)), None)
    if own is None:
        own = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "fingerprint": data.fingerprint, "run": run, "artifact": artifact, "error": error}
        own |= {k: v for k, v in (("task", data.task), ("samples", data.samples)) if v is not None}
        own |= {"series": _of(mine[0])} if mine and _of(mine[0]) != data.fingerprint else {}
        lines.append(own)
        mine.append(own)
        _write(path, lines)
    elif error > own.get("error", UNKNOWN):
        own["error"] = error
        _write(path, lines)
    place = next(number for number, x in enumerate(mine) if x is own)
    return Look(place + 1, sum((x.get("error", UNKNOWN) for x in mine[:place]), 0.0))


def _read(path: Path) -> list[dict[str, Any]]:
    """The looks so far. Raises RunError for a line that is none: what can't be read can't be counted."""
    with disk(path):
        text = path.read_bytes().decode(errors="replace") if path.exists() else ""
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            look = json.loads(line)
        except (ValueError, RecursionError):
            look = None
        if not _is_look(look):
            raise RunError(
                f"line {number} of {path} is no look at a test split, got {line[:100]!r}. Bring the file back from a copy, or move it away: looks are then counted anew."
            )
        lines.append(look)
    return lines


def _is_look(line: Any) -> bool:
    if not isinstance(line, dict) or not all(isinstance(line.get(key, ""), str) for key in ("task", "series")):
        return False
    error, samples = line.get("error", UNKNOWN), line.get("samples", 0)
    told = all(isinstance(line.get(key), str) for key in ("fingerprint", "run", "artifact"))
    return told and isinstance(samples, int) and isinstance(error, int | float) and 0 <= error <= 1


def _series(lines: Sequence[Mapping[str, Any]], data: Looked) -> set[str]:
    """The series that this data belongs to: that of the same data, and of fewer samples of it."""
    found = {data.fingerprint} | {_of(x) for x in lines if x["fingerprint"] == data.fingerprint}
    if data.first is None or data.samples is None:
        return found
    fewer = [x for x in lines if x.get("task") == data.task and 0 < x.get("samples", 0) < data.samples and _of(x) not in found]
    for count in sorted({x["samples"] for x in fewer}, reverse=True):
        known = data.first(count)
        found |= {_of(x) for x in fewer if x["samples"] == count and x["fingerprint"] == known}
    return found


def _of(line: Mapping[str, Any]) -> str:
    """The series of a line: the fingerprint of the first data in it."""
    return line.get("series", line["fingerprint"])


def _write(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    write(path, "".join(json.dumps(x) + "\n" for x in lines).encode())
