"""Train a student that answers through its teacher's own classifier: features are matched, labels aren't read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from limbeck.core.candidate import Blueprint, Candidate, TorchForm
from limbeck.core.errors import StageError
from limbeck.core.facts import Data, Fact
from limbeck.core.fields import Hint, Range, to_dict
from limbeck.core.plan import START, Training
from limbeck.core.task import Task
from limbeck.core.technique import Context, Outcome, technique
from limbeck.mechanics.build import Ensemble, base, captured, rebuild, teacher_candidate, torch_form
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.edits import replay, submodule
from limbeck.mechanics.heads import Head, find_head, whole_steps
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.reuse import KIND, head_path, projector_path
from limbeck.mechanics.student import student_blueprint
from limbeck.mechanics.taps import INTO
from limbeck.mechanics.terms.features import Pair, features_of
from limbeck.mechanics.terms.hint import hint_loss
from limbeck.mechanics.train import fit
from limbeck.mechanics.watch import watching


@dataclass(frozen=True, kw_only=True)
class SimKD:
    """Distillation through the teacher's classifier."""

    student: Annotated[str, Hint("Name a model of Task.models, or limbeck:<family>, as in 'limbeck:convnet'."), "a model of Task.models, or `limbeck:<family>`"]
    options: Annotated[dict[str, Any], "arguments of the student's factory; a family's channels and classes are read off the data"] = field(default_factory=dict)
    factor: Annotated[int, Range(1, None), "how many times narrower than the teacher's features the projector is inside; it stays in the student"] = 2
    depthwise: Annotated[bool, "the projector's 3×3 convolution channel by channel: far fewer parameters, a little less exact"] = False
    student_head: Annotated[str, "the student's last linear layer; empty: the one whose output is the logits"] = ""
    teacher_head: Annotated[str, "the teacher's, whose weights are reused; empty: the one whose output is the logits"] = ""
    training: Annotated[Training, "how long and how fast"] = field(default_factory=Training)


@technique(
    version=1,
    needs=set(),
    gives={Fact.TORCH, Fact.FLOAT_WEIGHTS},  # the student is new
    breaks={Fact.NARROWER, Fact.QUANTIZED},
    data=Data.INPUTS,
    paper="arXiv:2203.14001",
    recovers=False,
    pays=True,
    example=lambda: SimKD(student="limbeck:convnet", options={"width": 8}, training=Training(epochs=2)),
    exempt={"zero": "a student from scratch shares nothing with its teacher but the classifier: there is no zero strength"},
)
def simkd(candidate: Candidate, config: SimKD, context: Context) -> Outcome:
    """Train a student's features, through a projector, to be the teacher's; the teacher's classifier reads them. No labels are needed."""
    task = context.task
    teacher = _teacher(task)
    theirs = find_head(teacher, task, "simkd.teacher_head", path=config.teacher_head)
    plain = student_blueprint(config.student, config.options, task=task, teacher=candidate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.rng.seed)
        model = base(plain, task)
        edit = _edit(find_head(model, task, "simkd.student_head", path=config.student_head), theirs, config, teacher)
        replay(model, [edit])
    blueprint = plain.edited(edit)
    head = submodule(model, head_path(edit))
    head.load_state_dict(submodule(teacher, theirs.path).state_dict())
    _runs(model, task, config)
    history = _trained(model, blueprint, config, context, _term(edit, theirs)) if context.budget.train and config.training.epochs else []
    form = torch_form(model.eval(), blueprint, task, batch_of(task, "train", [0, 1]))
    return Outcome(Candidate(form, START), _claims(model, blueprint, theirs, history, config))


def _claims(model: nn.Module, blueprint: Blueprint, theirs: Head, history: list[dict[str, float]], config: SimKD) -> dict[str, Any]:
    edit = blueprint.edits[-1]
    counts = {name: sum(p.numel() for p in submodule(model, path).parameters()) for name, path in (("projector", projector_path(edit)), ("head", head_path(edit)))}
    reused = {"teacher_head": theirs.path, "teacher_features": _tap(edit, theirs), "student_features": edit["features"] or INTO + edit["head"]}
    claims = {"parameters": sum(p.numel() for p in model.parameters()), "parameters_at_inference": counts, "reused": reused, "history": history}
    claims |= {"student": {"factory": blueprint.factory, "kwargs": dict(blueprint.kwargs)}}
    return claims | ({"training": to_dict(config.training)} if history else {})


