"""What was under way when a library brought the whole process down, so that the next start fails that stage rather than crash again.

Python's faulthandler writes into a note of the run when the process dies of SIGSEGV, SIGBUS, SIGABRT, SIGFPE or SIGILL; kill −9 and
the power cord write nothing there, and what they interrupted is simply done again.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.core.errors import StageError
from limbeck.core.files import write

NOTE = "crash.txt"  # a line of JSON about the work under way, then what faulthandler wrote
KNOWN = "crashed.json"  # work that crashed → how; until the run has its verdict
FATAL = "Fatal Python error: "


class Crashes:
    """The crashes of a run folder that still stand in its way, and the note of what is under way now."""

    def __init__(self, folder: Path):
        self._folder, self._note = folder, -1
        self.known: dict[str, str] = _read(folder)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Crashes in this block are noted. A faulthandler that was on before goes on to stderr afterwards."""
        before = faulthandler.is_enabled()
        self._note = os.open(self._folder / NOTE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        faulthandler.enable(file=self._note, all_threads=False)
        try:
            yield
        finally:
            faulthandler.disable()
            if before and sys.__stderr__ is not None:
                faulthandler.enable(file=sys.__stderr__)
            os.close(self._note)
            self._note = -1
            (self._folder / NOTE).unlink(missing_ok=True)

    @contextmanager
    def work(self, key: str, what: str) -> Iterator[None]:
        """Work that could bring the process down. Raises StageError at once if it did so before."""
        if key in self.known:
            raise StageError(f"{what} brought the process down when it was last tried: {self.known[key]}. It isn't tried again in this run; start another to do so.")
        self._say({"key": key})
        try:
            yield
        finally:
            self._say(None)

    def forget(self) -> None:
        """The run has its verdict: the next one tries again."""
        (self._folder / KNOWN).unlink(missing_ok=True)
        self.known = {}

    def _say(self, work: dict[str, str] | None) -> None:
        if self._note >= 0:
            os.ftruncate(self._note, 0)
            if work:
                os.write(self._note, json.dumps(work).encode() + b"\n")


def _read(folder: Path) -> dict[str, str]:
    """Crashes noted so far, with that of the last start, if it ended in one."""
    known: dict[str, str] = {}
    try:
        found = json.loads((folder / KNOWN).read_bytes())
        known = {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
    except (OSError, ValueError):
        pass  # none, or damaged: then it is tried once more
    try:
        first, _, rest = (folder / NOTE).read_text(errors="replace").partition("\n")
        key = json.loads(first)["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return known
    if isinstance(key, str) and FATAL in rest:
        known[key] = _told(rest)
        write(folder / KNOWN, json.dumps(known, indent=1).encode())
    return known


def _told(trace: str) -> str:
    """The fault and its innermost frames, in one line."""
    lines = [line.strip() for line in trace.splitlines()]
    fault = next(line.partition(FATAL)[2] for line in lines if FATAL in line)
    frames = [line for line in lines if line.startswith("File ")][:2]
    return ", ".join([fault, *frames])
