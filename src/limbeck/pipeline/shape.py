"""What `summary.json` must look like to be shown, as data. More keys are allowed: a later limbeck of the same schema may add some."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.core.errors import RunError

LARGEST = 2**63
WAY = "The file was changed, or isn't a summary: take it from a copy of the run, or delete it and run again."


@dataclass(frozen=True)
class Maybe:
    """A shape, or null."""

    shape: Any


@dataclass(frozen=True)
class Optional:
    """A shape, null, or no such key."""

    shape: Any


KEPT = {"value": float, "low": float, "kind": str}
METRIC = {"name": Maybe(str), "value": Maybe(float)}
MODEL: Mapping[str, Any] = {
    "metric": METRIC,
    "size_bytes": int,
    "download_bytes": int,
    "latency_ms": Maybe({"p50": Maybe(float), "p90": Maybe(float), "p99": Optional(float)}),
    "latency_interval_ms": Optional({name: Optional([Maybe(float)]) for name in ("p50", "p90", "p99")}),
    "latency_note": Optional(str),
    "peak_memory_bytes": Maybe(int),
    "parameters": Maybe(int),
    "macs": Maybe(int),
    "artifact": str,
    "runtime": str,
    "threads": int,
    "retention": Optional(KEPT),
    "claims": Optional({}),
}
SLICE = {"name": str, "samples": int, "baseline": Maybe(float), "candidate": Maybe(float), "retention": Maybe(KEPT), "note": str}
RELIABILITY = {
    "ece": float,
    "high": Maybe(float),
    "samples": int,
    "bins": [{"confidence": float, "accuracy": float, "count": int}],
    "histogram": Optional({"right": [int], "wrong": [int]}),
}
BEHAVIOUR = {
    "slices": [SLICE],
    "slices_note": str,
    "flips": Maybe({"samples": int, "lost": int, "won": int, "lost_share": float, "lost_high": float}),
    "calibration": Maybe({"candidate": RELIABILITY, "baseline": Maybe(RELIABILITY), "increase": Optional({"value": float, "high": float})}),
    "agreement": Maybe(float),
}
VERDICT = {"gate": str, "status": str, "reason": str, "limit": Optional(float), "measured": Optional(float)}
STAGE = {"name": str, "technique": str, "verdict": str, "verdicts": [VERDICT], "seconds": float, "tries": int, "error": Maybe(str), "claims": Optional({})}
HEAD = {"schema": int, "run": str, "verdict": ("PASS", "FAIL", "INCONCLUSIVE", "ANOMALOUS", "UNVERIFIED", "REFUSED"), "exit_code": int, "stages": [STAGE]}
REFUSED = {"refusal": {"reason": str, "fix": str}}
FINISHED = {
    "baseline": MODEL,
    "final": MODEL,
    "control": Maybe(MODEL),
    "control_note": Maybe(str),
    "retention": Maybe(KEPT),
    "behaviour": Optional(BEHAVIOUR),
    "studies": Optional({}),
    "ratios": {"size": float, "latency_p50": Maybe(float)},
    "contract": [VERDICT],
    "closest": Maybe({"stage": str, "violation": float}),
    "test_looks": int,
    "look": Optional({"number": int, "planned": Maybe(int), "confidence": float, "error_before": float, "samples": Maybe(int), "note": str}),
    "task": Optional({"name": str, "entry": Maybe(str), "run_file": Maybe(str)}),
    "golden": Optional(str),
    "chosen": Optional({"stage": str, "why": str}),
}
NAMES = {str: "text", int: "a whole number", float: "a number"}


def check_summary(data: Mapping[str, Any], *, where: str) -> None:
    """Raises RunError that names the first place where a summary isn't of this shape."""
    _check(data, HEAD, where)
    _check(data, REFUSED if data["verdict"] == "REFUSED" else FINISHED, where)
    for number, stage in enumerate(data["stages"]):
        if "size_bytes" in stage:  # a stage that broke has no figures
            _check(stage, MODEL, f"{where}.stages[{number}]")


def _check(value: Any, shape: Any, where: str) -> None:
    if isinstance(shape, (Maybe, Optional)):
        if value is not None:
            _check(value, shape.shape, where)
    elif isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(where, "a table", value)
        for key, inner in shape.items():
            if key not in value and not isinstance(inner, Optional):
                raise RunError(f"{where}.{key} is missing. {WAY}")
            _check(value.get(key), inner, f"{where}.{key}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        for number, entry in enumerate(value):
            _check(entry, shape[0], f"{where}[{number}]")
    elif isinstance(shape, tuple):
        if value not in shape:
            raise _wrong(where, f"one of {', '.join(shape)}", value)
    elif not _is(value, shape):
        raise _wrong(where, NAMES[shape], value)


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, str):
        return kind is str and not any("\ud800" <= c <= "\udfff" for c in value)  # half of a character can't be printed
    if isinstance(value, int):
        return kind is not str and -LARGEST < value < LARGEST
    return kind is float and isinstance(value, float) and math.isfinite(value)


def _wrong(where: str, rule: str, value: Any) -> RunError:
    return RunError(f"{where} must be {rule}, got {value if isinstance(value, float) else ascii(value)[:80]}. {WAY}")
