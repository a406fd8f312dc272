"""Distillation in the Hugging Face Trainer: the same arguments, data and callbacks, with an objective in the place of its loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from limbeck.adapters.loop import check_numbers, numbered, prepared, view_at, warn_of_parts
from limbeck.core.errors import ConfigError
from limbeck.mechanics.objective import BoundObjective
from limbeck.mechanics.terms.task_loss import IGNORED

Base: Any = object
SAMPLE_ID = "sample_id"  # the column that holds a sample's number
TERMS_FILE = "limbeck_terms.safetensors"  # in a checkpoint, beside the optimizer's state


def distilling(trainer: type) -> Any:
    """A trainer (transformers' `Trainer`, or a class of yours below it) that learns by an objective: `distilling(Trainer)(…, objective=bound)`.

    Everything else is the trainer's own: evaluation, prediction and what is saved as the model know nothing of it. What terms train is in
    the optimizer, in the clipping and in checkpoints (`limbeck_terms.safetensors`), never in the model's weights; each term's value is
    logged as `term/<name>`. Under gradient accumulation a sample counts alike whatever its micro-batch; terms that compare samples see one
    micro-batch, and a warning says so. Under DistributedDataParallel they see those of all processes.

    objective: bound to the model and the training data, by `attach` or `Objective.bind`.
    shift_labels: for causal language models, whose labels are the inputs: each is moved to the logits that predict it, for the objective alone.
    Raises: ConfigError, when it is made, for data other than the objective's, streams, or a loss function beside the objective.
    """
    return type(f"Distilling{trainer.__name__}", (_Distilling, trainer), {})


class _Columned(Dataset):
    """Samples (dicts) with their number as one more column."""

    def __init__(self, data: Any):
        self.data = numbered(data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.data[index], SAMPLE_ID: int(index)}


class _Distilling(Base):
    """What is laid over a trainer's class."""

    def __init__(self, *args: Any, objective: BoundObjective, shift_labels: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.compute_loss_func is not None:
            raise ConfigError("compute_loss_func stands beside an objective, which is the loss. Leave it out, or give Task.loss and the term task_loss().")
        if self.train_dataset is not None:
            check_numbers(objective, self.train_dataset)
            self.train_dataset = _Columned(self.train_dataset)
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = False  # the loss is a mean over samples: the trainer divides by the number of micro-batches
        self.objective = prepared(objective, self.args.device)
        self.shift_labels = shift_labels
        self._group = 0  # samples of all micro-batches of this step
        self._sums: dict[str, float] = {}
        self._count = 0
        warn_of_parts(objective, self.args.gradient_accumulation_steps)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if SAMPLE_ID not in self._signature_columns:
            self._signature_columns.append(SAMPLE_ID)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.objective.module.zero_grad()  # a step begins here; the trainer empties the model's gradients alone
        self._group = sum(len(batch[SAMPLE_ID]) for batch in batches if SAMPLE_ID in batch)
        return batches, items

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self.objective.share_gradients()
        return loss

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch)
        if SAMPLE_ID not in inputs:
            raise ConfigError(f"the training batch has no '{SAMPLE_ID}', only {sorted(inputs)}: the data_collator drops it. Let it pass columns that it doesn't know, as numbers.")
        batch = {k: v for k, v in inputs.items() if k != SAMPLE_ID}
        if self.shift_labels:
            labels = batch["labels"]
            batch["labels"] = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], 1)
        ids = inputs[SAMPLE_ID].cpu().numpy()
        done = self.state.global_step / max(self.state.max_steps, 1)
        loss, parts = self.objective(model, batch, ids, view_at(self.objective, int(self.state.epoch or 0)), done=min(done, 1.0))
        self._count += len(ids)
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value) * len(ids)
        if self._group:  # n / N of this micro-batch; the trainer divides by their number
            loss = loss * (len(ids) * self.current_gradient_accumulation_steps / self._group)
        return (loss, parts) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().prediction_step(model, {k: v for k, v in inputs.items() if k != SAMPLE_ID}, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._count:
            told = {name: torch.tensor(value / self._count) for name, value in self._sums.items()}
            told = self.objective.ranks.means(told, 1 / self.objective.ranks.count) if self.objective.ranks else told
            logs |= {f"term/{name}": float(value) for name, value in told.items()}
            self._sums, self._count = {}, 0
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        given = self.optimizer is not None
        optimizer = super().create_optimizer(*args, **kwargs)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [p for p in self.objective.parameters() if id(p) not in held]
        if missing and given:
            raise ConfigError("the optimizer that was given lacks what terms train. Make it of [*model.parameters(), *bound.parameters()].")
        for parameters, decay in (([p for p in missing if p.dim() > 1], self.args.weight_decay), ([p for p in missing if p.dim() <= 1], 0.0)):
            if parameters:
                optimizer.add_param_group({"params": parameters, "weight_decay": decay})
        return optimizer

    def _clip_grad_norm(self, model: Any) -> Any:
        if not self.objective.parameters():
            return super()._clip_grad_norm(model)
        return self.accelerator.clip_grad_norm_([*model.parameters(), *self.objective.parameters()], self.args.max_grad_norm)

    def _save_optimizer_and_scheduler(self, output_dir: Any) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        state = self.objective.module.state_dict()
        if state and self.args.should_save:
            from safetensors.torch import save_file

            save_file({k: v.contiguous() for k, v in state.items()}, Path(output_dir) / TERMS_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or not self.objective.module.state_dict():
            return
        path = Path(checkpoint) / TERMS_FILE
        if not path.exists():
            raise ConfigError(f"the checkpoint {checkpoint} has no {TERMS_FILE}: it was left by a training without this objective. Start anew, or from another checkpoint.")
        from safetensors.torch import load_file

        self.objective.module.load_state_dict(load_file(path, device=str(self.args.device)))


__all__ = ["SAMPLE_ID", "TERMS_FILE", "distilling"]
