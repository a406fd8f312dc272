"""Two small ONNX files and settings over them, for the studies of a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from limbeck.core.candidate import Artifact
from limbeck.core.contract import Target
from limbeck.evaluation.studies import Setting, Side


def net(folder: Path, hidden: int, *, batch: int | str = "batch") -> Artifact:
    """64 → hidden → 1, float32."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), n) for n, shape in {"a": (64, hidden), "b": (hidden, 1)}.items()]
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"], "up"), helper.make_node("MatMul", ["h", "b"], ["y"], "down")]
    value = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, size]) for n, size in {"x": 64, "y": 1}.items()}
    graph = helper.make_graph(nodes, "model", [value["x"]], [value["y"]], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "model.onnx")
    return Artifact(folder / "model.onnx", "onnxruntime")


def setting(folder: Path, *, baseline: bool = True, batch: int = 1, **options: Any) -> Setting:
    return Setting(
        candidate=Side(artifact=net(folder / "candidate", 200)),
        baseline=Side(artifact=net(folder / "baseline", 2000)) if baseline else None,
        task=None,
        split="test",
        target=Target(batch=batch),
        feed={"x": np.ones((batch, 64), np.float32)},
        **options,
    )


def broken(folder: Path) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"no model")
    return Artifact(folder / "model.onnx", "onnxruntime")
