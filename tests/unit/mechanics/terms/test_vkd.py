"""vkd: a projection that keeps lengths and angles."""

import pytest
import torch
from taps_said import built, features, gave, lengths, rotation, split_changes_nothing
from torch.nn import functional as F

from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import vkd
from limbeck.mechanics.terms.vkd import vkd_loss
from limbeck.testing import check_term, small_task

TERM = vkd(student="s", teacher="t")


def test_it_keeps_the_contract():
    check_term(vkd(student="in:head"))
    check_term(vkd(student="features.8", teacher="in:head"))


@pytest.mark.parametrize(("own", "theirs"), [(3, 5), (4, 4), (6, 2)])
def test_the_projection_is_orthonormal(own, theirs):
    weight = built(TERM, gave(features(0, 2, own), features(1, 2, theirs))).weight
    square = weight.T @ weight if theirs >= own else weight @ weight.T
    assert torch.allclose(square, torch.eye(min(own, theirs)).double(), atol=1e-10)


def test_it_stays_orthonormal_while_it_learns():
    task = small_task()
    teacher = rebuild(teacher_candidate(task).torch_form, task)
    torch.manual_seed(0)
    student = task.models["small"]()
    bound = (1.0 * vkd(student="in:head")).bind(task, LiveTeacher(task, teacher), student)
    before = bound.module["vkd"].weight.detach().clone()
    optimizer = torch.optim.AdamW([*student.parameters(), *bound.parameters()], lr=1e-2, weight_decay=0.1)
    losses = []
    for _ in range(30):
        loss, _ = bound(student, batch_of(task, "train", range(32)), torch.arange(32).numpy())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    weight = bound.module["vkd"].weight
    assert torch.allclose(weight.T @ weight, torch.eye(16), atol=1e-4) and not torch.allclose(weight, before, atol=1e-2)
    assert losses[-1] < 0.8 * losses[0]


def test_it_is_the_paper_written_out():
    s, t = features(0, 4, 3), features(1, 4, 5)
    own = built(TERM, gave(s, t))
    standard = (t - t.mean(1, keepdim=True)) / (t.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    gap = (s @ own.weight.T - standard).abs()
    expected = torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean()
    assert TERM.function(gave(s, t, own=own)).item() == pytest.approx(expected.item(), rel=1e-10)
    assert vkd_loss(F.layer_norm(t, (5,)), t).item() == 0
    assert vkd_loss(s @ rotation(0, 3), 7 * s + 2).item() == pytest.approx(vkd_loss(s @ rotation(0, 3), s).item(), rel=1e-4)


def test_gradient_and_splits():
    assert torch.autograd.gradcheck(lambda z: vkd_loss(z, features(1, 3, 4)), features(0, 3, 4).requires_grad_())
    split_changes_nothing(TERM, features(0, 4, 3), features(1, 4, 5))
    split_changes_nothing(TERM, features(0, 4, 6, 3), features(1, 4, 6, 5), lengths(1, 6, 2, 4, tokens=6))
    one = TERM.function(gave(features(0, 1, 3), features(1, 1, 5), own=built(TERM, gave(features(0, 1, 3), features(1, 1, 5)))))
    assert torch.isfinite(one), "a batch of one"
