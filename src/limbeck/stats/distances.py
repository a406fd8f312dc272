"""How far two models' answers to the same questions lie apart: as distributions over classes, or as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST = 1e-12  # a probability below is taken for this, so that a logarithm is finite
SUM = 1e-3  # by which rows of probabilities may miss 1
BINS = 20


@dataclass(frozen=True)
class Compared:
    """One entry a row of logits.

    kl: KL(baseline ‖ candidate) in nats, ≥ 0. before, after: the classes answered. sure_before, sure_after: their probabilities.
    margin: of the baseline, its greatest probability less the next. held: the same margin of the candidate for the baseline's
    answer; below 0 it answers something else.
    """

    kl: np.ndarray
    before: np.ndarray
    after: np.ndarray
    sure_before: np.ndarray
    sure_after: np.ndarray
    margin: np.ndarray
    held: np.ndarray


def are_probabilities(values: np.ndarray) -> bool:
    """Whether rows are distributions already: at least two numbers in [0, 1], and they add up to 1."""
    return values.shape[1] > 1 and bool(((values >= 0) & (values <= 1)).all() and (np.abs(values.sum(axis=1) - 1) <= SUM).all())


def log_probabilities(values: np.ndarray, *, given: bool = False) -> np.ndarray:
    """Logits [rows, classes] as logarithms of probabilities in float64, ≥ log 1e-12; a single logit is one of two classes. `given`: they are probabilities."""
    values = values.astype(np.float64)
    if given:
        return np.log(np.maximum(values, LEAST))
    if values.shape[1] == 1:
        values = np.concatenate([np.zeros_like(values), values], axis=1)
    top = values.max(axis=1, keepdims=True)
    shifted = np.where(np.isposinf(top), np.where(np.isposinf(values), 0.0, -np.inf), values - np.where(np.isfinite(top), top, 0.0))
    with np.errstate(divide="ignore"):
        found = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.maximum(found, np.log(LEAST))


def compared(baseline: np.ndarray, candidate: np.ndarray) -> Compared:
    """Of rows of log probabilities, at least two classes.

    Source: Kullback & Leibler 1951, Annals of Mathematical Statistics 22:79.
    """
    p, q = np.exp(baseline), np.exp(candidate)
    rows, before = np.arange(len(p)), p.argmax(axis=1)
    own, others = q[rows, before], q.copy()
    others[rows, before] = -1.0
    ordered = np.partition(p, -2, axis=1)
    return Compared(
        kl=np.maximum((p * (baseline - candidate)).sum(axis=1), 0.0),
        before=before,
        after=q.argmax(axis=1),
        sure_before=p.max(axis=1),
        sure_after=q.max(axis=1),
        margin=ordered[:, -1] - ordered[:, -2],
        held=own - others.max(axis=1),
    )


def joined(parts: list[Compared]) -> Compared:
    return Compared(**{name: np.concatenate([vars(p)[name] for p in parts]) for name in vars(parts[0])})


def quantiles(values: np.ndarray, levels: Mapping[str, float]) -> dict[str, float]:
    return {"mean": float(values.mean())} | {name: float(np.quantile(values, level)) for name, level in levels.items()}


def histogram(values: np.ndarray, low: float, high: float, right: np.ndarray | None = None) -> dict[str, Any]:
    """Counts in 20 equal bins; of those that are right and wrong apart, where that is known."""
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    inside = np.clip(values, edges[0], edges[-1])

    def counted(mask: np.ndarray) -> list[int]:
        return np.histogram(inside[mask], edges)[0].tolist()

    if right is None:
        return {"all": counted(np.ones(len(values), dtype=bool))}
    return {"right": counted(right), "wrong": counted(~right)}
