"""Subjects judged on the same inputs: evidence on each, timed in turn, every one after the first against the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from limbeck.core.contract import QUALITY, Contract, Target
from limbeck.core.errors import ArtifactError, NotANumber, TaskError
from limbeck.core.evidence import Evidence, Latency, Status, Verdict
from limbeck.core.metric import Rows
from limbeck.core.proof import Proof
from limbeck.core.task import Task
from limbeck.evaluation import feeds, measure, quality, slices, studies
from limbeck.evaluation.behaviour import Behaviour
from limbeck.evaluation.feeds import Fed
from limbeck.evaluation.gates import Examined, contract_verdicts, intervals, limits_on_percentiles, percentiles, speedup
from limbeck.evaluation.likeness import likeness
from limbeck.evaluation.processes.apart import Apart
from limbeck.evaluation.studies import Setting, Side
from limbeck.evaluation.subject import Subject
from limbeck.runtimes.card import fixed_batch
from limbeck.stats.bootstrap import Interval
from limbeck.stats.latency import median_ratio

BATCH_WAY = "Set --batch (in Python Target(batch=…)) to what is fed at once, or export with a free batch"
CONFIDENCE = 0.95  # one-sided, where no contract says another
NO_STUDY = Proof(studies="none")
RELATIVE = tuple(name for name in QUALITY if name not in ("metric", "max_ece"))  # limits that a baseline's answers are needed for


@dataclass(frozen=True)
class Judged:
    """A subject with its evidence; against another subject also retention, agreement of outputs and verdicts.

    broken: Why its answers can't be judged, though it runs; empty if they can.
    notes: What else a reader should know.
    """

    subject: Subject
    examined: Examined
    verdicts: tuple[Verdict, ...] = ()
    agreement: Mapping[str, Any] | None = None
    size_ratio: float | None = None
    speedup: Interval | None = None
    broken: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Answers:
    """What a subject answers on the split: the rows of the metric, or why there are none."""

    rows: Rows | None = None
    broken: str = ""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What all subjects are judged by."""

    task: Task | None
    target: Target
    split: str
    contract: Contract | None
    proof: Proof
    fed: Fed
    stop: Callable[[], bool] = field(default=lambda: False)

    @cached_property
    def masks(self) -> slices.Masks:
        """To which slices the samples of the split belong; the same for all subjects."""
        return slices.masks_of(self.task, self.split) if self.task else {}

    @property
    def confidence(self) -> float:
        return self.contract.confidence if self.contract else CONFIDENCE


