"""From evidence and limits to verdicts: what a stage owes, and what the contract asks of the artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from limbeck.core.contract import TOO_GOOD, Contract
from limbeck.core.evidence import Evidence, Latency, Retention, Status, Verdict
from limbeck.core.metric import Metric
from limbeck.core.plan import Gate
from limbeck.evaluation import slices, studies
from limbeck.evaluation.behaviour import Behaviour, max_ece, max_ece_increase, max_flips
from limbeck.evaluation.quality import LEAST, alone_needed, counted_in, exact, samples_needed, too_few
from limbeck.evaluation.spending import percent
from limbeck.stats.latency import median_ratio, percentile
from limbeck.stats.percentiles import bounds, claim

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
LATENCIES = {f"latency_{name}_ms": q for name, q in PERCENTILES.items()}  # limits on them
SHARELESS = (*slices.WORST, "max_flips", "max_ece", "max_ece_increase")  # limits on quality that a stage owes as they stand
TOO_MUCH = "better than the baseline by more than 5 %"
SLACK = 0.95  # "not slower" is shown when the interval of the speedup lies above this


@dataclass(frozen=True, kw_only=True)
class Examined:
    """One artifact's evidence, with the raw latencies and, where a task judged it, what it keeps: as a ratio where the metric
    admits one (else a drop), and always as a drop; how it answers; and the figures of the studies that were made, by name."""

    evidence: Evidence
    latency: Latency | None = None
    retention: Retention | None = None
    drop: Retention | None = None
    metric_interval: tuple[float, float] | None = None
    behaviour: Behaviour | None = None
    studies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def quality(retention: Retention | None, limit: float, *, gate: str, behaviour: Behaviour | None = None) -> Verdict:
    """Non-inferiority: the bound on the bad side keeps the limit. `behaviour`: what it is read from; it tells how many samples would settle it."""
    if retention is None:
        return Verdict(gate=gate, status=Status.UNVERIFIED, limit=limit, reason="quality was not measured")
    drop = retention.kind == "drop"
    name = "drop" if drop else "retention"
    kept = retention.low <= limit if drop else retention.low >= limit
    lost = retention.value > limit if drop else retention.value < limit
    facts = {"gate": gate, "limit": limit, "measured": retention.value, "low": retention.low}
    each = counted_in(behaviour.metric if behaviour else None)
    sure = f"{percent(retention.confidence)} bound {retention.low:.4f} on {retention.samples} {each} of {retention.split}"
    if not drop and retention.low > TOO_GOOD:
        return Verdict(status=Status.ANOMALOUS, reason=f"{TOO_MUCH} ({sure}): look for a leak or a broken baseline", **facts)
    if kept and too_few(retention):
        few = f"{name} {retention.value:.4f} on {retention.samples} {each} of {retention.split}, and a bootstrap of fewer than {LEAST} proves nothing"
        return Verdict(status=Status.INCONCLUSIVE, reason=few, samples_needed=LEAST, **facts)
    if kept:
        return Verdict(status=Status.PASS, reason=sure, **facts)
    if lost:
        return Verdict(status=Status.FAIL, reason=f"{name} {retention.value:.4f} is itself beyond {limit:.4f}", **facts)
    needed = samples_needed(retention, limit, behaviour.counts if behaviour else None)
    about = f"about {needed:,} {each} would settle it" if needed else f"it stands at the limit: no number of {each} is sure to settle it"
    return Verdict(status=Status.INCONCLUSIVE, reason=f"{name} {retention.value:.4f} keeps {limit:.4f}, its {sure} doesn't: {about}", samples_needed=needed, **facts)


def percentiles(latency: Latency | None) -> dict[str, float | None] | None:
    """What is shown of a latency; None for a percentile that the samples are too few for."""
    return {name: percentile(latency.samples, q) for name, q in PERCENTILES.items()} if latency else None


def intervals(latency: Latency | None) -> dict[str, tuple[float | None, float | None] | None] | None:
    """The bounds of each percentile that is shown, each one-sided at 99 %: order statistics, no distribution assumed."""
    if latency is None:
        return None
    shown = percentiles(latency) or {}
    found = {name: bounds(latency.blocks, percentile=PERCENTILES[name], anytime=latency.anytime) for name, value in shown.items() if value is not None}
    return {name: found[name] if found.get(name, (None, None)) != (None, None) else None for name in shown}


def limits_on_percentiles(limits: Mapping[str, float]) -> dict[float, float]:
    """Of a contract's limits those on percentiles of latency, in milliseconds by the percentile as a fraction."""
    return {q: limits[name] for name, q in LATENCIES.items() if name in limits}


def at_most(measured: float | None, limit: float, *, gate: str, unit: str = "bytes") -> Verdict:
    if measured is None:
        return Verdict(gate=gate, status=Status.UNVERIFIED, limit=limit, reason="it was not measured")
    status = Status.PASS if measured <= limit else Status.FAIL
    return Verdict(gate=gate, status=status, limit=limit, measured=measured, reason=f"{measured:,.0f} {unit}, at most {limit:,.0f}")


