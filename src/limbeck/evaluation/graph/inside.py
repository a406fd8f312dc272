"""The tensors inside an ONNX file: which of them can be compared with a module's, and what they hold for a feed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError
from limbeck.core.require import require
from limbeck.runtimes.card import artifact_file
from limbeck.runtimes.onnxruntime import FLOAT, MAX_BYTES, OnnxSession, tensor_bytes, tensors

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
INTEGERS = ".weight_quantizer.integers"  # the runtime's optimizer may add to it
SMALL = frozenset({2, 3, 21, 22})  # ONNX's UINT8, INT8, UINT4, INT4
CARRIES = frozenset({DEQUANTIZE, "Transpose", "Reshape", "Identity", "Cast", "Squeeze", "Unsqueeze"})  # what a constant weight may pass through on its way


@dataclass(frozen=True)
class Product:
    """A node that multiplies by a constant weight. `given` is the tensor with its bias; `normalized`: a batch norm stands after it."""

    node: str
    operator: str
    weight: str  # the constant's name
    shape: tuple[int, ...]
    quantized: bool
    given: str
    normalized: bool


@dataclass(frozen=True)
class Point:
    """A tensor to look at: a quantized one, a product's float result, or an output of the whole graph."""

    tensor: str
    operators: tuple[str, ...]  # from the points before it to here, in the order in which they run
    products: tuple[int, ...]  # numbers of the products among them
    grid: tuple[float, int] | None = None  # scale and zero point as its readers take it; None: a float tensor
    written: tuple[float, int] | None = None  # as it is rounded; differs from `grid` in a damaged file alone
    product: int | None = None  # a product's own result


@dataclass(frozen=True)
class Inside:
    """What a graph holds, in the order in which it runs."""

    products: tuple[Product, ...]
    points: tuple[Point, ...]
    outputs: tuple[str, ...]
    model: Any = field(repr=False)


def inside(artifact: Artifact) -> Inside:
    """The products and points of an ONNX file's outer graph. Raises ArtifactError if it isn't one."""
    model = load_model(artifact)
    graph = _Graph(model)
    products = tuple(graph.products())
    return Inside(products, tuple(_points(graph, products)), tuple(o.name for o in model.graph.output), model)


def load_model(artifact: Artifact) -> ModelProto:
    """The file as onnx reads it, with the weights that it keeps in others. Raises ArtifactError if it isn't ONNX, or too large for one message."""
    path = artifact_file(artifact, ".onnx")
    decode = require("google.protobuf.message", pip="onnx").DecodeError
    try:
        model = require("onnx").load(path)
    except (decode, OSError) as error:
        raise ArtifactError(f"{path} can't be read as ONNX: {error}. Export or download it again.") from error
    if model.ByteSize() > MAX_BYTES:
        raise ArtifactError(f"{path} must hold at most {MAX_BYTES:,} bytes to be looked into, got {model.ByteSize():,}. Leave this study out: --studies names the others.")
    return model


def peek(found: Inside, feed: Mapping[str, np.ndarray], *, optimized: bool, threads: int = 1) -> dict[str, np.ndarray]:
    """What every point and output holds for a feed, under their names; quantized ones as integers.

    A copy of the graph gives them as outputs, and may run as other kernels than the file where they stand in the way of a fusion.
    Raises: ArtifactError if ONNX Runtime can't run it.
    """
    onnx = require("onnx")
    model = onnx.ModelProto()
    model.CopyFrom(found.model)
    names = list(dict.fromkeys([*found.outputs, *(p.tensor for p in found.points)]))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in found.outputs)
    return opened(model, optimized=optimized, threads=threads)(feed)


def opened(model: ModelProto, *, optimized: bool, threads: int = 1) -> OnnxSession:
    """A session of a graph in memory, its nodes as they stand or optimized for this CPU. Raises ArtifactError if there can't be one."""
    ort = require("onnxruntime")
    from limbeck.mechanics.onnx import failures

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return OnnxSession(ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]), "the graph with its inner tensors")
    except failures() as error:
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ArtifactError(f"the tensors inside this file can't be looked at: {why} Export it again.") from error


