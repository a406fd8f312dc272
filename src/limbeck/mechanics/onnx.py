"""An ONNX file as a module: it answers like the network that it was exported from, and can't be trained or changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import TaskError
from limbeck.core.require import require

KINDS: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


class OnnxModel(nn.Module):
    """Runs one ONNX file on the CPU, without gradient. Arguments bind by the file's input names, else in order.

    Gives the tensor if the file has one output, else a dict of them under the file's own names.
    """

    def __init__(self, path: Path, threads: int):
        super().__init__()
        self.path = path
        self._session = _opened(path, threads)
        self.input_names = tuple(i.name for i in self._session.get_inputs())
        self.output_names = tuple(o.name for o in self._session.get_outputs())
        self.input_shapes = {i.name: tuple(i.shape) for i in self._session.get_inputs()}  # text or None where an axis is free
        self._kinds = {i.name: i.type for i in self._session.get_inputs()}
        first = self._session.get_inputs()[0].shape[:1] if self.input_names else []
        self._one_by_one = first == [1]

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor | dict[str, Tensor]:
        feed = {name: self._array(name, value) for name, value in self._bound(args, kwargs).items()}
        answers = self._run(feed)
        outputs = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in zip(self.output_names, answers, strict=True)}
        return outputs if len(outputs) > 1 else outputs[self.output_names[0]]

    def _bound(self, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = (*args, *kwargs.values())
        if len(given) != len(self.input_names):
            raise TaskError(f"{self.path.name} takes {len(self.input_names)} inputs ({', '.join(self.input_names)}), got {len(given)}. Say in Task.inputs what goes where.")
        if kwargs and not args and kwargs.keys() == set(self.input_names):
            return dict(kwargs)
        return dict(zip(self.input_names, given, strict=True))

    def _array(self, name: str, value: Any) -> np.ndarray:
        kind = KINDS.get(self._kinds[name])
        if kind is None or not isinstance(value, Tensor) or value.is_floating_point() != np.issubdtype(kind, np.floating):
            got = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
            raise TaskError(f"{self.path.name}: input '{name}' must be a {self._kinds[name]}, got {got}. Convert it in Task.inputs.")
        return np.ascontiguousarray(value.detach().cpu().numpy().astype(kind, copy=False))

    def _run(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        count = len(next(iter(feed.values())))
        if not self._one_by_one or count == 1:
            return self._once(feed)
        rows = [self._once({name: value[i : i + 1] for name, value in feed.items()}) for i in range(count)]
        return [np.concatenate(column) for column in zip(*rows, strict=True)]

    def _once(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            return self._session.run(self.output_names, feed)
        except failures() as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise TaskError(f"{self.path.name}: ONNX Runtime failed: {reason} Give it what it was exported for: see Task.inputs and the samples' shapes.") from error


def onnx_model(path: str | Path, *, threads: int = 1) -> nn.Module:
    """An ONNX file as a teacher: `Task(models={"teacher": lambda: onnx_model("net.onnx")}, …)`.

    The file itself is the baseline, byte for byte, so the run's target must be ONNX Runtime. It can be distilled into a student;
    techniques that change a network's own weights need a student first. A batch axis fixed at 1 is served sample by sample.

    Args:
        path: The file; all weights must be in it.
        threads: Threads that one inference may use while it teaches.
    Raises: TaskError if there is no such file, ONNX Runtime can't run it, or its weights lie in other files.
    """
    return OnnxModel(Path(path), threads)


def failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file or a feed that isn't right."""
    s = require("onnxruntime.capi.onnxruntime_pybind11_state", pip="onnxruntime")
    return (s.EPFail, s.Fail, s.InvalidArgument, s.InvalidGraph, s.InvalidProtobuf, s.NoModel, s.NoSuchFile, s.NotImplemented, s.RuntimeException)


def _opened(path: Path, threads: int) -> Any:
    if not path.is_file():
        raise TaskError(f"there is no ONNX file {path}. A relative path starts where the program runs; write Path(__file__).parent / '{path.name}' for one beside the task.")
    _refuse_outside_data(path)
    ort = require("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except failures() as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TaskError(f"{path} can't be loaded by ONNX Runtime {ort.__version__}: {reason} Export or download it again.") from error


def _refuse_outside_data(path: Path) -> None:
    onnx = require("onnx")
    decode = require("google.protobuf.message", pip="onnx").DecodeError
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except decode as error:
        raise TaskError(f"{path} is not an ONNX file: {error}. Export or download it again.") from error
    outside = [t.name for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise TaskError(
            f"{path} keeps {len(outside)} weights in other files, as '{outside[0]}'; a teacher is one file. Write it whole: onnx.save(onnx.load('{path.name}'), 'whole.onnx')."
        )
