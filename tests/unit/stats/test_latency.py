"""What timings can prove: the binomial rule, and the median ratio under a drift that both models share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from limbeck.core.errors import ConfigError
from limbeck.stats import latency


def timed(n, over):
    """n samples, `over` of them above a limit of 5."""
    return [9.0] * over + [1.0] * (n - over)


@pytest.mark.parametrize(("n", "over", "answer"), [(43, 0, "undecided"), (44, 0, "below"), (63, 1, "undecided"), (64, 1, "below"), (0, 0, "undecided")])
def test_p90_at_99_percent(n, over, answer):
    assert latency.percentile_verdict(timed(n, over), 5) == answer


def test_the_limit_itself_is_kept():
    assert latency.percentile_verdict([5.0] * 44, 5) == "below"


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.99])
def test_the_rule_is_the_binomial_distribution(percentile):
    for n in (5, 30, 200):
        for over in range(0, n + 1, 3):
            few, many = binom.cdf(over, n, 1 - percentile), binom.sf(over - 1, n, 1 - percentile)
            expected = "below" if few <= 0.01 else "above" if many <= 0.01 else "undecided"
            assert latency.percentile_verdict(timed(n, over), 5, percentile=percentile) == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_a_percentile_at_the_limit_is_called_below_in_one_of_a_hundred(seed):
    """p90 exactly at the limit, 120 samples: at most 1 % + 3 standard errors of 2,000 sets, either way."""
    sets = np.random.default_rng(seed).uniform(size=(2000, 120))
    answers = [latency.percentile_verdict(s, 0.9) for s in sets]
    for answer in ("below", "above"):
        assert answers.count(answer) / 2000 <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 2000)


def test_least_samples():
    assert [latency.least_samples(k) for k in range(3)] == [44, 64, 81]
    assert latency.least_samples(percentile=0.5) == 7
    assert latency.least_samples(percentile=0.99) == 459
    assert latency.least_samples(confidence=0.95) == 29


def test_samples_needed_settle_it_at_the_same_share():
    assert latency.samples_needed([], 5) == 44
    assert latency.samples_needed(timed(10, 0), 5) == 44
    assert latency.samples_needed(timed(100, 0), 5) == 100
    assert latency.samples_needed(timed(60, 6), 5) is None  # one in ten: the percentile stands at the limit
    for n, over in ((60, 1), (200, 14), (100, 13), (50, 2)):
        needed = latency.samples_needed(timed(n, over), 5)
        assert needed is not None and needed > n
        assert latency.percentile_verdict(timed(n, over), 5) == "undecided"
        assert latency.percentile_verdict(timed(needed, round(needed * over / n)), 5) != "undecided"


def test_no_percentile_without_the_samples_for_it():
    values = np.random.default_rng(0).exponential(size=44)
    assert latency.percentile(values[:43], 0.9) is None
    assert latency.percentile(values, 0.9) == np.quantile(values, 0.9)
    assert latency.percentile(values[:6], 0.5) is None
    assert latency.percentile(values[:7], 0.5) == np.median(values[:7])
    assert latency.percentile(values, 0.999) is None
    assert latency.percentile(values[:43], 0.1) is None
    assert latency.percentile([], 0.5) is None


def test_median_ratio_of_turns():
    found = latency.median_ratio([[2, 4, 90]] * 8, [[2.0]] * 4 + [[1.0]] * 4)
    assert (found.value, found.low, found.high) == (3.0, 2.0, 4.0)
    for turns, confidence in ((7, 0.99), (5, 0.95)):
        assert turns == latency.turns_needed(confidence) - 1
        few = latency.median_ratio([[3.0]] * turns, [[1.0]] * turns, confidence=confidence)
        assert (few.value, few.low, few.high) == (3.0, 0.0, math.inf)


def test_the_interval_drops_as_many_turns_as_it_may():
    a = [[float(i)] for i in range(1, 31)]
    found = latency.median_ratio(a, [[1.0]] * 30)
    cut = int(binom.ppf(0.005, 30, 0.5))  # P(≤ cut − 1) ≤ 0.5 %
    assert (found.low, found.high) == (cut, 31 - cut)


@pytest.mark.parametrize("turns", [10, 25])
def test_median_ratio_covers_the_truth_under_common_drift(turns):
    """a takes 1.5 times as long; both slow down by up to 3× together, with heavy-tailed noise of their own."""
    rng, missed = np.random.default_rng(turns), 0
    for _ in range(1500):
        drift = np.exp(np.cumsum(rng.normal(0, 0.2, turns)))[:, None] * (1 + 2 * (rng.uniform(size=(turns, 1)) < 0.2))
        a, b = (drift * scale * np.exp(0.05 * rng.standard_t(3, size=(turns, 5))) for scale in (1.5, 1.0))
        found = latency.median_ratio(a.tolist(), b.tolist(), confidence=0.95)
        missed += not found.low <= 1.5 <= found.high
    assert missed / 1500 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)


def test_refusals():
    for call, message in (
        (lambda: latency.percentile_verdict([1.0, math.nan], 5), "without NaN"),
        (lambda: latency.percentile_verdict([[1.0], [2.0]], 5), "flat list"),
        (lambda: latency.percentile_verdict([1.0], 5, percentile=90), "for the 90th percentile write 0.9"),
        (lambda: latency.percentile_verdict([1.0], 5, confidence=99), "for 99 % write 0.99"),
        (lambda: latency.percentile([1.0], 1.0), "percentile must be in"),
        (lambda: latency.least_samples(-1), "over must be ≥ 0, got -1"),
        (lambda: latency.median_ratio([[1.0]], []), "got 1 and 0"),
        (lambda: latency.median_ratio([], []), "at least one turn"),
        (lambda: latency.median_ratio([[1.0], []], [[1.0], [1.0]]), r"turn 1 .* got \[\]"),
        (lambda: latency.median_ratio([[0.0]], [[1.0]]), "each > 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
