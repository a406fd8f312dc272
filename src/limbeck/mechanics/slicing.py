"""Take channels out of modules, in place: the slicing that pruning rests on, with or without groups, transposed or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

WEIGHED = (nn.Linear, _ConvNd)
Cuts = dict[tuple[str, str], np.ndarray]  # (module path, "out" or "in") → channels to remove


def joined(parts: Sequence[Cuts]) -> Cuts:
    """Several cuts as one."""
    joined: Cuts = {}
    for key, channels in ((k, c) for cuts in parts for k, c in cuts.items()):
        joined[key] = np.union1d(joined[key], channels) if key in joined else np.unique(channels)
    return joined


def cut_(model: nn.Module, cuts: Cuts) -> None:
    """Remove these channels. Raises ValueError if a grouped convolution would be left uneven."""
    for path in dict.fromkeys(path for path, _ in cuts):
        module = model.get_submodule(path)
        out, into = (cuts.get((path, axis), np.empty(0, dtype=int)) for axis in ("out", "in"))
        if isinstance(module, WEIGHED) and not depthwise(module):
            _cut_weighed(module, out, into)
        else:
            _cut_channelwise(module, out)


def _cut_channelwise(module: nn.Module, removed: np.ndarray) -> None:
    """A norm, a PReLU or a depthwise convolution: every tensor but counters has the channels on its first axis."""
    sizes = ("groups", "in_channels", "out_channels") if isinstance(module, _ConvNd) else ("num_parameters",) if isinstance(module, nn.PReLU) else ("num_features",)
    width = vars(module)[sizes[0]]
    if width == 1:  # one slope for all channels
        return
    kept = _kept(width, removed)
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None and tensor.dim():
            _put(module, name, tensor[kept])
    for size in sizes:
        setattr(module, size, len(kept))


def _cut_weighed(module: nn.Linear | _ConvNd, removed: np.ndarray, unread: np.ndarray) -> None:
    conv = module if isinstance(module, _ConvNd) else None
    groups, transposed = (conv.groups, conv.transposed) if conv else (1, False)
    outputs, inputs = sizes_of(module)
    out, into = _kept(outputs, removed), _kept(inputs, unread)
    weight = module.weight.transpose(0, 1) if transposed else module.weight
    blocks = [weight[rows][:, columns % (inputs // groups)] for rows, columns in zip(_parts(out, outputs, groups), _parts(into, inputs, groups), strict=True)]
    _put(module, "weight", torch.cat(blocks).transpose(0, 1) if transposed else torch.cat(blocks))
    if module.bias is not None:
        _put(module, "bias", module.bias[out])
    names = ("out_channels", "in_channels") if conv else ("out_features", "in_features")
    for name, kept in zip(names, (out, into), strict=True):
        setattr(module, name, len(kept))


def silence_(model: nn.Module, cuts: Cuts) -> None:
    """Zeros for these channels in the weights that read them."""
    for (path, axis), channels in cuts.items():
        module = model.get_submodule(path)
        if axis != "in" or not isinstance(module, WEIGHED):
            continue
        groups, transposed = (module.groups, module.transposed) if isinstance(module, _ConvNd) else (1, False)
        weight = module.weight.detach().clone()
        blocks = (weight.transpose(0, 1) if transposed else weight).unflatten(0, (groups, -1))
        blocks[channels // blocks.shape[2], :, channels % blocks.shape[2]] = 0
        _put(module, "weight", weight)


def _parts(kept: Tensor, width: int, groups: int) -> list[Tensor]:
    parts = [kept[kept // (width // groups) == g] for g in range(groups)]
    if len({len(p) for p in parts}) > 1:
        raise ValueError("a grouped convolution would be left with unequal parts")
    return parts


def _kept(width: int, removed: np.ndarray) -> Tensor:
    return torch.from_numpy(np.setdiff1d(np.arange(width), removed))


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    value = value.detach().contiguous()
    setattr(module, name, nn.Parameter(value, requires_grad=False) if name in module._parameters else value)


def sizes_of(module: Any) -> tuple[int, int]:
    """Output and input width of a convolution or a linear layer."""
    return (module.out_channels, module.in_channels) if isinstance(module, _ConvNd) else (module.out_features, module.in_features)


def depthwise(module: nn.Module) -> bool:
    """Whether each channel has a filter of its own."""
    return isinstance(module, _ConvNd) and module.groups > 1 and module.groups == module.in_channels == module.out_channels
