"""Expected calibration error: against its definition by hand, and how often its gate passes what doesn't keep its limit."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from limbeck.core.errors import ConfigError
from limbeck.stats.calibration import BINS, bins, error, error_least, error_upper, increase_least, increase_upper

SETS = 400
ALLOWED = 0.05 + 3 * math.sqrt(0.05 * 0.95 / SETS)


def answers(n, *, over, seed):
    """Confidences, and answers that are right less often by `over`: that is the true error."""
    rng = np.random.default_rng([n, seed])
    confidence = rng.uniform(0.55, 0.95, n)
    return confidence, (rng.random(n) < confidence - over).astype(float)


def test_by_hand():
    confidence, correct = np.repeat([0.6, 0.9], 150), np.tile([1.0, 0.0], 150)
    found = bins(confidence, correct)
    assert [(b.confidence, b.accuracy, b.count) for b in found] == [(pytest.approx(0.6), 0.5, 150), (pytest.approx(0.9), 0.5, 150)]
    assert error(confidence, correct) == pytest.approx((0.1 + 0.4) / 2)
    assert error(np.ones(10), np.zeros(10)) == 1 and error(np.ones(10), np.ones(10)) == 0


def test_bins_hold_equal_masses_and_equal_confidences_are_never_parted():
    confidence = np.random.default_rng(0).random(1500)
    found = bins(confidence, np.ones(1500))
    assert len(found) == BINS and all(b.count == 100 for b in found)
    tied = np.repeat([0.5, 0.7, 0.9], [500, 3, 497])
    assert [b.count for b in bins(tied, np.ones(1000))] == [503, 497]  # too few of 0.7 for a bin of their own
    order = np.random.default_rng(1).permutation(1000)
    right = (np.arange(1000) % 3 > 0).astype(float)
    assert error(tied[order], right[order]) == pytest.approx(error(tied, right))


@pytest.mark.parametrize("over", [0.0, 0.03, 0.1])
def test_an_error_without_chance_is_not_above_the_true_one_in_the_mean_and_comes_near_it(over):
    for n in (100, 1000, 10_000):
        found = [answers(n, over=over, seed=seed) for seed in range(60)]
        least = np.mean([error_least(own) for own in found])
        chance = 0.25 / math.sqrt(n)  # of cutting off below 0, where there is no error
        assert least <= over + chance and least < np.mean([error(*own) for own in found])
        assert n < 10_000 or least >= over - 0.01
        increase = np.mean([increase_least(own, answers(n, over=0.0, seed=1000 + seed)) for seed, own in enumerate(found)])
        assert increase == pytest.approx(least, abs=2 * chance)


def test_a_bound_lies_beyond_the_estimate_and_narrows():
    few, many = (error_upper(answers(n, over=0.1, seed=1)) for n in (200, 3200))
    assert few[0] < few[1] and many[0] < many[1] and many[1] - many[0] < few[1] - few[0]


def test_clusters_are_drawn_whole():
    own = answers(300, over=0.1, seed=3)
    repeated = tuple(np.repeat(column, 4) for column in own)
    alone, clustered = error_upper(repeated), error_upper(repeated, units=np.repeat(np.arange(300), 4))
    once = error_upper(own)
    assert clustered[1] - clustered[0] == pytest.approx(once[1] - once[0], rel=0.1) and alone[1] - alone[0] < 0.7 * (once[1] - once[0])
    with pytest.raises(ConfigError, match="at least 2 units"):
        error_upper(own, units=np.zeros(300))


def test_memory_grows_by_little_with_each_sample():
    """A sample lies in one bin of each model: a table of all samples by all bins is 30 numbers a sample, and copies of it."""
    count = 100_000
    both = answers(count, over=0.1, seed=0), answers(count, over=0.05, seed=1)
    increase_upper(both[0], both[1])  # imports, and what they hold
    tracemalloc.start()
    try:
        increase_upper(both[0], both[1])
        assert tracemalloc.get_traced_memory()[1] < 250 * count
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("confidence", [np.array([1.2, 0.5]), np.array([np.nan, 0.5]), np.zeros(0), np.zeros((2, 1))])
def test_what_is_no_probability_is_refused(confidence):
    with pytest.raises(ConfigError, match="calibration needs one confidence"):
        error(confidence, np.ones(len(confidence)) if confidence.ndim == 1 else np.ones(2))


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 1500])
@pytest.mark.parametrize("over", [0.05, 0.12])
def test_an_error_at_its_limit_passes_in_one_of_twenty(n, over):
    assert sum(error_upper(answers(n, over=over, seed=seed))[1] <= over for seed in range(SETS)) / SETS <= ALLOWED


def pair(n, *, before, after, seed, apart=0.1):
    """Answers of a candidate and a baseline that are too sure by so much; nine samples in ten are hard or easy for both."""
    rng = np.random.default_rng([n, seed])
    sure, chance = rng.uniform(0.55, 0.95, n), rng.random(n)
    own = np.clip(sure + apart * rng.standard_normal(n) * (1 - sure), 0.05, 1)
    other = np.where(rng.random(n) < 0.9, chance, rng.random(n))
    return (own, (other < own - after).astype(float)), (sure, (chance < sure - before).astype(float))


def test_an_increase_is_the_difference_of_the_errors_and_its_bound_lies_beyond():
    for seed in range(20):
        own, other = pair(500, before=0.1, after=0.0, seed=seed)
        value, high = increase_upper(own, other)
        assert value == pytest.approx(error(*own) - error(*other)) and value < high <= 1
        assert high < increase_upper(own, other, level=0.99)[1]


def test_the_same_answers_are_known_to_be_no_worse_than_many_samples_can_tell():
    few, many = (increase_upper(one, one) for one in (answers(n, over=0.1, seed=1) for n in (100, 10_000)))
    assert few[0] == many[0] == 0 and few[1] == pytest.approx(1.96**2 / 100, rel=1e-3) and many[1] == pytest.approx(few[1] / 100, rel=1e-3)


def test_an_increase_counts_whole_clusters():
    own, other = pair(300, before=0.0, after=0.1, seed=3)
    repeated = [tuple(np.repeat(c, 4) for c in one) for one in (own, other)]
    alone, clustered = increase_upper(*repeated), increase_upper(*repeated, units=np.repeat(np.arange(300), 4))
    once = increase_upper(own, other)
    assert clustered[1] == pytest.approx(once[1], rel=0.05) and alone[1] < clustered[1] - 0.01


def test_an_increase_is_of_the_same_samples():
    with pytest.raises(ConfigError, match="of the same samples, got 300 and 200"):
        increase_upper(answers(300, over=0, seed=0), answers(200, over=0, seed=0))


def test_errors_that_are_rare_are_allowed_for_though_none_was_seen():
    """A model that is always sure: of 360 answers none is wrong, and yet 1 % of all may be."""
    sure, right = np.full(360, 1.0), np.ones(360)
    assert error_upper((sure, right)) == (0.0, pytest.approx(1.6449**2 / 360, rel=1e-3))
    high = [error_upper((sure, (np.random.default_rng([7, s]).random(360) >= 0.01).astype(float)))[1] for s in range(SETS)]
    assert np.mean(np.array(high) < 0.01) <= ALLOWED, "the plain bootstrap passed 11 % of these"


@pytest.mark.parametrize(("n", "before", "after", "apart"), [(360, 0.0, 0.1, 0.1), (872, 0.0, 0.05, 0.0), (872, 0.05, 0.08, 0.1)])
def test_an_increase_at_its_limit_passes_in_one_of_twenty(n, before, after, apart):
    sets = 150
    passed = np.mean([increase_upper(*pair(n, before=before, after=after, seed=seed, apart=apart))[1] <= after - before for seed in range(sets)])
    assert passed <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / sets)


def test_an_increase_that_is_small_beside_its_limit_passes():
    passed = np.mean([increase_upper(*pair(5000, before=0.05, after=0.05, seed=seed))[1] <= 0.03 for seed in range(20)])
    assert passed > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after", "apart"), [(0.0, 0.1, 0.1), (0.0, 0.05, 0.0), (0.05, 0.08, 0.1), (-0.03, 0.05, 0.1)])
def test_an_increase_of_many_samples_at_its_limit_passes_in_one_of_twenty(before, after, apart):
    truth = after - abs(before)
    assert np.mean([increase_upper(*pair(5000, before=before, after=after, seed=seed, apart=apart))[1] <= truth for seed in range(SETS)]) <= ALLOWED
