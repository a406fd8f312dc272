"""What the rows of a metric tell of single answers: which there are, which are right, how sure the model was, class by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from limbeck.core.metric import Rows


@dataclass(frozen=True)
class Recalled:
    """One class: its samples, and how many of them a model, and another before it, has right."""

    label: int
    samples: int
    right: int
    before: int

    @property
    def kept(self) -> float | None:
        """The model's recall over the other's, ≥ 0; None where the other has none right."""
        return self.right / self.before if self.before else None


def whole(rows: Rows, name: str) -> np.ndarray | None:
    """The column of this name, if it holds one whole number a sample."""
    column = rows.get(name)
    return column if column is not None and column.ndim == 1 and column.dtype.kind in "iu" else None


def classes(rows: Rows, name: str) -> np.ndarray | None:
    """The column of this name, if it holds one class a sample: a whole number, a bool, or its name."""
    column = rows.get(name)
    return column if column is not None and column.ndim == 1 and column.dtype.kind in "iubU" else None


def right(rows: Rows) -> np.ndarray | None:
    """One bool a sample where the metric is right-or-wrong, or tells labels from answers."""
    correct = rows.get("correct")
    if correct is not None and correct.ndim == 1 and np.isin(correct, (0, 1)).all():
        return correct.astype(bool)
    labels, answers = classes(rows, "target"), classes(rows, "predicted")
    return None if labels is None or answers is None else labels == answers


def trust(rows: Rows | None) -> tuple[np.ndarray, np.ndarray] | None:
    """How sure a model was of each answer, and whether it was right; None where the rows don't say."""
    if rows is None or "confidence" not in rows or rows["confidence"].ndim != 1 or not len(rows["confidence"]):
        return None
    answers, labels = whole(rows, "predicted"), whole(rows, "target")
    correct = answers == labels if answers is not None and labels is not None else rows.get("correct")
    if correct is None or not np.isin(correct, (0, 1)).all():
        return None
    return rows["confidence"].astype(np.float64), correct.astype(np.float64)


def agreement(rows: Rows, others: Rows) -> float | None:
    """The share of samples to which two models give the same answer, right or wrong."""
    first, second = classes(rows, "predicted"), classes(others, "predicted")
    return float((first == second).mean()) if first is not None and second is not None and len(first) == len(second) and len(first) else None


def recalls(rows: Rows, before: np.ndarray) -> tuple[Recalled, ...]:
    """Every class that is a label, in order; `before` says which samples the other has right. Empty where rows tell no classes."""
    labels, answers = whole(rows, "target"), whole(rows, "predicted")
    if labels is None or answers is None or len(before) != len(labels):
        return ()
    classes, where = np.unique(labels, return_inverse=True)
    counts = [np.bincount(where, weights=w, minlength=len(classes)).astype(int) for w in (np.ones(len(labels)), answers == labels, before)]
    return tuple(Recalled(int(label), *(int(c[i]) for c in counts)) for i, label in enumerate(classes))
