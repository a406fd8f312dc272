"""A plan carried out: baseline, twin, stages, and the contract in one look at test. The only code that writes a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from typing import Any

from torch.utils.data import Subset

from limbeck.core.contract import Contract
from limbeck.core.errors import ArtifactError, Interrupted, Refusal, RunError
from limbeck.core.evidence import Status, worst
from limbeck.core.fields import parse, to_dict
from limbeck.core.files import disk
from limbeck.core.foreign import users_code
from limbeck.core.plan import Stage, illegal
from limbeck.core.task import Task
from limbeck.core.technique import Card, Log
from limbeck.evaluation import slices, spending, studies
from limbeck.evaluation.gates import Examined, Floor, contract_verdicts, violation
from limbeck.intake.answers import check_answers, check_labels_for
from limbeck.intake.checks import check
from limbeck.intake.code import task_identity
from limbeck.intake.preprocess import preprocess_data
from limbeck.mechanics.build import runnable, teacher_candidate
from limbeck.pipeline import imported, summary, suspicion
from limbeck.pipeline.control import Control, run_control
from limbeck.pipeline.crash import Crashes
from limbeck.pipeline.examiner import Examiner
from limbeck.pipeline.folder import Request, Run, held
from limbeck.pipeline.guard import Watch
from limbeck.pipeline.journal import Journal
from limbeck.pipeline.leaving import Leaving
from limbeck.pipeline.looks import count_look, looked
from limbeck.pipeline.recipes import with_recipes_expanded
from limbeck.pipeline.records import record
from limbeck.pipeline.stage import StageResult, Standing, run_stage
from limbeck.pipeline.store import Store, digest, write
from limbeck.pipeline.twin import infeasible
from limbeck.runtimes import installed
from limbeck.techniques import card


def carry_out(request: Request, *, log: Log, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Carry out a request, from where it stands; the summary that was written.

    Raises: TaskError, ConfigError, RunError for what the user can mend; Interrupted when `stop` says so.
    """
    request = replace(request, plan=with_recipes_expanded(request.plan, request.task))
    with opened(request, log=log, stop=stop) as run:
        return _walk(run, {s.technique: card(s.technique) for s in request.plan.stages})


@contextmanager
def opened(request: Request, *, log: Log, stop: Callable[[], bool] = lambda: False) -> Iterator[Run]:
    """The folder of a request whose task and plan were checked, held and watched while the block runs. Raises: as `carry_out`."""
    installed(request.target.runtime)
    for stage in request.plan.stages:
        parse(card(stage.technique).config, stage.config, where=f"{stage.title}.config")
    with Leaving(stop)("the checks of the task"):
        slices.check_named(request.task, request.contract)
        task, fingerprints = _checked(request.task, log)
        teacher = teacher_candidate(task)
        preprocess_data(task)
        check_answers(task, runnable(teacher.form, task))
        check_labels_for(task, request.plan.stages)
    with held(request.root, request.name) as folder:
        store, watch = Store(folder), Watch(stop, folder)
        examiner = Examiner(folder, store, task, request.target, fingerprints, log, seconds=request.timing_seconds, confidence=request.contract.confidence, stop=watch)
        run = Run(
            request=request,
            task=task,
            fingerprints=fingerprints,
            folder=folder,
            store=store,
            journal=Journal(folder / "journal.jsonl"),
            examiner=examiner,
            teacher=teacher,
            log=log,
            stop=watch,
            crashes=Crashes(folder),
        )
        try:
            with disk(folder), run.crashes.watched():
                yield run
        except ArtifactError as error:  # of the baseline or the final: without them there is no verdict
            run.journal.record("broke", error=str(error))
            raise
        except Interrupted as error:
            if watch.reason:
                raise RunError(f"{watch.reason}. What was done is on disk; run the same command again to go on.") from error
            raise
        finally:
            examiner.close()


def _checked(task: Task, log: Log) -> tuple[Task, dict[str, str]]:
    """The task after intake's checks, without the training samples that also stand in another split."""
    for name in ("train", "validation", "test"):
        task.split(name)
    log.progress(0, 0, "reading the data")
    with users_code(f"task '{task.name}': its data", always=True):
        found = check(task)
    for note in found.notes:
        log.event("note", text=note)
    if found.dropped:
        left = [i for i in range(len(task.split("train"))) if i not in set(found.dropped)]
        task = replace(task, splits={**task.splits, "train": Subset(task.split("train"), left)})
    return task, {**found.fingerprints, "code": task_identity(task)}


def _walk(run: Run, cards: dict[str, Card]) -> dict[str, Any]:
    request = run.request
    run.journal.record(
        "run",
        contract=to_dict(request.contract),
        plan=to_dict(request.plan),
        target=to_dict(request.target),
        seed=request.seed,
        data=dict(run.fingerprints),
        teacher=run.teacher_object,
        preprocess=run.store.put_json(preprocess_data(run.task)),
        **({"variables": dict(request.variables)} if request.variables else {}),
    )
    refusal = illegal(request.plan, cards, run.teacher.facts)
    if refusal:
        return _refuse(run, refusal)
    baseline = _baseline(run)
    refusal = _doubted(run, baseline) or _met(run, baseline) or infeasible(run, request.plan, cards, baseline)
    if refusal:
        return _refuse(run, refusal)
    results, passed = _stages(run, cards, baseline)
    return _verdict(run, baseline, results, passed)


