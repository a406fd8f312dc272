"""factor_transfer: the teacher's factors, found by an autoencoder before training."""

import pytest
import torch
from taps_said import features, gave
from torch import nn
from torch.nn import functional as F

from limbeck.core.errors import ConfigError
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.objective import Wiring
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import factor_transfer
from limbeck.mechanics.terms.factor_transfer import _learn, _stack, factor_transfer_loss
from limbeck.testing import check_term, small_task


def test_it_keeps_the_contract():
    check_term(factor_transfer(student="features.5", passes=1))
    check_term(factor_transfer(student="features.8", teacher="features.8", ratio=1, passes=1))


def test_the_paraphraser_learns_to_give_the_teachers_maps_again():
    """A low-rank teacher can be told in few factors: the reconstruction gets much better, whatever its scale."""
    for scale in (1.0, 100.0):
        torch.manual_seed(0)
        maps = scale * torch.einsum("bfhw,fc->bchw", torch.randn(32, 2, 4, 4), torch.randn(2, 6))
        encoder, decoder = _stack(6, 6, 3), _stack(3, 6, 6)
        gap = lambda: ((decoder(encoder(maps)) - maps).square().mean() / maps.square().mean()).item()  # noqa: E731, B023
        before = gap()
        _learn(encoder, decoder, lambda: iter([maps]), 150, 1e-2)  # noqa: B023
        assert gap() < 0.3 * before


def test_it_is_trained_when_bound_then_frozen_and_kept_with_the_objective():
    task = small_task()
    teacher = rebuild(teacher_candidate(task).torch_form, task)
    torch.manual_seed(0)
    student = task.models["small"]().train()

    def bound(passes, seed=0):
        return (1.0 * factor_transfer(student="features.8", passes=passes)).bind(task, LiveTeacher(task, teacher), student, seed=seed).module["factor_transfer"]

    one, again, more = bound(1), bound(1), bound(2)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(one.paraphraser[0].weight, more.paraphraser[0].weight) and student.training
    assert not any(p.requires_grad for p in one.paraphraser.parameters()) and all(p.requires_grad for p in one.translator.parameters())
    assert all(p.grad is None for p in student.parameters()) and {"paraphraser.0.weight", "translator.0.weight"} <= one.state_dict().keys()
    assert one.paraphraser[-1].out_channels == one.translator[-1].out_channels == 16, "half of the teacher's 32"


def test_it_compares_normalised_factors_at_one_resolution():
    s, t = features(0, 2, 3, 4, 4), features(1, 2, 6, 2, 2)

    class Given(nn.Module):
        translator, paraphraser = (lambda self, x: x[:, :2]), (lambda self, x: x[:, :2])

    found = factor_transfer(student="s", teacher="t").function(gave(s, t, own=Given()))
    a, b = F.avg_pool2d(s, 2)[:, :2].flatten(1), t[:, :2].flatten(1)
    expected = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).abs().mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_scale_changes_nothing_and_gradient():
    s, t = features(0, 2, 3, 2, 2), features(1, 2, 3, 2, 2)
    assert factor_transfer_loss(9 * s, 0.1 * t).item() == pytest.approx(factor_transfer_loss(s, t).item(), rel=1e-12)
    assert factor_transfer_loss(s, 3 * s).item() == pytest.approx(0, abs=1e-15)
    assert factor_transfer_loss(torch.tensor([[[[1.0]], [[0.0]]]]), torch.tensor([[[[0.0]], [[4.0]]]])).item() == 1
    assert torch.autograd.gradcheck(lambda z: factor_transfer_loss(z, t), s.requires_grad_())


def test_a_split_of_the_batch_changes_nothing():
    term, s, t = factor_transfer(student="s", teacher="t", passes=1), features(0, 4, 3, 4, 4).float(), features(1, 4, 6, 2, 2).float()
    step = gave(s, t)
    torch.manual_seed(0)
    own = term.builds(Wiring(None, nn.Identity(), *({n: tuple(v.shape) for n, v in side.items()} for side in (step.student, step.teacher)), batches=lambda: iter([step]))).double()
    part = lambda i: term.function(gave(s[i].double(), t[i].double(), own=own)).item()  # noqa: E731
    assert part(slice(None)) == pytest.approx((part(slice(0, 2)) + part(slice(2, 4))) / 2, rel=1e-12)


def test_its_options():
    with pytest.raises(ConfigError, match="factor_transfer needs ratio > 0, passes ≥ 1 and learning_rate > 0, got 0, 5 and 0.001"):
        factor_transfer(student="s", ratio=0)
