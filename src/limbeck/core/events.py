"""How loud an event of a run is, for the console, JSON lines and Python's logging alike."""

from __future__ import annotations

from typing import Literal

Level = Literal["info", "warning", "error"]
WARNINGS = frozenset({"note", "no twin", "stage broke", "timing again", "training diverged", "training stopped"})


def level(event: str) -> Level:
    """`error` is what ends a run, `warning` what its reader should look at."""
    return "error" if event == "error" else "warning" if event in WARNINGS else "info"
