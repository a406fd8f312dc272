"""Any artifact or task as something that can be judged: `evaluate` one, `compare` two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from limbeck.core.candidate import Artifact, ArtifactForm
from limbeck.core.contract import Contract, Target
from limbeck.core.errors import ArtifactError, TaskError
from limbeck.core.evidence import Evidence, Latency, Retention, Status, Verdict
from limbeck.core.proof import Proof
from limbeck.core.task import Task
from limbeck.evaluation import measure, quality, slices, studies
from limbeck.evaluation.behaviour import Behaviour
from limbeck.evaluation.gates import Examined, contract_verdicts, percentiles, speedup
from limbeck.evaluation.studies import Setting, Side
from limbeck.runtimes import of_file, parity, runtime
from limbeck.runtimes.card import Session, fixed_batch, random_feed
from limbeck.stats.bootstrap import Interval
from limbeck.stats.latency import median_ratio

CONFIDENCE = 0.95  # one-sided, where no contract says another
NO_STUDY = Proof(studies="none")


@dataclass(frozen=True)
class Subject:
    """An artifact to judge, under the name that the user gave it."""

    name: str
    artifact: Artifact
    parameters: int | None = None
    macs: int | None = None
    kernels: Mapping[str, object] | None = None
    module: Callable[[], nn.Module] | None = None  # makes the module that it was exported from


@dataclass(frozen=True)
class Judged:
    """A subject with its evidence; against another subject also retention, agreement of outputs and verdicts."""

    examined: Examined
    verdicts: tuple[Verdict, ...] = ()
    agreement: Mapping[str, float | None] | None = None
    size_ratio: float | None = None
    speedup: Interval | None = None


def of_path(path: Path) -> Subject:
    """A file that some runtime loads. Raises ArtifactError if it isn't there or no runtime loads its kind."""
    if not path.exists():
        raise ArtifactError(f"there is no artifact {path}. Name a file that a runtime loads, or task.py:task.")
    card = of_file(path)
    artifact = Artifact(path, card.name)
    return Subject(str(path), artifact, kernels=card.describe(artifact))


def of_task(task: Task, *, model: str | None, target: Target, folder: Path, name: str) -> Subject:
    """A model of a task (its teacher by default), exported to the target into `folder`."""
    from limbeck.analysis.profile import profile
    from limbeck.mechanics.build import rebuild, teacher_candidate
    from limbeck.mechanics.data import arguments, batch_of, example

    if not task.models:
        raise TaskError(
            f"task '{task.name}' has no models, so there is nothing to evaluate but its data. Give Task(models={{'teacher': …}}), or name an artifact and this task with --task."
        )
    form = teacher_candidate(task, model).form
    if isinstance(form, ArtifactForm):
        if form.artifact.runtime != target.runtime:
            raise ArtifactError(f"'{model or task.teacher}' is a file for '{form.artifact.runtime}', and the target is '{target.runtime}'. Set the runtime to the first.")
        return Subject(name, form.artifact, kernels=runtime(target.runtime).describe(form.artifact))
    module = rebuild(form, task)
    folder.mkdir(parents=True, exist_ok=True)
    split = "train" if "train" in task.splits else next(iter(task.splits))
    artifact = runtime(target.runtime).export(example(task, module, split=split), folder)
    counted = profile(module, *arguments(task, batch_of(task, split, [0])))
    return Subject(name, artifact, counted.parameters, counted.macs, runtime(target.runtime).describe(artifact), module=partial(rebuild, form, task))


def judge(
    subjects: list[Subject],
    *,
    task: Task | None,
    target: Target,
    split: str,
    contract: Contract | None = None,
    proof: Proof | None = None,
    seconds: float = 2.0,
    stop: Callable[[], bool] = lambda: False,
) -> list[Judged]:
    """Evidence on each subject, timed in turn; every one after the first is judged against the first.

    Without a task the inputs are random ones of the declared shapes, and quality stays unverified. Raises Interrupted when `stop` says so.
    """
    slices.check_named(task, contract)
    asked = studies.chosen(proof or NO_STUDY, contract)
    sessions = [runtime(s.artifact.runtime).load(s.artifact, target.threads) for s in subjects]
    feed = _feed(task, sessions[0], target, split)
    latencies = measure.latency([s.artifact for s in subjects], feed, threads=target.threads, seconds=seconds, stop=stop)
    shown = _quality(sessions, task, split, contract.confidence if contract else CONFIDENCE)
    examined = []
    for subject, latency, (value, known) in zip(subjects, latencies, shown, strict=True):
        memory = measure.peak_memory(subject.artifact, feed, threads=target.threads, stop=stop)
        examined.append(Examined(evidence=_evidence(subject, target, task, value, latency, memory), latency=latency, **known))
    examined[-1] = replace(examined[-1], studies=_studied(subjects, examined, asked, proof or NO_STUDY, task=task, split=split, target=target, feed=feed, stop=stop))
    first = Judged(examined[0], contract_verdicts(contract, task.metric if task else None, candidate=examined[0], baseline=None) if contract and len(subjects) == 1 else ())
    return [first, *(_second(e, examined[0], contract, task, _agreement(sessions[0], s, feed)) for e, s in zip(examined[1:], sessions[1:], strict=True))]


