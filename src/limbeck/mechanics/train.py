"""The one training loop: for students, for recovery, for controls. Exact resume, a guard against NaN, one schedule.

The order of samples is a pure function of (seed, epoch), the rate one of the step, the view one of the epoch: the position is
the number of batches consumed. So a run that is stopped and started again ends with the same bits as one that wasn't.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, Interrupted, StageError
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.core.technique import Checkpoint, Log
from limbeck.mechanics.data import Reader
from limbeck.mechanics.objective import BoundObjective

HALVINGS = 3  # how often a diverging run may halve its rate before it fails
STATE_VERSION = 1


@dataclass
class Position:
    """Where training stands, apart from tensors."""

    epoch: int = 0
    batch: int = 0  # batches consumed in this epoch
    step: int = 0
    rate_scale: float = 1.0
    halvings: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # terms summed over this epoch
    history: list[dict[str, float]] = field(default_factory=list)


def order_of(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch sees the samples."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def rate_at(step: int, total: int, training: Training) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts)."""
    warm = training.warmup * total
    if step < warm:
        return training.learning_rate * (step + 1) / max(warm, 1)
    done = (step - warm) / max(total - warm, 1)
    return training.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


def fit(
    model: nn.Module,
    objective: BoundObjective,
    training: Training,
    *,
    seed: int,
    checkpoint: Checkpoint,
    log: Log,
    monitor: Callable[[nn.Module], float] | None = None,
    note: str = "training",
) -> list[dict[str, float]]:
    """Train `model` in place on the task's training split; returns one row an epoch: loss, terms, monitored validation.

    Resumes from `checkpoint` if it holds a state of this loop. The global torch generator is used for dropout alone, and is
    left as it was found.

    Raises: Interrupted when a stop is requested (a checkpoint is left); StageError if the loss stays NaN or Inf although the
    rate was halved; ConfigError if the split is too small.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _Loop(model, objective, training, seed, checkpoint, log, monitor, note).run()


class _Loop:
    """One training under way: model, optimizer, position, and the last good state to fall back to."""

    def __init__(self, model: nn.Module, objective: BoundObjective, training: Training, seed: int, checkpoint: Checkpoint, log: Log, monitor: Any, note: str):
        self.model, self.objective, self.training, self.seed = model, objective, training, seed
        self.checkpoint, self.log, self.monitor, self.note = checkpoint, log, monitor, note
        self.task: Task = objective.task
        self.count = len(self.task.split("train"))
        if self.count < 2:
            raise ConfigError(f"split 'train' of task '{self.task.name}' has {self.count} samples; training needs at least 2. Add samples.")
        self.size = min(training.batch_size, self.count)
        self.per_epoch = self.count // self.size  # an incomplete last batch is left out; each epoch leaves out others
        self.total = self.per_epoch * training.epochs
        self.trained = [*model.parameters(), *objective.parameters()]  # all that learns is in the optimizer and in the clipping
        self.optimizer = _optimizer(self.trained, training)
        self.reader = Reader(self.task, "train")
        self.at = Position()
        self.falls: list[dict[str, float]] = []  # what each divergence had reached
        self.best: dict[str, Tensor] = {}  # the weights of the best epoch so far, if those are kept

    def run(self) -> list[dict[str, float]]:
        for found in self.objective.matches:
            ends = {side: f"{at.path} {list(at.shape[1:])} at depth {at.depth:.2f}" for side, at in (("student", found.student), ("teacher", found.teacher))}
            self.log.event("layers matched", note=self.note, **ends)
        saved = self.checkpoint.load()
        if saved:
            self._restore(*saved)
            self.log.event("training resumed", note=self.note, epoch=self.at.epoch, batch=self.at.batch)
        self.good = self._state()
        while self.at.epoch < self.training.epochs:
            if not self._epoch():
                self._back()
        if self.best:
            self.model.load_state_dict(self.best)
        self.model.eval()
        return self.at.history

    def _epoch(self) -> bool:
        """The rest of this epoch; False if it diverged."""
        self.model.train()
        order = order_of(self.seed, self.at.epoch, self.count)
        views = self.task.views.versions if self.task.views else 1
        while self.at.batch < self.per_epoch:
            ids = order[self.at.batch * self.size : (self.at.batch + 1) * self.size]
            if not self._step(ids, self.at.epoch % views):
                return False
            self.log.progress(self.at.step, self.total, self.note)
            if self.at.step % self.training.checkpoint_steps == 0:
                self._save()
            if self.checkpoint.stop_requested():
                self._save()
                raise Interrupted(f"stopped in {self.note}, epoch {self.at.epoch + 1} of {self.training.epochs}; a checkpoint is on disk. Run the same command again to go on.")
        row = self._row()
        if self.monitor:
            self.model.eval()
            row["validation"] = self.monitor(self.model)
            self._keep_best(row["validation"])
        self.at.history.append(row)
        self.log.event("epoch", note=self.note, **row)
        self.at.epoch, self.at.batch, self.at.sums = self.at.epoch + 1, 0, {}
        return True

    def _keep_best(self, score: float) -> None:
        """The first of equally good epochs is kept: it was trained least."""
        before = [row["validation"] for row in self.at.history]
        better = max if self.task.metric.direction == "higher" else min
        if self.training.keep == "best" and (not before or (score != better(before) and better(score, *before) == score)):
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def _row(self) -> dict[str, float]:
        """This epoch so far, each term averaged over the batches that were seen."""
        return {"epoch": self.at.epoch + 1.0, **{k: v / max(self.at.batch, 1) for k, v in self.at.sums.items()}}

    def _step(self, ids: np.ndarray, view: int) -> bool:
        rate = rate_at(self.at.step, self.total, self.training) * self.at.rate_scale
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, parts = self.objective(self.model, self.reader.batch(ids), ids, view, done=self.at.step / self.total)
        if not torch.isfinite(loss):
            return False
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained, self.training.clip_norm or math.inf)
        if not torch.isfinite(norm):
            return False
        self.optimizer.step()
        for name, value in {"loss": loss.detach(), **parts}.items():
            self.at.sums[name] = self.at.sums.get(name, 0.0) + float(value)
        self.at.batch, self.at.step = self.at.batch + 1, self.at.step + 1
        return True

    def _back(self) -> None:
        """To the last good state, with half the rate; a StageError when that was done too often."""
        halvings = self.at.halvings + 1
        self.falls.append(self._row() | {"diverged_at_step": float(self.at.step), "rate_scale": self.at.rate_scale})
        if halvings > HALVINGS:
            where = f"{self.note} diverged: the loss is NaN or Inf although the rate was halved {HALVINGS} times, last at step {self.at.step}."
            raise StageError(f"{where} Lower learning_rate ({self.training.learning_rate:g}) or look at the inputs.", curve=[*self.at.history, *self.falls])
        self._restore(*self.good)
        self.at.halvings, self.at.rate_scale = halvings, 0.5**halvings
        self.log.event("training diverged", note=self.note, back_to_step=self.at.step, rate_scale=self.at.rate_scale)

    def _save(self) -> None:
        self.good = self._state()
        self.checkpoint.save(*self.good)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"model.{k}": v.detach().clone() for k, v in self.model.state_dict().items()}
        tensors |= {f"objective.{k}": v.detach().clone() for k, v in self.objective.module.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v).clone() for k, v in entry.items() if v is not None}
        tensors |= {f"best.{k}": v.clone() for k, v in self.best.items()}  # tied weights are stored twice: safetensors takes no shared memory
        tensors["rng"] = torch.get_rng_state()
        state = {"version": STATE_VERSION, "position": asdict(self.at), "modes": sorted(n for n, m in self.model.named_modules() if m.training)}
        return tensors, state

    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        self.best = {k.removeprefix("best."): v.clone() for k, v in tensors.items() if k.startswith("best.")}
        self.objective.module.load_state_dict({k.removeprefix("objective."): v for k, v in tensors.items() if k.startswith("objective.")})
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                entries.setdefault(int(index), {})[name] = value.clone()
        self.optimizer.load_state_dict({"state": entries, "param_groups": self.optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["rng"])
        position = dict(state["position"])
        self.at = Position(**{**position, "sums": dict(position["sums"]), "history": [dict(r) for r in position["history"]]})


def _optimizer(parameters: Sequence[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """Weight decay acts on matrices and kernels, not on biases and norms."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() > 1], "weight_decay": training.weight_decay}, {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0}]
    groups = [g for g in groups if g["params"]]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=training.learning_rate)
