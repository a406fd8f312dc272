"""The median's interval between two order statistics."""

import math

import numpy as np
import pytest

from limbeck.core.errors import ConfigError
from limbeck.stats.order import median_interval


def test_eight_values_are_the_first_that_bound_a_median_at_99_percent():
    seven, eight = median_interval(range(7)), median_interval(range(8))
    assert (seven.low, seven.high) == (-math.inf, math.inf) and seven.value == 3
    assert (eight.low, eight.high, eight.value) == (0, 7, 3.5)


def test_more_values_cut_more_from_both_ends():
    found = median_interval(np.arange(40)[::-1])
    assert (found.low, found.value, found.high) == (11, 19.5, 28)  # 2·P(Binomial(40, ½) ≤ 11) = 0.0064, ≤ 12: 0.017


@pytest.mark.parametrize("n", [8, 15, 40])
def test_it_covers_the_true_median_as_often_as_it_says(n: int):
    draws = np.random.default_rng(0).lognormal(size=(4000, n))  # median 1
    held = [median_interval(row).low <= 1 <= median_interval(row).high for row in draws]
    assert np.mean(held) >= 0.99 - 3 * math.sqrt(0.99 * 0.01 / 4000)


@pytest.mark.parametrize("bad", [[], [float("nan")], [[1.0, 2.0]], [math.inf]])
def test_what_is_no_flat_list_of_numbers_is_refused(bad):
    with pytest.raises(ConfigError, match="finite"):
        median_interval(bad)


def test_a_confidence_is_a_fraction():
    with pytest.raises(ConfigError, match="99 %"):
        median_interval([1.0], confidence=99)