def _teacher(task: Task) -> nn.Module:
    """The task's teacher as a module. Raises StageError for one whose classifier can't be taken out."""
    candidate = teacher_candidate(task)
    if not isinstance(candidate.form, TorchForm):
        raise StageError("simkd takes the classifier out of the teacher, and the teacher is a file that a runtime loads. Bring the module, or take 'distill'.")
    teacher = rebuild(candidate.form, task)
    if isinstance(teacher, Ensemble):
        raise StageError(f"simkd reuses one classifier, and the teacher is an ensemble of {len(teacher.members)}. Name one of them as the teacher, or take 'distill'.")
    return teacher


def _edit(own: Head, theirs: Head, config: SimKD, teacher: nn.Module) -> Mapping[str, Any]:
    """What turns the plain student into one that answers through the teacher's head. Raises StageError where shapes forbid it."""
    if own.logits != theirs.logits:
        raise StageError(
            f"simkd answers through the teacher's classifier, which gives {list(theirs.logits)} a sample; the student's gives {list(own.logits)}. "
            f"Give the student {theirs.logits[-1]} classes in simkd.options, in the teacher's order."
        )
    maps = bool(own.features and theirs.features)
    if not maps and len(own.vector) != len(theirs.vector):
        raise StageError(f"simkd can't project features of shape {list(own.vector)} onto {list(theirs.vector)}. Name heads that take features of one rank.")
    return {
        "edit": KIND,
        "head": own.path,
        "features": own.features if maps else "",
        "own": own.shape[0] if maps else own.vector[-1],
        "width": theirs.shape[0] if maps else theirs.vector[-1],
        "classes": theirs.logits[-1],
        "bias": submodule(teacher, theirs.path).bias is not None,
        "pool": list(whole_steps(own.shape[1:], theirs.shape[1:])) if maps else [1, 1],
        "factor": config.factor,
        "depthwise": config.depthwise,
        "rectified": theirs.rectified and maps,
    }


def _tap(edit: Mapping[str, Any], theirs: Head) -> str:
    """The teacher's features that the student's are matched with: the map before pooling, or what goes into the classifier."""
    return theirs.features if edit["features"] else INTO + theirs.path


def _term(edit: Mapping[str, Any], theirs: Head) -> Term:
    """Squared error between projected and teacher's features, averaged over width, places and samples (arXiv:2203.14001, eq. 3)."""
    pair = Pair(student=projector_path(edit), teacher=_tap(edit, theirs))

    def loss(seen: Seen) -> Tensor:
        features = features_of(seen, "simkd", pair)
        return hint_loss(features.student, features.teacher, features.weight)

    return Term("simkd", loss, teacher=True, student_taps=(pair.student,), teacher_taps=(pair.teacher,), agrees=False, reads="taps")


def _trained(model: nn.Module, blueprint: Blueprint, config: SimKD, context: Context, term: Term) -> list[dict[str, float]]:
    """One row an epoch. The loss ends before the classifier, so that nothing moves it: it stays as the teacher's."""
    bound = (1.0 * term).bind(context.task, context.signals, model, seed=context.rng.seed)
    monitor = watching(context, lambda m: Candidate(TorchForm(blueprint, captured(m))))
    note = f"distilling into {config.student} through the teacher's classifier"
    return fit(model, bound, config.training, seed=context.rng.seed, checkpoint=context.checkpoint, log=context.log, monitor=monitor, note=note)


def _runs(model: nn.Module, task: Task, config: SimKD) -> None:
    """Raises StageError if the edited student doesn't run: its forward does more with the features than pool them."""
    try:
        find_head(model.eval(), task, "simkd.student_head")
    except RuntimeError as error:
        why = f"{config.student} doesn't run with the teacher's classifier: {str(error).splitlines()[0]}."
        raise StageError(f"{why} Its forward does more with its features than pool them; take another student, or 'distill'.") from error
