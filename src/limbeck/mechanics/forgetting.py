"""A guard against forgetting: what was right on validation after the best epoch, and is wrong now, ends the training or is drawn more often.

Toneva et al. 2019 (arXiv:1812.05159) count a forgetting event where a training sample turns from right to wrong between two visits.
Here samples of validation are looked at, which training never sees, and they are compared with the best epoch so far rather than
with the one before: an epoch that merely swings back isn't counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import ConfigError
from limbeck.core.metric import Rows
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.mechanics.data import batches, labels
from limbeck.mechanics.order import Order
from limbeck.mechanics.watch import LABELS, LEARNED

MOST = 4.0  # how many times as often as before a class is drawn, at most
READ = 256  # samples whose labels are read at once
UNLABELLED = -1  # stands for no class, and is drawn as before


def ends(training: Training, row: Mapping[str, Any], best: bool) -> bool:
    """Whether the guard ends the training after this epoch: it forgot more than the limit, and isn't the best so far."""
    return training.forgetting == "stop" and not best and row.get("forgotten", 0.0) > training.forgetting_limit


def class_weights(memory: Mapping[str, np.ndarray], rows: Rows, limit: float) -> dict[int, float]:
    """How much more often each class is to be drawn than before: only those that are, by label.

    A class that keeps the share k < 1 − limit of the validation samples that were right after the best epoch is drawn 1 / k times as
    often, at most 4 times. A net loss counts: as many of its samples may be newly right as became wrong.
    """
    if LABELS not in memory or "target" not in rows or "predicted" not in rows:
        return {}
    right = rows["target"] == rows["predicted"]
    found = {}
    for label, learned in zip(memory[LABELS].tolist(), memory[LEARNED].tolist(), strict=True):
        kept = int(right[rows["target"] == label].sum()) / learned if learned else 1.0
        if kept < 1 - limit:
            found[label] = min(1 / kept, MOST) if kept > 0 else MOST
    return found


def classes_of(task: Task) -> np.ndarray:
    """The class of each training sample; −1 for one without.

    Raises: ConfigError if labels aren't one whole number a sample.
    """
    parts = []
    for ids, batch in batches(task, "train", size=READ):
        found = labels(batch)
        column = None if found is None else torch.as_tensor(found)
        if column is None or column.is_floating_point() or column.numel() != len(ids):
            what = "have none" if column is None else f"are {column.dtype} of shape {list(column.shape)} for {len(ids)} samples"
            raise ConfigError(
                f"training.forgetting = 'weight' draws samples by their class, and the labels of split 'train' of task '{task.name}' {what}. "
                "Set it to 'stop' or 'off', or give one class a sample."
            )
        parts.append(np.maximum(column.flatten().cpu().numpy().astype(np.int64), UNLABELLED))
    return np.concatenate(parts)


def redrawn(order: np.ndarray, weights: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """As many places as `order`, in which a sample stands n · w / Σw times: rounded up or down at random, so that its mean is exact.

    Drawing a sample w times as often is, in expectation, multiplying each of its per-sample losses with w (and dividing all by the
    mean weight); terms that compare samples of a batch see other batches instead. A sample that stands twice is seen twice under the
    epoch's one view. Where all weights are equal, the order is left as it is.

    Args:
        order: The epoch's samples. weights: of every training sample, > 0.
    Source: systematic sampling, Madow & Madow 1944, Annals of Mathematical Statistics 15:1.
    """
    pull = weights[order]
    if np.all(pull == pull[0]):
        return order
    rng = np.random.default_rng([seed, epoch, 1])
    order = order[np.argsort(pull, kind="stable")]  # those of one weight beside each other: what they get together is exact too
    edges = np.cumsum(weights[order]) * (len(order) / pull.sum())
    places = np.searchsorted(edges, rng.random() + np.arange(len(order)), side="right")
    return rng.permutation(order[np.minimum(places, len(order) - 1)])


class Drawing:
    """How often each class is drawn in the epoch that comes; nothing until a class has fallen."""

    def __init__(self, task: Task, order: Order):
        if order.curriculum.labelled_share is not None:
            raise ConfigError("training.forgetting = 'weight' and curriculum.labelled_share both say which samples a batch holds. Leave one of them out.")
        self._classes = classes_of(task)
        self.weights: dict[int, float] = {}

    def order(self, order: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
        """The epoch's order, redrawn."""
        if not self.weights:
            return order
        weights = np.ones(len(self._classes))
        for label, weight in self.weights.items():
            weights[self._classes == label] = weight
        return redrawn(order, weights, seed=seed, epoch=epoch)

    def tensors(self) -> dict[str, Tensor]:
        """What must survive a stop."""
        return {"labels": torch.tensor(list(self.weights), dtype=torch.int64), "weights": torch.tensor(list(self.weights.values()), dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """To what `tensors` gave."""
        self.weights = dict(zip(tensors["labels"].tolist(), tensors["weights"].tolist(), strict=True)) if tensors else {}
