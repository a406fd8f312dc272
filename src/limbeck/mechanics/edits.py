"""Structural changes as data: captured by comparing a model before and after, replayed on a fresh one.

`reshape` says new sizes and attributes of a module, so it serves every technique that only narrows, and needs no pruning
library to replay. Other kinds change what a module is and are explicit; each is one entry in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.errors import ReplayError, near
from limbeck.mechanics import quantizers

Edit = Mapping[str, Any]
Snapshot = dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]]


def snapshot(model: nn.Module) -> Snapshot:
    """By module path: its type, its plain attributes, and the shapes of its own parameters and buffers."""
    return {name: (type(m).__name__, _attributes(m), {k: tuple(t.shape) for k, t in _tensors(m).items()}) for name, m in model.named_modules()}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {k: t for k, t in (*module._parameters.items(), *module._buffers.items()) if t is not None}


def _attributes(module: nn.Module) -> dict[str, Any]:
    plain = (int, float, str, bool)
    public = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in public.items() if isinstance(v, plain) or (isinstance(v, tuple) and all(isinstance(i, plain) for i in v))}


def capture(before: Snapshot, model: nn.Module) -> tuple[Edit, ...]:
    """The `reshape` edits that turn the model of `before` into this one.

    Raises: ReplayError if a module appeared, vanished or changed its type, which no reshape can say.
    """
    after = snapshot(model)
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())[0]
        raise ReplayError(f"module '{odd}' appeared or vanished; a reshape can't say that. Use an edit that names the change.")
    edits = []
    for name, (kind, attributes, shapes) in after.items():
        old_kind, old_attributes, old_shapes = before[name]
        if kind != old_kind or shapes.keys() != old_shapes.keys():
            raise ReplayError(f"module '{name}' changed from {old_kind} to {kind} or has other tensors; a reshape can't say that. Use an edit that names the change.")
        changed = {k: v for k, v in attributes.items() if v != old_attributes.get(k)}
        resized = {k: list(s) for k, s in shapes.items() if s != old_shapes[k]}
        if changed or resized:
            edits.append({"edit": "reshape", "module": name, "attributes": changed, "tensors": resized})
    return tuple(edits)


def _reshape(model: nn.Module, edits: list[Edit]) -> None:
    new: dict[int, nn.Parameter] = {}  # id of the old parameter → the new one, so that tied weights stay tied
    kept = []  # keeps the old ones alive while their ids are keys
    for edit in edits:
        module = submodule(model, edit["module"])
        for key, value in edit["attributes"].items():
            if key not in vars(module):
                raise ReplayError(f"module '{edit['module']}' has no attribute '{key}' to set. The factory differs from the one that the blueprint was written for.")
            vars(module)[key] = tuple(value) if isinstance(vars(module)[key], tuple) else value
        for key, shape in edit["tensors"].items():
            old = _tensors(module).get(key)
            if old is None:
                raise ReplayError(f"module '{edit['module']}' has no tensor '{key}' to resize. The factory differs from the one that the blueprint was written for.")
            kept.append(old)
            fresh = torch.full(tuple(shape), float("nan") if old.is_floating_point() else 0, dtype=old.dtype)  # NaN: a missed tensor is loud
            if isinstance(old, nn.Parameter):
                setattr(module, key, new.setdefault(id(old), nn.Parameter(fresh, requires_grad=old.requires_grad)))
            else:
                module._buffers[key] = fresh


KINDS: dict[str, Callable[[nn.Module, list[Edit]], None]] = {
    "fold": quantizers.fold_edits,
    "quantize": quantizers.quantize_edits,
    "reshape": _reshape,
}


def replay(model: nn.Module, edits: tuple[Edit, ...] | list[Edit]) -> nn.Module:
    """Make these edits on `model`, in place and in order. Numbers come afterwards, with the weights.

    Raises: ReplayError if an edit doesn't fit this model.
    """
    start = 0
    while start < len(edits):
        kind = edits[start].get("edit")
        if kind not in KINDS:
            raise ReplayError(f"edit {start} is of kind {kind!r}, which this limbeck doesn't know. {near(str(kind), KINDS)}")
        end = start
        while end < len(edits) and edits[end].get("edit") == kind:
            end += 1
        try:
            KINDS[kind](model, list(edits[start:end]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ReplayError(f"edit {start} ({kind}) is malformed: {error!r}. The blueprint was damaged or written by another version.") from error
        start = end
    return model


def submodule(model: nn.Module, path: str) -> nn.Module:
    """The module at this path. Raises ReplayError with near paths."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ReplayError(f"there is no module '{path}' in {type(model).__name__}. {near(path, (n for n, _ in model.named_modules()))}") from None
