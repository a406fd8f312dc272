"""overhaul: margins, and distances that count."""

import pytest
import torch
from taps_said import built, features, gave, lengths

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.taps import tapped
from limbeck.mechanics.terms import overhaul
from limbeck.mechanics.terms.features import Pair
from limbeck.mechanics.terms.overhaul import overhaul_loss
from limbeck.testing import check_term, small_task

ONE = (Pair(student="s", teacher="t"),)


def test_it_keeps_the_contract():
    check_term(overhaul(pairs=(Pair(student="features.1"), Pair(student="features.7", teacher="features.7"))))
    assert overhaul(pairs=ONE).relational


def test_margins_are_the_means_below_zero_of_the_training_split():
    task = small_task()
    teacher, student = rebuild(teacher_candidate(task).torch_form, task), task.models["small"]().train()
    bound = (1.0 * overhaul(pairs=(Pair(student="features.4"),))).bind(task, LiveTeacher(task, teacher), student)
    with torch.no_grad(), tapped(teacher, ["features.4"]) as seen:
        teacher(batch_of(task, "train", range(96))[0])
    values = seen["features.4"].transpose(0, 1).flatten(1)
    expected = torch.stack([channel[channel < 0].mean() for channel in values])
    assert torch.allclose(bound.module["overhaul"][0].margin, expected, atol=1e-5) and (expected < 0).all()
    assert student.training and not any(p is bound.module["overhaul"][0].margin for p in bound.parameters())
    few = (1.0 * overhaul(pairs=(Pair(student="features.4"),), samples=1)).bind(task, LiveTeacher(task, teacher), student)
    assert not torch.allclose(few.module["overhaul"][0].margin, expected, atol=1e-5), "one batch of 64 only"


def test_by_hand_where_it_counts():
    """Teacher positive: pulled. Teacher negative: pulled down to max(teacher, margin) from above, left alone from below."""
    teacher = torch.tensor([2.0, 2.0, -0.5, -0.5, -3.0, -3.0]).view(1, 6, 1)
    student = torch.tensor([3.0, 1.0, 0.5, -1.0, 0.0, -2.0]).view(1, 6, 1)
    each = torch.stack([overhaul_loss(student[:, i : i + 1], teacher[:, i : i + 1], torch.tensor([-1.0])) for i in range(6)])
    assert each.tolist() == [1, 1, 1, 0, 1, 0]
    assert overhaul_loss(student, teacher, torch.tensor([-1.0])).item() == pytest.approx(4 / 6)


def test_margin_zero_is_the_relu():
    t = features(1, 2, 4, 3)
    assert overhaul_loss(t.relu() - 1e-9, t, torch.zeros(3).double()).item() == pytest.approx(0, abs=1e-12)


def test_the_term_projects_normalises_and_leaves_padding_out():
    s, t, mask = features(0, 2, 4, 3), features(1, 2, 4, 5), lengths(2, 4, tokens=4)
    term = overhaul(pairs=ONE)
    own = built(term, gave(s, t, mask=mask))
    below = [torch.stack([t[b, n, c] for b, count in enumerate((2, 4)) for n in range(count) if t[b, n, c] < 0]).mean() for c in range(5)]
    assert torch.allclose(own[0].margin, torch.stack(below))
    z = s @ own[0].project.weight.T
    z = (z - z.mean((0, 1))) / (z.var((0, 1), correction=0) + 1e-5).sqrt()
    target = torch.maximum(t, own[0].margin)
    losses = ((z - target) ** 2 * ((z > target) | (t > 0))).mean(-1)
    assert term.function(gave(s, t, mask=mask, own=own)).item() == pytest.approx((losses[0, :2].mean() + losses[1].mean()).item() / 2, rel=1e-9)


def test_gradient():
    margin = -features(2, 3).abs()
    assert torch.autograd.gradcheck(lambda z: overhaul_loss(z, features(1, 2, 2, 3), margin), features(0, 2, 2, 3).requires_grad_())


def test_what_is_refused():
    with pytest.raises(ConfigError, match="the teacher's 't' never goes below 0. Tap the batch norm before it"):
        built(overhaul(pairs=ONE), gave(features(0, 2, 3, 2, 2), features(1, 2, 3, 2, 2).relu()))
    with pytest.raises(TaskError, match="a batch of one gives it a single value a channel at 's'"):
        own = built(overhaul(pairs=ONE), gave(features(0, 2, 3), features(1, 2, 3)))
        overhaul(pairs=ONE).function(gave(features(0, 1, 3), features(1, 1, 3), own=own))
    with pytest.raises(ConfigError, match="overhaul.samples must be ≥ 1, got 0"):
        overhaul(pairs=ONE, samples=0)
