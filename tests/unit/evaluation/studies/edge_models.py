"""Small ONNX files that do one thing at an edge, for the studies of edges and of inputs outside."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from limbeck.core.candidate import Artifact
from limbeck.core.contract import Target
from limbeck.evaluation.studies import Setting, Side

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model(path: Path, nodes: list, inputs: dict, *, constants: dict | None = None, output: tuple = ("logits", FLOAT, ("batch", None))) -> Artifact:
    """An ONNX file of these nodes; inputs by name: (type, shape)."""
    held = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    made = helper.make_graph(nodes, "edge", given, [helper.make_tensor_value_info(*output)], held)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return Artifact(path, "onnxruntime")


def linear(path: Path, before: str = "Identity", *, batch: object = "batch", scale: float = 1.0, weights: np.ndarray | None = None) -> Artifact:
    """Logits [batch, 3] of x [batch, 4], with one operator before the product."""
    held = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32) * np.float32(scale) if weights is None else weights
    nodes = {
        "Identity": [helper.make_node("Identity", ["x"], ["y"])],
        "Log": [helper.make_node("Log", ["x"], ["y"])],
        "Clip": [helper.make_node("Clip", ["x", "least", "most"], ["y"])],
        "Centre": [helper.make_node("ReduceMean", ["x", "axis"], ["m"], keepdims=1), helper.make_node("Sub", ["x", "m"], ["y"])],
        "One": [helper.make_node("Reshape", ["x", "shape"], ["y"])],
    }[before]
    known = {"w": held, "least": np.float32(-3), "most": np.float32(3), "axis": np.array([0]), "shape": np.array([8, 4])}
    used = {name for node in nodes for name in node.input} | {"w"}
    constants = {name: np.asarray(value) for name, value in known.items() if name in used}
    return model(path, [*nodes, helper.make_node("MatMul", ["y", "w"], ["logits"])], {"x": (FLOAT, (batch, 4))}, constants=constants, output=("logits", FLOAT, (batch, 3)))


def divider(path: Path) -> Artifact:
    """−2⁶³ / (ids − 1) in whole numbers: an id of 0 asks for 2⁶³, at which the processor ends the process."""
    nodes = [helper.make_node("Sub", ["ids", "one"], ["d"]), helper.make_node("Div", ["least", "d"], ["q"]), helper.make_node("Cast", ["q"], ["logits"], to=FLOAT)]
    return model(path, nodes, {"ids": (INT64, ("batch", "time"))}, constants={"least": np.array([-(2**63)]), "one": np.array([1])})


def positions(path: Path, longest: int = 20, mask: bool = True) -> Artifact:
    """ids [batch, time] with a row for each of `longest` positions, meant over what the mask shows: longer ones are refused, all padding gives NaN."""
    row = helper.make_node("Slice", ["table", "zero", "length", "zero"], ["rows"])
    nodes = [
        *(helper.make_node("Shape", ["input_ids"], ["length"], start=1), row),
        *(helper.make_node("Cast", ["input_ids"], ["numbers"], to=FLOAT), helper.make_node("Add", ["numbers", "rows"], ["places"])),
        *(helper.make_node("Cast", ["attention_mask"], ["weights"], to=FLOAT), helper.make_node("Mul", ["places", "weights"], ["shown"])),
        *(helper.make_node("ReduceSum", ["shown", "one"], ["sum"], keepdims=1), helper.make_node("ReduceSum", ["weights", "one"], ["count"], keepdims=1)),
        *(helper.make_node("Div", ["sum", "count"], ["mean"]), helper.make_node("MatMul", ["mean", "w"], ["logits"])),
    ]
    constants = {"table": np.arange(longest, dtype=np.float32), "zero": np.array([0]), "one": np.array([1]), "w": np.array([[1.0, -1.0]], np.float32)}
    shape = (INT64, ("batch", "time"))
    return model(path, nodes, {"input_ids": shape, "attention_mask": shape}, constants=constants, output=("logits", FLOAT, ("batch", 2)))


def setting_of(candidate: Artifact, baseline: Artifact | None = None, **more: object) -> Setting:
    """A setting of artifacts alone."""
    known = {"task": None, "split": "test", "target": Target(), "feed": {}} | more
    return Setting(candidate=Side(artifact=candidate), baseline=Side(artifact=baseline) if baseline else None, **known)
