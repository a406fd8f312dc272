"""From a blueprint and weights to a module, and back to the check that this gives the same outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.candidate import Artifact, ArtifactForm, Blueprint, Candidate, TorchForm
from limbeck.core.errors import ConfigError, ReplayError, TaskError, near
from limbeck.core.foreign import users_code
from limbeck.core.task import Task, Weights
from limbeck.mechanics import families
from limbeck.mechanics.data import predict
from limbeck.mechanics.edits import replay
from limbeck.mechanics.onnx import OnnxModel

MOST_ELEMENTS = 1 << 28  # numbers in a family's model: 1 GiB in float32


class Ensemble(nn.Module):
    """Several models as one: the mean of their outputs, the log of the mean of their probabilities, or the union of what each names."""

    def __init__(self, members: Sequence[nn.Module], join: str):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.join = join

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raws = [m(*args, **kwargs) for m in self.members]
        return _united(raws) if self.join == "union" else self._joined(raws)

    def _joined(self, raws: list[Any]) -> Any:
        first = raws[0]
        if isinstance(first, Tensor):
            stacked = torch.stack(raws)
            if self.join == "probabilities":
                return torch.logsumexp(stacked.log_softmax(-1), 0) - torch.log(torch.tensor(float(len(raws))))
            return stacked.mean(0)
        if isinstance(first, Mapping):
            return {k: self._joined([r[k] for r in raws]) for k in first if isinstance(first[k], (Tensor, Mapping, tuple, list))}
        return tuple(self._joined(list(r)) for r in zip(*raws, strict=True))


def _united(raws: list[Any]) -> dict[str, Any]:
    """What all members named. Raises ConfigError where one gives no names, or two the same."""
    found: dict[str, Any] = {}
    for number, raw in enumerate(raws):
        if not isinstance(raw, Mapping):
            raise ConfigError(f"ensemble = 'union' takes members that return a dict of tensors; member {number} returns {type(raw).__name__}. Let each name its outputs.")
        if twice := found.keys() & raw.keys():
            raise ConfigError(f"ensemble = 'union' takes members with different outputs; '{min(twice)}' is given by member {number} and by one before it. Name them apart.")
        found |= raw
    return found


def build(blueprint: Blueprint, task: Task) -> nn.Module:
    """The architecture of a blueprint, in eval mode, its weights fresh.

    Raises: TaskError or ConfigError for an unknown factory, ReplayError for an edit that doesn't fit.
    """
    model = replay(base(blueprint, task), blueprint.edits)
    return model.eval()


def base(blueprint: Blueprint, task: Task) -> nn.Module:
    """What the blueprint's factory makes, before any edit."""
    scheme, _, name = blueprint.factory.partition(":")
    if scheme == "limbeck":
        return _family(name, blueprint.kwargs)
    if scheme != "task" or not name:
        raise ConfigError(f"blueprint.base.factory must be 'task:<model>' or 'limbeck:<family>', got {blueprint.factory!r}. {near(scheme, ('task', 'limbeck'))}")
    made = task.model(name)
    if isinstance(made, Sequence):
        return Ensemble([_made(f, blueprint, name) for f in made], task.ensemble)
    return _made(made, blueprint, name)


