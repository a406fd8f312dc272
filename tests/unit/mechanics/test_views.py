"""Augmentation that can be replayed: each view follows from (seed, sample id, view id) alone."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from limbeck.core.errors import ConfigError
from limbeck.core.fields import parse
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.mechanics.views import Views

ALL_AT_ONCE = Views(crop=2, flip=True, shift=1, noise=0.1, seed=3)
METRIC = Metric(name="none", rows=lambda outputs, batch: {}, reduce=lambda rows: 0.0)


def pictures(count: int = 6, *, channels: int = 2, side: int = 8) -> torch.Tensor:
    return torch.arange(count * channels * side * side, dtype=torch.float32).view(count, channels, side, side) + 1


def moves(image: np.ndarray, *, crop: int, shift: int, flip: bool) -> dict[tuple[int, ...], bytes]:
    """Every picture that the recipe may give of one, made the plain way: pad, cut, move, mirror."""
    height, width = image.shape[1:]
    made = {}
    for cy, cx, sy, sx, mirrored in itertools.product(*[range(2 * crop + 1)] * 2, *[range(2 * shift + 1)] * 2, range(1 + flip)):
        window = np.pad(image, ((0, 0), (crop, crop), (crop, crop)), mode="reflect")[:, cy : cy + height, cx : cx + width]
        moved = np.pad(window, ((0, 0), (shift, shift), (shift, shift)))[:, sy : sy + height, sx : sx + width]
        made[cy, cx, sy, sx, mirrored] = np.ascontiguousarray(moved[:, :, ::-1] if mirrored else moved).tobytes()
    return made


@pytest.mark.parametrize(("crop", "shift", "flip"), [(2, 0, False), (0, 2, False), (0, 0, True), (1, 1, True)])
def test_every_view_is_one_of_the_pictures_that_padding_and_cutting_give_and_all_come_equally_often(crop: int, shift: int, flip: bool) -> None:
    image = pictures(1, side=5)
    allowed = moves(image[0].numpy(), crop=crop, shift=shift, flip=flip)
    names = {picture: name for name, picture in allowed.items()}
    count = 60 * len(allowed)
    views = Views(crop=crop, shift=shift, flip=flip).apply(image.expand(count, -1, -1, -1), np.arange(count), 0)
    seen = [picture.numpy().tobytes() for picture in views]
    assert set(seen) <= set(names)
    if len(names) == len(allowed):  # else two draws give one picture (a crop undone by a shift): their counts differ
        counts = [seen.count(picture) for picture in names]
        assert stats.chisquare(counts).pvalue > 1e-4
    assert len(set(seen)) > 0.95 * len(names)


def test_a_view_does_not_depend_on_the_batch_or_its_order() -> None:
    x, ids = pictures(), np.array([5, 900, 17, 2, 44, 3_000_000_000])
    whole = ALL_AT_ONCE.apply(x, ids, 3)
    order = np.array([4, 0, 5, 2, 1, 3])
    assert torch.equal(ALL_AT_ONCE.apply(x[order], ids[order], 3), whole[order])
    for i in range(len(ids)):
        assert torch.equal(ALL_AT_ONCE.apply(x[i : i + 1], ids[i : i + 1], np.array([3])), whole[i : i + 1])


def test_views_come_again_after_versions_and_differ_before() -> None:
    x, ids = pictures(), np.arange(6)
    views = [ALL_AT_ONCE.apply(x, ids, v) for v in range(2 * ALL_AT_ONCE.versions)]
    for a, b in itertools.combinations(range(2 * ALL_AT_ONCE.versions), 2):
        assert torch.equal(views[a], views[b]) == ((b - a) % ALL_AT_ONCE.versions == 0)
    mixed = ALL_AT_ONCE.apply(x, ids, np.array([0, 1, 2, 0, 1, 2]))
    assert torch.equal(mixed, torch.stack([views[v][i] for i, v in enumerate([0, 1, 2, 0, 1, 2])]))


def test_seed_and_id_change_the_draws() -> None:
    x = pictures(1).expand(64, -1, -1, -1)
    ids, other = np.arange(64), Views(crop=3, seed=1)
    assert not torch.equal(Views(crop=3).apply(x, ids, 0), other.apply(x, ids, 0))
    assert len({p.numpy().tobytes() for p in other.apply(x, ids, 0)}) > 30  # of 49 that there are


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.float64])
def test_pixels_keep_their_dtype_and_value(dtype: torch.dtype) -> None:
    x = (pictures(4) % 251).to(dtype)
    moving = Views(crop=2, flip=True, shift=2)
    seen = moving.apply(x, np.arange(4), 1)
    assert seen.dtype == dtype
    assert torch.equal(seen.double(), moving.apply(x.double(), np.arange(4), 1))


def test_nothing_set_is_the_identity_and_the_input_is_left_alone() -> None:
    x = pictures()
    assert torch.equal(Views().apply(x, np.arange(6), 5), x)
    before = x.clone()
    ALL_AT_ONCE.apply(x, np.arange(6), 0)
    assert torch.equal(x, before)


def test_noise_is_normal_enough_and_uncorrelated() -> None:
    zeros = torch.zeros(200, 1000, dtype=torch.float64)
    a = Views(noise=2.0).apply(zeros, np.arange(200), 0).numpy()
    b = Views(noise=2.0).apply(zeros, np.arange(200), 1).numpy()
    assert abs(a.mean()) < 0.02 and abs(a.std() - 2) < 0.02 and abs(stats.skew(a.ravel())) < 0.03
    assert abs(stats.kurtosis(a.ravel()) + 0.15) < 0.05
    assert stats.kstest(a.ravel() / 2, "norm").statistic < 0.01
    for left, right in ((a[:, 1:], a[:, :-1]), (a[1:], a[:-1]), (a, b)):  # neighbours in a sample, neighbouring ids, neighbouring views
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 0.01


def test_noise_takes_any_shape_of_floats_and_refuses_whole_numbers() -> None:
    for shape in ((3, 7), (3, 2, 5), (3,)):
        assert Views(noise=0.5).apply(torch.ones(shape), np.arange(3), 0).shape == shape
    half = Views(noise=0.5).apply(torch.ones(3, 7, dtype=torch.float16), np.arange(3), 0)
    assert half.dtype == torch.float16 and not torch.equal(half, torch.ones_like(half))
    with pytest.raises(ConfigError, match="uint8"):
        Views(noise=0.5).apply(torch.ones(3, 7, dtype=torch.uint8), np.arange(3), 0)


SCRIPT = """
import hashlib, numpy as np, torch
from limbeck.mechanics.views import Views
x = (torch.arange(5 * 3 * 16 * 16, dtype=torch.int64) * 7919 % 256).to(torch.uint8).view(5, 3, 16, 16)
seen = Views(crop=4, flip=True, shift=2, seed=11).apply(x, np.array([0, 1, 2, 59999, 2**40]), 5)
loud = Views(noise=0.25, seed=11).apply(x.float(), np.array([0, 1, 2, 59999, 2**40]), 5)
print(hashlib.sha256(seen.numpy().tobytes() + loud.numpy().tobytes()).hexdigest())
"""


def test_bytes_are_the_same_in_another_process_and_in_another_year() -> None:
    """A change here changes every cache made before: RECIPE_VERSION must grow with it."""
    for hash_seed in ("0", "1"):
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed})
        assert done.stdout.strip() == "0217e50ef6c3873dc678d9ebf259c05ed0c9574af90811ac39c28a608beaeec0"


def test_recipe_is_json_from_which_the_views_come_back() -> None:
    recipe = json.loads(json.dumps(ALL_AT_ONCE.recipe()))
    assert recipe.pop("version") == 1
    assert parse(Views, recipe, where="views") == ALL_AT_ONCE
    assert Views(crop=1).recipe() != Views(crop=2).recipe()


def test_options_that_came_later_leave_the_recipes_of_old_caches_as_they_were():
    old = {"version": 1, "crop": 4, "flip": True, "shift": 0, "noise": 0.0, "versions": 8, "seed": 0, "input": 0}
    assert Views(crop=4, flip=True).recipe() == old
    later = Views(crop=4, flip=True, erase=0.5, keep_ids=(1, 2), along=("token_type_ids",), white=(255.0,))
    assert later.recipe() == old | {"erase": 0.5, "keep_ids": [1, 2], "along": ["token_type_ids"], "white": [255.0]}
    assert parse(Views, {k: v for k, v in later.recipe().items() if k != "version"}, where="views") == later


def _task(**fields) -> Task:
    return Task(metric=METRIC, splits={}, **fields)


def test_apply_to_changes_the_chosen_input_only() -> None:
    x, other, ids = pictures(), torch.ones(6, 3), np.arange(6)
    flipped = Views(flip=True).apply(x, ids, 0)
    args, kwargs = Views(flip=True).apply_to(_task(), (x, torch.zeros(6)), ids, 0)
    assert torch.equal(args[0], flipped) and kwargs == {}
    args, kwargs = Views(flip=True, input="image").apply_to(_task(), {"other": other, "image": x, "labels": torch.zeros(6)}, ids, 0)
    assert args == () and list(kwargs) == ["other", "image"] and torch.equal(kwargs["image"], flipped) and kwargs["other"] is other
    two = _task(inputs=lambda batch: ((batch[1],), {"image": batch[0]}))
    args, kwargs = Views(flip=True, input=1).apply_to(two, (x, other), ids, 0)
    assert args[0] is other and torch.equal(kwargs["image"], flipped)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Views(crop=-1), "views.crop must be ≥ 0, got -1"),
        (lambda: Views(versions=0), "views.versions"),
        (lambda: Views(noise=float("nan")), "views.noise"),
        (lambda: Views(flip=True).apply(torch.zeros(3, 4), np.arange(3), 0), r"\[3, 4\]"),
        (lambda: Views(crop=4).apply(torch.zeros(3, 1, 4, 9), np.arange(3), 0), "smaller than the image"),
        (lambda: Views(shift=5).apply(torch.zeros(3, 1, 9, 5), np.arange(3), 0), "views.shift"),
        (lambda: Views(crop=1).apply(torch.zeros(3, 1, 4, 9), np.arange(2), 0), "2 ids for 3 samples"),
        (lambda: Views(input="img").apply_to(_task(), (pictures(),), np.arange(6), 0), "got 'img'"),
        (lambda: Views(input=1).apply_to(_task(), (pictures(),), np.arange(6), 0), "got 1"),
        (lambda: Views().apply_to(_task(), (["a"], 0), np.arange(1), 0), "is list"),
    ],
)
def test_what_can_not_be_done_is_refused_with_a_way_out(call, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
