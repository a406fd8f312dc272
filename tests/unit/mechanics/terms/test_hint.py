"""hint: the teacher's features through a projection."""

import pytest
import torch
from taps_said import features, gave, lengths, sentences, split_changes_nothing

from limbeck.core.errors import ConfigError
from limbeck.mechanics.terms import ALL, hint
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.hint import hint_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(hint(student="features.5", teacher="features.8"))
    check_term(hint(student="in:head"))
    check_term(hint(student="layers.1"), task=sentences())


def test_it_is_the_mean_squared_difference_after_the_projection():
    s, t, mask = features(0, 2, 4, 3), features(1, 2, 4, 5), lengths(1, 3, tokens=4)
    own = torch.nn.Linear(3, 5).double()
    expected = ((own(s[0, :1]) - t[0, :1]).square().mean() + (own(s[1, :3]) - t[1, :3]).square().mean()) / 2
    assert hint(student="s", teacher="t").function(gave(s, t, mask=mask, own=own)).item() == pytest.approx(expected.item(), rel=1e-12)
    assert hint_loss(t, t).item() == 0 and hint_loss(t + 2, t).item() == pytest.approx(4)


def test_a_projection_undoes_an_affine_map_of_the_teacher():
    """The student that a linear map leads to the teacher loses nothing."""
    t, matrix = features(0, 6, 4), features(1, 4, 4)
    own = torch.nn.Linear(4, 4).double()
    with torch.no_grad():
        own.weight.copy_(torch.linalg.inv(matrix).T), own.bias.fill_(-3).copy_(-3 * torch.linalg.inv(matrix).sum(0))
    assert hint(student="s", teacher="t").function(gave(t @ matrix + 3, t, own=own)).item() == pytest.approx(0, abs=1e-20)


def test_gradient_and_splits():
    assert torch.autograd.gradcheck(lambda z: hint_loss(z, features(1, 2, 3, 4)), features(0, 2, 3, 4).requires_grad_())
    split_changes_nothing(hint(student="s", teacher="t"), features(0, 4, 3, 4, 4), features(1, 4, 5, 2, 2))
    split_changes_nothing(hint(student="s", teacher="t"), features(0, 4, 6, 3), features(1, 4, 6, 5), lengths(1, 6, 2, 4, tokens=6))


def test_its_options():
    assert objective_of([Entry(name="hint", options={"student": "a"})], ALL).terms[0][1].teacher_taps == ("auto:a",)
    with pytest.raises(ConfigError, match=r"terms\[0\].options.student is missing"):
        objective_of([Entry(name="hint")], ALL)
