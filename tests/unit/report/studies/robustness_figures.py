"""Figures of the studies of corruption, of inputs outside and at the edge, as a summary has them; names hold markup."""

from __future__ import annotations

from typing import Any


def _point(strength: int, baseline: float | None, candidate: float | None, note: str = "") -> dict[str, Any]:
    both = baseline is not None and candidate is not None
    kept = {"value": candidate / baseline, "low": candidate / baseline - 0.1, "kind": "ratio"} if both else None
    intervals = {n: [v - 0.05, v + 0.04] for n, v in (("baseline", baseline), ("candidate", candidate)) if v is not None}
    return {"strength": strength, "samples": 40, "baseline": baseline, "candidate": candidate, "intervals": intervals, "retention": kept, "note": note}


SHIFT: dict[str, Any] = {
    "split": "test",
    "metric": "accuracy",
    "direction": "higher",
    "samples": 40,
    "distinct": 400,
    "confidence": 0.95,
    "assumed": "images CHW, black 0, white 1",
    "derived": True,
    "left_out": {"jpeg": "it needs pillow, which isn't installed: pip install pillow"},
    "clean": {"baseline": 0.9, "candidate": 0.88},
    "kinds": [
        {"name": "noise", "retention": {"value": 0.95, "low": 0.92, "kind": "ratio", "units": 400}, "points": [_point(s, 0.9 - 0.05 * s, 0.88 - 0.06 * s) for s in range(1, 6)]},
        {"name": "fog<b>", "retention": {"value": 0.75, "low": 0.7, "kind": "ratio", "units": 400}, "points": [_point(s, 0.8, 0.6, "odd <i>") for s in range(1, 6)]},
    ],
    "overall": {"value": 0.85, "low": 0.81, "kind": "ratio", "units": 400},
    "note": "",
}
ALONE: dict[str, Any] = SHIFT | {
    "clean": {"candidate": None},
    "left_out": {},
    "kinds": [{"name": "noise", "retention": None, "points": [_point(s, None, 0.8) for s in range(1, 6)]}],
    "overall": None,
    "note": "there is no baseline to compare with",
}


def _side(mean: float, area: float) -> dict[str, Any]:
    return {"mean": mean, "histogram": [0, 3, 5, 2], "auroc": {"value": area, "low": area - 0.1, "high": area + 0.1}}


OUTSIDE: dict[str, Any] = {
    "split": "test",
    "confidence": 0.95,
    "samples": 10,
    "inside": {"baseline": {"mean": 0.9, "histogram": [0, 1, 2, 7]}, "candidate": {"mean": 0.85, "histogram": [1, 1, 1, 7]}},
    "sets": [
        {
            "name": "other<b>",
            "made": False,
            "samples": 10,
            "baseline": _side(0.5, 0.9),
            "candidate": _side(0.7, 0.6),
            "auroc_change": {"value": -0.3, "low": -0.4, "high": -0.2},
            "surer": {"value": 0.2, "low": 0.1, "high": 0.3, "which": "candidate"},
        },
        {
            "name": "noise",
            "made": True,
            "samples": 10,
            "baseline": _side(0.6, 0.8),
            "candidate": _side(0.59, 0.8),
            "auroc_change": {"value": 0.0, "low": -0.1, "high": 0.1},
            "surer": {"value": -0.01, "low": -0.05, "high": 0.03, "which": None},
        },
    ],
}


def _case(name: str, word: str, red: bool, baseline: str | None, note: str = "") -> dict[str, Any]:
    return {"name": name, "what": f"what {name} is", "word": word, "red": red, "baseline": baseline, "distance": 0.5, "times_ordinary": 50.0, "argmax": 0.5, "note": note}


EDGES: dict[str, Any] = {
    "source": "samples",
    "ordinary": {"samples": 8, "distance": 0.01, "argmax": 1.0},
    "cases": [_case("all zero", "ok", False, "ok"), _case("10 × range", "crashed", True, "ok", "model<b>.onnx: SIGFPE"), _case("+ infinity", "not finite", False, "not finite")],
    "red": 1,
}
