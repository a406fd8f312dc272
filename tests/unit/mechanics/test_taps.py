"""Taps: features of any model, unedited; and the term that reads them (oracle 6)."""

import pytest
import torch
from torch import nn

import limbeck
from limbeck import Contract, Gate, Plan, Stage
from limbeck.core.errors import ConfigError
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.taps import shapes, tapped
from limbeck.mechanics.terms import similarity_preserving, task_loss
from limbeck.mechanics.terms.similarity_preserving import similarity_loss
from limbeck.testing import SmallNet, small_task


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.pair = nn.Linear(4, 4), nn.LSTM(4, 3, batch_first=True)

    def forward(self, x):
        return self.pair(self.layer(self.layer(x)))[0]


def test_a_tap_sees_what_the_module_gave_and_leaves_no_hook():
    model, x = Twice(), torch.randn(2, 5, 4)
    with tapped(model, ["layer", "pair"]) as seen:
        out = model(x)
        assert torch.equal(seen["pair"], out)
    assert torch.equal(seen["layer"], model.layer(model.layer(x))), "the last of two calls"
    assert not any(m._forward_hooks for m in model.modules())
    with pytest.raises(ZeroDivisionError), tapped(model, ["layer"]):
        _ = 1 / 0
    assert not any(m._forward_hooks for m in model.modules())


def test_shapes_are_read_off_one_pass_in_eval_mode():
    model = SmallNet(8).train()
    before = model.features[1].running_mean.clone()
    assert shapes(model, ["features.3", "head"], (torch.randn(2, 1, 8, 8),), {}) == {"features.3": (2, 16, 8, 8), "head": (2, 4)}
    assert model.training and torch.equal(before, model.features[1].running_mean)


def test_a_path_that_is_not_there_is_said_with_near_names():
    with pytest.raises(ConfigError, match="no module 'features.33' to tap in SmallNet. Did you mean 'features.3'"), tapped(SmallNet(), ["features.33"]):
        pass

    class Unused(SmallNet):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(1, 1)

    with pytest.raises(ConfigError, match="'spare' isn't reached"):
        shapes(Unused(), ["spare"], (torch.zeros(2, 1, 8, 8),), {})


def test_similarity_ignores_rotation_and_scale_and_sees_difference():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(12, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    rotation = torch.linalg.qr(torch.randn(7, 7, generator=generator, dtype=torch.float64)).Q
    assert similarity_loss(a, a).item() == 0
    assert similarity_loss(a @ rotation, a).item() == pytest.approx(0, abs=1e-20)
    assert similarity_loss(3 * a, b).item() == pytest.approx(similarity_loss(a, b).item(), rel=1e-12)
    assert similarity_loss(a, b).item() > 1e-3


def test_an_objective_taps_both_sides_and_trains_the_student_alone():
    task, student, teacher = small_task(), SmallNet(8), SmallNet(16)
    bound = (1.0 * task_loss() + 10.0 * similarity_preserving(student="features.3", teacher="features.6")).bind(task, LiveTeacher(task, teacher))
    loss, parts = bound(student, batch_of(task, "train", range(8)), torch.arange(8).numpy())
    assert set(parts) == {"task_loss", "similarity_preserving"} and parts["similarity_preserving"] > 0
    loss.backward()
    assert student.features[0].weight.grad is not None and teacher.features[0].weight.grad is None
    with pytest.raises(ConfigError, match="no module 'nowhere'"):
        (1.0 * similarity_preserving(student="features.3", teacher="nowhere")).bind(task, LiveTeacher(task, teacher))


def test_distill_matches_features_by_name(tmp_path):
    terms = [
        {"name": "task_loss", "weight": 0.1},
        {"name": "kd", "weight": 0.9, "options": {"temperature": 2}},
        {"name": "similarity_preserving", "weight": 100, "options": {"student": "features.6", "teacher": "features.6"}},
    ]
    config = {"student": "small", "terms": terms, "training": {"epochs": 3, "batch_size": 32}}
    plan = Plan(stages=(Stage(technique="distill", config=config, gate=Gate(pays="bytes", shrink=1.0, retention=0.0)),), control=False)
    result = limbeck.compress(small_task(), Contract(size_ratio=1.5), plan, root=tmp_path, timing_seconds=0.1, proof=limbeck.Proof(studies="none"))
    history = result.summary["stages"][0]["claims"]["history"]
    assert len(history) == 3 and all(row["similarity_preserving"] > 0 for row in history)
