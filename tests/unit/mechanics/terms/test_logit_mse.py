"""logit_mse: outputs as numbers; centred or standardized, logits up to what a softmax or a scale doesn't see."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from said import labels, logits, quarters, seen, some_tokens, split_changes_nothing

from limbeck.core.errors import TaskError
from limbeck.mechanics.terms import logit_mse
from limbeck.mechanics.terms.correlation import correlation_rows
from limbeck.mechanics.terms.kd import kd_loss
from limbeck.mechanics.terms.logit_mse import logit_mse_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    for options in ({}, {"centre": True}, {"standardize": True}):
        check_term(logit_mse(**options), task=quarters())


def test_by_hand():
    s, t = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    assert logit_mse_loss(s, t).item() == pytest.approx((1 + 9 + 4 + 4) / 4)
    assert logit_mse_loss(s, t, centre=True).item() == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert logit_mse().function(seen(s, t)).item() == pytest.approx(4.5)
    assert logit_mse().function(seen(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0]))).item() == pytest.approx(2.5), "values, one a sample"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_standardized_it_is_twice_pearsons_distance_and_forgets_affine_maps(seed, scale, shift):
    """Oracle 5."""
    s, t = logits(seed), logits(seed + 1)
    value = lambda a, b: logit_mse(standardize=True).function(seen(a, b)).item()  # noqa: E731
    assert value(s, t) == pytest.approx(2 * (1 - correlation_rows(s, t)).mean().item(), rel=1e-5)
    assert value(s * scale + shift, t) == pytest.approx(value(s, t), rel=1e-5)
    assert value(s, t * scale + shift) == pytest.approx(value(s, t), rel=1e-5)


def test_centred_it_is_twice_what_a_hot_kd_tends_to():
    """Oracle 2."""
    s, t = logits(0), logits(1)
    assert 2 * kd_loss(s, t, temperature=1e4).item() == pytest.approx(logit_mse_loss(s, t, centre=True).item(), rel=1e-3)
    assert logit_mse(centre=True).function(seen(s + 3, t)).item() == pytest.approx(logit_mse(centre=True).function(seen(s, t)).item(), rel=1e-9)


def test_gradient_and_splits():
    t = logits(1, 4, 3)
    assert torch.autograd.gradcheck(lambda z: logit_mse_loss(z, t, centre=True), logits(0, 4, 3).requires_grad_())
    for options in ({}, {"centre": True}, {"standardize": True}):
        split_changes_nothing(logit_mse(**options), logits(0), logits(1), labels(2))
        split_changes_nothing(logit_mse(**options), *some_tokens())


def test_tokens_without_a_label_are_left_out():
    s, t, label = some_tokens()
    moved = torch.where(label[..., None] == -100, s + 9, s)
    assert logit_mse().function(seen(moved, t, label=label)).item() == logit_mse().function(seen(s, t, label=label)).item()


def test_other_shapes_are_refused():
    with pytest.raises(TaskError, match=r"logit_mse needs outputs of one shape, got student \(2, 3\) and teacher \(2, 1\)"):
        logit_mse().function(seen(torch.zeros(2, 3), torch.zeros(2, 1)))
    with pytest.raises(TaskError, match="needs class logits"):
        logit_mse(standardize=True).function(seen(torch.zeros(2, 1), torch.zeros(2, 1)))
