"""What was measured, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """The five verdicts, from good to bad."""

    PASS = "PASS"
    INCONCLUSIVE = "INCONCLUSIVE"  # more samples could settle it
    UNVERIFIED = "UNVERIFIED"  # not measured where it is promised
    ANOMALOUS = "ANOMALOUS"  # too good to be true
    FAIL = "FAIL"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One gate's answer: what was limited, what was measured, and how sure that is."""

    gate: str
    status: Status
    reason: str
    limit: float | None = None
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    samples_needed: int | None = None


def worst(verdicts: Iterable[Verdict]) -> Status:
    """The status of all of them together. No verdict at all is UNVERIFIED: nothing was shown."""
    order = list(Status)
    return max((v.status for v in verdicts), key=order.index, default=Status.UNVERIFIED)


def exit_code(status: Status) -> int:
    """0 PASS, 3 FAIL, 4 anything that isn't settled."""
    return {Status.PASS: 0, Status.FAIL: 3}.get(status, 4)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How much of the baseline's metric is kept, on the same samples, with a one-sided lower bound.

    `kind` says whether value and low are a ratio (candidate / baseline) or a drop (in the metric's unit; then `low` is the
    worst drop that the confidence admits, an upper bound of it).
    """

    value: float
    low: float
    confidence: float
    method: str
    split: str
    samples: int
    kind: str = "ratio"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of single inferences, in the order in which they were taken, by block (one block a turn)."""

    blocks: tuple[tuple[float, ...], ...]
    disturbed: bool = False

    @property
    def samples(self) -> list[float]:
        return [s for block in self.blocks for s in block]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of one artifact on one target; None where it was not measured."""

    artifact: str
    runtime: str
    threads: int
    size_bytes: int
    download_bytes: int
    metric_name: str | None = None
    metric_value: float | None = None
    parameters: int | None = None
    macs: int | None = None
    latency_ms: Mapping[str, float | None] | None = None  # p50, p90
    peak_memory_bytes: int | None = None
    kernels: Mapping[str, Any] | None = None  # what really runs in int8, and what in float

    def summary(self) -> dict[str, Any]:
        """The form in which `summary.json` shows it."""
        return {
            "metric": {"name": self.metric_name, "value": self.metric_value},
            "size_bytes": self.size_bytes,
            "download_bytes": self.download_bytes,
            "latency_ms": dict(self.latency_ms) if self.latency_ms else None,
            "peak_memory_bytes": self.peak_memory_bytes,
            "parameters": self.parameters,
            "macs": self.macs,
            "artifact": self.artifact,
            "runtime": self.runtime,
            "threads": self.threads,
            "kernels": dict(self.kernels) if self.kernels else None,
        }
