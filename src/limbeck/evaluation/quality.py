"""How good an artifact is on a split, and how much of the baseline's quality it keeps, with a bound that can be relied on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from limbeck.core.errors import ConfigError, NotANumber, TaskError, Undefined
from limbeck.core.evidence import Retention
from limbeck.core.metric import Metric, Rows
from limbeck.core.task import Task
from limbeck.evaluation.feeds import in_whole_batches
from limbeck.mechanics.data import batches, feed, predict
from limbeck.runtimes.card import Session, fixed_batch
from limbeck.stats import paired
from limbeck.stats.bootstrap import Interval, bca_lower

BATCH = 64  # samples in one inference where metrics are taken
LEAST = 50  # units that a bootstrap is relied on with, and samples of a slice that is judged: below that no bound is worth its name
ALONE = "one unit, which bounds nothing"
SCORE = "score"  # begins the name of a method that holds at any number of samples
Arrays = dict[str, np.ndarray]
Ask = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Progress = Callable[[float, float, str], None]  # as `Log.progress`


def rows_of(
    ask: Ask, task: Task, split: str, *, batch_size: int = BATCH, ids: Sequence[int] | np.ndarray | None = None, progress: Progress = lambda done, total, note: None
) -> Arrays:
    """The metric's rows of what answers to feeds, over a split (or these ids of it), in order. `progress` is told after each batch.

    Raises: NotANumber (an ArtifactError) naming the sample and the output if one is NaN; TaskError if the split is empty or the metric's rows
    aren't columns of equal length.
    """
    total, done = len(task.split(split)) if ids is None else len(ids), 0

    def run(batch: Any) -> Mapping[str, np.ndarray]:
        nonlocal done
        outputs = ask(feed(task, batch))
        done = min(done + batch_size, total)
        progress(done, total, f"evaluating on {split}")
        return outputs

    return _rows(run, task, split, batch_size=batch_size, ids=ids)


def rows_of_session(
    session: Session,
    task: Task,
    split: str,
    *,
    batch_size: int = BATCH,
    ids: Sequence[int] | np.ndarray | None = None,
    ask: Ask | None = None,
    progress: Progress = lambda done, total, note: None,
) -> Arrays:
    """`rows_of` for a loaded artifact, or for what answers in its place: in its own batches where they are fixed, the last of them filled up."""
    return rows_of(in_whole_batches(session, ask), task, split, batch_size=fixed_batch(session) or batch_size, ids=ids, progress=progress)


def rows_of_module(model: nn.Module, task: Task, split: str, *, batch_size: int = BATCH, ids: Sequence[int] | np.ndarray | None = None) -> Arrays:
    """`rows_of` for a torch module, run in eval mode without gradient and left in the modes in which it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            return _rows(lambda batch: {k: _array(v) for k, v in predict(task, model, batch).items()}, task, split, batch_size=batch_size, ids=ids)
    finally:
        for module, training in modes.items():
            module.training = training


def _array(value: torch.Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if value.dtype is torch.bfloat16 else value).numpy()  # numpy has no bfloat16


def _rows(run: Callable[[Any], Mapping[str, np.ndarray]], task: Task, split: str, *, batch_size: int, ids: Sequence[int] | np.ndarray | None) -> Arrays:
    if batch_size < 1:
        raise ConfigError(f"batch_size must be ≥ 1, got {batch_size!r}. It is the number of samples in one inference.")
    parts: list[Arrays] = []
    for part, batch in batches(task, split, size=batch_size, ids=ids):
        outputs = run(batch)
        for name, values in outputs.items():
            _refuse_nan(name, np.asarray(values), part, split)
        parts.append(_columns(task, task.metric.rows(outputs, batch)))
        if parts[-1].keys() != parts[0].keys():
            raise TaskError(f"metric '{task.metric.name}'.rows gives columns {sorted(parts[-1])} for one batch and {sorted(parts[0])} for another. Give the same columns always.")
    if not parts:
        raise TaskError(f"task '{task.name}' split '{split}' has no samples to evaluate on. Add samples, or name another split.")
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _refuse_nan(name: str, values: np.ndarray, ids: np.ndarray, split: str) -> None:
    if values.dtype.kind != "f" or not np.isnan(values).any():
        return
    row = int(np.argwhere(np.isnan(values))[0][0]) if values.ndim else 0
    which = f"sample {ids[row]}" if values.ndim and len(values) == len(ids) else f"samples {ids[0]} to {ids[-1]}"
    raise NotANumber(f"output '{name}' is NaN for {which} of split '{split}'. An artifact that gives NaN isn't judged: look for an overflow, or a sample that holds NaN itself.")


