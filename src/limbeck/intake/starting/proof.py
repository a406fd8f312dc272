"""A written task is loaded and tried like any run would, before its files get their names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from limbeck.core.candidate import TorchForm
from limbeck.core.errors import TaskError
from limbeck.core.foreign import users_code
from limbeck.core.task import Task
from limbeck.intake.answers import check_answers
from limbeck.intake.checks import check
from limbeck.intake.load import load_task
from limbeck.mechanics.build import runnable, teacher_candidate
from limbeck.mechanics.data import batches, predict

LOOKED_AT = 256  # samples of validation on which the teacher is tried


@dataclass(frozen=True)
class Proof:
    """What the trial showed: the teacher's parameters if torch can count them, its metric on some of validation, and a word about it."""

    parameters: int | None
    metric: float | None = None
    note: str = ""


def prove(files: Mapping[str, str], folder: Path, *, trained: bool) -> Proof:
    """Load the task as it would be written and look at it as a run does: splits, labels, weights, answers.

    Raises: TaskError for what a run would refuse; no file is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {name: folder / (f".init-{os.getpid()}-{name}" if name == "task.py" else name) for name in files if name != "train_teacher.py"}
    kept = {path: path.read_bytes() if path.exists() else None for path in names.values()}
    try:
        for name, path in names.items():
            path.write_text(files[name], encoding="utf-8")
        return _tried(load_task(f"{names['task.py'].name}:task", base=folder), trained)
    except TaskError as error:
        raise TaskError(f"model and data don't fit together as they are: {str(error).replace(names['task.py'].name, 'task.py')}") from error
    finally:
        for path, before in kept.items():
            if before is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(before)


def _tried(task: Task, trained: bool) -> Proof:
    task = task if trained else replace(task, weights={})
    with users_code("the data", always=True):
        notes = check(task).notes
    with torch.random.fork_rng(devices=[]):
        candidate = teacher_candidate(task)
    model = runnable(candidate.form, task)
    check_answers(task, model)
    parameters = sum(p.numel() for p in model.parameters()) if isinstance(candidate.form, TorchForm) else None
    if not trained:
        return Proof(parameters, note=" ".join(notes))
    value, guessed = _metric(task, model)
    return Proof(parameters, value, " ".join((*notes, *_doubt(task, value, guessed))))


def _metric(task: Task, model: torch.nn.Module) -> tuple[float | None, float]:
    """The teacher's metric on the first samples of validation (None where so few say nothing), and the one of always giving one answer."""
    count = min(LOOKED_AT, len(task.split("validation")))
    rows, guesses = [], []
    with torch.no_grad():
        for _, batch in batches(task, "validation", size=64, ids=range(count)):
            answers = {k: v.float().numpy() for k, v in predict(task, model, batch).items()}
            rows.append(task.metric.rows(answers, batch))
            same = {k: np.repeat(v.mean(0, keepdims=True), len(v), axis=0) for k, v in answers.items()}
            guesses.append(task.metric.rows(same, batch))
    value, guessed = (task.metric.reduce({key: np.concatenate([r[key] for r in of]) for key in of[0]}) for of in (rows, guesses))
    return (None if np.isnan(value) else float(value)), float(guessed)


def _doubt(task: Task, value: float | None, guessed: float) -> tuple[str, ...]:
    """A word where the teacher does no better than always giving one answer."""
    if value is None or np.isnan(guessed) or task.metric.drop(value, guessed) < 0:
        return ()
    return (f"the teacher gets {task.metric.name} {value:.3f} on validation, and one answer for all {guessed:.3f}: are weights, classes' order and preprocessing right?",)
