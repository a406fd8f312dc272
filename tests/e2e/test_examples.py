"""Every example runs, and says what it should."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def output(name: str, *words: str) -> str:
    done = subprocess.run([sys.executable, EXAMPLES / name, *words], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_loop():
    teacher, student = (float(line.split()[1]) for line in output("own_loop.py").splitlines())
    assert teacher > 0.9 and student > 0.85


def test_from_python(tmp_path):
    assert output("from_python.py", str(tmp_path)).startswith("PASS")


def test_every_example_is_run():
    assert {p.name for p in EXAMPLES.glob("*.py")} == {"from_python.py", "own_loop.py"}
