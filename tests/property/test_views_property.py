"""Views, for any recipe: they replay, they never look at the batch, and they only move pixels."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.mechanics.views import Views

IDS = st.lists(st.integers(0, 2**62), min_size=1, max_size=5, unique=True)
SEEDS = st.integers(0, 2**63 - 1)
RECIPES = st.builds(
    Views, crop=st.integers(0, 3), flip=st.booleans(), shift=st.integers(0, 3), noise=st.sampled_from([0.0, 0.5]), versions=st.integers(1, 5), seed=st.integers(0, 2**63 - 1)
)
SHAPES = st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9))


def samples(ids: list[int], shape: tuple[int, ...]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.random.default_rng(i).uniform(1, 2, shape)) for i in ids])


@settings(deadline=None, max_examples=60)
@given(views=RECIPES, ids=IDS, shape=SHAPES, view=st.integers(0, 20), data=st.data())
def test_a_view_is_a_function_of_sample_and_view_alone(views: Views, ids: list[int], shape: tuple[int, ...], view: int, data: st.DataObject) -> None:
    x = samples(ids, shape)
    whole = views.apply(x, np.array(ids), view)
    assert whole.shape == x.shape and whole.dtype == x.dtype
    part = data.draw(st.permutations(range(len(ids))))[: data.draw(st.integers(1, len(ids)))]
    again = views.apply(x[part], np.array(ids)[part], np.full(len(part), view + 7 * views.versions))
    assert torch.equal(again, whole[part])


@settings(deadline=None, max_examples=60)
@given(views=RECIPES, ids=IDS, shape=SHAPES, view=st.integers(0, 20))
def test_pixels_are_moved_and_never_made(views: Views, ids: list[int], shape: tuple[int, ...], view: int) -> None:
    still = Views(crop=views.crop, flip=views.flip, shift=views.shift, versions=views.versions, seed=views.seed)
    x = samples(ids, shape)
    seen = still.apply(x, np.array(ids), view)
    for old, new in zip(x, seen, strict=True):
        filled = new != 0
        for before, after in zip(old, new, strict=True):  # channels keep apart
            assert np.isin(after[after != 0].numpy(), before.numpy()).all()
        assert bool((filled == filled[0]).all())  # zeros stand in all channels alike
        height, width = shape[1:]
        assert filled[0].any(1).sum() >= height - views.shift and filled[0].any(0).sum() >= width - views.shift
        if not views.shift:
            assert filled.all()


@settings(deadline=None, max_examples=40)
@given(ids=IDS, shape=SHAPES, view=st.integers(0, 20), seed=st.integers(0, 1000))
def test_noise_adds_the_same_to_any_sample_and_scales(ids: list[int], shape: tuple[int, ...], view: int, seed: int) -> None:
    zeros = torch.zeros(len(ids), *shape)
    once = Views(noise=1.0, seed=seed).apply(zeros, np.array(ids), view)
    twice = Views(noise=2.0, seed=seed).apply(zeros, np.array(ids), view)
    assert torch.equal(twice, 2 * once)
    assert once.abs().max() < 4.9
    assert not torch.equal(once, torch.zeros_like(once))
