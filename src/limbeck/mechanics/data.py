"""From a task's samples to a model's arguments and back: batches, inputs by name, outputs by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from limbeck.core.errors import TaskError
from limbeck.core.task import Task

LABELS = ("labels", "label", "targets", "target", "y")
Leaf = tuple[str, ...]  # where a tensor stands among the arguments: ("0",) is the first, ("mask",) a keyword


def collated(task: Task, samples: list[Any]) -> Any:
    """One batch, by the task's own collate or torch's."""
    return task.collate(samples) if task.collate else default_collate(samples)


def batch_of(task: Task, split: str, ids: Sequence[int] | np.ndarray) -> Any:
    """The batch of these samples of a split."""
    data = task.split(split)
    return collated(task, [data[int(i)] for i in ids])


def batches(task: Task, split: str, *, size: int, ids: Sequence[int] | np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Any]]:
    """All of a split (or these ids of it), in order: (ids, batch)."""
    order = np.arange(len(task.split(split))) if ids is None else np.asarray(ids)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        yield part, batch_of(task, split, part)


MEMORY_LIMIT = 1 << 30  # bytes of a split that are kept collated in memory


class Reader:
    """A split by ids. What torch's default collate can join and fits in memory is collated once and then only indexed."""

    def __init__(self, task: Task, split: str):
        self._task, self._split, self._whole = task, split, None
        data = task.split(split)
        if task.collate is None and len(data) and len(data) * _bytes(default_collate([data[0]])) <= MEMORY_LIMIT:
            self._whole = _joined([data[i] for i in range(len(data))])

    def batch(self, ids: np.ndarray) -> Any:
        if self._whole is None:
            return batch_of(self._task, self._split, ids)
        return _indexed(self._whole, torch.as_tensor(np.asarray(ids)))


def _joined(samples: list[Any]) -> Any:
    try:
        return default_collate(samples)
    except (RuntimeError, TypeError):  # samples of several sizes: batches may still collate, or the task needs its own
        return None


