"""What the labels say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import TaskError
from limbeck.core.task import Task
from limbeck.mechanics.data import labels
from limbeck.mechanics.objective import Outputs, Seen, Term
from limbeck.mechanics.taps import PREFIX

Target = Literal["", "class", "token", "value"]
IGNORED = -100  # the label that a token-level loss passes over


def task_loss(
    *, target: Annotated[Literal["", "class", "token", "value"], "what the labels are, where the term acts on another output than the metric's; empty: what the metric says"] = ""
) -> Term:
    """The task's own loss, averaged over the batch; without one, what the metric's target asks for. With `target`, that loss.

    "class": cross-entropy in nats; "token": cross-entropy over tokens that aren't labelled −100, averaged by sample;
    "value": squared error, averaged over a sample's values.
    A sample that was mixed with another (`Views.mixup`, `cutmix`) has λ of the loss with its own label and 1 − λ of that with its partner's:
    Zhang et al. 2018, arXiv:1710.09412, §2. A partner without a label (−100) adds nothing.
    Raises: TaskError if labels are missing, out of range, or of another shape than the outputs.
    """
    return Term("task_loss", lambda seen: _task_loss(seen, target), labels=True, mixes=True)


def _task_loss(seen: Seen, target: Target) -> Tensor:
    losses = _losses(seen, seen.batch, target)
    return (seen.mixed.blend(losses, _losses(seen, seen.mixed.batch, target)) if seen.mixed else losses).mean()


def _losses(seen: Seen, batch: Any, target: Target) -> Tensor:
    """One loss a sample, by this batch's labels."""
    task = seen.task
    losses = task.loss(seen.student, batch) if task.loss and not target else default_losses(task, seen.student, batch, target=target)
    if losses.dim() != 1:
        raise TaskError(f"task '{task.name}'.loss must give one loss a sample, got shape {tuple(losses.shape)}. Don't reduce it over the batch.")
    return losses


def default_losses(task: Task, student: Outputs, batch: Any, *, target: Target = "") -> Tensor:
    """One loss a sample, as `target` or else the metric's target says."""
    label, kind = labels(batch), target or task.metric.target
    if label is None:
        raise TaskError(f"task '{task.name}': the batch has no labels for task_loss. Give samples as (input, label), or a Task.loss.")
    if kind not in ("class", "token", "value"):
        raise TaskError(f"task '{task.name}': metric '{task.metric.name}' doesn't say what is predicted, so there is no default loss. Give Task.loss.")
    scores = main_output(task, student)
    return {"class": _class_losses, "token": _token_losses, "value": _value_losses}[kind](scores, torch.as_tensor(label), task)


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
        raise TaskError(
            f"task '{task.name}': label {bad[0].item()} is outside [0, {classes - 1}], the classes that the model has. Renumber the labels, or give it more classes (or words)."
        )


def _class_losses(scores: Tensor, target: Tensor, task: Task) -> Tensor:
    if scores.dim() == 1 or scores.shape[-1] == 1:
        label = target.to(scores.device, scores.dtype).reshape(len(scores))
        return F.binary_cross_entropy_with_logits(scores.reshape(len(scores)), label, reduction="none") * (label != IGNORED)
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
