import hashlib
import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import limbeck.runtimes as runtimes
from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, ConfigError
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.mechanics.data import batch_of, example, feed, predict
from limbeck.runtimes.card import FREE_AXIS, InputSpec, bind, random_feed
from limbeck.runtimes.onnxruntime import IR_VERSION, ONNXRUNTIME, OPSET

SPECS = (InputSpec("a", "float32", (None, 3)), InputSpec("b", "int32", (None,)))


def magika() -> Path:
    spec = importlib.util.find_spec("magika")
    if spec is None:
        pytest.skip("magika isn't installed; it brings a third party's ONNX model")
    return next(Path(spec.submodule_search_locations[0]).rglob("*.onnx"))


@pytest.mark.parametrize("net", ["conv", "text"])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_export_computes_what_the_model_does_at_any_batch(cases, exported, net, batch):
    task, model = cases[net]
    session = ONNXRUNTIME.load(exported(net, "onnxruntime"), 1)
    data = batch_of(task, "train", range(batch))
    with torch.no_grad():
        expected = predict(task, model, data)
    got = session(feed(task, data))
    assert list(got) == list(expected)
    assert runtimes.parity(expected, got)["max_abs"] <= 1e-5
    assert runtimes.parity(expected, got)["argmax_agreement"] == 1.0


def test_names_and_free_axes_are_those_of_the_example(exported):
    session = ONNXRUNTIME.load(exported("text", "onnxruntime"), 1)
    assert session.inputs == (InputSpec("ids", "int64", (None, None)), InputSpec("mask", "int64", (None, None)))
    assert session.outputs == ("logits", "again", "vector", "passed", "tokens")
    graph = onnx.load(exported("text", "onnxruntime").path).graph
    assert [[d.dim_param for d in i.type.tensor_type.shape.dim] for i in graph.input] == [["batch", "ids_1"]] * 2


def test_file_holds_nothing_but_the_computation(exported):
    for net in ("conv", "text"):
        model = onnx.load(exported(net, "onnxruntime").path)
        data = exported(net, "onnxruntime").path.read_bytes()
        assert not [word for word in (b"stack_trace", b".py", b"pytorch", b"torch.nn", os.getcwd().encode()) if word in data]
        assert (model.ir_version, model.opset_import[0].version) == (IR_VERSION, OPSET)
        assert not model.metadata_props and not model.graph.value_info and not any(n.metadata_props or n.doc_string for n in model.graph.node)
        used = {name for node in model.graph.node for name in node.input}
        assert {t.name for t in model.graph.initializer} <= used
        assert not any("unused" in t.name for t in model.graph.initializer)


def digests(folder: Path) -> list[str]:
    """A net made and exported to each runtime: what the files hash to."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    metric = Metric(name="none", rows=lambda outputs, batch: {}, reduce=lambda rows: 0.0)
    made = example(Task(metric=metric, splits={"train": [(torch.ones(1, 4, 4), 0)] * 6}), net)
    return [hashlib.sha256(runtimes.export(r.name, made, folder / r.name).path.read_bytes()).hexdigest() for r in runtimes.ALL]


def test_another_process_writes_the_same_bytes_and_says_nothing(tmp_path):
    code = "from pathlib import Path; from test_onnxruntime import digests; print(*digests(Path('out')))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""  # exporters are silenced
    assert done.stdout.split() == digests(tmp_path / "here")


def test_int8_weights_stay_int8_and_are_computed_in_int8(cases, exported):
    task, model = cases["quantized"]
    artifact = exported("quantized", "onnxruntime")
    matrices = [t for t in onnx.load(artifact.path).graph.initializer if len(t.dims) == 2]
    assert [t.data_type for t in matrices] == [onnx.TensorProto.INT8] * 2
    kernels = ONNXRUNTIME.describe(artifact)
    assert kernels["int8"] >= 2 and kernels["float"] == 0, kernels
    data = batch_of(task, "train", range(5))
    with torch.no_grad():
        expected = predict(task, model, data)
    got = ONNXRUNTIME.load(artifact, 1)(feed(task, data))
    assert runtimes.parity(expected, got)["max_abs"] <= 0.05 + 1e-6  # one step of the output


def test_describe_counts_float_kernels_and_weight_bytes(exported):
    kernels = ONNXRUNTIME.describe(exported("conv", "onnxruntime"))
    assert (kernels["int8"], kernels["float"]) == (0, 2)
    assert kernels["operators"]["Gemm"] == 1
    weights = onnx.load(exported("conv", "onnxruntime").path).graph.initializer
    assert kernels["initializer_bytes"] == sum(onnx.numpy_helper.to_array(t).nbytes for t in weights)


def test_output_with_an_inputs_name_is_refused(examples, tmp_path):
    with pytest.raises(ArtifactError, match="'mask' has the name of an input"):
        ONNXRUNTIME.export(replace(examples["text"], outputs=("logits", "again", "vector", "mask", "tokens")), tmp_path)


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1)


class NoOnnx(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(x.flatten(1))[1]


@pytest.mark.parametrize(("model", "message"), [(FixedBatch(), "FixedBatch can't be traced"), (NoOnnx(), "NoOnnx can't be written as ONNX: No ONNX function")])
def test_what_cannot_be_exported_says_why(examples, tmp_path, model, message):
    from limbeck.runtimes.tracing import with_model

    with pytest.raises(ArtifactError, match=message):
        ONNXRUNTIME.export(replace(examples["conv"], module=with_model(examples["conv"].module, model)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_second_export_has_the_same_bytes_and_leaves_the_model_and_its_shell_alone(cases, examples, exported, tmp_path):
    first = exported("conv", "onnxruntime")
    shell = examples["conv"].module
    before = {k: v.clone() for k, v in shell.state_dict().items()}
    assert ONNXRUNTIME.export(examples["conv"], tmp_path / "deep" / "er").path.read_bytes() == first.path.read_bytes()
    assert shell.model is cases["conv"][1]
    assert all(torch.equal(v, before[k]) for k, v in shell.state_dict().items())


def test_third_partys_model_loads_and_runs_without_torch():
    path = magika()
    code = f"""
