"""What a training shows of itself, in a line: while it runs, and when the run is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHARE = "share of "
FRACTIONS = {"agreement": "agrees with it on", "missed": "missed of its right answers", "forgotten": "forgotten since the best epoch", "calibration_error": "calibration error"}
KNOWN = frozenset(("epoch", "note", "validation", "teacher", *FRACTIONS, "worst_class", "worst_class_kept", "ahead_of_teacher", "classes", "kept", "stopped"))


def epoch(row: Mapping[str, Any]) -> str:
    """One epoch: terms, each with its share of the gradient; then what validation says."""
    terms = [f"{k} {v:.4f}{_share(row, k)}" for k, v in row.items() if k not in KNOWN and not k.startswith(SHARE) and isinstance(v, (int, float))]
    return ", ".join([*terms, *validation(row)])


def validation(row: Mapping[str, Any]) -> Iterator[str]:
    """What an epoch's row says of validation."""
    if "validation" in row:
        yield f"validation {row['validation']:.4f}" + (f" (teacher {row['teacher']:.4f})" if "teacher" in row else "")
    yield from (f"{shown} {row[name]:.1%}" for name, shown in FRACTIONS.items() if name in row)


def ended(rows: list[Mapping[str, Any]]) -> str:
    """How a training ended: the epoch whose weights were kept."""
    row = next((r for r in reversed(rows) if "kept" in r), rows[-1])
    worst = f", class {row['worst_class']} kept least of its recall ({row['worst_class_kept']:.1%})" if "worst_class" in row else ""
    shares = [f"{k.removeprefix(SHARE)} {v:.0%}" for k, v in row.items() if k.startswith(SHARE)]
    pulls = f"; of the gradient: {', '.join(shares)}" if shares else ""
    stopped = "; the guard against forgetting ended it" if "stopped" in rows[-1] else ""
    return f"epoch {row['epoch']:.0f} of {len(rows)}: " + ", ".join(validation(row)) + worst + pulls + stopped


def _share(row: Mapping[str, Any], term: str) -> str:
    share = row.get(f"{SHARE}{term}")
    return f" ({share:.0%} of the pull)" if share is not None else ""
