"""pearson: features channel by channel, whatever their scale (PKD)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from said import logits, quarters, seen
from torch import nn

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import ALL, pearson
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.pearson import pearson_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(pearson(student="features.6", teacher="features.6"), task=quarters())
    check_term(pearson(student="features.3", teacher="features.6", project="always"), task=quarters())
    assert pearson(student="features.6").relational


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_it_is_half_the_squared_difference_of_standardized_channels(seed):
    s, t = logits(seed, 12, 4), logits(seed + 1, 12, 4)
    scaled = [(z - z.mean(0)) / z.std(0, correction=0) for z in (s, t)]
    assert pearson_loss(s, t).item() == pytest.approx(0.5 * (scaled[0] - scaled[1]).square().mean().item(), rel=1e-9)
    assert pearson_loss(s, t).item() == pytest.approx(np.mean([1 - np.corrcoef(s[:, k], t[:, k])[0, 1] for k in range(4)]), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_each_channel_may_be_scaled_and_shifted_but_not_mixed(seed):
    s, t = logits(seed, 12, 4), logits(seed + 1, 12, 4)
    scale, shift = logits(seed + 2, 4).exp().clamp(0.01, 100), logits(seed + 3, 4)
    assert pearson_loss(s * scale + shift, t).item() == pytest.approx(pearson_loss(s, t).item(), abs=1e-9)
    assert pearson_loss(t * scale + shift, t).item() == pytest.approx(0, abs=1e-9)
    rotation = torch.linalg.qr(logits(seed + 4, 4, 4)).Q
    assert abs(pearson_loss(t @ rotation, t).item()) > 1e-3


def test_gradient_and_channels_that_are_dead():
    t = logits(1, 6, 3)
    assert torch.autograd.gradcheck(lambda z: pearson_loss(z, t), logits(0, 6, 3).requires_grad_())
    s = torch.zeros(6, 3, requires_grad=True)
    loss = pearson_loss(s, torch.cat([t[:, :2].float(), torch.ones(6, 1)], 1))
    loss.backward()
    assert loss.item() == pytest.approx(2 / 3) and s.grad.abs().max() == 0


def test_maps_are_compared_over_samples_and_places_at_the_coarser_resolution():
    s, t = logits(0, 3, 2, 4, 4), logits(1, 3, 2, 2, 2)
    found = pearson(student="a", teacher="b").function(seen({"tap:a": s}, {"tap:b": t}, own=nn.Identity()))
    pooled = torch.nn.functional.avg_pool2d(s, 2)
    expected = np.mean([1 - np.corrcoef(pooled[:, k].flatten(), t[:, k].flatten())[0, 1] for k in range(2)])
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_padded_tokens_do_not_count():
    s, t, mask = logits(0, 2, 3, 4), logits(1, 2, 3, 4), torch.tensor([[1, 1, 1], [1, 0, 0]])
    found = pearson(student="a", teacher="b").function(seen({"tap:a": s}, {"tap:b": t}, own=nn.Identity(), inputs={"attention_mask": mask}))
    assert found.item() == pytest.approx(pearson_loss(s[mask.bool()], t[mask.bool()]).item(), rel=1e-9)


def test_what_does_not_fit_is_refused():
    with pytest.raises(TaskError, match="pearson correlates over a batch's samples and places, which must be at least 2, got 1"):
        pearson(student="a", teacher="b").function(seen({"tap:a": logits(0, 1, 4)}, {"tap:b": logits(1, 1, 4)}, own=nn.Identity()))
    with pytest.raises(ConfigError, match=r"options.student is missing"):
        objective_of([Entry(name="pearson")], ALL)
