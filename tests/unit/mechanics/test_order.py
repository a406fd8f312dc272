"""The order in which a training sees its samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.core.errors import ConfigError
from limbeck.mechanics.order import Curriculum, Order


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), epoch=st.integers(0, 20), count=st.integers(2, 80))
def test_without_a_curriculum_each_epoch_sees_every_sample_once(seed, epoch, count):
    found = Order(seed, count, 8, 21).epoch(epoch)
    assert sorted(found) == list(range(count)) and np.array_equal(found, Order(seed, count, 8, 21).epoch(epoch))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), first=st.floats(0.05, 1), full=st.floats(0.05, 1))
def test_easy_samples_come_first_and_all_of_them_in_the_end(seed, first, full):
    hardness = np.random.default_rng(seed).random(100)
    order = Order(seed, 100, 10, 10, Curriculum(by="confidence", first=first, full=full), np.argsort(hardness))
    opened = [order.open(e) for e in range(10)]
    assert opened == sorted(opened) and opened[0] == max(round(first * 100), 10)
    for epoch, many in enumerate(opened):
        seen = order.epoch(epoch)
        assert len(seen) == 100 and set(seen) == set(np.argsort(hardness)[:many])
    assert order.open(11) == 100


def test_each_batch_has_its_share_of_labels():
    labelled = np.zeros(200, bool)
    labelled[:10] = True
    order = Order(3, 200, 16, 5, Curriculum(labelled_share=0.25), labelled=labelled)
    ids = order.epoch(0)
    assert len(ids) == 12 * 16
    batches = ids.reshape(12, 16)
    assert (labelled[batches].sum(1) == 4).all()
    assert np.bincount(batches[labelled[batches]], minlength=10).min() >= 4  # in turns: 48 places for 10 samples
    assert len(set(batches[~labelled[batches]])) == 144  # none twice while there are others


@pytest.mark.parametrize("labelled", [np.ones(20, bool), np.zeros(20, bool)])
def test_a_share_of_labels_needs_some_with_and_some_without(labelled):
    with pytest.raises(ConfigError, match=r"labelled_share is for a split in which some samples have labels; here (all|none) of 20"):
        Order(0, 20, 4, 1, Curriculum(labelled_share=0.5), labelled=labelled)
