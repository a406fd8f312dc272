import gc
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
from limbeck.core.evidence import Latency
from limbeck.evaluation import measure
from limbeck.evaluation.processes import child
from limbeck.evaluation.processes.child import steady, take_turns, waiting_ns, warm_up
from limbeck.evaluation.processes.until import MOST_BLOCKS, Goal, Rounds
from limbeck.runtimes.card import InputSpec

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

    def turns(self, runs, *, block, seconds, min_blocks, goal=None):
        rounds = Rounds(seconds=seconds, runs=len(runs), min_blocks=min_blocks, goal=goal)
        return take_turns(runs, rounds=rounds, block=block, waiting=lambda: self.waited, clock=lambda: self.now)


def test_turns_alternate_there_and_back_and_the_first_of_each_is_not_counted():
    clock, log = Clock(), []
    runs = [clock.run(log, "A", ms=1), clock.run(log, "B", ms=3)]
    blocks, _ = clock.turns(runs, seconds=0.0, block=2, min_blocks=3)
    assert "".join(log) == "AAABBB" + "BBBAAA" + "AAABBB"
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


# ---- how long is timed ----


def goal(limit: float, *, q: float = 0.9, early: bool = True) -> Goal:
    return Goal(limits={q: limit}, judged=0, early=early)


def test_turns_end_early_once_the_limit_is_settled():
    clock = Clock()
    (kept,), _ = clock.turns([clock.run([], "A", ms=10)], seconds=2, block=5, min_blocks=10, goal=goal(12.0))
    assert len(kept) == 10  # 50 inferences, none over: settled, in 0.6 s
    (refused,), _ = clock.turns([clock.run([], "A", ms=10)], seconds=0.5, block=5, min_blocks=3, goal=goal(8.0))
    assert len(refused) == 3
    (fast,), _ = clock.turns([clock.run([], "A", ms=0.1)], seconds=2, block=5, min_blocks=10, goal=goal(12.0))
    assert 0.5 <= len(fast) * 6 * 0.1e-3 < 0.56  # not before a quarter of the time


def test_turns_do_not_end_early_where_a_ratio_is_judged_too():
    clock = Clock()
    (blocks,), _ = clock.turns([clock.run([], "A", ms=10)], seconds=3, block=5, min_blocks=10, goal=goal(12.0, early=False))
    assert len(blocks) == 50  # 3 s, a turn being 6 · 10 ms


def test_turns_go_on_while_what_a_limit_takes_is_within_reach():
    clock = Clock()
    (blocks,), _ = clock.turns([clock.run([], "A", ms=10)], seconds=0.6, block=5, min_blocks=2, goal=goal(12.0))
    assert 10 <= len(blocks) <= 12  # 50 inferences take 0.6 s; looked at again after a tenth more
    (over_time,), _ = clock.turns([clock.run([], "A", ms=10)], seconds=0.2, block=5, min_blocks=2, goal=goal(12.0))
    assert 10 <= len(over_time) <= 12  # thrice the time that was asked for
    (hopeless,), _ = clock.turns([clock.run([], "A", ms=10)], seconds=0.1, block=5, min_blocks=2, goal=goal(12.0))
    assert len(hopeless) == 2  # six times the time: not begun


def test_turns_at_the_limit_itself_end_with_the_time():
    rounds = Rounds(seconds=1.0, runs=1, min_blocks=2, goal=goal(5.0))
    at_the_limit = [[[9.0, *[1.0] * 9]] * 40]
    assert rounds.more(at_the_limit, int(0.9e9)) and not Rounds(seconds=1.0, runs=1, min_blocks=2, goal=goal(5.0)).more(at_the_limit, int(1.1e9))


def test_rounds_are_bounded():
    endless = Rounds(seconds=1e9, runs=1, min_blocks=2, goal=None)
    assert endless.more([[[1.0]] * (MOST_BLOCKS - 1)], 0) and not endless.more([[[1.0]] * MOST_BLOCKS], 0)


# ---- warm-up ----


class Warming:
    """A run whose time is given by its number, on a clock of its own."""

    def __init__(self, ms):
        self.now, self.ran, self.ms = 0, 0, ms

    def __call__(self):
        self.now += int(self.ms(self.ran) * 1e6)
        self.ran += 1

    def warmed(self, *, seconds):
        return warm_up(self, seconds=seconds, clock=lambda: self.now)


