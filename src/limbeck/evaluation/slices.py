"""Parts of a split, judged by themselves: which samples belong to each, and what each keeps of the baseline's quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from limbeck.core.contract import Contract
from limbeck.core.errors import ConfigError, TaskError, near
from limbeck.core.evidence import Retention, Status, Verdict, worst
from limbeck.core.foreign import users_code
from limbeck.core.metric import Metric, Rows
from limbeck.core.task import Task
from limbeck.evaluation import quality
from limbeck.mechanics.data import batches
from limbeck.stats.multiplicity import shared, step_down

LEAST = quality.LEAST
Masks = Mapping[str, np.ndarray]
TABLES = ("slice_retention", "slice_drop")
WORST = ("worst_slice_retention", "worst_slice_drop")


def masks_of(task: Task, split: str, *, batch_size: int = quality.BATCH) -> dict[str, np.ndarray]:
    """For each of the task's slices one bool a sample of the split, in order.

    Raises: TaskError naming the slice if its function raises, or doesn't give one bool a sample.
    """
    if not task.slices:
        return {}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in task.slices}
    for ids, batch in batches(task, split, size=batch_size):
        for name, function in task.slices.items():
            with users_code(f"slice '{name}' of task '{task.name}'", always=True):
                given = function(batch)
            parts[name].append(_mask(task, name, given, len(ids)))
    return {name: np.concatenate(found) if found else np.zeros(0, dtype=bool) for name, found in parts.items()}


def _mask(task: Task, name: str, given: Any, count: int) -> np.ndarray:
    column = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if column.dtype.kind != "b" or column.shape != (count,):
        raise TaskError(
            f"slice '{name}' of task '{task.name}' must give one bool a sample, got {column.dtype} of shape {list(column.shape)} for {count} samples. "
            "Return a comparison over the batch, as in batch[1] == 3."
        )
    return column


def check_named(task: Task | None, contract: Contract | None) -> None:
    """Raises ConfigError if a contract limits a slice that the task doesn't have, or every slice of a task that has none."""
    limits = contract.limits() if contract else {}
    named = [(key, key.partition(".")[2]) for key in limits if key.startswith(tuple(f"{t}." for t in TABLES))]
    if task is None:
        return  # nothing is measured by a task then, and its limits are UNVERIFIED
    for key, name in named:
        if name not in task.slices:
            raise ConfigError(
                f"contract.{key} limits a slice that task '{task.name}' doesn't have. {near(name, task.slices)} Slices are named in Task(slices={{…}}).", path=("contract", key)
            )
    asked = [key for key in WORST if key in limits]
    if asked and not task.slices:
        raise ConfigError(f"contract.{asked[0]} limits every slice, and task '{task.name}' has none. Give Task(slices={{name: function of a batch}}).", path=("contract", asked[0]))


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One slice's figures. `retention` is bounded so that the bounds of all slices hold together; None with a note that says why."""

    name: str
    samples: int
    baseline: float | None
    candidate: float | None
    retention: Retention | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What both models answered, and to which slices the samples belong."""

    metric: Metric
    candidate: Rows
    baseline: Rows
    masks: Masks
    split: str
    confidence: float

    def of(self, name: str) -> tuple[Rows, Rows]:
        return tuple({k: v[self.masks[name]] for k, v in rows.items()} for rows in (self.candidate, self.baseline))  # pyright: ignore[reportReturnType]

    def units(self, name: str) -> int:
        return quality.units_of(self.metric, self.of(name)[1]) if self.masks[name].any() else 0

    def bounded(self, name: str, confidence: float, *, as_drop: bool) -> Retention | str:
        """What a slice keeps, bounded at this confidence; or why that can't be told."""
        candidate, baseline = self.of(name)
        count = self.units(name)
        if count < LEAST:
            few = f"slice '{name}' has {count} {quality.counted_in(self.metric, count)} of {self.split}, and fewer than {LEAST} prove nothing"
            return few if count else self.empty(name)
        try:
            return quality.retention(self.metric, candidate, baseline, confidence=confidence, split=self.split, as_drop=as_drop)
        except (ConfigError, TaskError) as error:  # undefined here, such as an AUC of one class: the whole split may be well
            return f"in slice '{name}' the metric can't be bounded: {error}"

    def empty(self, name: str) -> str:
        return f"slice '{name}' has no sample of {self.split}"


def shown(parts: Parts) -> tuple[Slice, ...]:
    """Every slice, largest first, with bounds that hold together at the contract's confidence."""
    level = shared(parts.confidence, sum(parts.units(name) >= LEAST for name in parts.masks))
    made = [_slice(parts, name, level) for name in parts.masks]
    return tuple(sorted(made, key=lambda s: -s.samples))


def alone(metric: Metric, rows: Rows, masks: Masks) -> tuple[Slice, ...]:
    """Every slice of one model by itself, largest first: its metric, and nothing that takes a baseline."""
    made = []
    for name, mask in masks.items():
        value = _value(metric, {k: v[mask] for k, v in rows.items()})
        made.append(Slice(name=name, samples=int(mask.sum()), baseline=None, candidate=value, retention=None))
    return tuple(sorted(made, key=lambda s: -s.samples))


