"""ONNX files as third parties write them, made here: nested `If`, weights in inner graphs, integer and scalar inputs, states, odd outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LENGTH = 40  # of the sound that its convolution needs


def value(name: str, dtype: int, shape: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(name: str, data) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(data), name)


def saved(folder: Path, name: str, nodes: list, inputs: list, outputs: list, weights: list = ()) -> Path:
    model = helper.make_model(helper.make_graph(nodes, "graph", inputs, outputs, list(weights)), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    path = folder / name
    onnx.save(model, path)
    return path


def _branch(name: str, kernel: int, scale: float) -> onnx.GraphProto:
    """A convolution over the sound, its weights inside, and the mean over it."""
    weight = constant(f"{name}_w", np.full((4, 1, kernel), scale, np.float32))
    nodes = [
        helper.make_node("Unsqueeze", ["x", f"{name}_axis"], [f"{name}_x"]),
        helper.make_node("Conv", [f"{name}_x", f"{name}_w"], [f"{name}_c"]),
        helper.make_node("ReduceMean", [f"{name}_c", f"{name}_last"], [f"{name}_y"], keepdims=0),
    ]
    held = [weight, constant(f"{name}_axis", np.array([1])), constant(f"{name}_last", np.array([2]))]
    return helper.make_graph(nodes, name, [], [value(f"{name}_y", TensorProto.FLOAT, [None, 4])], held)


def _never() -> onnx.GraphProto:
    """What no sample rate but the known ones gets: a reshape that can't be."""
    node = helper.make_node("Reshape", ["x", "wrong"], ["never_y"])
    return helper.make_graph([node], "never", [], [value("never_y", TensorProto.FLOAT, [None, 4])], [constant("wrong", np.array([999_983, 4]))])


def voice(folder: Path, name: str = "voice.onnx", *, outputs: tuple[str, str] = ("output", "stateN"), order: tuple[str, ...] = ("x", "state", "sr"), scale: float = 0.01) -> Path:
    """A sound, a state and a sample rate (rank 0) → four numbers and the next state; 16 kHz in one branch, 8 kHz in the `If` of the other."""
    inner = helper.make_node("If", ["slow"], ["inner_y"], then_branch=_branch("half", LENGTH // 2, scale), else_branch=_never())
    slow = helper.make_node("Equal", ["sr", "eight"], ["slow"])
    otherwise = helper.make_graph([slow, inner], "otherwise", [], [value("inner_y", TensorProto.FLOAT, [None, 4])], [constant("eight", np.array(8000))])
    nodes = [
        helper.make_node("Equal", ["sr", "sixteen"], ["fast"]),
        helper.make_node("If", ["fast"], ["branch_y"], then_branch=_branch("whole", LENGTH, scale), else_branch=otherwise),
        helper.make_node("ReduceMean", ["state", "first"], ["kept"], keepdims=0),
        helper.make_node("Add", ["branch_y", "kept"], [outputs[0]]),
        helper.make_node("Tanh", ["state"], [outputs[1]]),
    ]
    known = {"x": value("x", TensorProto.FLOAT, ["batch", "time"]), "state": value("state", TensorProto.FLOAT, [2, None, 4]), "sr": value("sr", TensorProto.INT64, [])}
    given = [value(outputs[0], TensorProto.FLOAT, [None, 4]), value(outputs[1], TensorProto.FLOAT, [2, None, 4])]
    return saved(folder, name, nodes, [known[n] for n in order], given, [constant("sixteen", np.array(16000)), constant("first", np.array([0]))])


def bytes_model(folder: Path, name: str = "bytes.onnx", *, classes: int = 5, length: int | None = 32) -> Path:
    """Whole numbers, as a table's rows, to logits."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "bytes"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axis"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    made = {"table": rng.standard_normal((256, 8)), "head": rng.standard_normal((8, classes))}
    weights = [*(constant(n, w.astype(np.float32)) for n, w in made.items()), constant("axis", np.array([1]))]
    return saved(folder, name, nodes, [value("bytes", TensorProto.INT32, ["n", length])], [value("logits", TensorProto.FLOAT, ["n", classes])], weights)


def linear(
    folder: Path, name: str = "linear.onnx", *, features: int | None = 64, classes: int = 4, seed: int = 0, order: list[int] | None = None, nan: str = "", x: str = "x"
) -> Path:
    """features → classes, random weights. `order` permutes its classes. `nan`: `always`, or `large` where an input's first number is above 1."""
    weight = np.random.default_rng(seed).standard_normal((features or 64, classes)).astype(np.float32)
    nodes = [helper.make_node("MatMul", [x, "w"], ["plain"])]
    weights = [constant("w", weight[:, order] if order else weight)]
    if nan:
        weights += [constant("limit", np.array(1.0 if nan == "large" else -1e30, np.float32)), constant("bad", np.array(np.nan, np.float32)), constant("first", np.array([0]))]
        nodes += [
            helper.make_node("Gather", [x, "first"], ["head"], axis=1),
            helper.make_node("Greater", ["head", "limit"], ["over"]),
            helper.make_node("Where", ["over", "bad", "plain"], ["y"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["plain"], ["y"]))
    return saved(folder, name, nodes, [value(x, TensorProto.FLOAT, ["batch", features])], [value("y", TensorProto.FLOAT, ["batch", classes])], weights)


def text_in(folder: Path, name: str = "text.onnx") -> Path:
    """Text in, text out."""
    return saved(folder, name, [helper.make_node("Identity", ["words"], ["same"])], [value("words", TensorProto.STRING, ["n"])], [value("same", TensorProto.STRING, ["n"])])


def picky(folder: Path, name: str = "picky.onnx") -> Path:
    """Runs only where its free axis is 97 long."""
    node = helper.make_node("Reshape", ["signal", "shape"], ["y"])
    return saved(folder, name, [node], [value("signal", TensorProto.FLOAT, [1, "time"])], [value("y", TensorProto.FLOAT, [97])], [constant("shape", np.array([97]))])
