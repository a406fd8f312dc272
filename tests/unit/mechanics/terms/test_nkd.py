"""nkd: the label by the teacher's belief in it, the others on their own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from said import labels, logits, quarters, seen, some_tokens, split_changes_nothing

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import ALL, nkd
from limbeck.mechanics.terms.dkd import dkd_rows
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.nkd import nkd_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(nkd(), task=quarters())
    check_term(nkd(standardize=True, temperature=2), task=quarters())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0, 5), temperature=st.floats(0.5, 5))
def test_it_is_both_cross_entropies_written_out(seed, gamma, temperature):
    s, t, label = logits(seed), logits(seed + 1), labels(seed)
    total = 0.0
    for own, theirs, right in zip(s, t, label, strict=True):
        left = [i for i in range(5) if i != right]
        p, q = (torch.softmax(z[left] / temperature, 0) for z in (theirs, own))
        total += -theirs.softmax(0)[right] * own.log_softmax(0)[right] - gamma * temperature**2 * (p * q.log()).sum()
    assert nkd_loss(s, t, label, gamma=gamma, temperature=temperature).item() == pytest.approx(total.item() / 8, rel=1e-9)


def test_its_gradient_on_the_others_is_that_of_dkds():
    """Cross-entropy and divergence differ by the teacher's entropy, which the student can't change."""
    s, t, label = logits(0), logits(1), labels(2)
    own, other = (s.clone().requires_grad_() for _ in range(2))
    nkd_loss(own, t, label, gamma=1.0, temperature=2.0).backward()
    target = -(t.softmax(1).gather(1, label[:, None]) * other.log_softmax(1).gather(1, label[:, None])).mean()
    (dkd_rows(other, t, label, temperature=2.0)[1].mean() + target).backward()
    assert torch.allclose(own.grad, other.grad, atol=1e-12)


def test_by_hand():
    """Teacher (½, ¼, ¼), student even, T = 1: ½ · log 3 + γ · log 2."""
    t = torch.tensor([[0.5, 0.25, 0.25]]).double().log()
    assert nkd_loss(torch.zeros(1, 3).double(), t, torch.tensor([0]), gamma=1.5).item() == pytest.approx(0.5 * 1.0986122886681098 + 1.5 * 0.6931471805599453, rel=1e-7)


def test_gradient_and_splits():
    t, label = logits(1, 4, 4), labels(2, 4, classes=4)
    assert torch.autograd.gradcheck(lambda z: nkd_loss(z, t, label), logits(0, 4, 4, scale=1.0).requires_grad_())
    split_changes_nothing(nkd(), logits(0), logits(1), labels(2))
    split_changes_nothing(nkd(), *some_tokens())


def test_without_labels_it_is_refused():
    with pytest.raises(TaskError, match="nkd needs a class for each row"):
        nkd().function(seen(logits(0), logits(1)))
    with pytest.raises(ConfigError, match="options.temperature must be > 0, got 0"):
        objective_of([Entry(name="nkd", options={"temperature": 0})], ALL)
