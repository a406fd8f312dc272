"""Where a model's bytes, multiply-adds and time are: what is counted, joined with what the target took for each layer."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from torch import nn

from limbeck.analysis.profile import Layer, profile
from limbeck.analysis.redundancy import Redundancy, redundancy
from limbeck.core.candidate import Artifact
from limbeck.core.contract import Target
from limbeck.core.errors import ArtifactError
from limbeck.core.evidence import Latency
from limbeck.core.task import Task
from limbeck.evaluation import feeds, measure
from limbeck.evaluation.processes.apart import Apart
from limbeck.evaluation.processes.child import waiting_ns
from limbeck.mechanics.data import arguments, batch_of, example, feed
from limbeck.mechanics.quantizers import quantizers_of
from limbeck.runtimes import runtime
from limbeck.runtimes.card import Operators, OperatorTime, Runtime

MOST_EVENTS = 40_000  # operators timed in one profile: its file stays below some 40 MB
FEWEST_RUNS, MOST_RUNS = 2, 100  # inferences in a block
BETWEEN = "between operators"
OUTPUT = ".out_quantizer"  # what stands on a module's output
TABLES = (nn.Embedding, nn.EmbeddingBag)  # read by row, not as a whole


@dataclass(frozen=True, kw_only=True)
class Part:
    """A layer with what it costs in one call of the model. Times are medians over blocks; None where they weren't measured."""

    layer: Layer
    ms: float
    held_bytes: int | None  # of its weights, in the artifact
    moved_bytes: int  # weights, inputs and outputs, each once
    operators: Mapping[str, int] = field(default_factory=dict)  # of the target's graph, by type
    redundancy: Redundancy | None = None

    @property
    def intensity(self) -> float | None:
        """Operations (two a multiply-add) a byte moved; None for what multiplies nothing."""
        return 2 * self.layer.macs / self.moved_bytes if self.layer.macs and self.moved_bytes else None


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A model's layers with their costs, and the time that belongs to none of them, by what it is."""

    parts: tuple[Part, ...]
    elsewhere: Mapping[str, float]  # milliseconds
    latency_ms: float  # median of one inference; measured apart from the profile, where the target can be
    disturbed: bool
    method: str
    parameters: int
    macs: int
    size_bytes: int | None  # of the artifact's file

    @property
    def total_ms(self) -> float:
        """What shares are of: all rows together."""
        return sum(p.ms for p in self.parts) + sum(self.elsewhere.values())


def anatomy(task: Task, model: nn.Module, target: Target, *, folder: Path, split: str = "train", seconds: float = 2.0, stop: Callable[[], bool] = lambda: False) -> Anatomy:
    """Count a model's layers on one batch of a split, and time them on the target.

    On a runtime with a profiler the model is exported into `folder`, and each operator's time is given to the module that it
    came from. On the others each module is timed as it runs in torch.

    Raises: ArtifactError if the model can't be exported or run; TaskError if the task can't give a batch.
    """
    count = len(task.split(split))
    batch = batch_of(task, split, [i % count for i in range(target.batch)])
    counted = profile(model, *arguments(task, batch), every=True)
    card = runtime(target.runtime)
    own = _Paths(model)
    if card.operators:
        timed = _profiled(card, card.operators, example(task, model, split=split), feed(task, batch), target, folder=folder, seconds=seconds, stop=stop)
    else:
        timed = _hooked(card, model.eval(), arguments(task, batch), target, seconds=seconds)
    found = timed.by_module(own)
    children = {path.rpartition(".")[0] for path, _ in model.named_modules() if path}
    parts = [
        _part(layer, found.get(layer.path, timed.absent), model.get_submodule(layer.path))
        for layer in own.with_quantizers(counted.layers)
        if own.layer(layer.path) == layer.path and (layer.parameters or layer.macs or layer.path in found or layer.path not in children)
    ]
    return Anatomy(
        parts=tuple(parts),
        elsewhere=timed.elsewhere,
        latency_ms=timed.latency_ms,
        disturbed=timed.disturbed,
        method=timed.method,
        parameters=counted.parameters,
        macs=counted.macs,
        size_bytes=timed.size_bytes,
    )


