"""mgd: the teacher's map generated from what is shown of the student's."""

import pytest
import torch
from taps_said import built, features, gave

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import mgd
from limbeck.mechanics.terms.mgd import Generator, mgd_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(mgd(student="features.5"))
    check_term(mgd(student="features.8", teacher="features.8", masked=0))


def test_without_hiding_it_is_the_generated_map_against_the_teachers():
    term, s, t = mgd(student="s", teacher="t", masked=0), features(0, 2, 3, 4, 4), features(1, 2, 5, 2, 2)
    own = built(term, gave(s, t))
    small = torch.nn.functional.avg_pool2d(s, 2)
    expected = (own.generate(own.align(small)) - t).square().mean()
    assert term.function(gave(s, t, own=own)).item() == pytest.approx(expected.item(), rel=1e-12)
    assert mgd_loss(t, t).item() == 0 and mgd_loss(t + 3, t).item() == pytest.approx(9)


def test_what_is_hidden_is_not_seen():
    torch.manual_seed(0)
    generator, x, shown = Generator(3, 3).double(), features(0, 1, 3, 4, 4), torch.ones(1, 1, 4, 4).double()
    shown[0, 0, :2] = 0
    changed = x.clone()
    changed[:, :, :2] += 5
    assert torch.equal(generator(x, shown), generator(changed, shown)) and not torch.equal(generator(x, shown), generator(x, torch.ones_like(shown)))
    assert isinstance(generator.align, torch.nn.Identity) and Generator(3, 4).align.out_channels == 4


def test_the_share_hidden_is_the_one_asked_for_and_drawn_from_torchs_generator():
    term, s, t = mgd(student="s", teacher="t", masked=0.3), features(0, 64, 3, 8, 8), features(1, 64, 3, 8, 8)
    hidden = []

    class Listening(torch.nn.Module):
        def forward(self, student, shown):
            hidden.append(1 - shown.mean().item())
            return student

    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        term.function(gave(s, t, own=Listening()))
    assert hidden[0] == hidden[1] != hidden[2] and hidden[0] == pytest.approx(0.3, abs=0.03)


def test_gradient():
    torch.manual_seed(0)
    generator, shown = Generator(2, 3).double(), torch.tensor([[[[1.0, 0], [1, 1]]]]).double()
    assert torch.autograd.gradcheck(lambda z: mgd_loss(generator(z, shown), features(1, 1, 3, 2, 2)), features(0, 1, 2, 2, 2).requires_grad_())


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"mgd.masked must be in \[0, 1\), got 1"):
        mgd(student="s", masked=1)
    with pytest.raises(TaskError, match="mgd hides places, and 's' with 't' has one only"):
        mgd(student="s", teacher="t").function(gave(features(0, 2, 3), features(1, 2, 3)))