def judge(
    subjects: Sequence[Subject],
    *,
    task: Task | None,
    target: Target,
    split: str,
    contract: Contract | None = None,
    proof: Proof | None = None,
    inputs: Any = None,
    seconds: float = 2.0,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[list[Judged], Fed]:
    """Each subject judged, and what it was fed. All of them run in processes of their own.

    Without a task the inputs are those given or random ones that all accept, and quality stays unverified.

    Raises: ArtifactError if a subject can't be loaded, fed or run, or brings its process down; Interrupted when `stop` says so.
    """
    slices.check_named(task, contract)
    asked = studies.chosen(proof or NO_STUDY, contract)
    with ExitStack() as stack:
        sessions = {}
        for number, subject in enumerate(subjects):
            name = subject.name if subject.name not in sessions else f"{subject.name} ({number + 1})"
            sessions[name] = stack.enter_context(Apart(subject.artifact, threads=target.threads, stop=stop))
        subjects = [replace(s, kernels=session.kernels()) for s, session in zip(subjects, sessions.values(), strict=True)]
        by = _Asked(task=task, target=target, split=split, contract=contract, proof=proof or NO_STUDY, fed=_fed(sessions, task, split, target, inputs), stop=stop)
        counted = _counted_as_one(by.fed, target) if task is None or inputs is not None else ()
        latencies = _timed(subjects, by, seconds)
        answers = [_answers(name, session, task, split) for name, session in sessions.items()]
        answers = [answers[0], *(_beside(one, answers[0], task) for one in answers[1:])]
        odd = [(*counted, *(_odd(session, by.fed) if task is None else ())) for session in sessions.values()]
        first, *rest = sessions.values()
        alike, notes = likeness(first, rest[-1], by.fed) if rest else (None, [])
    examined = [_examined(*each, by, answers[0] if number else None) for number, each in enumerate(zip(subjects, latencies, answers, strict=True))]
    examined[-1] = replace(examined[-1], studies=_studied(subjects, examined, asked, by))
    found = [_alone(subjects[0], examined[0], answers[0], by, only=len(subjects) == 1)]
    found += [_second(s, e, a, examined[0], answers[0], by, alike, notes) for s, e, a in zip(subjects[1:], examined[1:], answers[1:], strict=True)]
    return [replace(one, notes=(*more, *one.notes)) for one, more in zip(found, odd, strict=True)], by.fed


def _timed(subjects: Sequence[Subject], by: _Asked, seconds: float) -> list[Latency]:
    """All in turn, as long as limits on the last one's percentiles take; where two are compared, their ratio needs all of the time."""
    limits = limits_on_percentiles(by.contract.limits() if by.contract else {})
    artifacts = [s.artifact for s in subjects]
    return measure.latency(artifacts, by.fed.feed, threads=by.target.threads, seconds=seconds, limits=limits, early=len(subjects) == 1, stop=by.stop)


def _fed(sessions: Mapping[str, Apart], task: Task | None, split: str, target: Target, inputs: Any) -> Fed:
    """What is timed, which every session takes. Raises ArtifactError that names the one which doesn't."""
    if inputs is None and task is None:
        return feeds.random(sessions, target.batch)
    fed = feeds.of_inputs(inputs) if inputs is not None or task is None else feeds.of_task(task, split, list(sessions.values()), target.batch)
    for name, session in sessions.items():
        try:
            session(fed.feed)
        except ArtifactError as error:
            text = str(error)
            if inputs is None and fixed_batch(session) not in (None, target.batch):
                raise ArtifactError(f"{name} takes {fixed_batch(session)} samples at once, and the batch is {target.batch}. {BATCH_WAY}.") from error
            raise ArtifactError(text if text.startswith(name) else f"{name}, fed with {fed.source}: {text}") from error
    return fed


def _counted_as_one(fed: Fed, target: Target) -> tuple[str, ...]:
    """What is to be said of inputs that may be of more samples than the batch of 1. Raises ArtifactError where another batch isn't that of the inputs."""
    firsts = [len(a) for a in fed.feed.values() if a.ndim]
    if target.batch in firsts:
        return ()
    if target.batch > 1:
        others = ", ".join(map(str, firsts)) or "none"
        raise ArtifactError(f"the batch is {target.batch}, and no {fed.source} input has that many along its first axis (but {others}). {BATCH_WAY}.")
    return (f"timed on {firsts[0]} along the first axis, counted as one sample; if that is the batch, say so: --batch {firsts[0]}",) if firsts and firsts[0] > 1 else ()


def _odd(session: Apart, fed: Fed) -> tuple[str, ...]:
    """Which outputs aren't finite on what is timed."""
    found = session(fed.feed).items()
    return tuple(f"output '{name}' is NaN or infinite on {fed.source} inputs" for name, values in found if values.dtype.kind == "f" and not np.isfinite(values).all())


def _answers(name: str, session: Apart, task: Task | None, split: str) -> _Answers:
    if task is None:
        return _Answers()
    try:
        return _Answers(quality.rows_of_session(session, task, split))
    except NotANumber as error:
        return _Answers(broken=str(error))
    except TaskError as error:  # a metric that can't read what it answers, such as too few classes
        raise TaskError(f"{name}, on {split}: {error}") from error


def _beside(answers: _Answers, first: _Answers, task: Task | None) -> _Answers:
    """The same, or why they can't be judged though those of the first subject can."""
    try:
        if task is not None and answers.rows is not None and first.rows is not None:
            quality.refuse_undefined(task.metric, answers.rows, first.rows)
    except NotANumber as error:
        return _Answers(broken=str(error))
    return answers


def _examined(subject: Subject, latency: Latency, answers: _Answers, by: _Asked, first: _Answers | None) -> Examined:
    """A subject's evidence, and its quality where there is a task: against the first subject's answers, unless it is the first."""
    value, known = _quality(answers.rows, first.rows if first else None, by)
    memory = measure.peak_memory(subject.artifact, by.fed.feed, threads=by.target.threads, stop=by.stop)
    evidence = Evidence(
        artifact=subject.name,
        runtime=subject.artifact.runtime,
        threads=by.target.threads,
        size_bytes=subject.artifact.size_bytes,
        download_bytes=measure.download_bytes(subject.artifact),
        metric_name=by.task.metric.name if by.task else None,
        metric_value=value,
        parameters=subject.parameters,
        macs=subject.macs,
        latency_ms=percentiles(latency),
        latency_interval_ms=intervals(latency),
        latency_note=latency.note,
        peak_memory_bytes=memory,
        kernels=subject.kernels,
    )
    return Examined(evidence=evidence, latency=latency, **known)


def _quality(rows: Rows | None, first: Rows | None, by: _Asked) -> tuple[float | None, dict[str, Any]]:
    """The metric, and what `Examined` holds of quality; nothing where nothing was answered."""
    if by.task is None or rows is None:
        return None, {}
    metric = by.task.metric
    found = quality.interval(metric, rows, confidence=by.confidence)
    known: dict[str, Any] = {
        "metric_interval": (found.low, found.high),
        "behaviour": Behaviour(metric=metric, candidate=rows, baseline=first, masks=by.masks, split=by.split, confidence=by.confidence),
    }
    if first is not None:
        known |= quality.retention_and_drop(metric, rows, first, confidence=by.confidence, split=by.split)
    return found.value, known


def _studied(subjects: Sequence[Subject], examined: Sequence[Examined], asked: Sequence[studies.Study], by: _Asked) -> dict[str, studies.Data]:
    """The studies of the last subject, beside the first where there are two."""

    def side(subject: Subject, known: Examined) -> Side:
        rows = known.behaviour.candidate if known.behaviour else None
        facts = {"parameters": subject.parameters, "macs": subject.macs, "kernels": subject.kernels}
        return Side(artifact=subject.artifact, module=subject.module, rows=rows, latency=known.latency, **facts)

    sides = [side(*both) for both in zip(subjects, examined, strict=True)]
    setting = Setting(
        candidate=sides[-1],
        baseline=sides[0] if len(sides) > 1 else None,
        task=by.task,
        split=by.split,
        target=by.target,
        feed=by.fed.feed,
        confidence=by.confidence,
        samples=by.proof.samples,
        seconds=by.proof.seconds,
        stop=by.stop,
    )
    return studies.taken(setting, asked, here=by.target.host == "local")


def _alone(subject: Subject, examined: Examined, answers: _Answers, by: _Asked, *, only: bool) -> Judged:
    verdicts = contract_verdicts(by.contract, by.task.metric if by.task else None, candidate=examined, baseline=None) if by.contract and only else ()
    return Judged(subject, examined, _with_breaks(verdicts, answers.broken, "") if only else (), broken=answers.broken)


def _second(
    subject: Subject, examined: Examined, answers: _Answers, first: Examined, first_answers: _Answers, by: _Asked, alike: Mapping[str, Any] | None, notes: Sequence[str]
) -> Judged:
    ratio = median_ratio(first.latency.blocks, examined.latency.blocks) if first.latency and examined.latency else None
    size_ratio = first.evidence.size_bytes / examined.evidence.size_bytes
    verdicts = _with_breaks(_against(examined, first, by), answers.broken, first_answers.broken)
    return Judged(subject, examined, verdicts, alike, size_ratio, ratio, answers.broken, tuple(notes))


def _against(examined: Examined, first: Examined, by: _Asked) -> tuple[Verdict, ...]:
    if by.contract:
        return contract_verdicts(by.contract, by.task.metric if by.task else None, candidate=examined, baseline=first)
    faster = speedup(first.latency, examined.latency, 1.0, gate="not slower", slack=0.95)
    if by.task is None:
        return (Verdict(gate="retention", status=Status.UNVERIFIED, reason="quality was not measured: name the task with --task"), faster)
    if examined.retention and examined.retention.kind == "drop":
        lost = f"the drop is {examined.retention.value:.4g}, at most {examined.retention.low:.4g} at {examined.retention.confidence:.0%}"
        why = f"for this metric a ratio means nothing, and no drop was limited ({lost}): say --limit max_drop=…"
        return (Verdict(gate="max_drop", status=Status.UNVERIFIED, reason=why), faster)
    return (faster,)


def _with_breaks(verdicts: Sequence[Verdict], broken: str, first: str) -> tuple[Verdict, ...]:
    """Verdicts on answers that can't be judged: what doesn't answer keeps no limit on quality, and nothing is kept of what doesn't answer."""
    if broken:
        named = [replace(v, status=Status.FAIL, reason=broken) if v.gate.partition(".")[0] in QUALITY else v for v in verdicts]
        return tuple(named) if any(v.reason == broken for v in named) else (Verdict(gate="outputs", status=Status.FAIL, reason=broken), *named)
    if first:
        why = f"there is nothing to compare with, the baseline can't be judged: {first}"
        named = [replace(v, status=Status.UNVERIFIED, reason=why) if v.gate.partition(".")[0] in RELATIVE else v for v in verdicts]
        return tuple(named) if any(v.reason == why for v in named) else (Verdict(gate="outputs", status=Status.UNVERIFIED, reason=why), *named)
    return tuple(verdicts)
