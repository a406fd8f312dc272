"""A small project of a user's: a task file and a run file, for tests that go through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TASK = """
from limbeck.testing import small_task
task = small_task()
"""
PLAN = """
[[stage]]
technique = "distill"
config = { student = "small", training = { epochs = 3, batch_size = 16, checkpoint_steps = 3 } }
gate = { pays = "bytes", shrink = 1.05, retention = 0.3 }

[[stage]]
technique = "prune"
config = { ratio = 0.3, round_to = 4 }
recovery = { training = { epochs = 2, batch_size = 16, checkpoint_steps = 3 } }
gate = { pays = "bytes", shrink = 1.05, retention = 0.3 }

[[stage]]
technique = "quantize"
config = { samples = 64 }
gate = { pays = "bytes", shrink = 1.05, retention = 0.3 }
"""


def write_project(folder: Path, *, contract: str = "retention = 0.3\nsize_ratio = 1.5", plan: str = PLAN, task: str = TASK, run: str = "", studies: str = "none") -> Path:
    """Write task.py and limbeck.toml; returns the folder. `studies` beside the contract cost seconds each: those that are asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.py").write_text(task)
    (folder / "limbeck.toml").write_text(f'[task]\nentry = "task.py:task"\n\n[contract]\n{contract}\n\n[run]\ntiming_seconds = 0.1\n{run}\n[proof]\nstudies = "{studies}"\n{plan}')
    return folder


def limbeck(*words: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    none = {"LIMBECK_PROOF_STUDIES": "none"} if words and words[0] in ("evaluate", "compare") else {}  # studies cost seconds: a test asks for those that it means
    environment = {**none, **os.environ} | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run([sys.executable, "-c", "from limbeck.cli.main import main; main()", *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def summary(folder: Path, name: str = "run") -> dict[str, Any]:
    return json.loads((folder / "runs" / name / "summary.json").read_text())


def events(folder: Path, name: str = "run") -> list[Any]:
    """The journal without times and hashes of lines."""
    return [[line["event"], line["data"]] for line in map(json.loads, (folder / "runs" / name / "journal.jsonl").read_text().splitlines())]