def _refuse(run: Run, refusal: Refusal) -> dict[str, Any]:
    run.journal.record("refused", reason=refusal.reason, fix=refusal.fix)
    return summary.refused(run, refusal)


def _baseline(run: Run) -> Standing:
    kept = run.examiner.keep(run.teacher, "the baseline")
    examined = run.examiner.examined(kept, split="validation", baseline=kept)
    run.journal.record("baseline", candidate=kept.candidate, artifact=kept.mark, metric=examined.evidence.metric_value)
    _beyond_the_teacher(run, examined)
    return Standing(candidate=run.teacher, kept=kept, examined=examined, claims={})


def _beyond_the_teacher(run: Run, baseline: Examined) -> None:
    """Say so if the contract asks for more than the teacher itself shows: a student rarely knows better."""
    asked, metric, own = run.request.contract.metric, run.task.metric, baseline.evidence.metric_value
    if asked is not None and own is not None and (own < asked if metric.direction == "higher" else own > asked):
        run.log.event("note", text=f"the contract asks for {metric.name} {asked:g}, and the teacher itself has {own:.4g} on validation: a student rarely knows better")


def _doubted(run: Run, baseline: Standing) -> Refusal | None:
    """Whether validation speaks against the teacher itself; a weak one is told, one with other classes refused."""
    rows = run.examiner.rows(baseline.kept, "validation")
    if note := suspicion.no_better_than_a_guess(run.task.metric, rows):
        run.journal.record("weak teacher", why=note)
        run.log.event("note", text=note)
    return suspicion.other_order(rows)


def _met(run: Run, baseline: Standing) -> Refusal | None:
    """A contract that the unchanged teacher honours asks for nothing."""
    contract = run.request.contract
    here = run.request.target.host == "local"
    timed = any(k.startswith(("latency", "speedup")) for k in contract.limits())
    latency = run.examiner.latencies([baseline.kept], contract.limits())[0] if timed and here else None
    memory = run.examiner.memory(baseline.kept) if contract.peak_memory_bytes and here else None
    examined = replace(baseline.examined, latency=latency, evidence=replace(baseline.examined.evidence, peak_memory_bytes=memory))
    verdicts = contract_verdicts(contract, run.task.metric, candidate=examined, baseline=examined)
    if worst(verdicts) is not Status.PASS:
        return None
    limits = ", ".join(f"{k} {v:g}" for k, v in contract.limits().items())
    return Refusal(
        f"The teacher exported unchanged already honours the contract ({limits}): there is nothing to compress for.",
        f"Ship it as it is ({run.folder / baseline.examined.evidence.artifact}), or add what it should become, as in size_ratio = 4 or speedup_p50 = 2.",
    )


def _stages(run: Run, cards: dict[str, Card], baseline: Standing) -> tuple[list[StageResult], list[Standing]]:
    results, passed, current = [], [], baseline
    stages = run.request.plan.stages
    for number, stage in enumerate(stages):
        if run.stop():
            raise Interrupted(f"stopped before stage {number + 1} ({stage.title}). Run the same command again to go on.")
        floor = stage_floor(run.request.contract, stage.gate.retention, current, remaining=len(stages) - number)
        result = run_stage(run, stage, cards[stage.technique], before=current, baseline=baseline, floor=floor)
        results.append(result)
        if result.status is Status.PASS and result.standing:
            current = result.standing
            passed.append(current)
            _head(run, stage, current)
        elif stage.on_fail == "stop":
            break
    return results, passed


def _head(run: Run, stage: Stage, standing: Standing) -> None:
    head = {"stage": stage.title, "candidate": standing.kept.candidate, "artifact": standing.examined.evidence.artifact}
    write(run.folder / "HEAD.json", record({run.request.target.runtime: head}))


def stage_floor(contract: Contract, own: float | None, current: Standing, *, remaining: int) -> Floor | None:
    """What a stage must keep: its own limit, or an even share of what the contract leaves from where the run stands.

    With retention r so far (at most 1) and R in the contract, r·(R/r)^(1/remaining); a drop is shared linearly.
    """
    if own is not None:
        return Floor(own)
    examined = current.examined
    if contract.retention is not None:
        so_far = min(examined.retention.value, 1.0) if examined.retention and examined.retention.kind == "ratio" else 1.0
        return Floor(so_far * (min(contract.retention / so_far, 1.0) ** (1 / remaining)) if so_far > 0 else contract.retention)
    if contract.max_drop is not None:
        so_far = max(examined.drop.value, 0.0) if examined.drop else 0.0
        return Floor(so_far + max(contract.max_drop - so_far, 0.0) / remaining, "max_drop")
    return None


