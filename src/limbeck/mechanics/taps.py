"""Look at what flows inside a model, by module path, without editing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, near

INTO = "in:"
PREFIX = "tap:"  # a tapped output stands among a model's outputs as "tap:<module path>"


@contextmanager
def tapped(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, each forward pass leaves the outputs of these modules in the dict that is given, under their paths.

    A module that is called several times leaves its last output; one that returns a tuple, the first tensor of it. "in:<path>"
    taps what goes into a module, its first tensor. No hook stays behind.

    Raises: ConfigError for a path that doesn't exist (near names) or whose module gives no tensor.
    """
    seen: dict[str, Tensor] = {}
    handles = [_module(model, path.removeprefix(INTO)).register_forward_hook(_recorder(seen, path)) for path in paths]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _recorder(seen: dict[str, Tensor], path: str) -> Any:
    def record(module: nn.Module, args: tuple, output: Any) -> None:
        output = args if path.startswith(INTO) else output
        tensor = first_tensor(output)
        if tensor is None:
            raise ConfigError(f"the tap '{path}' ({type(module).__name__}) gives {type(output).__name__}, not a tensor. Tap a module inside it.")
        seen[path] = tensor

    return record


def first_tensor(output: Any) -> Tensor | None:
    """A module's output, or the first tensor of a tuple or list; None where it gives no tensor."""
    if isinstance(output, (tuple, list)):
        return next((o for o in output if isinstance(o, Tensor)), None)
    return output if isinstance(output, Tensor) else None


def _module(model: nn.Module, path: str) -> nn.Module:
    known = dict(model.named_modules())
    if not path or path not in known:
        raise ConfigError(f"there is no module '{path}' to tap in {type(model).__name__}. {near(path, (n for n in known if n))}")
    return known[path]


def shapes(model: nn.Module, paths: Sequence[str], args: tuple, kwargs: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes that these taps give, read off one forward pass in eval mode; the model is left in its mode."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), tapped(model, paths) as seen:
            model(*args, **kwargs)
    finally:
        model.train(training)
    missed = [p for p in paths if p not in seen]
    if missed:
        raise ConfigError(f"the tap '{missed[0]}' isn't reached in a forward pass. Tap a module that runs.")
    return {path: tuple(value.shape) for path, value in seen.items()}


def with_taps(outputs: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's outputs and what was tapped, in one dict, as terms read them."""
    return {**outputs, **{PREFIX + path: value for path, value in seen.items()}}