class _Graph:
    """Who makes and who reads each tensor of a graph; `makers` are numbers of nodes."""

    def __init__(self, model: ModelProto):
        onnx = require("onnx")
        self.nodes = list(model.graph.node)
        self.outputs = [o.name for o in model.graph.output]
        self.constants: dict[str, np.ndarray] = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in self.nodes:
            held = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
            if held is not None:
                self.constants[node.output[0]] = onnx.numpy_helper.to_array(held)
        self.makers = {name: number for number, node in enumerate(self.nodes) for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def products(self) -> Iterator[Product]:
        for node in self.nodes:
            weight = next((w for w in (self._constant(name) for name in node.input[:2]) if w), None) if node.op_type in FLOAT else None
            if weight:
                name, quantized = weight
                given = self._with_bias(node)
                normalized = any(r.op_type == "BatchNormalization" for r in self.readers.get(given, []))
                yield Product(node.name or node.output[0], node.op_type, name, self.constants[name].shape, quantized, given, normalized)

    def _constant(self, name: str) -> tuple[str, bool] | None:
        """The constant that a tensor comes from, and whether it was stored as integers."""
        quantized = False
        while name not in self.constants:
            maker = self.nodes[self.makers[name]] if name in self.makers else None
            if maker is None or maker.op_type not in CARRIES:
                return None
            quantized |= maker.op_type == DEQUANTIZE
            name = maker.input[0]
        return (name, quantized) if self.constants[name].ndim > 1 else None

    def _with_bias(self, node: Any) -> str:
        """A matrix product's result once its bias is added, where a node of its own does that."""
        name = node.output[0]
        readers = self.readers.get(name, [])
        if node.op_type != "MatMul" or len(readers) != 1 or readers[0].op_type != "Add" or name in self.outputs:
            return name
        others = [self.constants.get(i) for i in readers[0].input if i != name]
        return readers[0].output[0] if len(others) == 1 and others[0] is not None and others[0].ndim == 1 else name

    def grid(self, node: Any) -> tuple[float, int] | None:
        """Scale and zero point of a quantize or dequantize node; None where it has several, or they are computed."""
        scale = self.constants.get(node.input[1])
        zero = self.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1, np.int64)
        return (float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])) if scale is not None and zero is not None and scale.size == zero.size == 1 else None

    def before(self, name: str, stops: frozenset[str]) -> list[Any]:
        """The nodes between other points and this tensor, in the order in which they run."""
        found: set[int] = set()
        front = [name]
        while front:
            number = self.makers.get(front.pop())
            if number is not None and number not in found:
                found.add(number)
                front += [i for i in self.nodes[number].input if i not in stops and i not in self.constants]
        return [self.nodes[number] for number in sorted(found)]


def _points(graph: _Graph, products: Sequence[Product]) -> Iterator[Point]:
    own = {p.given: i for i, p in enumerate(products) if not p.quantized}
    grids = {n.output[0]: graph.grid(n) for n in graph.nodes if n.op_type == QUANTIZE and n.input[0] not in graph.constants}
    quantized = {name: grid for name, grid in grids.items() if grid}
    dequantized = {n.output[0] for n in graph.nodes if n.op_type == DEQUANTIZE and n.input[0] in quantized}
    asked = {*own, *quantized, *(o for o in graph.outputs if o not in dequantized)}
    stops = frozenset((asked | dequantized) - {""})
    numbers = {p.node: i for i, p in enumerate(products)}
    for node in graph.nodes:
        for name in (o for o in node.output if o in asked):
            between = graph.before(name, stops)
            inner = tuple(numbers[k] for n in between if (k := n.name or n.output[0]) in numbers)
            operators = tuple(n.op_type for n in between if n.op_type != DEQUANTIZE)
            read = [g for r in graph.readers.get(name, []) if r.op_type == DEQUANTIZE and (g := graph.grid(r))]
            written = quantized.get(name)
            yield Point(name, operators, inner, read[0] if written and read else written, written, own.get(name))


def weight_bytes(artifact: Artifact) -> tuple[int, int]:
    """Bytes of an ONNX file's constants that are no single numbers, its inner graphs' too: all of them, and those stored as integers of 8 bits or fewer."""
    sizes = [(tensor_bytes(t), t.data_type in SMALL) for t in tensors(load_model(artifact).graph) if t.dims]
    return sum(size for size, _ in sizes), sum(size for size, small in sizes if small)


def path_of(weight: str, node: str) -> str:
    """The module that a product came from, where the name of its weight tells, as in what limbeck exports; else the node's own name."""
    known = weight.startswith("model.") and (weight.endswith(".weight") or INTEGERS in weight)
    return weight.removeprefix("model.").partition(INTEGERS)[0].removesuffix(".weight") if known else node
