"""What passes through an ONNX file in one inference: the optimized graph, joined with what ONNX Runtime's profiler saw of its tensors and its arena."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limbeck.analysis.flow import Arena, Flow, Step, live_bytes
from limbeck.core.errors import ArtifactError
from limbeck.runtimes.profiling import KERNEL, inferences

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

Event = Mapping[str, Any]
Shape = tuple[int, ...]
BYTES = {"float": 4, "double": 8, "float16": 2, "bfloat16": 2, "bool": 1} | {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}
SHOWING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})  # their output is their input's bytes: the runtime never copies for them
TABLES = frozenset({"Gather", "GatherElements", "GatherND"})  # read rows of a weight
CONVS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}  # operator → which input its weight is
PRODUCTS = frozenset({"DynamicQuantizeMatMul", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits", "QGemm", "QLinearMatMul"})
RECURRENT = {"GRU": (1, 2), "LSTM": (1, 2), "RNN": (1, 2), "DynamicQuantizeLSTM": (1, 2)}  # the weights of input and of state


def flow_of(
    graph: GraphProto, events: Iterable[Event], fed: Mapping[str, tuple[Shape, int]], *, weights: Mapping[str, int], integer: Callable[[str], bool], multiplies: frozenset[str]
) -> Flow:
    """A flow from a profile of several inferences of one feed; the last is told, when the runtime has planned its memory.

    Args:
        graph: As the runtime optimized it in the session that was profiled.
        fed: Shape and bytes of each input. weights: Bytes of the initializers, also of inner graphs, by name.
        integer: Whether an operator computes in 8-bit integers. multiplies: Those that multiply in floating point.
    Raises: ArtifactError if a node of the graph isn't in the profile.
    """
    runs = inferences(events)
    known = _Known(_by_name(runs[-1]), weights, {name: shape for name, (shape, _) in fed.items()}, integer, multiplies)
    known.add_weights(graph)
    return Flow(
        steps=tuple(known.steps(graph)),
        inputs={name: size for name, (_, size) in fed.items()},
        outputs=tuple(value.name for value in graph.output),
        weight_bytes=sum(weights.values()),
        arena=_arena(runs),
    )


def _arena(runs: Sequence[Sequence[Event]]) -> Arena | None:
    """From the counters that each operator's event carries; older versions of the runtime carry none."""
    first, last = ([node["args"] for node in run] for run in (runs[0], runs[-1]))
    if not first or "mem_bytes_in_use" not in first[0]:
        return None
    rest = int(first[0]["mem_bytes_in_use"]) - int(first[0]["mem_in_use_delta"])
    used = max(int(node["mem_bytes_in_use"]) for node in last)
    return Arena(rest_bytes=rest, planned_bytes=max(0, used - rest), held_bytes=max(int(node["mem_arena_held"]) for node in last))


def _by_name(run: Sequence[Event]) -> dict[tuple[str, str], list[tuple[int, Event]]]:
    """Events of one inference with their place in it, by operator and name."""
    found: dict[tuple[str, str], list[tuple[int, Event]]] = defaultdict(list)
    for place, event in enumerate(run):
        found[(event["args"]["op_name"], event["name"].removesuffix(KERNEL))].append((place, event["args"]))
    return found


