"""What can be judged: any artifact, a model of a task, or any module, as an artifact under the name that the user gave it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.candidate import Artifact, ArtifactForm
from limbeck.core.contract import Target
from limbeck.core.errors import ArtifactError, TaskError
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.evaluation.feeds import as_arguments
from limbeck.mechanics.data import Deployed, Example, arguments, batch_of, example, flatten, input_names
from limbeck.runtimes import of_file, runtime


@dataclass(frozen=True)
class Subject:
    """An artifact to judge.

    kind: What the user named: `artifact`, `task`, `module`, `run` or `package`.
    module: Makes the module that it was exported from, in eval mode; None for a file that nobody here exported.
    """

    name: str
    artifact: Artifact
    kind: str = "artifact"
    parameters: int | None = None
    macs: int | None = None
    kernels: Mapping[str, object] | None = None
    module: Callable[[], nn.Module] | None = None


def of_path(path: Path) -> Subject:
    """A file that some runtime loads. Raises ArtifactError if it isn't there or no runtime loads its kind."""
    if not path.exists():
        raise ArtifactError(f"there is no artifact {path}. Name a file that a runtime loads, a run folder, a package, or task.py:task.")
    card = of_file(path)
    beside = card.beside(path) if card.beside and path.is_file() else ()
    return Subject(str(path), Artifact(path, card.name, beside))


def of_task(task: Task, *, model: str | None, target: Target, folder: Path, name: str) -> Subject:
    """A model of a task (its teacher by default), exported to the target into `folder`."""
    from limbeck.mechanics.build import rebuild, teacher_candidate

    if not task.models:
        raise TaskError(
            f"task '{task.name}' has no models, so there is nothing to evaluate but its data. Give Task(models={{'teacher': …}}), or name an artifact and this task with --task."
        )
    form = teacher_candidate(task, model).form
    if isinstance(form, ArtifactForm):
        if form.artifact.runtime != target.runtime:
            raise ArtifactError(f"'{model or task.teacher}' is a file for '{form.artifact.runtime}', and the target is '{target.runtime}'. Set the runtime to the first.")
        return Subject(name, form.artifact, "task")
    return _exported(rebuild(form, task), task, target=target, folder=folder, name=name, kind="task", factory=partial(rebuild, form, task))


def of_module(module: nn.Module, *, task: Task | None, inputs: Any, target: Target, folder: Path) -> Subject:
    """Any module, exported to the target: free in the batch where a task shows how it varies, else for inputs of just these shapes.

    The module is left as it is. Raises: TaskError without a task and inputs; ArtifactError if it can't be exported.
    """
    name = type(module).__name__
    if task is not None:
        with _kept_modes(module):
            return _exported(module, task, target=target, folder=folder, name=name, kind="module", factory=partial(_copied, module))
    if inputs is None:
        raise TaskError(f"{name} is a module, and to export it its inputs must be known. Give task=…, or inputs=… as it is called with.")
    args, kwargs = as_arguments(inputs)
    with _kept_modes(module):
        module.eval()
        artifact = runtime(target.runtime).export(_example(module, args, kwargs), folder)
        parameters, macs = _counted(module, args, kwargs)
    return Subject(name, artifact, "module", parameters, macs, module=partial(_copied, module))


def _exported(module: nn.Module, task: Task, *, target: Target, folder: Path, name: str, kind: str, factory: Callable[[], nn.Module]) -> Subject:
    folder.mkdir(parents=True, exist_ok=True)
    split = "train" if "train" in task.splits else next(iter(task.splits))
    artifact = runtime(target.runtime).export(example(task, module, split=split), folder)
    return Subject(name, artifact, kind, *_counted(module, *arguments(task, batch_of(task, split, [0]))), module=factory)


def _counted(module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> tuple[int, int]:
    from limbeck.analysis.profile import profile

    found = profile(module, args, kwargs)
    return found.parameters, found.macs


def _example(module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> Example:
    """A module with the inputs that it is called with, its outputs named after what it returns; no axis is free."""
    name = type(module).__name__
    tensors = flatten(args, kwargs)
    if not tensors:
        raise TaskError(f"inputs for {name} must hold at least one tensor or array. Give them as it is called with.")
    shell = Task(name=name, metric=Metric(name="none", rows=lambda outputs, batch: {}, reduce=lambda rows: 0.0), splits={}, outputs=_named)
    with torch.no_grad():
        raw = module(*args, **kwargs)
    names = input_names(module, tensors)
    return Example(Deployed(shell, module, args, kwargs, list(tensors)), dict(zip(names, tensors.values(), strict=True)), tuple(_named(raw)), dict.fromkeys(names, ()))


def _named(raw: Any) -> dict[str, Tensor]:
    """Whatever a module returns, as tensors by name."""
    if isinstance(raw, Tensor):
        return {"output": raw}
    found = flatten(tuple(raw), {}) if isinstance(raw, (tuple, list)) else flatten((), raw) if isinstance(raw, Mapping) else {}
    if not found:
        raise TaskError(f"the module returned {type(raw).__name__}, in which there is no tensor. Give a task with Task(outputs=…), which names what it returns.")
    return {f"output_{'_'.join(leaf)}" if leaf[0].isdigit() else "_".join(leaf): tensor for leaf, tensor in found.items()}


def _copied(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).eval()


@contextmanager
def _kept_modes(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
