"""The weights that a student had when training began, and how far it has moved from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What learns in a model, in its own order; a weight that is used twice comes once."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


class Anchors(nn.Module):
    """The start of each weight that learns, with how much it matters, as buffers: saved and resumed with the training."""

    def __init__(self, model: nn.Module, importance: Sequence[Tensor | float]):
        super().__init__()
        self.count = len(importance)
        for i, ((_, weight), matters) in enumerate(zip(trainable(model), importance, strict=True)):
            self.register_buffer(f"start{i}", weight.detach().clone())
            self.register_buffer(f"importance{i}", torch.as_tensor(matters, dtype=weight.dtype, device=weight.device).detach().clone())

    def distance(self, name: str, model: nn.Module) -> Tensor:
        """½ Σ importance · (weight − start)². Raises ConfigError if other weights learn now than when training began."""
        moved = trainable(model)
        if len(moved) != self.count:
            raise ConfigError(f"{name}: the student has {len(moved)} weights that learn, and had {self.count} when the objective was bound. Bind it after freezing.")
        parts = [(getattr(self, f"importance{i}") * (weight - getattr(self, f"start{i}")).square()).sum() for i, (_, weight) in enumerate(moved)]
        return 0.5 * torch.stack(parts).sum()
