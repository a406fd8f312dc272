"""A term that looks at one of several outputs, and at the labels that belong to it: several tasks in one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from limbeck.core.errors import TaskError, near
from limbeck.core.task import Task
from limbeck.mechanics.data import LABELS, named_outputs
from limbeck.mechanics.objective import Outputs, Seen, Term, Wiring
from limbeck.mechanics.taps import PREFIX

MAIN = "logits"  # what the one output that is left is called, so that a term takes it for the main one


def focused(term: Term, *, output: str = "", teacher_output: str = "", labels: str = "") -> Term:
    """The term, on one named output of student and teacher, and on one named entry of the batch as its labels.

    Args:
        output: The student's output; empty: as the term does without this.
        teacher_output: The teacher's; empty: the one of the same name, or the teacher's main output if it has none of that name.
        labels: Of a dict the key, of a tuple the position, of the labels; empty: the usual place.
    The task's own loss knows nothing of single outputs: a focused `task_loss` takes the default loss of the metric's target, or of its own.
    Raises: TaskError, when it is called, for an output or labels that aren't there, with what is.
    """
    if not (output or teacher_output or labels):
        return term

    def narrowed(seen: Seen) -> Seen:
        student = _one(seen.student, output, "student") if output else seen.student
        wanted = teacher_output or (output if output in seen.teacher else "")
        teacher = _one(seen.teacher, wanted, "teacher") if wanted else seen.teacher
        task = _narrowed_task(seen.task, output) if output or labels else seen.task
        mixed = replace(seen.mixed, batch=relabelled(seen.mixed.batch, labels)) if labels and seen.mixed else seen.mixed
        return replace(seen, task=task, student=student, teacher=teacher, batch=relabelled(seen.batch, labels) if labels else seen.batch, mixed=mixed)

    builds = term.builds
    found = replace(term, function=lambda seen: term.function(narrowed(seen)), reads="outputs" if isinstance(term.reads, (int, float)) else term.reads)
    if builds is None:
        return found
    return replace(found, builds=lambda wiring: builds(_narrowed_wiring(wiring, narrowed, output, teacher_output)))


def _narrowed_task(task: Task, output: str) -> Task:
    """The task as a term sees it that asks a model of its own (peers, an average, the student's start): of what that says, the one output."""
    if not output:
        return replace(task, loss=None)
    return replace(task, loss=None, outputs=lambda raw: _one(named_outputs(task, raw), output, "model"))


def relabelled(batch: Any, key: str) -> Any:
    """The batch with this entry as its labels. Raises TaskError for an entry that isn't there."""
    if isinstance(batch, Mapping):
        if key not in batch:
            raise TaskError(f"the batch has no entry '{key}' for a term's labels. {near(key, batch)}")
        return {**{k: v for k, v in batch.items() if k not in LABELS}, LABELS[0]: batch[key]}
    if isinstance(batch, (tuple, list)) and key.lstrip("-").isdigit() and -len(batch) <= int(key) < len(batch):
        return (batch[0], batch[int(key)])
    shown = f"{len(batch)} entries" if isinstance(batch, (tuple, list)) else type(batch).__name__
    raise TaskError(f"a term's labels must be the key of an entry of a dict, or the position in a tuple, got '{key}' for a batch of {shown}.")


def _one(outputs: Outputs, name: str, side: str) -> Outputs:
    if name not in outputs:
        named = [n for n in outputs if not n.startswith(PREFIX)]
        raise TaskError(f"the {side} has no output '{name}' for a term. {near(name, named)} Task.outputs names them.")
    return {MAIN: outputs[name], **{k: v for k, v in outputs.items() if k.startswith(PREFIX)}}


def _narrowed_wiring(wiring: Wiring, narrowed: Any, output: str, teacher_output: str) -> Wiring:
    def shapes(found: Mapping[str, tuple[int, ...]], name: str) -> dict[str, tuple[int, ...]]:
        return {MAIN: found[name], **{k: v for k, v in found.items() if k.startswith(PREFIX)}} if name in found else dict(found)

    return replace(
        wiring,
        task=_narrowed_task(wiring.task, output),
        student_shapes=shapes(wiring.student_shapes, output),
        teacher_shapes=shapes(wiring.teacher_shapes, teacher_output or output),
        batches=lambda: map(narrowed, wiring.batches()),
    )
