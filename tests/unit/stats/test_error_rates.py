"""How often the gates are wrong: no more often than they say (simulated, and summed exactly where few samples differ)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from limbeck.stats.paired import difference_scores, quantile, scores

SETS = 2000
Z95 = quantile(0.95)
ALLOWED = 0.05 + 3 * math.sqrt(0.05 * 0.95 / SETS)  # 6.5 %: the promise, with three standard errors of 2,000 simulated sets
TRUTHS = [(0.83, 0.97, 0.01), (0.95, 0.99, 0.004), (0.6, 0.9, 0.05)]  # baseline's proportion, limit, candidate's wins


def cells(p0, phi, p10):
    """Probabilities of (n11, n10, n01, n00) where the truth stands at the limit."""
    p11 = phi * p0 - p10
    return np.array([p11, p10, p0 - p11, 1 - p0 - p10])


def drawn(n, p, seed):
    return np.random.default_rng(seed).multinomial(n, p, size=SETS).T


@pytest.mark.parametrize("n", [360, 872, 10_000])
@pytest.mark.parametrize("truth", TRUTHS)
def test_a_candidate_at_the_limit_passes_in_one_of_twenty(n, truth):
    n11, n10, n01, _ = drawn(n, cells(*truth), seed=n)
    passed = np.mean(scores(n11, n10, n01, phi=truth[1]) >= Z95)
    assert passed <= ALLOWED
    assert passed >= 0.03  # the test isn't merely timid


@pytest.mark.parametrize("n", [360, 872, 10_000])
@pytest.mark.parametrize("truth", TRUTHS)
def test_intervals_hold_the_truth_in_95_percent(n, truth):
    p = cells(*truth)
    n11, n10, n01, n00 = drawn(n, p, seed=n + 1)
    z = quantile(0.975)
    assert np.mean(np.abs(scores(n11, n10, n01, phi=truth[1])) <= z) == pytest.approx(0.95, abs=0.015)
    assert np.mean(np.abs(difference_scores(n11, n10, n01, n00=n00, delta=p[1] - p[2])) <= z) == pytest.approx(0.95, abs=0.015)


def passing(n, p, phi, *, most=40):
    """The exact probability that the ratio test passes, summed over all counts that can occur."""
    n10, n01 = np.arange(most)[:, None, None], np.arange(most)[None, :, None]
    wide = 7 * math.sqrt(n * p[0] * (1 - p[0])) + most
    n11 = np.arange(max(0, int(n * p[0] - wide)), min(n, int(n * p[0] + wide)) + 1)[None, None, :]
    chance = binom.pmf(n10, n, p[1]) * binom.pmf(n01, n - n10, p[2] / (1 - p[1])) * binom.pmf(n11, n - n10 - n01, p[0] / (p[0] + p[3]))
    assert chance.sum() == pytest.approx(1, abs=1e-6)
    return float(chance[scores(n11, n10, n01, phi=phi) >= Z95].sum())


@pytest.mark.parametrize("n", [360, 872])
@pytest.mark.parametrize("differing", [0.5, 1, 2, 2.75, 3, 4, 5])
@pytest.mark.parametrize("wins", [0, 0.2, 0.45])
def test_the_error_rate_holds_where_few_samples_differ(n, differing, wins):
    p10, p01 = differing * wins / n, differing * (1 - wins) / n
    p11 = 0.95 - p01
    assert passing(n, (p11, p10, p01, 1 - p11 - p10 - p01), (p11 + p10) / 0.95) <= ALLOWED


def test_the_worst_case_is_where_all_may_look_the_same():
    """Where z² = 2.71 samples are expected to be lost and none won, none is seen lost with probability e^−z² = 6.7 %: the sup."""
    n = 10_000
    lost = 1.0001 * Z95**2 / n  # of a baseline that is always right
    worst = passing(n, (1 - lost, 0, lost, 0), 1 - lost, most=30)
    assert worst == pytest.approx(math.exp(-(Z95**2)), abs=5e-4)
    assert ALLOWED < worst < 0.067
