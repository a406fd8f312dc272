"""dkd: kd's two parts, weighed apart (oracle 1)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from said import labels, logits, quarters, seen, some_tokens, split_changes_nothing
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.terms import ALL, dkd, kd
from limbeck.mechanics.terms.dkd import dkd_loss, dkd_rows, others_of
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.kd import kd_rows
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(dkd(), task=quarters())
    check_term(dkd(standardize=True, beta=8, temperature=2), task=quarters())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.3, 20), classes=st.integers(2, 9), scale=st.floats(0.1, 30))
def test_with_beta_what_the_teacher_leaves_the_others_it_is_kd(seed, temperature, classes, scale):
    """Oracle 1, at any T, row by row."""
    s, t, label = logits(seed, 6, classes, scale=scale), logits(seed + 1, 6, classes, scale=scale), labels(seed, 6, classes=classes)
    target, others = dkd_rows(s, t, label, temperature=temperature)
    left = 1 - F.softmax(t / temperature, 1)[torch.arange(6), label]
    expected = kd_rows(s, t, temperature=temperature)
    assert torch.allclose(target + left * others, expected, rtol=1e-8, atol=1e-10)
    assert (target >= -1e-10).all() and (others >= -1e-10).all()


def test_by_hand():
    """Teacher (½, ¼, ¼), student (⅓, ⅓, ⅓), T = 1: the pair (½, ½) against (⅓, ⅔); the others agree."""
    t, s = torch.tensor([[0.5, 0.25, 0.25]]).double().log(), torch.zeros(1, 3).double()
    target, others = dkd_rows(s, t, torch.tensor([0]), temperature=1.0)
    assert target.item() == pytest.approx(0.5 * torch.tensor(0.5 * 3).log().item() + 0.5 * torch.tensor(0.5 * 1.5).log().item(), abs=1e-7)
    assert others.item() == pytest.approx(0, abs=1e-12)
    label = torch.tensor([1])
    target, others = dkd_rows(s, t, label, temperature=1.0)
    assert others.item() == pytest.approx((2 / 3) * torch.tensor((2 / 3) * 2).log().item() + (1 / 3) * torch.tensor((1 / 3) * 2).log().item(), abs=1e-7)
    assert dkd_loss(s, t, label, alpha=2, beta=3, temperature=1).item() == pytest.approx(2 * target.item() + 3 * others.item(), rel=1e-12)


def test_two_classes_have_no_others_and_a_sure_teacher_breaks_nothing():
    s, t, label = logits(0, 4, 2), logits(1, 4, 2), labels(2, 4, classes=2)
    target, others = dkd_rows(s, t, label, temperature=4.0)
    assert others.abs().max() == 0 and torch.allclose(target, kd_rows(s, t, temperature=4.0), rtol=1e-9)
    sure = torch.tensor([[300.0, 0.0, -5.0]], requires_grad=True)  # 1 − p is 0 in float32
    loss = dkd_loss(sure, torch.tensor([[0.0, 300.0, 1.0]]), torch.tensor([0]), temperature=1.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(sure.grad).all()


def test_gradient_and_splits():
    s, t, label = logits(0, 4, 4, scale=1.0), logits(1, 4, 4), labels(2, 4, classes=4)
    assert torch.autograd.gradcheck(lambda z: dkd_loss(z, t, label, beta=8.0), s.requires_grad_())
    split_changes_nothing(dkd(), logits(0), logits(1), labels(2))
    split_changes_nothing(dkd(standardize=True), *some_tokens())


def test_others_are_all_but_the_label():
    z, label = logits(0), labels(1)
    for row, left, own in zip(z, others_of(z, label), label, strict=True):
        assert left.tolist() == [v for i, v in enumerate(row.tolist()) if i != own]


def test_its_weight_grows_over_the_warm_up():
    s, t, label = logits(0), logits(1), labels(2)
    value = lambda done: dkd(warm_up=0.2).function(seen(s, t, label=label, done=done)).item()  # noqa: E731
    full = dkd().function(seen(s, t, label=label)).item()
    assert [value(d) / full for d in (0.0, 0.05, 0.1, 0.2, 0.9)] == pytest.approx([0, 0.25, 0.5, 1, 1])


def test_samples_without_a_label_are_left_out_of_it_and_not_of_kd():
    s, t, label = logits(0), logits(1), labels(2)
    label[4:] = -100
    known = dkd().function(seen(s[:4], t[:4], label=label[:4]))
    assert dkd().function(seen(s, t, label=label)).item() == pytest.approx(known.item() / 2, rel=1e-12), "every sample counts as one of the batch"
    assert kd().function(seen(s, t, label=label)).item() == pytest.approx(kd().function(seen(s, t)).item(), rel=1e-12)
    nothing = s.clone().requires_grad_()
    dkd().function(seen(nothing, t, label=torch.full((8,), -100))).backward()
    assert nothing.grad.abs().max() == 0


def test_without_labels_or_with_a_wrong_one_it_is_refused():
    with pytest.raises(TaskError, match=r"dkd needs a class for each row of the logits \(8, 5\), and the batch has none. Give samples as \(input, label\)"):
        dkd().function(seen(logits(0), logits(1)))
    with pytest.raises(TaskError, match=r"label 7 is outside \[0, 4\]"):
        dkd().function(seen(logits(0), logits(1), label=torch.tensor([7] + [0] * 7)))
    with pytest.raises(ConfigError, match=r"terms\[0\].options.beta must be ≥ 0, got -1"):
        objective_of([Entry(name="dkd", options={"beta": -1})], ALL)
    with pytest.raises(ConfigError, match=r"warm_up must be in \[0, 1\], got 20"):
        objective_of([Entry(name="dkd", options={"warm_up": 20})], ALL)
