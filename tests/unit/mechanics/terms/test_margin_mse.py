"""margin_mse: preferences between candidates, not scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from said import logits, quarters, seen, split_changes_nothing

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import ALL, margin_mse
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.margin_mse import margin_mse_batch_loss, margin_mse_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(margin_mse(), task=quarters())
    assert margin_mse(pairs="batch").relational and not margin_mse().relational


def test_by_hand():
    """A triple: the student prefers by 1, the teacher by 3; and one more negative, by 2 and 2."""
    s, t = torch.tensor([[4.0, 3.0, 2.0]]), torch.tensor([[5.0, 2.0, 3.0]])
    assert margin_mse_loss(s[:, :2], t[:, :2]).item() == pytest.approx(4)
    assert margin_mse_loss(s, t).item() == pytest.approx((4 + 0) / 2)
    assert margin_mse_loss(s, t, positive=2).item() == pytest.approx((0 + (-1 - 1) ** 2) / 2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_all_pairs_of_a_batch_written_out(seed):
    s, t = logits(seed, 6), logits(seed + 1, 6)
    pairs = [((s[i] - s[j]) - (t[i] - t[j])).square() for i in range(6) for j in range(6) if i != j]
    assert margin_mse_batch_loss(s, t).item() == pytest.approx((sum(pairs) / len(pairs)).item(), rel=1e-10)
    assert margin_mse(pairs="batch").function(seen(s[:, None], t[:, None])).item() == pytest.approx(margin_mse_batch_loss(s, t).item(), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_constant_a_sample_is_not_seen_and_a_scale_is(seed):
    s, t, shift = logits(seed, 5, 3), logits(seed + 1, 5, 3), logits(seed + 2, 5, 1)
    assert margin_mse_loss(s + shift, t - shift).item() == pytest.approx(margin_mse_loss(s, t).item(), rel=1e-9)
    assert margin_mse_batch_loss(s[:, 0] + 7, t[:, 0]).item() == pytest.approx(margin_mse_batch_loss(s[:, 0], t[:, 0]).item(), rel=1e-9)
    assert margin_mse_loss(2 * t, t).item() > 1e-6 and margin_mse_loss(t, t).item() == 0


def test_gradient_and_splits():
    t = logits(1, 4, 3)
    assert torch.autograd.gradcheck(lambda z: margin_mse_loss(z, t, positive=1), logits(0, 4, 3).requires_grad_())
    assert torch.autograd.gradcheck(lambda z: margin_mse_batch_loss(z, t[:, 0]), logits(0, 4).requires_grad_())
    split_changes_nothing(margin_mse(), logits(0), logits(1))
    with pytest.raises(AssertionError):
        split_changes_nothing(margin_mse(pairs="batch"), logits(0, 8, 1), logits(1, 8, 1))


def test_scores_of_other_shapes_are_refused():
    with pytest.raises(TaskError, match=r"margin_mse needs scores \[batch, candidates\] with the positive in column 0, at least 2 candidates, got \(8, 1\)"):
        margin_mse().function(seen(logits(0, 8, 1), logits(1, 8, 1)))
    with pytest.raises(TaskError, match="with the positive in column 5"):
        margin_mse(positive=5).function(seen(logits(0), logits(1)))
    for shape in ((1, 1), (8, 5)):
        with pytest.raises(TaskError, match="needs one score a sample and at least 2 samples"):
            margin_mse(pairs="batch").function(seen(logits(0, *shape), logits(1, *shape)))
    with pytest.raises(TaskError, match=r"student \(8, 5\) and teacher \(8, 3\). Give both models the same candidates"):
        margin_mse().function(seen(logits(0), logits(1, 8, 3)))
    with pytest.raises(ConfigError, match="options.pairs must be one of 'columns', 'batch', got 'all'"):
        objective_of([Entry(name="margin_mse", options={"pairs": "all"})], ALL)