def _columns(task: Task, rows: Rows) -> Arrays:
    if not isinstance(rows, Mapping) or not rows:
        raise TaskError(f"metric '{task.metric.name}'.rows must give a dict of columns, got {type(rows).__name__}. Return at least one, as in {{'correct': …}}.")
    columns = {name: np.asarray(column) for name, column in rows.items()}
    if any(c.ndim == 0 or c.dtype.kind == "O" for c in columns.values()) or len({len(c) for c in columns.values()}) != 1:
        shapes = ", ".join(f"{name} {c.dtype}{list(c.shape)}" for name, c in columns.items())
        raise TaskError(f"metric '{task.metric.name}'.rows must give columns of numbers or text, all of one length, got {shapes}. Give one entry a sample to each.")
    return columns


def value(metric: Metric, rows: Rows) -> float:
    """The metric over all rows. Raises TaskError if it is undefined (NaN) or infinite there."""
    return metric.value(rows)


def refuse_undefined(metric: Metric, candidate_rows: Rows, baseline_rows: Rows) -> None:
    """Raises NotANumber where the metric is a number of the baseline and none of the candidate: that is no fault of the task or its data.

    Raises: TaskError if it is none of both.
    """
    if math.isfinite(found := metric.number(candidate_rows)):
        return
    before = f"{value(metric, baseline_rows):.4g} of the baseline's to the same {_length(baseline_rows):,}"
    raise NotANumber(f"metric '{metric.name}' is {found} of these answers, and {before}. Look for one answer to everything, or for infinite outputs.")


def interval(metric: Metric, rows: Rows, *, confidence: float = 0.95) -> Interval:
    """The metric of one model with its bounds, each one-sided at `confidence`: exact for proportions, BCa over units otherwise."""
    found = value(metric, rows)
    if not exact(metric):
        if units_of(metric, rows) < 2:
            return Interval(found, found, found)
        bounds = bca_lower(rows, rows, lambda r, _: metric.number(r), units=metric.unit, confidence=confidence)
        return replace(bounds, low=_flawless(metric, bounds, units_of(metric, rows), confidence))
    column = _proportion(metric, rows, found)
    low, high = paired.proportion_bounds(int(column.sum()), len(column), confidence)
    return Interval(found, low, high)


def retention(metric: Metric, candidate_rows: Rows, baseline_rows: Rows, *, confidence: float = 0.95, split: str, as_drop: bool = False) -> Retention:
    """How much of the baseline's metric the candidate keeps on the same samples, bounded on the bad side.

    A ratio where the metric allows one, higher is better and the baseline is surely above 0; else a drop in the metric's own unit,
    whose `low` is an upper bound. Proportions of independent samples take score tests, the rest BCa over units.

    Args:
        confidence: One-sided; a caller who tries several times asks for more.
        split: Where the rows come from; it is only noted.
        as_drop: Take the drop even where a ratio means something, as a limit on `max_drop` asks.
    Raises: ConfigError if the rows aren't of the same samples; TaskError if the metric is undefined on them.
    """
    _same_samples(metric, candidate_rows, baseline_rows)
    candidate, baseline = value(metric, candidate_rows), value(metric, baseline_rows)
    as_ratio = not as_drop and metric.ratio and metric.direction == "higher" and baseline > 0
    samples = units_of(metric, baseline_rows)
    bounded = _scored if exact(metric) else _resampled if samples > 1 else _alone
    try:
        number, low, method = bounded(metric, candidate_rows, baseline_rows, as_ratio=as_ratio, confidence=confidence, values=(candidate, baseline))
    except Undefined:  # of a ratio only: this baseline may as well be 0
        if not as_ratio:
            raise
        return retention(metric, candidate_rows, baseline_rows, confidence=confidence, split=split, as_drop=True)
    return Retention(value=number, low=low, confidence=confidence, method=method, split=split, samples=samples, kind="ratio" if as_ratio else "drop")


