"""What a user names to be judged (a task, a module, a file, a run, a package), as a subject."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.core.candidate import Artifact, TorchForm
from limbeck.core.contract import Target
from limbeck.core.errors import ConfigError, RunError, TaskError
from limbeck.core.task import Task
from limbeck.evaluation.subject import Subject, of_module, of_path, of_task
from limbeck.intake.load import load_task
from limbeck.mechanics.build import rebuild
from limbeck.package.checking import gathered
from limbeck.package.manifest import NAME as MANIFEST
from limbeck.pipeline.reading import Past, opened
from limbeck.runtimes import installed

FINAL = "final"
Named = str | Path | Task | nn.Module


def is_task(subject: Named) -> bool:
    """Whether a text names a task (file.py:name) rather than a file."""
    text = str(subject)
    return not isinstance(subject, nn.Module) and not Path(text).exists() and ":" in text


def named_task(task: Task | str | Path | None) -> Task | None:
    """The task of this name, loaded; a Task and None as they are. Raises TaskError."""
    if task is None or isinstance(task, Task):
        return task
    if ":" not in str(task):
        raise TaskError(f"a task is named as file.py:name, got {str(task)!r}. Add the name of the Task in it, as in {task}:task.")
    return load_task(str(task), base=Path())


def own_task(subject: Named) -> Task | None:
    """The task that a subject is, or names; None if it is none."""
    return subject if isinstance(subject, Task) else named_task(str(subject)) if is_task(subject) else None


def subject_of(named: Named, *, task: Task | None, own: Task | None, model: str | None, inputs: Any, target: Target, folder: Path) -> Subject:
    """What the user named, as an artifact of its own; what must be laid out or exported goes into `folder`.

    Args:
        task: Whose data it is judged on; how a module is exported.
        own: The task that it is itself.
    Raises: TaskError, ConfigError, RunError, ArtifactError for what the user can mend.
    """
    if own is not None:
        return of_task(own, model=model, target=target, folder=folder, name=own.name if isinstance(named, Task) else str(named))
    if isinstance(named, nn.Module):
        return of_module(named, task=task, inputs=inputs, target=target, folder=folder)
    text, path = str(named), Path(str(named))
    place, _, stage = text.rpartition("@")
    if not path.exists() and place and (Path(place) / "journal.jsonl").is_file():
        return _of_run(Path(place), stage, task=task, folder=folder, name=text)
    if (path / "journal.jsonl").is_file():
        return _of_run(path, FINAL, task=task, folder=folder, name=text)
    if (path / MANIFEST).is_file() or path.suffix == ".zip":
        return _of_package(path, folder=folder)
    return of_path(path)


def _of_run(place: Path, stage: str, *, task: Task | None, folder: Path, name: str) -> Subject:
    """A run's final artifact, or what one of its stages made, laid out from its objects, each by its hash."""
    run = opened(place)
    product = run.last if stage == FINAL else run.baseline if stage == "baseline" else run.product(stage)
    if product is None:
        raise RunError(f"{place} holds no artifact yet. Start its command again until a stage has passed, or name one as in {place}@baseline.")
    known = run.exports.get(product.mark, {})
    artifact = run.store.artifact(run.artifact_record(product), folder)
    installed(artifact.runtime)
    return Subject(name, artifact, "run", known.get("parameters"), known.get("macs"), module=_rebuilt(run, product.candidate, task, folder))


def _rebuilt(run: Past, candidate: str, task: Task | None, folder: Path) -> partial[nn.Module] | None:
    """What makes a run's candidate in torch, where its task is at hand."""
    if task is None:
        return None
    form = run.store.get_candidate(candidate, folder / "candidate").form
    made = form.blueprint.factory.partition(":") if isinstance(form, TorchForm) else None
    known = made is not None and (made[0] != "task" or made[2] in task.models)
    return partial(rebuild, form, task) if known and isinstance(form, TorchForm) else None


def _of_package(path: Path, *, folder: Path) -> Subject:
    """A package's artifact, laid out after every hash was checked. Raises RunError if it doesn't hold."""
    found = gathered(path)
    if found.problems or found.manifest is None:
        name, what = next(iter(sorted(found.problems.items())), (path.name, "has no manifest"))
        raise RunError(f"{path}: {name} {what}. A package that doesn't hold is not loaded; `limbeck verify` shows all.")
    part, manifest = found.manifest.artifact, found.manifest
    files: Mapping[str, bytes] = {n: found.read(n) for n in manifest.files if n == part.path or n.startswith(f"{part.path}/")}
    if not files:
        raise ConfigError(f"{path} holds no file of its artifact {part.path}. `limbeck verify` shows what it holds.")
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    installed(manifest.runtime)
    figures = manifest.figures
    return Subject(str(path), Artifact(folder / part.path, manifest.runtime), "package", figures.get("parameters"), figures.get("macs"))
