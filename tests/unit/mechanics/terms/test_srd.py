"""srd: normalised last features under a soft maximum."""

import math

import pytest
import torch
from taps_said import built, features, gave

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import srd
from limbeck.mechanics.terms.srd import srd_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(srd(student="in:head"))
    check_term(srd(student="features.8", teacher="in:head", power=2))
    assert srd(student="s").relational


def test_it_is_the_paper_written_out():
    term, s, t = srd(student="s", teacher="t"), features(0, 6, 3), features(1, 6, 5)
    own = built(term, gave(s, t))
    normed = lambda z: (z - z.mean(0)) / (z.var(0, correction=0) + 1e-4).sqrt()  # noqa: E731
    total = (normed(own.project(s)) - normed(t)).abs().pow(4).sum()
    assert term.function(gave(s, t, own=own)).item() == pytest.approx(total.log().item() - math.log(30), rel=1e-10)
    gradient = torch.autograd.grad(term.function(gave(s, t, own=own)), own.project.weight)[0]
    paper = torch.autograd.grad((normed(own.project(s)) - normed(t)).abs().pow(4).sum().log(), own.project.weight)[0]
    assert torch.allclose(gradient, paper, atol=1e-12), "the constant leaves the gradient alone"


def test_scale_and_shift_of_the_teacher_change_nothing():
    term, s, t = srd(student="s", teacher="t"), features(0, 6, 3), features(1, 6, 5)
    own = built(term, gave(s, t))
    assert term.function(gave(s, 50 * t + 3, own=own)).item() == pytest.approx(term.function(gave(s, t, own=own)).item(), abs=1e-3)


def test_by_hand_and_gradient():
    assert srd_loss(torch.full((2, 3), 2.0), torch.zeros(2, 3), power=4).item() == pytest.approx(math.log(16))
    assert torch.autograd.gradcheck(lambda z: srd_loss(z, features(1, 3, 4)), features(0, 3, 4).requires_grad_())
    same = features(0, 3, 4).requires_grad_()
    loss = srd_loss(same, same.detach())
    loss.backward()
    assert math.isfinite(loss.item()) and same.grad.abs().max() == 0, "0 has a logarithm here"


def test_what_is_refused():
    with pytest.raises(TaskError, match="srd compares the samples of a batch with each other and needs at least 2, got 1"):
        srd(student="s", teacher="t").function(gave(features(0, 1, 3), features(1, 1, 3)))
    with pytest.raises(ConfigError, match="srd.power must be ≥ 1, got 0"):
        srd(student="s", power=0)
