"""attention_transfer: where both look (oracle 6)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from taps_said import features, gave, lengths, split_changes_nothing, value
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import attention_transfer
from limbeck.mechanics.terms.attention_transfer import attention_transfer_loss
from limbeck.mechanics.terms.features import Pair
from limbeck.testing import check_term

ONE = (Pair(student="s", teacher="t"),)


def test_it_keeps_the_contract():
    check_term(attention_transfer(pairs=(Pair(student="features.2"), Pair(student="features.8", teacher="features.8"))))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), power=st.floats(1, 4))
def test_permuting_channels_or_scaling_a_sample_changes_nothing(seed, scale, power):
    """Oracle 6."""
    s, t = features(seed, 3, 9, 4), features(seed + 1, 3, 9, 6)
    before = attention_transfer_loss(s, t, power=power)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    scales = torch.tensor([scale, 1.0, 1 / scale]).double()[:, None, None]
    assert attention_transfer_loss(s[:, :, order] * scales, -t, power=power).item() == pytest.approx(before.item(), rel=1e-9)
    assert attention_transfer_loss(5 * s, s, power=power).item() == pytest.approx(0, abs=1e-25) and before > 1e-6


def test_it_is_the_paper_written_out():
    s, t = features(0, 2, 3, 2, 2), features(1, 2, 5, 2, 2)
    q = [side.square().sum(1).flatten(1) for side in (s, t)]
    expected = sum(((a / a.norm() - b / b.norm()) ** 2).mean() for a, b in zip(*q, strict=True)) / 2
    assert value(attention_transfer(pairs=ONE), s, t).item() == pytest.approx(expected.item(), rel=1e-10)
    assert value(attention_transfer(pairs=ONE * 3), s, t).item() == pytest.approx(3 * expected.item(), rel=1e-10), "pairs are added"
    third = [F.normalize(side.abs().pow(3).sum(1).flatten(1)) for side in (s, t)]
    assert value(attention_transfer(pairs=ONE, power=3), s, t).item() == pytest.approx((third[0] - third[1]).square().mean().item(), rel=1e-10)
    by_hand = attention_transfer_loss(torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[0.0], [2.0]]]))
    assert by_hand.item() == 1, "((1 − 0)² + (0 − 1)²) / 2"


def test_padding_is_not_looked_at():
    s, t, mask = features(0, 2, 5, 3), features(1, 2, 5, 4), lengths(2, 4, tokens=5)
    before = value(attention_transfer(pairs=ONE), s, t, mask=mask)
    assert value(attention_transfer(pairs=ONE), s.masked_fill(mask[:, :, None] == 0, 50.0), t, mask=mask).item() == before.item()
    alone = attention_transfer_loss(s[:1, :2], t[:1, :2])
    assert value(attention_transfer(pairs=ONE), s[:1], t[:1], mask=mask[:1]).item() == pytest.approx(alone.item(), rel=1e-12)


def test_gradient_and_splits():
    assert torch.autograd.gradcheck(lambda z: attention_transfer_loss(z, features(1, 2, 4, 5)), features(0, 2, 4, 3).requires_grad_())
    split_changes_nothing(attention_transfer(pairs=ONE), features(0, 4, 3, 4, 4), features(1, 4, 5, 2, 2))
    split_changes_nothing(attention_transfer(pairs=ONE), features(0, 4, 6, 3), features(1, 4, 6, 5), lengths(1, 6, 2, 4, tokens=6))
    zeros = torch.zeros(2, 4, 3, dtype=torch.float64, requires_grad=True)
    attention_transfer_loss(zeros, features(1, 2, 4, 5)).backward()
    assert torch.isfinite(zeros.grad).all()


def test_what_is_refused():
    with pytest.raises(ConfigError, match="attention_transfer.power must be > 0, got 0"):
        attention_transfer(pairs=ONE, power=0)
    with pytest.raises(ConfigError, match="attention_transfer.pairs must name at least one"):
        attention_transfer(pairs=())
    with pytest.raises(TaskError, match="'s' with 't' has one only"):
        attention_transfer(pairs=ONE).function(gave(features(0, 2, 3), features(1, 2, 3)))
