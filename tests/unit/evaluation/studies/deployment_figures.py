"""Figures of the studies columns, kernels and saturation, as they stand in summary.json."""

from __future__ import annotations

from typing import Any

Data = dict[str, Any]


def row(module: str, exported: float | None, deployed: float | None, *, stage: str = "", unit: str = "steps", grid: str = "") -> Data:
    away = {"exported": exported, "deployed": deployed, "travelled": deployed, "differing": 0.01}
    tolerance = 1.0 if unit == "steps" else 0.001
    return {"module": module, "operators": ["Conv", "QuantizeLinear"], "tensor": f"t_{module}", "unit": unit, "grid": grid, "tolerance": tolerance, "stage": stage, **away}


def columns(*rows: Data, first: Data | None = None, **changed: Any) -> Data:
    told = [{"name": n, "what": n, "metric": m} for n, m in (("fp32", 0.95), ("fp32_deployed", 0.95), ("simulated", 0.94), ("deployed", 0.93))]
    step = {
        "before": "simulated",
        "after": "deployed",
        "what": "deployment",
        "drop": 0.01,
        "low": -0.02,
        "high": 0.04,
        "method": "m",
        "agreement": 0.99,
        "max_abs": 0.25,
        "max_rel": 0.1,
    }
    rows = rows or (row("conv1", 0.0, 1.0), row("conv2", 0.0, 0.0))
    layers = {"samples": 8, "tolerance": {"steps": 1.0, "relative": 0.001}, "rows": list(rows), "first": first, "unmatched": 0, "same_kernels": True}
    whole = {"metric": "accuracy", "split": "test", "samples": 96, "whole": True, "outputs_samples": 64, "confidence": 0.95}
    return {**whole, "columns": told, "differences": [step], "layers": layers} | changed


def kernels(*, silent: bool = False) -> Data:
    kinds = [
        {"kind": k, "what": k, "kernels": n, "ms": ms, "share": ms}
        for k, n, ms in (("int8", 4, 0.6), ("float", 1, 0.3), ("convert", 2, 0.1), ("layout", 0, 0.0), ("other", 0, 0.0))
    ]
    one = {"name": "node_conv", "operator": "Conv", "kind": "float", "module": "conv1", "quantized": True, "ms": 0.3, "share": 0.3}
    weights = {"bytes": 1000, "integer_bytes": 900, "baseline_bytes": 4000, "saved_bytes": 3000, "saved_share": 0.75}
    told = {"finding": "67% of the time of kernels that compute is in int8", "warning": silent, "quantized": True, "int8_share": 0.67}
    more = {"silently_float": [one] if silent else [], "silently_float_share": 0.3 if silent else 0.0, "weights": weights}
    return {"runtime": "onnxruntime", "inferences": 150, "disturbed": False, "total_ms": 1.0, "kinds": kinds, "kernels": [one], **more, **told}


def saturation(*, risky: bool = True) -> Data:
    counts = {"risky_pairs": 7, "sums": 1000, "saturated": 42, "outputs": 500, "hit": 5} if risky else dict.fromkeys(("risky_pairs", "sums", "saturated", "outputs", "hit"), 0)
    layer = {"node": "node_conv", "module": "conv1", "operator": "QLinearConv", "pairs": 80, "neighbours": counts, "sorted": counts}
    runs = [{"mode": m, "what": m, "metric": v, "drop": 0.9 - v, "low": -0.01, "high": 0.2, "agreement": 0.95} for m, v in (("neighbours", 0.8), ("sorted", 0.7), ("seven", 0.9))]
    cpu = {"processor": "A CPU", "architecture": "x86_64", "vnni": True, "saturates": False}
    known = {"cpu": cpu, "products": 1, "not_emulated": [], "layers": [layer], "risky": risky, "agreement_here": {"exact": 1.0, "neighbours": 0.5}}
    judged = {"samples": 32, "metric": "accuracy", "measured": 0.9, "split": "test", "confidence": 0.95, "runs": runs if risky else []}
    return {**known, **judged, "finding": "42 sums of 1,000 saturate without VNNI" if risky else "no pair of its weights can saturate", "warning": risky}
