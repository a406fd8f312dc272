"""The rule for a percentile that is asked again after every sample: how often it is wrong, and what it costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from limbeck.core.errors import ConfigError
from limbeck.stats import latency, sequential
from limbeck.stats.percentiles import most_over

LONGEST = 5000


def table(percentile: float, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """For each number of samples: how many over prove "below" at most, and how many prove "above" at least."""
    counts = [most_over(n, percentile=percentile, anytime=True) for n in range(1, longest + 1)]
    return np.array([-1 if b is None else b for b, _ in counts]), np.array([10 * LONGEST if a is None else a for _, a in counts])


@pytest.mark.slow
@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.99])
def test_a_percentile_at_the_limit_is_ever_called_below_in_one_of_a_hundred(percentile):
    """Asked after every sample up to 5,000: at most 1 % + 3 standard errors of 4,000 sets, either way; the binomial rule asked so often is wrong in 5 to 12 %."""
    rng, (below, above), wrong = np.random.default_rng(5), table(percentile, LONGEST), np.zeros(2)
    for _ in range(8):
        over = np.cumsum(rng.uniform(size=(500, LONGEST)) > percentile, axis=1, dtype=np.int32)
        wrong += (over <= below).any(1).sum(), (over >= above).any(1).sum()
    assert np.all(wrong / 4000 <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 4000))


def test_the_same_for_500_samples():
    rng, (below, above) = np.random.default_rng(6), table(0.9, 500)
    over = np.cumsum(rng.uniform(size=(4000, 500)) > 0.9, axis=1, dtype=np.int32)
    for wrong in ((over <= below).any(1), (over >= above).any(1)):
        assert wrong.mean() <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 4000)
    fixed = [most_over(n, percentile=0.9)[0] for n in range(1, 501)]
    naive = (over <= np.array([-1 if b is None else b for b in fixed])).any(1)
    assert naive.mean() > 0.05, "what it is for: the rule for a fixed number, asked so often, is wrong"


def test_the_evidence_has_mean_one_at_the_limit():
    """Summed over every outcome of 60 samples: e is a mixture of likelihood ratios."""
    for percentile in (0.5, 0.9):
        for side in ("below", "above"):
            p = 1 - percentile
            mean = sum(math.comb(60, k) * p**k * (1 - p) ** (60 - k) * math.exp(sequential.log_evidence(k, 60, side, percentile=percentile)) for k in range(61))
            assert mean == pytest.approx(1)


def test_the_mean_is_at_most_one_beyond_the_limit():
    for p in (0.15, 0.3, 0.9):
        mean = sum(math.comb(60, k) * p**k * (1 - p) ** (60 - k) * math.exp(sequential.log_evidence(k, 60, "below", percentile=0.9)) for k in range(61))
        assert mean < 1


def first(over: int, percentile: float) -> int:
    return next(n for n in range(1, 100_000) if sequential.anytime_verdict(min(over, n), n, percentile=percentile) == "below")


def test_it_takes_not_many_more_samples_than_the_fixed_rule():
    assert [first(k, 0.9) for k in range(3)] == [49, 90, 112]
    assert [latency.least_samples(k) for k in range(3)] == [44, 64, 81]
    assert first(0, 0.5) == 8 and first(0, 0.99) == 507


def test_above_is_said_as_well():
    assert sequential.anytime_verdict(5, 5, percentile=0.9) == "above"
    assert sequential.anytime_verdict(20, 40, percentile=0.9) == "above"
    assert sequential.anytime_verdict(0, 0, percentile=0.9) == "undecided"


def test_what_is_needed_settles_it():
    for over, n in ((0, 10), (1, 60), (14, 200), (30, 200), (40, 300)):
        needed = sequential.anytime_needed(over, n, percentile=0.9)
        assert needed is not None and needed > n
        share = over / n
        whole = math.ceil(share * needed - 1e-9) if share < 0.1 else math.floor(share * needed + 1e-9)
        assert sequential.anytime_verdict(whole, needed, percentile=0.9) == ("below" if share < 0.1 else "above")
    assert sequential.anytime_needed(0, 10, percentile=0.9) == 49
    assert sequential.anytime_needed(0, 200, percentile=0.9) == 200
    assert sequential.anytime_needed(10, 100, percentile=0.9) is None


@pytest.mark.parametrize("inflation", [1.5, 3.0, 10.0])
def test_samples_that_count_less_prove_less(inflation):
    """e of an inflated count is at most the plain e to the power of 1 / inflation, so an error bounded without it is bounded with it."""
    for over, n in ((0, 100), (2, 200), (60, 200)):
        for side in ("below", "above"):
            plain, less = (sequential.log_evidence(over, n, side, percentile=0.9, inflation=f) for f in (1.0, inflation))
            assert less <= plain / inflation + 1e-9
    assert sequential.anytime_verdict(0, 60, percentile=0.9, inflation=inflation) == "undecided"


def test_refusals_of_counts():
    for call, message in (
        (lambda: sequential.anytime_verdict(5, 4, percentile=0.9), r"over must be in \[0, 4\]"),
        (lambda: sequential.anytime_verdict(1, 4, percentile=90), "write 0.9"),
        (lambda: sequential.anytime_needed(1, 4, percentile=0.9, confidence=99), "write 0.99"),
        (lambda: sequential.anytime_verdict(1, 4, percentile=0.9, inflation=0.5), "inflation must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