def at_least_ratio(baseline: float, candidate: float, limit: float, *, gate: str) -> Verdict:
    ratio = baseline / candidate
    return Verdict(gate=gate, status=Status.PASS if ratio >= limit else Status.FAIL, limit=limit, measured=ratio, reason=f"{ratio:.2f}× smaller, at least {limit:g}×")


def percentile_at_most(latency: Latency | None, limit: float, *, q: float, gate: str) -> Verdict:
    """A percentile is decided at 99 % by counting: by the binomial rule, or where the count decided when to stop by the rule that allows for it."""
    if latency is None:
        return Verdict(gate=gate, status=Status.UNVERIFIED, limit=limit, reason="latency was not measured")
    found = claim(latency.blocks, limit, percentile=q, anytime=latency.anytime)
    reason = f"{found.over:,} of {found.samples:,} inferences took longer than {limit:g} ms"
    if found.inflation > 1:
        reason += f"; they came in phases, {found.inflation:.1f} count as one"
    status = {"below": Status.PASS, "above": Status.FAIL}.get(found.answer, Status.INCONCLUSIVE)
    needed = found.needed if status is Status.INCONCLUSIVE else None
    if status is Status.INCONCLUSIVE:
        reason += f": about {needed:,} would settle it, so time for longer" if needed else ": it stands at the limit, no number is sure to settle it"
    low, high = bounds(latency.blocks, percentile=q, anytime=latency.anytime)
    return Verdict(gate=gate, status=status, limit=limit, measured=float(np.quantile(latency.samples, q)), low=low, high=high, reason=reason, samples_needed=needed)


def speedup(slow: Latency | None, fast: Latency | None, limit: float, *, gate: str, slack: float = 1.0) -> Verdict:
    """How many times faster, by the median ratio of turns taken alternately and its 99 % interval."""
    if slow is None or fast is None:
        return Verdict(gate=gate, status=Status.UNVERIFIED, limit=limit, reason="latency was not measured")
    ratio = median_ratio(slow.blocks, fast.blocks)
    status = Status.PASS if ratio.low >= limit * slack else Status.FAIL if ratio.high < limit else Status.INCONCLUSIVE
    reason = f"{ratio.value:.2f}× {'faster' if ratio.value >= 1 else 'as fast'}, 99 % interval [{ratio.low:.2f}, {ratio.high:.2f}], at least {limit:g}×"
    return Verdict(gate=gate, status=status, limit=limit, measured=ratio.value, low=ratio.low, high=ratio.high, reason=reason)


@dataclass(frozen=True)
class Floor:
    """What a stage must keep of the baseline's quality: a retention, or at most a drop."""

    limit: float
    kind: Literal["retention", "max_drop"] = "retention"


def stage_verdicts(gate: Gate, *, floor: Floor | None, candidate: Examined, before: Examined, pays: bool, contract: Contract | None = None) -> tuple[Verdict, ...]:
    """What a stage owes on validation: its share of quality, no slice or answers that break the contract already, and that it pays.

    floor: None if the contract limits neither retention nor a drop.
    contract: Its limits on slices, flips and calibration have no shares: what is itself beyond one fails, what is only unproved doesn't.
    """
    verdicts = [] if floor is None else [_relative_quality(floor.kind, floor.limit, candidate)]
    verdicts += [v for v in _apart(contract, candidate) if v.status is Status.FAIL] if contract else []
    if pays and gate.pays != "nothing":
        shrunk = at_least_ratio(before.evidence.size_bytes, candidate.evidence.size_bytes, gate.shrink, gate="pays")
        if gate.pays == "bytes":
            return (*verdicts, shrunk)
        faster = speedup(before.latency, candidate.latency, gate.speedup, gate="pays")
        verdicts.append(shrunk if shrunk.status is Status.PASS else faster)
        verdicts.append(speedup(before.latency, candidate.latency, 1.0, gate="not slower", slack=SLACK))
    return tuple(verdicts)


def contract_verdicts(contract: Contract, metric: Metric | None, *, candidate: Examined, baseline: Examined | None) -> tuple[Verdict, ...]:
    """Every limit of the contract, each answered, in its order. A ratio without a baseline is UNVERIFIED."""
    found = [_one(name, limit, metric, candidate, baseline) for name, limit in contract.limits().items() if not name.startswith(tuple(f"{t}." for t in slices.TABLES))]
    behaviour = candidate.behaviour
    for table in slices.TABLES:
        limits = getattr(contract, table) or {}
        found += slices.verdicts(behaviour.parts if behaviour else None, limits, gate=table, why=behaviour.no_slices if behaviour else "")
    order = list(contract.limits())
    return tuple(sorted(found, key=lambda v: order.index(v.gate)))


