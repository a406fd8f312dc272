"""What a technique may see of the run: its task, signals, randomness, checkpoint, budget and log. Nothing else reaches upward."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.core.candidate import Candidate
from limbeck.core.errors import RunError
from limbeck.core.events import level
from limbeck.core.metric import Rows
from limbeck.core.secrets import masked
from limbeck.core.task import Task
from limbeck.core.technique import Budget, Log, Signals
from limbeck.pipeline.store import write


@dataclass(frozen=True)
class StageRng:
    """A stage's generators, started from one seed."""

    seed: int
    numpy: np.random.Generator
    torch: torch.Generator

    @staticmethod
    def of(seed: int) -> StageRng:
        return StageRng(seed, np.random.default_rng(seed), torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class FileCheckpoint:
    """One safetensors file that carries plain data beside the tensors; replaced in one move."""

    path: Path
    stop: Callable[[], bool] = lambda: False

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        from safetensors.torch import save

        write(self.path, save({k: v.contiguous() for k, v in tensors.items()}, metadata={"state": json.dumps(state)}))

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                return {k: file.get_tensor(k) for k in file.keys()}, json.loads(file.metadata()["state"])  # noqa: SIM118
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"the checkpoint {self.path} can't be read ({error}): it was changed or cut off. Delete it and run again: this training starts anew.") from error

    def stop_requested(self) -> bool:
        return self.stop()


@dataclass(frozen=True)
class QuietLog:
    """Keeps events, draws nothing."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def event(self, event: str, **data: Any) -> None:
        self.events.append((event, data))

    def progress(self, done: float, total: float, note: str) -> None:
        pass


@dataclass(frozen=True)
class Announced:
    """A log that also tells Python's logger `limbeck.run`, where somebody listens to it."""

    log: Log

    def event(self, event: str, **data: Any) -> None:
        data = masked(data)
        logger = logging.getLogger("limbeck.run")
        if logger.hasHandlers():
            number, shown = logging.getLevelNamesMapping()[level(event).upper()], " ".join(f"{k}={v}" for k, v in data.items())
            logger.log(number, "%s %s", event, shown, extra={"limbeck": {"event": event, "data": data}})
        self.log.event(event, **data)

    def progress(self, done: float, total: float, note: str) -> None:
        self.log.progress(done, total, note)


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The context that the pipeline hands to a technique; implements `limbeck.core.technique.Context`."""

    task: Task
    signals: Signals
    rng: StageRng
    checkpoint: FileCheckpoint
    log: Log
    round_to: int
    scratch: Path
    judge: Callable[[Candidate | None], Rows]  # the metric's rows on validation; of the teacher, for None
    timer: Callable[[Candidate], float]
    answerer: Callable[[Candidate, bool], Signals]
    budget: Budget = field(default_factory=Budget)

    def answers(self, candidate: Candidate, *, apart: bool = False) -> Signals:
        return self.answerer(candidate, apart)

    def score(self, candidate: Candidate) -> float:
        return self.task.metric.value(self.judge(candidate))

    def rows(self, candidate: Candidate | None = None) -> Rows:
        return self.judge(candidate)

    def time(self, candidate: Candidate) -> float:
        return self.timer(candidate)
