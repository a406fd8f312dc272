"""The limits that the deployed artifact must keep, and where it will run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Hint, Range, Unit, fields_of, to_dict, validate

TOO_GOOD = 1.05  # a lower bound of retention above this is an anomaly, not a success: nobody can promise more
SUREST = 0.9999  # of one verdict: farther out the bound of a bootstrap is extrapolated, and proves nothing
FRACTION = Hint("It is a fraction; for 97 % write 0.97.")
EACH = Hint('It holds a number for each slice that is named, as in { "night" = 0.95 }.')
PERCENT = Unit((("%", "0.01"),), "97 %")
BYTES = Unit((("B", "1"), ("kB", "1000"), ("MB", "1000000"), ("GB", "1000000000"), ("KiB", "1024"), ("MiB", "1048576"), ("GiB", "1073741824")), "5 MB")
SETTINGS = ("confidence", "looks")  # how limits are judged; they limit nothing themselves
PERCENTILES = {"latency_p50_ms": "median", "latency_p90_ms": "90th percentile", "latency_p99_ms": "99th percentile"}
MILLIJOULES = Unit((("mJ", "1"), ("J", "1000"), ("uJ", "0.001"), ("µJ", "0.001")), "5 mJ")
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
    slice_retention: Annotated[
        Mapping[str, float] | None, Range(0, TOO_GOOD), EACH, PERCENT, "by name of a slice: retention within it is at least this; corrected for their number (Holm)"
    ] = None
    worst_slice_retention: Annotated[float | None, Range(0, TOO_GOOD), FRACTION, PERCENT, "retention within every slice of the task is at least this (Holm)"] = None
    slice_drop: Annotated[Mapping[str, float] | None, Range(0, None), EACH, "by name of a slice: the metric within it is worse by at most this (Holm)"] = None
    worst_slice_drop: Annotated[float | None, Range(0, None), "within every slice of the task the metric is worse by at most this (Holm)"] = None
    max_flips: Annotated[float | None, Range(0, 1), FRACTION, PERCENT, "share of all samples that the baseline has right and the candidate wrong, at most"] = None
    max_ece: Annotated[float | None, Range(0, 1), FRACTION, PERCENT, "expected calibration error of the candidate, at most"] = None
    max_ece_increase: Annotated[float | None, Range(0, 1), FRACTION, PERCENT, "expected calibration error of the candidate less the baseline's on the same samples, at most"] = None
    corruption_retention: Annotated[
        float | None, Range(0, TOO_GOOD), FRACTION, PERCENT, "retention under corruption of the samples, over all kinds and strengths together, is at least this"
    ] = None
    size_bytes: Annotated[int | None, Range(0, None, closed="neither"), BYTES, "bytes of the artifact, at most"] = None
    size_ratio: Annotated[float | None, Range(0, None, closed="neither"), "baseline bytes / candidate bytes, at least"] = None
    download_bytes: Annotated[int | None, Range(0, None, closed="neither"), BYTES, "bytes of the compressed artifact, at most"] = None
    latency_p50_ms: Annotated[float | None, Range(0, None, closed="neither"), MILLISECONDS, "median milliseconds of one batch, at most"] = None
    latency_p90_ms: Annotated[float | None, Range(0, None, closed="neither"), MILLISECONDS, "90th percentile of milliseconds of one batch, at most"] = None
    latency_p99_ms: Annotated[float | None, Range(0, None, closed="neither"), MILLISECONDS, "99th percentile of milliseconds of one batch, at most"] = None
    speedup_p50: Annotated[float | None, Range(0, None, closed="neither"), "baseline / candidate median latency, at least"] = None
    peak_memory_bytes: Annotated[int | None, Range(0, None, closed="neither"), BYTES, "resident bytes above an empty session, at most"] = None
    cold_start_ms: Annotated[float | None, Range(0, None, closed="neither"), MILLISECONDS, "median milliseconds from the making of a process to its first answer, at most"] = None
    samples_per_second: Annotated[float | None, Range(0, None, closed="neither"), "samples a second at the target's batch and threads, at least"] = None
    energy_mj: Annotated[float | None, Range(0, None, closed="neither"), MILLIJOULES, "millijoules a sample above idle, by a counter of the processor, at most"] = None
    confidence: Annotated[float, Range(0.5, 1, closed="neither"), FRACTION, PERCENT, "one-sided confidence of the limits on quality"] = 0.95
    looks: Annotated[int | None, Range(1, 3), "planned at the test split, this contract's first among them: all verdicts on quality together then hold at the confidence"] = None

    def __post_init__(self) -> None:
        validate(self, where="contract")
        if not self.limits():
            raise ConfigError("contract must limit something, got no limit at all. Say at least what must be kept, as in retention = 0.97.", path=("contract",))
        if self.at_each_look > SUREST:
            share = f"over {self.looks} looks that is {self.at_each_look:.10g} at each" if self.looks else "so far out the bound of a bootstrap is extrapolated"
            raise ConfigError(
                f"contract.confidence must be at most {SUREST} at each look, got {self.confidence}: {share}. Ask for less, as in 0.999.", path=("contract", "confidence")
            )
        rising = [(name, value) for name, value in self.limits().items() if name.startswith("latency_")]
        for (lower, at_lower), (upper, at_upper) in pairwise(rising):
            if at_upper < at_lower:
                raise ConfigError(
                    f"contract.{lower} must be at most {upper} ({at_upper:g}), got {at_lower:g}. "
                    f"No {PERCENTILES[lower]} lies above the {PERCENTILES[upper]}, so it would limit nothing: swap them, or leave it out.",
                    path=("contract", lower),
                )

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name; one on a slice as `slice_retention.night`."""
        return {k: v for k, v in flat(to_dict(self)).items() if k not in SETTINGS}

    @property
    def at_each_look(self) -> float:
        """The confidence of one verdict on test: where looks are planned, that with which all of them hold at `confidence` (Bonferroni)."""
        return 1 - (1 - self.confidence) / (self.looks or 1)


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a contract with a table's entries by name, as `slice_retention.night`; those that are None left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{slice_}": limit for slice_, limit in value.items()}
        elif value is not None:
            found[name] = value
    return found


QUALITY = (
    *("retention", "metric", "max_drop", "slice_retention", "worst_slice_retention"),
    *("slice_drop", "worst_slice_drop", "max_flips", "max_ece", "max_ece_increase", "corruption_retention"),
)
RESOURCES = tuple(f.name for f in fields_of(Contract) if f.name not in (*QUALITY, *SETTINGS))


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the artifact runs: runtime and device."""

    runtime: Annotated[str, "what loads the artifact"] = "onnxruntime"
    threads: Annotated[int, Range(1, 1024), "threads that one inference may use"] = 1
    batch: Annotated[int, Range(1, 65536), "samples in one timed inference"] = 1
    host: Annotated[Literal["local", "imported"], "measured here, or on another device: then limits on latency and memory stay UNVERIFIED until its evidence is imported"] = "local"

    def __post_init__(self) -> None:
        validate(self, where="target")
