"""Where a module and its artifact part: tensor by tensor, each layer given what the artifact itself had before it.

Errors travel: one step off in a layer becomes several in the next, and every later tensor differs. So the module is run once more
with each tensor that is compared replaced by the artifact's, and a layer is charged what it adds by itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError
from limbeck.core.task import Task
from limbeck.evaluation.graph.inside import Inside, Point, inside, path_of, peek
from limbeck.mechanics.data import feed, predict
from limbeck.mechanics.quantizers import BATCH_NORMS, ActivationQuantizer

STEPS = 1.0  # a rounding unit is no divergence
RELATIVE = 1e-3  # of the largest magnitude of a float tensor
SHIFT = 128  # from the signed zero points of quantizers to those of u8
SLACK = 1e-3  # of a step: scales are float32
PRODUCTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far the artifact's tensor is from the module's: steps of its grid, or a share of its largest magnitude.

    exported: In the graph as it stands, by this layer alone. deployed: As the runtime optimizes it, by this layer alone. travelled: What the
    optimized graph is off by with the errors of all layers before. differing: Share of values that `deployed` counts as different.
    """

    module: str
    operators: tuple[str, ...]
    tensor: str
    unit: str
    exported: float
    deployed: float
    travelled: float
    differing: float
    grid: str = ""  # what is wrong with scale or zero point

    @property
    def tolerance(self) -> float:
        return STEPS if self.unit == "steps" else RELATIVE

    @property
    def stage(self) -> str:
        """What parts from what it should be: the exported file, the runtime's kernels, or nothing."""
        most = self.tolerance + (SLACK if self.unit == "steps" else 0.0)
        return "file" if self.grid or not self.exported <= most else "" if self.deployed <= most else "runtime"


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The distances in the order in which the layers run. `unmatched` tensors of the file have no counterpart in the module."""

    rows: tuple[Distance, ...]
    unmatched: int
    same_kernels: bool  # looked at from inside, the optimized graph answers bit for bit as the artifact itself

    @property
    def first(self) -> Distance | None:
        """The first layer that is over its tolerance in the file; else the first in the runtime."""
        over = [r for r in self.rows if r.stage]
        return min(over, key=lambda r: r.stage != "file", default=None)


Place = tuple[Literal["quantizer", "product"], int]  # the how-manieth call of its kind


@dataclass
class _Call:
    path: str
    size: int  # numbers of the weight; 0 for a quantizer
    grid: tuple[float, int] | None
    value: Tensor
    norm: Tensor | None = None  # what the batch norm right behind it made of it


@dataclass
class _Seen:
    """What one pass of a module showed: its quantizers and its products, call by call."""

    quantizers: list[_Call] = field(default_factory=list)
    products: list[_Call] = field(default_factory=list)


@dataclass(frozen=True)
class _Match:
    """Which call of the module each point and each product of the file is."""

    points: Mapping[Point, Place]
    products: Mapping[int, int]


def divergence(task: Task, model: nn.Module, artifact: Artifact, batch: Any, *, threads: int = 1, answers: Mapping[str, np.ndarray]) -> Divergence:
    """Compare a module, in the face in which it simulates its artifact, with that artifact on one batch.

    Args:
        model: Run in eval mode; no hook is left on it.
        answers: What the artifact's own session answers to this batch.
    Raises: ArtifactError if it is no ONNX file, or nothing in it, by shape too, can be matched with the module.
    """
    found, fed = inside(artifact), feed(task, batch)
    plain, fast = (peek(found, fed, optimized=optimized, threads=threads) for optimized in (False, True))
    free = _run(task, model, batch, lambda kind, number: None)
    match = _matched(found, free)
    points = {p: place for p, place in match.points.items() if _value(_at(free, place), found, p).shape == plain[p.tensor].shape}
    match = _Match(points, match.products)
    if not match.points:
        raise ArtifactError("no tensor inside this file could be matched with the module that it should come from: they have neither quantizers nor weighted layers in common.")
    exported, deployed = (_run(task, model, batch, _forcing(match, found, inner, free)) for inner in (plain, fast))
    rows = []
    for point, place in match.points.items():
        module, alone = _module(point, match, found, free), (_at(exported, place), _at(deployed, place))
        values = [_value(call, found, point) for call in (*alone, _at(free, place))]
        rows.append(_distance(point, _at(free, place), values, (plain[point.tensor], fast[point.tensor]), module=module))
    same = all(np.array_equal(fast[name], value, equal_nan=value.dtype.kind == "f") for name, value in answers.items() if name in fast)
    return Divergence(rows=tuple(rows), unmatched=len(found.points) - len(match.points), same_kernels=same)


def _run(task: Task, model: nn.Module, batch: Any, forced: Callable[[str, int], np.ndarray | None]) -> _Seen:
    """One pass; `forced(kind, number)` gives what stands in place of the how-manieth quantizer's or product's result, or None."""
    with _watched(model, forced) as seen, torch.no_grad():
        predict(task, model.eval(), batch)
    return seen


@contextmanager
def _watched(model: nn.Module, forced: Callable[[str, int], np.ndarray | None]) -> Iterator[_Seen]:
    seen, handles = _Seen(), []
    pending: dict[int, int] = {}  # id of a product's result → its number, for the batch norm that reads it
    kept: list[Tensor] = []  # so that no id is used twice

    def quantizer(path: str) -> Callable[..., Any]:
        def hook(module: Any, args: tuple, output: Tensor) -> Tensor:
            grid = (float(module.scale), int(module.zero_point)) if "scale" in module._buffers else None
            seen.quantizers.append(_Call(path, 0, grid, output))
            return _replaced(output, forced("quantizer", len(seen.quantizers) - 1))

        return hook

    def product(path: str) -> Callable[..., Any]:
        def hook(module: Any, args: tuple, output: Tensor) -> Tensor:
            number = len(seen.products)
            given = _replaced(output, forced("product", number))
            seen.products.append(_Call(path, module.weight.numel(), None, output))
            pending[id(given)] = number
            kept.append(given)
            return given

        return hook

    def norm(module: Any, args: tuple, output: Tensor) -> Tensor:
        number = pending.get(id(args[0])) if args else None
        if number is None:
            return output
        seen.products[number].norm = output
        return _replaced(output, forced("norm", number))

    try:
        for path, module in model.named_modules():
            hook = quantizer(path) if isinstance(module, ActivationQuantizer) else product(path) if type(module) in PRODUCTS else norm if isinstance(module, BATCH_NORMS) else None
            if hook:
                handles.append(module.register_forward_hook(hook))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _replaced(output: Tensor, value: np.ndarray | None) -> Tensor:
    return output if value is None or value.shape != tuple(output.shape) else torch.from_numpy(np.ascontiguousarray(value)).to(output.dtype)


def _at(seen: _Seen, place: Place) -> _Call:
    return (seen.quantizers if place[0] == "quantizer" else seen.products)[place[1]]


def _matched(found: Inside, seen: _Seen) -> _Match:
    """Calls and points are in the order in which they run; where their numbers differ, runs of equal grids or weights are matched."""
    points = [p for p in found.points if p.grid]
    theirs = [_rounded(*p.grid) for p in points if p.grid]
    ours = [_rounded(c.grid[0], c.grid[1] + SHIFT) if c.grid else None for c in seen.quantizers]
    pairs: dict[Point, Place] = {points[b]: ("quantizer", a) for a, b in _aligned(ours, theirs).items()}
    sizes = [c.size for c in seen.products], [math.prod(p.shape) for p in found.products]
    products = {b: a for a, b in _aligned(*sizes).items()}
    pairs |= {p: ("product", products[p.product]) for p in found.points if p.product is not None and p.product in products}
    return _Match({p: pairs[p] for p in found.points if p in pairs}, products)


def _rounded(scale: float, zero: int) -> tuple[float, int]:
    return round(float(np.float32(scale)), 9), zero


def _aligned(ours: Sequence[Any], theirs: Sequence[Any]) -> dict[int, int]:
    """Places of ours to those of theirs: equal ones in turn where both hold the same; else in order, or where they are alike for a while."""
    if len(ours) != len(theirs):
        blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
        return {b.a + i: b.b + i for b in blocks for i in range(b.size)}
    if Counter(ours) != Counter(theirs):
        return {i: i for i in range(len(ours))}
    places: dict[Any, list[int]] = {}
    for place in reversed(range(len(theirs))):
        places.setdefault(theirs[place], []).append(place)
    return {place: places[one].pop() for place, one in enumerate(ours)}


def _forcing(match: _Match, found: Inside, inner: Mapping[str, np.ndarray], seen: _Seen) -> Callable[[str, int], np.ndarray | None]:
    """What the artifact had at each point, for the module to go on with."""
    values: dict[tuple[str, int], np.ndarray] = {}
    for point, (kind, number) in match.points.items():
        at = "norm" if kind == "product" and _folded(seen.products[number], found, point) else kind
        values[at, number] = _real(inner[point.tensor], point.grid)
    return lambda kind, number: values.get((kind, number))


def _folded(call: _Call, found: Inside, point: Point) -> bool:
    """Whether the file's product holds the batch norm that stands behind the module's."""
    return call.norm is not None and point.product is not None and not found.products[point.product].normalized


def _real(values: np.ndarray, grid: tuple[float, int] | None) -> np.ndarray:
    """The numbers that a tensor's readers see."""
    return values if grid is None else ((values.astype(np.int64) - grid[1]).astype(np.float32) * np.float32(grid[0]))


