"""The same architecture with other first weights."""

from __future__ import annotations

import copy
from typing import Protocol, runtime_checkable

from torch import nn

from limbeck.core.errors import ConfigError


@runtime_checkable
class Resettable(Protocol):
    """A module that can draw its weights anew, as torch's own do."""

    def reset_parameters(self) -> None: ...


def fresh(model: nn.Module, name: str) -> nn.Module:
    """A copy of the model whose modules have all drawn their weights anew, from torch's generator; all of it trains.

    Raises: ConfigError, opened by `name`, for a module with weights of its own that doesn't say how they begin.
    """
    twin = copy.deepcopy(model).requires_grad_(True)
    for path, module in twin.named_modules():
        own = any(True for _ in module.parameters(recurse=False))
        if isinstance(module, nn.MultiheadAttention):
            module._reset_parameters()
        elif isinstance(module, Resettable):
            module.reset_parameters()
        elif own:
            raise ConfigError(
                f"{name}: '{path or type(model).__name__}' ({type(module).__name__}) has weights of its own and no reset_parameters(), so a peer of the student's "
                f"architecture can't begin anew. Give it one, or name a model in {name}.peer."
            )
    return twin
