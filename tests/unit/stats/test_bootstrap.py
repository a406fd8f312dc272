"""BCa: coverage, units, determinism, and rows from which nothing can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from limbeck.core.errors import ConfigError, Undefined
from limbeck.intake.metrics import macro_f1
from limbeck.stats.bootstrap import Interval, bca_lower
from limbeck.stats.paired import Counts, ratio_lower


def ratio(c, b):
    return c["v"].sum() / b["v"].sum()


def mean(c, b):
    return c["v"].mean()


def test_bounds_agree_with_scipys_bca():
    """A standard deviation of few, skewed values: biased, and its error grows with it, so that both corrections matter."""
    v = np.random.default_rng(3).lognormal(sigma=0.8, size=40)
    ours = bca_lower({"v": v}, {"v": v}, lambda c, b: c["v"].std(), confidence=0.95, resamples=20_000, seed=1, rare=False)
    theirs = scipy_bootstrap((v,), np.std, confidence_level=0.9, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    assert ours.value == v.std()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_each_bound_misses_one_time_in_twenty():
    """A ratio of means of skewed, correlated columns; the truth is 0.9. 300 sets: standard error 1.3 %."""
    rng, missed = np.random.default_rng(5), np.zeros(2)
    for seed in range(300):
        base = rng.exponential(size=70)
        kept = 0.9 * 0.5 * base + 0.9 * 0.5 * rng.exponential(size=70)
        found = bca_lower({"v": kept}, {"v": base}, ratio, confidence=0.95, resamples=300, seed=seed)
        missed += (found.low > 0.9, found.high < 0.9)
    assert np.all(missed / 300 <= 0.05 + 3 * 0.0126)
    assert missed.sum() / 600 >= 0.02


def test_units_are_drawn_whole():
    """Ten rows a unit, equal inside it: the bound must be that of the 40 units, not that of 400 independent rows."""
    by_unit = np.random.default_rng(1).exponential(size=40)
    rows = {"v": np.repeat(by_unit, 10), "doc": np.repeat([f"d{i}" for i in range(40)], 10)}
    of_units = bca_lower(rows, rows, mean, units="doc", resamples=3000)
    small = {"v": by_unit}
    expected = bca_lower(small, small, mean, resamples=3000)
    assert (of_units.low, of_units.high) == pytest.approx((expected.low, expected.high), rel=0.03)
    blind = bca_lower(rows, rows, mean, resamples=1000)
    assert blind.high - blind.low < 0.5 * (of_units.high - of_units.low)


def test_a_unit_drawn_twice_counts_as_two():
    """A reduction by unit must not melt two draws of one unit into one: each resample has as many units as there are."""
    seen = []

    def by_unit(c, b):
        seen.append((len(np.unique(c["doc"])), np.array_equal(c["doc"], b["doc"])))
        return c["v"].mean()

    rows = {"v": np.arange(30.0), "doc": np.array(["b", "a", "c"] * 10)}
    bca_lower(rows, rows, by_unit, units="doc", resamples=100)
    assert all(same for _, same in seen)
    assert [count for count, _ in seen] == [3] * 401 + [2] * 3  # all rows, the resamples, the jackknife


def test_both_models_are_resampled_together():
    v = np.random.default_rng(0).normal(10, 5, 200)
    found = bca_lower({"v": 0.9 * v}, {"v": v}, lambda c, b: (c["v"] / b["v"]).mean())
    assert found.low == pytest.approx(0.9) and found.high == pytest.approx(0.9)


def test_many_units_are_jackknifed_by_groups():
    v = np.random.default_rng(0).exponential(size=1000)
    calls = []
    found = bca_lower({"v": v}, {"v": v}, lambda c, b: calls.append(len(c["v"])) or c["v"].mean(), resamples=1000)
    assert calls[1001:] == [995] * 200
    assert found.high - found.value > found.value - found.low  # skewed, as the data are


def test_the_seed_decides():
    v = np.random.default_rng(0).exponential(size=50)
    first, again, other = (bca_lower({"v": v}, {"v": v}, mean, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_no_spread_gives_no_width():
    assert bca_lower({"v": np.ones(9)}, {"v": np.ones(9)}, ratio) == Interval(1.0, 1.0, 1.0)


def test_a_rare_difference_keeps_a_finite_bound():
    v = np.ones(50)
    c = v.copy()
    c[0] = 0
    plain, found = (bca_lower({"v": c}, {"v": v}, ratio, rare=rare) for rare in (False, True))
    assert plain.value == 0.98 and 0.9 < plain.low < 0.98 <= plain.high <= 1
    assert 0.87 < found.low < ratio_lower(Counts(n11=49, n10=0, n01=1, n00=0)) < plain.low  # the score test knows of what wasn't seen


def test_where_many_units_carry_the_spread_nothing_is_added():
    v = np.random.default_rng(0).standard_normal(2000)
    plain, found = (bca_lower({"v": v}, {"v": v}, mean, resamples=200, rare=rare) for rare in (False, True))
    assert plain.high - plain.low <= found.high - found.low < 1.03 * (plain.high - plain.low)


def test_an_undefined_resample_counts_against_both_bounds():
    v = np.zeros(40)
    v[:6] = np.arange(1, 7)  # a resample without any of these has probability 0.15 %

    def undefined_without(c, b):
        return c["v"].sum() / (c["v"] > 0).sum() if (c["v"] > 0).any() else float("nan")

    found = bca_lower({"v": v}, {"v": v}, undefined_without)
    assert 1 < found.low < found.value < found.high < 6
    v[1:] = 0
    with pytest.raises(ConfigError, match=r"undefined in \d+ of 2000 resamples.*Add samples"):
        bca_lower({"v": v}, {"v": v}, undefined_without)


def test_refusals():
    v = {"v": np.arange(5.0)}
    for candidate, baseline, options, message in (
        (v, {"v": np.arange(4.0)}, {}, r"\{v: 5\} and \{v: 4\}"),
        (v, {"w": np.arange(5.0)}, {}, "same columns"),
        ({}, {}, {}, "same columns"),
        ({"v": np.arange(1.0)}, {"v": np.arange(1.0)}, {}, "at least 2 units, got 1"),
        (v | {"d": np.zeros(5)}, v | {"d": np.zeros(5)}, {"units": "d"}, "at least 2 units, got 1"),
        (v | {"d": np.arange(5)}, v | {"d": np.arange(5)[::-1]}, {"units": "d"}, "'d' differs"),
        (v, v, {"units": "d"}, "no column 'd'"),
        (v, v, {"confidence": 95}, "for 95 % write 0.95"),
        (v, v, {"resamples": 5}, "resamples must be ≥ 100"),
    ):
        with pytest.raises(ConfigError, match=message):
            bca_lower(candidate, baseline, mean, **options)
    with pytest.raises(ConfigError, match="statistic of all rows is nan"):
        bca_lower(v, v, lambda c, b: float("nan"))


def f1(c, b):
    return macro_f1().reduce(c) / macro_f1().reduce(b)


def rarely(seed, n=360):
    """A candidate that loses 0.8 % of five uneven classes beside its baseline, so that about 2.6 samples differ."""
    rng = np.random.default_rng([seed, n])
    target = rng.choice(5, n, p=[0.4, 0.25, 0.2, 0.1, 0.05])
    before = np.where(rng.random(n) < 0.1, (target + 1) % 5, target)
    after = np.where((before == target) & (rng.random(n) < 0.008), (target + 2) % 5, before)
    return {"predicted": after, "target": target}, {"predicted": before, "target": target}


def test_sameness_on_few_samples_proves_little():
    _, b = rarely(0)
    plain, found = (bca_lower(b, b, f1, resamples=100, rare=rare) for rare in (False, True))
    assert plain == Interval(1, 1, 1) and found.value == 1 and 0.9 < found.low < 360 / (360 + 1.645**2)
    more = {k: np.tile(v, 10) for k, v in b.items()}
    assert (1 - bca_lower(more, more, f1, resamples=100).low) == pytest.approx((1 - found.low) / 10, rel=0.1)


@pytest.mark.slow
def test_where_few_differ_a_candidate_at_its_limit_passes_in_one_of_twenty():
    """BCa as published passes 11 % of these."""
    truth = np.mean([f1(*rarely(seed, 400_000)) for seed in range(5)])
    passed = np.mean([bca_lower(*rarely(seed), f1, resamples=300, seed=seed).low >= truth for seed in range(300)])
    assert passed <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_a_bound_far_out_takes_the_draws_that_it_needs():
    """However few were asked for: without any beyond it, a bound at 99.9 % would be the least of all draws."""
    v, drawn = np.random.default_rng(0).exponential(size=50), []
    bca_lower({"v": v}, {"v": v}, lambda c, b: drawn.append(None) or c["v"].mean(), confidence=0.998, resamples=100)
    assert len(drawn) == 1 + 10_000 + 50  # all rows, the resamples, the jackknife


def test_draws_that_say_nothing_do_not_hide_that_the_others_are_all_alike():
    """The same model twice, its share right within the two units of a class; of a draw without them it is undefined, in the others 1."""
    rows = {"right": np.array([1.0, 0, *[1] * 38]), "class": np.arange(40) < 5}

    def kept(c: dict, b: dict) -> float:
        own, first = (r["right"][r["class"]].mean() if r["class"].any() else math.nan for r in (c, b))
        return float(own / first) if first > 0 else math.nan

    found = bca_lower(rows, dict(rows), kept)
    assert found.value == 1.0 and found.low < 0.8


def test_a_bound_beyond_all_draws_is_extrapolated():
    """A thousand slices ask for bounds at 99.995 %: 10,000 draws serve, and the bound is that of a normal mean, beyond the least of them."""
    v = np.random.default_rng(0).normal(size=400)
    drawn: list[float] = []
    found = bca_lower({"v": v}, {"v": v}, lambda c, b: drawn.append(float(c["v"].mean())) or drawn[-1], confidence=0.999995)
    assert len(drawn) == 1 + 10_000 + 200 and found.low < min(drawn) and found.high > max(drawn)
    error = v.std() / math.sqrt(400)
    assert found.low == pytest.approx(v.mean() - 4.42 * error, abs=0.4 * error) and found.high == pytest.approx(v.mean() + 4.42 * error, abs=0.4 * error)
    wider = [bca_lower({"v": v}, {"v": v}, lambda c, b: c["v"].mean(), confidence=c).low for c in (0.99, 0.999, 0.9999, 0.99999)]
    assert wider == sorted(wider, reverse=True)


def test_what_is_undefined_too_often_is_not_extrapolated_over():
    """In 0.5 % of draws no unit is of the class: of a bound at 99.99 % nothing can be said, however calm the other draws are."""
    rows = {"v": np.random.default_rng(0).normal(size=40), "class": np.arange(40) < 5}
    with pytest.raises(Undefined, match="undefined in"):
        bca_lower(rows, dict(rows), lambda c, b: float(c["v"][c["class"]].mean()) if c["class"].any() else math.nan, confidence=0.9999)


def test_one_model_by_itself_is_copied_once_in_a_draw():
    """An interval of a million rows has nothing to wait for a second copy of them."""
    rows = {"v": np.random.default_rng(0).exponential(size=50), "doc": np.arange(50) // 2}
    other = dict(rows)
    for baseline, once in ((rows, True), (other, False)):
        seen = []
        bca_lower(rows, baseline, lambda c, b, seen=seen: seen.append(c is b) or c["v"].mean(), units="doc")
        assert set(seen[1:]) == {once}
