"""What long work shows while it runs: one line an event and a bar with the time left, on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SHOWN = {"exporting": "candidate", "stage": "stage", "gate": "stage", "timing": "artifacts", "evaluating": "split"}


class ConsoleLog:
    """Implements `limbeck.core.technique.Log` on a terminal; `quiet` draws nothing."""

    def __init__(self, *, quiet: bool):
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bar = Progress(
            TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self._console, transient=True, disable=quiet
        )
        self._task: TaskID | None = None
        self._note, self._drawn = "", 0.0

    def __enter__(self) -> ConsoleLog:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def event(self, event: str, **data: Any) -> None:
        self._clear()
        line = _line(event, data)
        if line:
            self._console.print(line)

    def progress(self, done: float, total: float, note: str) -> None:
        if self._task is None or note != self._note:
            self._clear()
            self._task, self._note = self._bar.add_task(note, total=total), note
        now = time.monotonic()
        if now - self._drawn > 0.1 or done >= total:
            self._drawn = now
            self._bar.update(self._task, completed=done)

    def _clear(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


def _line(event: str, data: dict[str, Any]) -> str:
    if event == "epoch":
        if data["epoch"] != 1 and data["epoch"] % 5:
            return ""
        shown = {k: v for k, v in data.items() if k not in ("epoch", "note")}
        return f"  [dim]{data['note']}: epoch {data['epoch']:.0f}, " + ", ".join(f"{k} {v:.4f}" for k, v in shown.items()) + "[/dim]"
    if event == "gate":
        colour = {"PASS": "green", "FAIL": "red"}.get(str(data["status"]), "yellow")
        return f"  [{colour}]{data['status']}[/{colour}] {data['stage']}: " + "; ".join(data["verdicts"])
    if event == "stage":
        again = f", try {data['attempt']}" if data["attempt"] > 1 else ""
        return f"[bold]stage {data['stage']}[/bold]{again}"
    if event == "note":
        return f"  [yellow]{data['text']}[/yellow]"
    return f"  [dim]{event} " + " ".join(f"{k}={v}" for k, v in data.items()) + "[/dim]"
