"""An objective for a loop that isn't limbeck's: bound in one call, and samples that know their number."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, default_collate

from limbeck.core.errors import ConfigError
from limbeck.core.task import Task
from limbeck.core.technique import Signals
from limbeck.intake.fingerprint import MapStyle, fingerprint
from limbeck.intake.metrics import accuracy, mse, perplexity
from limbeck.mechanics.live import LiveTeacher
from limbeck.mechanics.objective import BoundObjective, Objective, Term
from limbeck.mechanics.ranks import current
from limbeck.mechanics.signals import CachedTeacher

Target = Literal["class", "token", "value"]
METRICS = {"class": accuracy, "token": perplexity, "value": mse}


def attach(
    objective: Objective | Term,
    student: nn.Module,
    *,
    data: Any,
    teacher: nn.Module | Signals | None = None,
    target: Target = "class",
    cache: Path | str | None = None,
    views: Any = None,
    collate: Callable[[list[Any]], Any] | None = None,
    inputs: Callable[[Any], tuple[tuple, dict[str, Any]]] | None = None,
    outputs: Callable[[Any], Mapping[str, Tensor]] | None = None,
    loss: Callable[[Mapping[str, Tensor], Any], Tensor] | None = None,
    seed: int = 0,
) -> BoundObjective:
    """An objective for a loop of your own: `loss, parts = bound(student, batch, ids)`, and `bound.parameters()` beside the student's.

    All that it asks for is what the loop has: the student, the teacher, the training data. In a run, `Task` and the run's cache stand here.

    Args:
        data: The training data, map-style; `data[i]` is deterministic. Ids are its indices.
        teacher: The model, in the weights that it shall teach with, or signals (`CachedTeacher` and its kin); None where no term reads one.
        target: What labels are, for `task_loss` and for which tokens count: "class", "token" (−100 for none) or "value". With `loss`, it doesn't matter.
        cache: A folder for the answers of a teacher that is a model (half precision): made on first use, kept for later, refused for another
            teacher, other data or other views.
        views: A recipe of augmentation that can be replayed (`limbeck.Views`), which student and teacher see alike.
        collate, inputs, outputs, loss: As in `Task`, for what its defaults don't fit.
        seed: Of the first weights of what terms train.
    Raises: ConfigError for data without numbers, a cache without a model, and as `Objective.bind`.
    """
    numbered(data)
    task = Task(metric=METRICS[target](), splits={"train": data}, collate=collate, inputs=inputs, outputs=outputs, loss=loss, views=views)
    signals = LiveTeacher(task, teacher) if isinstance(teacher, nn.Module) else teacher
    if cache is not None:
        if not isinstance(teacher, nn.Module):
            raise ConfigError(f"cache = {str(cache)!r} keeps the answers of a teacher that is a model, got {type(teacher).__name__}. Give the model, or leave cache out.")
        identity = {"teacher": weights_hash(teacher), "data": fingerprint(data), "views": views.recipe() if views else None}
        signals = CachedTeacher(Path(cache), LiveTeacher(task, teacher), identity, features="float16")
    bound = objective if isinstance(objective, Objective) else 1.0 * objective
    return bound.bind(task, signals, student, seed=seed)


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of a model's structure and weights."""
    found = hashlib.sha256(repr(model).encode())
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def numbered(data: Any) -> Any:
    """The data, whose samples have numbers. Raises ConfigError for a stream, whose samples have none."""
    if isinstance(data, IterableDataset) or not isinstance(data, MapStyle):
        raise ConfigError(f"the training data must be map-style (len(data), data[i]), got {type(data).__name__}: views and caches go by a sample's number.")
    return data


class NumberedBatch(NamedTuple):
    """A batch and its samples' numbers."""

    ids: Tensor
    batch: Any


class Numbered(Dataset):
    """Training data whose batches carry their samples' numbers: `DataLoader(data, …, collate_fn=data.collate)` gives (ids, batch)."""

    def __init__(self, data: Any, collate: Callable[[list[Any]], Any] | None = None):
        self.data, self._collate = numbered(data), collate or default_collate

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.data[index]

    def collate(self, samples: list[tuple[int, Any]]) -> NumberedBatch:
        """The batch by your own collate, or torch's."""
        return NumberedBatch(torch.tensor([number for number, _ in samples]), self._collate([sample for _, sample in samples]))


def prepared(objective: BoundObjective, device: Any) -> BoundObjective:
    """On this device, with the other processes, if there are some."""
    objective.module.to(device)
    if isinstance(objective.signals, LiveTeacher):
        objective.signals.model.to(device)
    return replace(objective, ranks=current())


def check_numbers(objective: BoundObjective, data: Any) -> None:
    """Raises ConfigError if a trainer's data can't be that of the objective."""
    own = len(objective.task.split("train"))
    if len(numbered(data)) != own:
        raise ConfigError(f"the trainer has {len(data)} training samples, the objective's task {own}: ids wouldn't mean the same. Bind the objective to the trainer's data set.")


def warn_of_parts(objective: BoundObjective, steps: int) -> None:
    """Say that terms that compare samples see one part of an accumulated batch at a time."""
    local = [label for label, _, term in objective.objective.active if term.relational]
    if local and steps > 1:
        text = "%s compare samples with each other, of one micro-batch alone: gradients are accumulated over %d. Raise the batch size instead, if that matters."
        logging.getLogger("limbeck.adapters").warning(text, ", ".join(local), steps)


def view_at(objective: BoundObjective, epoch: int) -> int:
    """Which view this epoch sees."""
    return epoch % objective.task.views.versions if objective.task.views else 0
