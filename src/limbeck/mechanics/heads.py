"""Where a model's classifier stands: the linear layer that gives the logits, and the features that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import StageError, near
from limbeck.core.task import Task
from limbeck.mechanics.data import batch_of, predict
from limbeck.mechanics.depths import evaluated
from limbeck.mechanics.taps import INTO, first_tensor
from limbeck.mechanics.terms.task_loss import main_output

SAMPLES = 8  # that a head is found on
TOLERANCE = 1e-4  # of the largest feature: how far a map's mean may lie from what the head reads, to be what it pools


@dataclass(frozen=True)
class Head:
    """A model's last linear layer.

    path: of the linear layer. vector: the shape of what goes into it, without the batch. logits: of what it gives.
    features: the tap of the map whose mean over places is what goes into it, "" if there is none; its shape is `shape`.
    rectified: whether no feature is below zero, as behind a ReLU.
    """

    path: str
    vector: tuple[int, ...]
    logits: tuple[int, ...]
    features: str
    shape: tuple[int, ...]
    rectified: bool


@dataclass
class _Ran:
    """One forward pass: what each linear layer took and gave, and every map, by tap, in the order in which they came."""

    linear: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)

    def hook(self, path: str) -> Any:
        def record(module: nn.Module, args: tuple, output: Any) -> None:
            given = first_tensor(args)
            if isinstance(output, Tensor) and output.dim() == 4:
                self.maps[path] = output
            if given is not None and given.dim() == 4:
                self.maps[INTO + path] = given
            if isinstance(module, nn.Linear) and given is not None and isinstance(output, Tensor):
                self.linear[path] = given, output

        return record


def find_head(model: nn.Module, task: Task, option: str, *, path: str = "") -> Head:
    """The head of a model, read off one pass over a few training samples in eval mode; its modes are left as they are, and no hook stays.

    option: what names the layer, for messages. path: the linear layer; empty: the last whose output is the logits.
    Raises: StageError if there is none, or what is at `path` is another module or doesn't run.
    """
    count = min(SAMPLES, len(task.split("train")))
    ran = _Ran()
    handles = [module.register_forward_hook(ran.hook(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad(), evaluated(model):
            logits = main_output(task, predict(task, model, batch_of(task, "train", np.arange(count))))
    finally:
        for handle in handles:
            handle.remove()
    found = path or next((name for name, (_, given) in reversed(ran.linear.items()) if given is logits or (given.shape == logits.shape and bool(torch.equal(given, logits)))), "")
    if found not in ran.linear:
        raise StageError(_missing(option, path, ran))
    into, out = ran.linear[found]
    features = _pooled(into, ran.maps)
    seen = ran.maps[features] if features else into
    return Head(found, tuple(into.shape[1:]), tuple(out.shape[1:]), features, tuple(seen.shape[1:]), bool((seen >= 0).all()))


def _missing(option: str, path: str, ran: _Ran) -> str:
    if path:
        return f"{option} must be a linear layer that runs, got '{path}'. {near(path, ran.linear)}"
    return f"no linear layer gives the logits as they leave the model, so {option} isn't found by itself. Name the last one. {near('', ran.linear)}"


def _pooled(vector: Tensor, maps: dict[str, Tensor]) -> str:
    """The finest map whose mean over places is this vector; a module's output rather than an input, the outermost module first."""
    if vector.dim() != 2:
        return ""
    limit = TOLERANCE * float(vector.abs().max().clamp(min=1e-30))
    able = [tap for tap, value in maps.items() if value.shape[:2] == vector.shape and bool(((value.mean((2, 3)) - vector).abs() <= limit).all())]
    return min(able, key=lambda tap: (-maps[tap][0, 0].numel(), tap.startswith(INTO), len(tap), tap), default="")


def whole_steps(own: Sequence[int], theirs: Sequence[int]) -> tuple[int, int]:
    """How many places of a map fall on one of another along both axes, where that is a whole number above or at 1 on both; else (1, 1)."""
    (h, w), (height, width) = own, theirs
    return (h // height, w // width) if h >= height and w >= width and h % height == 0 and w % width == 0 else (1, 1)
