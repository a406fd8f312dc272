"""The emulation of CPUs without VNNI against ONNX Runtime's own kernels for them, which run here once VNNI is hidden from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from quarters import made

from limbeck.evaluation.graph.emulation import Emulator, emulator
from limbeck.mechanics.data import batch_of, feed
from limbeck.runtimes.onnxruntime import load

RUN = "import sys, numpy as n, onnxruntime as o; s = o.InferenceSession(sys.argv[1]); n.save(sys.argv[3], s.run(None, dict(n.load(sys.argv[2])))[0])"
CANNOT = 77  # what the process leaves with where cpuid can't be answered for


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    compiler, path = shutil.which("gcc") or shutil.which("cc"), tmp_path_factory.mktemp("hide") / "hide.so"
    if compiler is None or sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("hiding VNNI takes a C compiler, on Linux on x86-64")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(Path(__file__).with_name("hide_vnni.c")), "-o", str(path)], check=True)
    return path


def real(library: Path, folder: Path, model: Path, inputs: dict[str, np.ndarray], hide: str) -> np.ndarray:
    np.savez(folder / "feed.npz", **inputs)
    command = [sys.executable, "-c", RUN, str(model), str(folder / "feed.npz"), str(folder / "out.npy")]
    done = subprocess.run(command, env=os.environ | {"LD_PRELOAD": str(library), "HIDE": hide}, timeout=120)
    if done.returncode == CANNOT:
        pytest.skip("this CPU, or its kernel, can't fault on cpuid")
    assert done.returncode == 0
    return np.load(folder / "out.npy")


def prepared(kind: str) -> tuple[Emulator, Path, dict[str, np.ndarray]]:
    setting = made(kind)
    assert setting.task
    given = feed(setting.task, batch_of(setting.task, "test", range(16)))
    session = load(setting.candidate.artifact)
    return emulator(setting.candidate.artifact), setting.candidate.artifact.path, dict(zip((i.name for i in session.inputs), given.values(), strict=True))


@pytest.mark.parametrize("hide", ["avx2", "avx512"])
@pytest.mark.parametrize("kind", ["images", pytest.param("words", marks=pytest.mark.slow)])
def test_cut_off_sums_are_those_of_the_kernels_without_vnni(library: Path, tmp_path: Path, kind: str, hide: str):
    emulated, model, inputs = prepared(kind)
    there = real(library, tmp_path, model, inputs, hide)
    predicted, exact = (next(iter(emulated(inputs, mode).values())) for mode in ("neighbours", "exact"))
    assert np.array_equal(predicted, there)  # bit for bit
    assert not np.array_equal(exact, there)  # and it matters


def test_weights_of_seven_bits_answer_alike_everywhere(library: Path, tmp_path: Path):
    setting = made(reduce_range=True)
    assert setting.task
    session = load(setting.candidate.artifact)
    given = feed(setting.task, batch_of(setting.task, "test", range(16)))
    there = real(library, tmp_path, setting.candidate.artifact.path, {session.inputs[0].name: next(iter(given.values()))}, "avx2")
    emulated = emulator(setting.candidate.artifact)
    assert not any(p.at_risk("sorted") for p in emulated.products.values())
    assert np.array_equal(next(iter(emulated(given, "exact").values())), there) and np.array_equal(next(iter(session(given).values())), there)
