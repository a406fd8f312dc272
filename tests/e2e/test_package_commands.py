"""From a run to a package and back, as a user types it: package, verify, predict.py, evidence import."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from project import PLAN, TASK, limbeck, summary, write_project

QUICK = PLAN[PLAN.index('[[stage]]\ntechnique = "quantize"') :] + '\n[target]\nhost = "imported"\n'
CONTRACT = "retention = 0.3\nlatency_p90_ms = 60000.0\nspeedup_p50 = 0.000001"
PREPROCESSED = TASK.replace("task = small_task()", "import dataclasses\ntask = dataclasses.replace(small_task(), preprocess={'layout': 'NCHW'})")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = write_project(tmp_path_factory.mktemp("project"), contract=CONTRACT, plan=QUICK, task=PREPROCESSED, run="control = false")
    assert limbeck("run", cwd=folder).returncode == 4
    return folder


@pytest.fixture
def folder(project, tmp_path) -> Path:
    return Path(shutil.copytree(project, tmp_path / "project"))


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-B", *words], cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120)


def test_the_whole_way_there_and_back(folder):
    made = limbeck("package", "runs/run", cwd=folder)
    assert made.returncode == 0 and "UNVERIFIED (the run's verdict)" in made.stdout and "without report" in made.stdout, made
    for path in ("packages/run", "packages/run.zip"):
        held = limbeck("verify", path, cwd=folder)
        assert held.returncode == 0 and "8 golden answers as they should be" in held.stdout and "not checked: who made it" in held.stdout, held
    assert python("packages/run/predict.py", "--self-test", cwd=folder).returncode == 0
    assert python("packages/run/predict.py", "--measure", "--seconds", "0.5", "--out", "board.json", cwd=folder).returncode == 0
    imported = limbeck("evidence", "import", "runs/run", "board.json", cwd=folder)
    assert imported.returncode == 0 and "measured on" in imported.stdout and "PASS run" in imported.stdout, imported
    assert summary(folder)["verdict"] == "PASS" and "evidence from" in limbeck("status", "runs/run", cwd=folder).stdout
    assert limbeck("run", cwd=folder).returncode == 0 and summary(folder)["verdict"] == "PASS"  # the run's own command keeps it
    assert limbeck("verify", "runs/run", cwd=folder).returncode == 0


def test_json_is_the_same_in_one_object(folder):
    made = json.loads(limbeck("package", "runs/run", "--out", "out/mine", "--no-baseline", "--json", cwd=folder).stdout)
    assert made["schema"] == 1 and made["verdict"] == "UNVERIFIED" and made["baseline"] is None and made["folder"] == "out/mine" and made["golden"] == 8
    path = folder / made["folder"] / made["artifact"]["path"]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    found = limbeck("verify", "out/mine", "--json", cwd=folder)
    data = json.loads(found.stdout)
    assert found.returncode == 3 and data["problems"] == [{"file": "model/model.onnx", "what": "its bytes don't have their hash"}] and data["golden"] is None
    assert python("out/mine/predict.py", "--measure", "--seconds", "0.01", cwd=folder).returncode == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["package", "runs"], "runs is not a run folder"),
        (["package", "runs/run", "--stage", "quantise"], "Did you mean 'quantize'?"),
        (["package", "runs/run", "--out", "runs"], "runs exists and holds something else"),
        (["evidence", "import", "runs/run", "limbeck.toml"], "limbeck.toml is not JSON"),
        (["evidence", "import", "runs/run", "nowhere.json"], "nowhere.json can't be read"),
        (["evidence", "import", "runs/run", "runs/run/summary.json"], "summary.json is no evidence"),
        (["verify", "nowhere.zip"], "nowhere.zip is not a run folder"),
    ],
)
def test_a_wrong_word_gets_a_message_and_no_traceback(folder, words, message):
    done = limbeck(*words, cwd=folder)
    assert done.returncode == 2 and message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
def test_a_package_for_torch_needs_torch_and_numpy_and_no_limbeck(tmp_path):
    """The other runtime: packaged, verified, asked and measured where limbeck can't be imported."""
    folder = write_project(tmp_path, contract=CONTRACT, plan=QUICK + 'runtime = "torch"\n', run="control = false")
    assert limbeck("run", cwd=folder).returncode == 4 and limbeck("package", "runs/run", cwd=folder).returncode == 0
    held = limbeck("verify", "packages/run.zip", cwd=folder)
    assert held.returncode == 0 and "8 golden answers as they should be" in held.stdout, held
    blocker = folder / "blocker"
    blocker.mkdir()
    finder = "class No:\n    def find_spec(self, name, path=None, target=None):\n        if name.split('.')[0] == 'limbeck': raise ImportError(name)\n"
    (blocker / "sitecustomize.py").write_text(f"import sys\n{finder}sys.meta_path.insert(0, No())\n")
    environment = os.environ | {"PYTHONPATH": str(blocker), "OMP_NUM_THREADS": "1"}
    for words in (["-c", "import limbeck"], ["packages/run/predict.py", "--self-test"], ["packages/run/predict.py", "--measure", "--seconds", "0.01"]):
        done = subprocess.run([sys.executable, "-B", *words], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == (1 if "-c" in words else 0), done
    assert limbeck("evidence", "import", "runs/run", "evidence.json", cwd=folder).returncode == 0
