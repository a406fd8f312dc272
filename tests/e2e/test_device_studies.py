"""Limits that studies of the device answer, through the command line: run, report, status, and a second run that measures nothing anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import limbeck, summary, write_project

from limbeck.evaluation.powercap import zones

CONTRACT = 'size_ratio = 1.5\ncold_start_ms = "60 s"\nsamples_per_second = 1\nenergy_mj = "1000 J"'
PLAN = """
[[stage]]
technique = "quantize"
config = { samples = 32 }
gate = { pays = "bytes", shrink = 1.05, retention = 0.3 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = write_project(tmp_path_factory.mktemp("device"), contract=CONTRACT, plan=PLAN, run="control = false\n", studies="memory")
    file = found / "limbeck.toml"
    file.write_text(file.read_text().replace("[proof]\n", "[proof]\nseconds = 0.2\n"))
    done = limbeck("run", cwd=found)
    assert done.returncode in (0, 4), done.stderr + done.stdout
    return found


def test_limited_studies_are_made_beside_the_one_that_is_asked_for(folder: Path):
    data = summary(folder)
    assert list(data["studies"]) == ["cold_start", "throughput", "memory", "energy"]
    verdicts = {v["gate"]: v for v in data["contract"]}
    assert verdicts["samples_per_second"]["status"] == "PASS" and verdicts["samples_per_second"]["low"] > 1
    assert verdicts["cold_start_ms"]["status"] in ("PASS", "INCONCLUSIVE")  # by how many starts there was time for
    assert all({"baseline", "candidate"} == found["models"].keys() for name, found in data["studies"].items() if name != "throughput")
    int8 = data["studies"]["memory"]["models"]
    assert int8["candidate"]["weights"]["bytes"] < 0.5 * int8["baseline"]["weights"]["bytes"]


@pytest.mark.skipif(bool(zones()[0]), reason="this machine counts its energy")
def test_energy_that_is_only_modelled_holds_up_the_verdict(folder: Path):
    data = summary(folder)
    energy = next(v for v in data["contract"] if v["gate"] == "energy_mj")
    assert (energy["status"], data["verdict"] in ("UNVERIFIED", "INCONCLUSIVE"), data["exit_code"]) == ("UNVERIFIED", True, 4)
    assert "modelled" not in energy["reason"] and "a model says" in energy["reason"]
    models = data["studies"]["energy"]["models"]
    assert models["candidate"]["macs"].keys() == {"int8"} and models["baseline"]["macs"].keys() == {"float32"} and models["candidate"]["mj"] < models["baseline"]["mj"]


def test_report_and_terminal_show_them(folder: Path):
    shown = limbeck("status", "runs/run", cwd=folder)
    assert shown.returncode in (0, 4), shown.stderr
    assert all(title in shown.stdout for title in ("cold start:", "throughput:", "activations:", "energy:"))
    assert limbeck("report", "runs/run", cwd=folder).returncode == 0
    page = (folder / "runs" / "run" / "report.html").read_text()
    assert all(f'id="study-{name}"' in page for name in ("cold_start", "throughput", "memory", "energy"))


def test_a_second_run_keeps_what_was_measured(folder: Path):
    before = summary(folder)["studies"]
    assert limbeck("run", cwd=folder).returncode in (0, 4)
    assert summary(folder)["studies"] == before