import sys
from pathlib import Path
import limbeck.runtimes as runtimes
from limbeck.core.candidate import Artifact
import limbeck.evaluation.processes.child
session = runtimes.of_file({str(path)!r}).load(Artifact(Path({str(path)!r}), "onnxruntime"), 1)
out = session(runtimes.random_feed(session.inputs, 2, 0))
print(session.inputs[0].dtype, {{k: v.shape for k, v in out.items()}}, "torch" in sys.modules, "onnx" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "int32 {'target_label': (2, 214)} False False"


def test_importing_the_runtimes_loads_none_of_them():
    code = "import sys, limbeck.runtimes; print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a" + bytes(64)])
def test_corrupt_file_is_an_error_of_its_own(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"broken\.onnx can't be loaded by ONNX Runtime"):
        ONNXRUNTIME.load(Artifact(path, "onnxruntime"), 1)


def test_missing_file_and_crowded_folder_are_named(tmp_path):
    with pytest.raises(ArtifactError, match="there is no artifact"):
        ONNXRUNTIME.load(Artifact(tmp_path / "no.onnx", "onnxruntime"), 1)
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"must hold one \.onnx file, got 2"):
        ONNXRUNTIME.load(Artifact(tmp_path, "onnxruntime"), 1)


def test_truncated_export_does_not_load(exported, tmp_path):
    path = tmp_path / "half.onnx"
    data = exported("conv", "onnxruntime").path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError):
        ONNXRUNTIME.load(Artifact(path, "onnxruntime"), 1)


def test_index_out_of_range_is_an_artifact_error(exported):
    session = ONNXRUNTIME.load(exported("text", "onnxruntime"), 1)
    with pytest.raises(ArtifactError, match=r"model\.onnx: ONNX Runtime failed"):
        session({"ids": np.full((1, 4), 999), "mask": np.ones((1, 4), np.int64)})


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_empty_artifact_runs(tmp_path, name):
    card = runtimes.runtime(name)
    artifact = card.empty(tmp_path)
    out = card.load(artifact, 1)({"x": np.arange(5, dtype=np.float32)})
    np.testing.assert_array_equal(out["y"], np.arange(5, dtype=np.float32))
    assert card.available()


# ---- binding ----


