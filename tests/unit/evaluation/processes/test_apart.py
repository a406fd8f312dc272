"""A session in a process apart: the same answers, and whatever ends it is an error that says so."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from foreign_onnx import LENGTH, bytes_model, linear, text_in, voice

from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, Interrupted, MissingLibrary
from limbeck.evaluation.processes import apart
from limbeck.evaluation.processes.apart import Apart
from limbeck.evaluation.processes.frames import received, send
from limbeck.evaluation.processes.shared import Shared
from limbeck.runtimes import runtime
from limbeck.runtimes.onnxruntime import ONNXRUNTIME


def artifact(path: Path) -> Artifact:
    return Artifact(path, "onnxruntime")


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process(os.getpid()).children() if "limbeck.evaluation.processes.answering" in " ".join(p.cmdline())]


@pytest.mark.parametrize("batch", [1, 5, 300])
def test_it_answers_what_a_session_in_this_process_answers(batch, tmp_path):
    made = artifact(bytes_model(tmp_path))
    feed = {"bytes": np.random.default_rng(0).integers(0, 256, (batch, 32)).astype(np.int32)}
    with Apart(made, threads=1) as session:
        here = ONNXRUNTIME.load(made, 1)
        assert session.inputs == here.inputs and [i.axes for i in session.inputs] == [i.axes for i in here.inputs] == [("n", None)]
        assert session.outputs == here.outputs and session.kernels() == ONNXRUNTIME.describe(made)
        assert np.array_equal(session(feed)["logits"], here(feed)["logits"])


def test_scalars_states_and_arrays_that_lie_otherwise_go_over(tmp_path):
    made = artifact(voice(tmp_path))
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((2 * LENGTH, 3)).astype(np.float32).T, "state": rng.standard_normal((2, 3, 4)).astype(np.float32), "sr": np.array(8000)}
    with Apart(made, threads=1) as session:
        got, expected = session(feed), ONNXRUNTIME.load(made, 1)(feed)
        assert got.keys() == expected.keys() and all(np.array_equal(got[k], expected[k]) for k in got)
        again = session({k: v[..., :1, :] if v.ndim == 3 else v[:1] if v.ndim else v for k, v in feed.items()})
        assert np.allclose(again["output"], expected["output"][:1], atol=1e-6), "a smaller feed after a larger one is read at its own size"


def test_the_torch_runtime_leaves_this_process_threads_alone(tmp_path):
    import torch

    made = runtime("torch").empty(tmp_path)
    before = torch.get_num_threads()
    with Apart(made, threads=before + 1) as session:
        assert session({"x": np.arange(3, dtype=np.float32)})["y"].tolist() == [0, 1, 2]
    assert torch.get_num_threads() == before


def test_what_can_not_be_loaded_or_fed_is_told_as_by_the_runtime(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"bad\.onnx can't be loaded by ONNX Runtime"):
        Apart(artifact(tmp_path / "bad.onnx"), threads=1)
    with Apart(artifact(linear(tmp_path)), threads=1) as session:
        with pytest.raises(ArtifactError, match=r"input 'x' must have the shape \[any, 64\], got \[1, 63\]"):
            session({"x": np.ones((1, 63), np.float32)})
        with pytest.raises(ArtifactError, match="input 'x' must be numbers, got <U1"):
            session({"x": np.array(["a"])})
        assert session({"x": np.ones((1, 64), np.float32)})["y"].shape == (1, 4), "an answer that was an error isn't its end"
    assert not children()


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ModuleNotFoundError(name='onnxruntime')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingLibrary, match="pip install onnxruntime"):
        Apart(artifact(linear(tmp_path)), threads=1)


@pytest.mark.parametrize(("name", "says"), [("SEGV", "SIGSEGV"), ("KILL", r"SIGKILL \(memory may have run out\)")])
def test_a_crash_names_the_artifact_and_the_signal(name, says, tmp_path):
    with Apart(artifact(linear(tmp_path)), threads=1) as session:
        (child,) = children()
        child.send_signal(signal.Signals[f"SIG{name}"])
        with pytest.raises(ArtifactError, match=rf"linear\.onnx brought its process down: {says}\. It said nothing"):
            session({"x": np.ones((1, 64), np.float32)})
        assert session.closed and not children()
        with pytest.raises(ArtifactError, match="its session is closed"):
            session({"x": np.ones((1, 64), np.float32)})


def test_a_crash_while_it_works_is_noticed(tmp_path):
    session = slow(tmp_path)
    (child,) = children()
    threading.Timer(0.3, lambda: child.send_signal(signal.SIGABRT)).start()
    with pytest.raises(ArtifactError, match="brought its process down: SIGABRT"):
        session({"x": np.ones((1, 1), np.float32)})
    assert not children()


def slow(folder: Path, **options) -> Apart:
    """A loop that takes minutes."""
    from foreign_onnx import constant, saved, value
    from onnx import TensorProto, helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Sin", ["state"], ["next"])],
        "body",
        [value("number", TensorProto.INT64, []), value("going", TensorProto.BOOL, []), value("state", TensorProto.FLOAT, [1, 1])],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [1, 1])],
    )
    node = helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)
    path = saved(folder, "slow.onnx", [node], [value("x", TensorProto.FLOAT, [1, 1])], [value("y", TensorProto.FLOAT, [1, 1])], [constant("times", np.array(10**10))])
    return Apart(artifact(path), threads=1, **options)


def test_a_stop_ends_it_soon_and_leaves_no_process(tmp_path):
    stopped = threading.Event()
    session = slow(tmp_path, stop=stopped.is_set)
    threading.Timer(0.3, stopped.set).start()
    with pytest.raises(Interrupted, match="stopped while an artifact was asked"):
        session({"x": np.ones((1, 1), np.float32)})
    assert session.closed and not children()


def test_taking_too_long_is_an_error(tmp_path):
    session = slow(tmp_path, timeout_s=2.0)
    with pytest.raises(ArtifactError, match=r"slow\.onnx took longer than 2 s for one answer"):
        session({"x": np.ones((1, 1), np.float32)})
    assert not children()


def test_it_ends_with_its_owner_and_with_its_parent(tmp_path):
    session = Apart(artifact(linear(tmp_path)), threads=1)
    assert len(children()) == 1
    del session
    assert not children()
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom limbeck.core.candidate import Artifact\nfrom limbeck.evaluation.processes.apart import Apart\n"
        f"session = Apart(Artifact(Path({str(tmp_path / 'linear.onnx')!r}), 'onnxruntime'), threads=1)\n"
        "print(session._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pid = int(told.stdout)
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} outlived its parent")


def test_text_is_answered_as_text_and_not_fed(tmp_path):
    session = ONNXRUNTIME.load(artifact(text_in(tmp_path)), 1)
    assert session._array("same", np.array(["å", "bc"], object)).dtype == "<U2"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ArtifactError, match="output 'same' is a list, not a tensor"):
        session._array("same", [{"a": 1.0}])  # pyright: ignore[reportAttributeAccessIssue]
    with Apart(artifact(text_in(tmp_path)), threads=1) as session, pytest.raises(ArtifactError, match="input 'words' must be numbers, got <U1"):
        session({"words": np.array(["a"])})


def test_no_process_to_be_had_is_said(tmp_path, monkeypatch):
    def none(*args, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(apart.subprocess, "Popen", none)
    with pytest.raises(ArtifactError, match="no process to run it in can be started: Resource temporarily unavailable"):
        Apart(artifact(linear(tmp_path)), threads=1)


# ---- what it is made of ----


def test_a_message_keeps_names_dtypes_shapes_and_every_byte():
    ours, theirs = os.pipe()
    arrays = {"a": np.arange(6, dtype=np.int16).reshape(2, 3).T, "none": np.zeros((0, 3)), "one": np.array(3.5, np.float16)}
    arrays |= {"text": np.array(["å", "bc"]), "yes": np.array([True])}
    sender = threading.Thread(target=send, args=(theirs, {"ask": "x"}, {**arrays, "much": np.arange(300_000)}))
    sender.start()  # more than a pipe holds
    message, got = received(ours) or ({}, {})
    sender.join()
    assert message == {"ask": "x"} and list(got) == [*arrays, "much"] and got["much"][-1] == 299_999
    assert all(got[k].dtype == v.dtype and got[k].shape == v.shape and np.array_equal(got[k], v) for k, v in arrays.items())
    os.write(theirs, b"\x05\x00\x00\x00{")
    os.close(theirs)
    assert received(ours) is None, "cut off in the middle"
    os.close(ours)


def test_shared_memory_grows_and_is_read_where_it_lies():
    shared = Shared()
    other = Shared(os.dup(shared.handle))
    for arrays in ({"a": np.arange(3.0), "n": np.array(7)}, {"b": np.arange(100_000).reshape(2, -1), "none": np.zeros((2, 0))}, {"a": np.ones((1, 2), np.float32)}):
        got = other.see(shared.lay(arrays))
        assert all(got[k].dtype == v.dtype and np.array_equal(got[k], v) and got[k].shape == v.shape for k, v in arrays.items())
    assert os.fstat(shared.handle).st_size >= 800_000
    shared.close()
    other.close()
