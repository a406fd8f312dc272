"""What a technique that trains with a teacher asks: which teacher, joined how, under which objective, in which order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.candidate import Candidate
from limbeck.core.errors import ConfigError
from limbeck.core.fields import Hint, Range
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.core.technique import Context, Reads, Selective, Signals
from limbeck.mechanics.build import runnable, teacher_candidate
from limbeck.mechanics.committee import Join, committee
from limbeck.mechanics.data import Reader, arguments, batch_of, labels
from limbeck.mechanics.every_head import on_every_head
from limbeck.mechanics.objective import Balance, BoundObjective, Objective
from limbeck.mechanics.on_policy import OnPolicy, writing
from limbeck.mechanics.order import Curriculum, Order
from limbeck.mechanics.taps import shapes
from limbeck.mechanics.terms import ALL, kd, logit_mse, task_loss
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.task_loss import IGNORED, main_output
from limbeck.mechanics.train import fit
from limbeck.mechanics.watch import Watch

INPUT = "input"  # the candidate that the stage begins with, as teacher
RANKED = 256  # samples that are ranked at once


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """The options that techniques with a teacher share."""

    teacher: Annotated[
        str,
        Hint("'' is the task's teacher, 'input' what the stage begins with."),
        "who teaches: the task's teacher if empty, `input`, or a model of Task.models",
    ] = ""
    join: Annotated[
        Join,
        "how an ensemble's members are joined: as the task says, the mean of `outputs` or of `probabilities`, by each one's `confidence` in a sample, "
        "by weights `learned` on validation, or as `specialists` of classes",
    ] = "task"
    term: Annotated[Literal["kd", "logit_mse"], "what is matched: softened probabilities, or the outputs themselves (regression)"] = "kd"
    temperature: Annotated[float, Range(0, None, closed="neither"), "softening of both softmaxes, for kd"] = 4.0
    teacher_weight: Annotated[
        float, Range(0, 1), Hint("It is a fraction; the labels get the rest. 0 trains without a teacher."), "weight of the teacher's term; the labels get the rest"
    ] = 0.9
    terms: Annotated[tuple[Entry, ...], "the whole objective, instead of `term`, `temperature` and `teacher_weight`"] = ()
    balance: Annotated[Balance, "the terms' weights as they are given, or each multiplied by what its own `uncertainty` says, which is learned"] = "static"
    curriculum: Annotated[Curriculum, "which samples are seen when"] = field(default_factory=Curriculum)
    on_policy: Annotated[OnPolicy | None, "language models: in a share of the steps the student writes, and the teacher judges what it wrote"] = None
    training: Annotated[Training, "how long and how fast"] = field(default_factory=Training)

    def __post_init__(self) -> None:
        objective_of(self.terms, ALL)

    @property
    def objective(self) -> Objective:
        """The sum of terms that is asked for."""
        if self.terms:
            return objective_of(self.terms, ALL).balanced(self.balance)
        teacher = kd(temperature=self.temperature) if self.term == "kd" else logit_mse()
        return ((1 - self.teacher_weight) * task_loss() + self.teacher_weight * teacher).balanced(self.balance)


def taught(model: nn.Module, teaching: Teaching, *, candidate: Candidate, context: Context, monitor: Watch, note: str) -> dict[str, Any]:
    """Train `model` in place as `teaching` says; the claims: history, and the teacher's layers that "auto" stood for.

    Args:
        candidate: What the stage begins with, for teacher = "input".
    Raises: as `Objective.bind` and `fit`.
    """
    task = context.task
    objective = teaching.objective if teaching.terms else on_every_head(teaching.objective, task, model)
    shapes(model, objective.taps("student_taps"), *arguments(task, batch_of(task, "train", [0, 1])))  # refuses a path that isn't there
    source = source_of(teaching, candidate, context) if objective.needs_teacher or teaching.on_policy or teaching.curriculum.by != "none" else None
    bound = objective.bind(task, source, model, seed=context.rng.seed)
    order = order_of(teaching, task, source, seed=context.rng.seed)
    rewrite = writing(teaching.on_policy, task, source, model, seed=context.rng.seed) if teaching.on_policy and source else None
    history = fit(model, bound, teaching.training, seed=context.rng.seed, checkpoint=context.checkpoint, log=context.log, monitor=monitor, note=note, rewrite=rewrite, order=order)
    return {"history": history} | matched(bound)


def matched(bound: BoundObjective) -> dict[str, Any]:
    """The teacher's layers that "auto" stood for, as a claim."""
    told = [{"student": m.student.path, "teacher": m.teacher.path} | ({} if m.cka is None else {"cka": round(m.cka, 4)}) for m in bound.matches]
    return {"matched": told} if told else {}