def test_bind_takes_names_then_order_and_casts_within_a_kind():
    a, b = np.zeros((2, 3)), np.arange(2)
    for given in ({"a": a, "b": b}, {"b": b, "a": a, "more": b}, {"0": a, "1": b}, {"a": a, "1": b}, {"0": a, "b": b}, {"p": a, "q": b}):
        bound = bind(given, SPECS)
        assert (bound["a"].dtype, bound["b"].dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(bound["b"], [0, 1])


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"a": np.zeros((2, 3))}, "takes 2 inputs"),
        ({"a": np.zeros((2, 3)), "bb": np.arange(2)}, "no input 'bb'. Did you mean 'b'"),
        ({"a": np.zeros((2, 4)), "b": np.arange(2)}, r"input 'a' must have the shape \[any, 3\], got \[2, 4\]"),
        ({"a": np.zeros((2, 3, 1)), "b": np.arange(2)}, r"input 'a' must have the shape \[any, 3\], got \[2, 3, 1\]"),
        ({"a": np.zeros((2, 3), int), "b": np.arange(2)}, "input 'a' must be float32, got int64"),
        ({"a": np.zeros((2, 3)), "b": np.zeros(2)}, "input 'b' must be int32, got float64"),
        ({"a": np.zeros((2, 3)), "b": np.array([0, 2**40])}, "input 'b' must be int32, got int64 from 0 to 1099511627776"),
    ],
)
def test_bind_names_what_does_not_fit(feed, message):
    with pytest.raises(ArtifactError, match=message):
        bind(feed, SPECS)


def test_random_feed_fits_and_repeats():
    specs = (*SPECS, InputSpec("c", "bool", (None, None, 2)))
    feed, again = random_feed(specs, 4, 7), random_feed(specs, 4, 7)
    assert {k: (v.dtype.name, v.shape) for k, v in feed.items()} == {"a": ("float32", (4, 3)), "b": ("int32", (4,)), "c": ("bool", (4, FREE_AXIS, 2))}
    assert all(np.array_equal(feed[k], again[k]) for k in feed)
    assert set(np.unique(feed["b"])) <= {0, 1}
    bind(feed, specs)


# ---- the list ----


def test_runtimes_are_found_by_name_and_by_file(tmp_path):
    assert [r.name for r in runtimes.ALL] == sorted(r.name for r in runtimes.ALL)
    with pytest.raises(ConfigError, match=r"no runtime 'onnxruntim'\. Did you mean 'onnxruntime'"):
        runtimes.runtime("onnxruntim")
    for suffix, name in ((".onnx", "onnxruntime"), (".pt2", "torch")):
        (tmp_path / f"m{suffix}").touch()
        assert runtimes.of_file(tmp_path / f"m{suffix}").name == name
    (tmp_path / "m.tflite").touch()
    with pytest.raises(ArtifactError, match=r"by its suffix, got \.tflite"):
        runtimes.of_file(tmp_path / "m.tflite")
    with pytest.raises(ArtifactError, match="there is no artifact"):
        runtimes.of_file(tmp_path / "no.onnx")


def test_parity_measures_the_gap():
    ours = {"y": np.array([[1.0, 2.0], [4.0, 3.0]], np.float32), "n": np.array([1, 2])}
    theirs = {"y": np.array([[1.0, 2.0], [3.0, 3.5]], np.float32), "n": np.array([1, 2])}
    assert runtimes.parity(ours, theirs) == {"max_abs": 1.0, "max_rel": 0.25, "argmax_agreement": 0.5}
    assert runtimes.parity({"n": ours["n"]}, {"n": theirs["n"]}) == {"max_abs": 0.0, "max_rel": 0.0, "argmax_agreement": None}
    nan = {"y": np.array([[1.0, np.nan]])}
    assert runtimes.parity(nan, nan)["max_abs"] == 0.0
    assert runtimes.parity({"y": np.array([[1.0, 2.0]])}, nan)["max_abs"] == float("inf")
    with pytest.raises(ArtifactError, match="must give"):
        runtimes.parity(ours, {"y": theirs["y"]})
    with pytest.raises(ArtifactError, match=r"output 'n' must have the shape \[2\]"):
        runtimes.parity(ours, {**theirs, "n": np.zeros((2, 1))})


def test_an_output_that_numpy_has_no_numbers_for_is_an_error(tmp_path):
    x, y = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]), helper.make_tensor_value_info("y", TensorProto.BFLOAT16, ["n"])
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "bf16.onnx")
    session = ONNXRUNTIME.load(Artifact(tmp_path / "bf16.onnx", "onnxruntime"), 1)
    with pytest.raises(ArtifactError, match=r"bf16\.onnx: .*bfloat16\. Cast its outputs to float32 in the graph"):
        session({"x": np.ones(3, np.float32)})
