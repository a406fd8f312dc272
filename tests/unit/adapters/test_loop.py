"""An objective in one call, for a loop of one's own; batches that know their samples."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from limbeck import LiveTeacher, Task, Views, accuracy
from limbeck.adapters import Numbered, attach
from limbeck.core.errors import ConfigError
from limbeck.mechanics.terms import hint, kd, logit_mse, task_loss

PAIR = {"student": "0", "teacher": "0"}


def vectors(count=64):
    return TensorDataset(torch.randn(count, 6, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 3)


def net(width, seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def test_one_call_is_the_task_the_teacher_and_the_binding():
    data, teacher, student = vectors(), net(16, 0), net(8, 1)
    objective = 0.1 * task_loss() + 0.9 * kd() + hint(**PAIR)
    task = Task(metric=accuracy(), splits={"train": data}, views=Views(noise=0.1))
    by_hand, attached = objective.bind(task, LiveTeacher(task, teacher), student, seed=3), attach(objective, student, data=data, teacher=teacher, views=Views(noise=0.1), seed=3)
    ids = torch.arange(8).numpy()
    assert by_hand(student, data[ids], ids, 2)[0].item() == attached(student, data[ids], ids, 2)[0].item()
    assert [p.shape for p in attached.parameters()] == [(16, 8), (16,)]


def test_numbered_batches_are_the_samples_that_they_say():
    data = vectors()
    numbered = Numbered(data)
    found = list(DataLoader(numbered, batch_size=16, shuffle=True, collate_fn=numbered.collate))
    assert sorted(torch.cat([batch.ids for batch in found]).tolist()) == list(range(64))
    assert all(torch.equal(batch.batch[0], data.tensors[0][batch.ids]) for batch in found)
    own = Numbered(data, collate=lambda samples: len(samples))
    assert next(iter(DataLoader(own, batch_size=5, collate_fn=own.collate))).batch == 5


def test_a_cache_answers_for_the_teacher_and_is_refused_for_another(tmp_path):
    data, student = vectors(), net(8, 1)
    ids = torch.arange(8).numpy()

    def loss(seed, data=data, views=None):
        return attach(kd() + hint(**PAIR), student, data=data, teacher=net(16, seed), cache=tmp_path / "answers", views=views)(student, data[ids], ids)[0].item()

    first = loss(0)
    assert first == pytest.approx(attach(kd() + hint(**PAIR), student, data=data, teacher=net(16, 0))(student, data[ids], ids)[0].item(), rel=1e-2)
    assert loss(0) == first
    with pytest.raises(ConfigError, match="made with another teacher"):
        loss(5)
    with pytest.raises(ConfigError, match="made with another data"):
        other = vectors()
        other.tensors[0][3] += 1
        loss(0, data=other)
    with pytest.raises(ConfigError, match="made with another views"):
        loss(0, views=Views(noise=0.1))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


def test_what_cannot_be_right_is_refused(tmp_path):
    student = net(8, 1)
    with pytest.raises(ConfigError, match=r"must be map-style \(len\(data\), data\[i\]\), got Stream"):
        attach(task_loss(), student, data=Stream())
    with pytest.raises(ConfigError, match="keeps the answers of a teacher that is a model, got NoneType"):
        attach(task_loss(), student, data=vectors(), cache=tmp_path)
    with pytest.raises(ConfigError, match="kd needs a teacher's outputs"):
        attach(kd(), student, data=vectors())


def test_targets_choose_what_labels_are():
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    student, ids = nn.Linear(6, 1), torch.arange(8).numpy()
    data = TensorDataset(inputs, torch.arange(8.0))
    loss, _ = attach(task_loss() + 0.0 * logit_mse(), student, data=data, target="value")(student, data[ids], ids)
    assert loss.item() == pytest.approx((student(inputs)[:, 0] - data.tensors[1]).square().mean().item(), rel=1e-6)