@dataclass(eq=False)
class _Cost:
    ms: float = 0.0
    held: int | None = None
    read: int = 0
    passed: int | None = None  # bytes of its operators' inputs and outputs; None: as the module's own were counted
    operators: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """Costs by path of what the runtime calls a module, which may be an alias or a quantizer."""

    costs: Mapping[str, _Cost]
    elsewhere: Mapping[str, float]
    latency_ms: float
    disturbed: bool
    method: str
    absent: _Cost = field(default_factory=_Cost)  # what a module costs that isn't in costs: folded into another, it costs nothing
    size_bytes: int | None = None

    def by_module(self, own: _Paths) -> dict[str, _Cost]:
        found: dict[str, _Cost] = defaultdict(_Cost)
        for path, cost in self.costs.items():
            into = found[own.layer(path)]
            into.ms += cost.ms
            into.held = (into.held or 0) + cost.held if cost.held is not None else into.held
            into.read += cost.read
            into.passed = (into.passed or 0) + cost.passed if cost.passed is not None else into.passed
            into.operators += cost.operators
        return dict(found)


class _Paths:
    """From any path of a module to the layer that it counts for: its first name, and for a quantizer the module that owns it."""

    def __init__(self, model: nn.Module):
        first = {id(module): path for path, module in model.named_modules()}
        self._first = {path: first[id(module)] for path, module in model.named_modules(remove_duplicate=False)}
        self._quantizers = set(quantizers_of(model))

    def with_quantizers(self, layers: Iterable[Layer]) -> list[Layer]:
        """Layers, what an output's quantizer gives back counted where the output was made."""
        layers = list(layers)
        given = {la.path.removesuffix(OUTPUT): la.activation_bytes for la in layers if la.path in self._quantizers and la.path.endswith(OUTPUT)}
        return [replace(la, activation_bytes=la.activation_bytes + given.get(la.path, 0)) for la in layers]

    def layer(self, path: str) -> str:
        while path and (path not in self._first or self._first[path] in self._quantizers):  # deployment adds none, but a user's forward may name its own
            path = path.rpartition(".")[0]
        return self._first[path]


def _part(layer: Layer, cost: _Cost, module: nn.Module) -> Part:
    passed = layer.input_bytes + layer.activation_bytes if cost.passed is None else cost.passed
    read = cost.read if cost.held is not None else min(layer.weight_bytes, layer.activation_bytes) if isinstance(module, TABLES) else layer.weight_bytes
    return Part(layer=layer, ms=cost.ms, held_bytes=cost.held, moved_bytes=read + passed, operators=dict(cost.operators), redundancy=redundancy(module))


def _profiled(card: Runtime, profiler: Operators, traced: Any, fed: Mapping[str, np.ndarray], target: Target, *, folder: Path, seconds: float, stop: Callable[[], bool]) -> _Timed:
    artifact, known = profiler.export(traced, folder)
    latency, taken, disturbed = operators(artifact, card, fed, target, seconds=seconds, stop=stop)
    costs: dict[str, _Cost] = defaultdict(_Cost)
    for path in {*known.held_bytes, *known.read_bytes, *(n.module for n in known.nodes)}:
        costs[path] = _Cost(held=known.held_bytes.get(path, 0), read=known.read_bytes.get(path, 0), passed=0)
    elsewhere: dict[str, float] = defaultdict(float)
    for operator, path in zip(taken, profiler.modules(artifact, known, taken), strict=True):
        if path is None:
            elsewhere[f"{operator.operator}, put in by {card.name}"] += median(operator.block_ms)
            continue
        cost = costs[path]
        cost.ms += median(operator.block_ms)
        cost.passed = (cost.passed or 0) + (operator.input_bytes or 0) + (operator.output_bytes or 0)
        cost.read += (operator.output_bytes or 0) if operator.operator == "Gather" else 0  # the rows that it takes from a table
        cost.operators[operator.operator] += 1
    inside = sum(c.ms for c in costs.values()) + sum(elsewhere.values())
    elsewhere[BETWEEN] = max(0.0, latency - inside)
    method = f"{card.name}'s own profiler on the exported artifact, median of {len(taken[0].block_ms) if taken else 0} blocks; latency measured without it"
    return _Timed(costs=costs, elsewhere=dict(elsewhere), latency_ms=latency, disturbed=disturbed, method=method, absent=_Cost(held=0, passed=0), size_bytes=artifact.size_bytes)