def _apart(contract: Contract, candidate: Examined) -> list[Verdict]:
    """The verdicts on limits of quality that no stage gets a share of."""
    behaviour = candidate.behaviour
    single = [_one(name, limit, None, candidate, None) for name, limit in contract.limits().items() if name in SHARELESS]
    return [*single, *(v for table in slices.TABLES for v in slices.verdicts(behaviour.parts if behaviour else None, getattr(contract, table) or {}, gate=table))]


def _one(name: str, limit: float, metric: Metric | None, candidate: Examined, baseline: Examined | None) -> Verdict:
    evidence = candidate.evidence
    if name in ("retention", "max_drop"):
        return _relative_quality(name, limit, candidate)
    if name == "metric":
        return _metric(limit, metric, candidate)
    if name in ("size_bytes", "download_bytes", "peak_memory_bytes"):
        return at_most(getattr(evidence, name), limit, gate=name)
    if name in LATENCIES:
        return percentile_at_most(candidate.latency, limit, q=LATENCIES[name], gate=name)
    if name in slices.WORST:
        behaviour = candidate.behaviour
        return slices.worst_verdict(behaviour.parts if behaviour else None, limit, gate=name, why=behaviour.no_slices if behaviour else "")
    if name == "max_flips":
        return max_flips(candidate.behaviour, limit)
    if name == "max_ece":
        return max_ece(candidate.behaviour, limit)
    if name == "max_ece_increase":
        return max_ece_increase(candidate.behaviour, limit)
    if study := studies.answering(name):
        return studies.verdict(study, name, limit, candidate.studies.get(study.name))
    if baseline is None:
        return Verdict(gate=name, status=Status.UNVERIFIED, limit=limit, reason="a ratio needs a baseline, and there is none")
    if name == "size_ratio":
        return at_least_ratio(baseline.evidence.size_bytes, evidence.size_bytes, limit, gate=name)
    return speedup(baseline.latency, candidate.latency, limit, gate=name)


def _relative_quality(name: str, limit: float, candidate: Examined) -> Verdict:
    found = candidate.retention
    if name == "retention" and found is not None and found.kind == "drop":
        instead = f"the drop is {found.value:.4g}, at most {found.low:.4g} at {percent(found.confidence)}"
        return Verdict(gate=name, status=Status.UNVERIFIED, limit=limit, reason=f"for this metric (or a baseline of 0) a ratio means nothing; {instead}: limit max_drop instead")
    verdict = quality(found if name == "retention" else candidate.drop, limit, gate=name, behaviour=candidate.behaviour)
    if verdict.status is Status.PASS and found is not None and found.kind == "ratio" and found.low > TOO_GOOD:  # a drop hides what a ratio shows
        why = f"{TOO_MUCH} (retention {found.value:.4f}, {percent(found.confidence)} bound {found.low:.4f}): look for a leak or a broken baseline"
        return replace(verdict, status=Status.ANOMALOUS, reason=why)
    return verdict


def _metric(limit: float, metric: Metric | None, candidate: Examined) -> Verdict:
    value, interval = candidate.evidence.metric_value, candidate.metric_interval
    if metric is None or value is None or interval is None:
        return Verdict(gate="metric", status=Status.UNVERIFIED, limit=limit, reason="quality was not measured")
    bad, good = interval if metric.direction == "higher" else (-interval[1], -interval[0])
    signed = limit if metric.direction == "higher" else -limit
    status = Status.PASS if bad >= signed else Status.FAIL if good < signed else Status.INCONCLUSIVE
    reason = f"{metric.name} {value:.4f}, interval [{interval[0]:.4f}, {interval[1]:.4f}]"
    count, more = candidate.behaviour.units_count if candidate.behaviour else None, None
    if status is Status.PASS and count is not None and count < LEAST and not exact(metric):
        status, more = Status.INCONCLUSIVE, LEAST
        reason += f" on {count} {counted_in(metric)}, and a bootstrap of fewer than {LEAST} proves nothing"
    elif status is Status.INCONCLUSIVE and candidate.behaviour:
        more = alone_needed(metric, candidate.behaviour.candidate, limit, confidence=candidate.behaviour.confidence, interval=interval)
        each = counted_in(metric)
        reason += f": about {more:,} {each} would settle it" if more else f": it stands at the limit, no number of {each} is sure to settle it"
    return Verdict(gate="metric", status=status, limit=limit, measured=value, low=interval[0], high=interval[1], reason=reason, samples_needed=more)


def violation(verdicts: Sequence[Verdict]) -> float:
    """The worst normalized violation of a contract; 0 where no limit is broken."""
    broken = [abs(v.measured - v.limit) / (abs(v.limit) or 1.0) for v in verdicts if v.status is Status.FAIL and v.measured is not None and v.limit is not None]
    return max(broken, default=0.0)