def retention_and_drop(metric: Metric, candidate_rows: Rows, baseline_rows: Rows, *, confidence: float, split: str) -> dict[str, Retention]:
    """`retention`, and under "drop" the same as a drop, which is bounded anew only where the first is a ratio."""
    found = retention(metric, candidate_rows, baseline_rows, confidence=confidence, split=split)
    drop = found if found.kind == "drop" else retention(metric, candidate_rows, baseline_rows, confidence=confidence, split=split, as_drop=True)
    return {"retention": found, "drop": drop}


def samples_needed(retention: Retention, limit: float, counts: paired.Counts | None = None) -> int | None:
    """How many samples would bring a bound to its limit: of `counts` by their score test, else by `needed`.

    A bootstrap asks for at least as many units as it is relied on with.
    """
    if counts is not None:
        tested = paired.samples_needed if retention.kind == "ratio" else paired.drop_samples_needed
        return _countable(tested(counts, limit, retention.confidence))
    found = needed(retention.samples, estimate=retention.value, bound=retention.low, limit=limit)
    return found if found is None or retention.method.startswith(SCORE) else max(found, LEAST)


def too_few(retention: Retention) -> bool:
    """Whether a bound is of fewer units than a bootstrap is relied on with; a score test holds at any number."""
    return retention.samples < LEAST and not retention.method.startswith(SCORE)


def alone_needed(metric: Metric, rows: Rows, limit: float, *, confidence: float, interval: tuple[float, float]) -> int | None:
    """How many samples would settle a limit on the metric of one model: of a share that keeps it by its exact bound, else by `needed`."""
    found, right = value(metric, rows), right_or_wrong(metric, rows)
    if right is not None and not metric.better(limit, found):
        share = 1 - limit if metric.direction == "higher" else limit
        return paired.share_samples_needed(int((right == 0).sum()), len(right), share, confidence)
    bound = interval[0] if found >= limit else interval[1]  # on the limit's side
    more = needed(units_of(metric, rows), estimate=found, bound=bound, limit=limit)
    return more if more is None or exact(metric) else max(more, LEAST)


def needed(count: int, *, estimate: float, bound: float, limit: float) -> int | None:
    """At the same rates: the width of an interval falls with the root of the samples. None where estimate and limit agree, or a billion won't do."""
    margin, width = abs(estimate - limit), abs(estimate - bound)
    return _countable(count * (width / margin) ** 2 if margin > 0 else math.inf)


def _countable(samples: float | None) -> int | None:
    return math.ceil(samples) if samples is not None and samples < 1e9 else None


def right_or_wrong(metric: Metric, rows: Rows) -> np.ndarray | None:
    """One 1 (right) or 0 (wrong) for each of independent samples; None where the metric is no share of them. A share to be small counts what is wrong."""
    column = _proportion(metric, rows, value(metric, rows)) if exact(metric) else None
    return column if column is None or metric.direction == "higher" else (column == 0).astype(np.int64)


def counts_of(metric: Metric, candidate: Rows, baseline: Rows) -> paired.Counts | None:
    """Samples by which model is right; None where the metric is no share of independent samples answered right."""
    columns = right_or_wrong(metric, candidate), right_or_wrong(metric, baseline)
    return paired.counts(*columns) if columns[0] is not None and columns[1] is not None else None


def counted_in(metric: Metric | None, count: int = 0) -> str:
    """What is counted where a bound is said to be of so many."""
    each = "unit" if metric and metric.unit else "sample"
    return (each if count == 1 else f"{each}s") + (f" of '{metric.unit}'" if metric and metric.unit else "")


def units_of(metric: Metric, rows: Rows) -> int:
    """How many independent units (rows, or what the metric's unit names) there are."""
    return len(np.unique(rows[metric.unit])) if metric.unit else _length(rows)


