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
class WarmUp:
    """What went before the first timing: inferences until they took no less and no more than those before, or until the time for it was over."""

    inferences: int
    seconds: float
    steady: bool


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of single inferences, in the order in which they were taken, by block (one block a turn).

    Attributes:
        disturbed: Whether other work, a pause or another clock is in the figures; `why` says which.
        waited: Share of the time of its turns in which it was ready to run and another process had the CPU.
        anytime: Whether their number depends on what they showed: then a percentile is judged by the rule that allows for it.
        warm_up: None where it wasn't kept.
    """

    blocks: tuple[tuple[float, ...], ...]
    disturbed: bool = False
    why: str = ""
    waited: float = 0.0
    anytime: bool = False
    warm_up: WarmUp | None = None

    @property
    def samples(self) -> list[float]:
        return [s for block in self.blocks for s in block]

    @property
    def note(self) -> str | None:
        """What a reader of the figures should know; None if there is nothing."""
        warm = self.warm_up
        slow = f"the warm-up ended after {warm.inferences:,} inferences in {warm.seconds:.2g} s, before it was steady" if warm and not warm.steady else ""
        said = (self.why or "other work on the machine, or a pause of it, is in the figures") if self.disturbed else ""
        return "; ".join(filter(None, (said, slow))) or None

    def kept(self) -> dict[str, Any]:
        """The plain form in which a measurement is kept."""
        return {**vars(self), "blocks": [list(block) for block in self.blocks], "warm_up": vars(self.warm_up) if self.warm_up else None}

    @staticmethod
    def of(kept: Mapping[str, Any]) -> Latency:
        """From what was kept, by this limbeck or by one before it."""
        known = {name: kept[name] for name in ("disturbed", "why", "waited", "anytime") if name in kept}
        warm_up = WarmUp(**kept["warm_up"]) if kept.get("warm_up") else None
        return Latency(blocks=tuple(tuple(block) for block in kept["blocks"]), warm_up=warm_up, **known)


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
    latency_ms: Mapping[str, float | None] | None = None  # p50, p90, p99
    latency_interval_ms: Mapping[str, tuple[float | None, float | None] | None] | None = None  # of each, its bounds; each one-sided at 99 %
    latency_note: str | None = None  # what disturbed it, in words
    peak_memory_bytes: int | None = None
    kernels: Mapping[str, Any] | None = None  # what really runs in int8, and what in float

    def summary(self) -> dict[str, Any]:
        """The form in which `summary.json` shows it."""
        return {
            "metric": {"name": self.metric_name, "value": self.metric_value},
            "size_bytes": self.size_bytes,
            "download_bytes": self.download_bytes,
            "latency_ms": dict(self.latency_ms) if self.latency_ms else None,
            "latency_interval_ms": {k: list(v) if v else None for k, v in self.latency_interval_ms.items()} if self.latency_interval_ms else None,
            "latency_note": self.latency_note,
            "peak_memory_bytes": self.peak_memory_bytes,
            "parameters": self.parameters,
            "macs": self.macs,
            "artifact": self.artifact,
            "runtime": self.runtime,
            "threads": self.threads,
            "kernels": dict(self.kernels) if self.kernels else None,
        }
