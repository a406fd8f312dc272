"""A profiler's events and an optimized graph, made up: what is charged to whom."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from limbeck.runtimes.card import Node, OperatorTime, Sources
from limbeck.runtimes.profiling import modules_of, operator_times, sources

PRODUCTS = frozenset({"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul", "QLinearConv"})


def kernel(name: str, operator: str, ts: int, dur: int, tid: int = 1) -> dict:
    arguments = {"op_name": operator, "node_index": "0", "activation_size": "12", "output_size": "8"}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "tid": tid, "args": arguments}


RUN = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 0}


def test_blocks_are_means_and_the_first_inferences_are_left_out():
    events = [{"cat": "Session", "name": "session_initialization"}]
    for number, dur in enumerate((900, 10, 20, 30, 50, 70)):
        events += [kernel("a", "Conv", 1000 * number, dur), kernel("b", "Relu", 1000 * number + dur + 1, 4), RUN]
    a, b = operator_times(events, skip=1, blocks=2, runs=2)
    assert (a.name, a.operator, a.block_ms, a.input_bytes, a.output_bytes) == ("a", "Conv", (0.015, 0.04), 12, 8)  # the sixth belongs to no block
    assert b.block_ms == (0.004, 0.004)


def test_an_operator_that_runs_a_graph_is_charged_what_its_operators_leave():
    events = [kernel("then/mul", "Mul", 20, 30), kernel("then/add", "Add", 60, 10), kernel("if", "If", 10, 100), kernel("after", "Relu", 110, 5), RUN]
    found = {o.name: o.block_ms[0] * 1e3 for o in operator_times(events, skip=0, blocks=1, runs=1)}
    assert found == pytest.approx({"then/mul": 30, "then/add": 10, "if": 60, "after": 5})


def test_neighbours_within_one_microsecond_keep_their_own_time():
    events = [kernel("a", "Conv", 10, 0), kernel("b", "Relu", 10, 0), kernel("c", "Conv", 10, 3), RUN]
    assert [o.block_ms[0] * 1e3 for o in operator_times(events, skip=0, blocks=1, runs=1)] == pytest.approx([0, 0, 3])


KNOWN = Sources(
    (
        Node("node_conv", "Conv", ("x", "w"), ("conv",), "stem"),
        Node("node_relu", "Relu", ("conv",), ("relu",), "act"),
        Node("node_conv_1", "Conv", ("relu", "w1"), ("conv_1",), "body.0"),
        Node("node_add", "Add", ("conv_1", "relu"), ("add",), "body"),
        Node("node_transpose", "Transpose", ("add",), ("turned",), "body.attention"),
        Node("node_quantize", "QuantizeLinear", ("turned", "s"), ("quantized",), "head.in_quantizer"),
        Node("node_linear", "Gemm", ("quantized", "w2"), ("logits",), "head"),
    ),
    {},
    {},
)


@pytest.mark.parametrize(
    ("name", "operator", "outputs", "module"),
    [
        ("node_conv", "Conv", ["conv"], "stem"),
        ("relu_nchwc", "Conv", ["reorder_token_0"], "stem"),  # fused: named after what it gives, charged to its product
        ("fused node_conv", "FusedConv", ["relu"], "stem"),
        ("node_conv_1_token_4", "QLinearConv", ["node_conv_1"], "body.0"),
        ("node_conv_1/ConvActivationFusion/", "FusedConv", ["anything"], "body.0"),
        ("made_up", "Add", ["add"], "body"),
        ("ReorderOutput", "ReorderOutput", ["relu"], None),
        ("Transpose_token_6", "Transpose", ["quantized"], None),  # put in by the runtime: what gave this tensor was no transpose
        ("Transpose_token_7", "Transpose", ["turned"], "body.attention"),
        ("made_up", "Cast", ["nobody"], None),
    ],
)
def test_an_optimized_operator_finds_its_module(name, operator, outputs, module):
    graph = SimpleNamespace(node=[SimpleNamespace(name=name, output=outputs)])
    assert modules_of([OperatorTime(name, operator, (1.0,))], graph, KNOWN, multiplies=PRODUCTS) == [module]


def exported(operator: str, inputs: list[str], scopes: list[str], classes: list[str]) -> SimpleNamespace:
    notes = {"pkg.torch.onnx.name_scopes": repr(scopes), "pkg.torch.onnx.class_hierarchy": repr(classes)}
    return SimpleNamespace(name="n", op_type=operator, input=inputs, output=["y"], metadata_props=[SimpleNamespace(key=k, value=v) for k, v in notes.items()])


def test_notes_of_the_exporter_become_paths_and_bytes():
    graph = SimpleNamespace(
        node=[
            exported("Conv", ["x", "model.a.weight"], ["", "model", "model.a", "conv2d"], ["D", "Net", "torch.nn.Conv2d", "aten.conv2d.default"]),
            exported("Conv", ["y", "model.it's.weight"], ["", "model", "model.norm", "bn"], ["D", "Net", "torch.nn.modules.batchnorm.BatchNorm2d", "aten.native_batch_norm"]),
            exported("Gather", ["model.table", "ids"], ["", "model", "model.a b", "embedding"], ["D", "Net", "E", "aten.embedding.default"]),
            exported("MatMul", ["z", "model.table"], ["", "model", "matmul"], ["D", "Net", "aten.matmul.default"]),
            exported("Relu", ["z"], [], []),
        ]
    )
    found = sources(graph, {"model.a.weight": 36, "model.it's.weight": 72, "model.table": 800}, multiplies=PRODUCTS)
    assert [n.module for n in found.nodes] == ["a", "it's", "a b", "", ""]
    assert found.held_bytes == {"a": 36, "it's": 72, "a b": 800, "": 0}  # tied: once
    assert found.read_bytes == {"a": 36, "it's": 72, "a b": 0, "": 800}  # of a table only rows are read
