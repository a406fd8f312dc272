"""A run that studies corruption, inputs outside and at the edge: judged, kept, in the summary and in the report."""

from pathlib import Path

import pytest
from project import events, limbeck, summary, write_project

PLAN = """
[[stage]]
technique = "quantize"
config = { samples = 64 }
gate = { pays = "bytes", shrink = 1.05, retention = 0.3 }
"""
TASK = """
import torch
import limbeck
from dataclasses import replace
from limbeck.testing import small_task


def dark(sample, strength, rng):
    return sample[0] - 0.2 * strength, sample[1]


task = small_task()
task = replace(task, shifts={"dark": dark, **limbeck.image_shifts(low=-3, high=4)}, outside={"twice": [x * 2 for x, _ in task.splits["validation"]]})
"""


@pytest.mark.slow
def test_a_run_is_judged_under_corruption_and_shows_it(tmp_path: Path):
    folder = write_project(tmp_path, contract="size_ratio = 1.5\ncorruption_retention = 0.8", plan=PLAN, task=TASK, run="control = false\n", studies="outside, edges")
    done = limbeck("run", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    told = summary(folder)
    verdict = next(v for v in told["contract"] if v["gate"] == "corruption_retention")
    assert verdict["status"] == "PASS" and 0.8 <= verdict["low"] <= verdict["measured"]
    assert set(told["studies"]) == {"shift", "outside", "edges"}, "what the contract limits is made, asked for or not"
    assert told["studies"]["shift"]["kinds"][0]["name"] == "dark" and "twice" in [s["name"] for s in told["studies"]["outside"]["sets"]]
    assert "kept under corruption" in done.stdout and "dark" in done.stdout
    made = limbeck("report", "runs/run", "--no-samples", cwd=folder)
    page = (folder / "runs" / "run" / "report.html").read_text()
    assert made.returncode == 0 and all(f'id="study-{name}"' in page for name in ("shift", "outside", "edges"))
    before = [e for e in events(folder) if e[0] == "study"]
    again = limbeck("run", cwd=folder)
    assert again.returncode == 0 and [e for e in events(folder) if e[0] == "study"] == before, "a study that was made is kept"
    assert summary(folder)["studies"] == told["studies"]
