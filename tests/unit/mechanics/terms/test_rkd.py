"""rkd: distances and angles (oracle 6)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from taps_said import features, gave, lengths, rotation, value

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import rkd
from limbeck.mechanics.terms.rkd import rkd_angle_loss, rkd_distance_loss
from limbeck.testing import check_term


def huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def test_it_keeps_the_contract():
    check_term(rkd(student="features.8"))
    check_term(rkd(student="in:head", teacher="in:head", angle=0))
    check_term(rkd(student="in:head", distance=0))
    assert rkd(student="s").relational


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.05, 20), shift=st.floats(-5, 5))
def test_rotation_scale_and_shift_change_nothing(seed, scale, shift):
    """Oracle 6."""
    s, t = features(seed, 6, 4), features(seed + 1, 6, 5)
    for loss in (rkd_distance_loss, rkd_angle_loss):
        assert loss(scale * s @ rotation(seed, 4) + shift, t).item() == pytest.approx(loss(s, t).item(), rel=1e-7)
        assert loss(s, scale * t @ rotation(seed, 5) - shift).item() == pytest.approx(loss(s, t).item(), rel=1e-7)
        assert loss(scale * s @ rotation(seed, 4), s).item() == pytest.approx(0, abs=1e-12) and loss(s, t) > 1e-4


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_it_is_the_paper_written_out(seed):
    s, t = (features(seed + i, 5, 3).numpy() for i in (0, 1))
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    apart = [np.array([np.linalg.norm(z[i] - z[j]) for i, j in pairs]) for z in (s, t)]
    expected = np.mean([huber(a - b) for a, b in zip(apart[0] / apart[0].mean(), apart[1] / apart[1].mean(), strict=True)])
    assert rkd_distance_loss(torch.tensor(s), torch.tensor(t)).item() == pytest.approx(expected, rel=1e-8)

    def cosine(z, i, j, k):
        a, b = z[i] - z[j], z[k] - z[j]
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    three = [(i, j, k) for i in range(5) for j in range(5) for k in range(5) if len({i, j, k}) == 3]
    expected = np.mean([huber(cosine(s, *x) - cosine(t, *x)) for x in three])
    assert rkd_angle_loss(torch.tensor(s), torch.tensor(t)).item() == pytest.approx(expected, rel=1e-8)


def test_a_right_angle_and_a_regular_triangle():
    right = torch.tensor([[0.0, 0], [3, 0], [0, 4]], dtype=torch.float64)
    equal = torch.tensor([[0.0, 0], [1, 0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)
    cosines = [(0 - 0.5), (3 / 5 - 0.5), (4 / 5 - 0.5)]
    assert rkd_angle_loss(right, equal).item() == pytest.approx(sum(map(huber, cosines)) / 3)
    assert rkd_distance_loss(right, equal).item() == pytest.approx(sum(huber(d / 4 - 1) for d in (3, 4, 5)) / 3)


def test_the_weights_weigh_and_maps_and_tokens_are_averaged():
    s, t = features(0, 5, 3), features(1, 5, 4)
    expected = 2 * rkd_distance_loss(s, t) + 3 * rkd_angle_loss(s, t)
    assert value(rkd(student="s", teacher="t", distance=2, angle=3), s, t).item() == pytest.approx(expected.item(), rel=1e-12)
    image = s[:, :, None, None].expand(5, 3, 4, 4)
    assert value(rkd(student="s", teacher="t", distance=2, angle=3), image, t).item() == pytest.approx(expected.item(), rel=1e-9)
    tokens, mask = s[:, None].repeat(1, 6, 1), lengths(1, 2, 3, 6, 4, tokens=6)
    tokens = tokens.masked_fill(mask[:, :, None] == 0, 7.0)
    assert value(rkd(student="s", teacher="t", distance=2, angle=3), tokens, t, mask=mask).item() == pytest.approx(expected.item(), rel=1e-9)


def test_gradients_even_where_samples_are_one():
    t = features(1, 5, 4)
    for loss in (rkd_distance_loss, rkd_angle_loss):
        assert torch.autograd.gradcheck(lambda z, loss=loss: loss(z, t), features(0, 5, 3).requires_grad_(), atol=1e-6)
        twins = features(0, 5, 3)
        twins[1] = twins[0]
        twins.requires_grad_()
        loss(twins, t).backward()
        assert torch.isfinite(twins.grad).all()
        same = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
        loss(same, t).backward()
        assert torch.isfinite(same.grad).all()


def test_single_precision_is_precise_enough_far_from_the_origin():
    s, t = features(0, 16, 64) + 300, features(1, 16, 64)
    for loss in (rkd_distance_loss, rkd_angle_loss):
        assert loss(s.float(), t.float()).item() == pytest.approx(loss(s, t).item(), rel=1e-3)


def test_what_is_refused():
    with pytest.raises(TaskError, match="needs at least 3, got 2. Raise the batch size"):
        rkd(student="s", teacher="t").function(gave(features(0, 2, 3), features(1, 2, 3)))
    assert torch.isfinite(rkd(student="s", teacher="t", angle=0).function(gave(features(0, 2, 3), features(1, 2, 3))))
    with pytest.raises(ConfigError, match="must be ≥ 0 and not both 0, got 0 and 0"):
        rkd(student="s", distance=0, angle=0)
