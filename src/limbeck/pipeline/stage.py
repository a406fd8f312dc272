"""One stage: technique, recovery, export, measurement, gate; tried gentler where the plan asks for that."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from limbeck.core.candidate import Candidate
from limbeck.core.errors import ArtifactError, StageError
from limbeck.core.evidence import Latency, Status, Verdict, worst
from limbeck.core.fields import parse, to_dict
from limbeck.core.plan import Stage
from limbeck.core.technique import Card
from limbeck.evaluation.environment import versions
from limbeck.evaluation.gates import Examined, Floor, stage_verdicts
from limbeck.mechanics.recover import recover
from limbeck.mechanics.watch import AHEAD, KEPT
from limbeck.pipeline import records
from limbeck.pipeline.examiner import Kept
from limbeck.pipeline.folder import Run
from limbeck.pipeline.store import digest, write


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A candidate that the run can go on from, or end with."""

    candidate: Candidate
    kept: Kept
    examined: Examined
    claims: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What came of a stage: where it led if anywhere, the verdicts, and why it failed if it broke."""

    stage: Stage
    status: Status
    verdicts: tuple[Verdict, ...]
    seconds: float
    standing: Standing | None = None
    error: str = ""
    tries: int = 1


def run_stage(run: Run, stage: Stage, card: Card, *, before: Standing, baseline: Standing, floor: Floor | None) -> StageResult:
    """Carry out one stage; a broken or refused candidate is a result, not an exception.

    Under on_fail = "refine" gentler configs follow, at most `refinements`; the error rate is shared among all tries.
    """
    config = parse(card.config, stage.config, where=f"{stage.title}.config")
    tries = 1 + (stage.refinements if stage.on_fail == "refine" and card.gentler else 0)
    confidence = 1 - (1 - run.request.contract.confidence) / tries
    result = None
    for number in range(1, tries + 1):
        result = _attempt(run, stage, card, config, before=before, baseline=baseline, floor=floor, confidence=confidence, number=number)
        config = card.gentler(config) if card.gentler else None
        if result.status is Status.PASS or config is None:
            break
    if result is None:
        raise StageError(f"{stage.title} was never tried. Give it at least one try.")
    return result


def _attempt(run: Run, stage: Stage, card: Card, config: Any, *, before: Standing, baseline: Standing, floor: Floor | None, confidence: float, number: int) -> StageResult:
    key = stage_key(run, stage, card, config, before.kept.candidate)
    run.log.event("stage", stage=stage.title, technique=card.name, attempt=number)
    try:
        _check_needs(card, before)
        with run.crashes.work(key, stage.title):
            candidate, claims, seconds = product(run, stage, card, config, before=before.kept.candidate, key=key)
            tell_of_teacher(run, stage.title, claims)
            kept = run.examiner.keep(candidate, stage.title)
            examined = examine_stage(run, stage, kept, before=before, baseline=baseline, confidence=confidence)
            timed_before = _timed_before(run, stage, kept, before, baseline)
    except (StageError, ArtifactError) as error:  # an artifact that brings its runtime down fails its stage, not the run
        curve = error.curve if isinstance(error, StageError) else ()
        run.journal.record("stage broke", stage=stage.title, key=key, attempt=number, error=str(error), curve=curve)
        run.log.event("stage broke", stage=stage.title, error=str(error))
        return StageResult(stage=stage, status=Status.FAIL, verdicts=(), seconds=0.0, error=str(error), tries=number)
    standing = Standing(candidate=candidate, kept=kept, claims=claims, examined=examined)
    verdicts = stage_verdicts(stage.gate, floor=floor, candidate=examined, before=timed_before, pays=card.pays, contract=run.request.contract)
    status = worst(verdicts) if verdicts else Status.PASS
    run.journal.record(
        "stage", stage=stage.title, key=key, attempt=number, candidate=kept.candidate, artifact=kept.mark, status=status, verdicts=[verdict_data(v) for v in verdicts]
    )
    run.log.event("gate", stage=stage.title, status=status, verdicts=[f"{v.gate}: {v.status} ({v.reason})" for v in verdicts])
    return StageResult(stage=stage, status=status, verdicts=verdicts, seconds=seconds, standing=standing, tries=number)


def tell_of_teacher(run: Run, title: str, claims: Mapping[str, Any]) -> None:
    """Write into the journal that a student passed its teacher, if a training of this stage ended so."""
    for name in ("history", "recovery"):
        ended = next((row for row in claims.get(name) or () if KEPT in row), {})
        if AHEAD in ended:
            figures = {k: ended[k] for k in ("epoch", "teacher", "validation", AHEAD)}
            run.journal.record("worse teacher", stage=title, training=name, metric=run.task.metric.name, **figures)


def _check_needs(card: Card, before: Standing) -> None:
    """What the order promised may not have come: a stage that gives a fact can be left out by its gate."""
    for fact in sorted(card.needs - before.candidate.facts):
        raise StageError(f"{card.name} needs '{fact}', which the candidate that the run stands at lacks: the stage that was to give it didn't pass. Mend that stage first.")


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data."""
    return {k: v for k, v in vars(verdict).items() if v is not None}


