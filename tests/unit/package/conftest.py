"""One small run and its package, made once for all tests of packages."""

import dataclasses
import shutil
from pathlib import Path

import pytest

import limbeck
from limbeck import Contract, Gate, Package, Plan, Stage, Target, api
from limbeck.testing import small_task

PREPROCESS = {"image": {"layout": "NCHW", "mean": (0.5,), "size": [8, 8]}}
LIMITS = Contract(retention=0.3, size_ratio=1.5, latency_p90_ms=60_000, speedup_p50=1e-6, peak_memory_bytes=1 << 40)


@pytest.fixture(scope="session")
def task():
    return dataclasses.replace(small_task(), preprocess=PREPROCESS)


def carried_out(task, root: Path, *, host: str = "imported", runtime: str = "onnxruntime", contract: Contract = LIMITS) -> limbeck.Run:
    """A run of one quantization; on a target elsewhere nothing is timed here."""
    plan = Plan(stages=(Stage(technique="quantize", config={"samples": 32}, gate=Gate(pays="bytes", shrink=1.05, retention=0.3)),), control=False)
    return limbeck.compress(task, contract, plan, target=Target(host=host, runtime=runtime), root=root, timing_seconds=0.02, proof=limbeck.Proof(studies="none"))


@pytest.fixture(scope="session")
def kept(task, tmp_path_factory) -> Path:
    """A run's folder that nobody changes."""
    return carried_out(task, tmp_path_factory.mktemp("kept")).folder


@pytest.fixture
def run(kept, tmp_path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(kept, tmp_path / "runs" / "run"))


@pytest.fixture(scope="session")
def whole(kept, tmp_path_factory) -> Package:
    """Its package, which nobody changes."""
    return api.package(kept, out=tmp_path_factory.mktemp("whole") / "quarters")


@pytest.fixture
def package(whole, tmp_path) -> Package:
    """A copy of it, zip and all, to change."""
    for path in whole.folder.parent.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, tmp_path / path.name)
    return Package.open(tmp_path / whole.folder.name)
