"""Laws that the statistics keep for any counts and any timings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from limbeck.stats import latency, paired
from limbeck.stats.bootstrap import bca_lower
from limbeck.stats.paired import Counts


def given(*strategies):
    """Hypothesis, with the same examples at every run."""
    return lambda test: settings(derandomize=True, deadline=None, max_examples=60)(drawn(*strategies)(test))


cell = st.integers(0, 400)
tables = st.builds(Counts, st.integers(0, 400), cell, cell, st.integers(1, 400))
comparable = tables.filter(lambda c: c.candidate > 0 and c.baseline > 0)
ratios = st.floats(0.05, 5)
gaps = st.floats(-0.95, 0.95)
confidences = st.floats(0.6, 0.999)
times = st.lists(st.floats(0.01, 100), min_size=1, max_size=60)


def swapped(c: Counts) -> Counts:
    return Counts(c.n11, c.n01, c.n10, c.n00)


def gap_score(c: Counts, delta: float) -> float:
    return float(paired.difference_scores(c.n11, c.n10, c.n01, n00=c.n00, delta=delta))


@given(comparable, ratios, ratios)
def test_the_ratio_score_falls_as_the_limit_rises(c, one, other):
    low, high = sorted((one, other))
    assert paired.score(c, low) >= paired.score(c, high) - 1e-7


@given(tables, gaps, gaps)
def test_the_difference_score_falls_as_the_limit_rises(c, one, other):
    low, high = sorted((one, other))
    assert gap_score(c, low) >= gap_score(c, high) - 1e-7


@given(comparable, ratios)
def test_exchanging_the_models_turns_the_score_round(c, phi):
    assert paired.score(c, phi) == pytest.approx(-paired.score(swapped(c), 1 / phi), rel=1e-6, abs=1e-6)


@given(tables, gaps, confidences)
def test_exchanging_the_models_turns_the_difference_round(c, delta, confidence):
    assert gap_score(c, delta) == pytest.approx(-gap_score(swapped(c), -delta), rel=1e-6, abs=1e-6)
    assert paired.difference_lower(c, confidence) == pytest.approx(-paired.difference_upper(swapped(c), confidence), abs=1e-9)


@given(comparable, confidences, confidences)
def test_bounds_enclose_the_estimate_and_widen_with_confidence(c, one, other):
    less, more = sorted((one, other))
    assert 0 < paired.ratio_lower(c, more) <= paired.ratio_lower(c, less) + 1e-12
    assert paired.ratio_lower(c, less) < c.candidate / c.baseline
    gap = (c.candidate - c.baseline) / c.total
    assert -1 <= paired.difference_lower(c, more) <= paired.difference_lower(c, less) + 1e-12
    assert paired.difference_lower(c, less) <= gap <= paired.difference_upper(c, less) <= 1


@given(comparable, st.integers(2, 50))
def test_more_samples_at_the_same_rates_tighten_the_bound(c, times_as_many):
    many = Counts(*(times_as_many * k for k in (c.n11, c.n10, c.n01, c.n00)))
    assert paired.ratio_lower(many) > paired.ratio_lower(c)
    assert paired.score(many, 0.9) == pytest.approx(np.sqrt(times_as_many) * paired.score(c, 0.9), rel=1e-9, abs=1e-9)


@given(comparable, st.floats(0.3, 1.5))
def test_samples_needed_agrees_with_the_bound(c, limit):
    needed, low = paired.samples_needed(c, limit), paired.ratio_lower(c)
    assume(abs(low - limit) > 1e-6)
    assert (needed is None) == (paired.score(c, limit) <= 0)
    if needed is not None:
        assert (needed <= c.total) == (low > limit)


@given(times, st.floats(0.01, 100), st.floats(1, 10))
def test_a_looser_limit_never_turns_a_yes_into_a_no(samples, limit, looser):
    order = ("above", "undecided", "below")
    assert order.index(latency.percentile_verdict(samples, limit)) <= order.index(latency.percentile_verdict(samples, limit * looser))


@given(st.integers(0, 30), st.floats(0.5, 0.95), st.floats(0.8, 0.995))
def test_least_samples_is_the_first_that_suffices(over, percentile, confidence):
    n = latency.least_samples(over, percentile=percentile, confidence=confidence)
    rule = {"percentile": percentile, "confidence": confidence}
    assert latency.percentile_verdict([9.0] * over + [1.0] * (n - over), 5, **rule) == "below"
    if n > over + 1:
        assert latency.percentile_verdict([9.0] * over + [1.0] * (n - 1 - over), 5, **rule) != "below"


@given(st.lists(st.tuples(st.lists(st.floats(0.1, 50), min_size=1, max_size=4), st.lists(st.floats(0.1, 50), min_size=1, max_size=4)), min_size=8, max_size=30))
def test_the_ratio_of_b_to_a_mirrors_that_of_a_to_b(turns):
    a, b = [t[0] for t in turns], [t[1] for t in turns]
    there, back = latency.median_ratio(a, b), latency.median_ratio(b, a)
    assert there.low <= there.value <= there.high
    assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low))
    assert latency.median_ratio([[3 * t for t in block] for block in a], b).value == pytest.approx(3 * there.value)


@given(st.lists(st.integers(-50, 50), min_size=5, max_size=40), st.sampled_from([0.25, 1.0, 8.0]), st.integers(-30, 30))
def test_bca_moves_and_scales_with_the_data(values, scale, shift):
    v = np.array(values, dtype=np.float64)
    plain, moved = (bca_lower({"v": x}, {"v": x}, lambda c, b: float(c["v"].sum()), resamples=150) for x in (v, scale * (v + shift)))
    for before, after in ((plain.low, moved.low), (plain.value, moved.value), (plain.high, moved.high)):
        assert after == pytest.approx(scale * (before + shift * len(v)), abs=1e-9)