def _scored(metric: Metric, c: Rows, b: Rows, *, as_ratio: bool, confidence: float, values: tuple[float, float]) -> tuple[float, float, str]:
    counts = paired.counts(right_or_wrong(metric, c), right_or_wrong(metric, b))
    if as_ratio:
        return values[0] / values[1], paired.ratio_lower(counts, confidence), f"{SCORE} ratio of paired proportions (Nam-Blackwelder)"
    return metric.drop(*values), -paired.difference_lower(counts, confidence), f"{SCORE} difference of paired proportions (Tango)"


def _resampled(metric: Metric, c: Rows, b: Rows, *, as_ratio: bool, confidence: float, values: tuple[float, float]) -> tuple[float, float, str]:
    def ratio(rc: Rows, rb: Rows) -> float:
        below = metric.number(rb)
        return metric.number(rc) / below if below > 0 else float("nan")

    def drop(rc: Rows, rb: Rows) -> float:
        return metric.drop(metric.number(rc), metric.number(rb))

    found = bca_lower(c, b, ratio if as_ratio else drop, units=metric.unit, confidence=confidence)
    over = f"units of '{metric.unit}'" if metric.unit else "rows"
    low = kept_at_least(_flawless(metric, found, units_of(metric, b), confidence), found.value) if as_ratio else found.high
    return found.value, low, f"BCa bootstrap of the {'ratio' if as_ratio else 'drop'} over {over}"


def _alone(metric: Metric, _c: Rows, _b: Rows, *, as_ratio: bool, confidence: float, values: tuple[float, float]) -> tuple[float, float, str]:
    """One unit has no spread: of a ratio 0 is sure, of a drop nothing."""
    del confidence
    drop = metric.drop(*values)
    return (values[0] / values[1], 0.0, ALONE) if as_ratio else (drop, drop, ALONE)


def kept_at_least(low: float, value: float) -> float:
    """The lower bound of a ratio. Where few units widen it to below 0 it says no more than 0: nothing less than nothing can be kept."""
    return max(low, min(value, 0.0))


def _flawless(metric: Metric, found: Interval, units: int, confidence: float) -> float:
    """The lower bound; where nothing at all varies in a metric with a true zero, as of units that were all answered right, n / (n + z²) of it."""
    sure = found.low < found.value or not metric.ratio or metric.direction == "lower" or found.value <= 0
    return found.low if sure else found.value * units / (units + paired.quantile(confidence) ** 2)


def exact(metric: Metric) -> bool:
    """Whether the metric is a proportion of independent samples."""
    return metric.proportion is not None and metric.unit is None


def _proportion(metric: Metric, rows: Rows, found: float) -> np.ndarray:
    """The column of 0s and 1s whose mean is the metric, held to that."""
    name = str(metric.proportion)
    if name not in rows:
        raise TaskError(f"metric '{metric.name}' names proportion '{name}', but its rows have {', '.join(rows)}. Name one of these, or none.")
    column = np.asarray(rows[name])
    mean = float(column.mean())
    if not np.isin(column, (0, 1)).all() or abs(mean - found) > 1e-9:
        raise TaskError(f"metric '{metric.name}' must be the mean of its proportion '{name}', which holds 0 and 1 only; got {found:g}, mean {mean:g}. Leave `proportion` out.")
    return column


def _same_samples(metric: Metric, c: Rows, b: Rows) -> None:
    if c.keys() != b.keys() or _length(c) != _length(b):
        raise ConfigError(f"candidate and baseline rows must be of the same samples, got {_length(c)} of {list(c)} and {_length(b)} of {list(b)}. Evaluate both on one split.")
    if metric.unit is not None and metric.unit not in b:
        raise TaskError(f"metric '{metric.name}' names unit '{metric.unit}', but its rows have {', '.join(b)}. Let rows give that column.")
    if metric.unit is not None and not np.array_equal(c[metric.unit], b[metric.unit]):
        raise ConfigError(f"unit '{metric.unit}' differs between candidate and baseline rows. Evaluate both on the same samples, in the same order.")


def _length(rows: Rows) -> int:
    return len(next(iter(rows.values())))
