"""`limbeck analyze` and `limbeck doctor` as they are typed."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck import api
from limbeck.cli.main import app
from limbeck.core.errors import ConfigError, LimbeckError
from limbeck.runtimes.torch import TORCH
from limbeck.testing import small_task

sys.path.insert(0, str(Path(__file__).parent))
from project import write_project


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(write_project(tmp_path, run="", contract="retention = 0.9\n[target]\nthreads = 1\nbatch = 2"))
    return tmp_path


def invoke(*words: str, width: int = 180, **environment: str):
    return CliRunner(env={"COLUMNS": str(width), **environment}).invoke(app, [*words])


def test_a_run_file_is_analyzed_with_its_own_target(folder):
    done = invoke("analyze", "--json")
    assert done.exit_code == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["schema"], data["kind"], data["target"]) == (1, "model", {"runtime": "onnxruntime", "threads": 1, "batch": 2})
    assert data["model"] == {"name": "teacher", "kind": "SmallNet"} and data["totals"]["parameters"] == 14_260
    assert data["totals"]["macs"] == 2 * (64 * 9 * (16 + 16 * 32 + 32 * 32) + 32 * 4)
    assert sum(r["share"] for r in [*data["layers"], *data["elsewhere"]]) == pytest.approx(1)
    assert data["layers"] == sorted(data["layers"], key=lambda r: -r["ms"]) and "shown" not in data
    assert data["findings"] and data["machine"]["gflops"] > 0 and "measured" in data["machine"]["method"]


def test_tables_by_layer_and_block_on_any_width(folder):
    wide = invoke("analyze", "task.py:task", "--model", "small", "--runtime", "torch", "--threads", "1", "--top", "2")
    assert wide.exit_code == 0, wide.stderr
    for word in ("small (SmallNet)", "rank 99 %", "op/byte", "10 more", "compute-bound from", "•"):
        assert word in wide.stdout
    narrow = invoke("analyze", "task.py:task", "--runtime", "torch", "--by", "block", "--depth", "1", width=80)
    assert "features" in narrow.stdout and "features.0" not in narrow.stdout.split("•")[0] and "op/byte" not in narrow.stdout


def test_an_artifact_alone_is_told_by_operator(folder):
    from limbeck.mechanics.build import rebuild, teacher_candidate
    from limbeck.mechanics.data import example
    from limbeck.runtimes import export

    task = small_task()
    made = example(task, rebuild(teacher_candidate(task).torch_form, task))
    export("onnxruntime", made, folder)
    data = json.loads(invoke("analyze", "model.onnx", "--task", "task.py:task", "--json").stdout)
    assert data["kind"] == "artifact" and {"Conv", "Gemm"} <= {r["operator"] for r in data["operators"]} and data["notes"] == [n for n in data["notes"] if "random" not in n]
    shown = invoke("analyze", "model.onnx", "--by", "block")
    assert "Conv" in shown.stdout and "random inputs" in shown.stdout
    TORCH.export(made, folder)
    done = invoke("analyze", "model.pt2")
    assert done.exit_code == 2 and "Name the task and its model instead, with --runtime torch" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("analyze", "nothing.onnx"), "there is no artifact nothing.onnx"),
        (("analyze", "task.py:task", "--model", "smal"), "Did you mean 'small'?"),
        (("analyze", "task.py:task", "--runtime", "torh"), "Did you mean 'torch'?"),
        (("analyze", "nothing.toml"), "nothing.toml can't be read"),
    ],
)
def test_what_cannot_be_analyzed_is_said(folder, words, said):
    done = invoke(*words)
    assert done.exit_code == 2 and said in done.stderr


def test_the_python_call_takes_a_task_and_refuses_what_the_target_would():
    with pytest.raises(ConfigError, match=r"target.threads must be in \[1, 1024\], got 0"):
        api.analyze(small_task(), threads=0)
    stopped = []
    with pytest.raises(LimbeckError, match="stopped in a measurement"):
        api.analyze(small_task(), seconds=0.05, stop=lambda: stopped.append(1) or True)
    assert stopped


def test_the_doctor_finds_this_machine_fit(folder):
    done = invoke("doctor", "--json", OMP_NUM_THREADS="4096")
    assert done.exit_code == 0, done.stdout
    data = json.loads(done.stdout)
    assert data["ok"] and {r["name"] for r in data["runtimes"]} >= {"onnxruntime", "torch"} and all(q["ok"] for q in data["required"])
    assert data["machine"]["disk"] == str(folder) and "more threads than cores" in {p["name"] for p in data["problems"]}


def test_a_broken_library_is_exit_3(folder, monkeypatch):
    (folder / "broken").mkdir()
    (folder / "broken" / "onnx.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(folder / "broken"))
    done = invoke("doctor")
    assert done.exit_code == 3 and "broken onnx can't load" in done.stdout and "SIGABRT" in done.stdout and "limbeck doesn't work here" in done.stdout
