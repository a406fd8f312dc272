"""vid: a Gaussian guess of the teacher's features."""

import math

import pytest
import torch
from taps_said import built, features, gave, lengths, sentences, split_changes_nothing
from torch.distributions import Normal

from limbeck.core.errors import ConfigError
from limbeck.mechanics.terms import vid
from limbeck.mechanics.terms.features import Pair
from limbeck.mechanics.terms.vid import Guess, vid_loss
from limbeck.testing import check_term

ONE = (Pair(student="s", teacher="t"),)


def test_it_keeps_the_contract():
    check_term(vid(pairs=(Pair(student="features.5", teacher="features.8"), Pair(student="in:head"))))
    check_term(vid(pairs=(Pair(student="layers.1"),)), task=sentences())


def test_it_is_the_gaussian_log_likelihood():
    mean, t, variance = features(0, 3, 4, 5), features(1, 3, 4, 5), features(2, 5).exp()
    expected = -Normal(mean, variance.sqrt()).log_prob(t).mean() - 0.5 * math.log(2 * math.pi)
    assert vid_loss(mean, variance, t).item() == pytest.approx(expected.item(), rel=1e-10)
    assert vid_loss(t, torch.ones(5).double(), t).item() == 0 and vid_loss(t, torch.full((5,), 0.25).double(), t).item() == pytest.approx(0.5 * math.log(0.25))


def test_the_best_variance_is_the_mean_squared_error():
    mean, t = features(0, 3, 4, 5), features(1, 3, 4, 5)
    best = (t - mean).square().mean((0, 1))
    assert all(vid_loss(mean, best, t) < vid_loss(mean, best * factor, t) for factor in (0.9, 1.1))


def test_it_begins_with_the_variance_that_was_asked_for():
    for variance in (0.01, 1.0, 5.0, 50.0):
        assert torch.allclose(Guess(3, 4, variance)(torch.zeros(1, 1, 3))[1], torch.tensor(variance), rtol=1e-4)


def test_pairs_are_added_and_padding_is_left_out():
    s, t, mask = features(0, 2, 4, 3), features(1, 2, 4, 5), lengths(2, 4, tokens=4)
    step = gave(s, t, mask=mask)
    own = built(vid(pairs=ONE), step)
    value = vid(pairs=ONE).function(gave(s, t, mask=mask, own=own))
    changed = s.masked_fill(mask[:, :, None] == 0, 9.0)
    assert vid(pairs=ONE).function(gave(changed, t, mask=mask, own=own)).item() == value.item()
    twice = torch.nn.ModuleList([own[0], own[0]])
    assert vid(pairs=ONE * 2).function(gave(s, t, mask=mask, own=twice)).item() == pytest.approx(2 * value.item(), rel=1e-12)


def test_gradient_and_splits():
    variance = features(2, 3).exp().requires_grad_()
    assert torch.autograd.gradcheck(lambda m, v: vid_loss(m, v, features(1, 2, 2, 3)), (features(0, 2, 2, 3).requires_grad_(), variance))
    split_changes_nothing(vid(pairs=ONE), features(0, 4, 3, 4, 4), features(1, 4, 5, 2, 2))
    split_changes_nothing(vid(pairs=ONE), features(0, 4, 6, 3), features(1, 4, 6, 5), lengths(1, 6, 2, 4, tokens=6))


def test_its_options():
    with pytest.raises(ConfigError, match="vid.variance must be > 1e-05, got 0"):
        vid(pairs=ONE, variance=0)
    with pytest.raises(ConfigError, match="vid.pairs must name at least one pair"):
        vid(pairs=())
