"""The limits that the deployed artifact must keep, and where it will run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Hint, Range, Unit, fields_of, to_dict, validate

TOO_GOOD = 1.05  # a lower bound of retention above this is an anomaly, not a success: nobody can promise more
FRACTION = Hint("It is a fraction; for 97 % write 0.97.")
PERCENT = Unit((("%", "0.01"),), "97 %")
BYTES = Unit((("B", "1"), ("kB", "1000"), ("MB", "1000000"), ("GB", "1000000000"), ("KiB", "1024"), ("MiB", "1048576"), ("GiB", "1073741824")), "5 MB")
MILLISECONDS = Unit((("ms", "1"), ("s", "1000"), ("us", "0.001"), ("µs", "0.001")), "3 ms")


@dataclass(frozen=True, kw_only=True)
class Contract:
    """Limits on quality and on resources. What is None isn't limited; a contract limits something.

    Ratios are against the baseline: the teacher exported unchanged to the same target, with the same threads. A ratio below 1
    allows the candidate to be that much larger or slower, which is a limit too.
    """

    retention: Annotated[float | None, Range(0, TOO_GOOD), FRACTION, PERCENT, "the lower bound of candidate / baseline metric is at least this"] = None
    metric: Annotated[float | None, "the metric itself is at least this (at most, where lower is better)"] = None
    max_drop: Annotated[float | None, Range(0, None), "the metric is worse than the baseline's by at most this, in its own unit"] = None
    size_bytes: Annotated[int | None, Range(0, None, closed="neither"), BYTES, "bytes of the artifact, at most"] = None
    size_ratio: Annotated[float | None, Range(0, None, closed="neither"), "baseline bytes / candidate bytes, at least"] = None
    download_bytes: Annotated[int | None, Range(0, None, closed="neither"), BYTES, "bytes of the compressed artifact, at most"] = None
    latency_p50_ms: Annotated[float | None, Range(0, None, closed="neither"), MILLISECONDS, "median milliseconds of one batch, at most"] = None
    latency_p90_ms: Annotated[float | None, Range(0, None, closed="neither"), MILLISECONDS, "90th percentile of milliseconds of one batch, at most"] = None
    speedup_p50: Annotated[float | None, Range(0, None, closed="neither"), "baseline / candidate median latency, at least"] = None
    peak_memory_bytes: Annotated[int | None, Range(0, None, closed="neither"), BYTES, "resident bytes above an empty session, at most"] = None
    confidence: Annotated[float, Range(0.5, 1, closed="neither"), FRACTION, PERCENT, "one-sided confidence of the limits on quality"] = 0.95

    def __post_init__(self) -> None:
        validate(self, where="contract")
        if not self.limits():
            raise ConfigError("contract must limit something, got no limit at all. Say at least what must be kept, as in retention = 0.97.", path=("contract",))
        if self.latency_p50_ms and self.latency_p90_ms and self.latency_p90_ms < self.latency_p50_ms:
            raise ConfigError(
                f"contract.latency_p50_ms must be at most latency_p90_ms ({self.latency_p90_ms:g}), got {self.latency_p50_ms:g}. "
                "No median lies above the 90th percentile, so it would limit nothing: swap them, or leave it out.",
                path=("contract", "latency_p50_ms"),
            )

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {k: v for k, v in to_dict(self).items() if v is not None and k != "confidence"}


QUALITY = ("retention", "metric", "max_drop")
RESOURCES = tuple(f.name for f in fields_of(Contract) if f.name not in (*QUALITY, "confidence"))


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the artifact runs: runtime and device."""

    runtime: Annotated[str, "what loads the artifact"] = "onnxruntime"
    threads: Annotated[int, Range(1, 1024), "threads that one inference may use"] = 1
    batch: Annotated[int, Range(1, 65536), "samples in one timed inference"] = 1
    host: Annotated[Literal["local", "imported"], "measured here, or on another device: then limits on latency and memory stay UNVERIFIED until its evidence is imported"] = "local"

    def __post_init__(self) -> None:
        validate(self, where="target")
