"""A task with slices through a run, its summary, its report, `compare` and a contract that limits them."""

from __future__ import annotations

import json
import re

import pytest
from project import limbeck, summary, write_project

TASK = """
from dataclasses import replace
from limbeck.testing import small_task
slices = {"not 3": lambda batch: batch[1] != 3, "top [row] = a.b": lambda batch: batch[1] < 2, "none": lambda batch: batch[1] > 9}
task = replace(small_task(samples=240), slices=slices)
"""
PLAN = """
[[stage]]
technique = "quantize"
config = { samples = 64 }
gate = { pays = "bytes", shrink = 1.05, retention = 0.3 }
"""
CONTRACT = """
retention = 0.3
size_ratio = 1.5
max_flips = "30 %"
max_ece = 0.9
slice_retention = { "top [row] = a.b" = 0.5, "not 3" = "50 %" }
slice_drop = { "not 3" = 0.5 }
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = write_project(tmp_path_factory.mktemp("slices"), contract=CONTRACT, task=TASK, plan=PLAN, run="control = false")
    done = limbeck("run", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder, done.stdout


def test_a_run_judges_the_slices_that_are_limited_and_shows_them_all(project):
    folder, shown = project
    data = summary(folder)
    verdicts = {v["gate"]: v for v in data["contract"]}
    assert verdicts.keys() == {"retention", "size_ratio", "max_flips", "max_ece", "slice_retention.top [row] = a.b", "slice_retention.not 3", "slice_drop.not 3"}
    assert {v["status"] for v in verdicts.values()} == {"PASS"}
    assert data["limits"]["slice_retention.not 3"] == 0.5
    found = {s["name"]: s for s in data["behaviour"]["slices"]}
    assert {n: s["samples"] for n, s in found.items()} == {"not 3": 180, "top [row] = a.b": 120, "none": 0}
    assert found["none"]["note"] == "slice 'none' has no sample of test" and found["not 3"]["retention"]["low"] > 0.5
    assert data["behaviour"]["flips"]["samples"] == 240 and data["behaviour"]["calibration"]["baseline"]["ece"] >= 0
    for text in ("Slices of test", "top [row] = a.b", "right → wrong", "calibration error", "the same answer as the baseline"):
        assert text in shown, shown


def test_the_masks_are_taken_once_and_the_run_is_whole(project):
    folder, _ = project
    assert len(list((folder / "runs/run/measurements").glob("slices-*.json"))) == 2  # validation and test
    assert limbeck("verify", "runs/run", cwd=folder).returncode == 0
    before = (folder / "runs/run/journal.jsonl").read_text().count('"verdict"')
    assert limbeck("run", cwd=folder).returncode == 0
    assert len(list((folder / "runs/run/measurements").glob("slices-*.json"))) == 2 and before


def test_the_report_draws_them(project):
    folder, _ = project
    assert limbeck("report", "runs/run", cwd=folder).returncode == 0
    page = (folder / "runs/run/report.html").read_text()
    assert "Forest plot: quality kept by slice" in page and "Reliability of the baseline, ECE" in page and "slice &#x27;none&#x27; has no sample of test" in page
    description = re.search(r"<title[^>]*>What is kept in each of 3 rows</title><desc[^>]*>([^<]*)", page)
    assert description and "all of test: " in description[1] and "top [row] = a.b: " in description[1]


def test_compare_takes_limits_on_slices_and_shows_flips(project):
    folder, _ = project
    limits = ("--limit", "slice_retention.top [row] = a.b=50 %", "--limit", "slice_drop.not 3=0.4", "--limit", "max_flips=0.3", "--limit", "max_ece=0.9")
    small = summary(folder)["final"]["artifact"]
    done = limbeck("compare", "task.py:task", f"runs/run/{small}", "--split", "validation", *limits, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    data = json.loads(done.stdout)
    verdicts = {v["gate"]: v["status"] for v in data["subjects"][1]["verdicts"]}
    assert verdicts == {"slice_retention.top [row] = a.b": "PASS", "slice_drop.not 3": "PASS", "max_flips": "PASS", "max_ece": "PASS"}
    assert data["subjects"][0]["behaviour"]["flips"] is None and data["subjects"][1]["behaviour"]["flips"]["samples"] == 240
    shown = limbeck("compare", "task.py:task", f"runs/run/{small}", "--split", "validation", "--limit", "worst_slice_retention=0.5", cwd=folder)
    assert shown.returncode == 4 and "INCONCLUSIVE" in shown.stdout and "slice 'none' has no sample" in shown.stdout and "flips: " in shown.stdout, shown.stdout


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("slice_retention=0.9", "must name a slice. Write it as in slice_retention.night=0.95"),
        ("slice_retention.=0.9", "must name a slice and a number"),
        ("slice_retention.not 4=0.9", "limits a slice that task 'quarters' doesn't have. Did you mean 'not 3'?"),
        ("slice_retention.not 3=x", "must be a number, or text in %"),
        ("slice_drop.not 3=x", "must be name=number"),
        ("max_flips=2", "contract.max_flips must be in [0, 1], got 2"),
    ],
)
def test_a_limit_that_means_nothing_says_how_to_write_it(project, limit, says):
    done = limbeck("evaluate", "task.py:task", "--split", "validation", "--limit", limit, cwd=project[0])
    assert done.returncode == 2 and says in " ".join(done.stderr.split()), done.stderr


def test_a_run_file_that_limits_an_unknown_slice_is_refused_before_the_data_is_read(tmp_path):
    write_project(tmp_path, contract='slice_retention = { "not 4" = 0.9 }', task=TASK, plan=PLAN)
    done = limbeck("run", cwd=tmp_path)
    assert done.returncode == 2 and "Did you mean 'not 3'?" in done.stderr and not (tmp_path / "runs").exists()


def test_a_slice_that_raises_names_its_line(tmp_path):
    write_project(tmp_path, contract="retention = 0.3\nworst_slice_retention = 0.5", task=TASK.replace("batch[1] > 9", "batch['night']"), plan=PLAN)
    done = limbeck("evaluate", "task.py:task", "--split", "validation", cwd=tmp_path)
    assert done.returncode == 2 and "slice 'none' of task 'quarters'" in done.stderr and "task.py:4" in done.stderr, done.stderr
