"""Objectives and terms: oracles 2, 7, 9 and 11, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from limbeck.core.errors import ConfigError, Interrupted, TaskError
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy, mse
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import ALL, kd, logit_mse, similarity_preserving, task_loss
from limbeck.mechanics.terms.correlation import standardized
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.kd import kd_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import check_term, small_task

torch.manual_seed(0)


def logits(seed: int, *, rows: int = 8, classes: int = 5, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Zeros(nn.Module):
    """A student that has no opinion."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(image), 4)


def seen(student: torch.Tensor, teacher: torch.Tensor | None = None, *, batch: Any = None, task: Task | None = None) -> Seen:
    """A step in which the models said this."""
    answers = {} if teacher is None else {"logits": teacher}
    return Seen(task or small_task(), Zeros(), {"logits": student}, answers, batch, np.arange(len(student)))


@pytest.mark.parametrize("term", [kd(), kd(standardize=True), similarity_preserving(student="features.0", teacher="features.0"), task_loss()], ids=lambda t: t.name)
def test_terms_keep_the_contract(term):
    """Of the others, each file in `terms/` checks its own."""
    check_term(term)


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
    def broken(seen):
        raise AssertionError("computed")

    objective = 0.0 * Term("broken", broken, teacher=True, builds=broken) + 1.0 * task_loss()
    task = small_task()
    loss, parts = objective.bind(task)(Zeros(), batch_of(task, "train", range(4)), np.arange(4))
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
    with pytest.raises(TaskError, match=r"student \(2, 3\) and teacher \(2, 4\)"):
        kd().function(seen(torch.zeros(2, 3), torch.zeros(2, 4)))
    with pytest.raises(TaskError, match="For regression use logit_mse"):
        kd().function(seen(torch.zeros(2, 1), torch.zeros(2, 1)))
    with pytest.raises(TaskError, match="label 7 is outside"):
        task_loss().function(seen(torch.zeros(2, 4), batch=(None, torch.tensor([0, 7]))))
    with pytest.raises(TaskError, match="no labels"):
        task_loss().function(seen(torch.zeros(2, 4), batch=torch.zeros(2)))


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
    assert task_loss().function(seen(outputs, batch=(None, labels), task=task)).item() == pytest.approx(2.5)
    with pytest.raises(TaskError, match="don't match outputs"):
        task_loss().function(seen(outputs, batch=(None, torch.zeros(3)), task=task))


class Projected(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Linear(width, 4)


def projecting() -> Term:
    """A term that trains a projector of the student's features onto the teacher's logits."""
    function = lambda seen: (seen.own.scale(seen.tap("student", "in:head")) - seen.teacher["logits"]).square().mean()  # noqa: E731
    return Term("projecting", function, teacher=True, student_taps=("in:head",), builds=lambda wiring: Projected(wiring.shape("student", "in:head")[1]), agrees=False)


def test_what_a_term_trains_learns_with_the_student_resumes_and_stays_out_of_it(tmp_path):
    """Oracle 11: it is in the optimizer, the clipping and the checkpoint, not in the student."""
    check_term(projecting())
    task = small_task()
    teacher = rebuild(teacher_candidate(task).torch_form, task)

    def trained(path, stop=lambda: False):
        torch.manual_seed(1)
        student = task.models["small"]()
        bound = (1.0 * projecting()).bind(task, LiveTeacher(task, teacher), student, seed=4)
        start = {k: v.clone() for k, v in bound.module.state_dict().items()}
        history = fit(student, bound, Training(epochs=3, batch_size=32), seed=0, checkpoint=FileCheckpoint(path, stop), log=QuietLog())
        assert not torch.equal(start["projecting.scale.weight"], bound.module["projecting"].scale.weight)
        assert not any("projecting" in name for name, _ in student.named_modules())
        return student, bound, history

    straight, bound, history = trained(tmp_path / "a")
    asked = iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        trained(tmp_path / "b", stop=lambda: next(asked))
    resumed, again, later = trained(tmp_path / "b")
    assert later == history and torch.equal(again.module["projecting"].scale.weight, bound.module["projecting"].scale.weight)
    assert all(torch.equal(v, straight.state_dict()[k]) for k, v in resumed.state_dict().items())
    with pytest.raises(ConfigError, match="projecting trains something of its own, sized by the student"):
        (1.0 * projecting()).bind(task, LiveTeacher(task, teacher))


def test_an_objective_from_entries_is_the_one_written_in_python():
    entries = [Entry(name="task_loss", weight=0.1), Entry(name="kd", weight=0.9, options={"temperature": 2})]
    found = objective_of(entries, ALL)
    assert [(w, t.name) for w, t in found.terms] == [(0.1, "task_loss"), (0.9, "kd")]
    s, t = logits(0).float(), logits(1).float()
    assert found.terms[1][1].function(seen(s, t)).item() == pytest.approx(kd_loss(s, t, temperature=2).item(), rel=1e-6)
    with pytest.raises(ConfigError, match="there is no term 'logit_msee'. Did you mean 'logit_mse'"):
        objective_of([Entry(name="logit_msee")], ALL)
    with pytest.raises(ConfigError, match=r"terms\[0\].options.temperature must be > 0, got 0"):
        objective_of([Entry(name="kd", options={"temperature": 0})], ALL)
    with pytest.raises(ConfigError, match="temprature is not an option"):
        objective_of([Entry(name="kd", options={"temprature": 3})], ALL)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_standardized_logits_forget_affine_maps(seed, scale, shift):
    """Oracle 5."""
    s, t = logits(seed), logits(seed + 1)
    loss = lambda a, b: kd_loss(standardized(a), standardized(b), temperature=2)  # noqa: E731
    assert loss(s * scale + shift, t).item() == pytest.approx(loss(s, t).item(), rel=1e-5)
    assert loss(s, t * scale + shift).item() == pytest.approx(loss(s, t).item(), rel=1e-5)


def test_tokens_that_are_not_labelled_are_left_out_and_every_sample_counts_alike():
    """Oracle 8, with masks: one batch of four samples gives the mean of two batches of two."""
    s, t = (torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    labels = torch.randint(0, 5, (4, 6), generator=torch.Generator().manual_seed(2))
    labels[0, 2:], labels[1, 4:], labels[3, 1:] = -100, -100, -100
    whole = kd().function(seen(s, t, batch=(None, labels)))
    halves = [kd().function(seen(s[i : i + 2], t[i : i + 2], batch=(None, labels[i : i + 2]))) for i in (0, 2)]
    assert whole.item() == pytest.approx(sum(h.item() for h in halves) / 2, rel=1e-6)
    changed = s.clone()
    changed[labels == -100] += 7
    assert kd().function(seen(changed, t, batch=(None, labels))).item() == whole.item()
