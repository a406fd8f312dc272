"""What runs in int8 and what stays float in silence, by the runtime's own profile."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))
from quarters import made, with_file, without_pair

from foreign_onnx import voice
from limbeck.core.candidate import Artifact
from limbeck.evaluation.graph.inside import weight_bytes
from limbeck.evaluation.studies import MISSING, taken
from limbeck.evaluation.studies.kernels import CONVERT, FLOATING, INTEGER, KERNELS, OTHER, PACK, kind


def kernels(setting) -> dict:
    return taken(setting, (KERNELS,))["kernels"]


def spent(found: dict, which: str) -> dict:
    return next(k for k in found["kinds"] if k["kind"] == which)


def test_an_int8_candidate_computes_in_int8():
    found = kernels(made())
    assert spent(found, INTEGER)["kernels"] == 4 and spent(found, FLOATING)["kernels"] == 0
    assert not found["warning"] and found["silently_float"] == [] and found["int8_share"] == 1 and found["quantized"]
    assert sum(k["share"] for k in found["kinds"]) == pytest.approx(1) and sum(k["ms"] for k in found["kinds"]) == pytest.approx(found["total_ms"])
    assert {k["module"] for k in found["kernels"] if k["kind"] == INTEGER} == {"features.0", "features.3", "features.6", "head"}


def test_bytes_are_those_of_the_weights():
    """144 + 4,608 + 9,216 + 128 weights of a byte each, and zero points of 16, 32 and 4 channels; in the baseline 4 bytes each, and biases."""
    weights, count = kernels(made())["weights"], 144 + 4608 + 9216 + 128
    assert weights["integer_bytes"] == count + 16 + 32 + 4 and weights["bytes"] > weights["integer_bytes"]
    assert weights["baseline_bytes"] >= 4 * (count + 16 + 32 + 32 + 4) and weights["saved_bytes"] == weights["baseline_bytes"] - weights["bytes"]
    assert 0.7 < weights["saved_share"] < 0.75


def test_weights_inside_the_branches_of_an_if_count(tmp_path: Path):
    """40 and 20 taps of 4 filters, and what the branches' operators are given: axes, shapes and rates of 8 bytes a number."""
    whole, integers = weight_bytes(Artifact(voice(tmp_path), "onnxruntime"))
    assert whole == 4 * 4 * (40 + 20) + 8 * (2 * 2 + 2 + 1) and integers == 0


def test_a_layer_whose_output_is_not_quantized_is_found_out(tmp_path: Path):
    """The convolutions on both sides of the missing pair stay float, though the file holds their weights as integers."""
    found = kernels(with_file(made(), tmp_path / "silent.onnx", lambda m: without_pair(m, "quantize_per_tensor_2")))
    assert {k["module"] for k in found["silently_float"]} == {"features.3", "features.6"} and found["warning"]
    assert found["silently_float_share"] == pytest.approx(sum(k["share"] for k in found["silently_float"])) and "stayed float" in found["finding"]
    assert spent(found, CONVERT)["kernels"] >= 6


def test_a_float_model_says_that_nothing_runs_in_int8():
    setting = made()
    found = kernels(replace(setting, candidate=setting.baseline, baseline=None))
    assert not found["quantized"] and not found["warning"] and "no kernel runs in int8" in found["finding"]
    assert found["weights"]["baseline_bytes"] is None and found["int8_share"] == 0


def test_it_needs_no_task_and_no_module(tmp_path: Path):
    setting = with_file(made(), tmp_path / "own.onnx", lambda m: rename(m))
    found = kernels(replace(setting, task=None, baseline=None, candidate=replace(setting.candidate, module=None, rows=None)))
    assert {k["module"] for k in found["kernels"] if k["kind"] == INTEGER} == {"node_conv2d", "node_conv2d_1", "node_conv2d_2", "node_linear"}  # no names of ours


def rename(model) -> None:
    """As from another tool: weights whose names tell nothing."""
    names = {t.name: f"w{i}" for i, t in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)


def test_a_runtime_without_a_profiler_says_so(tmp_path: Path):
    setting = made()
    found = kernels(replace(setting, candidate=replace(setting.candidate, artifact=Artifact(tmp_path / "m.pt2", "torch"))))
    assert "no profiler" in found[MISSING]


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        *(("QLinearConv", INTEGER), ("QGemm", INTEGER), ("MatMulIntegerToFloat", INTEGER), ("FusedConv", FLOATING)),
        *(("QuantizeLinear", CONVERT), ("ReorderInput", PACK), ("Softmax", OTHER)),
    ],
)
def test_kinds(operator: str, expected: str):
    assert kind(operator) == expected
