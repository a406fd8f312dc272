"""Whether a model's answers fit the labels under another numbering of its classes than its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from limbeck.stats import paired

SURE = 0.999  # of the bound on what the other numbering gains
LEAST = 0.05  # share of the samples that it must gain at least, by that bound
MOST = 5000  # classes; the assignment grows with their cube


@dataclass(frozen=True)
class Relabelling:
    """Another numbering of a model's classes, and how many samples that had no part in finding it are right with and without."""

    label_of: tuple[int, ...]  # the model's class → the label that it answers to
    samples: int
    right: int
    right_relabelled: int

    @property
    def moved(self) -> tuple[tuple[int, int], ...]:
        """(the model's class, the label) where they differ."""
        return tuple((k, label) for k, label in enumerate(self.label_of) if k != label)

    @property
    def class_of(self) -> tuple[int, ...]:
        """The label → the model's class: in this order its outputs fit the labels."""
        return tuple(int(k) for k in np.argsort(self.label_of))


def relabelling(labels: np.ndarray, answers: np.ndarray) -> Relabelling | None:
    """The numbering under which the answers fit the labels far better than as they are; None if there is no such.

    The assignment of classes to labels that has most samples right (Kuhn 1955, NRLQ 2:83) is found on one half of the samples, drawn
    at random, and judged on the other: there its gain must be at least 5 points, by a one-sided bound at 99.9 %.

    Args:
        labels, answers: One whole number ≥ 0 a sample.
    """
    from scipy.optimize import linear_sum_assignment

    size = int(max(labels.max(initial=0), answers.max(initial=0))) + 1
    if len(labels) < 4 or size < 2 or size > MOST or min(labels.min(initial=0), answers.min(initial=0)) < 0:
        return None
    order = np.random.default_rng(0).permutation(len(labels))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    counts = np.bincount(answers[half].astype(np.int64) * size + labels[half], minlength=size * size).reshape(size, size)
    found = linear_sum_assignment(counts + np.eye(size) / (2 * size), maximize=True)[1]  # among equals, as they are
    plain, moved = answers[rest] == labels[rest], found[answers[rest]] == labels[rest]
    if paired.difference_lower(paired.counts(moved.astype(int), plain.astype(int)), SURE) < LEAST:
        return None
    return Relabelling(tuple(int(k) for k in found), len(rest), int(plain.sum()), int(moved.sum()))
