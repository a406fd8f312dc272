"""Train a smaller student, from scratch or from the teacher's layers, on the labels and on what the teacher says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import nn

from limbeck.core.candidate import Candidate, TorchForm
from limbeck.core.errors import ConfigError
from limbeck.core.facts import Data, Fact
from limbeck.core.fields import Hint, to_dict
from limbeck.core.plan import START, Training
from limbeck.core.technique import Context, Outcome, technique
from limbeck.mechanics.build import base, captured, rebuild, torch_form
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.inherit import inherit_
from limbeck.mechanics.student import student_blueprint
from limbeck.mechanics.teaching import Teaching, taught, teacher_of
from limbeck.mechanics.watch import watching


@dataclass(frozen=True, kw_only=True)
class Distill(Teaching):
    """Offline distillation into a new student."""

    student: Annotated[str, Hint("Name a model of Task.models, or limbeck:<family>, as in 'limbeck:convnet'."), "a model of Task.models, or `limbeck:<family>`"]
    options: Annotated[dict[str, Any], "arguments of the student's factory; a family's channels and classes are read off the data"] = field(default_factory=dict)
    start: Annotated[Literal["fresh", "teacher"], "the student's first weights: its factory's own, or the teacher's wherever names and shapes allow"] = "fresh"
    layers: Annotated[
        tuple[int, ...], Hint("Write the teacher's block numbers, from 0, one for each of the student's."), "which of the teacher's blocks those are; empty: every k-th"
    ] = ()


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
    blueprint = student_blueprint(config.student, config.options, task=task, teacher=candidate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.rng.seed)
        model = base(blueprint, task)
    inherited = _inherited(model, config, candidate, context)
    claims: dict[str, Any] = {"history": []}
    if context.budget.train and config.training.epochs:
        monitor = watching(context, lambda m: Candidate(TorchForm(blueprint, captured(m))))
        claims = taught(model, config, candidate=candidate, context=context, monitor=monitor, note=f"distilling into {config.student}")
    form = torch_form(model.eval(), blueprint, task, batch_of(task, "train", [0, 1]))
    claims |= {"parameters": sum(p.numel() for p in model.parameters()), "student": {"factory": blueprint.factory, "kwargs": dict(blueprint.kwargs)}}
    return Outcome(Candidate(form, START), claims | inherited | ({"training": to_dict(config.training)} if claims["history"] else {}))


def _inherited(model: nn.Module, config: Distill, candidate: Candidate, context: Context) -> dict[str, Any]:
    """What the student took of the teacher's weights, as a claim; nothing where it begins fresh."""
    if config.start == "fresh":
        return {}
    teacher = teacher_of(config, candidate, context)
    if not isinstance(teacher.form, TorchForm):
        raise ConfigError("start = 'teacher' needs a teacher with weights that torch can read; this one is a file that a runtime loads. Let the student begin fresh.")
    found = inherit_(model, rebuild(teacher.form, context.task), layers=config.layers or "even")
    return {"inherited": found.claims()}
