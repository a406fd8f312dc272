"""ONNX Runtime on the CPU: one ONNX file, stripped of all that doesn't compute."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.analysis.flow import Flow
from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError
from limbeck.core.require import installed, require
from limbeck.runtimes.card import Feed, InputSpec, Operators, OperatorTime, Runtime, Session, Sources, artifact_file, bind
from limbeck.runtimes.onnx_flow import flow_of
from limbeck.runtimes.profiling import modules_of, operator_times, sources
from limbeck.runtimes.tracing import quiet, traced, with_model

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from limbeck.mechanics.data import Example

OPSET = 20
WARM_UP = 3  # inferences before those that are profiled
IR_VERSION = 10
MAX_BYTES = 1_500_000_000  # protobuf ends at 2 GB; what is built from a file needs room below that
DTYPES = {"float": "float32", "double": "float64"}  # where ONNX Runtime's name of a dtype isn't numpy's
INT8 = frozenset({"ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QAttention", "QGemm"})  # and QLinear…
FLOAT = frozenset(
    {"Attention", "Conv", "ConvTranspose", "Einsum", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gemm", "GroupQueryAttention", "LSTM", "MatMul", "MatMulNBits"}
    | {"MultiHeadAttention", "RNN"}
)


class OnnxSession:
    """An open ONNX Runtime session."""

    def __init__(self, session: Any, name: str):
        self._session, self._name = session, name
        self.inputs = tuple(_spec(i) for i in session.get_inputs())
        self.outputs = tuple(o.name for o in session.get_outputs())

    def __call__(self, feed: Feed) -> dict[str, np.ndarray]:
        bound = bind(feed, self.inputs)
        try:
            return {name: self._array(name, value) for name, value in zip(self.outputs, self._session.run(self.outputs, bound), strict=True)}
        except _failures() as error:
            raise ArtifactError(f"{self._name}: ONNX Runtime failed: {_first_line(error)} Check that the feed is of the kind that it was exported for.") from error
        except RuntimeError as error:  # an output in numbers that numpy hasn't, as bfloat16
            raise ArtifactError(f"{self._name}: {_first_line(error)}. Cast its outputs to float32 in the graph.") from error

    def _array(self, name: str, value: Any) -> np.ndarray:
        if not isinstance(value, np.ndarray):
            raise ArtifactError(f"{self._name}: output '{name}' is a {type(value).__name__}, not a tensor. Export it so that it gives tensors (from scikit-learn: zipmap=False).")
        return value.astype(str) if value.dtype.kind == "O" else value  # text


def _spec(value: Any) -> InputSpec:
    shape = tuple(d if isinstance(d, int) else None for d in value.shape)
    return InputSpec(value.name, _dtype(value.type), shape, tuple(d if isinstance(d, str) else None for d in value.shape))


def _dtype(kind: str) -> str:
    """`tensor(float)` → `float32`; what isn't a tensor of numbers keeps its name, and is refused where it is fed."""
    inner = kind.removeprefix("tensor(").removesuffix(")")
    name = DTYPES.get(inner, inner)
    return name if inner != kind and re.fullmatch(r"(u?int|float)\d+|bool", name) else "object"


def _failures() -> tuple[type[Exception], ...]:
    s = require("onnxruntime.capi.onnxruntime_pybind11_state", pip="onnxruntime")
    return (s.EPFail, s.Fail, s.InvalidArgument, s.InvalidGraph, s.InvalidProtobuf, s.NoModel, s.NoSuchFile, s.NotImplemented, s.RuntimeException)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def load(artifact: Artifact, threads: int = 1) -> Session:
    """A session on the CPU: `threads` threads inside an operator, one operator at a time, waiting threads asleep.

    Raises: ArtifactError if there is no such file, or it isn't a model that this ONNX Runtime can run.
    """
    return OnnxSession(_session(artifact, threads), artifact.path.name)


