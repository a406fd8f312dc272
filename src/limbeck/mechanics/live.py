"""A teacher that is asked each time, and how a cache asks one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, Interrupted, TaskError
from limbeck.core.task import Task
from limbeck.mechanics.build import Ensemble
from limbeck.mechanics.data import arguments, batch_of, named_outputs
from limbeck.mechanics.matching import Layer, layers
from limbeck.mechanics.taps import shapes, tapped, with_taps
from limbeck.mechanics.views import Viewer

Progress = Callable[[float, float, str], None]  # how much is done, of how much, of what

MEMBER = "member-"
BATCH_BYTES = 64 << 20  # of answers that one batch of the teacher may give


@dataclass(frozen=True)
class LiveTeacher:
    """Asks the model each time, in eval mode and without gradient. Raises TaskError on NaN or Inf in its outputs.

    apart: an ensemble's members answer each for itself, under `member_name`.
    """

    task: Task
    model: nn.Module
    taps: tuple[str, ...] = ()
    apart: bool = False

    def tapped(self, paths: tuple[str, ...]) -> LiveTeacher:
        shapes(self.model, paths, *arguments(self.task, batch_of(self.task, "train", [0, 1])))  # refuses a path that isn't there
        return replace(self, taps=(*self.taps, *paths))

    def layers(self) -> tuple[Layer, ...]:
        return layers(self.model, *arguments(self.task, batch_of(self.task, "train", [0, 1])))

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        self.model.eval()
        with torch.no_grad(), tapped(self.model, self.taps) as seen:
            outputs = with_taps(self._asked(args, kwargs), seen)
        for name, value in outputs.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise TaskError(f"the teacher's output '{name}' holds NaN or Inf for {_which(value, ids)}. Look at these inputs and at the weights.")
        return outputs

    def _asked(self, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        if not (self.apart and isinstance(self.model, Ensemble)):
            return named_outputs(self.task, self.model(*args, **kwargs))
        answers = [named_outputs(self.task, member(*args, **kwargs)) for member in self.model.members]
        return {member_name(number, name): value for number, outputs in enumerate(answers) for name, value in outputs.items()}


def member_name(member: int, output: str) -> str:
    """What a member's output is called where members answer apart."""
    return f"{MEMBER}{member}.{output}"


def members_of(outputs: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The outputs of each member, by their own names, of what was answered apart."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, value in outputs.items():
        if name.startswith(MEMBER):
            number, _, own = name.removeprefix(MEMBER).partition(".")
            found.setdefault(int(number), {})[own] = value
    return [found[number] for number in sorted(found)]


def _which(value: Tensor, ids: np.ndarray) -> str:
    """The samples whose answer isn't finite; the batch's, if answers don't stand sample by sample."""
    if value.dim() == 0 or len(value) != len(ids):
        return f"some of the samples {ids[:8].tolist()}{' …' if len(ids) > 8 else ''}"
    bad = np.asarray(ids)[(~torch.isfinite(value)).flatten(1).any(1).cpu().numpy() if value.dim() > 1 else (~torch.isfinite(value)).cpu().numpy()]
    return f"{len(bad)} sample{'s' if len(bad) > 1 else ''} of the training split, number {', '.join(map(str, bad[:8].tolist()))}{' …' if len(bad) > 8 else ''}"


@dataclass(frozen=True)
class Pass:
    """How a cache asks the teacher: batch by batch, in the order of the samples.

    batch_size: samples at once, fewer where their answers would be large. stop: asked between batches; True raises Interrupted, and the
    shards that are whole stay. note: told of shards that must be made again.
    """

    live: LiveTeacher
    batch_size: int = 128
    progress: Progress | None = None
    stop: Callable[[], bool] = lambda: False
    note: Callable[..., None] | None = None

    @cached_property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample's answers: floats alone, by name."""
        answers = self.live.teacher(np.array([0, 1]), 0, *arguments(self.live.task, batch_of(self.live.task, "train", [0, 1])))
        return {name: tuple(value.shape[1:]) for name, value in answers.items() if value.is_floating_point()}

    @property
    def count(self) -> int:
        return len(self.live.task.split("train"))

    def bound_to(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """The identity with the task's own views, whatever it says of them: a cache under one recipe is never read under another."""
        return {**identity, **({"views": self.live.task.views.recipe()} if self.live.task.views else {})}

    def answers(self, view: int, samples: Sequence[np.ndarray], kept: Callable[[str], bool]) -> Iterator[Iterator[dict[str, Tensor]]]:
        """For each shard's samples, the answers in batches. Raises Interrupted; ConfigError for answers of several sizes."""
        viewer = Viewer(self.live.task)
        size = min(self.batch_size, max(1, BATCH_BYTES // max(4 * sum(math.prod(shape) for shape in self.sizes.values()), 1)))
        done, total = 0, sum(map(len, samples))

        def batches(ids: np.ndarray) -> Iterator[dict[str, Tensor]]:
            nonlocal done
            for start in range(0, len(ids), size):
                part = ids[start : start + size]
                yield self._asked(viewer, part, view, kept)
                done += len(part)
                if self.progress:
                    self.progress(float(done), float(total), f"teacher's answers to view {view}")

        for ids in samples:
            yield batches(ids)

    def _asked(self, viewer: Viewer, ids: np.ndarray, view: int, kept: Callable[[str], bool]) -> dict[str, Tensor]:
        if self.stop():
            raise Interrupted("stopped while the teacher's answers were taken; those that are whole are kept. Run the same command again to go on.")
        shown = viewer.see(viewer.reader.batch(ids), ids, view)
        found = {name: value.cpu() for name, value in self.live.teacher(ids, view, shown.args, shown.kwargs).items() if name in self.sizes and kept(name)}
        for name, value in found.items():
            if tuple(value.shape) != (len(ids), *self.sizes[name]):
                raise ConfigError(
                    f"the teacher's '{name}' is {list(self.sizes[name])} for the first samples and {list(value.shape[1:])} for those from {ids[0]}: a cache needs one size. "
                    "Pad all samples to one length, or distill with the teacher live."
                )
        return found