def _slice(parts: Parts, name: str, level: float) -> Slice:
    found = parts.bounded(name, level, as_drop=False)
    values = [_value(parts.metric, rows) for rows in parts.of(name)]
    samples = int(parts.masks[name].sum())
    if isinstance(found, str):
        return Slice(name=name, samples=samples, baseline=values[1], candidate=values[0], retention=None, note=found)
    return Slice(name=name, samples=samples, baseline=values[1], candidate=values[0], retention=found)


def _value(metric: Metric, rows: Rows) -> float | None:
    if not len(next(iter(rows.values()))):
        return None
    try:
        return quality.value(metric, rows)
    except TaskError:
        return None


def verdicts(parts: Parts | None, limits: Mapping[str, float], *, gate: str, why: str = "") -> tuple[Verdict, ...]:
    """One verdict a slice (by name, its limit), Holm's correction over them. `gate`: one of TABLES.

    Args:
        parts: None if slices could not be judged; `why` says so.
    """
    if parts is None:
        return tuple(Verdict(gate=f"{gate}.{n}", status=Status.UNVERIFIED, limit=v, reason=why or "slices were not measured") for n, v in limits.items())
    as_drop = gate.endswith("drop")
    open_, small = {}, {}
    for name in limits:
        if name not in parts.masks:
            small[name] = Verdict(gate=f"{gate}.{name}", status=Status.UNVERIFIED, limit=limits[name], reason=f"the task has no slice '{name}'")
        elif (count := parts.units(name)) < LEAST:
            reason = str(parts.bounded(name, parts.confidence, as_drop=as_drop))
            small[name] = Verdict(gate=f"{gate}.{name}", status=Status.INCONCLUSIVE, limit=limits[name], reason=reason, samples_needed=LEAST if count else None)
        else:
            open_[name] = lambda level, name=name: parts.bounded(name, level, as_drop=as_drop)

    def kept(name: str, found: Retention | str) -> bool:
        return _status(found, limits[name], as_drop=as_drop) is Status.PASS

    judged = step_down(open_, kept, confidence=parts.confidence)
    told = {n: _verdict(f"{gate}.{n}", judged[n], limits[n], as_drop=as_drop, parts=parts) for n in judged}
    return tuple((told | small)[name] for name in limits)


def _status(found: Retention | str, limit: float, *, as_drop: bool) -> Status:
    if isinstance(found, str) or (found.kind == "drop") != as_drop:
        return Status.UNVERIFIED
    if found.low <= limit if as_drop else found.low >= limit:
        return Status.PASS
    return Status.FAIL if (found.value > limit if as_drop else found.value < limit) else Status.INCONCLUSIVE


def _verdict(gate: str, found: Retention | str, limit: float, *, as_drop: bool, parts: Parts) -> Verdict:
    status, name = _status(found, limit, as_drop=as_drop), gate.partition(".")[2]
    if isinstance(found, str):
        return Verdict(gate=gate, status=status, limit=limit, reason=found)
    if status is Status.UNVERIFIED:
        return Verdict(gate=gate, status=status, limit=limit, reason=f"a ratio means nothing in slice '{name}' (its metric, or a baseline of 0 there); limit slice_drop instead")
    each = quality.counted_in(parts.metric)
    what = f"'{name}': {'drop' if as_drop else 'retention'} {found.value:.4f}, bound {found.low:.4f} on {found.samples} {each} of {found.split}"
    facts = {"gate": gate, "status": status, "limit": limit, "measured": found.value, "low": found.low}
    if status is Status.INCONCLUSIVE:
        needed = quality.samples_needed(found, limit, quality.counts_of(parts.metric, *parts.of(name)))
        more = f"about {needed:,} of its {each} would settle it" if needed else f"it stands at the limit: no number of {each} is sure to settle it"
        return Verdict(reason=f"{what}: {more}", samples_needed=needed, **facts)
    return Verdict(reason=what if status is Status.PASS else f"{what}: it is itself beyond {limit:.4f}", **facts)


def worst_verdict(parts: Parts | None, limit: float, *, gate: str, why: str = "") -> Verdict:
    """The worst of all slices' verdicts under one limit. `gate`: one of WORST."""
    table = gate.removeprefix("worst_")
    each = verdicts(parts, dict.fromkeys(parts.masks, limit), gate=table) if parts else ()
    if not each:
        return Verdict(gate=gate, status=Status.UNVERIFIED, limit=limit, reason=why or "the task has no slices, or they were not measured")
    status, sign = worst(each), -1.0 if table == "slice_drop" else 1.0
    told = [v for v in each if v.status is status]
    least = min(told, key=lambda v: sign * v.low if v.low is not None else -np.inf)
    needed = [v.samples_needed for v in told if v.samples_needed]
    names = "" if len(told) == 1 or status is Status.PASS else f"; {len(told)} slices are {status}, this is the worst"
    lead = f"all {len(each)} slices keep it, the least of them " if status is Status.PASS else ""
    return Verdict(
        gate=gate,
        status=status,
        limit=limit,
        measured=least.measured,
        low=least.low,
        reason=f"{lead}{least.reason}{names}",
        samples_needed=max(needed) if needed and status is Status.INCONCLUSIVE else None,
    )
