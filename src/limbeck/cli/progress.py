"""What long work shows while it runs, on stderr: a line an event and a bar on a terminal, plain lines in a file, JSON lines for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from limbeck.cli.training import epoch
from limbeck.core.events import level
from limbeck.core.secrets import masked

PAUSE = 5.0  # seconds between two lines on how far the work has come, where there is no terminal
REDRAW = 0.1  # seconds between two updates of the bar


class Shown(Protocol):
    """A `limbeck.core.technique.Log` that is opened, closed, and told of the error that ends the work."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def event(self, event: str, **data: Any) -> None: ...
    def progress(self, done: float, total: float, note: str) -> None: ...


class ConsoleLog:
    """Lines and a bar on a terminal; off a terminal lines alone, on progress at most one every few seconds. `quiet` shows nothing."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None, clock: Callable[[], float] = time.monotonic):
        self._console = console or Console(stderr=True, quiet=quiet, highlight=False, emoji=False)
        self._clock = clock
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), Left())
        self._bar = Progress(*columns, console=self._console, transient=True) if self._console.is_terminal and not quiet else None
        self._task: TaskID | None = None
        self._note, self._said = "", float("-inf")
        self._began, self._first = 0.0, 0.0  # when the present work was first heard of, and how far it was then

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def event(self, event: str, **data: Any) -> None:
        self._end()
        line = _line(event, {k: escape(v) if isinstance(v, str) else v for k, v in masked(data).items()})
        if not line or (event == "epoch" and not self._bar and not self._due()):
            return
        self._console.print(line)

    def progress(self, done: float, total: float, note: str) -> None:
        now = self._clock()
        if note != self._note:
            self._end()
            self._note, self._began, self._first = note, now, done
            self._said = now if not self._bar else float("-inf")
            if self._bar:
                self._task = self._bar.add_task(note, total=total or None, completed=int(done))
        if self._bar and self._task is not None:
            if now - self._said > REDRAW or (total and done >= total):
                self._said = now
                self._bar.update(self._task, total=total or None, completed=done)
        elif self._due():
            left = f", about {_left(now - self._began, done - self._first, total - done):.0f} s left" if total and done > self._first else ""
            self._console.print(f"  [dim]{escape(note)}: {f'{done / total:.0%}, ' if total else ''}{now - self._began:.0f} s{left}[/dim]", soft_wrap=True)

    def _due(self) -> bool:
        now = self._clock()
        if now - self._said < PAUSE:
            return False
        self._said = now
        return True

    def _end(self) -> None:
        if self._bar and self._task is not None:
            self._bar.remove_task(self._task)
        self._task, self._note = None, ""


class Left(ProgressColumn):
    """How long it will still take at the pace so far; nothing where nobody knows."""

    def render(self, task: Task) -> Text:
        if not task.total or not task.completed or task.time_remaining is None:
            return Text("")
        return Text(f"{task.time_remaining:.0f} s left")


def _left(elapsed: float, done: float, remaining: float) -> float:
    return elapsed / done * remaining


class JsonLog:
    """One JSON line an event: UTC time, level, event, data. No bar; what Python's logging and warnings say comes as lines too."""

    def __init__(self) -> None:
        self._handler = _Told(self)

    def __enter__(self) -> Self:
        logging.captureWarnings(True)
        for name in ("limbeck", "py.warnings"):
            logging.getLogger(name).addHandler(self._handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        logging.captureWarnings(False)
        for name in ("limbeck", "py.warnings"):
            logging.getLogger(name).removeHandler(self._handler)

    def event(self, event: str, **data: Any) -> None:
        self.write(level(event), event, data)

    def progress(self, done: float, total: float, note: str) -> None:
        """Nothing: a program that follows a run reads events."""

    def write(self, loudness: str, event: str, data: Mapping[str, Any]) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": loudness, "event": event, "data": masked(data)}
        sys.stderr.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        sys.stderr.flush()


class _Told(logging.Handler):
    """What reaches Python's logging by itself, as a line; a run's own events have theirs already."""

    def __init__(self, log: JsonLog):
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if "limbeck" not in vars(record):
            self._log.write(record.levelname.lower(), "log", {"logger": record.name, "message": record.getMessage().strip()})


def _line(event: str, data: dict[str, Any]) -> str:
    if event == "epoch":
        if data["epoch"] != 1 and data["epoch"] % 5:
            return ""
        return f"  [dim]{data['note']}: epoch {data['epoch']:.0f}, {epoch(data)}[/dim]"
    if event == "gate":
        colour = {"PASS": "green", "FAIL": "red"}.get(str(data["status"]), "yellow")
        return f"  [{colour}]{data['status']}[/{colour}] {data['stage']}: " + "; ".join(map(escape, data["verdicts"]))
    if event == "stage":
        again = f", try {data['attempt']}" if data["attempt"] > 1 else ""
        return f"[bold]stage {data['stage']}[/bold]{again}"
    if event == "note":
        return f"  [yellow]{data['text']}[/yellow]"
    return f"  [dim]{event} " + " ".join(f"{k}={v if isinstance(v, str) else escape(str(v))}" for k, v in data.items()) + "[/dim]"


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Keep stdout for the answer alone: what a task, a library or a process of theirs prints there meanwhile goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
