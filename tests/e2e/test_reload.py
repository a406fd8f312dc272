"""prune → quantize → a fresh process: the same bits from blueprint and safetensors, and what is deployed answers as what was simulated."""

import json
import os
import subprocess
import sys

import numpy as np
import torch

import limbeck
from limbeck import Contract, Gate, Plan, Recovery, Stage, Training
from limbeck.mechanics.build import rebuild
from limbeck.mechanics.data import batch_of, predict
from limbeck.pipeline.store import Store
from limbeck.runtimes import runtime
from limbeck.testing import small_task

RELOAD = """
import sys, torch
from pathlib import Path
from limbeck.mechanics.build import rebuild
from limbeck.mechanics.data import batch_of, predict
from limbeck.pipeline.store import Store
from limbeck.testing import small_task
torch.manual_seed(int(sys.argv[3]))
torch.set_num_threads(1)
task, root = small_task(), Path(sys.argv[1])
model = rebuild(Store(root).get_candidate(sys.argv[2], root / "out").torch_form, task)
with torch.no_grad():
    torch.save(predict(task, model, batch_of(task, "test", range(48)))["logits"], sys.argv[4])
"""


def test_pruned_and_quantized_reloads_and_deploys_as_it_was_simulated(tmp_path):
    gate = Gate(pays="bytes", shrink=1.05, retention=0.3)
    stages = (
        Stage(technique="prune", config={"ratio": 0.3, "round_to": 4}, recovery=Recovery(training=Training(epochs=4, batch_size=16)), gate=gate),
        Stage(technique="quantize", config={"samples": 96}, gate=gate),
    )
    result = limbeck.compress(small_task(), Contract(size_ratio=2), Plan(stages=stages, control=False), root=tmp_path, timing_seconds=0.1, proof=limbeck.Proof(studies="none"))
    assert [s["verdict"] for s in result.summary["stages"]] == ["PASS", "PASS"]
    head = json.loads((result.folder / "HEAD.json").read_text())["onnxruntime"]
    task = small_task()
    form = Store(result.folder).get_candidate(head["candidate"], tmp_path / "out").torch_form
    assert {e["edit"] for e in form.blueprint.edits} == {"reshape", "fold", "quantize"}
    model = rebuild(form, task)
    with torch.no_grad():
        simulated = predict(task, model, batch_of(task, "test", range(48)))["logits"]
    for seed in (1, 2):  # whatever a fresh factory draws must not matter
        file = tmp_path / f"{seed}.pt"
        subprocess.run([sys.executable, "-c", RELOAD, str(result.folder), head["candidate"], str(seed), str(file)], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert torch.equal(torch.load(file, weights_only=True), simulated)
    _deployed_as_simulated(result, task, simulated)


def _deployed_as_simulated(result, task, simulated: torch.Tensor) -> None:
    """Oracle 21: on a net this shallow at most one step of the output's grid apart, the same answer, and no float kernel left."""
    kernels = result.summary["final"]["kernels"]
    assert kernels["float"] == 0 and kernels["int8"] == 4, kernels
    session = runtime("onnxruntime").load(result.artifact, 1)
    deployed = session({"0": batch_of(task, "test", range(48))[0].numpy()})["logits"]
    step = np.unique(np.abs(np.diff(np.unique(simulated.numpy().round(6)))))[0]
    assert np.abs(deployed - simulated.numpy()).max() <= step * 1.01
    assert (deployed.argmax(1) == simulated.numpy().argmax(1)).mean() >= 0.97  # 48 samples: one tie may fall otherwise
