"""A term on one of several outputs, with its own labels."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.objective import Objective
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import ALL, hint, kd, logit_mse
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.focus import focused
from limbeck.mechanics.window import Window


class Two(nn.Module):
    """Says which class, and how deep."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.trunk, self.kind, self.depth = nn.Linear(6, width), nn.Linear(width, 3), nn.Linear(width, 2)

    def forward(self, x):
        h = self.trunk(x).relu()
        return {"kind": self.kind(h), "depth": self.depth(h)}


class Samples(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        x = torch.randn(6, generator=torch.Generator().manual_seed(i))
        return {"x": x, "label": int(x[0] > 0) + int(x[1] > 0), "deep": x[2:4] * 2}


def two_tasks() -> Task:
    return Task(
        name="two",
        models={"teacher": Two, "small": lambda: Two(4)},
        splits={name: Samples() for name in ("train", "validation", "test")},
        metric=accuracy(output="kind"),
        inputs=lambda batch: ((batch["x"],), {}),
    )


def bound(objective, task):
    torch.manual_seed(0)
    teacher, student = Two(), Two(4)
    ids = np.arange(8)
    found = objective.bind(task, LiveTeacher(task, teacher), student)
    return found, teacher.eval(), student, batch_of(task, "train", ids), ids


def test_each_task_has_its_own_terms():
    task = two_tasks()
    entries = [
        Entry(name="task_loss", output="kind"),
        Entry(name="task_loss", output="depth", labels="deep", options={"target": "value"}, weight=0.5),
        Entry(name="kd", output="kind", options={"temperature": 2.0}),
        Entry(name="logit_mse", output="depth", weight=2.0),
    ]
    found, teacher, student, batch, ids = bound(objective_of(entries, ALL), task)
    _, parts = found(student, batch, ids)
    s, t = student(batch["x"]), teacher(batch["x"])
    assert parts["task_loss_1"].item() == pytest.approx(nn.functional.cross_entropy(s["kind"], batch["label"]).item(), rel=1e-5)
    assert parts["task_loss_2"].item() == pytest.approx((s["depth"] - batch["deep"]).square().mean().item(), rel=1e-5)
    assert parts["logit_mse"].item() == pytest.approx((s["depth"] - t["depth"]).square().mean().item(), rel=1e-5)
    assert parts["kd"].item() > 0


def test_a_focused_term_leaves_other_heads_alone():
    task = two_tasks()
    found, _, student, batch, ids = bound(1.0 * focused(kd(), output="kind"), task)
    found(student, batch, ids)[0].backward()
    assert student.kind.weight.grad.abs().sum() > 0 and student.depth.weight.grad is None


def test_a_teacher_of_another_name_is_named():
    task = two_tasks()
    found, teacher, student, batch, ids = bound(1.0 * focused(logit_mse(), output="depth", teacher_output="depth"), task)
    same = found(student, batch, ids)[0]
    assert same.item() == pytest.approx((student(batch["x"])["depth"] - teacher(batch["x"])["depth"]).square().mean().item(), rel=1e-5)


def test_terms_with_modules_of_their_own_are_sized_by_their_output():
    task = two_tasks()
    found, _, student, batch, ids = bound(1.0 * focused(hint(student="trunk", teacher="trunk"), output="kind"), task)
    found(student, batch, ids)[0].backward()
    assert found.parameters()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry(name="kd", output="kinds"), "the student has no output 'kinds'.*kind"),
        (Entry(name="task_loss", output="kind", labels="lable"), "the batch has no entry 'lable'.*label"),
        (Entry(name="kd", output="kind", teacher_output="hue"), "the teacher has no output 'hue'"),
    ],
)
def test_what_is_not_there_is_named(entry, message):
    task = two_tasks()
    found, _, student, batch, ids = bound(objective_of([entry], ALL), task)
    with pytest.raises(TaskError, match=message):
        found(student, batch, ids)


def test_a_window_says_when_a_term_pulls():
    task = two_tasks()
    entries = [Entry(name="logit_mse", output="depth", end=0.5), Entry(name="kd", output="kind", start=0.5, warmup=0.25)]
    found, _, student, batch, ids = bound(objective_of(entries, ALL), task)
    at = {done: found(student, batch, ids, done=done) for done in (0.0, 0.49, 0.5, 0.625, 0.75, 1.0)}
    assert [sorted(parts) for _, parts in at.values()] == [["logit_mse"]] * 2 + [["kd"]] * 4
    kd_value = at[1.0][1]["kd"].item()
    assert [round(at[done][0].item() / kd_value, 5) for done in (0.5, 0.625, 0.75, 1.0)] == [0.0, 0.5, 1.0, 1.0]


def test_the_teacher_is_not_asked_while_nothing_reads_it():
    task = two_tasks()
    found, teacher, student, batch, ids = bound(objective_of([Entry(name="task_loss", output="kind"), Entry(name="kd", output="kind", start=0.5)], ALL), task)
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    found(student, batch, ids, done=0.1)
    assert not calls
    found(student, batch, ids, done=0.6)
    assert len(calls) == 1


def test_a_gap_between_windows_is_refused():
    task = two_tasks()
    found, _, student, batch, ids = bound(objective_of([Entry(name="kd", output="kind", end=0.5)], ALL), task)
    with pytest.raises(ConfigError, match="no term pulls at 60% of the training: kd"):
        found(student, batch, ids, done=0.6)
    with pytest.raises(ConfigError, match=r"terms\[0\].end must be after start \(0.7\), got 0.2"):
        objective_of([Entry(name="kd", start=0.7, end=0.2)], ALL)
    with pytest.raises(ConfigError, match="must lie in"):
        Window(start=0.5, end=1.5)


def test_uncertainty_learns_what_to_trust():
    """Kendall et al.: at the optimum of s, exp(−s) = 1 / loss, so each term pulls as its noise allows."""
    task = two_tasks()
    objective: Objective = (1.0 * focused(kd(), output="kind") + 1.0 * focused(logit_mse(), output="depth")).balanced("uncertainty")
    found, _, student, batch, ids = bound(objective, task)
    numbers = dict(found.module["balance"].items())
    assert set(numbers) == {"kd", "logit_mse"} and all(any(n is p for p in found.parameters()) for n in numbers.values())
    optimizer = torch.optim.Adam(numbers.values(), lr=0.05)
    for _ in range(400):
        loss, parts = found(student, batch, ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, s in numbers.items():
        assert parts[f"weight of {name}"].item() == pytest.approx(1 / parts[name].item(), rel=0.02) and s.grad is not None
    static, _, student, batch, ids = bound(objective.balanced("static"), task)
    assert "balance" not in static.module


def test_a_term_with_a_model_of_its_own_asks_it_for_the_same_output():
    """Peers and averages answer with all outputs; the focused term looks at its own."""
    task = two_tasks()
    found, _, student, batch, ids = bound(objective_of([Entry(name="retain", output="depth", options={})], ALL), task)
    with torch.no_grad():
        student.kind.weight[0] += 1.0
    assert found(student, batch, ids)[0].item() == pytest.approx(0.0, abs=1e-6)  # the other head moved
    with torch.no_grad():
        student.depth.weight[0] += 1.0
    assert found(student, batch, ids)[0].item() > 1e-4
