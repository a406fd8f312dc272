"""`limbeck report` from outside: what it writes, prints and leaves with."""

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from project import limbeck

PAST = Path(__file__).parents[1] / "golden" / "runs" / "0.1.0"


@pytest.fixture
def run(tmp_path) -> Path:
    return Path(shutil.copytree(PAST, tmp_path / "runs" / "old"))


def test_it_writes_beside_the_run_and_says_where(run, tmp_path):
    (tmp_path / "task.py").write_text("from limbeck.testing import small_task\ntask = small_task()\n")
    done = limbeck("report", "runs/old", cwd=tmp_path)
    assert done.returncode == 0 and "PASS runs/old/report.html" in done.stdout and "no samples: the run doesn't say which run file" in done.stdout
    told = limbeck("report", "runs/old", "--task", "task.py:task", "--out", "there.html", "--json", cwd=tmp_path)
    data = json.loads(told.stdout)
    assert told.returncode == 0 and data["samples"] and data["file"] == "there.html" and data["size_bytes"] == (tmp_path / "there.html").stat().st_size
    assert b"data:image/png" in (tmp_path / "there.html").read_bytes() and b"data:image/png" not in (run / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("report", "runs/none"), "there is no run folder"),
        (("report", "runs/old", "--out", "runs"), "--out runs is a folder"),
        (("report", "runs/old", "--task", "task.py"), "a task is named as file.py:name"),
    ],
)
def test_what_can_t_be_is_said_in_one_line(run, tmp_path, words, message):
    done = limbeck(*words, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr and not (run / "report.html").exists()
