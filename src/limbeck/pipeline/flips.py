"""Which test samples changed sides between baseline and final, from the rows that the run kept."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from limbeck.intake.fingerprint import spread
from limbeck.pipeline.reading import Past
from limbeck.pipeline.records import read_record
from limbeck.report.story import Change, Changes, Confusion, Flip, Flips, Missing, Pairs, Sample
from limbeck.stats import paired
from limbeck.stats.answers import right, whole

SHOWN = 24  # flips each way; the page may show fewer
CLASSES = 20  # up to here a matrix
PAIRS = 20
CHANGES = 12
LONGEST = 60  # characters of a class's name
Rows = Mapping[str, np.ndarray]
NO_ROWS = "The answers on test are not kept in this run, so no sample can be compared."


@dataclass(frozen=True, kw_only=True)
class Shower:
    """How a test sample is shown, and what its classes are called; or why none is."""

    show: Callable[[int], Sample | None] | None = None
    names: tuple[str, ...] = ()
    count: int = 0
    why: str = ""

    def sample(self, index: int, rows: int) -> Sample | None:
        return self.show(index) if self.show and rows == self.count else None

    def reason(self, rows: int) -> str:
        """Why samples aren't shown; empty where they are."""
        if self.show and rows != self.count:
            return f"the metric has {rows:,} rows for {self.count:,} samples, so none can be told which it belongs to."
        return self.why

    def name(self, label: int) -> str:
        return self.names[label][:LONGEST] if 0 <= label < len(self.names) else str(label)


def kept_rows(past: Past, mark: str, fingerprint: str, code: str) -> Rows | None:
    """The metric's rows of this artifact on the data of this fingerprint, or None if the run holds none."""
    for path in sorted((past.folder / "measurements").glob("rows-*.json")):
        record = read_record(path)
        key = record["key"]
        if key["artifact"] == mark and key["data"] == fingerprint and key["code"] == code:
            with np.load(io.BytesIO(past.store.get(past.store.get_json(record["object"])["rows"])), allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    return None


def flips(before: Rows | None, after: Rows | None, shower: Shower) -> Flips | Changes | Missing:
    """Right → wrong and wrong → right; where rows are no such thing, the samples whose rows changed most."""
    if not before or not after:
        return Missing(NO_ROWS)
    first, second = right(before), right(after)
    if first is None or second is None or len(first) != len(second):
        return _changes(before, after, shower)
    lost, won = (np.flatnonzero(a & ~b) for a, b in ((first, second), (second, first)))
    rows = len(first)

    def told(found: np.ndarray) -> tuple[Flip, ...]:
        return tuple(_flip(int(found[i]), before, after, shower, rows) for i in spread(len(found), SHOWN))

    return Flips(
        samples=rows,
        both_right=int((first & second).sum()),
        both_wrong=int((~first & ~second).sum()),
        lost=told(lost),
        won=told(won),
        lost_total=len(lost),
        won_total=len(won),
        p_value=paired.mcnemar(paired.counts(second.astype(int), first.astype(int))),
        why_no_samples=shower.reason(rows),
    )


def _flip(index: int, before: Rows, after: Rows, shower: Shower, rows: int) -> Flip:
    label, first, second = whole(before, "target"), whole(before, "predicted"), whole(after, "predicted")
    shown = {} if label is None or first is None or second is None else {"label": label, "before": first, "after": second}
    return Flip(index=index, sample=shower.sample(index, rows), **{k: shower.name(int(v[index])) for k, v in shown.items()})


def _changes(before: Rows, after: Rows, shower: Shower) -> Changes | Missing:
    """The first numeric column that differs; of several numbers a sample, their mean is shown and their distance decides."""
    for name, first in before.items():
        second = after.get(name)
        if second is None or first.shape != second.shape or first.dtype.kind not in "iufb" or not first.size or np.array_equal(first, second, equal_nan=True):
            continue
        a, b = (np.nan_to_num(x.reshape(len(x), -1).astype(np.float64)) for x in (first, second))
        distance = np.abs(b - a).mean(axis=1)
        order = np.argsort(-distance, kind="stable")[:CHANGES]
        largest = tuple(Change(index=int(i), before=float(a[i].mean()), after=float(b[i].mean()), sample=shower.sample(int(i), len(a))) for i in order if distance[i] > 0)
        return Changes(column=name, samples=len(a), largest=largest, median=float(np.median(distance)), why_no_samples=shower.reason(len(a)))
    return Missing("The rows of this metric hold no numbers that changed, so no sample stands out.")


def confusion(before: Rows | None, after: Rows | None, shower: Shower) -> Confusion | Pairs | Missing:
    """Labels against answers of both models; for many classes the pairs that are mistaken most."""
    if not before or not after:
        return Missing(NO_ROWS)
    labels, first, second = whole(before, "target"), whole(before, "predicted"), whole(after, "predicted")
    if labels is None or first is None or second is None:
        return Missing("The rows of this metric don't hold labels and answers as classes, so there is no confusion to show.")
    size = int(max(c.max(initial=0) for c in (labels, first, second))) + 1
    if min(c.min(initial=0) for c in (labels, first, second)) < 0:
        return Missing("Some labels or answers are negative numbers, so they are no classes.")
    if size <= CLASSES:
        names = tuple(shower.name(i) for i in range(size))
        matrices = (_matrix(labels, answers, size) for answers in (first, second))
        return Confusion(classes=names, before=next(matrices), after=next(matrices))
    return Pairs(classes=size, pairs=_pairs(labels, first, second, size, shower))


def _matrix(labels: np.ndarray, answers: np.ndarray, size: int) -> tuple[tuple[int, ...], ...]:
    counts = np.bincount(labels.astype(np.int64) * size + answers, minlength=size * size).reshape(size, size)
    return tuple(tuple(int(n) for n in row) for row in counts)


def _pairs(labels: np.ndarray, first: np.ndarray, second: np.ndarray, size: int, shower: Shower) -> tuple[tuple[str, str, int, int], ...]:
    found: dict[int, list[int]] = {}
    for number, answers in enumerate((first, second)):
        wrong = labels != answers
        codes, counts = np.unique(labels[wrong].astype(np.int64) * size + answers[wrong], return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            found.setdefault(code, [0, 0])[number] = count
    most = sorted(found.items(), key=lambda entry: (-sum(entry[1]), entry[0]))[:PAIRS]
    return tuple((shower.name(code // size), shower.name(code % size), counts[0], counts[1]) for code, counts in most)
