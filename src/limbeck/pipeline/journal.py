"""What happened in a run, in order: one JSON line an event, each with the hash of the line before."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limbeck.core.errors import RunError
from limbeck.pipeline.store import digest

FIRST = "0" * 64


class Journal:
    """Append-only. An event that already stands in it is not written twice, so a resumed run leaves the same journal."""

    def __init__(self, path: Path):
        self._path = path
        self.lines = read(path)
        self._seen = {digest([line["event"], line["data"]]) for line in self.lines}
        whole = b"".join(_line(line) for line in self.lines)
        if path.exists() and path.read_bytes() != whole:  # a line that was cut off by a kill
            with path.open("r+b") as file:
                file.truncate(len(whole))

    def record(self, event: str, **data: Any) -> None:
        """Write an event, synced, unless the same one is there."""
        mark = digest([event, data])
        if mark in self._seen:
            return
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "previous": _hash(self.lines[-1]) if self.lines else FIRST, "event": event, "data": data}
        with self._path.open("ab") as file:
            file.write(_line(line))
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(line)
        self._seen.add(mark)

    @property
    def head(self) -> str:
        """The hash of the last line: it stands for all of them."""
        return _hash(self.lines[-1]) if self.lines else FIRST


def _line(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _hash(line: dict[str, Any]) -> str:
    return hashlib.sha256(_line(line)).hexdigest()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal, their chain checked; a last line without an end is what was in flight, and left out.

    Raises: RunError that names the line whose hash doesn't fit.
    """
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    previous = FIRST
    for number, raw in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not raw.endswith(b"\n"):
            break
        try:
            line = json.loads(raw)
            fits = line["previous"] == previous and _line(line) == raw and isinstance(line["data"], dict)
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise RunError(f"{path}, line {number}: its hash doesn't follow from the line before. The journal was changed; the run can't be trusted.")
        lines.append(line)
        previous = _hash(line)
    return lines
