"""Tests of substance on real data and trained teachers; skipped where these aren't. See `LIMBECK_DATA`."""

import gzip
import importlib.util
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import limbeck
from limbeck import Contract, Plan, Stage, Task, accuracy
from limbeck.mechanics.build import rebuild
from limbeck.pipeline.store import Store
from limbeck.runtimes import runtime


def images(folder, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    count, height, width = struct.unpack(">3I", pixels[4:16])
    x = np.frombuffer(pixels, np.uint8, offset=16).reshape(count, 1, height, width).astype(np.float32) / 255
    return torch.from_numpy((x - 0.2860) / 0.3530), torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64))


@pytest.fixture(scope="module")
def fashion(real_data) -> Task:
    """The Fashion-MNIST ResNet-18: functional ReLUs and adds, 2.8 million parameters, 93.53 % on test."""
    spec = importlib.util.spec_from_file_location("architectures", real_data / "teachers" / "architectures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    train, labels = images(real_data / "fashion_mnist", "train")
    kept = np.random.default_rng(0).permutation(len(train))
    test = images(real_data / "fashion_mnist", "t10k")
    splits = {"train": TensorDataset(train[kept[:2000]], labels[kept[:2000]]), "validation": TensorDataset(train[kept[-2000:]], labels[kept[-2000:]]), "test": TensorDataset(*test)}
    return Task(
        name="fashion", models={"teacher": module.fashion_resnet18}, weights={"teacher": real_data / "teachers" / "fashion_resnet18.safetensors"}, splits=splits, metric=accuracy()
    )


@pytest.mark.slow
def test_int8_of_a_real_resnet18(fashion, tmp_path):
    """Oracle 21 and the bar of others' INT8 (93.50 %, 2.92 MB, 2.75×): as accurate as FP32 within 0.1 point, every convolution in int8."""
    contract = Contract(retention=0.99, size_ratio=3.5, speedup_p50=1.5)
    result = limbeck.compress(fashion, contract, Plan(stages=(Stage(technique="quantize"),), control=False), root=tmp_path, proof=limbeck.Proof(studies="none"))
    summary = result.summary
    assert result.verdict == "PASS", summary["contract"]
    assert summary["baseline"]["metric"]["value"] == pytest.approx(0.9353, abs=2e-4)
    assert summary["final"]["metric"]["value"] >= summary["baseline"]["metric"]["value"] - 0.001
    assert summary["final"]["kernels"]["float"] == 0
    _simulation_agrees(fashion, result)


def _simulation_agrees(task: Task, result: limbeck.Run) -> None:
    import json

    head = json.loads((result.folder / "HEAD.json").read_text())["onnxruntime"]
    model = rebuild(Store(result.folder).get_candidate(head["candidate"], result.folder / "out").torch_form, task)
    inputs = task.split("test").tensors[0][:2000]
    with torch.no_grad():
        simulated = torch.cat([model(part) for part in inputs.split(200)]).argmax(1).numpy()
    deployed = runtime("onnxruntime").load(result.artifact, 1)({"0": inputs.numpy()})["logits"].argmax(1)
    assert (simulated == deployed).mean() >= 0.995


@pytest.mark.slow
def test_a_real_resnet18_is_pruned_where_residuals_allow(fashion, tmp_path):
    """Dependencies through residual adds and projections hold: the pruned network deploys, and claims what it is."""
    stage = Stage(technique="prune", config={"ratio": 0.25}, gate=limbeck.Gate(pays="bytes", shrink=1.3, retention=0.0))
    result = limbeck.compress(
        replace(fashion, splits={**fashion.splits, "test": fashion.split("validation")}), Contract(size_ratio=1.3), Plan(stages=(stage,), control=False), root=tmp_path
    )
    (only,) = result.summary["stages"]
    assert only["claims"]["parameters"] == only["parameters"] < 0.7 * result.summary["baseline"]["parameters"]
