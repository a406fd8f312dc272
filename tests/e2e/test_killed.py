"""kill −9 at every write, and what is left behind: see killing.py."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from project import write_project

INTERVAL = 5
SCHEDULE = f"batch_size = 16, checkpoint_steps = {INTERVAL}"
PLAN = f"""
[[stage]]
technique = "distill"
config = {{ student = "small", training = {{ epochs = 8, learning_rate = 1e-2, {SCHEDULE} }} }}
gate = {{ pays = "bytes", shrink = 1.05, retention = 0.3 }}

[[stage]]
technique = "prune"
config = {{ ratio = 0.3, round_to = 4 }}
recovery = {{ training = {{ epochs = 2, {SCHEDULE} }} }}
gate = {{ pays = "bytes", shrink = 1.05, retention = 0.3 }}

[[stage]]
technique = "quantize"
config = {{ samples = 64 }}
gate = {{ pays = "bytes", shrink = 1.05, retention = 0.3 }}
"""
DIGITS = """
[task]
entry = "task.py:task"

[contract]
retention = 0.1
size_ratio = 2

[run]
timing_seconds = 0.1

[[stage]]
technique = "distill"
config = { student = "limbeck:convnet", options = { width = 8, depth = 2 }, training = { epochs = 4, checkpoint_steps = 5, learning_rate = 1e-2 } }
gate = { pays = "bytes", shrink = 1.05, retention = 0.1 }

[[stage]]
technique = "prune"
config = { ratio = 0.3, round_to = 4 }
recovery = { training = { epochs = 1, checkpoint_steps = 5 } }
gate = { pays = "bytes", shrink = 1.05, retention = 0.1 }

[[stage]]
technique = "quantize"
config = { samples = 64 }
gate = { pays = "bytes", shrink = 1.01, retention = 0.1 }
"""


def harness(project: Path, work: Path, *words: str) -> dict[str, Any]:
    """What killing.py says, in a process of its own that nothing else has threads in."""
    command = [sys.executable, str(Path(__file__).parent / "killing.py"), str(project), str(work), "--interval", str(INTERVAL), *words]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["broken"], "\n".join(found["broken"])
    assert not found["unseen"], f"written past Python, so that no kill was tried there: {found['unseen']}"
    return found


def test_a_run_killed_at_a_write_a_step_or_a_measurement_comes_to_the_same_end(tmp_path):
    """A sample: really killed in mid-interval of training and while a child measures; else from the folder that a kill would leave."""
    project = write_project(tmp_path / "project", plan=PLAN, run="control = false\n")
    copies = ["os.rename:checkpoints/:-1", "torn:stages/:-1", "os.rename:HEAD:-1", "torn:journal:-1"]
    found = harness(project, tmp_path / "work", "--walk", *copies, "--kill", "step:distilling:7", "subprocess.Popen::0")
    assert found["states"] == 4 and len(found["kills"]) == 2 and found["verdicts"] == ["PASS"] * 4


@pytest.mark.slow
def test_a_run_killed_at_every_write_comes_to_the_same_end(tmp_path):
    project = write_project(tmp_path / "project", plan=PLAN)
    found = harness(project, tmp_path / "work", "--walk", "all", "--kill", "every:25", "--at-once", "2")
    assert found["events"] > 300 and found["states"] > 200 and found["verdicts"] == ["PASS"] * 4


@pytest.mark.slow
def test_the_demo_killed_in_its_teacher_and_after_comes_to_the_same_end(tmp_path):
    """scikit-learn's digits, with the teacher's own training, on a tiny schedule."""
    import limbeck.demo

    source = Path(limbeck.demo.__file__).parent / "digits"
    project = tmp_path / "project"
    project.mkdir()
    (project / "demo").touch()
    (project / "task.py").write_text((source / "task.py").read_text().replace("epochs: int = 12", "epochs: int = 1"))
    (project / "quick.toml").write_text(DIGITS)
    found = harness(project, tmp_path / "work", "--walk", "every:7", "--kill", "os.rename:teacher:0", "open:limbeck.toml:0", "every:80", "--at-once", "2")
    assert found["events"] > 300 and found["verdicts"] == ["PASS"] * 4


HALF = """
import os, pathlib
def train_teacher(path):
    pathlib.Path(path).write_bytes(b"half of a te")
    os.kill(os.getpid(), 9)
"""
WHOLE = """
import pathlib
def train_teacher(path):
    pathlib.Path(path).write_bytes(b"a whole teacher")
"""
PREPARES = """
import sys
from pathlib import Path
from limbeck.demo.prepare import prepare
class Log:
    def event(self, event, **data): pass
    def progress(self, done, total, note): pass
prepare(Path(sys.argv[1]), quick=True, log=Log())
"""


def test_a_demo_killed_while_its_teacher_is_written_has_none(tmp_path):
    for task, ends, teacher in ((HALF, -signal.SIGKILL, None), (WHOLE, 0, b"a whole teacher")):
        (tmp_path / "task.py").write_text(task)
        done = subprocess.run([sys.executable, "-c", PREPARES, str(tmp_path)], capture_output=True, text=True)
        path = tmp_path / "teacher.safetensors"
        assert done.returncode == ends, done.stderr
        assert (path.read_bytes() if path.exists() else None) == teacher
    assert not list(tmp_path.glob(".*"))


MEASURES = """
import sys
from pathlib import Path
import numpy as np
from limbeck.evaluation import measure
from limbeck.runtimes.onnxruntime import ONNXRUNTIME
measure.latency([ONNXRUNTIME.empty(Path(sys.argv[1]))], {"x": np.zeros(1, np.float32)}, threads=1, min_blocks=10**9)
"""


def test_a_killed_parent_leaves_no_child_that_measures(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", MEASURES, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while not children and time.monotonic() < deadline:
        children = [c for c in psutil.Process(parent.pid).children() if "limbeck.evaluation.processes.child" in c.cmdline()]
        time.sleep(0.02)
    time.sleep(1.0)  # into its turns
    assert children and children[0].is_running(), "nothing was measured"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=20)
    for process in alive:
        process.kill()
    assert gone and not alive, "the measuring child outlived its parent"
