"""What changed between two runs, or between two stages: plan, config, edits of the blueprint, evidence, verdicts, environment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError
from limbeck.pipeline.reading import Past, Product, opened

CONFIG = ("contract", "target", "seed", "data", "teacher", "preprocess")  # what a run is asked for, apart from its plan


@dataclass(frozen=True)
class _Side:
    """One of the two: a run, and which of its candidates speaks for it."""

    name: str
    run: Past
    product: Product | None

    @property
    def asked(self) -> Mapping[str, Any]:
        return next((x["data"] for x in reversed(self.run.lines) if x["event"] == "run"), {})

    @property
    def blueprint(self) -> Mapping[str, Any] | None:
        if self.product is None:
            return None
        return self.run.store.get_json(self.product.candidate)["form"].get("blueprint")

    @property
    def evidence(self) -> dict[str, Any]:
        """The summary's figures of this candidate; where it has none, those of its export."""
        if self.product is None:
            return {}
        summary = (self.run.summary or {}) if self.run.finished else {}
        place = f"artifacts/{self.product.mark[:16]}/"
        models = [(summary.get("final") or {}) | {"retention": summary.get("retention")}, *summary.get("stages", ())]
        whole = "@" not in self.name
        for model in models if whole else models[1:]:
            if str(model.get("artifact", "")).startswith(place):
                return dict(model)
        export = self.run.exports.get(self.product.mark, {})
        files = (export.get("artifact") or {}).get("files", {})
        return {"size_bytes": sum(self.run.store.path(sha).stat().st_size for sha in files.values()), "parameters": export.get("parameters"), "macs": export.get("macs")}

    @property
    def verdicts(self) -> dict[str, Any]:
        """By gate: the status of a stage's gates, or of the run's contract."""
        if "@" in self.name:
            mine = [x["data"] for x in self.run.lines if x["event"] == "stage" and self.product and x["data"].get("key") == self.product.key]
            found, whole = (mine[-1].get("verdicts", ()), mine[-1].get("status")) if mine else ((), None)
        else:
            found, whole = (self.run.summary or {}).get("contract", ()), self.run.state
        return {"all": whole, **{v["gate"]: v["status"] for v in found}}


def diff(a: str, b: str) -> dict[str, Any]:
    """What changed from `a` to `b`; each is a run folder, or RUN@STAGE (a title, "baseline", or the first digits of a stage's key).

    A run is spoken for by its final candidate; one under way, by the last that passed. Equal things are left out, evidence aside.

    Raises: ConfigError for what isn't a run or has no such stage; RunError for a run that was changed.
    """
    first, second = _side(a), _side(b)
    rows = _evidence(first.evidence, second.evidence)
    environments = [(s.run.summary or {}).get("environment", {}) for s in (first, second)]
    return {
        "schema": 1,
        "a": _named(first),
        "b": _named(second),
        "plan": changes(first.asked.get("plan", {}), second.asked.get("plan", {})),
        "config": _changed([s.asked for s in (first, second)], CONFIG),
        "edits": _edits(first, second),
        "evidence": rows,
        "verdicts": changes(first.verdicts, second.verdicts),
        "environment": _changed(environments, ("versions", "machine")),
        "notes": _notes(first, second, rows, environments),
    }


def _side(text: str) -> _Side:
    folder, _, stage = text.rpartition("@")
    if Path(text).is_dir() or not folder:
        run = opened(Path(text))
        return _Side(Path(text).name, run, run.last)
    if not stage:
        raise ConfigError(f"{text} names no stage. Write it as {folder}@prune, or {folder} for the whole run.")
    run = opened(Path(folder))
    return _Side(f"{Path(folder).name}@{stage}", run, run.product(stage))


def _named(side: _Side) -> dict[str, Any]:
    product = side.product
    return {
        "name": side.name,
        "folder": str(side.run.folder),
        "state": side.run.state,
        "stage": product.stage if product else None,
        "candidate": product.candidate if product else None,
        "artifact": product.mark if product else None,
    }


