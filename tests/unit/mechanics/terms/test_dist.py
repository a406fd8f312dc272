"""dist: Pearson's distance within samples and within classes (oracle 5)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from said import labels, logits, quarters, seen, some_tokens, split_changes_nothing

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import dist
from limbeck.mechanics.terms.correlation import correlation_rows, cosine_rows
from limbeck.mechanics.terms.dist import dist_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(dist(), task=quarters())
    check_term(dist(intra=0, standardize=True), task=quarters())
    check_term(dist(inter=0, temperature=1), task=quarters())
    assert dist().relational and not dist(intra=0).relational


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 8))
def test_it_is_numpys_correlation_written_out(seed, temperature):
    s, t = logits(seed, 7, 4), logits(seed + 1, 7, 4)
    p, q = (z.div(temperature).softmax(1).numpy() for z in (s, t))
    inter = np.mean([1 - np.corrcoef(p[i], q[i])[0, 1] for i in range(7)])
    intra = np.mean([1 - np.corrcoef(p[:, k], q[:, k])[0, 1] for k in range(4)])
    assert dist_loss(s, t, inter=2, intra=3, temperature=temperature).item() == pytest.approx(temperature**2 * (2 * inter + 3 * intra), rel=1e-8)
    assert dist(inter=2, intra=3, temperature=temperature).function(seen(s, t)).item() == pytest.approx(temperature**2 * (2 * inter + 3 * intra), rel=1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_correlation_forgets_affine_maps_of_each_row_and_intra_does_not(seed):
    """Oracle 5."""
    p, q = (logits(seed + i, 6, 4).softmax(1) for i in (0, 1))
    scale, shift = logits(seed + 2, 6, 1).exp().clamp(0.1, 10), logits(seed + 3, 6, 1)
    moved = p * scale + shift
    assert torch.allclose(correlation_rows(moved, q), correlation_rows(p, q), atol=1e-8)
    assert not torch.allclose(correlation_rows(moved.T, q.T), correlation_rows(p.T, q.T), atol=1e-4)


def test_gradient_and_splits():
    s, t = logits(0, 5, 4, scale=1.0), logits(1, 5, 4, scale=1.0)
    assert torch.autograd.gradcheck(lambda z: dist_loss(z, t, temperature=1.0), s.requires_grad_())
    split_changes_nothing(dist(intra=0), logits(0), logits(1), labels(2))
    split_changes_nothing(dist(intra=0), *some_tokens())
    with pytest.raises(AssertionError):
        split_changes_nothing(dist(), logits(0), logits(1))


def test_what_says_nothing_is_finite_and_gives_no_gradient():
    """A student of equal logits has no pattern to correlate: distance 1, not NaN."""
    s, t = torch.zeros(4, 3, requires_grad=True), logits(1, 4, 3).float()
    loss = dist_loss(s, t, temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(4.0) and s.grad.abs().max() == 0
    a, b = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 3.0]]), torch.tensor([[2.0, 2.0], [0.0, 1.0], [2.0, 6.0]])
    assert correlation_rows(a, b).tolist() == pytest.approx([1, 0, 1]) and cosine_rows(a, b).tolist() == pytest.approx([1, 0, 1])


def test_a_batch_of_one_is_refused_where_samples_are_compared():
    with pytest.raises(TaskError, match="dist.intra compares the samples of a batch, which must have at least 2, got 1. Use a larger batch_size, or intra = 0"):
        dist().function(seen(logits(0, 1, 5), logits(1, 1, 5)))
    assert torch.isfinite(dist(intra=0).function(seen(logits(0, 1, 5), logits(1, 1, 5))))
    with pytest.raises(ConfigError, match="dist.inter and dist.intra must not both be 0"):
        dist(inter=0, intra=0)