def _verdict(run: Run, baseline: Standing, results: Sequence[StageResult], passed: Sequence[Standing]) -> dict[str, Any]:
    """The contract, all of it, in one look at test: baseline, final and control timed in turn."""
    contract, examiner = run.request.contract, run.examiner
    passed, chosen = _chosen(run, baseline, results, passed)
    final = passed[-1] if passed else baseline
    beside = run_control(run, passed) if run.request.plan.control else Control(why="the plan says control = false")
    control = beside.kept
    kept = [baseline.kept, final.kept, *([control] if control else [])]
    here = run.request.target.host == "local"  # what another device must show isn't measured on this one
    latencies = examiner.latencies(kept, contract.limits(), judged=1) if here else [None] * len(kept)
    data, confidence = looked(run.task, run.fingerprints["test"]), contract.at_each_look
    look = count_look(run.request.root, data, run=run.request.name, artifact=digest([k.mark for k in kept]), error=spending.error(contract))
    examined = [
        examiner.examined(one, split="test", latency=latency, baseline=baseline.kept, confidence=confidence, memory=here) for one, latency in zip(kept, latencies, strict=True)
    ]
    asked, proof = studies.chosen(run.request.proof, contract), run.request.proof
    shown = examiner.studies(asked, proof, final=final.kept, baseline=baseline.kept, split="test", latencies=latencies[:2], confidence=confidence)
    examined[1] = replace(examined[1], studies=shown)
    verdicts = spending.spent(contract_verdicts(contract, run.task.metric, candidate=examined[1], baseline=examined[0]), contract, look)
    if not here:
        measured = imported.found(run.store, run.journal.lines, final.kept.mark)
        examined[0], examined[1], verdicts = imported.applied(measured, baseline=examined[0], final=examined[1], verdicts=verdicts)
    golden = examiner.golden(final.kept)
    run.crashes.forget()
    run.journal.record("verdict", final=final.kept.mark, control=control.mark if control else None, status=worst(verdicts), verdicts=[summary.verdict_data(v) for v in verdicts])
    return summary.finished(
        run,
        baseline=examined[0],
        final=examined[1],
        control=examined[2] if control else None,
        why_no_control=beside.why,
        control_claims=beside.claims,
        verdicts=verdicts,
        results=results,
        look=spending.summary(contract, look, data.samples),
        closest=_closest(run, baseline, results) if worst(verdicts) is not Status.PASS else None,
        golden=golden,
        chosen=chosen,
    )


def _chosen(run: Run, baseline: Standing, results: Sequence[StageResult], passed: Sequence[Standing]) -> tuple[list[Standing], dict[str, Any] | None]:
    """The way to the final candidate: the last that passed its gate, unless it misses the contract on validation and another keeps it.

    A stage's gate asks for its share of the contract, so a candidate may keep all of the contract and still fail its gate. Only what
    was measured on validation chooses; what wasn't measured there (a speedup) is neither for nor against anyone.
    """

    def open_limits(standing: Standing) -> list[str]:
        verdicts = contract_verdicts(run.request.contract, run.task.metric, candidate=standing.examined, baseline=baseline.examined)
        return [v.gate for v in verdicts if v.status not in (Status.PASS, Status.UNVERIFIED)]

    final = passed[-1] if passed else baseline
    missed = open_limits(final)
    keeping = [r for r in results if r.standing and r.standing is not final and not open_limits(r.standing)] if missed else []
    if not keeping:
        return list(passed), None
    best = min(keeping, key=lambda r: r.standing.examined.evidence.size_bytes if r.standing else 0)
    before = [r.standing for r in takewhile(lambda r: r is not best, results) if r.status is Status.PASS and r.standing]
    last = next((r.stage.title for r in reversed(results) if r.standing is final), "the baseline")
    why = f"on validation it keeps the contract, though its own gate said {best.status}; {last} misses {', '.join(missed)}"
    run.journal.record("chosen", stage=best.stage.title, why=why)
    run.log.event("chosen", stage=best.stage.title, why=why)
    if best.standing:
        _head(run, best.stage, best.standing)
    return [*before, *([best.standing] if best.standing else [])], {"stage": best.stage.title, "why": why}


def _closest(run: Run, baseline: Standing, results: Sequence[StageResult]) -> dict[str, Any] | None:
    """Of all that stages made, the one with the least worst normalized violation on validation."""
    made: list[tuple[float, str, Examined]] = []
    for result in results:
        if result.standing:
            verdicts = contract_verdicts(run.request.contract, run.task.metric, candidate=result.standing.examined, baseline=baseline.examined)
            made.append((violation(verdicts), result.stage.title, result.standing.examined))
    if not made:
        return None
    worst_violation, title, examined = min(made, key=lambda m: m[0])
    return {"stage": title, "violation": worst_violation, "artifact": examined.evidence.artifact, "size_bytes": examined.evidence.size_bytes}
