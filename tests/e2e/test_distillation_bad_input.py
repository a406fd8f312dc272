"""What can be wrong between a teacher and its student: each is told with place, rule, value and way out, and nothing is trained for nothing."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from limbeck import Contract, Gate, Plan, Proof, Stage, compress
from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.metric import Metric
from limbeck.pipeline import telling
from limbeck.pipeline.context import QuietLog
from limbeck.testing import SmallNet, small_task

SHORT = {"epochs": 1, "batch_size": 16}


class Flat(nn.Module):
    """Batch norm on one value a sample."""

    def __init__(self, classes: int = 4):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))

    def forward(self, image):
        return self.body(image)


class Coloured(nn.Module):
    """Wants three channels."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

    def forward(self, image):
        return self.head(self.body(image).mean((2, 3)))


class Turned(nn.Module):
    """A teacher whose class 0 is the labels' 2, and so on round."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def forward(self, image):
        return self.net(image)[:, [2, 3, 0, 1]]


class Scaled(nn.Module):
    """A teacher that was trained on other inputs than the task gives it: far from zero, and hardly varying."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def forward(self, image):
        return self.net(0.001 * image + 50)


class Broken(nn.Module):
    """NaN, for inputs that the checks before a run don't look at."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def forward(self, image):
        out = self.net(image)
        return torch.where(image.amax((1, 2, 3))[:, None] > 90, torch.full_like(out, float("nan")), out)


@pytest.fixture(scope="module")
def task():
    task = small_task()
    return dataclasses.replace(task, models={**task.models, "flat": Flat, "five": lambda: Flat(5), "coloured": Coloured})


def with_teacher(task, factory):
    weights = {f"net.{k}": v for k, v in task.weights["teacher"].items()}
    return dataclasses.replace(task, models={**task.models, "teacher": factory}, weights={"teacher": weights})


def plan(student="small", **config):
    stage = Stage(technique="distill", config={"student": student, "training": SHORT, **config}, gate=Gate(retention=0.1, pays="bytes", shrink=1.01))
    return Plan(stages=(stage,), control=False)


def run(task, tmp_path: Path, plan: Plan, log=None):
    return compress(task, Contract(retention=0.1, size_ratio=1.01), plan, root=tmp_path, timing_seconds=0.05, proof=Proof(studies="none"), log=log or QuietLog())


WRONG = {
    "classes": (plan("five"), TaskError, ["kd needs class logits of one shape, got student (16, 5) and teacher (16, 4)", "give the student 4 of them"]),
    "classes of a term of features": (plan("five", terms=[{"name": "dist"}]), TaskError, ["got student (16, 5) and teacher (16, 4)", "must agree in number and order"]),
    "a path in the student": (
        plan(terms=[{"name": "hint", "options": {"student": "featurs.3"}}]),
        ConfigError,
        ["no module 'featurs.3' to tap in SmallNet", "Did you mean 'features.3'"],
    ),
    "a path in the teacher": (
        plan(terms=[{"name": "hint", "options": {"student": "features.3", "teacher": "hed"}}]),
        ConfigError,
        ["no module 'hed' to tap in SmallNet", "Did you mean 'head'"],
    ),
    "no term left": (plan(terms=[{"name": "task_loss", "weight": 0}]), ConfigError, ["needs a term with a weight above zero, got none"]),
    "a batch of one, batch norm": (plan("flat", training={"epochs": 1, "batch_size": 1}), ConfigError, ["training.batch_size must be ≥ 2", "batch norm", "got 1. Raise it."]),
    "a batch of one, relations": (
        plan(training={"epochs": 1, "batch_size": 1}, terms=[{"name": "rkd", "options": {"student": "features.3"}}]),
        TaskError,
        ["rkd compares the samples of a batch", "at least 3, got 1. Raise the batch size."],
    ),
    "other inputs": (plan("coloured"), TaskError, ["the model 'task:coloured' doesn't run on the inputs that task 'quarters' gives", "3 channels", "belongs into its own module"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_it_is_told_in_words(task, tmp_path, case):
    asked, kind, says = WRONG[case]
    with pytest.raises(kind) as raised:
        run(task, tmp_path, asked)
    for part in says:
        assert part in str(raised.value), str(raised.value)
    assert str(raised.value).rstrip().endswith((".", "?")) and not list(tmp_path.glob("run/stages/*.json")), "nothing was kept"


def test_a_vocabulary_that_differs_says_both(tmp_path):
    words = torch.randint(0, 24, (40, 6), generator=torch.Generator().manual_seed(0))
    data = {name: TensorDataset(words[i * 12 : i * 12 + 12], words[i * 12 : i * 12 + 12]) for i, name in enumerate(("train", "validation", "test"))}
    model = lambda size: lambda: nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, size))  # noqa: E731
    torch.manual_seed(0)

    def rows(outputs, batch):
        return {"right": (outputs["logits"].argmax(-1) == batch[1].numpy()).mean(1)}

    metric = Metric(name="right", rows=rows, reduce=lambda r: float(r["right"].mean()) + 0.5, target="token")
    wordy = dataclasses.replace(small_task(), models={"teacher": model(30), "small": model(24)}, weights={"teacher": model(30)().state_dict()}, splits=data, metric=metric)
    with pytest.raises(TaskError, match=r"got student \(12, 6, 24\) and teacher \(12, 6, 30\). Classes \(or a vocabulary\) must agree.*give the student 30"):
        run(wordy, tmp_path, plan())


@pytest.mark.slow
def test_a_batch_of_one_where_it_can_be(task, tmp_path):
    """Convolutions give batch norm many values of one sample."""
    result = run(task, tmp_path, plan(training={"epochs": 1, "batch_size": 1}))
    assert result.summary["stages"][0]["claims"]["history"][0]["loss"] > 0


def test_classes_in_another_order_are_refused_with_the_order_that_fits(task, tmp_path):
    result = run(with_teacher(task, Turned), tmp_path, plan())
    refusal = result.summary["refusal"]
    assert result.verdict == "REFUSED" and result.exit_code == 5
    assert "on 48 validation samples 0 of its answers are right as they stand, and 4" in refusal["reason"] and "(0 → 2, 1 → 3, 2 → 0, 3 → 1)" in refusal["reason"]
    assert "raw[:, [2, 3, 0, 1]]" in refusal["fix"] and not list(tmp_path.glob("run/stages/*.json")), "nothing was trained"
    mended = dataclasses.replace(with_teacher(task, Turned), outputs=lambda raw: {"logits": raw[:, [2, 3, 0, 1]]})
    assert run(mended, tmp_path / "mended", plan()).verdict != "REFUSED", "the way out is one"


def test_a_teacher_that_wants_other_inputs_is_told_with_figures(task, tmp_path):
    log = QuietLog()
    result = run(with_teacher(task, Scaled), tmp_path, plan(), log)
    (note,) = [data["text"] for event, data in log.events if event == "note" and "most frequent class" in data["text"]]
    assert "of 96 validation samples right, and always answering the most frequent class has 24" in note and "nn.Sequential(Normalize(…), model)" in note
    lines = [json.loads(line) for line in (result.folder / "journal.jsonl").read_text().splitlines()]
    assert [line["data"]["why"] for line in lines if line["event"] == "weak teacher"] == [note]
    assert telling.tell(result.folder).teacher_note == note


def test_nan_in_the_teachers_answers_names_the_samples(task, tmp_path):
    """Sample 80 of the training split, which no check before the run looks at."""
    images, labels = (t.clone() for t in task.splits["train"].tensors)
    images[80, 0, 0, 0] = 99
    spoilt = dataclasses.replace(with_teacher(task, Broken), splits={**task.splits, "train": TensorDataset(images, labels)})
    with pytest.raises(TaskError, match="the teacher's output 'logits' holds NaN or Inf for 1 sample of the training split, number 80"):
        run(spoilt, tmp_path, plan())


def test_a_weight_of_zero_is_not_computed_and_the_teacher_not_asked(task, tmp_path):
    log = QuietLog()
    result = run(task, tmp_path, plan(teacher_weight=0.0), log)
    row = result.summary["stages"][0]["claims"]["history"][0]
    assert "kd" not in row and "task_loss" in row and not list(tmp_path.glob("run/cache/*")) and not any(event == "teacher's answers" for event, _ in log.events)


@pytest.mark.slow
def test_a_cache_that_was_cut_off_is_made_whole(task, tmp_path):
    """The same weights come of it as of one that was never cut."""
    whole = run(task, tmp_path / "a", plan())
    cache = next((tmp_path / "a").glob("run/cache/*/outputs-float16"))
    shard = max((p for p in cache.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:100])
    for path in (*(tmp_path / "a").glob("run/stages/*.json"), tmp_path / "a" / "run" / "summary.json"):
        path.unlink()
    log = QuietLog()
    again = run(task, tmp_path / "a", plan(), log)
    assert again.summary["stages"][0]["claims"]["history"] == whole.summary["stages"][0]["claims"]["history"]
    assert any("shard" in str(event) or "shard" in str(data) or "cache" in str(event) for event, data in log.events), [e for e, _ in log.events]