def _family(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """A family's model, sized without memory first: a wrong number would take gigabytes before anything could object."""
    make = families.family(name)
    try:
        with torch.device("meta"):
            elements = sum(t.numel() for t in make(**kwargs).state_dict().values())
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ConfigError(f"limbeck:{name} can't be built from {_shown(kwargs)}: {error}. See docs/techniques/distill.md for its options.") from error
    if elements > MOST_ELEMENTS:
        raise ConfigError(f"limbeck:{name} of {_shown(kwargs)} would have {elements:,} numbers, more than {MOST_ELEMENTS:,}. Make it smaller, or bring a model in Task.models.")
    return make(**kwargs)


def _shown(kwargs: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} = {str(v)[:40]}" for k, v in kwargs.items())[:200] or "nothing"


def _made(factory: Any, blueprint: Blueprint, name: str) -> nn.Module:
    with users_code(f"Task.models['{name}']({_shown(blueprint.kwargs) if blueprint.kwargs else ''})", always=True):
        model = factory(**blueprint.kwargs)
    if not isinstance(model, nn.Module):
        raise TaskError(f"Task.models['{name}'] must give an nn.Module, got {type(model).__name__}. Name a function that builds one.")
    return model


def rebuild(form: TorchForm, task: Task) -> nn.Module:
    """The module of a torch form: the blueprint built, the weights loaded strictly. Raises ReplayError if they don't fit."""
    model = build(form.blueprint, task)
    try:
        model.load_state_dict({k: v.clone() for k, v in form.weights.items()}, strict=True)
    except RuntimeError as error:
        raise ReplayError(f"the weights don't fit the blueprint of '{form.blueprint.factory}': {error}. The factory or the file has changed since.") from error
    return model


def runnable(form: TorchForm | ArtifactForm, task: Task) -> nn.Module:
    """A form as a module that answers: rebuilt, or an ONNX file run as it is. Raises: as `rebuild`; ConfigError for another artifact."""
    if isinstance(form, TorchForm):
        return rebuild(form, task)
    if form.artifact.runtime != "onnxruntime":
        raise ConfigError(f"only an ONNX file answers in place of a module, got an artifact of '{form.artifact.runtime}' ({form.artifact.path.name}). Give the module itself.")
    return OnnxModel(form.artifact.path, 1).eval()


def captured(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights, detached: each tensor its own memory, none shared."""
    return {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}


def torch_form(model: nn.Module, blueprint: Blueprint, task: Task, batch: Any) -> TorchForm:
    """The form of an edited model, proved: rebuilt from blueprint and weights, it must give the same bits on `batch`.

    Raises: ReplayError if it doesn't; nothing that can't be loaded again leaves a technique. TaskError if an unedited model doesn't run.
    """
    form = TorchForm(blueprint, captured(model))
    again = rebuild(form, task)
    training = model.training
    with torch.no_grad():
        try:
            expected = predict(task, model.eval(), batch)
        except RuntimeError as error:
            if blueprint.edits:
                raise
            raise TaskError(
                f"the model '{blueprint.factory}' doesn't run on the inputs that task '{task.name}' gives: {str(error).splitlines()[0]}. Teacher and student are given the same "
                "inputs; what one of them wants otherwise (size, channels, scale) belongs into its own module, as in nn.Sequential(Resize(…), model)."
            ) from error
        got = predict(task, again, batch)
    model.train(training)
    for name, value in expected.items():
        if not torch.equal(value, got[name]):
            raise ReplayError(
                f"rebuilt from its blueprint, output '{name}' differs. Something that is not in the edits changed: a shape fixed in forward's code, or a buffer that isn't saved."
            )
    return form


def teacher_form(task: Task, name: str | None = None) -> TorchForm:
    """A model of the task with its trained weights.

    Raises: TaskError if the weights are missing, don't fit, hold NaN or Inf, or hold code instead of tensors.
    """
    name = name or task.teacher
    return _form(base(Blueprint(f"task:{name}"), task), task, name)


def _form(model: nn.Module, task: Task, name: str) -> TorchForm:
    source = task.weights.get(name)
    members = list(model.members) if isinstance(model, Ensemble) else [model]
    if any(isinstance(member, OnnxModel) for member in members):
        raise TaskError(f"task '{task.name}': '{name}' is an ONNX file, which can't be one of an ensemble or be trained. Let it be the only teacher, or bring the module.")
    sources: list[Any] = list(source) if isinstance(source, (list, tuple)) else [None] * len(members) if source is None else [source]
    if len(sources) != len(members):
        raise TaskError(f"task '{task.name}' has {len(members)} models in '{name}' but {len(sources)} weights. Give one for each.")
    for member, weights in zip(members, sources, strict=True):
        if weights is not None:
            _load(member, weights, task, name)
    form = TorchForm(Blueprint(f"task:{name}"), captured(model))
    for key, value in form.weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise TaskError(f"task '{task.name}': weight '{key}' of '{name}' holds NaN or Inf. Train it again, or load another file.")
    return form


def _load(model: nn.Module, weights: Weights, task: Task, name: str) -> None:
    state = weights if isinstance(weights, Mapping) else read_weights(task.folder / Path(str(weights)))
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise TaskError(f"task '{task.name}': the weights of '{name}' don't fit its factory: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from torch's own format with `weights_only=True`: no code is run."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        trainer = path.parent / "train_teacher.py"
        way = f"Train it first: python {trainer.name}, in {trainer.parent}." if trainer.is_file() else "Paths in Task.weights are relative to the task's own file."
        raise TaskError(f"there is no weights file {path}. {way}")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, OSError) as error:
        raise TaskError(f"{path} can't be read as plain tensors: {(str(error) or type(error).__name__).splitlines()[0]}. Save the state dict as safetensors.") from error
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise TaskError(f"{path} must hold a state dict (name → tensor), got {type(state).__name__}. Save model.state_dict().")
    return state


def teacher_candidate(task: Task, name: str | None = None) -> Candidate:
    """A model of the task (its teacher by default) as a candidate; an ONNX file is one as it is, of which no fact is known.

    Raises: as `teacher_form`.
    """
    name = name or task.teacher
    model = base(Blueprint(f"task:{name}"), task)
    if not isinstance(model, OnnxModel):
        return Candidate(_form(model, task, name))
    if task.weights.get(name) is not None:
        raise TaskError(f"task '{task.name}': '{name}' is an ONNX file, which holds its own weights. Leave it out of Task.weights.")
    return Candidate(ArtifactForm(Artifact(model.path.resolve(), "onnxruntime")), frozenset())
