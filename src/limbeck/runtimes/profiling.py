"""What ONNX Runtime's own profiler says, and from which module each operator of its optimized graph came."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from limbeck.runtimes.card import Node, OperatorTime, Sources

if TYPE_CHECKING:
    from onnx import GraphProto

KERNEL, RUN = "_kernel_time", "model_run"
SCOPES, CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
MODEL = "model"  # what the deployed shell calls the user's model
LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})  # into and out of the blocked layout of the runtime's convolutions
ADDED = (re.compile(r"_token_\d+$"), re.compile(r"_nchwc$"), re.compile(r"(?<=.)/.*$"), re.compile(r"^fused "))  # to names, by the runtime's optimizer
FARTHEST = 8  # operators that a fused one may stand for, counted back from its output


def operator_times(events: Iterable[Mapping[str, Any]], *, skip: int, blocks: int, runs: int) -> list[OperatorTime]:
    """A profile's events as operators, in the order in which they first ran; inferences before `skip` are left out.

    An operator that calls others (If, Loop) is charged what they leave of its time.
    """
    found: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0] * blocks)
    moved: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for number, nodes in enumerate(inferences(events)):
        block = (number - skip) // runs
        if number < skip or block >= blocks:
            continue
        for event, microseconds in _exclusive(nodes):
            arguments = event["args"]
            key = (str(arguments.get("node_index", "")), event["name"].removesuffix(KERNEL), arguments["op_name"])
            found[key][block] += microseconds / 1e3 / runs
            moved[key] = arguments
    return [OperatorTime(key[1], key[2], tuple(ms), *(_size(moved[key], k) for k in ("activation_size", "output_size"))) for key, ms in found.items()]


def _size(arguments: Mapping[str, Any], key: str) -> int | None:
    return int(arguments[key]) if key in arguments else None


def inferences(events: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The operators of each inference. An inference's own event is written when it ends, after those of its operators."""
    runs: list[list[Mapping[str, Any]]] = []
    nodes: list[Mapping[str, Any]] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            nodes.append(event)
        elif event.get("name") == RUN:
            runs.append(nodes)
            nodes = []
    return runs


def _exclusive(nodes: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float]]:
    """Each operator with its microseconds, less those of the operators that ran inside it on the same thread."""
    spent = [float(n["dur"]) for n in nodes]
    open_: dict[Any, list[int]] = defaultdict(list)
    for index in sorted(range(len(nodes)), key=lambda i: (nodes[i]["ts"], -nodes[i]["dur"], -i)):
        outer, node = open_[nodes[index]["tid"]], nodes[index]
        while outer and nodes[outer[-1]]["ts"] + nodes[outer[-1]]["dur"] < node["ts"] + max(node["dur"], 1):
            outer.pop()
        if outer and _calls(nodes[outer[-1]]):
            spent[outer[-1]] -= node["dur"]
        outer.append(index)
    return [(node, max(0.0, own)) for node, own in zip(nodes, spent, strict=True)]


def _calls(node: Mapping[str, Any]) -> bool:
    """Whether an operator runs a graph of its own; the clock's microseconds are too coarse to tell by time alone."""
    return node["args"]["op_name"] in ("If", "Loop", "Scan")


def sources(graph: GraphProto, sizes: Mapping[str, int], *, multiplies: frozenset[str]) -> Sources:
    """Where the exporter says that each node came from. `sizes`: bytes of the initializers, by name."""
    nodes = []
    held: Counter[str] = Counter()
    read: Counter[str] = Counter()
    counted: set[str] = set()
    for node in graph.node:
        notes = {p.key: p.value for p in node.metadata_props}
        module = _module(notes, node, multiplies)
        nodes.append(Node(node.name, node.op_type, tuple(node.input), tuple(node.output), module))
        for name in sizes.keys() & set(node.input):
            read[module] += 0 if node.op_type == "Gather" else sizes[name]
            held[module] += 0 if name in counted else sizes[name]
            counted.add(name)
    return Sources(tuple(nodes), dict(held), dict(read))


def _module(notes: Mapping[str, str], node: Any, multiplies: frozenset[str]) -> str:
    """The innermost module of a node. What a batch norm was folded into belongs to the module of its weight."""
    scopes, kinds = (list(ast.literal_eval(notes.get(key, "[]"))) for key in (SCOPES, CLASSES))
    if node.op_type in multiplies and len(kinds) > 1 and "BatchNorm" in kinds[-2]:
        owner = next((name.rpartition(".")[0] for name in node.input if name.startswith(f"{MODEL}.")), "")
        if owner:
            return _inside(owner)
    return _inside(scopes[-2]) if len(scopes) > 1 else ""


def _inside(path: str) -> str:
    """A path in the deployed shell as a path in the model."""
    return "" if path == MODEL else path.removeprefix(f"{MODEL}.")


def modules_of(operators: Sequence[OperatorTime], optimized: GraphProto, known: Sources, *, multiplies: frozenset[str]) -> list[str | None]:
    """For each operator that ran, the path of its module; None for layout changes that the runtime put in, and what can't be told.

    The optimizer fuses and renames. A node is known by its name as it was, by a tensor whose name it took over, or by what it
    gives; of what was fused, the module is that of the product in it.
    """
    by_name = {n.name: n for n in known.nodes}
    makers = {output: n for n in known.nodes for output in n.outputs}
    outputs = {n.name: list(n.output) for n in optimized.node}
    found = []
    for operator in operators:
        node = None if operator.operator in LAYOUT else _origin(operator, by_name, makers, outputs.get(operator.name, []))
        if node and operator.operator in multiplies and node.operator not in multiplies:
            node = _product(node, makers, multiplies) or node
        found.append(node.module if node else None)
    return found


def _origin(operator: OperatorTime, by_name: Mapping[str, Node], makers: Mapping[str, Node], outputs: Sequence[str]) -> Node | None:
    name = operator.name
    for pattern in (None, *ADDED):
        name = pattern.sub("", name) if pattern else name
        if name in by_name:
            return by_name[name]
        if name in makers:
            return makers[name]
    maker = next((makers[output] for output in outputs if output in makers), None)
    return None if maker and operator.operator == "Transpose" and maker.operator != "Transpose" else maker


def _product(node: Node, makers: Mapping[str, Node], multiplies: frozenset[str]) -> Node | None:
    """The nearest product before a node, through what isn't one."""
    front, seen = [node], 0
    while front and seen < FARTHEST:
        current = front.pop(0)
        seen += 1
        for name in current.inputs:
            maker = makers.get(name)
            if maker and maker.operator in multiplies:
                return maker
            if maker:
                front.append(maker)
    return None