@dataclass
class _Known:
    """What is known of tensors while a graph is gone through."""

    events: dict[tuple[str, str], list[tuple[int, Event]]]
    weights: Mapping[str, int]
    shapes: dict[str, Shape]
    integer: Callable[[str], bool]
    multiplies: frozenset[str]

    def add_weights(self, graph: GraphProto) -> None:
        self.shapes |= {t.name: tuple(t.dims) for t in graph.initializer}

    def steps(self, graph: GraphProto, *, inner: bool = False) -> list[Step]:
        """The nodes of a graph that ran, in order. A node of an inner graph may not have run, or have run often."""
        ran: list[tuple[int, NodeProto, list[Event]]] = []
        for node in graph.node:
            found = self._events(node, all_=inner)
            if found:
                ran.append((found[-1][0], node, [event for _, event in found]))
            elif not inner and node.op_type != "Constant":
                raise ArtifactError(f"the profile of ONNX Runtime doesn't show the operator '{node.name}' ({node.op_type}), so its tensors can't be followed.")
        return [self._step(node, events) for _, node, events in sorted(ran, key=lambda r: r[0])]

    def _events(self, node: NodeProto, *, all_: bool) -> list[tuple[int, Event]]:
        """Of one that ran often in an inner graph all, else the next of this name; the runtime calls a nameless one after its operator."""
        kinds = [(node.op_type, node.name)] if node.name else [k for k in self.events if k[0] == node.op_type and k[1].startswith(f"{node.op_type}_")]
        queue = next((self.events[kind] for kind in kinds if self.events.get(kind)), None)
        if not queue:
            return []
        if not all_:
            return [queue.pop(0)]
        found = list(queue)
        queue.clear()
        return found

    def _step(self, node: NodeProto, events: Sequence[Event]) -> Step:
        event = events[-1]
        inside = [inner for attribute in node.attribute for inner in (attribute.g, *attribute.graphs) if inner.node]
        for graph in inside:
            self.add_weights(graph)
        bodies = [self.steps(graph, inner=True) for graph in inside]
        self._first_input(node, event)
        makes = self._made(node, event)
        own = {name for steps in bodies for step in steps for name in step.makes}
        reads = [n for n in node.input if n] + [name for steps in bodies for step in steps for name in step.reads if name not in own]
        counts = [step.macs for steps in bodies for step in steps] + [self._macs(node, event)]
        read = sum(self.weights.get(n, 0) for n in set(node.input)) if node.op_type not in TABLES else sum(makes.values())
        return Step(
            name=node.name,
            operator=node.op_type,
            reads=tuple(dict.fromkeys(n for n in reads if n not in self.weights and n in self.shapes)),
            makes=makes,
            shows={node.output[0]: node.input[0]} if node.op_type in SHOWING and node.input[0] not in self.weights else {},
            weight_bytes=read + sum(step.weight_bytes for steps in bodies for step in steps),
            macs=None if None in counts else len(events) * sum(c for c in counts if c),
            precision="int8" if self.integer(node.op_type) else "float16" if _kinds(event) & {"float16", "bfloat16"} else "float32",
            inside_bytes=max((max(live_bytes(Flow(tuple(steps), {}, (), 0)), default=0) for steps in bodies), default=0),
        )

    def _first_input(self, node: NodeProto, event: Event) -> None:
        """What a loop hands to its body has no maker in it; the profile knows the shape of a first input that isn't a weight."""
        told = event.get("input_type_shape") or [{}]
        if node.input and node.input[0] and node.input[0] not in self.weights and told[0]:
            self.shapes.setdefault(node.input[0], tuple(next(iter(told[0].values()))))

    def _made(self, node: NodeProto, event: Event) -> dict[str, int]:
        names, told = [n for n in node.output if n], [next(iter(one.items())) for one in event.get("output_type_shape", []) if one]
        self.shapes |= {name: tuple(shape) for name, (_, shape) in zip(names, told, strict=False)}
        if len(names) == 1:
            self.shapes.setdefault(names[0], ())
            return {names[0]: int(event.get("output_size", 0))}
        if len(names) != len(told):
            raise ArtifactError(
                f"the profile of ONNX Runtime shows {len(told)} outputs of '{node.name}' ({node.op_type}), which has {len(names)}, so its tensors can't be followed."
            )
        return {name: math.prod(shape) * BYTES.get(kind, 0) for name, (kind, shape) in zip(names, told, strict=True)}

    def _macs(self, node: NodeProto, event: Event) -> int | None:
        """By the shapes that were seen; None where a shape or the formula is missing."""
        operator, shape = node.op_type, [self.shapes.get(name) for name in node.input]
        out = self.shapes.get(node.output[0], ())
        place = CONVS.get(operator)
        if operator in PRODUCTS and shape[0]:
            turned = next((a.i for a in node.attribute if a.name == "transA"), 0)
            return math.prod(out) * shape[0][-2 if turned else -1]
        if place is not None and (weight := shape[place]):
            return math.prod(out) * math.prod(weight[1:])
        if operator == "ConvTranspose" and shape[0] and (weight := shape[1]):
            return math.prod(shape[0]) * math.prod(weight[1:])
        if operator in RECURRENT and shape[0] and all(shape[i] for i in RECURRENT[operator]):
            return math.prod(shape[0][:2]) * sum(math.prod(shape[i] or ()) for i in RECURRENT[operator])
        return None if operator in self.multiplies or (self.integer(operator) and not operator.startswith("QLinear")) else 0


def _kinds(event: Event) -> set[str]:
    return {kind for one in event.get("input_type_shape", []) for kind in one}
