"""Distillation in Lightning: a module of yours, whose training step learns by an objective."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from limbeck.adapters.loop import NumberedBatch, prepared, view_at, warn_of_parts
from limbeck.core.errors import ConfigError
from limbeck.mechanics.objective import BoundObjective

TERMS = "limbeck_terms"  # what terms train, as a module beside the student, and the checkpoint's entry for it
Base: Any = object


def distilling(module: type) -> Any:
    """A module (a class of yours below `LightningModule`) that learns by an objective: `distilling(Lit)(…, objective=bound, student="model")`.

    Its training step is the objective's; batches come from `DataLoader(data, …, collate_fn=data.collate)` of a `Numbered` data set. Validation,
    test and prediction are your own. What terms train is a module beside the student, so that `configure_optimizers` with `self.parameters()`
    trains and clips it; in checkpoints it stands apart from the weights, which your own class loads as ever. Each term's value is logged as
    `term/<name>`.

    objective: bound to the student. student: the path of the module within yours that is the student.
    Raises: ConfigError for a path that doesn't exist, an optimizer that lacks what terms train, or batches without numbers.
    """
    return type(f"Distilling{module.__name__}", (_Distilling, module), {})


class _Distilling(Base):
    """What is laid over a module's class."""

    def __init__(self, *args: Any, **kwargs: Any):
        objective, student = kwargs.pop("objective", None), kwargs.pop("student", "model")  # named ones, `save_hyperparameters` would take for yours
        super().__init__(*args, **kwargs)
        if not isinstance(objective, BoundObjective):
            raise ConfigError(f"{type(self).__name__} needs an objective that is bound, got {type(objective).__name__}. Give objective=attach(…).")
        if not student or student not in dict(self.named_modules()):
            raise ConfigError(f"{type(self).__name__} has no module '{student}' to be the student. Name the attribute that holds it; the module itself can't be.")
        self._objective, self._student = objective, student
        setattr(self, TERMS, objective.module)

    def on_fit_start(self) -> None:
        self._objective = prepared(self._objective, self.device)
        warn_of_parts(self._objective, self.trainer.accumulate_grad_batches)
        super().on_fit_start()

    def on_train_start(self) -> None:
        found = self.optimizers(use_pl_optimizer=False)
        held = {id(p) for optimizer in (found if isinstance(found, list) else [found]) for group in optimizer.param_groups for p in group["params"]}
        if any(id(p) not in held for p in self._objective.parameters()):
            raise ConfigError(f"the optimizer lacks what terms train. In {type(self).__name__}.configure_optimizers, make it of self.parameters().")
        super().on_train_start()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if not isinstance(batch, NumberedBatch):
            raise ConfigError(f"the training batch must carry its samples' numbers, got {type(batch).__name__}. Load data = Numbered(…) with collate_fn=data.collate.")
        student = self.get_submodule(self._student)
        done = self.trainer.global_step / max(self.trainer.estimated_stepping_batches, 1)
        view = view_at(self._objective, self.current_epoch)
        loss, parts = self._objective(student, batch.batch, batch.ids.cpu().numpy(), view, done=min(done, 1.0))
        self.log_dict({"loss": loss.detach(), **{f"term/{name}": value for name, value in parts.items()}}, batch_size=len(batch.ids), prog_bar=False)
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        weights = checkpoint["state_dict"]
        checkpoint[TERMS] = {k: weights.pop(k) for k in list(weights) if k.startswith(f"{TERMS}.")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if TERMS not in checkpoint and self._objective.module.state_dict():
            raise ConfigError(f"the checkpoint has no {TERMS}: it was left by a training without this objective. Start anew, or from another checkpoint.")
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **checkpoint.get(TERMS, {})}


__all__ = ["TERMS", "distilling"]
