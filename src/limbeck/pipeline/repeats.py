"""One plan under several seeds, side by side: what each run came to on test beside its control, and how far the difference may be chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from limbeck.core.metric import Metric, Rows
from limbeck.pipeline import chapters, flips
from limbeck.pipeline.reading import Past, opened
from limbeck.stats.seeds import mean_and_spread, over_seeds

CONFIDENCE = 0.95  # of both bounds together
NO_PAIR = "no run has both a final candidate and a control, so nothing can be compared: "


def side_by_side(folders: Sequence[Path], metric: Metric) -> dict[str, Any]:
    """These runs, finished, as one table: figures of test as each run judged them, and validation epoch by epoch as it was kept.

    difference: how much better the final is than its control, in the metric's unit; see `stats.seeds.over_seeds`. What is best on test
    is never looked for: a training ends with its last epoch, or with the best on validation.
    """
    found = [(opened(folder), folder) for folder in folders]
    told = [_told(past, folder, metric) for past, folder in found]
    pairs = [pair for past, _ in found if (pair := _rows(past)) is not None]
    data: dict[str, Any] = {
        "schema": 1,
        "metric": {"name": metric.name, "direction": metric.direction},
        "runs": told,
        "final": _mean([one["final"] for one in told]),
        "control": _mean([one["control"] for one in told]),
        "difference": None,
        "difference_note": None,
        "test_looks": max(((past.summary or {}).get("test_looks") or 0 for past, _ in found), default=0),
        "exit_code": max((one["exit_code"] for one in told), default=0),
    }
    if not pairs:
        return data | {"difference_note": NO_PAIR + " ".join(dict.fromkeys(one["note"].rstrip(".") + "." for one in told if one["note"]))}
    spread = over_seeds([c for c, _ in pairs], [b for _, b in pairs], lambda c, b: metric.drop(metric.value(b), metric.value(c)), units=metric.unit, confidence=CONFIDENCE)
    note = None if len(pairs) > 1 else "of one seed: the interval is over samples alone, and says nothing of another seed"
    return data | {"difference": asdict(spread) | {"confidence": CONFIDENCE, "seeds": len(pairs)}, "difference_note": note}


def _mean(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = [v for v in values if v is not None]
    if not known:
        return None
    mean, spread = mean_and_spread(known)
    return {"mean": mean, "spread": spread, "seeds": len(known)}


def _told(past: Past, folder: Path, metric: Metric) -> dict[str, Any]:
    """One run: verdict, figures on test, and every training that led to them."""
    summary = past.summary or {}
    final, control = summary.get("final"), summary.get("control")
    refusal = summary.get("refusal") or {}
    return {
        "run": folder.name,
        "seed": summary.get("environment", {}).get("seed"),
        "verdict": summary.get("verdict"),
        "exit_code": summary.get("exit_code", 0),
        "baseline": summary["baseline"]["metric"]["value"] if final else None,
        "final": final["metric"]["value"] if final else None,
        "control": control["metric"]["value"] if control else None,
        "trainings": list(_trainings(summary, metric)),
        "note": refusal.get("reason") or (None if control else summary.get("control_note")),
    }


def _trainings(summary: Mapping[str, Any], metric: Metric) -> Iterator[dict[str, Any]]:
    """The metric on validation after the last epoch and after the best, of each training; `kept` is the epoch whose weights went on."""
    for name, claims in [(s["name"], s.get("claims") or {}) for s in summary.get("stages", ())] + [("control", (summary.get("control") or {}).get("claims") or {})]:
        for kind in ("history", "recovery"):
            rows = [row for row in claims.get(kind) or () if row.get("validation") is not None]
            if rows:
                best = min(rows, key=lambda r: metric.drop(r["validation"], 0.0))  # the first of equally good ones
                kept = next((r for r in rows if "kept" in r), rows[-1])
                shown = {name: {"epoch": int(row["epoch"]), "validation": row["validation"]} for name, row in (("last", rows[-1]), ("best", best), ("kept", kept))}
                yield {"stage": name, "training": "training" if kind == "history" else kind, "epochs": len(rows), **shown}


def _rows(past: Past) -> tuple[Rows, Rows] | None:
    """What final and control answered on test, as the run kept it."""
    summary = past.summary or {}
    if not (summary.get("final") and summary.get("control")):
        return None
    data = summary["environment"]["data"]
    marks = [chapters.mark_of(past, summary[name]["artifact"]) for name in ("final", "control")]
    final, control = (flips.kept_rows(past, mark or "", data["test"], data["code"]) for mark in marks)
    return (final, control) if final and control else None
