"""Structure first: latency and bytes depend on shapes, so the plan's last shape is built untrained, exported and timed before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from limbeck.analysis.profile import Profile, profile
from limbeck.core.candidate import ArtifactForm, TorchForm
from limbeck.core.contract import RESOURCES, Contract
from limbeck.core.errors import ArtifactError, Refusal, StageError
from limbeck.core.evidence import Status
from limbeck.core.fields import parse, to_dict
from limbeck.core.plan import Plan
from limbeck.core.technique import Card
from limbeck.evaluation.environment import versions
from limbeck.evaluation.gates import LATENCIES, Examined, contract_verdicts
from limbeck.mechanics.build import runnable
from limbeck.mechanics.data import arguments, batch_of, predict
from limbeck.mechanics.signals import DENSE_LIMIT
from limbeck.pipeline.examiner import Kept
from limbeck.pipeline.folder import Run
from limbeck.pipeline.guard import Structure, needs, refusal, trainings_of
from limbeck.pipeline.stage import Standing
from limbeck.pipeline.store import digest

TIMED = (*LATENCIES, "speedup_p50")
DEVICE = (*TIMED, "peak_memory_bytes")  # what only the device itself can tell
HALF = 2  # bytes of an answer in the teacher's cache
MARGIN = 1.05  # what a relaxation is offered above the floor


def infeasible(run: Run, plan: Plan, cards: Mapping[str, Card], baseline: Standing) -> Refusal | None:
    """Why the plan's shapes can't keep the contract's limits on resources, or don't fit on this machine while they train.

    In seconds and before any training; None if all fits.
    """
    if not plan.stages:
        return None
    elsewhere = DEVICE if run.request.target.host == "imported" else ()
    limits = {k: v for k, v in run.request.contract.limits().items() if k in RESOURCES and k not in elsewhere}
    key = {"plan": to_dict(plan), "limits": limits, "teacher": baseline.kept.candidate, "target": to_dict(run.request.target), "versions": versions()}
    key |= {"data": dict(run.fingerprints), "seed": run.request.seed}
    try:
        with run.crashes.work("twin", "the untrained twin"):
            twin = run.examiner.recorded("twin", key, lambda: _twin(run, plan, cards, baseline, limits))
    except (ArtifactError, StageError) as error:  # never kept: a runtime that broke once may hold the next time
        run.journal.record("twin broke", error=str(error))
        run.log.event("no twin", reason=str(error))
        return None
    run.journal.record("twin", **twin)
    broken = [v for v in twin["verdicts"] if v["status"] == Status.FAIL]
    return _unmet(run, plan, broken) if broken else _too_large(run, plan, cards, twin)


def _twin(run: Run, plan: Plan, cards: Mapping[str, Card], baseline: Standing, limits: Mapping[str, float]) -> dict[str, Any]:
    """Every technique of the plan without training, one after the other: the teacher's structure and each stage's, the
    numbers in one of the teacher's answers, and the limits answered by the last stage.

    No structures and no verdicts if the plan's techniques can't work on untrained weights.
    """
    structures = [Structure.of(_profiled(run, run.teacher.form))]
    with torch.no_grad():
        answer = predict(run.task, runnable(run.teacher.form, run.task), batch_of(run.task, "train", [0]))
    candidate = run.store.get_candidate(baseline.kept.candidate, run.folder / "scratch" / "twin")
    try:
        for number, stage in enumerate(plan.stages):
            config = parse(cards[stage.technique].config, stage.config, where=f"{stage.title}.config")
            context = run.context(stage.title, digest(["twin", number]), "technique", train=False)
            candidate = cards[stage.technique].function(candidate, config, context).candidate
            structures.append(Structure.of(_profiled(run, candidate.form)) if isinstance(candidate.form, TorchForm) else structures[-1])
        kept = run.examiner.keep(candidate, "the untrained twin") if limits else None
    except StageError as error:
        run.log.event("no twin", reason=str(error))
        return {"structures": [], "answer_values": 0, "verdicts": []}
    values = sum(v.numel() for v in answer.values())
    return {"structures": [vars(s) for s in structures], "answer_values": values, "verdicts": _verdicts(run, baseline, kept, limits) if kept else []}


def _profiled(run: Run, form: TorchForm | ArtifactForm) -> Profile:
    return profile(runnable(form, run.task), *arguments(run.task, batch_of(run.task, "train", [0])))


def _verdicts(run: Run, baseline: Standing, kept: Kept, limits: Mapping[str, float]) -> list[dict[str, Any]]:
    timed = any(k in limits for k in TIMED)
    latencies = run.examiner.latencies([baseline.kept, kept], limits) if timed else [None, None]
    evidence = run.examiner.evidence(kept, latency=latencies[1], memory="peak_memory_bytes" in limits)  # what untrained weights answer says nothing
    examined = Examined(evidence=evidence, latency=latencies[1])
    contract = Contract(**limits, confidence=run.request.contract.confidence)  # type: ignore[arg-type]
    verdicts = contract_verdicts(contract, None, candidate=examined, baseline=replace(baseline.examined, latency=latencies[0]))
    return [{"gate": v.gate, "status": str(v.status), "measured": v.measured, "limit": v.limit} for v in verdicts]


def _too_large(run: Run, plan: Plan, cards: Mapping[str, Card], twin: Mapping[str, Any]) -> Refusal | None:
    """Why a stage doesn't fit into this machine's memory or disk, by the twin's structures; None if all do, or nothing is known."""
    if not twin["structures"]:
        return None
    teacher, *structures = (Structure(**x) for x in twin["structures"])
    views = run.task.views.versions if run.task.views else 1
    answers = HALF * twin["answer_values"] * views * len(run.task.split("train"))
    answers = answers if twin["answer_values"] <= DENSE_LIMIT and answers <= run.request.cache_bytes else 0  # else chosen by what the disk has room for
    wanted = []
    for stage, structure in zip(plan.stages, structures, strict=True):
        trainings = trainings_of(stage, parse(cards[stage.technique].config, stage.config, where=f"{stage.title}.config"))
        longest = max(trainings, key=lambda t: t.batch_size, default=None)
        wanted.append((stage, needs(structure, longest, teacher=teacher, answers_bytes=answers)))
    return refusal(wanted, run.folder)


def _unmet(run: Run, plan: Plan, broken: list[dict[str, Any]]) -> Refusal:
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
