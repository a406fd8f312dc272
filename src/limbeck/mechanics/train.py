"""The one training loop: for students, for recovery, for controls. Exact resume, a guard against NaN, one schedule.

The order of samples is a pure function of (seed, epoch), the rate one of the step, the view one of the epoch: the position is
the number of batches consumed. So a run that is stopped and started again ends with the same bits as one that wasn't.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, Interrupted, StageError
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.core.technique import Checkpoint, Log
from limbeck.mechanics.forgetting import Drawing, class_weights, ends
from limbeck.mechanics.objective import BoundObjective
from limbeck.mechanics.order import Order
from limbeck.mechanics.together import together
from limbeck.mechanics.watch import AHEAD, CLASSES, KEPT, SHARE, Watch, Watcher, behind, classes_needed, refuse_blind, shares

Rewrite = Callable[[nn.Module, Any, np.ndarray, int], tuple[BoundObjective, Any] | None]
HALVINGS = 3  # how often a diverging run may halve its rate before it fails
STATE_VERSION = 1
ONE_VALUE = "more than 1 value per channel"  # what torch says of a batch norm that has nothing to average over


@dataclass
class Position:
    """Where training stands, apart from tensors."""

    epoch: int = 0
    batch: int = 0  # batches consumed in this epoch
    step: int = 0
    rate_scale: float = 1.0
    halvings: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # terms summed over this epoch
    seen: dict[str, int] = field(default_factory=dict)  # batches in which each was computed
    shares: dict[str, float] = field(default_factory=dict)  # each term's share of the gradient in this epoch's first batch
    best_epoch: int = -1  # the place in `history` of the best so far
    stopped: bool = False  # whether the guard ended it
    history: list[dict[str, Any]] = field(default_factory=list)


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
    monitor: Watch | Callable[[nn.Module], float] | None = None,
    note: str = "training",
    rewrite: Rewrite | None = None,
    order: Order | None = None,
) -> list[dict[str, Any]]:
    """Train `model` in place on the task's training split; returns one row an epoch: loss, terms, their shares of the gradient, validation.

    Resumes from `checkpoint` if it holds a state of this loop. The global torch generator is used for dropout alone, and is
    left as it was found. In a process that was launched as one of several, it trains with the others (`limbeck.mechanics.ranks`).

    monitor: what is looked at on validation after each epoch (see `Watcher.look`), or a function that gives the metric there. Watching
        changes no bit of what is trained, unless `training.forgetting` asks for it.
    rewrite: (model, batch, ids, step) → another objective and another batch for this step, or None to leave them: what follows from
        these four alone keeps a resumed training exact.
    order: which samples each epoch sees, and when; None: all, shuffled.
    Raises: Interrupted when a stop is requested (a checkpoint is left); StageError if the loss stays NaN or Inf although the
    rate was halved; ConfigError if the split is too small, or a guard has nothing to see.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        checkpoint, log, monitor, objective = together(model, objective, seed, checkpoint=checkpoint, log=log, monitor=monitor)
        return _Loop(model, objective, training, seed, checkpoint, log, monitor, note, rewrite, order).run()


