"""What the training loop works with, in one process or as one of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.technique import Checkpoint, Log
from limbeck.mechanics.objective import BoundObjective
from limbeck.mechanics.ranks import Ranks, batch_norms, current, seed_of
from limbeck.mechanics.watch import Watch

Monitor = Watch | Callable[[nn.Module], float]


@dataclass(frozen=True)
class FirstWrites:
    """A checkpoint that the first process writes and all read; a request to stop that one of them gets holds for all."""

    checkpoint: Checkpoint
    ranks: Ranks
    seed: int

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        tensors = {**tensors, **self.ranks.generators()}
        if self.ranks.first:
            self.checkpoint.save(tensors, state)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What the first process finds, with this one's own random numbers; new ones, where another number of processes left it."""
        saved = self.ranks.told(self.checkpoint.load() if self.ranks.first else None)
        if saved is None:
            return None
        tensors, state = saved
        kept = {int(k.partition(".")[2] or 0): v for k, v in tensors.items() if k.partition(".")[0] == "rng"}
        own = kept[self.ranks.rank] if len(kept) == self.ranks.count else torch.Generator().manual_seed(seed_of(self.seed, self.ranks.rank, state["position"]["step"])).get_state()
        return {**{k: v for k, v in tensors.items() if not k.startswith("rng")}, "rng": own}, state

    def stop_requested(self) -> bool:
        return self.ranks.any(self.checkpoint.stop_requested())


@dataclass(frozen=True)
class Mute:
    """A log that tells nothing: of every process but the first."""

    def event(self, event: str, **data: Any) -> None:
        pass

    def progress(self, done: float, total: float, note: str) -> None:
        pass


def together(
    model: nn.Module, objective: BoundObjective, seed: int, *, checkpoint: Checkpoint, log: Log, monitor: Monitor | None
) -> tuple[Checkpoint, Log, Monitor | None, BoundObjective]:
    """What the training loop works with: as given where this process is alone; else the same weights on all processes, random numbers of
    each one's own, and the first alone writes, tells and judges."""
    if not (ranks := current(start=True)):
        return checkpoint, log, monitor, objective
    ranks.align_([*model.state_dict().values(), *objective.module.state_dict().values()])
    if not ranks.first:
        torch.manual_seed(seed_of(seed, ranks.rank))
    log = log if ranks.first else Mute()
    log.event("training in several processes", processes=ranks.count, batch_norms=len(batch_norms(model)))
    return FirstWrites(checkpoint, ranks, seed), log, _judge(monitor, ranks), replace(objective, ranks=ranks)


def _judge(monitor: Monitor | None, ranks: Ranks) -> Monitor | None:
    """The first process looks at validation; the others hear what it saw."""
    if isinstance(monitor, Watch):
        rows, teacher = monitor.rows, monitor.teacher
        return Watch(lambda model: ranks.told(rows(model) if ranks.first else None), (lambda: ranks.told(teacher() if ranks.first else None)) if teacher else None)
    return (lambda model: ranks.told(monitor(model) if ranks.first else None)) if monitor else None
