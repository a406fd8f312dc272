"""Paired proportions: the closed forms against an optimizer, scipy, and what can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest

from limbeck.core.errors import ConfigError
from limbeck.stats import paired
from limbeck.stats.paired import Counts

Z95 = 1.6448536269514722
CELLS = [(300, 8, 12, 40), (30, 2, 9, 3), (10, 0, 4, 6), (10, 5, 0, 6), (0, 7, 9, 4), (25, 3, 6, 0), (5, 1, 1, 200)]


def likeliest(cells, hypothesis):
    """The cells' probabilities of greatest likelihood among those that `hypothesis(x, y)` spans, searched from many starts."""

    def loss(point):
        p = np.array(hypothesis(*point))
        return np.inf if p.min() < 0 else -sum(k * math.log(max(q, 1e-300)) for k, q in zip(cells, p, strict=True) if k)

    starts = [(x, y) for x in (0.02, 0.1, 0.3, 0.6, 0.8) for y in (1e-3, 0.02, 0.1, 0.3, 0.5) if np.isfinite(loss((x, y)))]
    found = min((minimize(loss, s, method="Nelder-Mead", options={"xatol": 1e-11, "fatol": 1e-13, "maxiter": 4000}) for s in starts), key=lambda r: r.fun)
    return hypothesis(*found.x)


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("phi", [0.6, 0.9, 1.1])
def test_ratio_score_is_that_of_the_constrained_maximum_likelihood(cells, phi):
    n11, n10, n01, _ = cells
    # x = p₀, y = p₀₁; then p₁₁ = x − y, p₁₀ = φ·x − p₁₁, and what is left is p₀₀
    p11, p10, p01, _ = likeliest(cells, lambda x, y: (x - y, phi * x - (x - y), y, 1 - phi * x - y))
    n = sum(cells)
    variance = p10 + phi**2 * p01 + (1 - phi) ** 2 * p11
    assert variance == pytest.approx(phi * (p10 + p01), rel=1e-6)
    expected = math.sqrt(n) * ((n11 + n10) / n - phi * (n11 + n01) / n) / math.sqrt(variance)
    assert paired.score(Counts(*cells), phi) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("delta", [-0.3, -0.02, 0.1])
