"""How near the outputs of two artifacts are on the same inputs, output by output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from limbeck.evaluation.feeds import Fed
from limbeck.runtimes import parity
from limbeck.runtimes.card import Session

Arrays = Mapping[str, np.ndarray]


def likeness(first: Session, second: Session, fed: Fed) -> tuple[dict[str, Any] | None, list[str]]:
    """The greatest differences and the share of rows with the same argmax, over all inputs; and what is to be said of the outputs.

    Outputs are matched by name, those that are left in order; only numbers of one shape are compared. None where nothing is.
    """
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    notes: dict[str, None] = {}
    for feed in fed.others():
        a, b = first(feed), second(feed)
        for one, other in matched(a, b):
            if a[one].shape != b[other].shape:
                notes[f"outputs can't be compared: {_shown(one, a[one])} in the baseline and {_shown(other, b[other])} in the candidate"] = None
            elif a[one].dtype.kind in "iufb" and b[other].dtype.kind in "iufb":
                found.setdefault((one, other), []).append(_pair(a[one], b[other]))
        for missing, side in ((len(a) - len(b), "candidate"), (len(b) - len(a), "baseline")):
            if missing > 0:
                notes[f"the {side} gives {missing} fewer outputs"] = None
    if not found:
        return None, list(notes)
    outputs = [{"name": one, "other": other, **_whole(pairs)} for (one, other), pairs in found.items()]
    whole = _whole([pair for pairs in found.values() for pair in pairs])
    if whole["max_abs"] is None:
        notes["one of the two gives NaN or infinity where the other doesn't"] = None
    return {**whole, "inputs": fed.compared_on, "outputs": outputs}, list(notes)


def matched(a: Arrays, b: Arrays) -> list[tuple[str, str]]:
    """Which output of the first answers to which of the second: by name, then what is left in order."""
    same = [(name, name) for name in a if name in b]
    return [*same, *zip((n for n in a if n not in b), (n for n in b if n not in a), strict=False)]


def _shown(name: str, value: np.ndarray) -> str:
    return f"'{name}' {list(value.shape)}"


def _pair(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    known = parity({"": a}, {"": b})
    rows = math.prod(a.shape[:-1]) if known["argmax_agreement"] is not None else 0
    return {"max_abs": known["max_abs"] or 0.0, "max_rel": known["max_rel"] or 0.0, "rows": rows, "same": (known["argmax_agreement"] or 0.0) * rows}


def _whole(pairs: list[dict[str, float]]) -> dict[str, float | None]:
    rows = sum(p["rows"] for p in pairs)
    most = {key: max(p[key] for p in pairs) for key in ("max_abs", "max_rel")}
    return {**{k: v if math.isfinite(v) else None for k, v in most.items()}, "argmax_agreement": sum(p["same"] for p in pairs) / rows if rows else None}