def test_warm_up_ends_when_it_is_steady():
    assert Warming(lambda i: 1.0).warmed(seconds=2)["inferences"] == 16
    found = Warming(lambda i: max(1.0, 50 - 2 * i)).warmed(seconds=2)  # falls for 25 inferences
    assert found["steady"] and 25 + 8 <= found["inferences"] <= 25 + 16


def test_warm_up_has_a_floor_and_a_cap():
    slow = Warming(lambda i: 5000.0).warmed(seconds=2)
    assert slow == {"inferences": 3, "seconds": 15.0, "steady": False}
    falling = Warming(lambda i: 100.0 * 0.99**i).warmed(seconds=2)
    assert not falling["steady"] and 2.0 <= falling["seconds"] <= 2.1


def test_steady_is_a_median_in_the_middle_half_of_those_before():
    noise = [1.0, 1.4, 1.1, 1.3, 1.2, 1.5, 1.6, 0.9]
    assert steady([*noise, *noise[::-1]]) and not steady([*noise, *(0.8 * n for n in noise)])
    assert not steady([*noise, *(1.3 * n for n in noise)]), "a clock that falls isn't steady either"
    assert not steady(noise)


def test_warm_up_is_kept_and_told(tmp_path):
    (taken,) = measure.latency([linear(tmp_path, hidden=8)], X, threads=1, seconds=0, block=1, min_blocks=2)
    assert taken.warm_up is not None and taken.warm_up.inferences == 3 and not taken.warm_up.steady
    assert "before it was steady" in (taken.note or "")
    assert Latency.of(taken.kept()) == taken


def test_what_was_kept_before_is_still_read():
    assert Latency.of({"blocks": [[1.0, 2.0]], "disturbed": True}) == Latency(blocks=((1.0, 2.0),), disturbed=True)
    assert "other work" in (Latency(blocks=((1.0,),), disturbed=True).note or "")


# ---- latency of artifacts ----


def answer(*blocks, waited=None, reasons=(), steady=True):
    """What the child says of runs with these blocks."""
    warm = {"inferences": 16, "seconds": 0.1, "steady": steady}
    return {"blocks": blocks, "waited": waited or [0.0] * len(blocks), "warm_up": [warm] * len(blocks), "reasons": list(reasons), "company": "7 times; load 1.0 on 2 CPUs"}


CALM = answer([[1.0, 1.1]], [[1.0, 1.0]])
SHAKEN = answer([[1.0, 4.0]], [[1.0, 9.0]], waited=[0.06, 0.0])
ROUGH = answer([[1.0, 1.0]], [[1.0, 1.0]], waited=[0.2, 0.3])


@pytest.mark.parametrize(("tries", "kept"), [([CALM, ROUGH], 0), ([SHAKEN, CALM], 1), ([SHAKEN, ROUGH, ROUGH], 0), ([ROUGH, ROUGH, SHAKEN, CALM], 2)])
def test_a_disturbed_timing_is_repeated_twice_at_most_and_the_calmest_is_kept(tmp_path, monkeypatch, tries, kept):
    """By what was disturbed, not by what was timed: the shaken one is kept with its slow inferences."""
    taken, heard = [], []
    monkeypatch.setattr(measure, "asked", lambda *args, **options: taken.append(0) or tries[len(taken) - 1])
    found = measure.latency([Artifact(tmp_path / "a.onnx", "onnxruntime")] * 2, X, threads=1, told=lambda event, why: heard.append((event, why)))
    assert [list(map(list, one.blocks)) for one in found] == list(tries[kept]["blocks"])
    assert len(taken) == min(3, len(tries)) if tries[0] is not CALM else len(taken) == 1
    assert [event for event, _ in heard] == [*["timing again"] * (len(taken) - 1), *["timing kept"] * (len(taken) > 1)]
    assert all("another process had the CPU" in why for event, why in heard if event == "timing again")


def test_what_the_machine_did_is_said_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "asked", lambda *args, **options: answer([[1.0]], [[1.0]], reasons=["the clock fell from 3.4 to 2.1 GHz"]))
    found = measure.latency([Artifact(tmp_path / "a.onnx", "onnxruntime")] * 2, X, threads=1, repeats=0)
    assert [one.why for one in found] == ["the clock fell from 3.4 to 2.1 GHz"] * 2 and all(one.disturbed for one in found)


