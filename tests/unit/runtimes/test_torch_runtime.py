import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import limbeck.runtimes as runtimes
from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError
from limbeck.mechanics.data import batch_of, feed, predict
from limbeck.runtimes.torch import TORCH


@pytest.mark.parametrize("net", ["conv", "text", "quantized"])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_export_computes_what_the_model_does_at_any_batch(cases, exported, net, batch):
    task, model = cases[net]
    session = TORCH.load(exported(net, "torch"), 1)
    data = batch_of(task, "train", range(batch))
    with torch.no_grad():
        expected = predict(task, model, data)
    got = session(feed(task, data))
    assert list(got) == list(expected)
    assert runtimes.parity(expected, got)["max_abs"] <= (0 if net == "quantized" else 1e-6)  # simulated to the bit


def test_inputs_say_names_dtypes_and_free_axes(exported):
    session = TORCH.load(exported("text", "torch"), 1)
    assert [(i.name, i.dtype, i.shape) for i in session.inputs] == [("ids", "int64", (None, None)), ("mask", "int64", (None, None))]
    assert [(i.name, i.shape) for i in TORCH.load(exported("conv", "torch"), 1).inputs] == [("x", (None, 3, 12, 12))]


def test_feed_that_does_not_fit_is_refused(exported):
    session = TORCH.load(exported("conv", "torch"), 1)
    with pytest.raises(ArtifactError, match=r"input 'x' must have the shape \[any, 3, 12, 12\]"):
        session({"x": np.zeros((1, 3, 12, 13), np.float32)})
    text = TORCH.load(exported("text", "torch"), 1)
    with pytest.raises(ArtifactError, match=r"model\.pt2: torch failed"):
        text({"ids": np.full((1, 4), 999), "mask": np.ones((1, 4), np.int64)})


def test_reloads_in_a_process_that_knows_nothing_of_the_model(cases, exported, tmp_path):
    task, model = cases["quantized"]
    data = batch_of(task, "train", range(3))
    np.save(tmp_path / "x.npy", feed(task, data)["0"])
    code = f"""
import numpy as np
from pathlib import Path
import limbeck.runtimes as runtimes
from limbeck.core.candidate import Artifact
path = Path({str(exported("quantized", "torch").path)!r})
np.save("y.npy", runtimes.of_file(path).load(Artifact(path, "torch"), 1)({{"0": np.load("x.npy")}})["logits"])
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    with torch.no_grad():
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), predict(task, model, data)["logits"].numpy())


def test_file_tells_nothing_of_source_or_samples(exported):
    path = exported("text", "torch").path
    data = path.read_bytes()
    assert not [word for word in (b"stack_trace", b".py", b"nn_module_stack", os.getcwd().encode()) if word in data]
    with zipfile.ZipFile(path) as archive:
        samples = [n for n in archive.namelist() if "sample_inputs" in n]
        assert [archive.read(n) for n in samples] == [b""]


def test_second_export_has_the_same_bytes(examples, exported, tmp_path):
    assert TORCH.export(examples["text"], tmp_path).path.read_bytes() == exported("text", "torch").path.read_bytes()


def test_describe_counts_operators_and_bytes(cases, exported):
    kernels = TORCH.describe(exported("conv", "torch"))
    assert (kernels["int8"], kernels["float"]) == (0, 2)
    assert kernels["operators"]["conv2d"] == 1
    model = cases["conv"][1]
    assert kernels["initializer_bytes"] == sum(t.nbytes for t in model.state_dict().values())


def test_int8_weights_stay_int8(exported):
    kernels = TORCH.describe(exported("quantized", "torch"))
    assert (kernels["int8"], kernels["float"]) == (0, 2)
    assert kernels["initializer_bytes"] < 4 * (8 * 16 + 16 * 4)  # less than the matrices alone in float


def test_threads_are_set(exported):
    before = torch.get_num_threads()
    try:
        TORCH.load(exported("conv", "torch"), 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- a file from outside runs no code ----


def tampered(source: Path, target: Path, changes: dict[str, bytes]) -> Artifact:
    """The same archive with some entries replaced or added; names are without the root folder."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        contents = {n.partition("/")[2]: old.read(n) for n in old.namelist()}
        for name, data in {**contents, **changes}.items():
            new.writestr(f"{root}/{name}", data)
    return Artifact(target, "torch")


def entry(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith(name)))


class Touch:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def pickled(mark: Path) -> bytes:
    stream = io.BytesIO()
    torch.save((Touch(mark),), stream)
    return stream.getvalue()


def test_untouched_copy_still_loads(exported, tmp_path):
    source = exported("conv", "torch")
    assert TORCH.load(tampered(source.path, tmp_path / "model.pt2", {}), 1).outputs == TORCH.load(source, 1).outputs


@pytest.mark.parametrize("kind", ["samples", "legacy weights", "opaque", "expression", "operator", "guards", "pickled tensor"])
def test_archive_with_code_in_it_is_refused_and_not_run(exported, tmp_path, kind):
    source, mark = exported("text", "torch").path, tmp_path / "mark"
    model = entry(source, "models/model.json").decode()
    weights = json.loads(entry(source, "model_weights_config.json"))
    next(iter(weights["config"].values()))["use_pickle"] = True
    attack = json.dumps(f"__import__('pathlib').Path({str(mark)!r}).touch() or Integer(2)")
    first = model.index('"expr_str": ') + len('"expr_str": ')
    changes = {
        "samples": {"data/sample_inputs/model.pt": pickled(mark)},
        "legacy weights": {"data/weights/model.pt": pickled(mark)},
        "opaque": {"data/constants/opaque_obj_0": pickle.dumps(Touch(mark))},
        "expression": {"models/model.json": (model[:first] + attack + model[model.index(", ", model.index(")", first)) :]).encode()},
        "operator": {"models/model.json": model.replace("torch.ops.aten.embedding.default", "torch.hub.load").encode()},
        "guards": {"models/model.json": model.replace('"guards_code": []', '"guards_code": ["print(1)"]').encode()},
        "pickled tensor": {"data/weights/model_weights_config.json": json.dumps(weights).encode()},
    }[kind]
    for name, data in changes.items():
        if name.endswith(".json"):
            json.loads(data)
            assert data != entry(source, name)
    with pytest.raises(ArtifactError, match="must hold only tensors and JSON"):
        TORCH.load(tampered(source, tmp_path / "model.pt2", changes), 1)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_corrupt_file_is_an_error_of_its_own(tmp_path, content):
    path = tmp_path / "broken.pt2"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"broken\.pt2 is not a \.pt2 archive"):
        TORCH.load(Artifact(path, "torch"), 1)


def test_archive_without_a_program_and_one_with_a_damaged_one(exported, tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.pt2", "w") as archive:
        archive.writestr("model/archive_version", "0")
    with pytest.raises(ArtifactError, match="holds no exported program"):
        TORCH.load(Artifact(tmp_path / "empty.pt2", "torch"), 1)
    damaged = tampered(exported("conv", "torch").path, tmp_path / "model.pt2", {"models/model.json": b"{}"})
    with pytest.raises(ArtifactError, match="can't be loaded by torch"):
        TORCH.load(damaged, 1)
