"""Objectives and terms: oracles 2, 7, 9 and 11, and what is refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy, mse
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.objective import Term
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import ALL, kd, logit_mse, task_loss
from limbeck.mechanics.terms.kd import kd_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import check_term, small_task

torch.manual_seed(0)


def logits(seed: int, *, rows: int = 8, classes: int = 5, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TAPS = {"similarity_preserving": {"student": "features.0", "teacher": "features.0"}}


@pytest.mark.parametrize("term", ALL, ids=lambda t: t.__name__)
def test_every_term_keeps_the_contract(term):
    check_term(term(**TAPS.get(term.__name__, {})))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 20))
def test_kd_is_the_divergence_written_out(seed, temperature):
    """Oracle 7: batchmean, and T² once."""
    s, t = logits(seed), logits(seed + 1)
    p, q = F.softmax(t / temperature, 1), F.softmax(s / temperature, 1)
    expected = temperature**2 * (p * (p.log() - q.log())).sum(1).mean()
    assert kd_loss(s, t, temperature=temperature).item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_hot_kd_is_the_squared_distance_of_centred_logits():
    """Oracle 2: T² · KL → ‖centred(z_s − z_t)‖² / (2K)."""
    s, t = logits(0), logits(1)
    centred = (s - t) - (s - t).mean(1, keepdim=True)
    limit = centred.square().sum(1).mean() / (2 * s.shape[1])
    assert (kd_loss(s, t, temperature=1000.0) / limit).item() == pytest.approx(1.0, abs=2e-3)


def test_a_cold_teacher_is_a_hard_label():
    """Oracle 2: the teacher's T → 0 with the student's T = 1 is cross-entropy with its argmax; scaled logits stand for T."""
    s, t = logits(0), logits(1)
    assert kd_loss(s, t * 1e4, temperature=1.0).item() == pytest.approx(F.cross_entropy(s, t.argmax(1)).item(), rel=1e-6)


def test_the_teacher_receives_no_gradient():
    s, t = logits(0).requires_grad_(), logits(1).requires_grad_()
    kd_loss(s, t).backward()
    assert t.grad is None and s.grad is not None


def test_a_weight_of_zero_is_never_computed():
    def broken(task, student, teacher, batch):
        raise AssertionError("computed")

    objective = 0.0 * Term("broken", broken, teacher=True) + 1.0 * task_loss()
    loss, parts = objective(small_task(), {"logits": torch.zeros(4, 4)}, {}, batch_of(small_task(), "train", range(4)))
    assert list(parts) == ["task_loss"] and loss.item() == pytest.approx(math.log(4))
    assert not objective.needs_teacher


def test_weights_multiply_through_sums():
    objective = 2 * (0.5 * task_loss() + kd() + 3 * logit_mse())
    assert [(w, t.name) for w, t in objective.terms] == [(1.0, "task_loss"), (2.0, "kd"), (6.0, "logit_mse")]
    with pytest.raises(ConfigError, match="weight of 'kd' must be ≥ 0, got -1"):
        -1.0 * kd()


def test_a_teacher_term_without_a_teacher_is_refused_when_the_objective_is_bound():
    with pytest.raises(ConfigError, match="kd needs a teacher's outputs"):
        (0.5 * kd() + 0.5 * task_loss()).bind(small_task())
    with pytest.raises(ConfigError, match="kd.temperature must be > 0, got 0"):
        kd(temperature=0)


def test_shapes_that_do_not_match_are_said_with_the_way_out():
    task, batch = small_task(), None
    with pytest.raises(TaskError, match=r"student \(2, 3\) and teacher \(2, 4\)"):
        kd().function(task, {"logits": torch.zeros(2, 3)}, {"logits": torch.zeros(2, 4)}, batch)
    with pytest.raises(TaskError, match="For regression use logit_mse"):
        kd().function(task, {"logits": torch.zeros(2, 1)}, {"logits": torch.zeros(2, 1)}, batch)
    with pytest.raises(TaskError, match="label 7 is outside"):
        task_loss().function(task, {"logits": torch.zeros(2, 4)}, {}, (None, torch.tensor([0, 7])))
    with pytest.raises(TaskError, match="no labels"):
        task_loss().function(task, {"logits": torch.zeros(2, 4)}, {}, torch.zeros(2))


def test_a_linear_student_recovers_a_linear_teacher(tmp_path):
    """Oracle 9, through the loop: agreement 100 %."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 6, generator=generator)
    torch.manual_seed(1)
    teacher, student = nn.Linear(6, 3), nn.Linear(6, 3)
    data = TensorDataset(inputs, torch.zeros(256, dtype=torch.long))
    task = Task(metric=accuracy(), splits={"train": data}, models={"teacher": lambda: nn.Linear(6, 3)})
    bound = (1.0 * logit_mse()).bind(task, LiveTeacher(task, teacher))
    fit(student, bound, Training(epochs=150, batch_size=32, learning_rate=0.05, weight_decay=0.0, warmup=0.0), seed=0, checkpoint=FileCheckpoint(tmp_path / "c"), log=QuietLog())
    assert torch.equal(student(inputs).argmax(1), teacher(inputs).argmax(1))
    assert torch.allclose(student.weight, teacher.weight, atol=1e-3)


def test_regression_takes_squared_error_and_keeps_shapes_apart():
    task = Task(metric=mse(), splits={})
    outputs, labels = torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0])
    assert task_loss().function(task, {"logits": outputs}, {}, (None, labels)).item() == pytest.approx(2.5)
    with pytest.raises(TaskError, match="don't match outputs"):
        task_loss().function(task, {"logits": outputs}, {}, (None, torch.zeros(3)))
