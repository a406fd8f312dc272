"""A model of the user's own: `file.py:Class` or `package.module:Class`, and its weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.foreign import users_code
from limbeck.core.task import Task
from limbeck.intake.load import load_name
from limbeck.intake.metrics import accuracy
from limbeck.intake.starting.parts import MODEL_FILE, ModelPart
from limbeck.intake.starting.questions import TRAIN, WEIGHTS, Interview, yes
from limbeck.intake.starting.source import relative
from limbeck.mechanics.build import teacher_form


def part(entry: str, folder: Path, interview: Interview) -> ModelPart:
    """A model by its entry. It is built, and its weights loaded into it, before anything is written.

    Raises: ConfigError for a place that task.py couldn't import; TaskError if it isn't a module, or the weights don't fit.
    """
    module, _, name = entry.rpartition(":")
    factory = load_name(entry, base=folder, what="--model")
    if not callable(factory):
        raise TaskError(f"'{entry}' must be a class or a function that gives an nn.Module, got {type(factory).__name__}. Name what builds the model.")
    weights, trained = weights_of(factory, folder, interview)
    imported = Path(module).stem if module.endswith(".py") else module
    return ModelPart(factory=name, imports=(f"from {imported} import {name}",), weights=weights, trained=trained)


def importable(entry: str, folder: Path, flag: str) -> str:
    """The entry as task.py in `folder` sees it. Raises ConfigError for one that it couldn't import."""
    place, _, name = entry.rpartition(":")
    if not place.endswith(".py"):
        found = None
        try:
            found = importlib.util.find_spec(place)
        except (ModuleNotFoundError, ValueError):
            found = None
        if found is None and not (folder / Path(*place.split("."))).with_suffix(".py").is_file():
            raise ConfigError(f"there is no module '{place}'. Give a file, as in my_module.py:{name or 'name'}, or install its package.")
        return entry
    path = Path(place).resolve() if Path(place).is_file() else (folder / place).resolve()
    if not path.is_file():
        raise ConfigError(f"there is no file {place}. Check the path.")
    if path.parent != folder.resolve():
        raise ConfigError(f"{place} must lie in the folder that is written ({folder}), so that task.py can import it. Run `limbeck init {path.parent}`, or move the file.")
    if not path.stem.isidentifier():
        raise ConfigError(f"{path.name} can't be imported: '{path.stem}' isn't a Python name. Rename it, as in my_module.py.")
    if not name.isidentifier():
        raise ConfigError(f"{flag} must be file.py:name, got {entry!r}. Add the name in the file, as in {place}:{'MyNet' if flag == '--model' else 'splits'}.")
    return f"{path.name}:{name}"


def weights_of(factory: Callable[..., Any], folder: Path, interview: Interview) -> tuple[str | None, bool]:
    """The weights' path for Task.weights, loaded into the model as a proof; and whether they are there already."""

    def check(words: str) -> str | None:
        if words in ("none", ""):
            return None
        path = Path(words)
        with users_code("--model", always=True):
            teacher_form(Task(metric=accuracy(), splits={}, models={"teacher": factory}, weights={"teacher": str(path.resolve())}))
        return relative(path, folder)

    default = None if interview.ask is None and not interview.given.get("train_teacher") else "none"
    found = interview.settle(WEIGHTS, check, default=default)
    if found is None and interview.settle(TRAIN, yes, default="no" if interview.given.get("weights") == "none" else "yes"):
        return MODEL_FILE, False
    if found is None:
        with users_code("--model", always=True):
            teacher_form(Task(metric=accuracy(), splits={}, models={"teacher": factory}))
    return found, True
