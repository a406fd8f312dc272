"""Intervals over seeds and samples: by hand where that can be, and their coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from limbeck.core.errors import ConfigError
from limbeck.stats.seeds import mean_and_spread, over_seeds


def drop(c, b):
    return float(c["x"].mean() - b["x"].mean())


def test_one_seed_is_the_paired_t_interval():
    """With as many groups as samples, the jackknife of a mean is its standard error."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40))
    found = over_seeds([{"x": a}], [{"x": b}], drop)
    expected = stats.t.interval(0.95, 39, loc=(a - b).mean(), scale=stats.sem(a - b))
    assert (found.low, found.high) == pytest.approx(expected) and found.seeds_error is None and found.freedom == pytest.approx(39)


def test_seeds_that_differ_alone_give_the_t_interval_over_seeds():
    """No sample differs from another, so that all the spread is that of the seeds."""
    values = [0.1, 0.3, 0.2]
    found = over_seeds([{"x": np.full(20, v)} for v in values], [{"x": np.zeros(20)}] * 3, drop)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 2, loc=0.2, scale=stats.sem(values)))
    assert found.samples_error == pytest.approx(0, abs=1e-12) and found.freedom == pytest.approx(2)


def test_whole_units_are_left_out():
    """Ten copies of each sample say no more than one."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 30))
    alone = over_seeds([{"x": a}], [{"x": b}], drop)
    unit = np.repeat(np.arange(30), 10)
    copied = over_seeds([{"x": np.repeat(a, 10), "who": unit}], [{"x": np.repeat(b, 10), "who": unit}], lambda c, d: drop(c, d), units="who")
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_it_covers_the_truth_as_often_as_it_says(seeds):
    """Right-or-wrong answers of two models, each seed better or worse by its own luck on 150 samples of their own difficulty."""
    rng, truth, hits, runs = np.random.default_rng(seeds), 0.05, 0, 300
    for _ in range(runs):
        hard, luck = rng.normal(0, 0.15, 150), rng.normal(0, 0.03, seeds)
        chance = np.clip(0.65 + hard, 0, 1)
        pairs = [(rng.random(150) < np.clip(chance + truth + shift, 0, 1), rng.random(150) < chance) for shift in luck]
        found = over_seeds([{"x": c.astype(float)} for c, _ in pairs], [{"x": b.astype(float)} for _, b in pairs], drop)
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / runs <= 1.0, hits / runs


def test_what_does_not_pair_up_is_refused():
    rows = {"x": np.zeros(5)}
    for c, b, message in (([], [], "every seed needs its pair, got 0"), ([rows], [rows] * 2, "1 candidates and 2"), ([rows], [{"x": np.zeros(4)}], r"got \[4, 5\] rows")):
        with pytest.raises(ConfigError, match=message):
            over_seeds(c, b, drop)
    with pytest.raises(ConfigError, match="at least 2 units, got 1"):
        over_seeds([{"x": np.zeros(1)}], [{"x": np.zeros(1)}], drop)


def test_mean_and_spread():
    assert mean_and_spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5)) and mean_and_spread([1.0]) == (1.0, None)
