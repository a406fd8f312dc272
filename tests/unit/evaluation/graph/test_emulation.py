"""A file run node by node: the same bits as the runtime gives, whatever its nodes are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from quarters import made

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError
from limbeck.evaluation.graph.emulation import emulator
from limbeck.mechanics.data import batch_of, feed
from limbeck.runtimes.onnxruntime import load


@pytest.mark.parametrize("kind", ["images", pytest.param("words", marks=pytest.mark.slow)])
def test_without_saturation_it_answers_bit_for_bit(kind: str):
    """With weights of 7 bits the runtime's answer is the same on every CPU."""
    setting = made(kind, reduce_range=True)
    assert setting.task
    given = feed(setting.task, batch_of(setting.task, "test", range(5)))
    emulated = emulator(setting.candidate.artifact)
    expected = load(setting.candidate.artifact)(given)
    for mode in ("exact", "neighbours", "sorted", "seven"):
        assert all(np.array_equal(value, expected[name]) for name, value in emulated(given, mode).items())
    assert emulated.left == () and len(emulated.products) == (4 if kind == "images" else 25)


def test_products_are_named_by_their_modules():
    assert sorted(emulator(made().candidate.artifact).modules.values()) == ["features.0", "features.3", "features.6", "head"]


def test_a_float_file_has_no_products_and_runs_too():
    setting = made()
    assert setting.task and setting.baseline
    given, emulated = feed(setting.task, batch_of(setting.task, "test", range(3))), emulator(setting.baseline.artifact)
    assert not emulated.products and not emulated.left
    assert np.allclose(emulated(given)["logits"], load(setting.baseline.artifact)(given)["logits"], rtol=1e-5, atol=1e-5)


def test_graphs_inside_nodes_read_what_is_outside(tmp_path: Path):
    """Both branches of an If read a tensor and a constant of the outer graph."""
    value = lambda name, kind, shape: helper.make_tensor_value_info(name, kind, shape)  # noqa: E731
    branch = lambda op: helper.make_graph([helper.make_node(op, ["twice", "c"], ["r"])], op, [], [value("r", 1, None)])  # noqa: E731
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branch("Mul"), else_branch=branch("Sub")),
    ]
    constants = [onnx.numpy_helper.from_array(np.float32([3]), "c"), onnx.numpy_helper.from_array(np.float32(0), "zero")]
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["n"])], [value("y", 1, None)], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "if.onnx")
    artifact = Artifact(tmp_path / "if.onnx", "onnxruntime")
    for x in (np.float32([1, 2]), np.float32([-1, -2])):
        assert np.array_equal(emulator(artifact)({"x": x})["y"], load(artifact)({"x": x})["y"])


def test_no_file_is_refused(tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="can't be read as ONNX"):
        emulator(Artifact(tmp_path / "broken.onnx", "onnxruntime"))
