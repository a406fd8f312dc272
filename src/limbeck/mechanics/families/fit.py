"""What a family must know of the data, read off example tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from limbeck.core.errors import ConfigError, near
from limbeck.mechanics.families import family

Tensors = Mapping[str, Tensor]
MOST_PATCHES = 64  # that an image is cut into, unless the patch is given
OWN = "Bring a student of your own in Task.models instead"


def fitted(name: str, given: Mapping[str, Any], inputs: Tensors, outputs: Tensors) -> dict[str, Any]:
    """The arguments of family `name`: those given, and those that the data decide (channels, features, classes, length, size).

    Args:
        given: What the user chose; it stands, but channels, features and classes that the data contradict are refused.
        inputs: Example inputs of the model by name, batch first, in the order of its arguments.
        outputs: The teacher's outputs on them by name.
    Raises: ConfigError if the family doesn't fit such data, or needs an argument that isn't given and can't be read off.
    """
    parameters = inspect.signature(family(name)).parameters
    for key in given:
        if key not in parameters:
            raise ConfigError(f"{name}.{key} is not an argument of this family, got {given[key]!r}. {near(key, parameters)}")
    readers = {key: READ.get(f"{name}.{key}", READ.get(key)) for key in parameters}
    found = {key: read(name, inputs, outputs) for key, read in readers.items() if read}
    for key in given.keys() & found.keys() & FIXED:
        if given[key] != found[key]:
            raise ConfigError(f"{name}.{key} must be {found[key]}, as the data have it, got {given[key]!r}. Leave it out.")
    filled = {**found, **given}
    for key, parameter in parameters.items():
        if key not in filled and parameter.default is parameter.empty:
            raise ConfigError(f"{name}.{key} must be given; a few samples don't show it{_seen(key, inputs)}. Write it among the student's options.")
    return {key: filled[key] for key in parameters if key in filled}


def _seen(key: str, inputs: Tensors) -> str:
    return f" (the largest id in them is {int(next(iter(inputs.values())).max())}; tokenizers call it vocab_size)" if key == "vocabulary" else ""


def _only_input(name: str, inputs: Tensors) -> Tensor:
    if len(inputs) != 1:
        raise ConfigError(f"{name} takes one tensor, got inputs {', '.join(inputs)}. {OWN}, or join them in Task.inputs.")
    (key, value), *_ = inputs.items()
    if not value.is_floating_point():
        raise ConfigError(f"{name} takes floating-point numbers, got '{key}' of {value.dtype}. Convert it in Task.inputs; for token ids take 'limbeck:encoder'.")
    return value


def _image(name: str, inputs: Tensors) -> Tensor:
    value = _only_input(name, inputs)
    if value.dim() != 4:
        raise ConfigError(f"{name} takes images [batch, channels, height, width], got a shape of {list(value.shape)}. Add the axes in Task.inputs, or take 'limbeck:mlp'.")
    return value


def _channels(name: str, inputs: Tensors, outputs: Tensors) -> int:
    return _image(name, inputs).shape[1]


def _size(name: str, inputs: Tensors, outputs: Tensors) -> int:
    return min(_image(name, inputs).shape[2:])


def _sides(name: str, inputs: Tensors, outputs: Tensors) -> list[int]:
    return list(_image(name, inputs).shape[2:])


def _patch(name: str, inputs: Tensors, outputs: Tensors) -> int:
    """The smallest that leaves few tokens and divides both sides; the largest that divides them, if none does."""
    height, width = _image(name, inputs).shape[2:]
    fits = [p for p in range(1, min(height, width) + 1) if height % p == 0 and width % p == 0]
    return next((p for p in fits if p > 1 and height * width <= MOST_PATCHES * p * p), fits[-1])


def _features(name: str, inputs: Tensors, outputs: Tensors) -> int:
    return _only_input(name, inputs)[0].numel()


def _length(name: str, inputs: Tensors, outputs: Tensors) -> int:
    ids, *others = inputs.values()
    if ids.is_floating_point() or ids.dim() != 2:
        raise ConfigError(
            f"{name} takes token ids [batch, tokens], got '{next(iter(inputs))}' of {ids.dtype} and shape {list(ids.shape)}. {OWN}; for images take 'limbeck:convnet'."
        )
    if len(others) > 1 or any(o.shape != ids.shape for o in others):
        raise ConfigError(
            f"{name} takes input_ids and attention_mask of one shape, got {', '.join(f'{k} {list(v.shape)}' for k, v in inputs.items())}. Leave the others out in Task.inputs."
        )
    return ids.shape[1]


def _classes(name: str, inputs: Tensors, outputs: Tensors) -> int:
    key = "logits" if "logits" in outputs else next(iter(outputs))
    if key != "logits" and len(outputs) > 1:
        raise ConfigError(f"{name} gives one tensor, the teacher gives {', '.join(outputs)}. {OWN}, or call the one that counts 'logits' in Task.outputs.")
    if outputs[key].dim() != 2:
        raise ConfigError(f"{name} gives [batch, classes], the teacher's '{key}' has the shape {list(outputs[key].shape)}. {OWN}.")
    return outputs[key].shape[1]


def _vocabulary(name: str, inputs: Tensors, outputs: Tensors) -> int:
    key = "logits" if "logits" in outputs else next(iter(outputs))
    if outputs[key].dim() != 3:
        raise ConfigError(f"{name} gives [batch, tokens, vocabulary], the teacher's '{key}' has the shape {list(outputs[key].shape)}. Take 'limbeck:encoder' for classes.")
    return outputs[key].shape[2]


READ: Mapping[str, Callable[[str, Tensors, Tensors], Any]] = {
    "channels": _channels,
    "classes": _classes,
    "decoder.vocabulary": _vocabulary,
    "features": _features,
    "image": _sides,
    "length": _length,
    "patch": _patch,
    "size": _size,
}
FIXED = frozenset({"channels", "classes", "features", "image", "vocabulary"})
