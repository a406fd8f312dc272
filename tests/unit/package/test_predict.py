"""`predict.py` as it is deployed: in a process that has numpy and the runtime, and neither torch nor limbeck."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from limbeck.core.seal import holds
from limbeck.package.evidence import read_evidence
from limbeck.package.golden import samples_of

ALONE = ("numpy", "numpy.libs", "onnxruntime")  # all that it may need


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> Path:
    """A folder that holds links to numpy and onnxruntime, and nothing else."""
    folder = tmp_path_factory.mktemp("libraries")
    for name in ALONE:
        spec = importlib.util.find_spec(name.partition(".")[0])
        assert spec and spec.submodule_search_locations
        place = Path(spec.submodule_search_locations[0]).with_name(name)
        if place.exists():
            (folder / name).symlink_to(place)
    return folder


@pytest.fixture
def deployed(package, libraries):
    """Run the package's predict.py without site packages; PYTHONPATH has the links alone."""

    def call(*words: str, path: Path | str = libraries, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-S", "-B", str(package.folder / "predict.py"), *words]
        return subprocess.run(command, cwd=cwd or package.folder.parent, env=environment, capture_output=True, text=True, timeout=120)

    return call


def test_there_is_neither_torch_nor_limbeck_where_it_runs(libraries):
    code = "import importlib.util as u; print([n for n in ('torch', 'limbeck', 'onnx', 'scipy') if u.find_spec(n)], bool(u.find_spec('onnxruntime')))"
    done = subprocess.run([sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(libraries)}, cwd=libraries, capture_output=True, text=True)
    assert done.stdout.strip() == "[] True", done


def test_it_answers_as_the_run_did(deployed, package):
    golden = [samples_of((package.folder / "golden" / f"{side}.npz").read_bytes(), where=side) for side in ("inputs", "outputs")]
    np.savez(package.folder.parent / "in.npz", image=np.concatenate([s["image"] for s in golden[0]]))
    done = deployed("in.npz", "-o", "out.npz")
    assert done.returncode == 0 and "logits [8, 4]" in done.stdout, done
    with np.load(package.folder.parent / "out.npz") as out:
        assert np.array_equal(out["logits"], np.concatenate([s["logits"] for s in golden[1]]))
    printed = json.loads(deployed("in.npz").stdout)
    assert np.allclose(printed["logits"], np.concatenate([s["logits"] for s in golden[1]]))


def test_the_self_test_passes_and_says_what_it_could_not_check(deployed, package, tmp_path):
    done = deployed("--self-test")
    assert done.returncode == 0 and "10 files have their hashes" in done.stdout and "8 golden answers, bit for bit" in done.stdout, done
    assert "not checked: who made the package" in done.stdout
    only_numpy = tmp_path / "numpy alone"
    only_numpy.mkdir()
    (only_numpy / "numpy").symlink_to(Path(np.__file__).parent)
    (only_numpy / "numpy.libs").symlink_to(Path(np.__file__).parents[1] / "numpy.libs")
    done = deployed("--self-test", path=only_numpy)
    assert done.returncode == 0 and "not checked: golden answers; the runtime can't be imported" in done.stdout, done
    assert not list(package.folder.rglob("__pycache__"))


@pytest.mark.parametrize("name", ["model/model.onnx", "manifest.json", "golden/outputs.npz", "predict.py", "MODEL_CARD.md"])
def test_the_self_test_fails_on_a_changed_file_and_names_it(deployed, package, name):
    path = package.folder / name
    path.write_bytes(path.read_bytes()[:-1] + (b"#" if name == "predict.py" else b"?"))
    done = deployed("--self-test")
    assert done.returncode == 3 and name in done.stdout + done.stderr and "golden answers, bit" not in done.stdout, done
    if name == "model/model.onnx":
        np.savez(package.folder.parent / "in.npz", image=np.zeros((1, 1, 8, 8), np.float32))
        assert deployed("in.npz").returncode == 3
        assert deployed("--measure", "--seconds", "0.01").returncode == 3 and not (package.folder.parent / "evidence.json").exists()


def test_measuring_writes_evidence_bound_to_the_artifact(deployed, package):
    done = deployed("--measure", "--seconds", "0.01", "--out", "e.json")
    assert done.returncode == 0, done
    measured, data = read_evidence(package.folder.parent / "e.json")
    assert (measured.artifact, measured.baseline) == (package.manifest.artifact.sha256, package.manifest.baseline.sha256)
    assert holds(data, (package.folder.parent / "e.json").read_bytes()) and data["golden"] == {"samples": 8, "max_rel": 0.0, "holds": True}
    assert len(measured.latency.blocks) == len(measured.baseline_latency.blocks) >= 20 and {len(b) for b in measured.latency.blocks} == {5}
    assert measured.peak_memory_bytes > 0 and measured.threads == measured.batch == 1 and measured.versions["onnxruntime"] and measured.machine["cores"]
    inside = deployed("--measure", "--seconds", "0.01", cwd=package.folder)  # never into the package itself
    assert inside.returncode == 0 and (package.folder.parent / "evidence.json").exists() and package.verify()["clean"]


def test_without_a_baseline_it_says_what_that_costs(run, tmp_path, libraries):
    from limbeck import api

    made = api.package(run, out=tmp_path / "alone", baseline=False)
    command = [sys.executable, "-S", "-B", str(made.folder / "predict.py"), "--measure", "--seconds", "0.01"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(libraries)}, capture_output=True, text=True)
    assert done.returncode == 0 and "a limit on speedup stays UNVERIFIED" in done.stdout, done
    assert read_evidence(tmp_path / "evidence.json")[0].baseline is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"picture": np.zeros((1, 1, 8, 8), np.float32)}, "the model takes image; got picture"),
        ({"image": np.zeros((1, 1, 8, 8), np.int64)}, "input 'image' must be float32, got int64"),
        ({"image": np.zeros((1, 8, 8), np.float32)}, "must have the shape ['any', 1, 8, 8], got [1, 8, 8]"),
    ],
)
def test_a_wrong_input_gets_a_message(deployed, package, arrays, message):
    np.savez(package.folder.parent / "in.npz", **arrays)
    done = deployed("in.npz")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done


def test_what_is_no_npz_gets_a_message(deployed, package):
    (package.folder.parent / "in.npz").write_bytes(b"no arrays")
    for name in ("in.npz", "nowhere.npz"):
        done = deployed(name)
        assert done.returncode == 2 and f"{name} is no .npz of arrays" in done.stderr and "Traceback" not in done.stderr
    assert deployed().returncode == 2
