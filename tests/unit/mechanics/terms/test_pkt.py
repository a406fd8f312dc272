"""pkt: neighbours as probabilities (oracle 6)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from taps_said import features, gave, rotation

from limbeck.core.errors import TaskError
from limbeck.mechanics.terms import pkt
from limbeck.mechanics.terms.pkt import pkt_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(pkt(student="features.8"))
    check_term(pkt(student="in:head", teacher="in:head"))
    assert pkt(student="s").relational


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_rotation_and_scaling_any_sample_change_nothing(seed, scale):
    s, t = features(seed, 6, 4), features(seed + 1, 6, 5)
    before, scales = pkt_loss(s, t), torch.tensor([scale, 1, 2, 3, 1, 1 / scale]).double()[:, None]
    assert pkt_loss(scales * s @ rotation(seed, 4), t @ rotation(seed, 5)).item() == pytest.approx(before.item(), rel=1e-8)
    assert pkt_loss(scales * s @ rotation(seed, 4), s).item() == pytest.approx(0, abs=1e-14) and before > 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_it_is_the_paper_written_out(seed):
    s, t = (features(seed + i, 5, 3).numpy() for i in (0, 1))

    def conditional(z):
        unit = z / np.linalg.norm(z, axis=1, keepdims=True)
        k = (1 + unit @ unit.T) / 2 + 1e-7
        np.fill_diagonal(k, 0)
        return k / k.sum(1, keepdims=True)

    p, q = conditional(t), conditional(s)
    expected = sum(p[i, j] * np.log(p[i, j] / q[i, j]) for i in range(5) for j in range(5) if i != j) / 25
    assert pkt_loss(torch.tensor(s), torch.tensor(t)).item() == pytest.approx(expected, rel=1e-9)


def test_gradient_even_for_opposite_and_empty_samples():
    t = features(1, 5, 3)
    assert torch.autograd.gradcheck(lambda z: pkt_loss(z, t), features(0, 5, 3).requires_grad_())
    odd = torch.tensor([[1.0, 0], [-1, 0], [0, 0], [1, 1]], requires_grad=True)
    loss = pkt_loss(odd, features(2, 4, 3).float())
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(odd.grad).all()


def test_two_samples_are_refused():
    with pytest.raises(TaskError, match="pkt compares the samples of a batch with each other and needs at least 3, got 2"):
        pkt(student="s", teacher="t").function(gave(features(0, 2, 3), features(1, 2, 3)))
