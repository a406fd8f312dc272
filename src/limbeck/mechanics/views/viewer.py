"""A task's samples as models see them: under its views, or as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from limbeck.core.errors import ConfigError
from limbeck.core.task import Task
from limbeck.mechanics.data import Reader, arguments, batch_of, labels
from limbeck.mechanics.views.mixing import Mixed
from limbeck.mechanics.views.recipe import Views


@dataclass(frozen=True)
class View:
    """What models are called with, and how samples were mixed."""

    args: tuple
    kwargs: dict[str, Any]
    mixed: Mixed | None = None


@dataclass(frozen=True)
class Viewer:
    """Shows batches of the training split. What it must read for that (partners of mixed samples) is read into memory once."""

    task: Task

    @cached_property
    def reader(self) -> Reader:
        """The training split by ids."""
        return Reader(self.task, "train")

    @cached_property
    def _size(self) -> tuple[int, ...] | None:
        return self.task.views.size_alone(self.task)

    def see(self, batch: Any, ids: np.ndarray, view: np.ndarray | int) -> View:
        """This batch under these views. Raises: as `Views.see`."""
        views = self.task.views
        if not views:
            return View(*arguments(self.task, batch))
        args, kwargs, mixed = views.see(self.task, batch, ids, view, read=self.reader.batch if views.mixes else None, size=self._size)
        return View(args, kwargs, mixed)


def refuse(task: Task, single: Sequence[str]) -> None:
    """Views and an objective that don't go together, before anything is computed.

    single: the terms that read one label a sample, and can't do with two.
    Raises: ConfigError with the term, the reason and the way out.
    """
    views = task.views
    if not views:
        return
    if not isinstance(views, Views):
        raise ConfigError(f"Task.views must be a limbeck.Views, got {type(views).__name__}: another can't be replayed, nor answers to it kept. Build one, as in Views(flip=True).")
    if views.mixes and single:
        raise ConfigError(
            f"{', '.join(single)} reads one label a sample; views.{' and '.join(views.mixes)} mix two samples, with two labels. "
            "Take task_loss or label_smoothing for the labels and kd for the teacher, or leave the mixing out."
        )
    if views.mixes and task.metric.target == "token":
        raise ConfigError(f"views.{' and '.join(views.mixes)} mix samples whole, and task '{task.name}' labels tokens, each for itself. Leave the mixing out.")
    if views.cutmix or views.token_drop:
        _by_place(task, views)


def _by_place(task: Task, views: Views) -> None:
    """Raises ConfigError for labels that stand by place, where places are cut out or closed up."""
    batch = batch_of(task, "train", [0, 1])
    found, ids = labels(batch), views.chosen(*arguments(task, batch))
    shape = found.shape if isinstance(found, (Tensor, np.ndarray)) else ()
    if views.token_drop and (task.metric.target == "token" or tuple(shape) == tuple(ids.shape)):
        raise ConfigError("views.token_drop closes up what it leaves out, and the labels, one a token, would stand beside others. Take views.token_mask.")
    if views.cutmix and len(shape) > 2:
        raise ConfigError(f"views.cutmix mixes labels by area, and labels of shape {list(shape)} stand by place. Leave it out.")
