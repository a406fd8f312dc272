"""Shapes, bytes, multiply-adds and arena of a real ONNX Runtime session, against counts by hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from limbeck.analysis.flow import Arena, Flow, live_bytes
from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError
from limbeck.runtimes import onnxruntime
from limbeck.runtimes.onnx_flow import flow_of

RNG = np.random.default_rng(0)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def flow(folder: Path, nodes, inputs, outputs, weights, feed) -> Flow:
    graph = helper.make_graph(nodes, "model", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "model.onnx")
    return onnxruntime.flow(Artifact(folder / "model.onnx", "onnxruntime"), feed)


def test_products_are_counted_and_the_widest_place_is_found(tmp_path: Path):
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"], "up"), helper.make_node("Sin", ["h"], ["s"], "bend"), helper.make_node("MatMul", ["s", "b"], ["y"], "down")]
    found = flow(tmp_path, nodes, [value("x", "batch", 64)], [value("y", "batch", 3)], [weight("a", 64, 500), weight("b", 500, 3)], {"x": np.ones((4, 64), np.float32)})
    assert [s.operator for s in found.steps] == ["MatMul", "Sin", "MatMul"]
    assert [s.macs for s in found.steps] == [4 * 64 * 500, 0, 4 * 500 * 3]
    assert [s.weight_bytes for s in found.steps] == [64 * 500 * 4, 0, 500 * 3 * 4]
    assert found.weight_bytes == (64 * 500 + 500 * 3) * 4 and found.inputs == {"x": 4 * 64 * 4}
    assert live_bytes(found) == [(64 + 500) * 16, 1000 * 16, 503 * 16]
    assert found.arena and found.arena.planned_bytes >= max(live_bytes(found)) - 500 * 16  # Sin may write over its input
    assert found.arena.held_bytes >= found.arena.planned_bytes


def test_a_convolution_with_groups(tmp_path: Path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=4, pads=[1, 1, 1, 1])]
    found = flow(tmp_path, nodes, [value("x", "batch", 8, 6, 6)], [value("y", "batch", 12, 6, 6)], [weight("w", 12, 2, 3, 3)], {"x": np.ones((2, 8, 6, 6), np.float32)})
    assert sum(s.macs or 0 for s in found.steps) == 2 * 12 * 36 * 2 * 9


def test_int8_is_told_from_float(tmp_path: Path):
    scale = [numpy_helper.from_array(np.float32(0.1), n) for n in ("s1", "s2", "s3")]
    zero = [numpy_helper.from_array(np.uint8(128), "z1"), numpy_helper.from_array(np.int8(0), "z2"), numpy_helper.from_array(np.uint8(128), "z3")]
    w = numpy_helper.from_array(RNG.integers(-9, 9, (16, 5)).astype(np.int8), "w")
    nodes = [helper.make_node("QLinearMatMul", ["x", "s1", "z1", "w", "s2", "z2", "s3", "z3"], ["y"], "product")]
    inputs, outputs = [value("x", "batch", 16, kind=TensorProto.UINT8)], [value("y", "batch", 5, kind=TensorProto.UINT8)]
    found = flow(tmp_path, nodes, inputs, outputs, [*scale, *zero, w], {"x": np.ones((3, 16), np.uint8)})
    (product,) = [s for s in found.steps if s.macs]
    assert (product.precision, product.macs, product.makes["y"]) == ("int8", 3 * 16 * 5, 15)


def test_a_branch_counts_what_ran_within_it(tmp_path: Path):
    """Both branches read a tensor from outside; only the one that was taken is counted."""

    def branch(name: str, width: int) -> onnx.GraphProto:
        inner = [
            helper.make_node("MatMul", ["h", f"{name}_w"], [f"{name}_h"], f"{name}_up"),
            helper.make_node("ReduceSum", [f"{name}_h", "axis"], [f"{name}_y"], f"{name}_sum", keepdims=1),
        ]
        return helper.make_graph(inner, name, [], [value(f"{name}_y", "batch", 1)], [weight(f"{name}_w", 8, width)])

    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("If", ["which"], ["y"], "choice", then_branch=branch("then", 100), else_branch=branch("other", 300)),
    ]
    inputs = [value("x", "batch", 4), value("which", kind=TensorProto.BOOL)]
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    feed = {"x": np.ones((2, 4), np.float32), "which": np.array(True)}
    found = flow(tmp_path, nodes, inputs, [value("y", "batch", 1)], [weight("a", 4, 8), axis], feed)
    first, choice = found.steps
    assert (first.macs, choice.operator, choice.macs) == (2 * 4 * 8, "If", 2 * 8 * 100)
    assert "h" in choice.reads and choice.inside_bytes == 2 * 100 * 4 + 2 * 4
    assert live_bytes(found)[1] == 1 + 2 * 8 * 4 + 2 * 4 + choice.inside_bytes


def test_a_table_moves_the_rows_that_are_read(tmp_path: Path):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], "look")]
    found = flow(tmp_path, nodes, [value("ids", "batch", kind=TensorProto.INT64)], [value("y", "batch", 16)], [weight("table", 1000, 16)], {"ids": np.array([1, 5], np.int64)})
    assert found.steps[0].weight_bytes == 2 * 16 * 4 and found.weight_bytes == 1000 * 16 * 4


def test_nodes_without_a_name_are_found(tmp_path: Path):
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    found = flow(tmp_path, nodes, [value("x", "batch", 4)], [value("y", "batch", 2)], [weight("a", 4, 6), weight("b", 6, 2)], {"x": np.ones((1, 4), np.float32)})
    assert [s.macs for s in found.steps] == [24, 12]


def test_a_nameless_node_and_one_inside_a_branch_are_not_taken_for_each_other(tmp_path: Path):
    """ONNX Runtime calls both MatMul_0."""
    inner = helper.make_graph([helper.make_node("MatMul", ["h", "b"], ["z"])], "then", [], [value("z", "batch", 2)], [weight("b", 6, 2)])
    other = helper.make_graph([helper.make_node("MatMul", ["h", "c"], ["v"])], "else", [], [value("v", "batch", 2)], [weight("c", 6, 2)])
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("If", ["which"], ["y"], "choice", then_branch=inner, else_branch=other)]
    inputs, feed = [value("x", "batch", 4), value("which", kind=TensorProto.BOOL)], {"x": np.ones((1, 4), np.float32), "which": np.array(True)}
    found = flow(tmp_path, nodes, inputs, [value("y", "batch", 2)], [weight("a", 4, 6)], feed)
    assert [(s.operator, s.macs) for s in found.steps] == [("MatMul", 24), ("If", 12)]


def test_what_a_loop_does_counts_each_time(tmp_path: Path):
    body = helper.make_graph(
        [helper.make_node("MatMul", ["state", "w"], ["next"], "turn"), helper.make_node("Identity", ["go"], ["on"], "on")],
        "body",
        [value("i", kind=TensorProto.INT64), value("go", kind=TensorProto.BOOL), value("state", "batch", 4)],
        [value("on", kind=TensorProto.BOOL), value("next", "batch", 4)],
        [weight("w", 4, 4)],
    )
    times = numpy_helper.from_array(np.array(3, np.int64), "times")
    found = flow(
        tmp_path,
        [helper.make_node("Loop", ["times", "", "x"], ["y"], "loop", body=body)],
        [value("x", "batch", 4)],
        [value("y", "batch", 4)],
        [times],
        {"x": np.ones((2, 4), np.float32)},
    )
    assert [s.macs for s in found.steps if s.operator == "Loop"] == [3 * 2 * 4 * 4]


def test_what_multiplies_in_an_unknown_way_is_not_counted_as_nothing(tmp_path: Path):
    nodes = [helper.make_node("Einsum", ["x", "a"], ["y"], "sum", equation="bij,jk->bki")]
    found = flow(tmp_path, nodes, [value("x", "batch", 3, 4)], [value("y", "batch", 5, 3)], [weight("a", 4, 5)], {"x": np.ones((1, 3, 4), np.float32)})
    assert [s.macs for s in found.steps if s.operator == "Einsum"] == [None]


def test_a_profile_that_lacks_a_node_is_no_flow():
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "one")], "model", [value("x", 1)], [value("y", 1)])
    run = [{"cat": "Node", "name": "other_kernel_time", "args": {"op_name": "Relu"}}, {"name": "model_run"}]
    with pytest.raises(ArtifactError, match="'one'"):
        flow_of(graph, run, {"x": ((1,), 4)}, weights={}, integer=lambda op: False, multiplies=frozenset())


def test_the_arena_is_told_of_the_last_inference_above_what_it_held_before():
    """Weights lie at 1,000 in it; the first inference isn't planned yet, the last one is, as one block of 700."""
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["h"], "one"), helper.make_node("Relu", ["h"], ["y"], "two")], "model", [value("x", 1)], [value("y", 1)])

    def run(*used: tuple[int, int]) -> list[dict]:
        counters = [{"mem_bytes_in_use": str(u), "mem_in_use_delta": str(d), "mem_arena_held": "4096"} for u, d in used]
        names = zip(("one", "two"), counters, strict=True)
        nodes = [{"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": "Relu", "output_size": "4"} | told} for name, told in names]
        return [*nodes, {"name": "model_run"}]

    profile = [*run((1400, 400), (9999, 8599)), *run((1700, 0), (1700, 0))]
    found = flow_of(graph, profile, {"x": ((1,), 4)}, weights={}, integer=lambda op: False, multiplies=frozenset())
    assert found.arena == Arena(rest_bytes=1000, planned_bytes=700, held_bytes=4096)


def test_a_runtime_that_does_not_tell_of_its_arena():
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "one")], "model", [value("x", 1)], [value("y", 1)])
    run = [{"cat": "Node", "name": "one_kernel_time", "args": {"op_name": "Relu", "output_size": "4"}}, {"name": "model_run"}]
    assert flow_of(graph, run, {"x": ((1,), 4)}, weights={}, integer=lambda op: False, multiplies=frozenset()).arena is None