def test_limits_decide_how_long_is_timed_in_the_child(tmp_path, monkeypatch):
    seen, real = [], measure.asked
    monkeypatch.setattr(measure, "asked", lambda artifacts, feed, request, **options: seen.append(request) or real(artifacts, feed, request, **options))
    pair = [linear(tmp_path, hidden=8)] * 2
    for limits in ({0.9: 1000.0, 0.5: 900.0}, None):
        found = measure.latency(pair, X, threads=1, seconds=0.05, limits=limits, judged=-2, early=False, repeats=0)
        assert [one.anytime for one in found] == [limits is not None] * 2
    assert [one["goal"] for one in seen] == [{"limits": [(0.9, 1000.0), (0.5, 900.0)], "judged": 0, "early": False}, None]


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
    monkeypatch.setattr(measure, "asked", lambda *args, **options: answer([[1.0]], [[1.0]], waited=[0.049, 0.051]))
    artifact = Artifact(tmp_path / "a.onnx", "onnxruntime")
    calm, busy = measure.latency([artifact, artifact], X, threads=1)
    assert not calm.disturbed and calm.why == "" and calm.note is None
    assert busy.disturbed and busy.note == busy.why == "another process had the CPU for 5% of the time (7 times; load 1.0 on 2 CPUs)"


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
    return [p for p in psutil.Process(os.getpid()).children() if "limbeck.evaluation.processes.child" in " ".join(p.cmdline())]


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


def test_what_goes_on_may_take_longer_than_a_timeout(tmp_path):
    """The time counts from the last sign of life: a slow model's rounds take minutes, and end."""
    (one,) = measure.latency([linear(tmp_path, hidden=4096)], X, threads=1, seconds=4, block=500, repeats=0, timeout_s=2.5)
    assert sum(one.samples) > 2500


class Recorded:
    """A session that remembers the dtypes that it is fed."""

    inputs, outputs = (InputSpec("x", "float32", (None,)),), ("y",)

    def __init__(self, fed):
        self.fed = fed

    def __call__(self, feed):
        self.fed.append(feed["x"].dtype)
        return {"y": feed["x"]}


@pytest.mark.parametrize(("slow_s", "goal", "block"), [(60.0, None, 5), (0.0, None, 1), (0.0, {"limits": [(0.5, 1.0)], "judged": 0, "early": True}, 5)])
def test_a_slow_models_blocks_are_of_one_and_its_feed_is_cast_once(tmp_path, monkeypatch, slow_s, goal, block):
    """A limit on a percentile wants the inferences. A feed of float64 for a float32 input is none of the model's time."""
    fed = []
    monkeypatch.setattr(child, "_load", lambda request, index: Recorded(fed))
    monkeypatch.setattr(child, "SLOW_S", slow_s)
    np.savez(tmp_path / "feed.npz", np.ones(3))
    request = {"artifacts": [{}], "feed": str(tmp_path / "feed.npz"), "names": ["x"], "at": str(tmp_path / "at"), "threads": 1}
    try:
        found = child.latency({**request, "seconds": 0.0, "block": 5, "min_blocks": 3, "goal": goal})
    finally:
        gc.enable()
    assert [len(b) for b in found["blocks"][0]] == [block] * 3 and {dtype.name for dtype in fed} == {"float32"}


def test_a_long_timing_is_not_repeated(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(measure, "asked", lambda *args, **options: taken.append(0) or ROUGH)
    monkeypatch.setattr(measure, "REPEATED_S", 0.0)
    assert all(one.disturbed for one in measure.latency([Artifact(tmp_path / "a.onnx", "onnxruntime")] * 2, X, threads=1)) and len(taken) == 1


def test_child_sees_the_threads_in_its_environment(tmp_path, monkeypatch):
    seen = {}

    def run(command, **options):
        seen.update(options["env"])
        raise OSError("stop here")

    monkeypatch.setattr(measure.subprocess, "Popen", run)
    with pytest.raises(OSError, match="stop here"):
        measure.latency([linear(tmp_path, hidden=8)], X, threads=3)
    assert (seen["OMP_NUM_THREADS"], seen["OMP_WAIT_POLICY"]) == ("3", "PASSIVE")
