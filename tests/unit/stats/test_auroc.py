"""Areas under the curve: equal to counting pairs, and intervals that hold."""

import numpy as np
import pytest

from limbeck.core.errors import ConfigError
from limbeck.stats.auroc import auroc, auroc_difference, components


def by_pairs(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b]))


def test_it_counts_pairs_ties_half():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 30).astype(float), rng.integers(0, 5, 20).astype(float)
    assert auroc(a, b).value == pytest.approx(by_pairs(a, b), abs=1e-12)
    found = components(a, b)
    assert found.first.mean() == pytest.approx(found.second.mean(), abs=1e-12)
    assert auroc(b, a).value == pytest.approx(1 - by_pairs(a, b), abs=1e-12)
    assert auroc(np.exp(a), np.exp(b)) == auroc(a, b), "only the order matters"


def test_the_variance_is_delongs():
    """By its definition, Biometrics 44:837: S₁₀/m + S₀₁/n."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 1, 40), rng.normal(0, 1, 25)
    psi = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
    variance = psi.mean(1).var(ddof=1) / 40 + psi.mean(0).var(ddof=1) / 25
    found = auroc(a, b)
    assert (found.value - found.low) / 1.6448536 == pytest.approx(variance**0.5, rel=1e-6)


def test_bounds_hold_as_often_as_they_say():
    rng = np.random.default_rng(2)
    low, high, changed = 0, 0, 0
    big = rng.normal(1, 1, 2_000_000) > rng.normal(0, 1, 2_000_000)  # the truth, by sampling
    truth = big.mean()
    for _ in range(600):
        a, b = rng.normal(1, 1, 60), rng.normal(0, 1, 60)
        found = auroc(a, b)
        low, high = low + (found.low <= truth), high + (found.high >= truth)
        a2, b2 = a + rng.normal(0, 0.5, 60), b + rng.normal(0, 0.5, 60)
        a3, b3 = a + rng.normal(0, 0.5, 60), b + rng.normal(0, 0.5, 60)
        change = auroc_difference((a2, b2), (a3, b3))
        changed += change.low <= 0 <= change.high
    assert 0.92 < low / 600 < 0.98 and 0.92 < high / 600 < 0.98 and 0.86 < changed / 600 < 0.94  # both bounds together: 90 %


def test_few_samples_that_are_all_told_apart_prove_little():
    few, many = (auroc(np.ones(n), np.zeros(n)) for n in (5, 500))
    assert few.value == many.value == 1.0 and few.low == pytest.approx(5 / (5 + 1.6448536**2)) and 0.99 < many.low < 1
    none = auroc(np.zeros(5), np.ones(5))
    assert (none.value, none.low) == (0.0, 0.0) and none.high == pytest.approx(1 - few.low)
    same = auroc_difference((np.ones(5), np.zeros(5)), (np.ones(5), np.zeros(5)))
    assert same.value == 0 and same.low < -0.1 and same.high > 0.1


def test_what_can_not_be_scored_is_refused():
    with pytest.raises(ConfigError, match="at least 2"):
        auroc(np.ones(1), np.ones(5))
    with pytest.raises(ConfigError, match="NaN"):
        auroc(np.array([1.0, np.nan]), np.ones(5))
    with pytest.raises(ConfigError, match="same samples"):
        auroc_difference((np.ones(3), np.ones(3)), (np.ones(3), np.ones(4)))
