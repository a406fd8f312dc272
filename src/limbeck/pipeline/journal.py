"""What happened in a run, in order: one JSON line an event, each with the hash of the line before."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limbeck.core.errors import RunError
from limbeck.core.files import append
from limbeck.core.secrets import masked
from limbeck.pipeline.records import newest
from limbeck.pipeline.store import digest

FIRST = "0" * 64
LINE_VERSION = 1  # of a line; one without a version is of version 1


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
        """Write an event, synced, unless the same one is there. What is secret is masked."""
        data = masked(data)
        mark = digest([event, data])
        if mark in self._seen:
            return
        time, previous = datetime.now(UTC).isoformat(timespec="milliseconds"), line_hash(self.lines[-1]) if self.lines else FIRST
        line = {"version": LINE_VERSION, "time": time, "previous": previous, "event": event, "data": data}
        append(self._path, _line(line))
        self.lines.append(line)
        self._seen.add(mark)

    @property
    def head(self) -> str:
        """The hash of the last line: it stands for all of them."""
        return line_hash(self.lines[-1]) if self.lines else FIRST


def _line(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def line_hash(line: dict[str, Any]) -> str:
    """What the next line carries, and what stands for the journal up to here."""
    return hashlib.sha256(_line(line)).hexdigest()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal, their chain checked; a last line without an end is what was in flight, and left out.

    Raises: RunError that names the line whose hash doesn't fit, or that a later limbeck wrote.
    """
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    previous = FIRST
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror}. Take it from a copy of the run.") from error
    for number, raw in enumerate(whole.split(b"\n")[:-1], 1):
        line = _read_line(raw, where=f"{path}, line {number}")
        if line is None or line["previous"] != previous:
            raise RunError(f"{path}, line {number}: its hash doesn't follow from the line before. The journal was changed; the run can't be trusted.")
        lines.append(line)
        previous = line_hash(line)
    return lines


def _read_line(raw: bytes, *, where: str) -> dict[str, Any] | None:
    """A line's content; None if it isn't one. A later version may look otherwise in all but its version."""
    try:
        line = json.loads(raw, parse_constant=_refuse)
        version = line.get("version", 1)
        if type(version) is int and version > LINE_VERSION:
            newest(version, LINE_VERSION, where=f"{where}: version")
        known = isinstance(line["previous"], str) and isinstance(line["time"], str) and isinstance(line["event"], str) and isinstance(line["data"], dict)
        return line if known and version == 1 and _line(line) == raw + b"\n" else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    """No line holds NaN or Infinity."""
    raise ValueError(constant)