def _session(artifact: Artifact, threads: int, *, optimized: Path | None = None, profile: Path | None = None) -> Any:
    ort = require("onnxruntime")
    path = artifact_file(artifact, ".onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; but the file that we ask for ourselves is no news
    if optimized:
        options.optimized_model_filepath = str(optimized)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _failures() as error:
        raise ArtifactError(f"{path} can't be loaded by ONNX Runtime {ort.__version__}: {_first_line(error)} Export or download it again.") from error


def beside(path: Path) -> tuple[Path, ...]:
    """The files in which an ONNX file keeps weights apart; none of what isn't ONNX, which `load` refuses."""
    onnx, decode = require("onnx"), require("google.protobuf.message", pip="onnx").DecodeError
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (decode, OSError):
        return ()
    apart = (t for t in tensors(graph) if t.data_location == onnx.TensorProto.EXTERNAL)
    places = {path.parent / entry.value for t in apart for entry in t.external_data if entry.key == "location"}
    return tuple(sorted(place for place in places if place.is_file()))


def describe(artifact: Artifact) -> dict[str, Any]:
    """The operators of the graph as ONNX Runtime optimizes it for this CPU, and the bytes of the file's own weights.

    int8 counts operators that compute in 8-bit integers, float those that multiply in floating point (convolutions, matrix
    products, recurrent layers and attention; MatMulNBits too, whose weights alone are small).
    """
    onnx = require("onnx")
    operators = Counter(_operators(_optimized(artifact)))
    integer = sum(n for op, n in operators.items() if op in INT8 or op.startswith("QLinear"))
    size = sum(tensor_bytes(t) for t in tensors(onnx.load(artifact_file(artifact, ".onnx"), load_external_data=False).graph))
    return {"int8": integer, "float": sum(n for op, n in operators.items() if op in FLOAT), "operators": dict(sorted(operators.items())), "initializer_bytes": size}


def _optimized(artifact: Artifact) -> GraphProto:
    """The graph as ONNX Runtime optimizes it for this CPU."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        _session(artifact, 1, optimized=optimized)
        return require("onnx").load(optimized, load_external_data=False).graph


def time_operators(artifact: Artifact, feed: Feed, threads: int, blocks: int, runs: int) -> list[OperatorTime]:
    """What each operator took, by ONNX Runtime's own profiler: `blocks` of `runs` inferences after a few that aren't counted.

    The profiler counts whole microseconds, rounded down. Raises: ArtifactError as `load`.
    """
    with tempfile.TemporaryDirectory() as folder:
        inner = _session(artifact, threads, profile=Path(folder) / "profile")
        session = OnnxSession(inner, artifact.path.name)
        for _ in range(WARM_UP + blocks * runs):
            session(feed)
        events = json.loads(Path(inner.end_profiling()).read_text(encoding="utf-8"))
    return operator_times(events, skip=WARM_UP, blocks=blocks, runs=runs)


def modules(artifact: Artifact, known: Sources, operators: Sequence[OperatorTime]) -> list[str | None]:
    """For each operator that ran, the path of the module that it came from; None for what ONNX Runtime put in."""
    return modules_of(operators, _optimized(artifact), known, multiplies=INT8 | FLOAT | {"QLinearConv", "QLinearMatMul"})


def flow(artifact: Artifact, feed: Feed, threads: int = 1) -> Flow:
    """What passes through the optimized graph in one inference, and what the runtime's arena holds then. Raises: ArtifactError as `load`."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        inner = _session(artifact, threads, optimized=optimized, profile=Path(folder) / "profile")
        session = OnnxSession(inner, artifact.path.name)
        for _ in range(WARM_UP):
            session(feed)
        events = json.loads(Path(inner.end_profiling()).read_text(encoding="utf-8"))
        graph = require("onnx").load(optimized, load_external_data=False).graph
    fed = {name: (value.shape, value.nbytes) for name, value in bind(feed, session.inputs).items()}
    weights = {t.name: tensor_bytes(t) for one in graphs(graph) for t in one.initializer}  # a constant has no name to be read by
    return flow_of(graph, events, fed, weights=weights, integer=lambda op: op in INT8 or op.startswith("QLinear"), multiplies=FLOAT)


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph, and those inside it (of If, Loop and Scan)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from graphs(inner)


def tensors(graph: GraphProto) -> Iterator[Any]:
    """Every tensor that a graph holds: initializers and constants, those of its inner graphs too."""
    for one in graphs(graph):
        yield from one.initializer
        yield from (attribute.t for node in one.node for attribute in node.attribute if attribute.HasField("t"))


def _operators(graph: GraphProto) -> list[str]:
    return [node.op_type for one in graphs(graph) for node in one.node]


def tensor_bytes(tensor: Any) -> int:
    """What the numbers of an ONNX tensor take in a file."""
    from onnx.helper import tensor_dtype_to_np_dtype

    bits = 4 if tensor.data_type in (21, 22) else 8 * tensor_dtype_to_np_dtype(tensor.data_type).itemsize  # 21, 22: UINT4, INT4, two in a byte
    return (int(np.prod(tensor.dims, dtype=np.int64)) * bits + 7) // 8


def export(example: Example, folder: Path) -> Artifact:
    """`model.onnx` in `folder`: opset 20, free batch, inputs and outputs named, int8 weights as int8.

    Raises: ArtifactError if the module can't be traced, has an operator without a translation, an output with an input's name,
        or is over 1.5 GB.
    """
    return _written(_stripped(_translated(example), example), folder)


def export_with_sources(example: Example, folder: Path) -> tuple[Artifact, Sources]:
    """The same bytes as `export` writes, and from which module each node came, which the file doesn't say."""
    model = _translated(example)
    known = sources(model.graph, {t.name: tensor_bytes(t) for t in model.graph.initializer}, multiplies=FLOAT)
    return _written(_stripped(model, example), folder), known


def _translated(example: Example) -> ModelProto:
    """What torch's exporter makes of an example, with all its notes."""
    twice = [name for name in example.outputs if name in example.inputs]
    if twice:
        raise ArtifactError(f"output '{twice[0]}' has the name of an input, which ONNX doesn't allow. Give it another name in Task(outputs=…).")
    import torch
    import torch.ao.quantization.fx._decomposed  # declares the operators of the quantized face before the exporter lists what it can translate

    from limbeck.mechanics.quantizers import deployed

    require("onnxscript")
    program = traced(example, with_model(example.module, deployed(example.module.model, activations="u8")))
    try:
        with quiet(), torch.no_grad():
            made = torch.onnx.export(program, dynamo=True, opset_version=OPSET, input_names=list(example.inputs), output_names=list(example.outputs), verbose=False)
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        raise ArtifactError(f"{type(example.module.model).__name__} can't be written as ONNX: {_first_line(cause)} Replace that operator by ones that ONNX has.") from error
    if made is None:
        raise ArtifactError(f"{type(example.module.model).__name__} can't be written as ONNX: the exporter gave nothing back. Try another version of torch.")
    return made.model_proto


def _written(model: ModelProto, folder: Path) -> Artifact:
    onnx = require("onnx")
    size = model.ByteSize()
    if size > MAX_BYTES:
        raise ArtifactError(f"model.onnx must be below {MAX_BYTES} bytes, got {size}. Make the model smaller first.")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ArtifactError(f"the exporter wrote ONNX that breaks the standard: {_first_line(error)} Try another version of onnxscript.") from error
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Artifact(path, "onnxruntime")


def _stripped(model: ModelProto, example: Example) -> ModelProto:
    """In place: what computes is left, and the names of the free axes."""
    graph = model.graph
    model.producer_name, model.producer_version, model.domain, model.doc_string = "limbeck", "", "", ""
    model.ir_version, graph.name = IR_VERSION, "model"
    del model.metadata_props[:]
    for function in model.functions:
        _strip(function.node)
        function.doc_string = ""
        del function.metadata_props[:]
        del function.value_info[:]
    _strip_graph(graph)
    names = _axis_names(graph, list(example.inputs))
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\b[a-z]+\d+\b", lambda m: names.get(m.group(), m.group()), dim.dim_param)
    return model


def _strip_graph(graph: GraphProto) -> None:
    graph.doc_string = ""
    for props in (graph.metadata_props, graph.value_info):
        del props[:]
    used = set(_names_used(graph))
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for item in (*graph.initializer, *graph.input, *graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    _strip(graph.node)


def _strip(nodes: Any) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            attribute.doc_string = ""
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                _strip_graph(inner)


def _names_used(graph: GraphProto) -> list[str]:
    """All that the nodes of a graph read, those of its inner graphs too, and what it gives."""
    names = [value.name for value in graph.output]
    for node in graph.node:
        names += node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names += _names_used(inner)
    return names


def _axis_names(graph: GraphProto, inputs: list[str]) -> dict[str, str]:
    """torch's symbol of a free axis → `batch`, or the input and axis where it first stands."""
    values = {value.name: value for value in graph.input}
    names: dict[str, str] = {}
    for name in inputs:
        for axis, dim in enumerate(values[name].type.tensor_type.shape.dim if name in values else ()):
            if dim.dim_param:
                names.setdefault(dim.dim_param, "batch" if axis == 0 else f"{name}_{axis}")
    return names


def empty(folder: Path) -> Artifact:
    """A model of one Identity."""
    onnx = require("onnx")
    value = {side: onnx.helper.make_tensor_value_info(side, onnx.TensorProto.FLOAT, ["batch"]) for side in ("x", "y")}
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "model", [value["x"]], [value["y"]])
    return _written(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION), folder)


def available() -> str | None:
    return installed("onnxruntime") or installed("onnxruntime-gpu")


ONNXRUNTIME = Runtime(
    name="onnxruntime",
    summary="ONNX Runtime on the CPU, from one ONNX file",
    round_to=16,  # its blocked convolutions compute channels in groups of 16: 17 cost what 32 do
    suffix=".onnx",
    available=available,
    export=export,
    load=load,
    describe=describe,
    empty=empty,
    operators=Operators(export=export_with_sources, time=time_operators, modules=modules),
    start=lambda: require("onnxruntime"),
    flow=flow,
    beside=beside,
)