def _bytes(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return batch.nbytes
    if isinstance(batch, Mapping):
        return sum(_bytes(v) for v in batch.values())
    return sum(_bytes(v) for v in batch) if isinstance(batch, (tuple, list)) else 64


def _indexed(batch: Any, ids: Tensor) -> Any:
    if isinstance(batch, Tensor):
        return batch[ids]
    if isinstance(batch, Mapping):
        return {k: _indexed(v, ids) for k, v in batch.items()}
    if batch and isinstance(batch, (tuple, list)) and isinstance(batch[0], str):
        return [batch[int(i)] for i in ids]
    return [_indexed(v, ids) for v in batch]


def arguments(task: Task, batch: Any) -> tuple[tuple, dict[str, Any]]:
    """What the model is called with."""
    if task.inputs:
        args, kwargs = task.inputs(batch)
        return tuple(args), dict(kwargs)
    if isinstance(batch, Mapping):
        return (), {k: v for k, v in batch.items() if k not in LABELS}
    if isinstance(batch, (tuple, list)):
        return (batch[0],), {}
    return (batch,), {}


def labels(batch: Any, key: str | None = None) -> Any:
    """The labels of a batch: the entry named `key`, the last of a tuple, or the usual name in a dict; None if it has none."""
    if isinstance(batch, Mapping):
        return batch[key] if key else next((batch[k] for k in LABELS if k in batch), None)
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return batch[int(key)] if key else batch[-1]
    return None


def named_outputs(task: Task, raw: Any) -> dict[str, Tensor]:
    """What a model returned, as a dict of tensors. Raises TaskError if the task doesn't say how."""
    if task.outputs:
        outputs = task.outputs(raw)
    elif isinstance(raw, Tensor):
        outputs = {"logits": raw}
    elif isinstance(raw, Mapping):
        outputs = {k: v for k, v in raw.items() if isinstance(v, Tensor)}
    else:
        raise TaskError(f"task '{task.name}': the model returned {type(raw).__name__}, which has no names. Give Task(outputs=…) a function that returns a dict of tensors.")
    if not isinstance(outputs, Mapping) or not outputs or not all(isinstance(v, Tensor) for v in outputs.values()):
        raise TaskError(
            f"task '{task.name}'.outputs must give a dict of tensors, got {type(outputs).__name__} from {type(raw).__name__}. Name each tensor, as in {{'logits': raw[0]}}."
        )
    return dict(outputs)


def predict(task: Task, model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """One forward pass from batch to outputs by name."""
    args, kwargs = arguments(task, batch)
    return named_outputs(task, model(*args, **kwargs))


def flatten(args: tuple, kwargs: Mapping[str, Any]) -> dict[Leaf, Tensor]:
    """Every tensor among the arguments, with where it stands."""
    return dict(_leaves((*((str(i), a) for i, a in enumerate(args)), *kwargs.items()), ()))


def _leaves(items: Any, path: Leaf) -> Iterator[tuple[Leaf, Tensor]]:
    for key, value in items:
        if isinstance(value, Tensor):
            yield (*path, key), value
        elif isinstance(value, Mapping):
            yield from _leaves(value.items(), (*path, key))
        elif isinstance(value, (tuple, list)):
            yield from _leaves(((str(i), v) for i, v in enumerate(value)), (*path, key))


def _rebuild(value: Any, path: Leaf, tensors: Mapping[Leaf, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return tensors[path]
    if isinstance(value, Mapping):
        return {k: _rebuild(v, (*path, k), tensors) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_rebuild(v, (*path, str(i)), tensors) for i, v in enumerate(value))
    return value


class Deployed(nn.Module):
    """A model as a runtime sees it: flat tensors in, a flat tuple of tensors out, the task's own functions inside."""

    def __init__(self, task: Task, model: nn.Module, args: tuple, kwargs: Mapping[str, Any], leaves: Sequence[Leaf]):
        super().__init__()
        self.model = model
        self._task, self._args, self._kwargs, self._leaves = task, args, dict(kwargs), tuple(leaves)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        by_leaf = dict(zip(self._leaves, tensors, strict=True))
        args = tuple(_rebuild(a, (str(i),), by_leaf) for i, a in enumerate(self._args))
        kwargs = {k: _rebuild(v, (k,), by_leaf) for k, v in self._kwargs.items()}
        return tuple(named_outputs(self._task, self.model(*args, **kwargs)).values())


@dataclass(frozen=True)
class Example:
    """A deployable module with inputs to trace it on. Axis 0 is the batch; other axes that vary in the data are free too."""

    module: Deployed
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, tuple[int, ...]]  # input name → axes whose size is free


def example(task: Task, model: nn.Module, *, split: str = "train") -> Example:
    """How `model` is deployed for this task: inputs and outputs named, free axes found by comparing two batches."""
    data = task.split(split)
    if len(data) < 5:
        raise TaskError(f"task '{task.name}' split '{split}' has {len(data)} samples; an export needs at least 5. Add samples.")
    model.eval()
    args, kwargs = arguments(task, batch_of(task, split, [0, 1]))
    other = flatten(*arguments(task, batch_of(task, split, [2, 3, 4])))
    tensors = flatten(args, kwargs)
    names = input_names(model, tensors)
    with torch.no_grad():
        outputs = tuple(named_outputs(task, model(*args, **kwargs)))
    dynamic = {n: tuple(d for d in range(t.dim()) if d == 0 or t.shape[d] != other[leaf].shape[d]) for (leaf, t), n in zip(tensors.items(), names, strict=True)}
    return Example(Deployed(task, model, args, kwargs, list(tensors)), dict(zip(names, tensors.values(), strict=True)), outputs, dynamic)


def input_names(model: nn.Module, tensors: Mapping[Leaf, Tensor]) -> list[str]:
    """A name for each input: the forward parameter for a positional one, the path for a nested one."""
    parameters = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = []
    for leaf in tensors:
        head = parameters[int(leaf[0])] if leaf[0].isdigit() and int(leaf[0]) < len(parameters) else f"input{leaf[0]}" if leaf[0].isdigit() else leaf[0]
        names.append("_".join((head, *leaf[1:])))
    return names


def feed(task: Task, batch: Any) -> dict[str, np.ndarray]:
    """The same inputs as arrays for a runtime: keywords by name, positional ones by number ("0", "1"), bound by order."""
    return {"_".join(leaf): np.asarray(t.detach().cpu().numpy(), order="C") for leaf, t in flatten(*arguments(task, batch)).items()}
