"""`summary.json`: what people, CI and agents read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from limbeck.core.contract import Contract
from limbeck.core.errors import Refusal
from limbeck.core.evidence import Verdict, exit_code, worst
from limbeck.core.fields import to_dict
from limbeck.core.secrets import masked
from limbeck.evaluation import behaviour, environment
from limbeck.evaluation.gates import Examined
from limbeck.pipeline import imported
from limbeck.pipeline.folder import Run
from limbeck.pipeline.records import SUMMARY_SCHEMA, sealed
from limbeck.pipeline.stage import StageResult, verdict_data
from limbeck.pipeline.store import write


def finished(
    run: Run,
    *,
    baseline: Examined,
    final: Examined,
    control: Examined | None,
    why_no_control: str,
    control_claims: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    results: Sequence[StageResult],
    look: Mapping[str, Any],
    closest: dict[str, Any] | None,
    golden: str,
    chosen: dict[str, Any] | None,
) -> dict[str, Any]:
    """The summary of a run that came to its verdict, written."""
    status = worst(verdicts)
    data = _head(run) | {
        "verdict": str(status),
        "exit_code": exit_code(status),
        "baseline": baseline.evidence.summary(),
        "final": final.evidence.summary(),
        "control": control.evidence.summary() | {"retention": _retention(control), "claims": dict(control_claims)} if control else None,
        "control_note": why_no_control or None,
        "retention": _retention(final),
        "behaviour": behaviour.summary(final.behaviour) if final.behaviour else None,
        "studies": dict(final.studies),
        "ratios": {"size": baseline.evidence.size_bytes / final.evidence.size_bytes, "latency_p50": _ratio(baseline, final, "p50"), "latency_p90": _ratio(baseline, final, "p90")},
        "contract": [verdict_data(v) for v in verdicts],
        "stages": [stage_data(r) for r in results],
        "closest": closest,
        "test_looks": look["number"],
        "look": dict(look),
        "imported": imported.shown(run.store, run.journal.lines),
        "golden": golden,
        "chosen": chosen,
        "journal_head": run.journal.head,
    }
    return _written(run, data)


def refused(run: Run, refusal: Refusal) -> dict[str, Any]:
    """The summary of a run that was refused before anything was trained, written."""
    return _written(
        run, _head(run) | {"verdict": "REFUSED", "exit_code": 5, "refusal": {"reason": refusal.reason, "fix": refusal.fix}, "stages": [], "journal_head": run.journal.head}
    )


def stage_data(result: StageResult) -> dict[str, Any]:
    """One stage of the summary."""
    data: dict[str, Any] = {
        "name": result.stage.title,
        "technique": result.stage.technique,
        "verdict": str(result.status),
        "verdicts": [verdict_data(v) for v in result.verdicts],
        "seconds": round(result.seconds, 3),
        "tries": result.tries,
        "error": result.error or None,
    }
    if result.standing:
        evidence = result.standing.examined.evidence
        data |= evidence.summary() | {"retention": _retention(result.standing.examined), "claims": dict(result.standing.claims)}
    return data


def _ratio(baseline: Examined, final: Examined, percentile: str) -> float | None:
    slow, fast = ((e.evidence.latency_ms or {}).get(percentile) for e in (baseline, final))
    return slow / fast if slow and fast else None


def _retention(examined: Examined) -> dict[str, Any] | None:
    return asdict(examined.retention) if examined.retention else None


def _head(run: Run) -> dict[str, Any]:
    request = run.request
    contract: Contract = request.contract
    return {
        "schema": SUMMARY_SCHEMA,
        "run": request.name,
        "task": {"name": request.task.name, "entry": request.entry, "run_file": os.path.relpath(request.run_file, run.folder) if request.run_file else None},
        "environment": {
            "versions": environment.versions(),
            "machine": environment.machine(),
            "seed": request.seed,
            "data": dict(run.fingerprints),
            "variables": masked(request.variables),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "limits": contract.limits() | {"confidence": contract.confidence} | ({"looks": contract.looks} if contract.looks else {}),
        "target": to_dict(request.target),
        "plan": to_dict(request.plan),
    }


def _written(run: Run, data: dict[str, Any]) -> dict[str, Any]:
    raw = sealed(masked(data))
    write(run.folder / "summary.json", raw)
    return json.loads(raw)
