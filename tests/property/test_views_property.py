"""Views, for any recipe: they replay, they never look at the batch, and they only move pixels."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.views import Viewer, Views

IDS = st.lists(st.integers(0, 2**62), min_size=1, max_size=5, unique=True)
SEEDS = st.integers(0, 2**63 - 1)
STRENGTHS = st.sampled_from([0.0, 0.4, 1.0])
RECIPES = st.builds(
    Views,
    crop=st.integers(0, 3),
    flip=st.booleans(),
    shift=st.integers(0, 3),
    noise=st.sampled_from([0.0, 0.5]),
    versions=st.integers(1, 5),
    seed=SEEDS,
    brightness=STRENGTHS,
    contrast=STRENGTHS,
    saturation=STRENGTHS,
    white=st.just((2.0,)),
    erase=STRENGTHS,
    erase_most=st.floats(0.1, 1.0),
    fill=st.sampled_from([0.0, -1.0]),
    time_mask=st.integers(0, 3),
    time_masks=st.integers(1, 3),
)
SHAPES = st.tuples(st.just(3), st.integers(4, 9), st.integers(4, 9))
METRIC = Metric(name="none", rows=lambda outputs, batch: {}, reduce=lambda rows: 0.0)


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
    assert torch.equal(Views(versions=views.versions, seed=views.seed).apply(x, np.array(ids), view), x)  # no strength: the sample itself


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


@settings(deadline=None, max_examples=60)
@given(ids=IDS, shape=SHAPES, view=st.integers(0, 20), seed=SEEDS, least=st.floats(0.05, 0.5), more=st.floats(0.1, 0.5))
def test_an_erased_area_keeps_its_limits(ids: list[int], shape: tuple[int, ...], view: int, seed: int, least: float, more: float) -> None:
    whole = Views(erase=1.0, erase_least=least, erase_most=least + more, seed=seed, fill=5.0)
    covered = (whole.apply(samples(ids, shape), np.array(ids), view) == 5).double().mean((1, 2, 3))
    assert (covered >= least - 1e-12).all() and (covered <= least + more + 1e-12).all()


@settings(deadline=None, max_examples=60)
@given(mixup=st.sampled_from([0.0, 0.5, 1.0]), cutmix=st.sampled_from([0.0, 0.3]), shape=SHAPES, view=st.integers(0, 9), seed=SEEDS, data=st.data())
def test_mixing_is_convex_keeps_the_area_and_never_looks_at_the_batch(mixup: float, cutmix: float, shape: tuple[int, ...], view: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 8))
    x = samples(list(range(count)), shape)
    views = Views(mixup=min(mixup, 1 - cutmix), cutmix=cutmix, flip=True, seed=seed)
    task = Task(metric=METRIC, splits={"train": TensorDataset(x, torch.arange(count))}, views=views)
    ids = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5)))
    seen = Viewer(task).see(batch_of(task, "train", ids), ids, view)
    flipped = Views(flip=True, seed=seed)
    own = flipped.apply(x[ids], ids, view)
    if seen.mixed is None:
        assert not views.mixes and torch.equal(seen.args[0], own)
        return
    other = flipped.apply(x[seen.mixed.partners], seen.mixed.partners, view)
    share = seen.mixed.share.view(-1, 1, 1, 1)
    assert ((share >= 0) & (share <= 1)).all() and torch.equal(seen.mixed.batch[1], torch.from_numpy(seen.mixed.partners))
    assert (seen.args[0] <= torch.maximum(own, other) + 1e-12).all() and (seen.args[0] >= torch.minimum(own, other) - 1e-12).all()
    mean = (share * own + (1 - share) * other).mean((1, 2, 3))
    pasted = (seen.args[0] == other).all(1).double().mean((1, 2))
    for i in range(len(ids)):
        if seen.mixed.partners[i] != ids[i] and not torch.isclose(seen.args[0][i].mean(), mean[i], rtol=1e-9):  # not blended: then cut, by exactly this area
            assert pasted[i].item() == 1 - share[i].item() or abs(pasted[i].item() - 1 + share[i].item()) < 1e-12
    alone = Viewer(task).see(batch_of(task, "train", ids[:1]), ids[:1], view)
    assert torch.equal(alone.args[0], seen.args[0][:1]) and torch.equal(alone.mixed.share, seen.mixed.share[:1])


@settings(deadline=None, max_examples=60)
@given(drop=st.floats(0, 0.5), mask=st.floats(0, 0.5), seed=SEEDS, view=st.integers(0, 9), padding=st.integers(0, 6), data=st.data())
def test_special_tokens_and_padding_are_never_touched(drop: float, mask: float, seed: int, view: int, padding: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(st.integers(10, 20), min_size=1, max_size=7), min_size=1, max_size=4))
    wide = max(map(len, rows)) + 2
    ids = torch.tensor([[1, *row, 2, *[0] * (wide - len(row) - 2 + padding)] for row in rows])
    batch = {"input_ids": ids, "attention_mask": (ids != 0).int()}
    task = Task(metric=METRIC, splits={})
    views = Views(token_drop=drop, token_mask=mask, mask_id=3, pad_id=0, keep_ids=(1, 2), input="input_ids", seed=seed)
    seen = views.apply_to(task, batch, np.arange(len(rows)), view)[1]
    for before, after, attended in zip(rows, seen["input_ids"].tolist(), seen["attention_mask"].tolist(), strict=True):
        n = sum(attended)
        assert attended == [1] * n + [0] * (len(attended) - n) and after[n:] == [0] * (len(after) - n)
        assert after[0] == 1 and after[n - 1] == 2 and 0 not in after[:n] and n >= 3
        left = iter(before)
        assert all(token == 3 or token in left for token in after[1 : n - 1])  # what isn't hidden is in its order
        if not drop:
            assert n == len(before) + 2
        if not mask:
            assert 3 not in after
