"""What the labels say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import TaskError
from limbeck.core.task import Task
from limbeck.mechanics.data import labels
from limbeck.mechanics.objective import Outputs, Seen, Term
from limbeck.mechanics.taps import PREFIX

IGNORED = -100  # the label that a token-level loss passes over


def task_loss() -> Term:
    """The task's own loss, averaged over the batch; without one, what the metric's target asks for.

    "class": cross-entropy in nats; "token": cross-entropy over tokens that aren't labelled −100, averaged by sample;
    "value": squared error, averaged over a sample's values.
    Raises: TaskError if labels are missing, out of range, or of another shape than the outputs.
    """
    return Term("task_loss", _task_loss, labels=True)


def _task_loss(seen: Seen) -> Tensor:
    task = seen.task
    losses = task.loss(seen.student, seen.batch) if task.loss else default_losses(task, seen.student, seen.batch)
    if losses.dim() != 1:
        raise TaskError(f"task '{task.name}'.loss must give one loss a sample, got shape {tuple(losses.shape)}. Don't reduce it over the batch.")
    return losses.mean()


def default_losses(task: Task, student: Outputs, batch: Any) -> Tensor:
    """One loss a sample, as the metric's target says."""
    target = labels(batch)
    if target is None:
        raise TaskError(f"task '{task.name}': the batch has no labels for task_loss. Give samples as (input, label), or a Task.loss.")
    if task.metric.target not in ("class", "token", "value"):
        raise TaskError(f"task '{task.name}': metric '{task.metric.name}' doesn't say what is predicted, so there is no default loss. Give Task.loss.")
    scores = main_output(task, student)
    target = torch.as_tensor(target)
    return {"class": _class_losses, "token": _token_losses, "value": _value_losses}[task.metric.target](scores, target, task)


def main_output(task: Task, outputs: Mapping[str, Tensor]) -> Tensor:
    """The output that losses act on: "logits", or the only one."""
    return outputs[main_name(task, outputs)]


def main_name(task: Task, outputs: Mapping[str, Any]) -> str:
    """Which of the outputs `main_output` is; what is tapped isn't one. Raises TaskError if there are several and none is "logits"."""
    named = [name for name in outputs if not name.startswith(PREFIX)]
    if "logits" in named or len(named) == 1:
        return "logits" if "logits" in named else named[0]
    raise TaskError(f"task '{task.name}' has the outputs {', '.join(named)} and none is called 'logits'. Name the main one so in Task.outputs, or give Task.loss.")


def in_range(target: Tensor, classes: int, task: Task) -> None:
    """Raises TaskError for a label that the model has no class for; −100 stands for none."""
    bad = target[(target != IGNORED) & ((target < 0) | (target >= classes))]
    if len(bad):
        raise TaskError(f"task '{task.name}': label {bad[0].item()} is outside [0, {classes - 1}], the classes that the model has. Renumber the labels.")


def _class_losses(scores: Tensor, target: Tensor, task: Task) -> Tensor:
    if scores.dim() == 1 or scores.shape[-1] == 1:
        return F.binary_cross_entropy_with_logits(scores.reshape(len(scores)), target.to(scores.dtype).reshape(len(scores)), reduction="none")
    in_range(target, scores.shape[-1], task)
    return F.cross_entropy(scores, target.long(), reduction="none")


def _token_losses(scores: Tensor, target: Tensor, task: Task) -> Tensor:
    in_range(target, scores.shape[-1], task)
    losses = F.cross_entropy(scores.flatten(0, 1), target.long().flatten(), reduction="none", ignore_index=IGNORED).view(target.shape)
    return losses.sum(1) / (target != IGNORED).sum(1).clamp(min=1)


def _value_losses(scores: Tensor, target: Tensor, task: Task) -> Tensor:
    if scores.numel() != target.numel():
        raise TaskError(f"task '{task.name}': labels of shape {tuple(target.shape)} don't match outputs of shape {tuple(scores.shape)}. Make them equal.")
    return (
        (scores - target.to(scores.dtype).reshape(scores.shape)).square().flatten(1).mean(1)
        if scores.dim() > 1
        else (scores - target.to(scores.dtype).reshape(scores.shape)).square()
    )
