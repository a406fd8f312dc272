"""Linear layers and ReLU, for tables, short series and small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from limbeck.mechanics.families.sizes import check_sizes


def mlp(*, features: int, classes: int, widths: Sequence[int] = (128, 64)) -> nn.Module:
    """Flattens its input, then Linear-ReLU for each of `widths`, then a linear layer to `classes` numbers.

    Args:
        features: Numbers in one sample, all axes taken together.
        widths: Units of the hidden layers, in order; an empty list is a linear model.
    Raises: ConfigError for a size below 1.
    """
    check_sizes("mlp", features=features, classes=classes, **({"widths": widths} if len(widths) else {}))
    layers: list[nn.Module] = [nn.Flatten()]
    for before, now in zip((features, *widths), widths, strict=False):
        layers += [nn.Linear(before, now), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear((features, *widths)[-1], classes))
