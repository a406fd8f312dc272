"""Oracles 20 and 21 on random tensors and scales: the grid, the two faces, the observers."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.mechanics.observe import MinMax, Mse, Percentile
from limbeck.mechanics.quantizers import affine, deployed, limits, quantize_edits, weight_scale

seeds = st.integers(0, 2**31 - 1)
magnitudes = st.floats(-12, 12).map(lambda e: 2.0**e)
bounds = st.tuples(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32)).map(sorted)


def activation(scale: float, zero_point: int) -> nn.Sequential:
    model = nn.Sequential(nn.Identity())
    quantize_edits(model, [{"edit": "quantize", "module": "0", "port": "out", "bits": 8, "scheme": "asymmetric"}])
    model[0].out_quantizer.scale.fill_(scale)
    model[0].out_quantizer.zero_point.fill_(zero_point)
    return model


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(seeds, magnitudes, magnitudes, st.integers(-128, 127))
def test_activation_faces_are_equal(seed, spread, scale, zero_point):
    model, x = activation(scale, zero_point), normal(seed, 4, 97) * spread
    ties = (torch.arange(-300, 300) + 0.5) * model[0].out_quantizer.scale
    for values in (x, ties):
        expected = model(values)
        assert torch.equal(deployed(model, activations="u8")(values), expected)
        assert torch.equal(deployed(model, activations="s8")(values), expected)


@settings(max_examples=40, deadline=None)
@given(seeds, magnitudes, st.sampled_from([7, 8]))
def test_weight_faces_are_equal(seed, spread, bits):
    model = nn.Sequential(nn.Linear(11, 6, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(normal(seed, 6, 11) * spread * torch.tensor([1, 1e-3, 0, 10, 1, 1e3])[:, None])
    quantize_edits(model, [{"edit": "quantize", "module": "0", "port": "weight", "bits": bits, "scheme": "symmetric", "axis": 0}])
    model[0].weight_quantizer.scale.copy_(weight_scale(model[0].weight, axis=0, bits=bits))
    ready = deployed(model, activations="u8")[0].weight_quantizer
    assert torch.equal(ready(None), model[0].weight_quantizer(model[0].weight))
    assert ready.integers.abs().max() == limits(bits)[1]
    error = (ready(None) - model[0].weight).abs()
    assert (error <= ready.scale[:, None] * (0.5 + 1e-4)).all()


@settings(max_examples=100, deadline=None)
@given(bounds, seeds)
def test_error_is_half_a_step_on_the_grid_and_zero_is_exact(span, seed):
    scale, zero_point = affine(*span, bits=8)
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    x = torch.from_numpy(np.random.default_rng(seed).uniform(low, high, 500).astype(np.float32))
    model = activation(scale, zero_point)
    slack = 4 * np.finfo(np.float32).eps * max(abs(low), abs(high))
    assert ((model(x) - x).abs() <= scale / 2 + slack).all()
    assert model(torch.zeros(3)).tolist() == [0, 0, 0]
    assert low - slack <= max(min(span[0], 0) + scale / 2, low) and min(span[0], 0) >= low - scale / 2 - slack
    assert max(span[1], 0) <= high + scale / 2 + 256 * slack + 2**-30


@settings(max_examples=40, deadline=None)
@given(seeds, magnitudes, st.integers(1, 5))
def test_observers_are_nested_and_don_t_depend_on_the_cut_into_batches(seed, spread, parts):
    x = normal(seed, 1000) * spread
    extremes = (float(x.min()), float(x.max()))
    for new in (MinMax, Mse, lambda: Percentile(0.99), lambda: Percentile(1.0)):
        whole = new()
        whole.update(x)
        low, high = whole.range()
        assert min(extremes[0], 0) <= low <= high <= max(extremes[1], 0)
        if new is MinMax:
            cut = new()
            for part in x.chunk(parts):
                cut.update(part)
            assert cut.range() == (low, high) == extremes


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.6, 0.999))
def test_percentile_leaves_outside_what_it_says(seed, fraction):
    x, observer = normal(seed, 20000), Percentile(fraction)
    x[:12000] *= 0.2  # the histogram widens after most was seen
    for part in (x[:10], x[10:12000], x[12000:]):
        observer.update(part)
    low, high = observer.range()
    outside = (1 - fraction) / 2
    assert abs(float((x < low).double().mean()) - outside) < 0.01
    assert abs(float((x > high).double().mean()) - outside) < 0.01


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_mse_range_is_no_worse_than_minmax(seed):
    x = normal(seed, 5000)
    x[:3] *= 40  # outliers
    errors = {}
    for kind in (MinMax, Mse):
        observer = kind()
        observer.update(x)
        errors[kind] = float(((activation(*affine(*observer.range(), bits=8))(x) - x) ** 2).mean())
    assert errors[Mse] <= errors[MinMax] * 1.02
