"""Structure first: latency and bytes depend on shapes, so the plan's last shape is built untrained, exported and timed before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from limbeck.core.contract import RESOURCES, Contract
from limbeck.core.errors import Refusal, StageError
from limbeck.core.evidence import Status
from limbeck.core.fields import parse, to_dict
from limbeck.core.plan import Plan
from limbeck.core.technique import Card
from limbeck.evaluation.environment import versions
from limbeck.evaluation.gates import Examined, contract_verdicts
from limbeck.pipeline.folder import Run
from limbeck.pipeline.stage import Standing
from limbeck.pipeline.store import digest

TIMED = ("latency_p50_ms", "latency_p90_ms", "speedup_p50")
DEVICE = (*TIMED, "peak_memory_bytes")  # what only the device itself can tell
MARGIN = 1.05  # what a relaxation is offered above the floor


def infeasible(run: Run, plan: Plan, cards: Mapping[str, Card], baseline: Standing) -> Refusal | None:
    """Why the plan's shapes can't keep the contract's limits on resources, in seconds and before any training; None if they can."""
    elsewhere = DEVICE if run.request.target.host == "imported" else ()
    limits = {k: v for k, v in run.request.contract.limits().items() if k in RESOURCES and k not in elsewhere}
    if not limits or not plan.stages:
        return None
    key = {"plan": to_dict(plan), "limits": limits, "teacher": baseline.kept.candidate, "target": to_dict(run.request.target), "versions": versions(), "seed": run.request.seed}
    verdicts = run.examiner.recorded("twin", key, lambda: _verdicts(run, plan, cards, baseline, limits))
    run.journal.record("twin", verdicts=verdicts)
    broken = [v for v in verdicts if v["status"] == Status.FAIL]
    return _refusal(run, plan, broken) if broken else None


def _verdicts(run: Run, plan: Plan, cards: Mapping[str, Card], baseline: Standing, limits: Mapping[str, float]) -> list[dict[str, Any]]:
    """Each limit, answered by the twin; none if the plan's techniques can't work on untrained weights."""
    try:
        examined, timed_baseline = _twin(run, plan, cards, baseline, timed=any(k in limits for k in TIMED), memory="peak_memory_bytes" in limits)
    except StageError as error:
        run.log.event("no twin", reason=str(error))
        return []
    contract = Contract(**limits, confidence=run.request.contract.confidence)  # type: ignore[arg-type]
    verdicts = contract_verdicts(contract, None, candidate=examined, baseline=timed_baseline)
    return [{"gate": v.gate, "status": str(v.status), "measured": v.measured, "limit": v.limit} for v in verdicts]


def _twin(run: Run, plan: Plan, cards: Mapping[str, Card], baseline: Standing, *, timed: bool, memory: bool) -> tuple[Examined, Examined]:
    """Every technique of the plan without training, one after the other; the last artifact beside the baseline."""
    candidate = run.store.get_candidate(baseline.kept.candidate, run.folder / "scratch" / "twin")
    for number, stage in enumerate(plan.stages):
        card = cards[stage.technique]
        config = parse(card.config, stage.config, where=f"{stage.title}.config")
        candidate = card.function(candidate, config, run.context(stage.title, digest(["twin", number]), "technique", train=False)).candidate
    kept = run.examiner.keep(candidate, "the untrained twin")
    latencies = run.examiner.latencies([baseline.kept, kept]) if timed else [None, None]
    examined = run.examiner.examined(kept, split="validation", latency=latencies[1], memory=memory)
    return examined, replace(baseline.examined, latency=latencies[0])


def _refusal(run: Run, plan: Plan, broken: list[dict[str, Any]]) -> Refusal:
    target = run.request.target
    way = " → ".join(s.title for s in plan.stages)
    where = f"on {target.runtime}, {target.threads} thread{'s' if target.threads > 1 else ''}"
    parts, fixes = [], []
    for v in broken:
        gate, floor = v["gate"], v["measured"] or 0.0
        parts.append(f"{gate} = {v['limit']:g} can't be met: the untrained twin of {way} measures {floor:.4g} {where}.")
        relaxed = floor / MARGIN if gate in ("speedup_p50", "size_ratio") else floor * MARGIN
        fixes.append(f"{gate} = {relaxed:.3g}")
    return Refusal(" ".join(parts) + " Nothing was trained.", f"Relax the contract to {' and '.join(fixes)}, or choose a smaller student or a stronger ratio.")
