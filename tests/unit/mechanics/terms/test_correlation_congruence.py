"""correlation_congruence: a Gaussian kernel between samples (oracle 6)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from taps_said import features, gave, rotation, value
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import correlation_congruence
from limbeck.mechanics.terms.correlation_congruence import correlation_congruence_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(correlation_congruence(student="features.8"))
    assert correlation_congruence(student="s").relational


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_rotation_and_scale_change_nothing(seed, scale):
    s, t = features(seed, 6, 4), features(seed + 1, 6, 5)
    before = correlation_congruence_loss(s, t)
    assert correlation_congruence_loss(scale * s @ rotation(seed, 4), t @ rotation(seed, 5)).item() == pytest.approx(before.item(), rel=1e-9)
    assert correlation_congruence_loss(scale * s @ rotation(seed, 4), s).item() == pytest.approx(0, abs=1e-25) and before > 1e-6


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.1, 1.5))
def test_a_high_order_is_the_gaussian_kernel_itself(seed, gamma):
    s, t = features(seed, 5, 3), features(seed + 1, 5, 4)
    kernels = [torch.exp(-gamma * torch.cdist(F.normalize(side), F.normalize(side)).square()) for side in (s, t)]
    expected = (kernels[0] - kernels[1]).square().sum() / 25
    assert correlation_congruence_loss(s, t, gamma=gamma, order=40).item() == pytest.approx(expected.item(), rel=1e-8)


def test_the_papers_order_by_hand():
    """Two samples at right angles for the student, one for the teacher: the kernel differs by its first two powers, at two of four places."""
    s, t = torch.eye(2, dtype=torch.float64), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    gap = math.exp(-0.8) * (0.8 + 0.8**2 / 2)
    assert correlation_congruence_loss(s, t).item() == pytest.approx(2 * gap**2 / 4, rel=1e-12)


def test_gradient_and_pooling():
    t = features(1, 4, 3)
    assert torch.autograd.gradcheck(lambda z: correlation_congruence_loss(z, t), features(0, 4, 3).requires_grad_())
    image = features(2, 4, 3)[:, :, None, None].expand(4, 3, 2, 2)
    assert value(correlation_congruence(student="s", teacher="t"), image, t).item() == pytest.approx(correlation_congruence_loss(features(2, 4, 3), t).item(), rel=1e-12)
    zeros = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    correlation_congruence_loss(zeros, t).backward()
    assert torch.isfinite(zeros.grad).all()


def test_what_is_refused():
    with pytest.raises(TaskError, match="correlation_congruence compares the samples of a batch with each other and needs at least 2, got 1"):
        correlation_congruence(student="s", teacher="t").function(gave(features(0, 1, 3), features(1, 1, 3)))
    with pytest.raises(ConfigError, match="needs gamma > 0 and order ≥ 1, got 0 and 2"):
        correlation_congruence(student="s", gamma=0)