def teacher_of(teaching: Teaching, candidate: Candidate, context: Context) -> Candidate:
    """The model that teaches. Raises ConfigError for a model without weights, TaskError for an unknown name."""
    task, name = context.task, teaching.teacher
    if name == INPUT:
        return candidate
    if name and name != task.teacher:
        task.model(name)
        if task.weights.get(name) is None:
            raise ConfigError(f"teacher = '{name}' has no trained weights in Task.weights. Give them, or name a model that has some.")
    return teacher_candidate(task, name or None)


def source_of(teaching: Teaching, candidate: Candidate, context: Context) -> Signals:
    """Its answers. Raises ConfigError for a join without an ensemble; as `teacher_of`."""
    if teaching.join == "task":
        return context.signals if teaching.teacher in ("", context.task.teacher) else context.answers(teacher_of(teaching, candidate, context))
    teacher = teacher_of(teaching, candidate, context)
    return committee(context.task, runnable(teacher.form, context.task), teaching.join, lambda: context.answers(teacher, apart=True))


def order_of(teaching: Teaching, task: Task, source: Signals | None, *, seed: int) -> Order:
    """The order of samples that the curriculum asks for. Raises ConfigError where the labels or the teacher that it reads are missing."""
    curriculum, count = teaching.curriculum, len(task.split("train"))
    ranking = None
    if curriculum.by != "none":
        if source is None:
            raise ConfigError(f"curriculum.by = '{curriculum.by}' asks the teacher, and there is none. Leave it out.")
        if curriculum.by == "difficulty" and task.views and task.views.mixes:
            raise ConfigError("curriculum.by = 'difficulty' compares the teacher's answer to a view with the sample's label, and a mixed view has two. Take 'confidence'.")
        ranking = np.argsort(ranks(task, source, curriculum.by), kind="stable")
    labelled = _labelled(task) if curriculum.labelled_share is not None else None
    return Order(seed, count, min(teaching.training.batch_size, count), teaching.training.epochs, curriculum, ranking, labelled)


def ranks(task: Task, source: Signals, by: str) -> np.ndarray:
    """How hard each training sample is, as it is, for the teacher: [samples].

    "confidence": the entropy of its answer, in nats. "difficulty": its cross-entropy with the label, or squared error; unlabelled samples
    count as the hardest. Of several rows (tokens) the mean.
    """
    source = source.serving(Reads(("the curriculum",))) if isinstance(source, Selective) else source
    reader, count = Reader(task, "train"), len(task.split("train"))
    found = []
    for start in range(0, count, RANKED):
        ids = np.arange(start, min(count, start + RANKED))
        batch = reader.batch(ids)
        args, kwargs = task.views.apply_to(task, batch, ids, np.zeros(len(ids), np.int64)) if task.views else arguments(task, batch)
        answer = main_output(task, source.teacher(ids, 0, args, kwargs)).float()
        found.append(_entropy(answer) if by == "confidence" else _hard(task, answer, batch))
    return torch.cat(found).numpy()


def _entropy(answer: Tensor) -> Tensor:
    if answer.dim() < 2 or answer.shape[-1] < 2:
        raise ConfigError(f"curriculum.by = 'confidence' is of class probabilities; the teacher's output is {list(answer.shape)}. Take 'difficulty'.")
    logs = answer.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1).reshape(len(answer), -1).mean(1)


def _hard(task: Task, answer: Tensor, batch: Any) -> Tensor:
    found = labels(batch)
    if found is None:
        raise ConfigError("curriculum.by = 'difficulty' reads labels, and the training samples have none. Take 'confidence'.")
    target = torch.as_tensor(found)
    if task.metric.target == "value":
        return (answer.reshape(len(answer), -1) - target.reshape(len(answer), -1).float()).square().mean(1)
    losses = F.cross_entropy(answer.flatten(0, -2), target.long().flatten(), reduction="none", ignore_index=IGNORED).view(target.shape)
    known = (target != IGNORED).reshape(len(answer), -1)
    mean = losses.reshape(len(answer), -1).sum(1) / known.sum(1).clamp(min=1)
    return torch.where(known.any(1), mean, torch.full_like(mean, torch.inf))


def _labelled(task: Task) -> np.ndarray:
    reader, count = Reader(task, "train"), len(task.split("train"))
    found = labels(reader.batch(np.arange(count)))
    if found is None:
        return np.zeros(count, bool)
    target = torch.as_tensor(found)
    return (target != IGNORED).reshape(count, -1).any(1).numpy() if not target.is_floating_point() else np.ones(count, bool)
