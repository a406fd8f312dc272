"""How much each output channel of a layer matters: criteria of one shape, `module → one number a channel, or None`.

None means that the criterion says nothing of this kind of module. Numbers are float64, ≥ 0, and comparable within a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

Criterion = Callable[[nn.Module], Tensor | None]


def l1(module: nn.Module) -> Tensor | None:
    """The sum of the absolute weights of each filter (biases left out).

    Source: Li et al. 2017, arXiv:1608.08710, §3.1.
    """
    filters = _filters(module)
    return None if filters is None else filters.abs().sum(1)


def l2(module: nn.Module) -> Tensor | None:
    """The Euclidean norm of each filter's weights (biases left out)."""
    filters = _filters(module)
    return None if filters is None else filters.square().sum(1).sqrt()


def batchnorm(module: nn.Module) -> Tensor | None:
    """The absolute scale that a BatchNorm gives each channel.

    Source: Liu et al. 2017, arXiv:1708.06519, §3. Differs: no sparsity penalty is trained first; recovery is the stage's.
    """
    return module.weight.detach().double().abs() if isinstance(module, _BatchNorm) and module.affine else None


def summed(criterion: Criterion, parts: Iterable[tuple[nn.Module, np.ndarray, np.ndarray]], width: int) -> np.ndarray | None:
    """Importance of channels that can only go together: the sum over all layers that make them; None if the criterion knows none of these.

    Args:
        parts: Each layer, its output channels, and which of the group's `width` channels each of them belongs to.
    """
    total, known = np.zeros(width), False
    for module, channels, owners in parts:
        importance = criterion(module)
        if importance is not None:
            np.add.at(total, owners, importance.numpy()[channels])
            known = True
    return total if known else None


def _filters(module: nn.Module) -> Tensor | None:
    """The weights as a float64 matrix, a row for each output channel."""
    if not isinstance(module, (nn.Linear, _ConvNd)):
        return None
    weight = module.weight.detach().double()
    if isinstance(module, _ConvNd) and module.transposed:  # (inputs, outputs / groups, …)
        weight = weight.unflatten(0, (module.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


CRITERIA: dict[str, Criterion] = {"batchnorm": batchnorm, "l1": l1, "l2": l2}
