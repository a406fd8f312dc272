"""What the teacher says of the task's own samples, before anything is spent: numbers, by name, for labels that it has classes for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import TaskError
from limbeck.core.foreign import users_code
from limbeck.core.plan import Stage
from limbeck.core.task import Task
from limbeck.intake.fingerprint import CHOSEN, spread
from limbeck.mechanics.data import batch_of, batches, labels, predict

NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
LOOKED_AT = 64  # samples of each split that the teacher answers here
BATCH = 256
ALL_LABELS = 100_000  # samples of a split up to which every label is looked at
IGNORED = -100  # the label that losses pass over


def check_answers(task: Task, teacher: nn.Module) -> None:
    """Run the teacher on the first samples of each split, and look at all labels of a metric on classes.

    Raises: TaskError if the model doesn't run on them, its outputs have no names or hold NaN, the metric can't read them, or a
    label isn't one of the teacher's classes, in whichever split.
    """
    modes = {module: module.training for module in teacher.modules()}
    teacher.eval()
    for split in ("train", "validation", "test"):
        outputs = _answers(task, teacher, split)
        with users_code(f"task '{task.name}': metric '{task.metric.name}'"):
            if split == "train":
                _check_training_labels(task, outputs)
            else:
                _check_judged(task, split, outputs)
    for module, training in modes.items():
        module.training = training


def unlabelled(task: Task) -> bool:
    """Whether nothing tells the default loss what is right: the training samples have no labels, and the task has no loss of its own."""
    return task.loss is None and labels(batch_of(task, "train", [0, 1])) is None


def check_labels_for(task: Task, stages: Iterable[Stage]) -> None:
    """Raises TaskError if a recovery learns from labels that the training samples don't have. A technique's own terms say so themselves."""
    for stage in stages:
        if stage.recovery and stage.recovery.training.epochs and stage.recovery.teacher_weight < 1 and unlabelled(task):
            raise TaskError(
                f"stage '{stage.title}' recovers on labels (recovery.teacher_weight = {stage.recovery.teacher_weight:g}), "
                f"but the training samples of task '{task.name}' have none. Give samples as (input, label), or set recovery.teacher_weight = 1."
            )


def _answers(task: Task, teacher: nn.Module, split: str) -> dict[str, Tensor]:
    ids = range(min(LOOKED_AT, len(task.split(split))))
    batch = batch_of(task, split, ids)
    with torch.no_grad(), users_code(f"task '{task.name}': the model '{task.teacher}' doesn't run on a batch of split '{split}'", always=True):
        outputs = predict(task, teacher, batch)
    for name, value in outputs.items():
        if not NAME.fullmatch(str(name)):
            raise TaskError(f"task '{task.name}': an output must be named by letters, digits, '_', '.' and '-', got {name!r}: files are named after it. Rename it in Task.outputs.")
        if value.dim() == 0 or len(value) != len(ids):
            raise TaskError(
                f"task '{task.name}': output '{name}' must have one entry a sample ({len(ids)}), got a shape of {list(value.shape)}. Put the batch first in Task.outputs."
            )
        if value.is_floating_point() and torch.isnan(value).any():
            sample = int(torch.isnan(value).flatten(1).any(1).nonzero()[0]) if value.dim() > 1 else int(torch.isnan(value).nonzero()[0])
            raise TaskError(f"task '{task.name}': the teacher's output '{name}' is NaN for sample {sample} of split '{split}'. Look at this input and at the weights.")
    return outputs


def _check_judged(task: Task, split: str, outputs: Mapping[str, Tensor]) -> None:
    """The metric itself reads the answers; for classes it reads every label, against one answer that is shown again and again."""
    arrays = {name: value.float().numpy() if value.dtype is torch.bfloat16 else value.numpy() for name, value in outputs.items()}
    looked_at = len(next(iter(arrays.values())))
    task.metric.rows(arrays, batch_of(task, split, range(looked_at)))
    if task.metric.target != "class":
        return
    for ids, batch in batches(task, split, size=BATCH, ids=_ids(task, split)):
        try:
            task.metric.rows({name: np.repeat(value[:1], len(ids), axis=0) for name, value in arrays.items()}, batch)
        except TaskError as error:
            raise TaskError(f"split '{split}', samples {ids[0]} to {ids[-1]}: {error}") from error


def _check_training_labels(task: Task, outputs: Mapping[str, Tensor]) -> None:
    """What the default loss will read. Samples without labels are fine: some techniques need none."""
    main = outputs.get("logits", next(iter(outputs.values())))
    if task.loss or task.metric.target != "class" or main.dim() != 2 or labels(batch_of(task, "train", [0, 1])) is None:
        return
    classes = max(2, main.shape[1])
    for ids, batch in batches(task, "train", size=BATCH, ids=_ids(task, "train")):
        found = torch.as_tensor(labels(batch)).flatten()
        wrong = ((found != IGNORED) & ((found < 0) | (found >= classes))).nonzero()
        if len(wrong) and not found.is_floating_point():
            label, sample = found[wrong[0]].item(), ids[int(wrong[0]) * len(ids) // len(found)]
            raise TaskError(
                f"task '{task.name}': labels of split 'train' must be in [0, {classes}), the classes of '{task.teacher}', got {label} at sample {sample}. Renumber the labels."
            )


def _ids(task: Task, split: str) -> list[int]:
    size = len(task.split(split))
    return spread(size, size if size <= ALL_LABELS else CHOSEN)
