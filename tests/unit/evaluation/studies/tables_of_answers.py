"""Artifacts that answer what a table says: input is a sample's number, output its row. So a test knows every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from limbeck.core.candidate import Artifact
from limbeck.core.contract import Target
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.evaluation import quality
from limbeck.evaluation.studies import Setting, Side
from limbeck.intake.metrics import accuracy
from limbeck.runtimes import runtime


class Samples:
    """Dicts of a number, a label and what else is known."""

    def __init__(self, columns: Mapping[str, Sequence[Any] | np.ndarray], classes: Sequence[str] = ()):
        self.columns, self.classes = columns, list(classes)

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {k: v[i] if isinstance(v[i], str) else torch.as_tensor(v[i]) for k, v in self.columns.items()}


def table(folder: Path, rows: np.ndarray, *, name: str = "logits", batch: int | str = "batch") -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    given = helper.make_tensor_value_info("index", TensorProto.INT64, [batch])
    answer = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *rows.shape[1:]])
    node = helper.make_node("Gather", ["table", "index"], [name], axis=0)
    graph = helper.make_graph([node], "model", [given], [answer], [numpy_helper.from_array(rows.astype(np.float32), "table")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "model.onnx")
    return Artifact(folder / "model.onnx", "onnxruntime")


def setting(
    folder: Path,
    baseline: np.ndarray,
    candidate: np.ndarray,
    columns: Mapping[str, Any],
    *,
    metric: Metric | None = None,
    classes: Sequence[str] = (),
    task: Mapping[str, Any] | None = None,
    batch: int | str = "batch",
    **options: Any,
) -> Setting:
    """Two tables side by side; `columns` has at least labels. `task`: more of its fields."""
    data = Samples({"index": np.arange(len(baseline)), **columns}, classes)
    made = Task(name="table", metric=metric or accuracy(), splits={"test": data}, inputs=lambda b: ((b["index"],), {}), **(task or {}))
    sides = [side(folder / name, rows, made, batch=batch) for name, rows in (("baseline", baseline), ("candidate", candidate))]
    return Setting(baseline=sides[0], candidate=sides[1], task=made, split="test", target=Target(), feed={"0": np.zeros(1, np.int64)}, **options)


def side(folder: Path, rows: np.ndarray, task: Task, *, batch: int | str = "batch") -> Side:
    artifact = table(folder, rows, batch=batch)
    size = batch if isinstance(batch, int) else 64
    return Side(artifact=artifact, rows=quality.rows_of(runtime("onnxruntime").load(artifact, 1), task, "test", batch_size=size))


def logits(answer: np.ndarray, classes: int, sure: np.ndarray | float = 0.9) -> np.ndarray:
    """Rows whose softmax gives the answered class this probability, and the others equal parts of the rest."""
    probability = np.repeat(((1 - np.broadcast_to(sure, answer.shape)) / (classes - 1))[:, None], classes, axis=1)
    probability[np.arange(len(answer)), answer] = sure
    return np.log(probability)
