"""hard_label: DeiT's hard distillation."""

import pytest
import torch
from said import labels, logits, quarters, seen, some_tokens, split_changes_nothing
from torch.nn import functional as F

from limbeck.core.errors import TaskError
from limbeck.mechanics.terms import hard_label
from limbeck.mechanics.terms.hard_label import hard_label_loss
from limbeck.mechanics.terms.kd import kd_loss
from limbeck.testing import check_term


def test_it_keeps_the_contract():
    check_term(hard_label(), task=quarters())


def test_it_is_cross_entropy_with_the_teachers_answer_whatever_the_labels_say():
    s, t = logits(0), logits(1)
    expected = -F.log_softmax(s, 1)[torch.arange(8), t.argmax(1)].mean()
    assert hard_label_loss(s, t).item() == pytest.approx(expected.item(), rel=1e-12)
    assert hard_label().function(seen(s, t, label=labels(2))).item() == pytest.approx(expected.item(), rel=1e-12)


def test_it_is_kd_of_a_teacher_without_doubt():
    """Oracle 2: the teacher's T → 0 with the student's T = 1."""
    s, t = logits(0), logits(1)
    assert kd_loss(s, t * 1e5, temperature=1.0).item() == pytest.approx(hard_label_loss(s, t).item(), rel=1e-9)


def test_by_hand_and_at_a_tie_the_first_class_counts():
    s, t = torch.tensor([[0.0, 0.0]], dtype=torch.float64), torch.tensor([[2.0, 2.0]], dtype=torch.float64)
    assert hard_label_loss(s, t).item() == pytest.approx(0.6931471805599453)
    assert hard_label_loss(torch.tensor([[1.0, 0.0]]).double(), t).item() < hard_label_loss(torch.tensor([[0.0, 1.0]]).double(), t).item()


def test_gradient_and_splits():
    s, t = logits(0, 4, 3, scale=1.0), logits(1, 4, 3)
    assert torch.autograd.gradcheck(lambda z: hard_label_loss(z, t), s.requires_grad_())
    split_changes_nothing(hard_label(), logits(0), logits(1), labels(2))
    split_changes_nothing(hard_label(), *some_tokens())


def test_other_classes_are_refused():
    with pytest.raises(TaskError, match=r"hard_label needs class logits of one shape, got student \(2, 3\) and teacher \(2, 4\).*give the student 4"):
        hard_label().function(seen(torch.zeros(2, 3), torch.zeros(2, 4)))
