"""What `limbeck analyze` says, as plain data: of a task's model, or of an artifact alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.core.contract import Target
from limbeck.core.errors import ArtifactError, TaskError
from limbeck.core.task import Task
from limbeck.evaluation.account import account, machine, operators_account
from limbeck.evaluation.anatomy import anatomy, operators, random_inputs
from limbeck.evaluation.roofline import measured_peak
from limbeck.evaluation.subject import of_path
from limbeck.mechanics.build import rebuild, teacher_form
from limbeck.mechanics.data import batch_of, feed
from limbeck.runtimes import of_file

SCHEMA = 1
SLOWER = 1.3  # under the profiler than without: worth a word
DISTURBED = "other work on this machine disturbed the measurement; run it again when it is quiet"


def of_model(
    task: Task, module: nn.Module, *, name: str, model: str, target: Target, depth: int | None = None, seconds: float = 2.0, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """A module of a task, by layer and by block. Raises: as `anatomy`."""
    split = "train" if "train" in task.splits else next(iter(task.splits))
    with tempfile.TemporaryDirectory(prefix="limbeck-") as folder:
        found = anatomy(task, module, target, folder=Path(folder), split=split, seconds=seconds, stop=stop)
    data = account(found, measured_peak(target.threads), depth=depth)
    notes = [DISTURBED] if found.disturbed else []
    if found.total_ms > SLOWER * found.latency_ms:
        notes.append(f"its parts took {found.total_ms / found.latency_ms:.1f}× as long under the profiler as the whole without it: shares are of the parts")
    return {**_head(name, "model", target), "model": {"name": model, "kind": type(module).__name__}, **data, "notes": notes}


def of_task(
    task: Task, *, name: str, model: str | None, target: Target, depth: int | None = None, seconds: float = 2.0, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """A model of a task, its teacher by default, with its trained weights. Raises TaskError if it has none."""
    if not task.models:
        raise TaskError(f"task '{task.name}' has no models, so there is nothing to analyze. Give Task(models={{'teacher': …}}), or name an artifact.")
    module = rebuild(teacher_form(task, model), task)
    return of_model(task, module, name=name, model=model or task.teacher, target=target, depth=depth, seconds=seconds, stop=stop)


def of_artifact(path: Path, *, task: Task | None, target: Target, seconds: float = 2.0, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """An artifact by operator: its file doesn't say which layer each came from. Inputs are the task's, or random.

    Raises: ArtifactError if no runtime loads it, or its runtime can't time operators.
    """
    card = of_file(path)
    if card.operators is None:
        raise ArtifactError(f"{card.name} can't say what each operator of {path} takes. Name the task and its model instead, with --runtime {card.name}.")
    artifact = of_path(path).artifact
    fed = feed(task, batch_of(task, next(iter(task.splits)), range(target.batch))) if task else random_inputs(artifact, target)
    latency, taken, disturbed = operators(artifact, card, fed, target, seconds=seconds, stop=stop)
    data = operators_account(taken, latency)
    notes = [DISTURBED] if disturbed else []
    if task is None:
        notes.append("measured on random inputs; name a task with --task for its own")
    return {
        **_head(str(path), "artifact", Target(runtime=card.name, threads=target.threads, batch=target.batch)),
        "model": None,
        "measured": {"method": f"{card.name}'s own profiler; latency measured without it", "latency_ms": latency, "total_ms": data.pop("total_ms"), "disturbed": disturbed},
        "machine": machine(measured_peak(target.threads)),
        "totals": {"artifact_bytes": artifact.size_bytes, "weight_bytes": card.describe(artifact)["initializer_bytes"]},
        **data,
        "notes": notes,
    }


def _head(name: str, kind: str, target: Target) -> dict[str, Any]:
    return {"schema": SCHEMA, "subject": name, "kind": kind, "target": {"runtime": target.runtime, "threads": target.threads, "batch": target.batch}}
