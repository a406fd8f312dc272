import importlib.util
import os
import signal
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

import limbeck.runtimes as runtimes
from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, ConfigError
from limbeck.evaluation import measure
from limbeck.evaluation.child import take_turns, waiting_ns

X = {"x": np.ones((1, 64), np.float32)}


def linear(folder: Path, *, hidden: int, name: str = "model.onnx", seed: int = 0) -> Artifact:
    """64 → hidden → 1, random weights."""
    rng = np.random.default_rng(seed)
    weights = [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), n) for n, shape in {"a": (64, hidden), "b": (hidden, 1)}.items()]
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    value = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n, size in {"x": 64, "y": 1}.items()}
    graph = helper.make_graph(nodes, "model", [value["x"]], [value["y"]], weights)
    path = folder / name
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return Artifact(path, "onnxruntime")


# ---- turns ----


class Clock:
    """Time that passes only where a run says so."""

    def __init__(self):
        self.now = self.waited = 0

    def run(self, log: list[str], name: str, *, ms: float, waits_ms: float = 0.0):
        def once() -> None:
            log.append(name)
            self.now += int(ms * 1e6)
            self.waited += int(waits_ms * 1e6)

        return once

    def turns(self, runs, **options):
        return take_turns(runs, waiting=lambda: self.waited, clock=lambda: self.now, **options)


def test_turns_alternate_and_the_first_of_each_is_not_counted():
    clock, log = Clock(), []
    runs = [clock.run(log, "A", ms=1), clock.run(log, "B", ms=3)]
    blocks, _ = clock.turns(runs, seconds=0.0, block=2, min_blocks=3)
    assert "".join(log) == "AAABBB" * 3
    assert blocks == [[[1.0, 1.0]] * 3, [[3.0, 3.0]] * 3]


def test_turns_go_on_until_the_seconds_are_over_and_are_equally_many():
    clock, log = Clock(), []
    runs = [clock.run(log, "A", ms=10), clock.run(log, "B", ms=40)]
    blocks, _ = clock.turns(runs, seconds=1.0, block=1, min_blocks=2)
    assert [len(b) for b in blocks] == [20, 20]  # 2 s for two; a round is 2 · 10 + 2 · 40 ms


def test_waiting_is_charged_to_the_run_that_waited():
    clock, log = Clock(), []
    runs = [clock.run(log, "A", ms=10), clock.run(log, "B", ms=10, waits_ms=2.5)]
    assert clock.turns(runs, seconds=0, block=1, min_blocks=4)[1] == [0.0, 0.25]


@pytest.mark.parametrize("threads", [1, 2])
def test_waiting_never_runs_backwards(threads):
    clock = waiting_ns(threads)
    seen = [clock() for _ in range(5)]
    assert seen == sorted(seen) and seen[0] >= 0


# ---- latency of artifacts ----


def test_latency_has_equal_blocks_for_each_artifact(tmp_path):
    small, large = linear(tmp_path, hidden=8, name="small.onnx"), linear(tmp_path, hidden=4096, name="large.onnx")
    first, second = measure.latency([small, large], X, threads=1, seconds=0.01, block=3, min_blocks=7)
    assert len(first.blocks) == len(second.blocks) >= 7
    assert {len(b) for b in (*first.blocks, *second.blocks)} == {3}
    assert all(s > 0 for s in (*first.samples, *second.samples))
    assert len(first.samples) == 3 * len(first.blocks)


def test_latency_mixes_runtimes_and_takes_feeds_by_position(tmp_path):
    artifacts = [card.empty(tmp_path / card.name) for card in runtimes.ALL]
    taken = measure.latency(artifacts, {"0": np.ones(4)}, threads=1, seconds=0, block=1, min_blocks=2)
    assert [len(one.blocks) for one in taken] == [2, 2]


def test_disturbed_is_a_twentieth_of_the_time(tmp_path, monkeypatch):
    answer = {"blocks": [[[1.0]], [[1.0]]], "waited": [0.049, 0.051]}
    monkeypatch.setattr(measure, "_answer", lambda *args, **options: answer)
    artifact = Artifact(tmp_path / "a.onnx", "onnxruntime")
    assert [one.disturbed for one in measure.latency([artifact, artifact], X, threads=1)] == [False, True]


def test_numbers_out_of_range_are_refused(tmp_path):
    artifact = Artifact(tmp_path / "a.onnx", "onnxruntime")
    for name in ("threads", "block", "min_blocks"):
        with pytest.raises(ConfigError, match=rf"latency\.{name} must be at least 1, got 0"):
            measure.latency([artifact], X, **{"threads": 1, name: 0})
    with pytest.raises(ConfigError, match=r"peak_memory\.runs"):
        measure.peak_memory(artifact, X, threads=1, runs=0)
    assert measure.latency([], X, threads=1) == []


# ---- memory and size ----


