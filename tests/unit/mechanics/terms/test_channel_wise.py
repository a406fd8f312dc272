"""channel_wise: a softmax over places for each channel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from taps_said import built, features, gave, lengths, split_changes_nothing, value
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import channel_wise
from limbeck.mechanics.terms.channel_wise import channel_wise_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(channel_wise(student="features.8"))
    check_term(channel_wise(student="features.5", teacher="features.5", temperature=1))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10))
def test_it_is_the_paper_written_out(seed, temperature):
    s, t = features(seed, 2, 6, 3), features(seed + 1, 2, 6, 3)
    p, q = (z.div(temperature).softmax(1) for z in (t, s))
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    assert channel_wise_loss(s, t, temperature=temperature).item() == pytest.approx(expected.item(), rel=1e-8)
    assert channel_wise_loss(s + features(seed, 2, 1, 3), s, temperature=temperature).item() == pytest.approx(0, abs=1e-12)


def test_a_hot_one_is_the_squared_distance_of_centred_maps():
    """As oracle 2 has it for classes, with places instead."""
    s, t = features(0, 2, 6, 3), features(1, 2, 6, 3)
    gap = (s - t) - (s - t).mean(1, keepdim=True)
    assert channel_wise_loss(s, t, temperature=1000).item() == pytest.approx(gap.square().sum(1).mean().item() / 12, rel=2e-3)


def test_it_projects_only_where_widths_differ():
    assert isinstance(built(channel_wise(student="s", teacher="t"), gave(features(0, 2, 3, 4, 4), features(1, 2, 3, 2, 2))), torch.nn.Identity)
    project = built(channel_wise(student="s", teacher="t"), gave(features(0, 2, 3, 4, 4), features(1, 2, 5, 2, 2)))
    assert (project.in_features, project.out_features) == (3, 5)
    s, t = features(0, 2, 3, 4, 4), features(1, 2, 5, 2, 2)
    pooled = F.avg_pool2d(s, 2).flatten(2).transpose(1, 2)
    expected = channel_wise_loss(project(pooled), t.flatten(2).transpose(1, 2))
    assert channel_wise(student="s", teacher="t").function(gave(s, t, own=project)).item() == pytest.approx(expected.item(), rel=1e-12)


def test_gradient_splits_and_padding():
    term, mask = channel_wise(student="s", teacher="t"), lengths(2, 6, 3, 5, tokens=6)
    assert torch.autograd.gradcheck(lambda z: channel_wise_loss(z, features(1, 2, 4, 3), temperature=1), features(0, 2, 4, 3).requires_grad_())
    s, t = features(0, 4, 6, 3), features(1, 4, 6, 3)
    split_changes_nothing(term, s, t, mask)
    alone = channel_wise_loss(s[:1, :2], t[:1, :2])
    assert value(term, s[:1], t[:1], mask=mask[:1]).item() == pytest.approx(alone.item(), rel=1e-10)
    z = s.clone().requires_grad_()
    term.function(gave(z, t, mask=mask, own=torch.nn.Identity())).backward()
    assert torch.isfinite(z.grad).all() and (z.grad[0, 2:] == 0).all()


def test_what_is_refused():
    with pytest.raises(ConfigError, match="channel_wise.temperature must be > 0, got 0"):
        channel_wise(student="s", temperature=0)
    with pytest.raises(TaskError, match="channel_wise compares places, and 's' with 't' has one only"):
        channel_wise(student="s", teacher="t").function(gave(features(0, 2, 3), features(1, 2, 3)))