def stage_key(run: Run, stage: Stage, card: Card, config: Any, before: str) -> str:
    """All that a stage's product depends on; `before` is what it begins with. Its gate isn't part of it: a gate judges, it doesn't make."""
    return digest(
        {
            "candidate": before,
            "technique": [card.name, card.version],
            "config": to_dict(config),
            "recovery": to_dict(stage.recovery) if stage.recovery else None,
            "data": dict(run.fingerprints),
            "views": run.task.views.recipe() if run.task.views else None,
            "teacher": run.teacher_object,
            "versions": versions(),
            "seed": run.request.seed,
            "runtime": run.request.target.runtime,
        }
        | ({"models": run.other_objects} if run.other_objects else {})
    )


def product(run: Run, stage: Stage, card: Card, config: Any, *, before: str, key: str) -> tuple[Candidate, dict[str, Any], float]:
    """What the technique and its recovery make of the kept candidate `before`, and the seconds that it took; kept under the stage's key.

    A failure is never kept.
    """
    path = run.folder / "stages" / f"{key}.json"
    if path.exists():
        record = records.read_record(path)
        _end_checkpoints(run, key)  # a kill may have come between the record and this
        return run.store.get_candidate(record["candidate"], run.folder / "artifacts" / key[:16]), record["claims"], record["seconds"]
    start = time.monotonic()
    owned = run.store.get_candidate(before, run.folder / "scratch" / key[:16])
    outcome = card.function(owned, config, run.context(stage.title, key, "technique"))
    claims = dict(outcome.claims)
    candidate = outcome.candidate
    if stage.recovery and stage.recovery.training.epochs:
        candidate, history = recover(candidate, stage.recovery, run.context(stage.title, key, "recovery"))
        claims |= {"recovery": history, "recovery_training": to_dict(stage.recovery.training)}
    seconds = time.monotonic() - start
    record = {
        "key": key,
        "stage": stage.title,
        "technique": card.name,
        "config": to_dict(config),
        "candidate": run.store.put_candidate(candidate),
        "claims": claims,
        "seconds": seconds,
    }
    write(path, records.record(record))
    _end_checkpoints(run, key)
    return candidate, claims, seconds


def _end_checkpoints(run: Run, key: str) -> None:
    for scope in ("technique", "recovery"):
        run.checkpoint(key, scope).path.unlink(missing_ok=True)


def examine_stage(run: Run, stage: Stage, kept: Kept, *, before: Standing, baseline: Standing, confidence: float) -> Examined:
    """The artifact on validation, against the baseline; timed unless the gate looks at bytes alone."""
    latency = _turns(run, kept, before, baseline)[-1] if stage.gate.pays != "bytes" else None
    return run.examiner.examined(kept, split="validation", latency=latency, baseline=baseline.kept, confidence=confidence)


def _turns(run: Run, kept: Kept, before: Standing, baseline: Standing) -> list[Latency]:
    """Baseline, input and output timed in turn (the input once, where it is the baseline)."""
    first = [baseline.kept] if before.kept.mark == baseline.kept.mark else [baseline.kept, before.kept]
    return run.examiner.latencies([*first, kept])


def _timed_before(run: Run, stage: Stage, kept: Kept, before: Standing, baseline: Standing) -> Examined:
    """The stage's input with the latency that was taken in turn with its output."""
    if stage.gate.pays == "bytes":
        return before.examined
    return replace(before.examined, latency=_turns(run, kept, before, baseline)[-2])
