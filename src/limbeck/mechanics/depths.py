"""Layers of the student that an objective finds by itself: what goes into its head, and some evenly spaced through its depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from limbeck.core.errors import ConfigError
from limbeck.core.task import Task
from limbeck.mechanics.data import arguments, batch_of, predict
from limbeck.mechanics.matching import Layer, layers
from limbeck.mechanics.taps import INTO

OWN = "own:"  # a term's layer of this beginning stands for one that is found when the objective is bound
HEAD = OWN + "head"  # what goes into the last layer with weights


def at(number: int, count: int) -> str:
    """The place of layer `number` (from 1) of `count` that lie evenly between the input and the head."""
    return f"{OWN}{number}/{count + 1}"


def placed(asked: Sequence[str], task: Task, model: nn.Module) -> dict[str, str]:
    """The path that each place stands for, read off one pass of two samples in eval mode; modes are left as they are.

    The head is the last module with weights and nothing inside it whose output has the shape of an output of the model. At a share of the
    way to the head stands, among modules no farther from it than half the way to the next place, the outermost one, then the nearest,
    then the last to run (after its ReLU); one that stands elsewhere already is passed over.

    Raises: ConfigError if there is no such layer.
    """
    batch = batch_of(task, "train", [0, 1])
    with evaluated(model), torch.no_grad():
        answers = {name: tuple(value.shape) for name, value in predict(task, model, batch).items()}
    known = layers(model, *arguments(task, batch))
    head = _head(known, model, {answers["logits"]} if "logits" in answers else set(answers.values()))
    found: dict[str, str] = {}
    for place in asked:
        found[place] = INTO + head.path if place == HEAD else _between(place, known, head, taken=set(found.values()))
    return found


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; each of its modules goes back to its own."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _head(known: Sequence[Layer], model: nn.Module, answers: set[tuple[int, ...]]) -> Layer:
    modules = dict(model.named_modules())
    entered = {layer.path.removeprefix(INTO) for layer in known if layer.path.startswith(INTO)}
    able = [
        layer
        for layer in known
        if layer.path in entered and layer.shape in answers and not any(True for _ in modules[layer.path].children()) and any(True for _ in modules[layer.path].parameters())
    ]
    if not able:
        raise ConfigError(f"no layer with weights of {type(model).__name__} gives its outputs as they are, so there is no head to be found. Name the layer before it.")
    return max(able, key=lambda layer: layer.depth)  # of equals the first


def _between(place: str, known: Sequence[Layer], head: Layer, *, taken: set[str]) -> str:
    """The layer at this share of the way to the head; what is as deep as the head's input is no place of its own."""
    end = next(layer.depth for layer in known if layer.path == INTO + head.path)
    number, places = map(int, place.removeprefix(OWN).split("/"))
    share, reach = number / places, 0.5 / places + 1e-9
    close = [
        (layer.path.count("."), round(abs(layer.depth / end - share), 6), -turn, layer.path)
        for turn, layer in enumerate(known)
        if layer.path not in taken and not layer.path.startswith(INTO) and len(layer.shape) in (2, 3, 4) and layer.shape[0] == 2
        if 0 < layer.depth < end and abs(layer.depth / end - share) <= reach
    ]
    if not close:
        raise ConfigError(f"no layer stands at about {share:.0%} of the student's depth. Ask for fewer, or name them.")
    return min(close)[-1]
