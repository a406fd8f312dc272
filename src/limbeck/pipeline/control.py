"""The control: the final shape in FP32, trained without a teacher. What it reaches shows what the teacher was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from limbeck.core.candidate import Candidate, TorchForm
from limbeck.core.errors import ArtifactError, StageError
from limbeck.core.facts import Fact
from limbeck.core.fields import parse
from limbeck.core.plan import START, Training
from limbeck.intake.answers import unlabelled
from limbeck.mechanics.build import base, captured, torch_form
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.edits import replay, submodule
from limbeck.mechanics.every_head import on_every_head
from limbeck.mechanics.terms import task_loss
from limbeck.mechanics.train import fit
from limbeck.mechanics.watch import watching
from limbeck.pipeline.examiner import Kept
from limbeck.pipeline.folder import Run
from limbeck.pipeline.records import read_record, record
from limbeck.pipeline.stage import Standing, tell_of_teacher
from limbeck.pipeline.store import digest, write


@dataclass(frozen=True)
class Control:
    """The control's artifact and its training, or why it was not run."""

    kept: Kept | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


def run_control(run: Run, passed: Sequence[Standing]) -> Control:
    """Train the control of what led to the final candidate."""
    trained = [c for s in passed for c in _trainings(s.claims)]
    shapes = [s for s in passed if isinstance(s.candidate.form, TorchForm) and Fact.FLOAT_WEIGHTS in s.candidate.facts]
    if not trained or not shapes:
        return Control(why="no stage that led to the final candidate was trained, so there is nothing to compare a training without a teacher with")
    if unlabelled(run.task):
        return Control(why="the training samples have no labels, so nothing can be trained without a teacher")
    form = shapes[-1].candidate.torch_form
    training = replace(trained[0], epochs=sum(t.epochs for t in trained))
    key = digest(["control", form.blueprint.to_json(), repr(training), dict(run.fingerprints), run.request.seed])
    try:
        candidate, claims = _product(run, form, training, key)
        tell_of_teacher(run, "control", claims)
        return Control(run.examiner.keep(candidate, "the control"), claims)
    except (StageError, ArtifactError) as error:
        return Control(why=str(error))


def _trainings(claims: Mapping[str, Any]) -> list[Training]:
    found = [claims[k] for k in ("training", "recovery_training") if k in claims]
    return [parse(Training, t, where="training") for t in found]


def _product(run: Run, form: TorchForm, training: Training, key: str) -> tuple[Candidate, dict[str, Any]]:
    path = run.folder / "stages" / f"{key}.json"
    if path.exists():
        run.checkpoint(key, "control").path.unlink(missing_ok=True)  # a kill may have come between the record and this
        kept = read_record(path)
        return run.store.get_candidate(kept["candidate"], run.folder / "scratch"), kept["claims"]
    context = run.context("control", key, "control")
    model = _fresh(run, form, context.rng.seed)
    history = fit(
        model,
        on_every_head(1.0 * task_loss(), run.task, model).bind(run.task),
        training,
        seed=context.rng.seed,
        checkpoint=context.checkpoint,
        log=context.log,
        monitor=watching(context, lambda m: Candidate(replace(form, weights=captured(m)), START)),
        note="the control, without a teacher",
    )
    candidate = Candidate(torch_form(model.eval(), form.blueprint, run.task, batch_of(run.task, "train", [0, 1])), START)
    claims = {"history": history}
    write(path, record({"key": key, "stage": "control", "candidate": run.store.put_candidate(candidate), "claims": claims}))
    context.checkpoint.path.unlink(missing_ok=True)
    return candidate, claims


def _fresh(run: Run, form: TorchForm, seed: int) -> nn.Module:
    """The same shape with new weights: the factory's own where nothing was resized, each module's own reset elsewhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = replay(base(form.blueprint, run.task), form.blueprint.edits)
        resized = {e["module"] for e in form.blueprint.edits if e["edit"] == "reshape" and e["tensors"]}
        for name in sorted(resized):
            module = submodule(model, name)
            reset = getattr(module, "reset_parameters", None)
            if reset is None:
                raise StageError(f"module '{name}' ({type(module).__name__}) was resized and has no reset_parameters, so it can't be trained anew")
            reset()
    return model
