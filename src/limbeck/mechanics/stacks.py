"""Stacks of repeated blocks, found by their shape in the module tree; the edit that drops blocks out of one.

A stack is a ModuleList or a Sequential with children of one class that are modules of modules: its blocks. What else stands in it
(a stem, a pooling) is no block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from limbeck.core.errors import ReplayError, near

Edit = Mapping[str, Any]
CONTAINERS = (nn.ModuleList, nn.Sequential)


@dataclass(frozen=True)
class Stack:
    """Where a stack is, and the numbers of its blocks among its children; the others are no blocks."""

    path: str
    blocks: tuple[int, ...]
    others: tuple[int, ...]

    def block(self, number: int) -> str:
        """The module path of a child."""
        return f"{self.path}.{number}" if self.path else str(number)


def stack_at(path: str, module: nn.Module) -> Stack | None:
    """The stack that this module is, or None. Of several classes of blocks the most frequent counts."""
    if not isinstance(module, CONTAINERS):
        return None
    children = list(module)
    kinds = Counter(type(child) for child in children if child._modules)
    if not kinds:
        return None
    kind = kinds.most_common(1)[0][0]
    blocks = tuple(i for i, child in enumerate(children) if type(child) is kind and child._modules)
    return Stack(path, blocks, tuple(i for i in range(len(children)) if i not in blocks))


def stacks(model: nn.Module) -> Iterator[Stack]:
    """Every stack of the model, an outer one before those inside its blocks."""
    for path, module in model.named_modules():
        found = stack_at(path, module)
        if found:
            yield found


def evenly(kept: int, of: int) -> tuple[int, ...]:
    """`kept` of the numbers below `of`, evenly spread from 0: 3 of 6 are 0, 2, 4. With more than there are, some come twice."""
    return tuple(i * of // kept for i in range(kept))


def drop_edit(path: str, kept: Sequence[int]) -> Edit:
    """The edit that leaves these children of the stack at `path`, renumbered from 0."""
    return {"edit": "drop", "stack": path, "kept": list(kept)}


def drop_edits(model: nn.Module, edits: list[Edit]) -> None:
    """Replay `drop`. Raises ReplayError if the stack isn't there, or hasn't the children that stay."""
    for edit in edits:
        known, path, kept = dict(model.named_modules()), edit["stack"], edit["kept"]
        stack = known.get(path)
        if stack is None:
            raise ReplayError(f"there is no module '{path}' in {type(model).__name__}. {near(str(path), known)}")
        if not isinstance(stack, CONTAINERS):
            raise ReplayError(f"'{path}' ({type(stack).__name__}) is no stack of blocks. The factory differs from the blueprint's.")
        whole = isinstance(kept, list) and bool(kept) and all(type(i) is int and 0 <= i < len(stack) for i in kept)
        if not whole or sorted(set(kept)) != kept:
            raise ReplayError(
                f"'{path}' has {len(stack)} children; those that stay must be numbers of them in order, got {str(kept)[:80]}. The factory differs from the blueprint's."
            )
        for number in reversed(range(len(stack))):
            if number not in kept:
                del stack[number]
