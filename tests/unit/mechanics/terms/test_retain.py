"""retain: what the student itself said before (LwF)."""

import numpy as np
import pytest
import torch
from said import quarters
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from limbeck import Views
from limbeck.core.errors import ConfigError, Interrupted
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.terms import ALL, retain, task_loss
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.kd import kd_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, check_term


def test_it_keeps_the_contract_and_needs_no_teacher():
    check_term(retain(), task=quarters())
    check_term(retain(standardize=True, temperature=1), task=quarters())
    assert not retain().teacher and not retain().labels


def test_it_is_kd_towards_the_start_and_zero_there():
    task, student = quarters(), SmallNet(8).eval()
    batch, ids = batch_of(task, "train", range(16)), np.arange(16)
    bound = (1.0 * retain(temperature=3)).bind(task, None, student)
    before = student(batch[0]).detach()
    assert bound(student, batch, ids)[0].item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        student.head.weight += 0.3
        student.head.bias[0] += 1
    assert bound(student, batch, ids)[0].item() == pytest.approx(kd_loss(student(batch[0]), before, temperature=3).item(), rel=1e-5)


def test_the_start_is_frozen_stays_in_eval_and_out_of_the_student():
    """Oracle 11."""
    task, student = quarters(), SmallNet(8)
    bound = (1.0 * retain()).bind(task, None, student)
    assert bound.parameters() == []
    bound.module.train()
    assert not any(m.training for m in bound.module["retain"].modules())
    kept = {k: v.clone() for k, v in bound.module.state_dict().items()}
    bound(student.train(), batch_of(task, "train", range(8)), np.arange(8))[0].backward()
    assert all(torch.equal(v, bound.module.state_dict()[k]) for k, v in kept.items()) and set(student.state_dict()) == set(SmallNet(8).state_dict())


def test_both_see_the_same_view():
    task = Task(**{**vars(quarters()), "views": Views(flip=True, crop=2, versions=8)})
    student = SmallNet(8).eval()
    bound = (1.0 * retain()).bind(task, None, student)
    for view in range(4):
        assert bound(student, batch_of(task, "train", range(8)), np.arange(8), view)[0].item() == pytest.approx(0, abs=1e-6)


def test_a_training_that_is_stopped_and_resumed_keeps_the_same_start(tmp_path):
    task = quarters()

    def trained(path, stop=lambda: False):
        torch.manual_seed(1)
        student = SmallNet(8)
        bound = (0.5 * task_loss() + 5.0 * retain()).bind(task, None, student, seed=4)
        fit(student, bound, Training(epochs=2, batch_size=32), seed=0, checkpoint=FileCheckpoint(path, stop), log=QuietLog())
        return student.state_dict(), bound.module.state_dict()

    straight = trained(tmp_path / "a")
    asked = iter([False] * 3 + [True])
    with pytest.raises(Interrupted):
        trained(tmp_path / "b", stop=lambda: next(asked))
    resumed = trained(tmp_path / "b")
    for one, other in zip(straight, resumed, strict=True):
        assert all(torch.equal(v, other[k]) for k, v in one.items())


class Heads(nn.Module):
    """An old task's head beside a new one's."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.old, self.new = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x).tanh()
        return {"logits": self.new(features), "old": self.old(features)}


def test_an_old_head_is_kept_while_a_new_one_learns(tmp_path):
    """Training with the term forgets less of the old head's answers than without."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(128, 4, generator=generator)
    task = Task(metric=accuracy(), splits={"train": TensorDataset(inputs, (inputs[:, 0] > 0).long())}, models={"teacher": Heads})
    apart = {}
    for weight in (0.0, 20.0):
        torch.manual_seed(2)
        student = Heads()
        before = student(inputs)["old"].detach()
        bound = (1.0 * task_loss() + weight * retain(output="old")).bind(task, None, student)
        fit(student, bound, Training(epochs=20, batch_size=32, learning_rate=0.02), seed=0, checkpoint=FileCheckpoint(tmp_path / f"c{weight}"), log=QuietLog())
        answers = student(inputs)
        assert (answers["logits"].argmax(1) == (inputs[:, 0] > 0).long()).float().mean() > 0.9
        apart[weight] = kd_loss(answers["old"], before).item()
    assert apart[20.0] < 0.2 * apart[0.0]
    with pytest.raises(ConfigError, match="retain.output: the student has no output 'olf'. Did you mean 'old'"):
        retain(output="olf").builds((1.0 * task_loss()).bind(task).wiring(Heads()))


def test_a_bad_option_is_refused():
    with pytest.raises(ConfigError, match="options.temperature must be > 0, got 0"):
        objective_of([Entry(name="retain", options={"temperature": 0})], ALL)
