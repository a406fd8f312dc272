"""A run with the studies of behaviour: in its summary, in its report, and made again from what was kept."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from project import limbeck, summary, write_project

NAMES = ("answers", "forgotten", "found_slices", "layers")
TASK = """
from dataclasses import replace
from limbeck import by_label
from limbeck.testing import small_task
task = replace(small_task(), slices=by_label(4), features=lambda batch: {"brightness": batch[0].mean((1, 2, 3))})
"""
PLAN = """
[[stage]]
technique = "quantize"
config = { samples = 32 }
gate = { pays = "bytes", shrink = 1.05, retention = 0.3 }
"""


@pytest.mark.slow
def test_a_run_keeps_shows_and_reports_how_its_artifact_behaves(tmp_path: Path):
    folder = write_project(tmp_path, plan=PLAN, task=TASK, run="control = false\n", contract="retention = 0.3\nworst_slice_drop = 1", studies=", ".join(NAMES))
    done = limbeck("run", cwd=folder)
    told = summary(folder)
    made = told["studies"]
    assert tuple(made) == NAMES and not any("missing" in data for data in made.values()), done.stderr
    assert made["found_slices"]["features"] == ["label", "confidence of both", "brightness"] and made["answers"]["samples"] == made["forgotten"]["samples"] == 96
    assert [layer["path"] for layer in made["layers"]["layers"]][-1] == "head" and made["layers"]["mean"] > 0.8
    assert {s["name"] for s in told["behaviour"]["slices"]} == {f"label {i}" for i in range(4)}
    assert all(f"  {line}" in done.stdout for line in ("answers: ", "forgotten: ", "layers: ")) and "found slices" in done.stdout
    assert limbeck("report", "runs/run", "--out", "page.html", cwd=folder).returncode == 0
    page = (folder / "page.html").read_text()
    assert all(f'id="study-{name}"' in page for name in NAMES) and "How sure the baseline is" in page
