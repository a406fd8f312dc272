"""Another numbering of the classes is found where there is one, and never where there isn't."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.stats.relabelling import relabelling


def answered(labels: np.ndarray, classes: int, *, right: float, rng: np.random.Generator) -> np.ndarray:
    wrong = (labels + rng.integers(1, classes, len(labels))) % classes
    return np.where(rng.random(len(labels)) < right, labels, wrong)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(0, 10_000))
def test_a_permutation_is_found_and_undone(classes, seed):
    rng = np.random.default_rng(seed)
    labels, permutation = rng.integers(0, classes, 120 * classes), rng.permutation(classes)
    answers = permutation[answered(labels, classes, right=0.9, rng=rng)]
    found = relabelling(labels, answers)
    if np.array_equal(permutation, np.arange(classes)):
        assert found is None
    else:
        assert found is not None and np.array_equal(permutation[list(found.label_of)], np.arange(classes)), "label_of undoes it"
        logits = np.eye(classes)[answers][:, list(found.class_of)]
        assert (logits.argmax(1) == labels).mean() > 0.8, "and class_of puts the outputs in order"
        assert found.right_relabelled > found.right and found.samples == 60 * classes


def test_two_classes_of_ten_that_changed_places():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 1000)
    answers = np.array([0, 1, 2, 7, 4, 5, 6, 3, 8, 9])[answered(labels, 10, right=0.95, rng=rng)]
    found = relabelling(labels, answers)
    assert found is not None and found.moved == ((3, 7), (7, 3))


@pytest.mark.parametrize("right", [0.25, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("classes", [2, 4, 10, 50])
def test_a_teacher_that_is_weak_or_guesses_is_not_taken_for_one(classes, right):
    """Over 60 draws of few samples; a half that was found and judged on itself would gain by chance."""
    for seed in range(60):
        rng = np.random.default_rng([seed, classes])
        labels = rng.integers(0, classes, 96)
        rate = max(right, 0.55) if classes == 2 else right
        assert relabelling(labels, answered(labels, classes, right=rate, rng=rng)) is None
        assert relabelling(labels, rng.integers(0, classes, 96)) is None


def test_what_tells_nothing_gives_nothing():
    assert relabelling(np.array([0, 1]), np.array([1, 0])) is None and relabelling(np.zeros(50, int), np.zeros(50, int)) is None
    assert relabelling(np.array([-1, 1, 0, 1]), np.array([1, 0, 1, 0])) is None