def _studied(
    subjects: Sequence[Subject],
    examined: Sequence[Examined],
    asked: Sequence[studies.Study],
    proof: Proof,
    *,
    task: Task | None,
    split: str,
    target: Target,
    feed: Mapping[str, np.ndarray],
    stop: Callable[[], bool],
) -> dict[str, studies.Data]:
    """The studies of the last subject, beside the first where there are two."""

    def side(subject: Subject, known: Examined) -> Side:
        rows = known.behaviour.candidate if known.behaviour else None
        return Side(
            artifact=subject.artifact,
            module=subject.module,
            rows=rows,
            latency=known.latency,
            parameters=subject.parameters,
            macs=subject.macs,
            kernels=subject.kernels,
        )

    sides = [side(*both) for both in zip(subjects, examined, strict=True)]
    setting = Setting(
        candidate=sides[-1],
        baseline=sides[0] if len(sides) > 1 else None,
        task=task,
        split=split,
        target=target,
        feed=feed,
        samples=proof.samples,
        seconds=proof.seconds,
        stop=stop,
    )
    return studies.taken(setting, asked, here=target.host == "local")


def _quality(sessions: list[Session], task: Task | None, split: str, confidence: float) -> list[tuple[float | None, dict[str, Any]]]:
    """For each session its metric and what `Examined` holds of its quality; nothing where there is no task to judge by."""
    if task is None:
        return [(None, {}) for _ in sessions]
    found: list[tuple[float | None, dict[str, Any]]] = []
    masks = slices.masks_of(task, split)
    rows = [quality.rows_of(session, task, split, batch_size=fixed_batch(session) or quality.BATCH) for session in sessions]
    for number, own in enumerate(rows):
        interval = quality.interval(task.metric, own, confidence=confidence)
        behaviour = Behaviour(metric=task.metric, candidate=own, baseline=rows[0] if number else None, masks=masks, split=split, confidence=confidence)
        known: dict[str, Any] = {"metric_interval": (interval.low, interval.high), "behaviour": behaviour}
        if number:
            known |= {name: quality.retention(task.metric, own, rows[0], confidence=confidence, split=split, as_drop=name == "drop") for name in ("retention", "drop")}
        found.append((interval.value, known))
    return found


def _second(candidate: Examined, baseline: Examined, contract: Contract | None, task: Task | None, agreement: Mapping[str, float | None] | None) -> Judged:
    ratio = median_ratio(baseline.latency.blocks, candidate.latency.blocks) if baseline.latency and candidate.latency else None
    size_ratio = baseline.evidence.size_bytes / candidate.evidence.size_bytes
    return Judged(candidate, _against(candidate, baseline, contract, task), agreement, size_ratio, ratio)


def _feed(task: Task | None, session: Session, target: Target, split: str) -> dict[str, np.ndarray]:
    if task is None:
        return random_feed(session.inputs, target.batch, 0)
    from limbeck.mechanics.data import batch_of, feed

    count = len(task.split(split))
    return feed(task, batch_of(task, split, [i % count for i in range(target.batch)]))


def _evidence(subject: Subject, target: Target, task: Task | None, value: float | None, latency: Latency, memory: int) -> Evidence:
    return Evidence(
        artifact=subject.name,
        runtime=subject.artifact.runtime,
        threads=target.threads,
        size_bytes=subject.artifact.size_bytes,
        download_bytes=measure.download_bytes(subject.artifact),
        metric_name=task.metric.name if task else None,
        metric_value=value,
        parameters=subject.parameters,
        macs=subject.macs,
        latency_ms=percentiles(latency),
        peak_memory_bytes=memory,
        kernels=subject.kernels,
    )


def _against(candidate: Examined, baseline: Examined, contract: Contract | None, task: Task | None) -> tuple[Verdict, ...]:
    if contract:
        return contract_verdicts(contract, task.metric if task else None, candidate=candidate, baseline=baseline)
    faster = speedup(baseline.latency, candidate.latency, 1.0, gate="not slower", slack=0.95)
    retention: Retention | None = candidate.retention
    unverified = Verdict(gate="retention", status=Status.UNVERIFIED, reason="quality was not measured: name the task with --task")
    return (faster,) if retention else (unverified, faster)


def _agreement(first: Session, second: Session, feed: Mapping[str, np.ndarray]) -> Mapping[str, float | None] | None:
    """How near the outputs are on the timed inputs; None where they can't be compared."""
    a, b = first(feed), second(feed)
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a.values(), b.values(), strict=True)):
        return None
    return parity(a, dict(zip(a, b.values(), strict=True)))
