"""Structural changes as data: captured by comparing a model before and after, replayed on a fresh one.

`reshape` says new sizes and attributes of a module, so it serves every technique that only narrows, and needs no pruning
library to replay. Other kinds change what a module is and are explicit; each is one entry in `KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.errors import ReplayError, near
from limbeck.mechanics import embeddings, quantizers, reuse, stacks

Edit = Mapping[str, Any]
DAMAGED = "The blueprint was damaged or written by another version."
MOST_AXES = 8
MOST_GROWTH = 8  # times the model's own numbers that reshapes may ask for in all
SMALL_ELEMENTS = 1 << 22  # what they may always ask for
LARGEST_SIZE = 1 << 48
PLAIN = (int, float, str, bool)
Snapshot = dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]]


def snapshot(model: nn.Module) -> Snapshot:
    """By module path: its type, its plain attributes, and the shapes of its own parameters and buffers."""
    return {name: (type(m).__name__, _attributes(m), {k: tuple(t.shape) for k, t in _tensors(m).items()}) for name, m in model.named_modules()}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {k: t for k, t in (*module._parameters.items(), *module._buffers.items()) if t is not None}


def _attributes(module: nn.Module) -> dict[str, Any]:
    public = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in public.items() if isinstance(v, PLAIN) or (isinstance(v, tuple) and all(isinstance(i, PLAIN) for i in v))}


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
    sizes: dict[tuple[str, str], tuple[int, ...]] = {}  # of several reshapes of one tensor the last one counts
    for edit in edits:
        module, path = submodule(model, edit["module"]), edit["module"]
        for key, value in edit["attributes"].items():
            if key.startswith("_") or key == "training" or key not in vars(module):
                raise ReplayError(f"module '{path}' has no attribute '{key}' to set. The factory differs from the one that the blueprint was written for.")
            vars(module)[key] = _fitting(path, key, vars(module)[key], value)
        for key, shape in edit["tensors"].items():
            if _tensors(module).get(key) is None:
                raise ReplayError(f"module '{path}' has no tensor '{key}' to resize. The factory differs from the one that the blueprint was written for.")
            if not isinstance(shape, (list, tuple)) or len(shape) > MOST_AXES or not all(type(size) is int and 0 <= size < LARGEST_SIZE for size in shape):
                raise ReplayError(f"tensor '{key}' of '{path}' must have a list of sizes ≥ 0, got {str(shape)[:80]}. {DAMAGED}")
            sizes[path, key] = tuple(shape)
    _resize(model, sizes)


def _resize(model: nn.Module, sizes: Mapping[tuple[str, str], tuple[int, ...]]) -> None:
    asked, room = sum(map(math.prod, sizes.values())), max(SMALL_ELEMENTS, MOST_GROWTH * sum(t.numel() for m in model.modules() for t in _tensors(m).values()))
    if asked > room:  # memory would be taken before the weights could show that they are of other sizes
        raise ReplayError(f"the edits ask for tensors of {asked:,} numbers, more than {room:,} ({MOST_GROWTH} times what the model has). {DAMAGED}")
    new: dict[int, nn.Parameter] = {}  # id of the old parameter → the new one, so that tied weights stay tied
    kept = []  # keeps the old ones alive while their ids are keys
    for (path, key), shape in sizes.items():
        module = submodule(model, path)
        old = _tensors(module)[key]
        kept.append(old)
        fresh = torch.full(shape, float("nan") if old.is_floating_point() else 0, dtype=old.dtype)  # NaN: a missed tensor is loud
        if isinstance(old, nn.Parameter):
            setattr(module, key, new.setdefault(id(old), nn.Parameter(fresh, requires_grad=old.requires_grad)))
        else:
            module._buffers[key] = fresh


def _fitting(path: str, key: str, old: Any, new: Any) -> Any:
    """A new value of an attribute, of the kind that the old one was (None says nothing of its kind)."""
    number = isinstance(old, (int, float)) and not isinstance(old, bool)
    kinds: Any = (int, float) if number else (list, tuple) if isinstance(old, tuple) else PLAIN if old is None else type(old)
    if not isinstance(new, kinds) or (number and isinstance(new, bool)) or not isinstance(new, (*PLAIN, list, tuple)):
        raise ReplayError(f"attribute '{key}' of '{path}' must be of the kind that it was ({type(old).__name__}), got {str(new)[:80]}. {DAMAGED}")
    return tuple(new) if isinstance(old, tuple) and isinstance(new, (list, tuple)) else new


KINDS: dict[str, Callable[[nn.Module, list[Edit]], None]] = {
    "drop": stacks.drop_edits,
    "fold": quantizers.fold_edits,
    "quantize": quantizers.quantize_edits,
    "reshape": _reshape,
    reuse.KIND: reuse.reuse_head_edits,
    "vocabulary": embeddings.vocabulary_edits,
}


def replay(model: nn.Module, edits: tuple[Edit, ...] | list[Edit]) -> nn.Module:
    """Make these edits on `model`, in place and in order. Numbers come afterwards, with the weights.

    Raises: ReplayError if an edit doesn't fit this model.
    """
    start = 0
    while start < len(edits):
        kind = edits[start].get("edit")
        if not isinstance(kind, str) or kind not in KINDS:
            raise ReplayError(f"edit {start} is of kind {kind!r}, which this limbeck doesn't know. {near(str(kind), KINDS)}")
        end = start
        while end < len(edits) and edits[end].get("edit") == kind:
            end += 1
        try:
            KINDS[kind](model, list(edits[start:end]))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
            raise ReplayError(f"edit {start} ({kind}) is malformed: {error!r}. {DAMAGED}") from error
        start = end
    return model


def submodule(model: nn.Module, path: str) -> nn.Module:
    """The module at this path. Raises ReplayError with near paths."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ReplayError(f"there is no module '{path}' in {type(model).__name__}. {near(path, (n for n, _ in model.named_modules()))}") from None
