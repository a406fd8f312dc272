"""An artifact that brings its runtime down in the middle of an evaluation: its stage fails, the run goes on; `evaluate` and `compare` say so."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from judging import data, said, write_rows  # noqa: F401 - a fixture
from project import write_project

import limbeck
from foreign_onnx import linear
from limbeck import Contract, Gate, Plan, Stage
from limbeck.core.proof import Proof
from limbeck.testing import small_task

NONE = Proof(studies="none")

# A kernel that crashes: in whatever process is asked for answers, artifacts of more or fewer bytes than those named die at a batch of more than 32.
CRASHES = """
import os, signal, sys
if "limbeck.evaluation.processes.answering" in sys.orig_argv:
    from limbeck.runtimes import onnxruntime
    answer, load = onnxruntime.OnnxSession.__call__, onnxruntime.load
    def opened(artifact, threads=1):
        session = load(artifact, threads)
        session.dies = {low} <= artifact.size_bytes < {high}
        return session
    def dies(self, feed):
        if self.dies and max(len(a) for a in feed.values() if a.ndim) > 32:
            print("a kernel wrote where it may not", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        return answer(self, feed)
    onnxruntime.OnnxSession.__call__ = dies
    object.__setattr__(onnxruntime.ONNXRUNTIME, "load", opened)
"""


@pytest.fixture
def crashing(tmp_path, monkeypatch):
    """From now on artifacts of so many bytes crash when they are asked for many answers at once."""

    def start(low: int, high: int) -> None:
        place = tmp_path / "site"
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text(CRASHES.format(low=low, high=high))
        monkeypatch.setenv("PYTHONPATH", str(place))

    return start


def test_a_stage_whose_artifact_crashes_in_its_evaluation_fails_and_the_run_goes_on(tmp_path, crashing):
    gate = Gate(pays="bytes", shrink=1.05, retention=0.0)
    stages = (Stage(technique="prune", config={"ratio": 0.3, "round_to": 4}, gate=gate), Stage(technique="quantize", config={"samples": 64}, gate=gate))
    run = lambda: limbeck.compress(small_task(), Contract(size_ratio=1.5), Plan(stages=stages, control=False), root=tmp_path / "runs", timing_seconds=0.05, proof=NONE).summary  # noqa: E731
    crashing(25_000, 50_000)  # the pruned network; the whole one has 58 kB, the quantized one 20
    first = run()
    pruned, quantized = first["stages"]
    assert (pruned["verdict"], quantized["verdict"], first["verdict"]) == ("FAIL", "PASS", "PASS")
    assert "model.onnx brought its process down: SIGSEGV. Its last line: a kernel wrote where it may not" in pruned["error"]
    events = [json.loads(line) for line in (tmp_path / "runs" / "run" / "journal.jsonl").read_text().splitlines()]
    assert [e["data"]["stage"] for e in events if e["event"] == "stage broke"] == ["prune"]
    crashing(0, 0)
    again = run()
    assert [s["verdict"] for s in again["stages"]] == ["PASS", "PASS"], "a failure is never cached"


def test_a_stage_whose_answers_the_metric_means_nothing_of_fails_and_the_run_goes_on(tmp_path):
    def own(rows):
        return float(rows["correct"].mean()) if rows["correct"].mean() > 0.5 else float("nan")

    task = small_task()
    task = replace(task, metric=replace(task.metric, name="own", reduce=own, proportion=None))
    gate = Gate(pays="bytes", shrink=1.05, retention=0.0)
    stages = (Stage(technique="prune", config={"ratio": 0.9, "round_to": 1}, gate=gate), Stage(technique="quantize", config={"samples": 64}, gate=gate))
    run = limbeck.compress(task, Contract(size_ratio=1.5), Plan(stages=stages, control=False), root=tmp_path / "runs", timing_seconds=0.05, proof=NONE).summary
    pruned, quantized = run["stages"]
    assert (pruned["verdict"], quantized["verdict"], run["verdict"]) == ("FAIL", "PASS", "PASS")
    assert "metric 'own' is nan of these answers, and " in pruned["error"] and "of the baseline's to the same 96" in pruned["error"]


def test_evaluate_and_compare_name_what_crashed(tmp_path, said, crashing):  # noqa: F811
    write_rows(tmp_path)
    linear(tmp_path, "a.onnx")
    linear(tmp_path, "b.onnx", nan="large")  # some bytes more
    crashing((tmp_path / "b.onnx").stat().st_size, 10_000_000)
    for words in (("evaluate", "b.onnx"), ("compare", "a.onnx", "b.onnx"), ("compare", "b.onnx", "a.onnx")):
        code, out, error = said(*words, "--task", "task.py:task")
        assert code == 2 and not out, out
        assert error == "ArtifactError: b.onnx brought its process down: SIGSEGV. Its last line: a kernel wrote where it may not", error
    assert not (tmp_path / "runs").exists(), "no look at test is counted for what showed nothing of it"
    code, out, _ = said("compare", "a.onnx", "a.onnx", "--task", "task.py:task")
    assert code == 0 and out.startswith("PASS a.onnx against a.onnx")


def test_a_run_over_the_command_line_tells_the_crash(tmp_path, said, crashing):  # noqa: F811
    plan = '[[stage]]\ntechnique = "quantize"\nconfig = { samples = 64 }\ngate = { pays = "bytes", shrink = 1.05, retention = 0.3 }\n'
    write_project(tmp_path, plan=plan, contract="retention = 0.3\nsize_ratio = 1.5", run="control = false")
    crashing(0, 30_000)
    from typer.testing import CliRunner

    from limbeck.cli.main import app

    done = CliRunner().invoke(app, ["run"])
    assert done.exit_code == 3 and "brought its process down: SIGSEGV" in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert data((0, (tmp_path / "runs" / "run" / "summary.json").read_text(), ""))["stages"][0]["verdict"] == "FAIL"


def test_one_batch_of_a_module_is_answered_apart_as_here(tmp_path, monkeypatch):
    """The rows of the metric are those of a session in this process, bit for bit."""
    from limbeck.core.candidate import Artifact
    from limbeck.evaluation import quality
    from limbeck.evaluation.processes.apart import Apart
    from limbeck.mechanics.build import rebuild, teacher_candidate
    from limbeck.mechanics.data import example
    from limbeck.runtimes.onnxruntime import ONNXRUNTIME

    task = small_task()
    made: Artifact = ONNXRUNTIME.export(example(task, rebuild(teacher_candidate(task).torch_form, task)), tmp_path)
    here = quality.rows_of(ONNXRUNTIME.load(made, 1), task, "test")
    with Apart(made, threads=1) as session:
        there = quality.rows_of(session, task, "test")
    assert here.keys() == there.keys() and all(np.array_equal(here[k], there[k]) for k in here)
