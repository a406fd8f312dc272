"""jsd: generalised Jensen–Shannon, and the KLs at its ends (oracle 10)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from said import labels, logits, quarters, seen, some_tokens, split_changes_nothing

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import ALL, jsd, kd
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.jsd import jsd_loss
from limbeck.mechanics.terms.kd import kd_loss
from limbeck.testing import check_term

SETTINGS = ({}, {"beta": 0.0}, {"beta": 1.0}, {"beta": 0.0, "skew": 0.1}, {"beta": 1.0, "skew": 0.1}, {"temperature": 2.0, "standardize": True})


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum(1).mean())


def probabilities(seed: int, temperature: float = 1.0) -> np.ndarray:
    return logits(seed).div(temperature).softmax(1).numpy()


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_it_keeps_the_contract(options):
    check_term(jsd(**options), task=quarters())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0.01, 0.99), temperature=st.floats(0.5, 5))
def test_it_is_the_mixture_written_out(seed, beta, temperature):
    p, q = probabilities(seed + 1, temperature), probabilities(seed, temperature)
    m = beta * p + (1 - beta) * q
    expected = temperature**2 * (beta * kl(p, m) + (1 - beta) * kl(q, m))
    assert jsd_loss(logits(seed), logits(seed + 1), beta=beta, temperature=temperature).item() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_its_ends(seed):
    """Oracle 10: 0 at both ends, JSD/β and JSD/(1 − β) the two KLs, which stand at 0 and 1 by convention."""
    s, t = logits(seed, scale=1.0), logits(seed + 1, scale=1.0)  # limits are approached the slower, the farther both are apart
    p, q = t.softmax(1).numpy(), s.softmax(1).numpy()
    near = 1e-6
    assert jsd_loss(s, t, beta=near).item() < 1e-5 and jsd_loss(s, t, beta=1 - near).item() < 1e-5
    assert jsd_loss(s, t, beta=near).item() / near == pytest.approx(kl(p, q), rel=1e-3)
    assert jsd_loss(s, t, beta=1 - near).item() / near == pytest.approx(kl(q, p), rel=1e-3)
    assert jsd_loss(s, t, beta=0).item() == pytest.approx(kl(p, q), rel=1e-9)
    assert jsd_loss(s, t, beta=1).item() == pytest.approx(kl(q, p), rel=1e-9)
    assert jsd_loss(s, t, beta=0, temperature=3).item() == pytest.approx(kd_loss(s, t, temperature=3).item(), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0, 1))
def test_symmetric_in_the_middle_zero_when_equal_and_bounded(seed, beta):
    """Oracle 10."""
    s, t = logits(seed), logits(seed + 1)
    assert jsd_loss(s, t).item() == pytest.approx(jsd_loss(t, s).item(), rel=1e-9)
    assert jsd_loss(s, s + 2, beta=beta).item() == pytest.approx(0, abs=1e-12)
    assert 0 < jsd_loss(s * 100, t * 100).item() <= np.log(2) + 1e-9
    inner = 0.01 + 0.98 * beta
    assert jsd_loss(s, t, beta=inner).item() == pytest.approx(jsd_loss(t, s, beta=1 - inner).item(), rel=1e-9)


def test_skewed_kls_are_those_to_a_mixture():
    s, t, p, q = logits(0), logits(1), probabilities(1), probabilities(0)
    assert jsd_loss(s, t, beta=0, skew=0.1).item() == pytest.approx(kl(p, 0.1 * p + 0.9 * q), rel=1e-9)
    assert jsd_loss(s, t, beta=1, skew=0.1).item() == pytest.approx(kl(q, 0.1 * q + 0.9 * p), rel=1e-9)
    far, sure = torch.tensor([[-60.0, 0.0]]).double().requires_grad_(), torch.tensor([[60.0, 0.0]]).double()
    assert jsd_loss(far, sure, beta=0, skew=0.1).item() == pytest.approx(-np.log(0.1), rel=1e-6), "bounded by −log α, however wrong the student is"
    assert jsd_loss(far, sure, beta=0).item() == pytest.approx(60, rel=1e-6)


def test_gradient_and_splits():
    t = logits(1, 4, 3, scale=1.0)
    for beta, skew in ((0.3, 0.0), (0.0, 0.1), (1.0, 0.1), (1.0, 0.0)):
        assert torch.autograd.gradcheck(lambda z, b=beta, k=skew: jsd_loss(z, t, beta=b, skew=k, temperature=2.0), logits(0, 4, 3, scale=1.0).requires_grad_())
    split_changes_nothing(jsd(), logits(0), logits(1), labels(2))
    for options in SETTINGS:
        split_changes_nothing(jsd(**options), *some_tokens())


def test_masked_tokens_are_left_out():
    s, t, label = some_tokens()
    moved = torch.where(label[..., None] == -100, s.flip(-1), s)
    assert jsd().function(seen(moved, t, label=label)).item() == jsd().function(seen(s, t, label=label)).item()
    assert kd(temperature=1).function(seen(s, t, label=label)).item() == pytest.approx(jsd(beta=0).function(seen(s, t, label=label)).item(), rel=1e-12)


def test_bad_settings_and_another_vocabulary_are_refused():
    with pytest.raises(ConfigError, match="jsd.skew must be 0 with a beta between 0 and 1, got skew 0.1 and beta 0.5"):
        jsd(skew=0.1)
    with pytest.raises(ConfigError, match=r"terms\[0\].options.beta must be in \[0, 1\], got 1.5"):
        objective_of([Entry(name="jsd", options={"beta": 1.5})], ALL)
    with pytest.raises(TaskError, match=r"student \(1, 2, 7\) and teacher \(1, 2, 9\).*vocabulary.*give the student 9"):
        jsd().function(seen(torch.zeros(1, 2, 7), torch.zeros(1, 2, 9)))
