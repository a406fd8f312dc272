"""What a run keeps and tells of its trainings, the control's too; and of a teacher that its student passed."""

import dataclasses
import json

import pytest
import torch

from limbeck import Contract, Gate, Plan, Proof, Recovery, Stage, Training, compress
from limbeck.cli.render import run as shown
from limbeck.pipeline import telling
from limbeck.pipeline.context import QuietLog
from limbeck.testing import small_task

TRAINING = {"epochs": 8, "batch_size": 16, "learning_rate": 2e-2}


def plan(teacher_weight: float = 0.5) -> Plan:
    gate = Gate(retention=0.1, pays="bytes", shrink=1.01)
    distill = Stage(technique="distill", config={"student": "small", "teacher_weight": teacher_weight, "training": TRAINING}, gate=gate)
    prune = Stage(technique="prune", config={"ratio": 0.25, "round_to": 4}, recovery=Recovery(training=Training(epochs=1, batch_size=16)), gate=gate)
    return Plan(stages=(distill, prune))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    log = QuietLog()
    folder = tmp_path_factory.mktemp("watched")
    return compress(small_task(), Contract(retention=0.1, size_ratio=1.01), plan(), root=folder, log=log, timing_seconds=0.05, proof=Proof(studies="none")), log


def test_every_training_is_watched_live_and_kept(run):
    result, log = run
    distill, prune = (s["claims"] for s in result.summary["stages"])
    for rows, count in ((distill["history"], 8), (prune["recovery"], 1), (result.summary["control"]["claims"]["history"], 9)):
        assert len(rows) == count and sum("kept" in row for row in rows) == 1
        assert all({"validation", "teacher", "agreement", "missed", "calibration_error"} <= row.keys() for row in rows) and "classes" in rows[-1]
    assert all(row["share of kd"] + row["share of task_loss"] == pytest.approx(1) for row in distill["history"])
    assert not any(k.startswith("share of") for row in result.summary["control"]["claims"]["history"] for k in row), "one term pulls alone"
    live = [data for event, data in log.events if event == "epoch"]
    assert len(live) == 18 and all("agreement" in data and "classes" not in data for data in live)
    teacher = {row["teacher"] for row in (*distill["history"], *prune["recovery"])}
    assert teacher == {result.summary["control"]["claims"]["history"][0]["teacher"]}, "one teacher, judged once"


def test_its_figures_are_those_of_the_metric(run):
    """The last epoch's validation in torch is what the exported stage shows on validation in its runtime."""
    stage = run[0].summary["stages"][0]
    assert stage["claims"]["history"][-1]["validation"] == pytest.approx(stage["metric"]["value"], abs=1e-6)


def test_it_is_told_in_the_report_and_in_the_terminal(run, capsys):
    story = telling.tell(run[0].folder)
    assert [c.title for c in story.curves] == ["distill: training", "prune: recovery", "control: training without a teacher"]
    assert all(c.watched and c.teacher and c.classes for c in story.curves) and story.curves[0].shares and not story.curves[2].shares
    shown(run[0].summary)
    text = " ".join(capsys.readouterr().out.split())
    assert "training: epoch 8 of 8: validation" in text and "recovery: epoch 1 of 1" in text and text.count("agrees with it on") == 3


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    """A teacher whose last layer was shaken: wrong on half, and a student that learns from labels beside it."""
    task = small_task()
    weights = dict(task.weights["teacher"])
    weights["head.weight"] = weights["head.weight"] + 2.0 * torch.randn(weights["head.weight"].shape, generator=torch.Generator().manual_seed(1))
    log = QuietLog()
    shaken = dataclasses.replace(task, weights={"teacher": weights})
    stages = Plan(stages=plan(teacher_weight=0.05).stages[:1], control=False)
    return compress(
        shaken, Contract(retention=0.1, size_ratio=1.01), stages, root=tmp_path_factory.mktemp("passed"), log=log, timing_seconds=0.05, proof=Proof(studies="none")
    ), log


def test_a_worse_teacher_is_told_in_log_journal_and_report(passed):
    result, log = passed
    ended = result.summary["stages"][0]["claims"]["history"][-1]
    assert ended["validation"] > ended["teacher"] and ended["ahead_of_teacher"] > 0
    (note,) = [data["text"] for event, data in log.events if event == "note" and "the teacher is worse" in data["text"]]
    assert f"accuracy {ended['teacher']:.4g} against" in note and "take a better teacher" in note
    (line,) = [line for line in map(json.loads, (result.folder / "journal.jsonl").read_text().splitlines()) if line["event"] == "worse teacher"]
    assert line["data"] == {"stage": "distill", "training": "history", "metric": "accuracy", **{k: ended[k] for k in ("epoch", "teacher", "validation", "ahead_of_teacher")}}
    assert f"The teacher is worse on validation ({ended['teacher']:.4g})" in telling.tell(result.folder).curves[0].note


def test_a_good_teacher_is_not_complained_of(run):
    result, log = run
    assert not any("worse" in data.get("text", "") for _, data in log.events) and "worse teacher" not in (result.folder / "journal.jsonl").read_text()


def test_who_follows_sees_it_come(run, monkeypatch):
    """A checkpoint in mid-training tells the last epoch's figures."""
    from limbeck.pipeline.context import FileCheckpoint
    from limbeck.pipeline.follow import _event

    row = run[0].summary["stages"][0]["claims"]["history"][-1]
    path = run[0].folder / "checkpoints" / "0123-technique.safetensors"
    path.parent.mkdir(exist_ok=True)
    FileCheckpoint(path).save({"x": torch.zeros(1)}, {"position": {"epoch": 8, "step": 48, "history": [row]}})
    event = _event(path)
    path.unlink()
    assert event["validation"] == row["validation"] and event["agreement"] == row["agreement"] and event["epoch"] == 9
