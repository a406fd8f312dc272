"""Where a module and its artifact part: an untouched file nowhere, a damaged one in the layer that was damaged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "studies"))
from quarters import constant, input_of, made, with_file

from limbeck.core.errors import ArtifactError
from limbeck.evaluation.divergence import Divergence, divergence
from limbeck.evaluation.studies import Setting, Side
from limbeck.mechanics.data import batch_of, feed
from limbeck.runtimes.onnxruntime import load

LAYERS = ["features.0", "features.3", "features.6", "head"]


def compared(setting: Setting, side: Side | None = None, count: int = 8) -> Divergence:
    side = side or setting.candidate
    assert setting.task and side.module
    batch = batch_of(setting.task, "test", range(count))
    return divergence(setting.task, side.module(), side.artifact, batch, answers=load(side.artifact)(feed(setting.task, batch)))


@pytest.mark.parametrize("kind", ["images", "words"])
def test_an_untouched_int8_file_names_none(kind: str):
    """Oracle 21: unoptimized it is its simulation, optimized each layer is at most one unit off."""
    found = compared(made(kind))
    assert found.first is None and found.unmatched == 0 and found.same_kernels
    assert max(r.exported for r in found.rows) == 0 and max(r.deployed for r in found.rows) <= 1.001
    assert {r.unit for r in found.rows} == {"steps"} and all(r.tolerance == 1 for r in found.rows)


@pytest.mark.parametrize("kind", ["images", "words"])
def test_an_untouched_float_file_names_none(kind: str):
    """Batch norms were folded by the exporter, biases of matrix products are nodes of their own."""
    setting = made(kind)
    found = compared(setting, setting.baseline)
    assert found.first is None and found.unmatched == 0 and {r.unit for r in found.rows} == {"relative"}
    if kind == "images":
        assert [r.module for r in found.rows] == LAYERS
    else:
        assert [r.module for r in found.rows][:4] == [f"layers.0.attention.{name}" for name in ("query", "key", "value", "output")]


def weight(model: onnx.ModelProto, layer: str) -> None:
    def flip(values: np.ndarray) -> np.ndarray:
        values.flat[np.abs(values.astype(int)).argmax()] *= -1
        return values

    constant(model, f"model.{layer}.weight_quantizer.integers", flip)


@pytest.mark.parametrize("layer", LAYERS)
def test_one_weight_that_was_changed_names_its_layer(layer: str, tmp_path: Path):
    found = compared(with_file(made(), tmp_path / "bad.onnx", lambda m: weight(m, layer)))
    assert found.first and found.first.module == layer and found.first.stage == "file"
    assert [r.module for r in found.rows if r.stage] == [layer]  # errors travel, but no later layer is charged with them
    if layer != "head":
        assert any(r.travelled > 1.5 for r in found.rows[found.rows.index(found.first) + 1 :])


def test_a_wrong_scale_of_one_channels_weights_names_its_layer(tmp_path: Path):
    def change(model: onnx.ModelProto) -> None:
        scale = input_of(model, "node_dequantize_per_channel_2", 1)
        constant(model, scale, lambda values: np.where(np.arange(len(values)) == 3, values * 2, values))

    found = compared(with_file(made(), tmp_path / "bad.onnx", change))
    assert [r.module for r in found.rows if r.stage] == ["features.6"]


def test_a_wrong_scale_of_an_activation_is_named_although_it_is_off_by_less_than_a_step(tmp_path: Path):
    found = compared(with_file(made(), tmp_path / "bad.onnx", lambda m: constant(m, input_of(m, "node_quantize_per_tensor_2", 1), lambda v: v * np.float32(1.01))))
    assert found.first and found.first.module == "features.3" and "scale" in found.first.grid and found.first.exported <= 1.1
    assert [r.module for r in found.rows if r.stage] == ["features.3"]


def test_a_wrong_zero_point_of_the_readers_alone_is_named(tmp_path: Path):
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(3, np.uint8), "wrong"))
        next(n for n in model.graph.node if n.name == "node_dequantize_per_tensor_1").input[2] = "wrong"

    found = compared(with_file(made(), tmp_path / "bad.onnx", change))
    assert found.first and found.first.tensor == "quantize_per_tensor_1" and "zero point 3" in found.first.grid


def test_a_float_weight_that_was_changed_names_its_layer(tmp_path: Path):
    setting = made()
    path, before = tmp_path / "bad.onnx", setting.baseline
    assert before
    bad = with_file(setting, path, lambda m: None)
    model = onnx.load(before.artifact.path)
    constant(model, "model.features.3.weight", lambda v: np.where(np.arange(v.size).reshape(v.shape) == 100, v + 0.5, v))
    onnx.save(model, path)
    found = compared(setting, Side(artifact=bad.candidate.artifact, module=before.module))
    assert [r.module for r in found.rows if r.stage] == ["features.3"] and found.first and found.first.unit == "relative"


def test_a_file_of_another_network_is_refused():
    images, words = made(), made("words")
    with pytest.raises(ArtifactError):
        compared(images, Side(artifact=words.candidate.artifact, module=images.candidate.module))
    with pytest.raises(ArtifactError, match="no tensor inside"):
        compared(images, Side(artifact=images.candidate.artifact, module=lambda: nn.Sequential(nn.Flatten(), nn.ReLU())))


def test_a_model_that_was_looked_at_is_as_before():
    setting = made()
    assert setting.task and setting.candidate.module
    model, batch = setting.candidate.module(), batch_of(setting.task, "test", range(4))
    count = lambda: sum(len(m._forward_hooks) for m in model.modules())  # noqa: E731
    hooks, before = count(), model(batch[0])
    divergence(setting.task, model, setting.candidate.artifact, batch, answers={})
    assert hooks == count() and torch.equal(before, model(batch[0]))
