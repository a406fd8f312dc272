"""cka: 1 − linear CKA (oracle 6)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from taps_said import features, gave, lengths, rotation, value

from limbeck.core.errors import TaskError
from limbeck.mechanics.terms import cka
from limbeck.mechanics.terms.cka import cka_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(cka(student="features.8"))
    check_term(cka(student="features.2", teacher="features.2"))
    assert cka(student="s").relational


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_rotation_scale_and_shift_change_nothing(seed, scale, shift):
    """Oracle 6."""
    s, t = features(seed, 8, 4), features(seed + 1, 8, 5)
    assert cka_loss(scale * s @ rotation(seed, 4) + shift, t @ rotation(seed, 5) - shift).item() == pytest.approx(cka_loss(s, t).item(), rel=1e-8)
    assert cka_loss(scale * s @ rotation(seed, 4) + shift, s).item() == pytest.approx(0, abs=1e-12)
    assert 0 < cka_loss(s, t) < 1 and cka_loss(s, t).item() == pytest.approx(cka_loss(t, s).item(), rel=1e-12)


def test_it_is_the_paper_written_out_and_orthogonal_spaces_share_nothing():
    s, t = (z - z.mean(0) for z in (features(0, 9, 4), features(1, 9, 6)))
    expected = (t.T @ s).square().sum() / ((s.T @ s).norm() * (t.T @ t).norm())
    assert cka_loss(s, t).item() == pytest.approx(1 - expected.item(), rel=1e-12)
    basis = torch.linalg.qr(torch.cat([torch.ones(6, 1).double(), features(2, 6, 4)], 1)).Q
    assert cka_loss(basis[:, 1:3], basis[:, 3:5]).item() == pytest.approx(1, abs=1e-12), "centred and orthogonal"
    assert cka_loss(basis[:, 1:3], basis[:, 1:2]).item() == pytest.approx(1 - 2**-0.5, abs=1e-12)


def test_maps_of_other_shapes_and_padded_tokens():
    s, t = features(0, 5, 3, 4, 4), features(1, 5, 7, 2)
    expected = cka_loss(s.flatten(1), t.flatten(1))
    assert value(cka(student="s", teacher="t"), s, t).item() == pytest.approx(expected.item(), rel=1e-12)
    mask = lengths(1, 7, 3, 2, 5, tokens=7)
    padded = value(cka(student="s", teacher="t"), s, t, mask=mask)
    assert padded.item() == value(cka(student="s", teacher="t"), s, t.masked_fill(mask[:, :, None] == 0, 3.0), mask=mask).item() != expected.item()


def test_gradient_even_where_nothing_varies():
    t = features(1, 5, 3)
    assert torch.autograd.gradcheck(lambda z: cka_loss(z, t), features(0, 5, 3).requires_grad_())
    same = torch.ones(5, 3, requires_grad=True)
    loss = cka_loss(same, t.float())
    loss.backward()
    assert loss.item() == pytest.approx(1) and torch.isfinite(same.grad).all()


def test_two_samples_are_refused():
    with pytest.raises(TaskError, match="cka compares the samples of a batch with each other and needs at least 3, got 2"):
        cka(student="s", teacher="t").function(gave(features(0, 2, 3), features(1, 2, 3)))
