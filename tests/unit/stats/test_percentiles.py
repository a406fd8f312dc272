"""What timings in blocks prove of a percentile: the two rules, dependence, and bounds that say the same as the verdict."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import norm

from limbeck.stats.dependence import inflation_of
from limbeck.stats.percentiles import bounds, claim, most_over
from limbeck.stats.sequential import anytime_verdict


def independent(turns: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(0, 0.1, size=(turns, 5))


def in_phases(length: int, persistence: float, rng: np.random.Generator) -> np.ndarray:
    """A stationary Gaussian process of first order."""
    noise = rng.normal(size=length) * math.sqrt(1 - persistence**2)
    noise[0] = rng.normal()
    return lfilter([1], [1, -persistence], noise)


def test_the_fixed_rule_is_the_binomial_one():
    assert claim([[1.0] * 11] * 4, 2.0, percentile=0.9).answer == "below"
    assert claim([[1.0] * 43], 2.0, percentile=0.9).answer == "undecided"
    assert claim([[1.0] * 43], 2.0, percentile=0.9).needed == 44


def test_a_count_that_decided_when_to_stop_takes_a_few_more():
    blocks = [[1.0] * 4] * 12
    assert claim(blocks, 2.0, percentile=0.9).answer == "below"
    stopped = claim(blocks, 2.0, percentile=0.9, anytime=True)
    assert (stopped.answer, stopped.needed, stopped.over, stopped.samples) == ("undecided", 49, 0, 48)
    assert claim([*blocks, [1.0]], 2.0, percentile=0.9, anytime=True).answer == "below"


@pytest.mark.parametrize("anytime", [False, True])
@pytest.mark.parametrize("percentile", [0.5, 0.9])
def test_bounds_say_what_the_verdict_says(percentile, anytime):
    """Every limit from the upper bound on is proven, every one under the lower bound refused, and none between them."""
    blocks = independent(60)
    low, high = bounds(blocks, percentile=percentile, anytime=anytime)
    value = float(np.quantile(blocks, percentile))
    assert low is not None and high is not None and low < value < high
    for limit, answer in ((high, "below"), (np.nextafter(high, 0), "undecided"), (low, "undecided"), (np.nextafter(low, 0), "above")):
        assert claim(blocks, limit, percentile=percentile, anytime=anytime).answer == answer


def test_bounds_that_samples_do_not_give_are_none():
    assert bounds([[1.0] * 43], percentile=0.9) == (1.0, None)
    assert bounds([[1.0, 1.1]], percentile=0.9) == (1.0, None)
    assert bounds([[1.0, 1.1, 1.2, 1.3]], percentile=0.5) == (None, None)
    assert most_over(1, percentile=0.9) == (None, None)


def test_bounds_hold_the_truth():
    """Each bound at 99 %: of 1,500 sets of 200, the true 90th percentile is missed by either in at most 1 % + 3 standard errors."""
    truth, missed = math.exp(0.1 * norm.ppf(0.9)), np.zeros(2)
    below, above = most_over(200, percentile=0.9)
    assert below is not None and above is not None
    for seed in range(1500):
        values = np.sort(independent(40, seed=seed).ravel())
        missed += values[-above] > truth, values[200 - below - 1] < truth
    assert np.all(missed / 1500 <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 1500))


# ---- dependence ----


def test_independent_timings_count_each():
    found = [inflation_of(independent(turns, seed=seed), percentile=0.9) for turns in (20, 100) for seed in range(100)]
    assert np.mean(np.array(found) == 1) > 0.9 and np.median(found) == 1


def test_a_place_within_the_block_is_no_dependence():
    """The first of each block finds a cold cache: it takes twice as long, every time."""
    blocks = independent(100)
    blocks[:, 0] *= 2
    assert inflation_of(blocks, percentile=0.9) == 1


def test_phases_count_as_one():
    """A chain of two states, each kept with probability 0.95: the variance of its mean is (1 + 0.9) / (1 − 0.9) = 19 times that of independent samples."""
    rng = np.random.default_rng(3)
    slow = np.cumsum(rng.uniform(size=20_000) < 0.05) % 2
    found = inflation_of((1 + slow + 0.001 * rng.uniform(size=20_000)).reshape(-1, 5), percentile=0.5)
    assert found == pytest.approx(19, rel=0.3)


def test_too_few_blocks_show_nothing():
    assert inflation_of([[1.0, 2.0]] * 7, percentile=0.9) == 1.0
    assert inflation_of([[1.0, 1.0]] * 50, percentile=0.9) == 1.0


def changed_clock(turns: int, *, times: float) -> np.ndarray:
    """Half of it at one clock, half at a slower one: phases so long that their inferences count as next to none."""
    blocks = independent(turns)
    blocks[turns // 2 :] *= times
    return blocks


@pytest.mark.parametrize("anytime", [False, True])
@pytest.mark.parametrize("times", [1.5, 20.0])
def test_a_clock_that_changed_once_raises_no_doubt_of_a_limit_far_away(times, anytime):
    """Ten times as slow as the slowest block, and as much above the slowest timing as that is above the fastest; nearer, it does."""
    blocks = changed_clock(200, times=times)
    medians = np.median(blocks, axis=1)
    reach = max(10 * medians.max(), blocks.max() * medians.max() / medians.min())
    assert inflation_of(blocks, percentile=0.9) > 100
    assert bounds(blocks, percentile=0.9, anytime=anytime)[1] == pytest.approx(reach)
    assert claim(blocks, 60_000.0, percentile=0.9, anytime=anytime).answer == claim(blocks, reach * 1.001, percentile=0.9, anytime=anytime).answer == "below"
    assert claim(blocks, reach * 0.999, percentile=0.9, anytime=anytime).answer == claim(blocks, blocks.max(), percentile=0.9, anytime=anytime).answer == "undecided"


def test_a_limit_far_away_takes_as_many_timings_as_any():
    assert claim(changed_clock(8, times=1.5), 60_000.0, percentile=0.9).answer == "undecided"  # 40, where 44 are the least
    assert bounds(changed_clock(8, times=1.5), percentile=0.9)[1] is None
    blocks = changed_clock(200, times=1.5)
    blocks[3, 2] = 60_001.0  # one over it, and phases count again
    assert claim(blocks, 60_000.0, percentile=0.9).answer == "undecided"


@pytest.mark.parametrize(("persistence", "most"), [(0.0, 0.027), (0.5, 0.04), (0.8, 0.04), (0.95, 0.06), (0.99, 0.027), (0.999, 0.027)])
def test_a_process_in_phases_is_not_called_below_because_of_a_calm_one(persistence, most):
    """p90 exactly at the limit, looked at from 100 timings on and each time there is a tenth more, up to 1,000. Counted as if
    independent, 0.95 is called below in 58 of 100 and 0.999 in 90, which by what was seen alone is calm and far below the limit; with
    phases counted as one, 300 sets stay below `most` (3 standard errors in it). A standard deviation is a factor of 1.65."""
    rng, limit, wrong = np.random.default_rng(9), math.exp(0.5 * float(norm.ppf(0.9))), 0
    for _ in range(300):
        values, turns = np.exp(0.5 * in_phases(1000, persistence, rng)).reshape(-1, 5), 20
        while turns <= 200:
            over = int((values[:turns] > limit).sum())
            if (answer := anytime_verdict(over, 5 * turns, percentile=0.9)) != "undecided":  # else it isn't settled with dependence either
                answer = claim(values[:turns], limit, percentile=0.9, anytime=True).answer
            wrong += answer == "below"
            if answer != "undecided":
                break
            turns = math.ceil(1.1 * turns)
    assert wrong / 300 <= most
