"""What validation says of the teacher itself, before anything is built on it: classes in another order, no better than a guess."""

from __future__ import annotations

import numpy as np

from limbeck.core.errors import Refusal
from limbeck.core.metric import Metric, Rows
from limbeck.stats.answers import whole
from limbeck.stats.relabelling import relabelling

SHOWN = 8  # classes that are named


def other_order(rows: Rows) -> Refusal | None:
    """Why a teacher whose classes are numbered otherwise than the labels is refused; None if they aren't, or rows tell no classes."""
    labels, answers = whole(rows, "target"), whole(rows, "predicted")
    found = None if labels is None or answers is None else relabelling(labels, answers)
    if found is None:
        return None
    told = ", ".join(f"{k} → {label}" for k, label in found.moved[:SHOWN]) + (f" and {len(found.moved) - SHOWN} more" if len(found.moved) > SHOWN else "")
    classes = list(found.class_of)
    way = f"raw[:, {classes}]" if len(classes) <= 2 * SHOWN else "raw[:, order], order[label] being the teacher's class"
    return Refusal(
        f"The teacher numbers its classes otherwise than the labels do: on {found.samples} validation samples {found.right} of its answers are right as they stand, "
        f"and {found.right_relabelled} if its classes answer to other labels ({told}).",
        f"Put its outputs into the labels' order, as in Task(outputs=lambda raw: {{'logits': {way}}}), or renumber the labels.",
    )


def no_better_than_a_guess(metric: Metric, rows: Rows) -> str | None:
    """What is to be said of a teacher that is right no more often than whoever always answers the most frequent class."""
    labels, answers = whole(rows, "target"), whole(rows, "predicted")
    if metric.proportion is None or labels is None or answers is None or not len(labels):
        return None
    right, guess = int((labels == answers).sum()), int(np.unique(labels, return_counts=True)[1].max())
    if right > guess:
        return None
    return (
        f"the teacher has {right} of {len(labels)} validation samples right, and always answering the most frequent class has {guess}. If it was trained on inputs that were "
        "prepared otherwise (scaled, normalized, cut), put that into its own module, as in nn.Sequential(Normalize(…), model): teacher and student are given the same inputs"
    )
