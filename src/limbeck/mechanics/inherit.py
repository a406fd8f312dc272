"""Give a student the teacher's own weights to begin with: layers of a stack every k-th or as chosen, the rest by name and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from limbeck.core.errors import ConfigError, StageError
from limbeck.mechanics.stacks import Stack, evenly, stack_at

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Unfit:
    """A tensor of the student that kept its own start, and what stood in its place at the teacher; None: nothing."""

    name: str
    shape: Shape
    source: str
    source_shape: Shape | None


@dataclass(frozen=True)
class Inheritance:
    """What a student took from its teacher.

    taken: its tensor → the teacher's. layers: its stack → for each of its blocks the teacher's block. unfit: what didn't fit.
    share: of the student's parameters, by number, that were taken.
    """

    taken: Mapping[str, str]
    layers: Mapping[str, tuple[int, ...]]
    unfit: tuple[Unfit, ...]
    share: float

    def claims(self) -> dict[str, Any]:
        """As plain data, for a technique's claims."""
        unfit = [{"name": u.name, "shape": list(u.shape), "teacher": u.source, "teacher_shape": u.source_shape and list(u.source_shape)} for u in self.unfit]
        return {"tensors": len(self.taken), "share": round(self.share, 6), "layers": {path: list(blocks) for path, blocks in self.layers.items()}, "unfit": unfit}


@torch.no_grad()
def inherit_(student: nn.Module, teacher: nn.Module, *, layers: Literal["even"] | Sequence[int] = "even") -> Inheritance:
    """Copy the teacher's weights and buffers into the student, in place, wherever names and shapes allow.

    A stack of blocks that stands at the same path in both is mapped block by block; all other tensors are matched by name.

    Args:
        layers: "even" takes every k-th block, from the first; else for each of the student's blocks the number of the teacher's, from 0,
            in every stack that isn't equally deep in both.
    Raises: StageError if no parameter fits; ConfigError for numbers of blocks that can't be.
    Source: Sanh et al. 2019, arXiv:1910.01108, §3 (one layer out of two); the choice of layers is that of Sun et al. 2019, arXiv:1908.09355, §3.
    """
    own, theirs, found = student.state_dict(), teacher.state_dict(), _Mapping(student, teacher, layers)
    taken: dict[str, str] = {}
    unfit: list[Unfit] = []
    for name, tensor in own.items():
        source = found.source(name)
        value = theirs.get(source)
        if value is not None and value.shape == tensor.shape and value.is_floating_point() == tensor.is_floating_point():
            tensor.copy_(value)
            taken[name] = source
        else:
            unfit.append(Unfit(name, tuple(tensor.shape), source, None if value is None else tuple(value.shape)))
    found.check_used()
    sizes = {name: p.numel() for name, p in student.named_parameters()}
    kept = sum(size for name, size in sizes.items() if name in taken)
    if not kept:
        first = next((u for u in unfit if u.source_shape), unfit[0] if unfit else None)
        shown = f": '{first.name}' is {list(first.shape)}, the teacher's is {list(first.source_shape) if first.source_shape else 'not there'}" if first else ""
        raise StageError(f"no parameter of the student has the teacher's name and shape{shown}. Build it from the teacher's factory with fewer layers, or start it fresh.")
    return Inheritance(taken, found.layers, tuple(unfit), kept / sum(sizes.values()))


class _Mapping:
    """From the student's names to the teacher's: the number of a block is replaced, all else stays."""

    def __init__(self, student: nn.Module, teacher: nn.Module, layers: Literal["even"] | Sequence[int]):
        if isinstance(layers, str) and layers != "even":
            raise ConfigError(f"layers must be 'even' or numbers of the teacher's blocks, got {layers!r}. Write them from 0, as in [0, 2, 4].")
        self.asked = None if isinstance(layers, str) else tuple(layers)
        self.modules = [dict(m.named_modules(remove_duplicate=False)) for m in (student, teacher)]
        self.layers: dict[str, tuple[int, ...]] = {}
        self.used = False

    def source(self, name: str) -> str:
        """The teacher's tensor that answers to the student's of this name."""
        own, theirs = "", ""
        for part in name.split("."):
            theirs = f"{theirs}.{self._part(own, theirs, part)}" if theirs else self._part(own, theirs, part)
            own = f"{own}.{part}" if own else part
        return theirs

    def _part(self, own: str, theirs: str, part: str) -> str:
        pair = [modules.get(path) for modules, path in zip(self.modules, (own, theirs), strict=True)]
        if not part.isdigit() or pair[0] is None or pair[1] is None:
            return part
        ends = [stack_at(path, module) for path, module in zip((own, theirs), pair, strict=True) if module is not None]
        if ends[0] is None or ends[1] is None:
            return part
        number = int(part)
        if number in ends[0].blocks:
            return str(self._blocks(ends[0], ends[1])[ends[0].blocks.index(number)])
        place = ends[0].others.index(number)
        return str(ends[1].others[place]) if len(ends[0].others) == len(ends[1].others) else part

    def _blocks(self, own: Stack, theirs: Stack) -> tuple[int, ...]:
        """For each of the student's blocks, the teacher's."""
        if self.asked is None or len(own.blocks) == len(theirs.blocks):
            chosen = tuple(theirs.blocks[i] for i in evenly(len(own.blocks), len(theirs.blocks)))
        else:
            self.used = True
            if len(self.asked) != len(own.blocks) or not set(self.asked) <= set(theirs.blocks):
                raise ConfigError(
                    f"layers must name a block of the teacher for each of the student's {len(own.blocks)} in '{own.path}', got {list(self.asked)}. "
                    f"The teacher has {', '.join(map(str, theirs.blocks))}."
                )
            chosen = self.asked
        self.layers[own.path] = chosen
        return chosen

    def check_used(self) -> None:
        if self.asked is not None and not self.used:
            raise ConfigError(f"layers = {list(self.asked)} applies to nothing: no stack of blocks stands at one path in both models at different depths. Write 'even'.")
