"""ttm: a softened teacher for a student that isn't."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from said import labels, logits, quarters, some_tokens, split_changes_nothing

from limbeck.core.errors import ConfigError
from limbeck.mechanics.terms import ALL, ttm
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.kd import kd_loss
from limbeck.mechanics.terms.ttm import ttm_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    for options in ({}, {"weighted": True}, {"temperature": 1}, {"standardize": True}):
        check_term(ttm(**options), task=quarters())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10))
def test_it_is_the_power_transform_written_out(seed, temperature):
    s, t = logits(seed), logits(seed + 1)
    power = t.softmax(1) ** (1 / temperature)
    total = power.sum(1, keepdim=True)
    p = power / total
    apart = (p * (p.log() - s.log_softmax(1))).sum(1)
    assert ttm_loss(s, t, temperature=temperature).item() == pytest.approx(apart.mean().item(), rel=1e-8)
    assert ttm_loss(s, t, temperature=temperature, weighted=True).item() == pytest.approx((total[:, 0] * apart).mean().item(), rel=1e-8)


def test_at_temperature_one_it_is_kd_and_zero_is_the_softened_teacher():
    s, t = logits(0), logits(1)
    assert ttm_loss(s, t, temperature=1).item() == pytest.approx(kd_loss(s, t, temperature=1).item(), rel=1e-12)
    assert ttm_loss(s, t, temperature=1, weighted=True).item() == pytest.approx(kd_loss(s, t, temperature=1).item(), rel=1e-9)
    assert ttm_loss(t / 4, t, temperature=4).item() == pytest.approx(0, abs=1e-12) and ttm_loss(t, t, temperature=4).item() > 0.01


def test_the_weight_lies_between_a_sure_teacher_and_one_that_can_not_tell():
    s = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).double()
    for teacher, weight in ((torch.tensor([[900.0, 0.0, 0.0, 0.0]]).double(), 1.0), (torch.zeros(1, 4).double(), 4 ** (1 - 1 / 2))):
        plain = ttm_loss(s, teacher, temperature=2)
        assert ttm_loss(s, teacher, temperature=2, weighted=True).item() == pytest.approx(weight * plain.item(), rel=1e-9)


def test_gradient_splits_and_a_bad_temperature():
    t = logits(1, 4, 3)
    assert torch.autograd.gradcheck(lambda z: ttm_loss(z, t, weighted=True), logits(0, 4, 3).requires_grad_())
    split_changes_nothing(ttm(weighted=True), logits(0), logits(1), labels(2))
    split_changes_nothing(ttm(), *some_tokens())
    with pytest.raises(ConfigError, match="options.temperature must be > 0, got -1"):
        objective_of([Entry(name="ttm", options={"temperature": -1})], ALL)
