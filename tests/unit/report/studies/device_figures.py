"""Figures of the studies of a device, as a summary has them."""

from __future__ import annotations

from typing import Any


def start(total: float, low: float | None, high: float | None, *, disturbed: int = 0) -> dict[str, Any]:
    parts = {"process": total * 0.7, "import": total * 0.2, "load": total * 0.08, "first": total * 0.02}
    return {"starts_ms": [total] * 8, "total_ms": total, "low_ms": low, "high_ms": high, "parts_ms": parts, "steady_ms": 1.25, "disturbed": disturbed}


COLD_START: dict[str, Any] = {
    "models": {"baseline": start(400.0, 390.0, 410.0), "candidate": start(200.0, None, None, disturbed=2)},
    "confidence": 0.99,
    "page_cache": "warm",
    "page_cache_note": "that isn't permitted <here>",
}


def rate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value * 0.9, "high": value * 1.1, "rounds": 8}


def point(threads: int, batch: int, baseline: float | None, candidate: float | None) -> dict[str, Any]:
    both = baseline and candidate
    ratio = {"value": candidate / baseline, "low": 1.5, "high": 2.5} if both and baseline and candidate else None
    return {"threads": threads, "batch": batch, "baseline": rate(baseline) if baseline else None, "candidate": rate(candidate) if candidate else None, "ratio": ratio}


THROUGHPUT: dict[str, Any] = {
    "target": {"threads": 1, "batch": 1},
    "points": [point(1, 1, 1000, 2000), point(1, 2, 1500, None), point(2, 1, 1800, 3600)],
    "left_out": [{"threads": 2, "batch": 64, "why": "there was no time left <for> it"}],
    "fixed_batch": {"baseline": None, "candidate": 1},
    "confidence": 0.99,
    "disturbed": True,
}


def held(activations: int, *, planned: int | None, name: str) -> dict[str, Any]:
    return {
        "weights": {"bytes": 5_000_000, "how": "computed"},
        "activations": {"bytes": activations, "how": "computed", "at": [{"step": 2, "name": name, "operator": "Conv", "bytes": activations}], "inputs_bytes": 100},
        "planned": {"bytes": planned, "held_bytes": 2_000_000, "how": "planned"} if planned else None,
        "planned_why": "" if planned else "torch plans none ahead",
        "resident": {"bytes": 9_000_000, "loading_bytes": 7_000_000, "how": "measured"},
        "operators": 3,
        "course": [activations // 2, activations, 10],
    }


MEMORY: dict[str, Any] = {"batch": 4, "models": {"baseline": held(1_200_000, planned=1_500_000, name="<wide>"), "candidate": held(300_000, planned=None, name="narrow")}}


def model(mj: float) -> dict[str, Any]:
    parts = {"multiply_adds": mj / 2, "weights": mj / 4, "activations": mj / 4}
    return {"mj": mj, "low_mj": mj / 2, "high_mj": mj * 2, "parts_mj": parts, "macs": {"float32": 1000, "int8": 5000.0}, "weight_bytes": 1, "activation_bytes": 1, "uncounted": []}


MODELLED: dict[str, Any] = {
    "how": "modelled",
    "why": "there is no <counter>",
    "source": "Horowitz 2014",
    "left_out": "idle",
    "models": {"baseline": model(0.004), "candidate": model(0.001) | {"uncounted": ["Einsum"]}},
}
COUNTED: dict[str, Any] = {
    "how": "counted",
    "counters": ["package-0 (intel-rapl:0)"],
    "idle_watts": 12.34,
    "rounds": 8,
    "window_s": 0.1,
    "disturbed": True,
    "confidence": 0.99,
    "models": {"baseline": {"mj": 4.0, "low_mj": 3.5, "high_mj": 4.5, "with_idle_mj": 9.0}, "candidate": {"mj": 1.0, "low_mj": -0.1, "high_mj": 1.2, "with_idle_mj": 2.0}},
}