def operators(
    artifact: Artifact, card: Runtime, fed: Mapping[str, np.ndarray], target: Target, *, seconds: float = 2.0, stop: Callable[[], bool] = lambda: False
) -> tuple[float, list[OperatorTime], bool]:
    """An artifact's median latency in ms, what each of its operators takes, and whether either measurement was disturbed."""
    (latency,) = measure.latency([artifact], fed, threads=target.threads, seconds=seconds, stop=stop)
    taken, disturbed = measure.operators(artifact, fed, threads=target.threads, runs=_runs(latency, card.describe(artifact)["operators"], seconds), stop=stop)
    return median(latency.samples), taken, disturbed or latency.disturbed


def _runs(latency: Latency, counts: Mapping[str, int], seconds: float) -> int:
    """Inferences a block, so that the profile takes about `seconds` and its file stays small."""
    by_time = seconds * 1e3 / max(median(latency.samples), 1e-3) / measure.BLOCKS
    by_size = MOST_EVENTS / max(1, sum(counts.values())) / measure.BLOCKS
    return int(min(max(min(by_time, by_size), FEWEST_RUNS), MOST_RUNS))


def _hooked(card: Runtime, model: nn.Module, call: tuple[tuple, Mapping[str, Any]], target: Target, *, seconds: float) -> _Timed:
    if card.modules is None:
        raise ArtifactError(f"limbeck can't tell what each layer takes on '{card.name}'. Analyze on another runtime, with --runtime.")
    waiting = waiting_ns(target.threads)
    waited, first = waiting(), card.modules(model, *call, target.threads, 1, 1)
    runs = int(min(max(seconds * 1e3 / max(sum(ms[0] for ms in first.values()), 1e-3) / measure.BLOCKS, FEWEST_RUNS), MOST_RUNS))
    taken = card.modules(model, *call, target.threads, measure.BLOCKS, runs)
    costs = {path: _Cost(ms=median(ms)) for path, ms in taken.items()}
    total = median(map(math.fsum, zip(*taken.values(), strict=True)))
    spent = sum(map(math.fsum, taken.values())) * runs * 1e6
    disturbed = waiting() - waited > measure.DISTURBED * spent
    method = f"each module of the eager model in {card.name}, by hooks, less the modules that it calls; median of {measure.BLOCKS} blocks"
    return _Timed(costs=costs, elsewhere={}, latency_ms=total, disturbed=disturbed, method=method)


def random_inputs(artifact: Artifact, target: Target) -> dict[str, np.ndarray]:
    """A feed for an artifact that comes without a task."""
    with Apart(artifact, threads=target.threads) as session:
        return dict(feeds.random({artifact.path.name: session}, target.batch).feed)


def block_of(path: str, depth: int) -> str:
    """The first `depth` names of a module path."""
    return ".".join(path.split(".")[:depth])


def sensible_depth(layers: Iterable[Layer]) -> int:
    """The least depth at which no block holds more than half of the multiply-adds; where one layer does, the least that can't be bettered."""
    layers = list(layers)
    cost = (lambda la: la.macs) if any(la.macs for la in layers) else (lambda la: la.parameters)
    total = sum(map(cost, layers))
    deepest = max((len(la.path.split(".")) for la in layers), default=1)
    largest = [max(_sums(layers, depth, cost), default=0) for depth in range(1, deepest + 1)]
    return next((depth for depth, most in enumerate(largest, 1) if 2 * most <= total or most == largest[-1]), 1)


def _sums(layers: Sequence[Layer], depth: int, cost: Callable[[Layer], int]) -> list[int]:
    sums: Counter[str] = Counter()
    for layer in layers:
        sums[block_of(layer.path, depth)] += cost(layer)
    return list(sums.values())
