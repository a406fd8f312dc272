"""The command line as a user meets it: a run, its status, refusals, judgements, wrong inputs."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from project import PLAN, events, limbeck, summary, write_project


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project whose run came to its verdict."""
    folder = write_project(tmp_path_factory.mktemp("finished"))
    done = limbeck("run", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "PASS" in done.stdout and "smaller" in done.stdout
    return folder


def test_status_reads_what_the_run_wrote(finished):
    shown = limbeck("status", "runs/run", "--json", cwd=finished)
    assert json.loads(shown.stdout) == summary(finished) and shown.returncode == 0
    assert "control" in limbeck("status", "runs/run", cwd=finished).stdout
    assert "no run folder" in limbeck("status", "runs/nothing", cwd=finished).stderr


def test_a_killed_run_goes_on_to_the_same_journal(finished, tmp_path):
    """kill −9 inside the first training: what was done is not done again, and every event, hash and verdict is the same."""
    folder = write_project(tmp_path)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from limbeck.cli.main import main; main()", "run"], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("runs/run/checkpoints/*-technique.safetensors")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert "under way" in limbeck("status", "runs/run", cwd=folder).stdout
    assert limbeck("run", cwd=folder).returncode == 0
    assert events(folder) == events(finished)
    assert summary(folder)["final"]["metric"] == summary(finished)["final"]["metric"]


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path):
    folder = write_project(tmp_path, plan=PLAN.replace("epochs = 3", "epochs = 2000"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from limbeck.cli.main import main; main()", "run"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("runs/run/checkpoints/*-technique.safetensors")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "a checkpoint is on disk" in error and "Run the same command again" in error, error


def test_an_illegal_order_is_refused(tmp_path):
    plan = '[[stage]]\ntechnique = "quantize"\n[[stage]]\ntechnique = "prune"\n'
    done = limbeck("run", cwd=write_project(tmp_path, plan=plan))
    assert done.returncode == 5
    said = " ".join(done.stdout.split())
    assert "stage 2 (prune) needs 'float-weights', which stage 1 (quantize) took away." in said
    assert "Put stage 2 (prune) before stage 1 (quantize)" in said
    assert summary(tmp_path)["verdict"] == "REFUSED" and summary(tmp_path)["exit_code"] == 5
    assert not (tmp_path / "runs" / "run" / "stages").exists(), "nothing ran"


def test_a_contract_already_met_is_refused(tmp_path):
    done = limbeck("run", cwd=write_project(tmp_path, contract="retention = 0.5"))
    assert done.returncode == 5 and "already honours the contract" in done.stdout and "Ship it as it is" in done.stdout


@pytest.mark.parametrize("limit", ["latency_p90_ms = 0.0001", "speedup_p50 = 100000", "size_bytes = 500"])
def test_an_impossible_limit_is_refused_before_anything_is_trained(tmp_path, limit):
    done = limbeck("run", cwd=write_project(tmp_path, contract=f"retention = 0.3\n{limit}"))
    name = limit.split(" ")[0]
    assert done.returncode == 5, done.stderr + done.stdout
    assert f"{name} = " in done.stdout and "can't be met" in done.stdout and "Nothing was trained" in done.stdout and "Relax the contract to" in done.stdout
    assert not (tmp_path / "runs" / "run" / "stages").exists()


def test_compare_and_evaluate_on_the_first_day(finished):
    artifact = "runs/run/" + summary(finished)["final"]["artifact"]
    done = limbeck("compare", "task.py:task", artifact, "--limit", "retention=0.3", "--json", cwd=finished)
    data = json.loads(done.stdout)
    assert done.returncode == 0 and data["verdict"] == "PASS", done.stderr
    assert [s["metric"]["name"] for s in data["subjects"]] == ["accuracy", "accuracy"]
    assert data["subjects"][1]["ratios"]["size"] == pytest.approx(summary(finished)["ratios"]["size"])
    assert data["test_looks"] >= 2, "the run's own look is counted too"
    one = json.loads(limbeck("evaluate", "task.py:task", "--split", "validation", "--json", cwd=finished).stdout)
    assert one["subjects"][0]["parameters"] > 0 and one["test_looks"] is None and one["verdict"] is None
    strict = limbeck("compare", "task.py:task", artifact, "--limit", "size_ratio=500", cwd=finished)
    assert strict.returncode == 3 and "FAIL" in strict.stdout


def test_a_third_partys_onnx_file_is_a_candidate(tmp_path):
    """magika's file type model: integer input, an artifact that torch knows nothing of."""
    spec = importlib.util.find_spec("magika")
    if spec is None or spec.origin is None:
        pytest.skip("magika is not installed; it comes with limbeck[test]")
    (model, *_) = sorted(Path(spec.origin).parent.rglob("*.onnx"))
    one = limbeck("evaluate", str(model), "--json", cwd=tmp_path)
    data = json.loads(one.stdout)["subjects"][0]
    assert one.returncode == 0 and data["size_bytes"] == model.stat().st_size and data["latency_ms"]["p50"] > 0 and data["peak_memory_bytes"] > 0
    two = limbeck("compare", str(model), str(model), "--json", cwd=tmp_path)
    both = json.loads(two.stdout)
    assert two.returncode == 4 and both["verdict"] in ("UNVERIFIED", "INCONCLUSIVE"), "without a task quality is never a pass"
    assert both["subjects"][1]["agreement"]["max_abs"] == 0 and "--task" in str(both["subjects"][1]["verdicts"])


PLUGIN = '''
"""Round each weight's mantissa: a technique that limbeck doesn't know."""
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch

from limbeck import Candidate, Context, Fact, Outcome, Range, TorchForm, technique


@dataclass(frozen=True, kw_only=True)
class Truncate:
    bits: Annotated[int, Range(0, 23), "mantissa bits that are kept; 23 keeps all"] = 8


@technique(version=1, needs={Fact.TORCH, Fact.FLOAT_WEIGHTS}, paper="none", zero=lambda: Truncate(bits=23))
def truncate(candidate: Candidate, config: Truncate, context: Context) -> Outcome:
    """Drop the low mantissa bits of every weight."""
    with (Path(__file__).parent / "calls").open("a") as file:
        file.write("x")
    mask = -(1 << (23 - config.bits))
    weights = {k: (v.view(torch.int32) & mask).view(torch.float32) if v.dtype is torch.float32 else v for k, v in candidate.torch_form.weights.items()}
    return Outcome(replace(candidate, form=TorchForm(candidate.torch_form.blueprint, weights)), {"bits": config.bits})
'''


def test_a_technique_out_of_tree(tmp_path):
    """One file and an entry point: listed, run, resumed without being called again, and checked by limbeck.testing."""
    site = tmp_path / "site"
    (site / "mine-1.0.dist-info").mkdir(parents=True)
    (site / "mine.py").write_text(PLUGIN)
    (site / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (site / "mine-1.0.dist-info" / "entry_points.txt").write_text("[limbeck.techniques]\ntruncate = mine:truncate\nbroken = mine:nothing\n")
    listed = limbeck("techniques", "--json", cwd=tmp_path, path=site)
    assert [t["name"] for t in json.loads(listed.stdout)["techniques"]] == ["blocks", "distill", "finetune", "prune", "quantize", "simkd", "vocabulary", "truncate"]
    assert "technique 'broken' (mine:nothing) failed to load" in listed.stderr
    truncate = '[[stage]]\ntechnique = "truncate"\nconfig = { bits = 7 }\ngate = { retention = 0.3 }\n'
    plan = truncate + '[[stage]]\ntechnique = "quantize"\ngate = { pays = "bytes", shrink = 1.05, retention = 0.3 }\n'
    folder = write_project(tmp_path / "project", plan=plan)
    for _ in range(2):
        done = limbeck("run", cwd=folder, path=site)
        assert done.returncode == 0, done.stderr + done.stdout
    assert (site / "calls").read_text() == "xx", "once untrained for the twin, once for the stage; resumed from records"
    check = "from pathlib import Path; from limbeck.testing import check_technique; import mine, tempfile; check_technique(mine.truncate, Path(tempfile.mkdtemp())); print('holds')"
    done = subprocess.run([sys.executable, "-c", check], env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert done.stdout.strip() == "holds", done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nowhere.toml"], "nowhere.toml can't be read: No such file"),
        (["evaluate", "nowhere.onnx"], "there is no artifact nowhere.onnx"),
        (["evaluate", "nowhere.py:task"], "there is no task file"),
        (["evaluate", "task.py:tusk"], "has no 'tusk'"),
        (["evaluate", "task.py:task", "--split", "tset"], "has no split 'tset'. Did you mean 'test'?"),
        (["evaluate", "task.py:task", "--model", "smal"], "has no model 'smal'. Did you mean 'small'"),
        (["evaluate", "task.py:task", "--runtime", "onnx"], "no runtime 'onnx'"),
        (["compare", "task.py:task", "task.py:task", "--limit", "retention"], "--limit retention must be name=number"),
        (["compare", "task.py:task", "task.py:task", "--limit", "retentoin=1"], "contract.retentoin is not an option"),
        (["techniques", "prunne"], "no technique 'prunne'. Did you mean 'prune'?"),
        (["run", "bad.toml"], "bad.toml is not TOML"),
        (["run", "unknown.toml"], "unknown.toml:4:1: contract.retenton is not an option, got 0.9. Did you mean 'retention'"),
    ],
)
def test_a_wrong_input_gets_a_message_and_no_traceback(finished, words, message):
    (finished / "bad.toml").write_text("[task\n")
    (finished / "unknown.toml").write_text('[task]\nentry = "task.py:task"\n[contract]\nretenton = 0.9\n')
    done = limbeck(*words, cwd=finished)
    assert done.returncode == 2 and message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr, done.stderr
