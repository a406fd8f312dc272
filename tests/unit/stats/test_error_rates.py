"""How often the gates are wrong: no more often than they say (simulated, and summed exactly where few samples differ)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from limbeck.core.contract import Contract
from limbeck.stats.multiplicity import shared
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


@pytest.mark.parametrize("n", [360, 872, 10_000])
@pytest.mark.parametrize("truth", TRUTHS)
def test_three_planned_looks_at_growing_data_pass_in_one_of_twenty_together(n, truth):
    rng, p = np.random.default_rng([n, 5]), cells(*truth)
    steps = np.cumsum([rng.multinomial(n // 3, p, size=SETS).T for _ in range(3)], axis=0)
    z = np.array([scores(a, b, c, phi=truth[1]) for a, b, c, _ in steps])
    each = Contract(retention=0.9, looks=3).at_each_look
    assert np.mean((z >= quantile(each)).any(axis=0)) <= ALLOWED
    if n == 10_000:
        assert np.mean((z >= Z95).any(axis=0)) > ALLOWED, "without sharing the error they would pass too often, or this shows nothing"


@pytest.mark.parametrize("n", [360, 872, 10_000])
def test_three_tries_of_a_stage_and_two_such_looks_share_the_error(n):
    """Tries beside one baseline on the same samples, each exactly at the limit."""
    rng, p, phi = np.random.default_rng([n, 6]), cells(*TRUTHS[0]), TRUTHS[0][1]
    right = rng.binomial(n, p[0] + p[2], size=SETS)
    n11 = rng.binomial(right, p[0] / (p[0] + p[2]), size=(6, SETS))
    n10 = rng.binomial(n - right, p[1] / (p[1] + p[3]), size=(6, SETS))
    z = scores(n11, n10, right - n11, phi=phi)
    assert np.mean((z[:3] >= quantile(shared(0.95, 3))).any(axis=0)) <= ALLOWED
    both = shared(Contract(retention=0.9, looks=2).at_each_look, 3)
    assert np.mean((z >= quantile(both)).any(axis=0)) <= ALLOWED
    assert np.mean((z[:3] >= Z95).any(axis=0)) > ALLOWED


def test_the_difference_holds_its_error_rate_where_few_samples_differ():
    """Summed exactly over all counts of 40 samples: nothing is lost to what a simulation misses."""
    n = 40
    a, b, c = (axis.ravel() for axis in np.meshgrid(*[np.arange(n + 1)] * 3, indexing="ij"))
    a, b, c = (axis[a + b + c <= n] for axis in (a, b, c))
    d = n - a - b - c
    for drop, wins, base in [(0.05, 0.0, 0.9), (0.1, 0.02, 0.6), (0.02, 0.01, 0.95), (0.2, 0.05, 0.8)]:
        p = np.array([base - drop - wins, wins, drop + wins, 1 - base - wins])
        with np.errstate(divide="ignore", invalid="ignore"):
            chance = multinomial.pmf(np.stack([a, b, c, d], axis=-1), n, p)
        assert chance.sum() == pytest.approx(1)
        assert chance[difference_scores(a, b, c, n00=d, delta=-drop) >= Z95].sum() <= 0.07
