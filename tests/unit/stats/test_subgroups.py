"""The shallow tree cuts where variance falls most, and the test beside it keeps its level."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from limbeck.core.errors import ConfigError
from limbeck.stats.subgroups import Column, Condition, column_of, grown, standing_out


def welch(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    spread = a.var(axis=axis, ddof=1) / a.shape[axis] + b.var(axis=axis, ddof=1) / b.shape[axis]
    return (a.mean(axis=axis) - b.mean(axis=axis)) / np.sqrt(spread)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_first_cut_is_the_best_that_there_is(seed: int):
    rng = np.random.default_rng(seed)
    values, harm = rng.integers(0, 20, 200).astype(float), rng.normal(0, 1, 200)
    cuts = [(a + b) / 2 for a, b in itertools.pairwise(np.unique(values))]
    sides = [(harm[values <= c], harm[values > c]) for c in cuts]
    within = [sum(((s - s.mean()) ** 2).sum() for s in pair) if min(map(len, pair)) >= 20 else np.inf for pair in sides]
    found = grown([Column("x", values)], harm, depth=1)
    assert [c.conditions[0].value for c in found] == [cuts[int(np.argmin(within))]]


def test_a_part_of_two_conditions_is_found_in_few_words():
    rng = np.random.default_rng(0)
    label, size, noise = rng.integers(0, 6, 3000), rng.random(3000), rng.random(3000)
    harm = ((label == 3) & (size > 0.62)).astype(float)
    best = grown([Column("noise", noise), Column("label", label, tuple("abcdef")), Column("size", size)], harm)[0]
    assert [c.column for c in best.conditions] == ["label", "size"] and str(best).startswith("label = d and size > 0.6")


def test_the_tightest_bound_of_several_is_told():
    size = np.linspace(0, 1, 1000)
    best = grown([Column("size", size)], np.where(size > 0.9, 1.0, np.where(size > 0.5, 0.3, 0.0)))[0]
    assert len(best.conditions) == 1 and best.conditions[0].kind == "above" and best.conditions[0].value > 0.85


def test_what_is_not_known_is_in_no_part():
    values = np.array([0.0, 1.0, np.nan, 2.0])
    for kind in ("above", "at most"):
        assert not Condition("x", kind, 0.5).holds(Column("x", values))[2]


def test_parts_have_enough_samples_on_either_side():
    rng = np.random.default_rng(0)
    harm = np.zeros(300)
    harm[:10] = 1
    for part in grown([Column("x", np.arange(300.0)), Column("y", rng.random(300))], harm, least=20):
        assert 20 <= part.holds([Column("x", np.arange(300.0)), Column("y", rng.random(300))]).sum() <= 280 or "y" in str(part)


@pytest.mark.parametrize("planted", [0.0, 0.4])
def test_of_one_part_the_p_value_is_that_of_a_permutation_test(planted: float):
    rng = np.random.default_rng(1)
    harm, inside = rng.normal(0, 1, 120), np.arange(120) < 40
    harm[inside] += planted
    expected = permutation_test((harm[inside], harm[~inside]), welch, vectorized=True, n_resamples=4000, alternative="greater", rng=np.random.default_rng(0)).pvalue
    assert standing_out(harm, inside[None])[0] == pytest.approx(expected, abs=0.03)


def test_looking_at_many_parts_costs():
    rng = np.random.default_rng(2)
    harm, masks = rng.normal(0, 1, 200), rng.random((40, 200)) < 0.3
    masks[0] = harm > np.quantile(harm, 0.8)
    alone, among = standing_out(harm, masks[1:2])[0], standing_out(harm, masks)
    assert among[1] > alone and among[0] < 0.01


def test_chance_stands_out_as_seldom_as_is_promised():
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(150):
        harm, masks = rng.choice([-1.0, 0.0, 1.0], 150, p=[0.02, 0.93, 0.05]), rng.random((3, 150)) < 0.25
        found += bool((standing_out(harm, masks) <= 0.05).any())
    assert found <= 150 * 0.05 + 3 * np.sqrt(150 * 0.05 * 0.95)


def test_nobody_harmed_and_everybody_harmed_stand_out_nowhere():
    masks = np.arange(60)[None] < 20
    for level in (0.0, 1.0):
        assert standing_out(np.full(60, level), masks)[0] == 1
    with pytest.raises(ConfigError, match="0.05"):
        standing_out(np.zeros(60), masks, confidence=0.05)


def test_columns_of_text_bools_and_numbers():
    text, flag, few, many = (column_of("x", np.asarray(v)) for v in (["b", "a", "b"], [True, False, True], [1, 3, 1], list(range(20))))
    assert text.names == ("a", "b") and text.values.tolist() == [1, 0, 1] and flag.names == ("false", "true") and few.names == ("1", "3") and many.names is None
    assert column_of("x", np.array([0.5, np.inf, 0.7])).values[1] != column_of("x", np.array([0.5, np.inf, 0.7])).values[1]
    for same in (["a", "a"], [2, 2], [0.1, 0.1 + 1e-12], [np.nan, np.nan]):
        assert column_of("x", np.asarray(same)) is None
