"""Train a smaller student, from scratch, on the labels and on what the teacher says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch

from limbeck.core.candidate import Blueprint, Candidate, TorchForm
from limbeck.core.facts import Data, Fact
from limbeck.core.fields import Hint, Range, to_dict
from limbeck.core.plan import START, Training
from limbeck.core.task import Task
from limbeck.core.technique import Context, Outcome, technique
from limbeck.mechanics import families
from limbeck.mechanics.build import base, captured, runnable, torch_form
from limbeck.mechanics.data import arguments, batch_of, example, predict
from limbeck.mechanics.families.fit import fitted
from limbeck.mechanics.objective import Objective
from limbeck.mechanics.taps import shapes
from limbeck.mechanics.terms import ALL, kd, logit_mse, task_loss
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.train import fit


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Offline response distillation."""

    student: Annotated[str, Hint("Name a model of Task.models, or limbeck:<family>, as in 'limbeck:convnet'."), "a model of Task.models, or `limbeck:<family>`"]
    options: Annotated[dict[str, Any], "arguments of the student's factory; a family's channels and classes are read off the data"] = field(default_factory=dict)
    term: Annotated[Literal["kd", "logit_mse"], "what is matched: softened probabilities, or the outputs themselves (regression)"] = "kd"
    temperature: Annotated[float, Range(0, None, closed="neither"), "softening of both softmaxes, for kd"] = 4.0
    teacher_weight: Annotated[
        float, Range(0, 1), Hint("It is a fraction; the labels get the rest. 0 trains without a teacher."), "weight of the teacher's term; the labels get the rest"
    ] = 0.9
    terms: Annotated[tuple[Entry, ...], "the whole objective, instead of `term`, `temperature` and `teacher_weight`"] = ()
    training: Annotated[Training, "how long and how fast"] = field(default_factory=Training)

    def __post_init__(self) -> None:
        objective_of(self.terms, ALL)


@technique(
    version=1,
    needs=set(),
    gives={Fact.TORCH, Fact.FLOAT_WEIGHTS},  # the student is new: of what comes in, only what it answers counts
    breaks={Fact.NARROWER, Fact.QUANTIZED},
    data=Data.LABELS,
    paper="arXiv:1503.02531",
    recovers=False,
    pays=True,
    example=lambda: Distill(student="limbeck:convnet", options={"width": 8}, training=Training(epochs=2)),
    exempt={"zero": "a student from scratch shares nothing with its teacher: there is no zero strength"},
)
def distill(candidate: Candidate, config: Distill, context: Context) -> Outcome:
    """Train a student from scratch on the labels and on the teacher's softened answers to the same views."""
    task = context.task
    blueprint = student_blueprint(config, task, candidate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.rng.seed)
        model = base(blueprint, task)
    history: list[dict[str, float]] = []
    matched: list[dict[str, str]] = []
    if context.budget.train and config.training.epochs:
        objective = _objective(config)
        shapes(model, objective.taps("student_taps"), *arguments(task, batch_of(task, "train", [0, 1])))  # refuses a path that isn't there
        monitor = lambda m: context.score(Candidate(TorchForm(blueprint, captured(m))))  # noqa: E731
        bound = objective.bind(task, context.signals, model, seed=context.rng.seed)
        matched = [{"student": m.student.path, "teacher": m.teacher.path} for m in bound.matches]
        history = fit(
            model,
            bound,
            config.training,
            seed=context.rng.seed,
            checkpoint=context.checkpoint,
            log=context.log,
            monitor=monitor,
            note=f"distilling into {config.student}",
        )
    form = torch_form(model.eval(), blueprint, task, batch_of(task, "train", [0, 1]))
    claims = {"parameters": sum(p.numel() for p in model.parameters()), "student": {"factory": blueprint.factory, "kwargs": dict(blueprint.kwargs)}, "history": history}
    claims |= {"matched": matched} if matched else {}  # the teacher's layers that "auto" stands for
    return Outcome(Candidate(form, START), claims | ({"training": to_dict(config.training)} if history else {}))


def _objective(config: Distill) -> Objective:
    if config.terms:
        return objective_of(config.terms, ALL)
    teacher = kd(temperature=config.temperature) if config.term == "kd" else logit_mse()
    return (1 - config.teacher_weight) * task_loss() + config.teacher_weight * teacher


def student_blueprint(config: Distill, task: Task, candidate: Candidate) -> Blueprint:
    """The student's architecture, with what its family must know of the data filled in.

    Raises: TaskError or ConfigError for a name that isn't known, with near names.
    """
    if not config.student.startswith("limbeck:"):
        name = config.student.removeprefix("task:")
        task.model(name)
        return Blueprint(f"task:{name}", dict(config.options))
    family = config.student.removeprefix("limbeck:")
    families.family(family)
    teacher = runnable(candidate.form, task)
    inputs = example(task, teacher).inputs
    with torch.no_grad():
        outputs = predict(task, teacher, batch_of(task, "train", [0, 1]))
    return Blueprint(config.student, fitted(family, config.options, inputs, outputs))