def _value(call: _Call, found: Inside, point: Point) -> np.ndarray:
    return (call.norm if call.norm is not None and _folded(call, found, point) else call.value).numpy()


def _distance(point: Point, call: _Call, values: Sequence[np.ndarray], inner: tuple[np.ndarray, np.ndarray], *, module: str) -> Distance:
    """`values`: the module's, after what the file had before, what the runtime had before, and what it had itself. `inner`: the file's and the runtime's."""
    exported, deployed = (_real(one, point.grid) for one in inner)
    in_file, in_runtime, free = values
    scale = call.grid[0] if point.grid and call.grid else float(np.abs(free).max(initial=0.0)) or 1.0
    apart = np.abs(deployed.astype(np.float64) - in_runtime) / scale
    return Distance(
        module=module,
        operators=point.operators,
        tensor=point.tensor,
        unit="steps" if point.grid else "relative",
        exported=_most(exported, in_file, scale),
        deployed=_most(deployed, in_runtime, scale),
        travelled=_most(deployed, free, scale),
        differing=float((apart > (0.5 if point.grid else RELATIVE)).mean()) if apart.size else 0.0,
        grid=_off(point, call),
    )


def _most(theirs: np.ndarray, ours: np.ndarray, scale: float) -> float:
    gap = np.abs(theirs.astype(np.float64) - ours.astype(np.float64))
    return float("inf") if np.isnan(gap).any() else float(gap.max(initial=0.0)) / scale


def _off(point: Point, call: _Call) -> str:
    """What differs between the file's grid and the simulation's, the file's own u8 or s8 form aside."""
    if point.grid is None or point.written is None or call.grid is None:
        return ""
    scale = call.grid[0]
    wrong = next((g for g in (point.written, point.grid) if abs(g[0] - scale) > 1e-5 * scale), None)
    if wrong:
        return f"scale {wrong[0]:.6g}, simulated with {scale:.6g}"
    zero = next((g[1] for g in (point.written, point.grid) if g[1] - call.grid[1] not in (0, SHIFT)), None)
    return "" if zero is None else f"zero point {zero}, simulated with {call.grid[1]} (signed) or {call.grid[1] + SHIFT}"


def _module(point: Point, match: _Match, found: Inside, seen: _Seen) -> str:
    """The weighted module that made a tensor; else the module in which its quantizer lives."""
    if not point.products:
        return _at(seen, match.points[point]).path.rpartition(".")[0]
    last = point.products[-1]
    return seen.products[match.products[last]].path if last in match.products else path_of(found.products[last].weight, found.products[last].node)