@dataclass
class _Loop:
    """One training under way: model, optimizer, position, and the last good state to fall back to."""

    model: nn.Module
    objective: BoundObjective
    training: Training
    seed: int
    checkpoint: Checkpoint
    log: Log
    monitor: Watch | Callable[[nn.Module], float] | None
    note: str
    rewrite: Rewrite | None
    given_order: Order | None

    def __post_init__(self) -> None:
        model, objective, training, seed, monitor = self.model, self.objective, self.training, self.seed, self.monitor
        self.task: Task = objective.task
        self.ranks = objective.ranks
        self.count = len(self.task.split("train"))
        if self.count < 2:
            raise ConfigError(f"split 'train' of task '{self.task.name}' has {self.count} samples; training needs at least 2. Add samples.")
        self.size = min(training.batch_size, self.count)
        self.order = self.given_order or Order(seed, self.count, self.size, training.epochs)
        self.per_epoch = self.count // self.size  # an incomplete last batch is left out; each epoch leaves out others
        self.total = self.per_epoch * training.epochs
        self.trained = [*model.parameters(), *objective.parameters()]  # all that learns is in the optimizer and in the clipping
        self.optimizer = _optimizer(self.trained, training)
        self.reader = objective.viewer.reader
        refuse_blind(monitor, training.forgetting)
        self.watcher = Watcher(monitor, self.task.metric) if monitor else None
        self.drawing = Drawing(self.task, self.order) if training.forgetting == "weight" else None
        self.watches_shares = True
        self.at = Position()
        self.falls: list[dict[str, float]] = []  # what each divergence had reached
        self.best: dict[str, Tensor] = {}  # the weights of the best epoch so far, if those are kept

    def run(self) -> list[dict[str, Any]]:
        for found in self.objective.matches:
            ends = {side: f"{at.path} {list(at.shape[1:])} at depth {at.depth:.2f}" for side, at in (("student", found.student), ("teacher", found.teacher))}
            self.log.event("layers matched", note=self.note, **ends, **({} if found.cka is None else {"cka": round(found.cka, 3)}))
        for place in self.objective.objective.chosen:
            self.log.event("layer chosen", note=self.note, place=place, layer=self.objective.matched[place])
        saved = self.checkpoint.load()
        if saved:
            self._restore(*saved)
            self.log.event("training resumed", note=self.note, epoch=self.at.epoch, batch=self.at.batch)
        self.good = self._state()
        while self.at.epoch < self.training.epochs and not self.at.stopped:
            if not self._epoch():
                self._back()
        back = bool(self.best) and (self.training.keep == "best" or self.at.stopped)
        if back:
            self.model.load_state_dict(self.best)
        if self.at.history:
            self.at.history[self.at.best_epoch if back else -1][KEPT] = 1.0  # the epoch whose weights the training ends with
        self.model.eval()
        return self.at.history

    def _epoch(self) -> bool:
        """The rest of this epoch; False if it diverged."""
        self.model.train()
        order = self.order.epoch(self.at.epoch)
        order = self.drawing.order(order, seed=self.seed, epoch=self.at.epoch) if self.drawing else order
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
        if self.ranks:
            self.ranks.agree({**self.model.state_dict(), **self.objective.module.state_dict()}, self.note)
        row = self._row()
        self.at.history.append(row)
        if self.watcher:
            self._look(self.watcher, row)
        self.log.event("epoch", note=self.note, **{k: v for k, v in row.items() if k != CLASSES})
        self.at.epoch, self.at.batch, self.at.sums, self.at.seen, self.at.shares = self.at.epoch + 1, 0, {}, {}, {}
        return True

    def _look(self, watcher: Watcher, row: dict[str, Any]) -> None:
        """What validation says after this epoch, added to its row; and what follows from it for the weights that are kept and for the guard."""
        self.model.eval()
        found, best = watcher.look(self.model)
        row |= found
        if best:  # the first of equally good epochs: it was trained least
            self.at.best_epoch = len(self.at.history) - 1
            if self.training.keep == "best" or self.training.forgetting == "stop":
                self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        classes_needed(self.at.history, self.at.best_epoch)
        limit = self.training.forgetting_limit
        if ends(self.training, row, best):
            self.at.stopped, row["stopped"] = True, 1.0
            back = self.at.best_epoch + 1
            self.log.event("training stopped", note=self.note, forgotten=row["forgotten"], limit=limit, epoch=self.at.epoch + 1, back_to_epoch=back)
        if self.drawing:
            before, self.drawing.weights = self.drawing.weights, class_weights(watcher.memory, watcher.rows, limit)
            if self.drawing.weights != before:
                self.log.event("classes drawn more often", note=self.note, epoch=self.at.epoch + 2, times=self.drawing.weights)
        if AHEAD in row and not any(AHEAD in r for r in self.at.history[:-1]):
            self.log.event("note", text=f"{self.note}: {behind(row, self.task.metric.name)}")

    def _row(self) -> dict[str, Any]:
        """This epoch so far, each term averaged over the batches in which it was computed."""
        terms = {k: v / max(self.at.seen.get(k, self.at.batch), 1) for k, v in self.at.sums.items()}
        return {"epoch": self.at.epoch + 1.0, **terms, **{f"{SHARE}{k}": v for k, v in self.at.shares.items()}}

    def _step(self, ids: np.ndarray, view: int) -> bool:
        rate = rate_at(self.at.step, self.total, self.training) * self.at.rate_scale
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        whole, ids = len(ids), self.ranks.part(ids) if self.ranks else ids
        batch = self.reader.batch(ids)
        objective, batch = (self.rewrite and self.rewrite(self.model, batch, ids, self.at.step)) or (self.objective, batch)
        pulls: dict[str, Tensor] | None = {} if self.at.batch == 0 and self.watches_shares else None
        try:
            loss, parts = replace(objective, ranks=self.ranks)(self.model, batch, ids, view, done=self.at.step / self.total, pulls=pulls)
        except ValueError as error:
            if len(ids) > 1 or ONE_VALUE not in str(error):
                raise
            raise ConfigError(f"training.batch_size must be ≥ 2 for a model whose batch norm sees one value a sample and channel, got {self.size}. Raise it.") from error
        told = {"loss": loss.detach(), **parts}
        if self.ranks:
            told = self.ranks.means(told, len(ids) / whole)
        if not torch.isfinite(told["loss"]):
            return False
        if pulls and len(pulls) > 1:
            self._weigh(pulls)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * (len(ids) / whole) if self.ranks else loss).backward()
        if self.ranks:
            self.ranks.add_gradients_(self.trained)
        norm = nn.utils.clip_grad_norm_(self.trained, self.training.clip_norm or math.inf)
        if not torch.isfinite(norm):
            return False
        self.optimizer.step()
        if self.ranks:
            self.ranks.average_norms_(self.model, len(ids) / whole)
        for name, value in told.items():
            self.at.sums[name] = self.at.sums.get(name, 0.0) + float(value)
            self.at.seen[name] = self.at.seen.get(name, 0) + 1
        self.at.batch, self.at.step = self.at.batch + 1, self.at.step + 1
        return True

    def _weigh(self, pulls: Mapping[str, Tensor]) -> None:
        """Each term's share of the gradient, off the graph of this step. What can't give it (reentrant activation checkpoints) isn't watched."""
        try:
            found = shares(pulls, self.model)
            self.at.shares = self.ranks.told(found) if self.ranks else found
        except RuntimeError as error:
            self.watches_shares = False
            self.log.event("note", text=f"{self.note}: the terms' shares of the gradient aren't watched: {str(error).splitlines()[0]}")

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
        for name, kept in (("watch", self.watcher), ("drawing", self.drawing)):
            tensors |= {f"{name}.{k}": v for k, v in kept.tensors().items()} if kept else {}
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
        for name, kept in (("watch", self.watcher), ("drawing", self.drawing)):
            if kept:
                kept.restore({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
        torch.set_rng_state(tensors["rng"])
        self.at = Position(**copy.deepcopy(dict(state["position"])))


def _optimizer(parameters: Sequence[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """Weight decay acts on matrices and kernels, not on biases and norms."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() > 1], "weight_decay": training.weight_decay}, {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0}]
    groups = [g for g in groups if g["params"]]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=training.learning_rate)
