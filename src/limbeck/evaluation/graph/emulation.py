"""An int8 ONNX file run node by node, its integer products computed here: as they are, or as CPUs without VNNI sum them.

Such CPUs multiply u8 by s8 with `vpmaddubsw`: two neighbouring products are added in 16 bits, and what doesn't fit is cut off at
−32768 or 32767. ONNX Runtime's kernels (MLAS: QGEMM and symmetric convolutions for AVX2 and AVX-512 without VNNI) pack the summed axis
as it stands: a matrix product pairs 2i with 2i + 1; a convolution sums over (height, width, input channel), the channel fastest, so
that it pairs neighbouring channels of one place. Depthwise convolutions widen to 16 bits first and can't saturate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError
from limbeck.core.require import require
from limbeck.evaluation.graph.inside import load_model, opened, path_of
from limbeck.evaluation.graph.integers import PRODUCTS, Mode, Product, Tally, depthwise, product_of
from limbeck.runtimes.card import Feed, InputSpec, bind
from limbeck.runtimes.onnxruntime import INT8, IR_VERSION, OnnxSession

if TYPE_CHECKING:
    from onnx import NodeProto


SAFE = "safe"  # u8 by u8 and depthwise kernels add in more than 16 bits


@dataclass(eq=False)
class Emulator:
    """An ONNX file, ready to run in a mode. `tallies` counts the sums of each product since it was made or cleared."""

    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    products: Mapping[str, Product]  # by the name of the node
    modules: Mapping[str, str]  # of each product: the module that its weights' name tells, else the node
    left: tuple[str, ...]  # int8 nodes that run as the runtime computes them
    nodes: tuple[Any, ...] = field(repr=False)
    constants: Mapping[str, Any] = field(repr=False)
    parameters: Mapping[str, np.ndarray] = field(repr=False)  # what the products read of them
    imports: tuple[Any, ...] = field(repr=False)
    tallies: dict[str, Tally] = field(default_factory=dict)
    sessions: dict[int, OnnxSession] = field(default_factory=dict, repr=False)

    def __call__(self, feed: Feed, mode: Mode = "exact") -> dict[str, np.ndarray]:
        """Outputs by name. Raises ArtifactError if the feed doesn't fit, or a node can't be run by itself."""
        values: dict[str, np.ndarray] = dict(bind(feed, self.inputs))
        for number, node in enumerate(self.nodes):
            product = self.products.get(node.name)
            if product:
                inputs = [values.get(name, self.parameters.get(name)) for name in node.input]
                values[node.output[0]] = product(inputs, mode, self.tallies.setdefault(node.name, Tally()))
            else:
                values |= self._run(number, node, values)
        return {name: values[name] for name in self.outputs}

    def _run(self, number: int, node: NodeProto, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        used = list(dict.fromkeys(n for n in _used(node) if n in values))
        if number not in self.sessions:
            self.sessions[number] = self._session(node, {name: values[name] for name in used})
        return self.sessions[number]({name: values[name] for name in used})

    def _session(self, node: NodeProto, fed: Mapping[str, np.ndarray]) -> OnnxSession:
        """One node as a model. What graphs inside it take from outside stands among its inputs."""
        onnx = require("onnx")
        helper = onnx.helper
        inputs = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim) for name, value in fed.items()]
        graph = helper.make_graph([node], "node", inputs, [onnx.ValueInfoProto(name=name) for name in node.output if name])
        graph.initializer.extend(self.constants[name] for name in dict.fromkeys(_used(node)) if name in self.constants)
        return opened(helper.make_model(graph, opset_imports=self.imports, ir_version=IR_VERSION), optimized=False)


def emulator(artifact: Artifact) -> Emulator:
    """The graph as ONNX Runtime optimizes it, whatever the CPU. Raises ArtifactError if it can't be loaded."""
    onnx = require("onnx")
    model = _optimized(artifact)
    graph = model.graph
    for number, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    constants = {t.name: t for t in graph.initializer}
    read = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input}
    parameters = {name: onnx.numpy_helper.to_array(t) for name, t in constants.items() if name in read}
    products: dict[str, Product] = {}
    modules: dict[str, str] = {}
    left = []
    for node in graph.node:
        found = _product(node, parameters) if node.op_type in PRODUCTS else None
        if isinstance(found, Product):
            products[node.name] = found
            modules[node.name] = path_of(node.input[PRODUCTS[node.op_type]["weight"]], node.name)
        elif found != SAFE and (node.op_type in PRODUCTS or node.op_type in INT8):
            left.append(node.name)
    session = opened(model, optimized=False)
    return Emulator(session.inputs, session.outputs, products, modules, tuple(left), tuple(graph.node), constants, parameters, tuple(model.opset_import))


def _product(node: NodeProto, parameters: Mapping[str, np.ndarray]) -> Product | str:
    """The product that a node is; why it is none else: SAFE where it can't saturate, or what isn't known here."""
    places = PRODUCTS[node.op_type]
    weight, zero = (parameters.get(node.input[places[key]]) if places[key] < len(node.input) else None for key in ("weight", "weight_zero"))
    if weight is None:  # two activations
        return SAFE if zero is not None and zero.dtype == np.uint8 else "its second factor isn't constant"
    attributes = {a.name: require("onnx").helper.get_attribute_value(a) for a in node.attribute}
    if weight.dtype == np.uint8 or depthwise(node.op_type, weight, attributes):
        return SAFE
    return product_of(node.op_type, weight, zero, attributes) or "its shape isn't known"


def _optimized(artifact: Artifact) -> Any:
    """Fused into integer kernels, but in no layout that only some CPUs know."""
    ort, onnx = require("onnxruntime"), require("onnx")
    from limbeck.mechanics.onnx import failures

    options = ort.SessionOptions()
    options.log_severity_level, options.graph_optimization_level = 3, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        try:
            ort.InferenceSession(load_model(artifact).SerializeToString(), options, providers=["CPUExecutionProvider"])  # weights that stood beside it are in it
        except failures() as error:
            why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ArtifactError(f"{artifact.path} can't be loaded by ONNX Runtime {ort.__version__}: {why} Export or download it again.") from error
        return onnx.load(options.optimized_model_filepath)


def _used(node: NodeProto) -> Iterator[str]:
    """What a node reads, and what the graphs inside it read from anywhere."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            for inner in graph.node:
                yield from _used(inner)
            yield from (value.name for value in graph.output)
