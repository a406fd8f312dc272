"""What is said of a model itself before anything is built on its figures: classes in another order, no better than a guess."""

from __future__ import annotations

import numpy as np

from limbeck.core.errors import Refusal
from limbeck.core.metric import Metric, Rows
from limbeck.stats.answers import whole
from limbeck.stats.relabelling import Relabelling, relabelling

SHOWN = 8  # classes that are named


def other_order(rows: Rows) -> Refusal | None:
    """Why a teacher whose classes are numbered otherwise than the labels is refused; None if they aren't, or rows tell no classes."""
    found = _found(rows)
    if found is None:
        return None
    told = _told(found)
    classes = list(found.class_of)
    way = f"raw[:, {classes}]" if len(classes) <= 2 * SHOWN else "raw[:, order], order[label] being the teacher's class"
    return Refusal(
        f"The teacher numbers its classes otherwise than the labels do: on {found.samples} validation samples {found.right} of its answers are right as they stand, "
        f"and {found.right_relabelled} if its classes answer to other labels ({told}).",
        f"Put its outputs into the labels' order, as in Task(outputs=lambda raw: {{'logits': {way}}}), or renumber the labels.",
    )


def relabelled(rows: Rows, split: str) -> str | None:
    """What is to be said of a model whose classes are numbered otherwise than the labels; None if they aren't, or rows tell no classes."""
    found = _found(rows)
    if found is None:
        return None
    return (
        f"it numbers its classes otherwise than the labels do: on {found.samples} samples of {split} {found.right} of its answers are right as they stand, and "
        f"{found.right_relabelled} if its classes answer to other labels ({_told(found)}). Put its outputs into the labels' order; until then its quality says nothing"
    )


def _found(rows: Rows) -> Relabelling | None:
    labels, answers = whole(rows, "target"), whole(rows, "predicted")
    return None if labels is None or answers is None or len(labels) != len(answers) else relabelling(labels, answers)


def _told(found: Relabelling) -> str:
    return ", ".join(f"{k} → {label}" for k, label in found.moved[:SHOWN]) + (f" and {len(found.moved) - SHOWN} more" if len(found.moved) > SHOWN else "")


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
