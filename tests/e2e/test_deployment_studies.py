"""A run that quantizes, with the studies of its deployment: in the summary, in the report, and again for a damaged file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from project import limbeck, summary, write_project

PLAN = """
[[stage]]
technique = "quantize"
config = { samples = 64 }
gate = { pays = "bytes", shrink = 1.05, retention = 0.3 }
"""


@pytest.mark.slow
def test_columns_kernels_and_saturation_of_a_run(tmp_path: Path):
    folder = write_project(tmp_path, plan=PLAN, studies="columns, kernels, saturation", run="control = false\n")
    done = limbeck("run", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    told = summary(folder)["studies"]
    assert told["columns"]["layers"]["first"] is None and [c["name"] for c in told["columns"]["columns"]] == ["fp32", "fp32_deployed", "simulated", "deployed"]
    assert told["kernels"]["int8_share"] == 1 and not told["kernels"]["warning"]
    assert told["saturation"]["risky"] and len(told["saturation"]["runs"]) == 3
    assert "none of 6 tensors diverges" in done.stdout and "100% of the time" in done.stdout and "without VNNI" in done.stdout
    assert limbeck("report", "runs/run", cwd=folder).returncode == 0
    page = (folder / "runs" / "run" / "report.html").read_text()
    assert all(title in page for title in ("FP32, simulated, deployed", "Kernels: what runs in int8", "CPUs without VNNI"))
    held = "model.head.weight_quantizer.integers"
    models = {path: onnx.load(path) for path in (folder / "runs" / "run" / "artifacts").rglob("*.onnx")}
    artifact, model, tensor = next((path, model, t) for path, model in models.items() for t in model.graph.initializer if t.name == held)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.negative(onnx.numpy_helper.to_array(tensor)), held))
    onnx.save(model, folder / "bad.onnx")
    bad = limbeck("compare", str(artifact), "bad.onnx", "--task", "task.py:task", "--studies", "columns", cwd=folder)
    assert bad.returncode == 3 and "candidate (unoptimized) 0." in bad.stdout and "no torch module" in bad.stdout
