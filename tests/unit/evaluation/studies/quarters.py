"""The small task's teacher and its int8 candidate, exported once in a process; and files that were damaged in one place."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from limbeck.core.candidate import Artifact, TorchForm
from limbeck.core.contract import Target
from limbeck.core.task import Task
from limbeck.evaluation.quality import rows_of
from limbeck.evaluation.studies import Setting, Side
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of, example, feed
from limbeck.runtimes.onnxruntime import describe, export, load
from limbeck.techniques.quantize.static_int8 import Quantize, quantize
from limbeck.testing import context, small_task, small_text_task

SPLIT = "test"


@functools.cache
def made(kind: str = "images", **config: Any) -> Setting:
    """An int8 candidate beside its FP32 baseline; `config` is of `quantize`. The files live as long as the process."""
    task, before = baseline(kind)
    path = folder()
    after = quantize(teacher_candidate(task), Quantize(samples=64, **config), context(task, path)).candidate
    candidate = side(task, after.torch_form, export(example(task, rebuild(after.torch_form, task)), path))
    return Setting(candidate=candidate, baseline=before, task=task, split=SPLIT, target=Target(), feed=feed(task, batch_of(task, SPLIT, [0])), seconds=0.2)


@functools.cache
def baseline(kind: str) -> tuple[Task, Side]:
    task = small_task() if kind == "images" else small_text_task()
    form = teacher_candidate(task).torch_form
    return task, side(task, form, export(example(task, rebuild(form, task)), folder()))


def folder() -> Path:
    FOLDERS.append(tempfile.TemporaryDirectory())
    return Path(FOLDERS[-1].name)


FOLDERS: list[tempfile.TemporaryDirectory] = []


def side(task: Task, form: TorchForm, artifact: Artifact) -> Side:
    return Side(artifact=artifact, module=functools.partial(rebuild, form, task), rows=rows_of(load(artifact), task, SPLIT), kernels=describe(artifact))


def with_file(setting: Setting, path: Path, change: Callable[[onnx.ModelProto], None]) -> Setting:
    """The setting with a candidate whose file was changed; its module and its rows' order stay."""
    model = onnx.load(setting.candidate.artifact.path)
    change(model)
    onnx.save(model, path)
    artifact = Artifact(path, "onnxruntime")
    rows = rows_of(load(artifact), setting.task, SPLIT) if setting.task else None
    return replace(setting, candidate=replace(setting.candidate, artifact=artifact, rows=rows))


def constant(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change an initializer in place."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(change(onnx.numpy_helper.to_array(tensor).copy())), name))


def of_fixed_batch(setting: Setting, path: Path, size: int) -> Setting:
    """The setting with a candidate that takes so many samples at once and no other number."""
    model = onnx.load(setting.candidate.artifact.path)
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = size
    onnx.save(model, path)
    fed = feed(setting.task, batch_of(setting.task, SPLIT, range(size))) if setting.task else {}
    return replace(setting, candidate=replace(setting.candidate, artifact=Artifact(path, "onnxruntime")), feed=fed, target=Target(batch=size))


def without_pair(model: onnx.ModelProto, quantized: str) -> None:
    """Take out a quantize and dequantize pair, so that what reads it stays float."""
    graph = model.graph
    first = next(n for n in graph.node if n.output[0] == quantized)
    second = next(n for n in graph.node if n.input[0] == quantized)
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == second.output[0]:
                node.input[place] = first.input[0]
    kept = [n for n in graph.node if n.name not in (first.name, second.name)]
    del graph.node[:]
    graph.node.extend(kept)


def input_of(model: onnx.ModelProto, node: str, place: int) -> str:
    return next(n for n in model.graph.node if n.name == node).input[place]
