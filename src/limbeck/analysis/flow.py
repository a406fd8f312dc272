"""What passes through a network in one inference, tensor by tensor, and how much of it is alive at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Step:
    """An operator that ran in one inference: what it read, made and multiplied.

    reads: Tensors that were fed or made before, by name; weights aren't among them.
    makes: Bytes by name; of one that only shows another's bytes in a new shape, see `shows`.
    shows: By name of such a tensor, the one whose bytes it shows.
    weight_bytes: Of weights that it reads, of a table only the rows.
    macs: Multiplications with their additions; None for one that multiplies in a way that nobody here counts.
    inside_bytes: Most that was alive at once within an operator that runs graphs of its own.
    """

    name: str
    operator: str
    reads: tuple[str, ...]
    makes: Mapping[str, int]
    shows: Mapping[str, str]
    weight_bytes: int = 0
    macs: int | None = 0
    precision: Literal["int8", "float16", "float32"] = "float32"
    inside_bytes: int = 0


@dataclass(frozen=True)
class Arena:
    """What a runtime's own allocator says of a steady inference. Weights may lie in it, too.

    rest_bytes: In use before the first inference.
    planned_bytes: In use above that, at most, while one runs.
    held_bytes: Taken from the system, used or not.
    """

    rest_bytes: int
    planned_bytes: int
    held_bytes: int


@dataclass(frozen=True)
class Flow:
    """What passes through an artifact in one inference: its steps in the order in which they ran.

    inputs: Bytes that were fed, by name. weight_bytes: All weights as the runtime computes with them, each once.
    """

    steps: tuple[Step, ...]
    inputs: Mapping[str, int]
    outputs: tuple[str, ...]
    weight_bytes: int
    arena: Arena | None = None


def live_bytes(flow: Flow) -> list[int]:
    """Bytes that are alive while each step runs: what was fed or made before and is still to be read, and what the step makes.

    A tensor lives from its maker to its last reader, an output of the network to the end, an input from the start to its last
    reader. One that only shows another's bytes keeps that one alive and has none of its own. Weights aren't counted, nor what a
    kernel takes for itself while it runs. A runtime that writes an output over an input needs less.
    """
    roots: dict[str, str] = {}
    sizes, last = dict(flow.inputs), dict.fromkeys(flow.inputs, -1)
    born: dict[str, int] = dict.fromkeys(flow.inputs, 0)
    for number, step in enumerate(flow.steps):
        for name in step.reads:
            last[roots.get(name, name)] = number
        for name, size in step.makes.items():
            if name in step.shows:
                roots[name] = roots.get(step.shows[name], step.shows[name])
            else:
                sizes[name], born[name], last[name] = size, number, number
    for name in flow.outputs:
        last[roots.get(name, name)] = len(flow.steps) - 1
    return _sums(flow, sizes, born, last)


def _sums(flow: Flow, sizes: Mapping[str, int], born: Mapping[str, int], last: Mapping[str, int]) -> list[int]:
    change = [0] * (len(flow.steps) + 1)
    for name, start in born.items():
        end = last[name]
        if end >= start:
            change[start] += sizes[name]
            change[end + 1] -= sizes[name]
    alive, found = 0, []
    for step, delta in zip(flow.steps, change, strict=False):
        alive += delta
        found.append(alive + step.inside_bytes)
    return found
