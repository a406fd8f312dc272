"""Memory and disk: estimated before anything is trained, watched while it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from limbeck.analysis.profile import Profile
from limbeck.core.errors import Refusal
from limbeck.core.plan import Stage, Training

FLOAT = 4  # bytes
COPIES = 7  # of the weights while they train: weights, gradients, two moments, the last good state of weights and moments
LEAST_FREE_BYTES = 200 << 20  # below this much memory or disk, work stops with a checkpoint
WATCH_SECONDS = 2.0


@dataclass(frozen=True)
class Structure:
    """What a stage's candidate will weigh: parameters, and the numbers that one sample's forward pass makes."""

    parameters: int
    activations: int

    @staticmethod
    def of(profile: Profile) -> Structure:
        return Structure(profile.parameters, sum(math.prod(layer.output_shape) for layer in profile.layers))


def needs(structure: Structure, training: Training | None, *, teacher: Structure, answers_bytes: int) -> dict[str, int]:
    """Bytes of memory and disk that a stage will take, estimated from shapes.

    Training keeps each sample's activations twice (values and gradients) beside the weights' copies; the teacher runs forward
    alone. On disk stand a checkpoint and the one that replaces it, the candidate, its artifact and the teacher's answers.

    Args:
        training: The longest schedule of the stage; None if nothing is trained.
        answers_bytes: What the teacher's cache will take in all.
    """
    weights = structure.parameters * FLOAT
    if training is None:
        return {"memory": 3 * weights, "disk": 3 * weights}
    batch = training.batch_size
    memory = COPIES * weights + 2 * batch * structure.activations * FLOAT + (teacher.parameters + batch * teacher.activations) * FLOAT
    return {"memory": memory, "disk": 2 * 3 * weights + 3 * weights + answers_bytes}


def trainings_of(stage: Stage, config: Any) -> list[Training]:
    """Every schedule that a stage's config or recovery holds."""
    own = [v for v in vars(config).values() if isinstance(v, Training)]
    return [*own, *([stage.recovery.training] if stage.recovery else [])]


def refusal(wanted: Sequence[tuple[Stage, Mapping[str, int]]], folder: Path) -> Refusal | None:
    """Why a stage can't fit on this machine, with the figures; None if all can."""
    free = {"memory": psutil.virtual_memory().available, "disk": psutil.disk_usage(str(folder)).free}
    way = {"memory": "Lower its training.batch_size, take a smaller student, or free memory.", "disk": "Make room, or put the run elsewhere with run.root."}
    for stage, needed in wanted:
        for kind, amount in needed.items():
            if amount + LEAST_FREE_BYTES > free[kind]:
                return Refusal(f"stage '{stage.title}' needs about {_gib(amount)} of {kind}, and {_gib(free[kind])} are free. Nothing was trained.", way[kind])
    return None


def _gib(amount: int) -> str:
    return f"{amount / 2**30:.2f} GiB"


@dataclass
class Watch:
    """Stands in for `stop`: also stops when memory or disk run out, and keeps the reason."""

    stop: Callable[[], bool]
    folder: Path
    reason: str = ""
    _asked: float = field(default=0.0, repr=False)

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._asked >= WATCH_SECONDS:
            self._asked = now
            self.reason = _shortage(self.folder)
        return bool(self.reason) or self.stop()


def _shortage(folder: Path) -> str:
    memory, disk = psutil.virtual_memory().available, psutil.disk_usage(str(folder)).free
    if memory < LEAST_FREE_BYTES:
        return f"only {memory >> 20} MiB of memory are free; close other programs"
    return f"only {disk >> 20} MiB of disk are free below {folder}; make room" if disk < LEAST_FREE_BYTES else ""
