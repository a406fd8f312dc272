"""Expected calibration error: against its definition by hand, and how often its gate passes what doesn't keep its limit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from limbeck.core.errors import ConfigError
from limbeck.stats.calibration import BINS, bins, error, error_upper

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


@pytest.mark.parametrize("confidence", [np.array([1.2, 0.5]), np.array([np.nan, 0.5]), np.zeros(0), np.zeros((2, 1))])
def test_what_is_no_probability_is_refused(confidence):
    with pytest.raises(ConfigError, match="calibration needs one confidence"):
        error(confidence, np.ones(len(confidence)) if confidence.ndim == 1 else np.ones(2))


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 1500])
@pytest.mark.parametrize("over", [0.05, 0.12])
def test_an_error_at_its_limit_passes_in_one_of_twenty(n, over):
    assert sum(error_upper(answers(n, over=over, seed=seed))[1] <= over for seed in range(SETS)) / SETS <= ALLOWED
