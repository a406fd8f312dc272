"""What all terms on outputs share: a teacher in half precision, a batch of one, samples and tokens without a label, another class count."""

import pytest
import torch
from said import labels, logits, seen, some_tokens, split_changes_nothing

from limbeck.core.errors import TaskError
from limbeck.mechanics.terms import dist, dkd, hard_label, jsd, kd, logit_mse, margin_mse, nkd, ttm
from limbeck.mechanics.terms.correlation import standardized

ON_CLASSES = [
    dist(intra=0),
    dkd(),
    dkd(standardize=True),
    hard_label(),
    jsd(),
    jsd(beta=1.0, skew=0.1),
    kd(),
    kd(standardize=True),
    logit_mse(),
    logit_mse(centre=True),
    nkd(),
    ttm(weighted=True),
]
NAMES = [f"{i}-{t.name}" for i, t in enumerate(ON_CLASSES)]


@pytest.mark.parametrize("term", [*ON_CLASSES, margin_mse()], ids=[*NAMES, "margin_mse"])
def test_a_teacher_in_half_precision_is_taken_at_the_students(term):
    s, t, label = logits(0).float(), logits(1).half(), labels(2)
    found = term.function(seen(s, t, label=label))
    assert found.dtype == torch.float32 and found.item() == term.function(seen(s, t.float(), label=label)).item()


@pytest.mark.parametrize("term", [*ON_CLASSES, margin_mse()], ids=[*NAMES, "margin_mse"])
def test_a_batch_of_one_is_a_batch(term):
    s = logits(0, 1, 5).requires_grad_()
    term.function(seen(s, logits(1, 1, 5), label=labels(2, 1))).backward()
    assert torch.isfinite(s.grad).all() and s.grad.abs().max() > 0


@pytest.mark.parametrize("term", ON_CLASSES, ids=NAMES)
def test_a_batch_of_padding_alone_pulls_nowhere(term):
    s, t, label = some_tokens()
    s = s.requires_grad_()
    loss = term.function(seen(s, t, label=torch.full_like(label, -100)))
    loss.backward()
    assert loss.item() == 0 and s.grad.abs().max() == 0


@pytest.mark.parametrize("term", ON_CLASSES, ids=NAMES)
def test_the_teacher_gets_no_gradient_and_another_class_count_is_told_with_both(term):
    s, t = logits(0).requires_grad_(), logits(1).requires_grad_()
    term.function(seen(s, t, label=labels(2))).backward()
    assert t.grad is None
    with pytest.raises(TaskError, match=rf"{term.name} needs .* of one shape, got student \(8, 5\) and teacher \(8, 7\)"):
        term.function(seen(logits(0), logits(1, 8, 7), label=labels(2)))


@pytest.mark.parametrize("term", [t for t in ON_CLASSES if not t.labels], ids=[n for n, t in zip(NAMES, ON_CLASSES, strict=True) if not t.labels])
def test_a_sample_without_a_label_still_learns_from_the_teacher(term):
    """A sample labelled −100 has no label; a token labelled −100 is padding."""
    s, t = logits(0), logits(1)
    assert term.function(seen(s, t, label=torch.full((8,), -100))).item() == pytest.approx(term.function(seen(s, t)).item(), rel=1e-12)


@pytest.mark.parametrize("term", ON_CLASSES, ids=NAMES)
def test_three_samples_weigh_a_third_each(term):
    s, t, label = some_tokens(rows=3)
    alone = [term.function(seen(s[i : i + 1], t[i : i + 1], label=label[i : i + 1])).item() for i in range(3)]
    assert term.function(seen(s, t, label=label)).item() == pytest.approx(sum(alone) / 3, rel=1e-12)
    split_changes_nothing(term, *some_tokens(seed=5))


def test_standardized_rows_have_mean_zero_and_spread_one_and_a_constant_one_says_nothing():
    rows = torch.cat([logits(0, 3, 5), torch.full((1, 5), 7.0, dtype=torch.float64)]).requires_grad_()
    found = standardized(rows)
    assert torch.allclose(found[:3].mean(1), torch.zeros(3).double(), atol=1e-12) and torch.allclose(found[:3].std(1, correction=0), torch.ones(3).double())
    assert found[3].abs().max() == 0
    (found * logits(1, 4, 5)).sum().backward()
    assert rows.grad[3].abs().max() == 0 and rows.grad[:3].abs().min() > 0 and torch.isfinite(rows.grad).all()
    assert torch.autograd.gradcheck(standardized, logits(2, 3, 4).requires_grad_())