def test_peak_memory_grows_with_the_weights_and_has_no_torch_in_it(tmp_path):
    small = measure.peak_memory(linear(tmp_path, hidden=8, name="small.onnx"), X, threads=1)
    wide = linear(tmp_path, hidden=200_000, name="wide.onnx")  # 52 MB of weights
    large = measure.peak_memory(wide, X, threads=1)
    assert 0 <= small < 20_000_000  # torch alone would be 150 MB
    assert large - small > 0.8 * wide.size_bytes


def test_empty_artifact_needs_next_to_nothing(tmp_path):
    for card in runtimes.ALL:
        assert 0 <= measure.peak_memory(card.empty(tmp_path / card.name), {"0": np.ones(1)}, threads=1) < 10_000_000


def test_third_partys_model_is_measured():
    spec = importlib.util.find_spec("magika")
    if spec is None:
        pytest.skip("magika isn't installed; it brings a third party's ONNX model")
    path = next(Path(spec.submodule_search_locations[0]).rglob("*.onnx"))
    card = runtimes.of_file(path)
    artifact = Artifact(path, card.name)
    feed = runtimes.random_feed(card.load(artifact, 1).inputs, 1, 0)
    (taken,) = measure.latency([artifact], feed, threads=1, seconds=0, block=2, min_blocks=3)
    assert [len(b) for b in taken.blocks] == [2, 2, 2]
    assert measure.peak_memory(artifact, feed, threads=1, runs=2) > artifact.size_bytes
    assert 0 < measure.download_bytes(artifact) < artifact.size_bytes


def test_download_is_the_sum_of_its_deflated_files(tmp_path):
    folder = tmp_path / "artifact"
    (folder / "inner").mkdir(parents=True)
    noise, zeros = np.random.default_rng(0).bytes(3_000_000), bytes(1_000_000)
    (folder / "noise").write_bytes(noise)
    (folder / "inner" / "zeros").write_bytes(zeros)
    expected = len(zlib.compress(noise, 9)) + len(zlib.compress(zeros, 9))
    assert measure.download_bytes(Artifact(folder, "onnxruntime")) == expected
    assert measure.download_bytes(Artifact(folder / "inner" / "zeros", "onnxruntime")) < 2000


# ---- what goes wrong in the child ----


def test_corrupt_artifact_is_named(tmp_path):
    good, bad = linear(tmp_path, hidden=8), tmp_path / "bad.onnx"
    bad.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"bad\.onnx can't be loaded"):
        measure.latency([good, Artifact(bad, "onnxruntime")], X, threads=1)
    with pytest.raises(ArtifactError, match=r"bad\.onnx can't be loaded"):
        measure.peak_memory(Artifact(bad, "onnxruntime"), X, threads=1)


def test_feed_that_does_not_fit_is_named(tmp_path):
    artifact = linear(tmp_path, hidden=8)
    with pytest.raises(ArtifactError, match=r"input 'x' must have the shape \[any, 64\], got \[1, 63\]"):
        measure.latency([artifact], {"x": np.ones((1, 63), np.float32)}, threads=1)
    with pytest.raises(ArtifactError, match="input 'x' must be numbers, got object"):
        measure.latency([artifact], {"x": np.array([None])}, threads=1)


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process(os.getpid()).children() if "limbeck.evaluation.child" in " ".join(p.cmdline())]


def test_child_that_is_killed_is_an_error_with_its_signal(tmp_path):
    artifact = linear(tmp_path, hidden=8)

    def kill() -> None:
        for _ in range(3000):
            if found := children():
                found[0].send_signal(signal.SIGKILL)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ArtifactError, match=r"model\.onnx brought its process down: SIGKILL"):
        measure.latency([artifact], X, threads=1, seconds=60)
    killer.join()


def test_child_that_fails_unexpectedly_shows_its_last_line(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise RuntimeError('no numpy today')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ArtifactError, match=r"brought its process down: exit code 1\. Its last line: RuntimeError: no numpy today"):
        measure.latency([linear(tmp_path, hidden=8)], X, threads=1)


def test_numpy_in_the_users_folder_is_not_numpy(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    assert measure.latency([linear(tmp_path, hidden=8)], X, threads=1, seconds=0, block=1, min_blocks=1)


def test_taking_too_long_is_an_error_and_leaves_no_process(tmp_path):
    with pytest.raises(ArtifactError, match=r"model\.onnx: measuring took longer than 0\.05 s"):
        measure.latency([linear(tmp_path, hidden=8)], X, threads=1, seconds=60, timeout_s=0.05)
    assert not children()


def test_child_sees_the_threads_in_its_environment(tmp_path, monkeypatch):
    seen = {}

    def run(command, **options):
        seen.update(options["env"])
        raise OSError("stop here")

    monkeypatch.setattr(measure.subprocess, "Popen", run)
    with pytest.raises(OSError, match="stop here"):
        measure.latency([linear(tmp_path, hidden=8)], X, threads=3)
    assert (seen["OMP_NUM_THREADS"], seen["OMP_WAIT_POLICY"]) == ("3", "PASSIVE")
