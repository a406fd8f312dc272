"""The teacher's cache: right under augmentation, bound to what it was made with, safe when it is cut off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics import signals
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import Reader
from limbeck.mechanics.signals import CachedTeacher, LiveTeacher
from limbeck.mechanics.views import Views
from limbeck.testing import small_task

IDENTITY = {"teacher": "t", "data": "d", "views": None}


def live(task) -> LiveTeacher:
    return LiveTeacher(task, rebuild(teacher_candidate(task).torch_form, task))


def viewed(task, ids, view):
    return task.views.apply_to(task, Reader(task, "train").batch(ids), ids, np.full(len(ids), view))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(signals, "SHARD", 40)  # 96 samples: two whole shards and a part


def test_cached_equals_live_on_the_same_view(tmp_path):
    """Oracle 8: at fp32 the cache is the live teacher, to 1e-6 under another batch shape."""
    task = replace(small_task(), views=Views(shift=1, versions=3))
    teacher = live(task)
    cached = CachedTeacher(tmp_path, teacher, IDENTITY, dtype="float32")
    for view in (0, 2):
        ids = np.array([95, 3, 41, 40, 39])
        args, kwargs = viewed(task, ids, view)
        expected = teacher.teacher(ids, view, args, kwargs)["logits"]
        got = cached.teacher(ids, view, args, kwargs)["logits"]
        assert torch.allclose(expected, got, atol=1e-6)
    assert not torch.allclose(cached.teacher(ids, 0, args, kwargs)["logits"], cached.teacher(ids, 2, args, kwargs)["logits"])


def test_half_precision_is_within_its_rounding(tmp_path):
    task = small_task()
    args = (Reader(task, "train").batch(np.arange(96))[0],)
    expected = live(task).teacher(np.arange(96), 0, args, {})["logits"]
    got = CachedTeacher(tmp_path, live(task), IDENTITY).teacher(np.arange(96), 0, args, {})["logits"]
    assert (expected - got).abs().max() <= expected.abs().max() * 2**-10


def test_a_cache_of_something_else_is_refused_by_name(tmp_path):
    task = small_task()
    CachedTeacher(tmp_path, live(task), IDENTITY)
    for key in IDENTITY:
        with pytest.raises(ConfigError, match=f"made with another {key}.*Delete the folder"):
            CachedTeacher(tmp_path, live(task), IDENTITY | {key: "other"})
    with pytest.raises(ConfigError, match="another dtype"):
        CachedTeacher(tmp_path, live(task), IDENTITY, dtype="float32")


def test_a_cut_off_cache_is_completed_and_whole_shards_are_not_made_again(tmp_path):
    task = small_task()
    asked = []

    class Counting(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            asked.append(len(x))
            if sum(asked) > 80:
                raise KeyboardInterrupt
            return self.model(x)

    model = rebuild(teacher_candidate(task).torch_form, task)
    with pytest.raises(KeyboardInterrupt):
        CachedTeacher(tmp_path, LiveTeacher(task, Counting(model)), IDENTITY).teacher(np.array([0]), 0, (), {})
    assert sorted(p.name for p in tmp_path.glob("shard.*")) == ["shard.view0.0.json", "shard.view0.1.json"]
    counted = []
    model.register_forward_hook(lambda m, args, out: counted.append(len(out)))
    cached = CachedTeacher(tmp_path, LiveTeacher(task, model), IDENTITY)
    got = cached.teacher(np.arange(96), 0, (), {})["logits"]
    assert sum(counted) == 16  # the last, partial shard alone
    assert torch.allclose(got, live(task).teacher(np.arange(96), 0, (Reader(task, "train").batch(np.arange(96))[0],), {})["logits"], atol=2e-2)


def test_nan_in_the_teachers_outputs_is_refused_with_samples():
    task = small_task()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    model[1].bias.data.fill_(float("nan"))
    with pytest.raises(TaskError, match="output 'logits' holds NaN or Inf for one of the samples"):
        LiveTeacher(task, model).teacher(np.array([4, 5]), 0, (torch.zeros(2, 1, 8, 8),), {})