def _changed(pair: list[Mapping[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    a, b = ({k: data.get(k) for k in names} for data in pair)
    return changes(a, b)


def changes(a: Any, b: Any, path: str = "") -> list[dict[str, Any]]:
    """The places in which two pieces of plain data differ, as `stages[1].config.ratio`; None where one has no such place."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [c for k in sorted({*a, *b}) for c in changes(a.get(k), b.get(k), f"{path}.{k}" if path else k)]
    if isinstance(a, list) and isinstance(b, list):
        pairs = ((a[i] if i < len(a) else None, b[i] if i < len(b) else None) for i in range(max(len(a), len(b))))
        return [c for i, (x, y) in enumerate(pairs) for c in changes(x, y, f"{path}[{i}]")]
    return [] if a == b else [{"what": path, "a": a, "b": b}]


def _edits(first: _Side, second: _Side) -> dict[str, Any]:
    """Counts of the blueprints' edits by kind and by module; the base where it differs."""
    prints = [s.blueprint for s in (first, second)]
    if None in prints:
        return {"base": [], "kinds": [], "modules": [], "equal": None}
    (a, b), (base_a, base_b) = ([p[name] for p in prints if p] for name in ("edits", "base"))
    return {"base": changes(base_a, base_b), "kinds": _counts(a, b, "edit"), "modules": [r for r in _counts(a, b, "module") if not r["equal"]], "equal": a == b}


def _counts(a: list[Mapping[str, Any]], b: list[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """How many edits have each kind (or module) on either side, and whether they are the same ones."""
    first, second = defaultdict(list), defaultdict(list)
    for edits, groups in ((a, first), (b, second)):
        for edit in edits:
            groups[str(edit.get(name, ""))].append(edit)
    return [{"name": k, "a": len(first[k]), "b": len(second[k]), "equal": first[k] == second[k]} for k in sorted({*first, *second})]


def _evidence(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a figure that either has: both values, and b / a where both are above 0."""
    first, second = _figures(a), _figures(b)
    rows = []
    for name in first:
        x, y = first[name], second[name]
        if x is not None or y is not None:
            rows.append({"name": name, "a": x, "b": y, "ratio": y / x if isinstance(x, int | float) and isinstance(y, int | float) and x > 0 and y > 0 else None})
    return rows


def _figures(e: Mapping[str, Any]) -> dict[str, Any]:
    metric, retention, latency = e.get("metric") or {}, e.get("retention") or {}, e.get("latency_ms") or {}
    return {
        "split": retention.get("split"),
        "metric": metric.get("value"),
        "retention": retention.get("value"),
        "retention_bound": retention.get("low"),
        **{k: e.get(k) for k in ("size_bytes", "download_bytes")},
        "latency_p50_ms": latency.get("p50"),
        "latency_p90_ms": latency.get("p90"),
        **{k: e.get(k) for k in ("peak_memory_bytes", "parameters", "macs")},
    }


def _notes(first: _Side, second: _Side, rows: list[dict[str, Any]], environments: list[Mapping[str, Any]]) -> list[str]:
    """What keeps the figures of the two from being compared."""
    notes, names = [], {r["name"]: r for r in rows}
    if "split" in names and names["split"]["a"] != names["split"]["b"]:
        notes.append("the metrics are of different splits, so their difference says little")
    if first.asked.get("data") != second.asked.get("data"):
        notes.append("the runs saw different data or code: metrics can't be compared")
    if environments[0].get("machine") != environments[1].get("machine"):
        notes.append("the runs were measured on different machines: latencies can't be compared")
    elif "latency_p50_ms" in names and names["latency_p50_ms"]["a"] != names["latency_p50_ms"]["b"] and first.run.folder != second.run.folder:
        notes.append("latencies were not timed in turn; `limbeck compare` judges two artifacts side by side")
    return notes
