"""Looks at test in `evaluate`, `compare` and `run`: counted before they are judged, and judged at their share of the error."""

from __future__ import annotations

import json

import pytest
import torch
from project import limbeck, summary, write_project

from limbeck import Contract, compare, evaluate
from limbeck.core.evidence import Status
from limbeck.core.proof import Proof
from limbeck.core.task import Task
from limbeck.intake import metrics
from limbeck.intake.fingerprint import fingerprint
from limbeck.pipeline.looks import count_look, looked


class Scores(torch.nn.Module):
    """Logits that are right for the first `right` of every 100 samples."""

    def __init__(self, right: int):
        super().__init__()
        self.register_buffer("right", torch.tensor(float(right)))
        self.layer = torch.nn.Linear(1, 1)
        for parameter in self.layer.parameters():
            torch.nn.init.ones_(parameter)

    def forward(self, x):
        number = x[:, :1] + 0 * self.layer(x[:, 1:2])
        good = (number < self.right).float()
        return torch.cat([good, 1 - good], dim=1) * 3


def task_of(count: int, right: int = 98) -> Task:
    """Every sample is of class 0; the teacher has `right` of 100 right, "other" two less."""
    numbers = torch.arange(count) % 100
    data = [(torch.tensor([float(n), 0.5]), 0) for n in numbers]
    return Task(
        name="looked at",
        models={"teacher": lambda: Scores(right), "other": lambda: Scores(max(right - 2, 0))},
        weights={"teacher": Scores(right).state_dict(), "other": Scores(max(right - 2, 0)).state_dict()},
        splits={"train": data[:64], "validation": data[:64], "test": data},
        metric=metrics.accuracy(),
    )


def judged(count, root, contract):
    task = task_of(count)
    found = compare(task, Scores(96), task=task, contract=contract, proof=Proof(studies="none"), root=root)
    return found, {v["gate"]: v for v in found["subjects"][1]["verdicts"]}


def seen_before(root, count, run, error):
    """A look that was taken at the first `count` samples."""
    task = task_of(count)
    count_look(root, looked(task, fingerprint(task.split("test"))), run=run, artifact="a", error=error)


def test_planned_looks_at_data_that_grew_are_judged_at_their_share(tmp_path):
    seen_before(tmp_path, 300, "first", 0.025)
    found, verdicts = judged(400, tmp_path, Contract(retention=0.9, metric=0.9, looks=2))
    assert found["test_looks"] == found["look"]["number"] == 2 and found["look"]["samples"] == 400
    assert found["look"]["confidence"] == pytest.approx(0.975) and found["subjects"][1]["retention"]["confidence"] == pytest.approx(0.975)
    assert {v["status"] for v in verdicts.values()} == {Status.PASS} and json.dumps(found, allow_nan=False)


def test_a_look_beyond_the_plan_passes_bytes_and_no_quality(tmp_path):
    for run in ("first", "second"):
        seen_before(tmp_path, 300, run, 0.025)
    found, verdicts = judged(400, tmp_path, Contract(retention=0.9, metric=0.9, size_ratio=0.1, looks=2))
    assert found["test_looks"] == 3 and [verdicts[g]["status"] for g in ("retention", "metric", "size_ratio")] == [Status.UNVERIFIED, Status.UNVERIFIED, Status.PASS]
    assert "the error is spent" in verdicts["retention"]["reason"] and found["exit_code"] == 4


@pytest.mark.slow
def test_the_same_files_are_the_same_look_and_a_plan_may_come_too_late(tmp_path):
    assert evaluate(task_of(300), proof=Proof(studies="none"), root=tmp_path)["test_looks"] == 1
    for _ in range(2):
        found, verdicts = judged(300, tmp_path, Contract(retention=0.9))
        assert found["test_looks"] == 2 and verdicts["retention"]["status"] == Status.PASS and "up to 10 % of cases" in verdicts["retention"]["reason"]
    late, verdicts = judged(400, tmp_path, Contract(retention=0.9, looks=3))
    assert late["test_looks"] == 3 and verdicts["retention"]["status"] == Status.UNVERIFIED, "a plan after the first look comes too late"


def test_validation_is_no_look(tmp_path):
    task = task_of(300)
    found = compare(task, Scores(96), task=task, split="validation", contract=Contract(retention=0.5, looks=1), proof=Proof(studies="none"), root=tmp_path)
    assert found["test_looks"] is None and found["look"] is None and not (tmp_path / "looks.jsonl").exists()


def test_a_baseline_that_has_nothing_right_takes_the_difference_and_says_so(tmp_path):
    task = task_of(100, right=0)
    found = compare(task, Scores(0), task=task, contract=Contract(retention=0.9, max_drop=0.1), proof=Proof(studies="none"), root=tmp_path)
    verdicts = {v["gate"]: v for v in found["subjects"][1]["verdicts"]}
    assert verdicts["retention"]["status"] == Status.UNVERIFIED and verdicts["max_drop"]["status"] == Status.PASS
    assert "a ratio means nothing" in verdicts["retention"]["reason"] and "the drop is 0, at most 0.0" in verdicts["retention"]["reason"]
    assert found["subjects"][1]["retention"]["kind"] == "drop" and json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_a_run_counts_its_look_before_it_judges(tmp_path):
    project = write_project(tmp_path, contract="retention = 0.05\nsize_ratio = 1.5\nlooks = 1", plan="")
    (project / "limbeck.toml").write_text((project / "limbeck.toml").read_text() + PLAN)
    for name, status in (("one", "PASS"), ("two", "UNVERIFIED")):
        done = limbeck("run", "limbeck.toml", "--name", name, cwd=project)
        found = summary(project, name)
        kept = next(v for v in found["contract"] if v["gate"] == "retention")
        assert kept["status"] == status, done.stdout + done.stderr
    assert found["look"]["planned"] == 1 and found["test_looks"] == 2 and done.returncode == 4
    assert "the error is spent" in " ".join(done.stdout.split()) and found["limits"]["looks"] == 1
    report = limbeck("report", "runs/two", cwd=project)
    assert report.returncode == 0 and "but 1 were planned" in (project / "runs" / "two" / "report.html").read_text()


PLAN = """
[[stage]]
technique = "distill"
config = { student = "small", training = { epochs = 1, batch_size = 16 } }
gate = { pays = "nothing", retention = 0.01 }
"""
