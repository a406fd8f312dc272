"""erase and time_mask: one value over a rectangle, or over stretches of time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from limbeck.core.errors import ConfigError
from limbeck.mechanics.views import Views


def test_erase_covers_one_rectangle_in_all_channels_in_its_share_of_the_views():
    x = torch.ones(2000, 3, 12, 9)
    seen = Views(erase=0.25, erase_least=0.1, erase_most=0.3).apply(x, np.arange(2000), 0)
    covered = (seen == 0).numpy()
    assert (covered == covered[:, :1]).all()
    hit = covered[:, 0].any((1, 2))
    assert stats.binomtest(int(hit.sum()), 2000, 0.25).pvalue > 1e-4
    for image in covered[hit, 0]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all() and image.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)


def test_erased_areas_are_even_between_their_limits_and_stand_everywhere():
    x = torch.ones(4000, 1, 64, 64)
    covered = (Views(erase=1.0, erase_least=0.05, erase_most=0.35).apply(x, np.arange(4000), 1) == 0).numpy()[:, 0]
    area = covered.mean((1, 2))
    assert area.min() >= 0.05 and area.max() <= 0.35
    assert stats.kstest(area, stats.uniform(0.05, 0.30).cdf).statistic < 0.03
    assert covered.mean(0).min() > 0  # every corner is reached
    tall = covered.any(2).sum(1) / covered.any(1).sum(1)
    assert tall.min() > 0.25 and tall.max() < 4 and np.mean(tall > 1) > 0.5  # evenly in [0.3, 3.33] is more often tall than wide


def test_fill_is_what_stands_there_and_must_be_a_value_of_the_input():
    x = torch.ones(8, 1, 8, 8, dtype=torch.uint8)
    assert set(Views(erase=1.0, fill=7.0).apply(x, np.arange(8), 0).unique().tolist()) == {1, 7}
    with pytest.raises(ConfigError, match=r"views.fill must be a value of the input, torch.uint8, got 0.5 for erase"):
        Views(erase=1.0, fill=0.5).apply(x, np.arange(8), 0)
    with pytest.raises(ConfigError, match="erase_least to erase_most, 0.01 to 0.02, must admit a rectangle"):
        Views(erase=1.0, erase_least=0.01, erase_most=0.02).apply(x[:, :, :4, :4], np.arange(8), 0)
    with pytest.raises(ConfigError, match="erase_least must be at most erase_most"):
        Views(erase=1.0, erase_least=0.5)


@pytest.mark.parametrize("shape", [(40,), (3, 40), (1, 5, 40)])
def test_time_masks_are_stretches_no_longer_than_asked_in_all_channels(shape):
    x = torch.ones(1500, *shape)
    covered = (Views(time_mask=6).apply(x, np.arange(1500), 0) == 0).numpy().reshape(1500, -1, 40)
    assert (covered == covered[:, :1]).all()
    lengths = covered[:, 0].sum(1)
    assert stats.chisquare(np.bincount(lengths, minlength=7)).pvalue > 1e-4 and lengths.max() == 6
    for row in covered[:200, 0]:
        places = np.flatnonzero(row)
        assert not len(places) or places[-1] - places[0] + 1 == len(places)
    assert covered[:, 0].mean(0)[[0, -1]].min() > 0
    twice = (Views(time_mask=6, time_masks=2).apply(x, np.arange(1500), 0) == 0).numpy().reshape(1500, -1, 40)[:, 0].sum(1)
    assert 5 < twice.mean() < 6 and twice.max() <= 12


def test_series_are_shifted_along_time_and_zeros_fill_the_gap():
    x = torch.arange(1.0, 11).expand(300, 2, 10).clone()
    seen = Views(shift=2).apply(x, np.arange(300), 0)
    moves = []
    for row in seen:
        assert torch.equal(row[0], row[1])
        moved = int(((row[0] > 0).int() * (row[0] - torch.arange(1.0, 11))).max()) if row[0, 0] > 0 else -int((row[0] == 0).sum())
        expected = torch.zeros(10)
        expected[max(0, -moved) : 10 - max(0, moved)] = x[0, 0, max(0, moved) : 10 + min(0, moved)]
        assert torch.equal(row[0], expected)
        moves.append(moved)
    assert stats.chisquare(np.bincount(np.array(moves) + 2, minlength=5)).pvalue > 1e-4
    assert torch.equal(Views(shift=2).apply(x[:, 0], np.arange(300), 0), seen[:, 0])


@pytest.mark.parametrize(
    ("views", "shape", "message"),
    [
        (Views(erase=0.5), (4, 8), r"views.erase must get images .* got \[4, 8\]"),
        (Views(time_mask=8), (4, 8), r"views.time_mask must be smaller than the image's or the series' sides \[8\], got 8"),
        (Views(shift=8), (4, 2, 8), r"views.shift must be smaller .* \[8\], got 8"),
        (Views(time_mask=1), (4,), r"views.time_mask must get images or series"),
        (Views(crop=1), (4, 2, 8), r"views.crop must get images"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(views, shape, message):
    with pytest.raises(ConfigError, match=message):
        views.apply(torch.zeros(shape), np.arange(4), 0)