def test_difference_score_is_that_of_the_constrained_maximum_likelihood(cells, delta):
    n11, n10, n01, n00 = cells
    _, p10, p01, _ = likeliest(cells, lambda x, y: (x, y + delta, y, 1 - x - 2 * y - delta))
    n = sum(cells)
    expected = math.sqrt(n) * ((n10 - n01) / n - delta) / math.sqrt(p10 + p01 - delta**2)
    assert float(paired.difference_scores(n11, n10, n01, n00=n00, delta=delta)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_bounds_are_where_the_score_is_the_normal_quantile(cells, confidence):
    c, z = Counts(*cells), paired.quantile(confidence)
    n11, n10, n01, n00 = cells
    assert paired.score(c, paired.ratio_lower(c, confidence)) == pytest.approx(z, abs=1e-6)
    for bound, sign in ((paired.difference_lower, 1), (paired.difference_upper, -1)):
        assert float(paired.difference_scores(n11, n10, n01, n00=n00, delta=bound(c, confidence))) == pytest.approx(sign * z, abs=1e-6)


@pytest.mark.parametrize("n", [1, 7, 360, 10_000, 1_000_000])
def test_without_a_discordant_pair_the_bounds_have_closed_forms(n):
    same = Counts(n, 0, 0, 0)
    assert paired.ratio_lower(same) == pytest.approx(n / (n + Z95**2), rel=1e-9)
    assert paired.difference_lower(same) == pytest.approx(-(Z95**2) / (n + Z95**2), rel=1e-9)
    assert paired.difference_upper(same) == pytest.approx(Z95**2 / (n + Z95**2), rel=1e-9)
    assert paired.ratio_lower(Counts(n, 0, 0, 5 * n)) == paired.ratio_lower(same)  # what both get wrong says nothing of a ratio


def test_at_equality_both_scores_are_mcnemars():
    for n11, n10, n01, n00 in CELLS:
        expected = (n10 - n01) / math.sqrt(n10 + n01)
        assert float(paired.scores(n11, n10, n01, phi=1.0)) == pytest.approx(expected)
        assert float(paired.difference_scores(n11, n10, n01, n00=n00, delta=0.0)) == pytest.approx(expected)


def test_edges():
    assert paired.ratio_lower(Counts(0, 0, 9, 3)) == 0
    assert paired.difference_lower(Counts(0, 0, 5, 0)) == -1
    assert paired.difference_upper(Counts(0, 5, 0, 0)) == 1
    assert 0 < paired.ratio_lower(Counts(0, 1, 1, 0)) < 1
    assert 0 < paired.ratio_lower(Counts(1, 0, 10**6, 0)) < 1e-6
    with pytest.raises(ConfigError, match=r"none of 7 samples right.*max_drop"):
        paired.ratio_lower(Counts(0, 4, 0, 3))
    with pytest.raises(ConfigError, match="phi must be > 0, got 0"):
        paired.score(Counts(1, 1, 1, 1), 0)
    for wrong in (0.5, 1, 95):
        with pytest.raises(ConfigError, match=r"for 95 % write 0\.95"):
            paired.ratio_lower(Counts(1, 1, 1, 1), wrong)


def test_counts():
    assert paired.counts([1, 1, 0, 0, 1, 1], np.array([True, False, True, False, True, False])) == Counts(2, 2, 1, 1)
    c = Counts(2, 1, 3, 4)
    assert (c.total, c.candidate, c.baseline) == (10, 3, 5)
    for bad, message in (([1, 0], "shapes"), ([1, 0, 2], r"candidate\[2\] must be 0 or 1, got"), ([[1, 0, 1]], "flat")):
        with pytest.raises(ConfigError, match=message):
            paired.counts(bad, [1, 0, 1])
    with pytest.raises(ConfigError, match="not empty"):
        paired.counts([], [])
    for cells in ((0, 0, 0, 0), (3, -1, 0, 0)):
        with pytest.raises(ConfigError, match="counts must be ≥ 0"):
            Counts(*cells)


@pytest.mark.parametrize(("n10", "n01"), [(0, 0), (0, 1), (1, 6), (5, 5), (3, 14), (40, 22)])
def test_mcnemar_is_the_binomial_test_of_discordant_pairs(n10, n01):
    expected = binomtest(n10, n10 + n01, 0.5).pvalue if n10 + n01 else 1.0
    assert paired.mcnemar(Counts(50, n10, n01, 3)) == pytest.approx(expected)


def test_samples_needed_brings_the_bound_to_the_limit():
    c, limit = Counts(300, 8, 12, 40), 0.97
    needed = paired.samples_needed(c, limit)
    assert needed is not None and needed > c.total and paired.ratio_lower(c) < limit
    scale = 1000  # rates kept while counts stay whole
    rate = [round(k * scale * needed / c.total) for k in (c.n11, c.n10, c.n01, c.n00)]
    per_sample = paired.score(Counts(*rate), limit) / math.sqrt(sum(rate))
    assert per_sample * math.sqrt(needed) == pytest.approx(Z95, rel=1e-3)
    assert per_sample * math.sqrt(needed - 2) < Z95
    assert paired.samples_needed(c, 0.95) <= c.total <= paired.samples_needed(c, 0.95, 0.999)
    assert paired.samples_needed(c, 0.99) is None  # 308 / 312 is itself below
    assert paired.samples_needed(Counts(50, 0, 0, 0), 1.0) is None
    assert paired.samples_needed(Counts(0, 5, 0, 5), 0.9) is None
    assert paired.samples_needed(c, 0) == 0


def test_proportion_bounds_are_scipys_exact_ones():
    for right, total in ((0, 9), (9, 9), (1, 40), (310, 360)):
        both = binomtest(right, total).proportion_ci(0.9, method="exact")
        assert paired.proportion_bounds(right, total, 0.95) == pytest.approx((both.low, both.high))
    with pytest.raises(ConfigError, match="right must be in"):
        paired.proportion_bounds(5, 4)
