"""Configuration by environment through the command line, and secrets that reach neither stderr, nor logs, nor the run's folder."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.core.environment import SWITCHES

sys.path.insert(0, str(Path(__file__).parent))
from project import events, limbeck, summary, write_project

SECRET, ADDRESS = "hunter2hunter2", "https://me:correcthorse@tracking.example/api"
LEAKS = f"""
raise RuntimeError("login as me with {SECRET} at {ADDRESS} failed")
"""
HOLDS = f"""
[[stage]]
technique = "quantize"
config = {{ samples = 16, keep_float = ["{SECRET}"] }}
"""


def test_the_environment_stands_over_the_file_and_a_flag_over_both(tmp_path, monkeypatch):
    folder = write_project(tmp_path, contract="retention = 0.99", run='root = "runs"\nseed = 1')
    for name, value in {"ROOT": "elsewhere", "NAME": "by-environment", "SEED": "7"}.items():
        monkeypatch.setenv(f"LIMBECK_RUN_{name}", value)
    monkeypatch.setenv("LIMBECK_CONTRACT_RETENTION", "50 %")
    done = limbeck("run", "--name", "by-flag", "--json", cwd=folder)
    assert done.returncode == 5, done.stderr
    found = json.loads((folder / "elsewhere" / "by-flag" / "summary.json").read_text())
    assert found["environment"]["seed"] == 7 and found["limits"]["retention"] == 0.5
    effect = {"LIMBECK_RUN_ROOT": "elsewhere", "LIMBECK_RUN_SEED": "7", "LIMBECK_CONTRACT_RETENTION": "50 %"}
    assert found["environment"]["variables"] == effect  # the name was the flag's
    first = json.loads((folder / "elsewhere" / "by-flag" / "journal.jsonl").read_text().splitlines()[0])
    assert first["event"] == "run" and first["data"]["variables"] == effect


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"LIMBECK_RUN_ROT": "x"}, "LIMBECK_RUN_ROT is no variable that limbeck reads. Did you mean 'LIMBECK_RUN_ROOT'"),
        ({"LIMBECK_CONTRACT_SIZE_BYTES": "5 ms"}, "LIMBECK_CONTRACT_SIZE_BYTES must be a number, or text in B, kB"),
        ({"LIMBECK_TARGET_RUNTIME": "onxruntime"}, "limbeck has no runtime 'onxruntime'. Did you mean 'onnxruntime'? Set by the environment: LIMBECK_TARGET_RUNTIME."),
        ({"LIMBECK_CONTRACT_LATENCY_P50_MS": "9", "LIMBECK_CONTRACT_LATENCY_P90_MS": "8"}, "LIMBECK_CONTRACT_LATENCY_P50_MS, LIMBECK_CONTRACT_LATENCY_P90_MS"),
    ],
)
def test_a_bad_variable_is_named(tmp_path, monkeypatch, environment, said):
    monkeypatch.chdir(write_project(tmp_path))
    done = CliRunner().invoke(app, ["run"], env=environment)
    assert done.exit_code == 2 and said in done.stderr.replace("\n", " ")
    assert not (tmp_path / "runs").exists()


def test_a_mistyped_variable_stops_every_command_and_the_tests_own_is_tolerated():
    assert CliRunner().invoke(app, ["runtimes"], env={"LIMBECK_TREADS": "1"}).exit_code == 2
    assert CliRunner().invoke(app, ["runtimes"], env={"LIMBECK_DATA": "/nowhere"}).exit_code == 0


def test_switches_and_target_hold_for_commands_without_a_file():
    json.loads(CliRunner().invoke(app, ["runtimes"], env={"LIMBECK_JSON": "1"}).stdout)
    done = CliRunner().invoke(app, ["evaluate", "x.onnx"], env={"LIMBECK_TARGET_THREADS": "none"})
    assert done.exit_code == 2 and "LIMBECK_TARGET_THREADS" in done.stderr
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["run", "--help"]).stdout
    assert all(name in shown for name in SWITCHES)


def test_a_contract_of_the_environment_holds_for_evaluate_and_a_limit_of_the_flag_wins():
    done = CliRunner().invoke(app, ["evaluate", "x.onnx", "--limit", "size_ratio=0"], env={"LIMBECK_CONTRACT_SIZE_RATIO": "4"})
    assert done.exit_code == 2 and "contract.size_ratio must be > 0" in done.stderr
    assert "LIMBECK_CONTRACT_SIZE_RATIO must be" in CliRunner().invoke(app, ["evaluate", "x.onnx"], env={"LIMBECK_CONTRACT_SIZE_RATIO": "0"}).stderr


@pytest.mark.parametrize("flag", [(), ("--log-json",), ("--debug",)], ids=["plain", "JSON lines", "traceback"])
def test_a_secret_in_an_error_reaches_nobody(tmp_path, monkeypatch, flag):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    done = limbeck("run", *flag, cwd=write_project(tmp_path, task=LEAKS))
    assert done.returncode in (1, 2) and "login as me with ***" in done.stderr
    assert SECRET not in done.stdout + done.stderr and "correcthorse" not in done.stdout + done.stderr


def test_a_secret_reaches_no_file_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    folder = write_project(tmp_path, plan=HOLDS, contract="retention = 0.5")
    done = limbeck("run", "--log-json", cwd=folder)
    assert done.returncode == 5, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert [str(p) for p in (folder / "runs").rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()] == []
    assert any("***" in json.dumps(data) for _, data in events(folder)) and "***" in json.dumps(summary(folder))
