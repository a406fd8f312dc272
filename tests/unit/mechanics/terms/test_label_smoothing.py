"""label_smoothing: the control without a teacher."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from said import labels, logits, quarters, seen, some_tokens
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import ALL, label_smoothing, task_loss
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.label_smoothing import label_smoothing_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract_and_needs_no_teacher():
    check_term(label_smoothing(), task=quarters())
    assert not label_smoothing().teacher and label_smoothing().labels


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), smoothing=st.floats(0, 1))
def test_it_is_cross_entropy_with_a_mixture_of_the_label_and_all_classes(seed, smoothing):
    s, label = logits(seed), labels(seed)
    target = (1 - smoothing) * F.one_hot(label, 5).double() + smoothing / 5
    assert label_smoothing_loss(s, label, smoothing=smoothing).item() == pytest.approx(-(target * s.log_softmax(1)).sum(1).mean().item(), rel=1e-9)


def test_without_smoothing_it_is_the_tasks_loss():
    s, label = logits(0), labels(1)
    assert label_smoothing(smoothing=0).function(seen(s, label=label)).item() == pytest.approx(task_loss().function(seen(s, label=label)).item(), rel=1e-12)


def test_by_hand():
    s = torch.tensor([[2.0, 0.0]]).double()
    q = s.log_softmax(1)[0]
    assert label_smoothing_loss(s, torch.tensor([0]), smoothing=0.2).item() == pytest.approx(-(0.9 * q[0] + 0.1 * q[1]).item(), rel=1e-12)


def test_gradient_and_masked_tokens_count_by_sample():
    label = labels(1, 4, classes=3)
    assert torch.autograd.gradcheck(lambda z: label_smoothing_loss(z, label), logits(0, 4, 3).requires_grad_())
    s, _, label = some_tokens()
    whole = label_smoothing().function(seen(s, label=label)).item()
    halves = [label_smoothing().function(seen(s[i : i + 2], label=label[i : i + 2])).item() for i in (0, 2)]
    assert whole == pytest.approx(sum(halves) / 2, rel=1e-12)
    by_hand = [label_smoothing_loss(row[own != -100], own[own != -100]).item() for row, own in zip(s, label, strict=True)]
    assert whole == pytest.approx(sum(by_hand) / 4, rel=1e-12)


def test_no_labels_or_no_classes_are_refused():
    with pytest.raises(TaskError, match="label_smoothing needs a class for each row"):
        label_smoothing().function(seen(logits(0)))
    with pytest.raises(TaskError, match=r"label_smoothing needs class logits, at least 2 a row, got \(8, 1\)"):
        label_smoothing().function(seen(logits(0, 8, 1), label=labels(0)))
    with pytest.raises(ConfigError, match=r"options.smoothing must be in \[0, 1\], got 2"):
        objective_of([Entry(name="label_smoothing", options={"smoothing": 2})], ALL)
