"""Divergences equal the libraries', of logits, probabilities, and what lies at the edges of both."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional as F

from limbeck.stats.distances import BINS, LEAST, are_probabilities, compared, histogram, joined, log_probabilities, quantiles

LOGITS = arrays.arrays(np.float64, (6, 4), elements=st.floats(-12, 12))


@given(LOGITS, LOGITS)
@settings(max_examples=50, deadline=None)
def test_kl_is_torchs(a: np.ndarray, b: np.ndarray):
    found = compared(log_probabilities(a), log_probabilities(b))
    first, second = (torch.from_numpy(v).log_softmax(1) for v in (a, b))
    expected = F.kl_div(second, first, log_target=True, reduction="none").sum(1).numpy()
    assert found.kl == pytest.approx(expected, abs=1e-9) and (found.kl >= 0).all()
    assert a[np.arange(6), found.before] == pytest.approx(a.max(1), abs=1e-12) and found.sure_after == pytest.approx(second.exp().max(1).values.numpy())
    assert (found.margin >= 0).all() and ((found.held <= 1e-9) | (found.after == found.before)).all()


def test_an_answer_that_changed_has_a_lead_below_nothing():
    found = compared(*(log_probabilities(np.log(np.array([p]))) for p in ([0.7, 0.2, 0.1], [0.3, 0.6, 0.1])))
    assert found.margin[0] == pytest.approx(0.5) and found.held[0] == pytest.approx(-0.3)


def test_certainty_is_finite():
    for row in ([[0.0, -np.inf]], [[np.inf, 0.0]], [[1e30, -1e30]]):
        assert log_probabilities(np.array(row)).tolist() == [[pytest.approx(0.0), pytest.approx(np.log(LEAST))]]
    apart = compared(log_probabilities(np.array([[1.0, 0.0]]), given=True), log_probabilities(np.array([[0.0, 1.0]]), given=True))
    assert apart.kl[0] == pytest.approx(-np.log(LEAST))


def test_what_are_probabilities():
    assert are_probabilities(np.array([[0.2, 0.8], [0.5, 0.5]])) and not are_probabilities(np.array([[0.2, 0.7]]))
    assert not are_probabilities(np.array([[1.0]])) and not are_probabilities(np.array([[1.5, -0.5]]))


def test_one_logit_is_a_sigmoid():
    assert np.exp(log_probabilities(np.array([[0.4]])))[0, 1] == pytest.approx(1 / (1 + np.exp(-0.4)))


def test_histograms_lose_nobody():
    values, right = np.array([-1.0, 0.0, 0.04, 0.5, 1.0, 7.0]), np.array([True, False, True, True, False, True])
    told = histogram(values, 0.0, 1.0, right)
    assert len(told["right"]) == BINS and sum(told["right"]) == 4 and sum(told["wrong"]) == 2 and told["right"][0] == 2 and told["wrong"][-1] == 1
    assert sum(histogram(values, 0.0, 1.0)["all"]) == 6 and sum(histogram(np.ones(3), 1.0, 1.0)["all"]) == 3


def test_parts_are_joined_and_told():
    one = compared(*(log_probabilities(np.random.default_rng(i).normal(size=(5, 3))) for i in (0, 1)))
    both = joined([one, one])
    assert len(both.kl) == 10 and quantiles(both.kl, {"max": 1.0}) == {"mean": pytest.approx(one.kl.mean()), "max": one.kl.max()}
