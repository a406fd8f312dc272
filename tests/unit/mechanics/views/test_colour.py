"""Brightness, contrast and saturation."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from limbeck.core.errors import ConfigError
from limbeck.mechanics.views import Views

IDS = np.arange(64)
LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)


def images(count: int = 64, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.5 + 0.25


def test_brightness_multiplies_each_image_with_one_even_factor():
    x = images(500)
    seen = Views(brightness=0.3).apply(x, np.arange(500), 0)
    factor = (seen / x).flatten(1)
    assert torch.allclose(factor, factor[:, :1].expand_as(factor), rtol=1e-12)
    f = factor[:, 0]
    assert 0.7 <= f.min() < 0.72 and 1.28 < f.max() <= 1.3 and abs(f.mean() - 1) < 0.03


def test_contrast_keeps_the_mean_grey_and_saturation_each_pixels_grey():
    x = images()
    grey = lambda z: (z * LUMA).sum(1)  # noqa: E731
    sharper = Views(contrast=0.3).apply(x, IDS, 0)
    assert torch.allclose(grey(sharper).mean((1, 2)), grey(x).mean((1, 2)), rtol=1e-10)
    ratio = (grey(sharper) - grey(x).mean((1, 2), keepdim=True)) / (grey(x) - grey(x).mean((1, 2), keepdim=True))
    assert torch.allclose(ratio, ratio[:, :1, :1].expand_as(ratio), rtol=1e-6) and not torch.allclose(sharper, x, atol=0.01)
    paler = Views(saturation=0.5).apply(x, IDS, 0)
    assert torch.allclose(grey(paler), grey(x), rtol=1e-10) and not torch.allclose(paler, x, atol=0.01)


def test_all_three_are_saturation_then_brightness_then_contrast_by_hand():
    x = images() * 0.4 + 0.3
    s, b, c = (Views(seed=4, **{name: 0.4}) for name in ("saturation", "brightness", "contrast"))
    pale = s.apply(x, IDS, 3)
    bright = (b.apply(x, IDS, 3) / x).flatten(1)[:, 0].view(-1, 1, 1, 1)
    grey = (x * LUMA).sum(1, keepdim=True)
    mean = grey.mean((1, 2, 3), keepdim=True)
    steep = ((c.apply(x, IDS, 3) - mean) / (x - mean)).flatten(1).median(1).values.view(-1, 1, 1, 1)
    expected = (bright * mean + steep * (bright * pale - bright * mean)).clamp(0, 1)
    assert torch.allclose(Views(seed=4, saturation=0.4, brightness=0.4, contrast=0.4).apply(x, IDS, 3), expected, atol=1e-9)


def test_eight_bits_and_normalised_images_give_the_same_picture():
    plain = torch.randint(0, 256, (64, 3, 6, 5), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    strengths = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
    seen = Views(**strengths).apply(plain.double() / 255, IDS, 0)
    assert seen.min() >= 0 and seen.max() <= 1
    eight = Views(**strengths, white=(255.0,)).apply(plain, IDS, 0)
    assert eight.dtype == torch.uint8 and (eight.double() / 255 - seen).abs().max() <= 0.5 / 255 + 1e-6
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    ends = [tuple(((end - mean) / std).flatten().tolist()) for end in (0, 1)]
    normalised = Views(**strengths, black=ends[0], white=ends[1]).apply((plain.double() / 255 - mean) / std, IDS, 0)
    assert torch.allclose(normalised * std + mean, seen, atol=1e-9)


def test_bits_do_not_depend_on_the_machine():
    """A fixed digest: only products, sums in a fixed order and a clamp. RECIPE_VERSION must grow with a change here."""
    x = (torch.arange(4 * 3 * 7 * 9) * 7919 % 256).view(4, 3, 7, 9).float() / 255
    found = Views(brightness=0.4, contrast=0.5, saturation=0.6, seed=5).apply(x, np.array([0, 1, 59999, 2**40]), 2)
    assert hashlib.sha256(found.numpy().tobytes()).hexdigest() == "89edd8c3734ba46c03314af3268346240383b29217248e2808275bac4958e6e0"


@pytest.mark.parametrize(("channels", "dtype"), [(1, torch.float16), (4, torch.bfloat16), (3, torch.float32)])
def test_dtypes_and_channels_are_kept(channels, dtype):
    x = images(8, channels).to(dtype)
    seen = Views(brightness=0.4, contrast=0.4).apply(x, np.arange(8), 0)
    assert seen.dtype == dtype and seen.shape == x.shape and not torch.equal(seen, x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Views(brightness=0.2).apply(images() * 4 - 2, IDS, 0), r"need values from black to white, .* Give views.black and views.white: 0 and 255 for 8 bits"),
        (lambda: Views(contrast=0.2, white=(1.0, 2.0)).apply(images(), IDS, 0), "views.white must have one number, or one a channel, got 2 for 3 channels"),
        (lambda: Views(saturation=0.2).apply(images(channels=1), IDS, 0), "views.saturation needs images of 3 channels, red, green and blue, got 1"),
        (lambda: Views(brightness=0.2).apply(images().long(), IDS, 0), r"floating-point numbers or 8-bit pixels, got torch.int64"),
        (lambda: Views(brightness=0.2).apply(images()[0], np.arange(3), 0), "views.brightness must get images"),
        (lambda: Views(black=(1.0,)), "views.black must be below views.white"),
        (lambda: Views(black=(0.0, 0.0), white=(1.0, 1.0, 1.0)), "one number, or one a channel, got 2 and 3"),
        (lambda: Views(brightness=1.5), r"views.brightness must be in \[0, 1\], got 1.5"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
