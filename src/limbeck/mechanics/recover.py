"""Training inside a stage, after its technique: the candidate learns again what the teacher says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from limbeck.core.candidate import Candidate
from limbeck.core.plan import Recovery
from limbeck.core.technique import Context
from limbeck.mechanics.build import captured, rebuild, torch_form
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.every_head import on_every_head
from limbeck.mechanics.objective import Objective
from limbeck.mechanics.terms import kd, logit_mse, task_loss
from limbeck.mechanics.train import fit
from limbeck.mechanics.watch import watching


def recover(candidate: Candidate, recovery: Recovery, context: Context) -> tuple[Candidate, list[dict[str, Any]]]:
    """The candidate after training under `recovery`, and one row an epoch. Its architecture and facts stay.

    The teacher's term is kd where the metric's target is a class or a token, logit_mse elsewhere.
    """
    task, form = context.task, candidate.torch_form
    model = rebuild(form, task)
    teacher = logit_mse() if task.metric.target == "value" else kd(temperature=recovery.temperature)
    objective: Objective = (1 - recovery.teacher_weight) * task_loss() + recovery.teacher_weight * teacher
    watch = watching(context, lambda m: replace(candidate, form=replace(form, weights=captured(m))))
    bound = on_every_head(objective, task, model).bind(task, context.signals, model, seed=context.rng.seed)
    history = fit(model, bound, recovery.training, seed=context.rng.seed, checkpoint=context.checkpoint, log=context.log, monitor=watch, note="recovery")
    return replace(candidate, form=torch_form(model.eval(), form.blueprint, task, batch_of(task, "train", [0, 1]))), history
