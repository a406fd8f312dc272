"""ctkd: a temperature that learns against the student."""

import math

import pytest
import torch
from said import labels, logits, quarters, seen, some_tokens, split_changes_nothing

from limbeck.core.errors import ConfigError, Interrupted, TaskError
from limbeck.core.plan import Training
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import ctkd, task_loss
from limbeck.mechanics.terms.ctkd import Temperature, opposition
from limbeck.mechanics.terms.kd import kd_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, check_term


def step(s, t, *, done=1.0, own=None, **more):
    return seen(s, t, done=done, own=own or Temperature().double(), **more)


def test_it_keeps_the_contract():
    check_term(ctkd(), task=quarters())
    check_term(ctkd(standardize=True, rise=0.5), task=quarters())
    assert ctkd().reads == "outputs", "no cache of one temperature serves it"


def test_it_is_kd_at_its_temperature_which_starts_and_stays_within_the_papers_range():
    own = Temperature().double()
    s, t = logits(0), logits(1)
    assert own(1.0).item() == pytest.approx(1 + 20 / (1 + math.exp(-1)), rel=1e-6)
    for tau in (-50.0, 0.0, 50.0):
        own.tau.data.fill_(tau)
        hot = own(1.0).item()
        assert 1 <= hot <= 21
        assert ctkd().function(step(s, t, own=own)).item() == pytest.approx(kd_loss(s, t, temperature=hot).item(), rel=1e-9)


def test_the_temperature_gets_the_gradient_reversed_and_the_student_its_own():
    """Both against central differences of the loss itself."""
    s, t, own, term = logits(0).requires_grad_(), logits(1), Temperature().double(), ctkd(rise=0.0)
    term.function(step(s, t, own=own)).backward()
    eps = 1e-5

    def at(tau):
        return kd_loss(s.detach(), t, temperature=1 + 20 / (1 + math.exp(-tau))).item()

    slope = (at(1 + eps) - at(1 - eps)) / (2 * eps)
    assert abs(slope) > 1e-4 and own.tau.grad.item() == pytest.approx(-slope, rel=1e-5)
    other = s.detach().clone().requires_grad_()
    kd_loss(other, t, temperature=own(0.0).item()).backward()
    assert torch.allclose(s.grad, other.grad, atol=1e-12)
    assert torch.autograd.gradcheck(lambda z: term.function(step(z, t, own=own)), logits(2).requires_grad_())


@pytest.mark.parametrize(("done", "strength"), [(0.0, 0.0), (0.02, 0.5), (0.04, 1.0), (0.7, 1.0)])
def test_the_opposition_rises_as_the_papers_cosine(done, strength):
    assert opposition(done, 0.04) == pytest.approx(strength, abs=1e-12)
    whole, own = Temperature().double(), Temperature().double()
    ctkd(rise=0).function(step(logits(0), logits(1), own=whole)).backward()
    ctkd(rise=0.04).function(step(logits(0), logits(1), own=own, done=done)).backward()
    assert own.tau.grad.item() == pytest.approx(strength * whole.tau.grad.item(), abs=1e-12)


def test_it_is_zero_at_agreement_and_refuses_other_classes_whatever_the_precision():
    s = logits(0)
    assert ctkd().function(step(s, s)).item() == pytest.approx(0, abs=1e-12)
    half = ctkd().function(step(s.float(), logits(1).half(), own=Temperature()))
    assert half.dtype == torch.float32 and torch.isfinite(half)
    with pytest.raises(TaskError, match=r"ctkd needs class logits of one shape, got student \(8, 5\) and teacher \(8, 7\)"):
        ctkd().function(step(s, logits(1, 8, 7)))
    alone = logits(0, 1, 5).requires_grad_()
    ctkd().function(step(alone, logits(1, 1, 5), label=labels(2, 1))).backward()
    assert torch.isfinite(alone.grad).all() and alone.grad.abs().max() > 0


def test_tokens_without_a_label_are_left_out_and_a_split_changes_nothing():
    s, t, label = some_tokens()
    term, own = ctkd(), Temperature().double()
    other = torch.where((label == -100)[..., None], s + 5 * torch.rand_like(s), s)
    assert term.function(step(s, t, label=label, own=own)).item() == pytest.approx(term.function(step(other, t, label=label, own=own)).item(), rel=1e-12)

    class Held:
        function = staticmethod(lambda given: term.function(step(given.student["logits"], given.teacher["logits"], label=given.batch[1], own=own)))

    split_changes_nothing(Held, s, t, label)


def test_a_training_moves_the_temperature_shows_it_and_resumes_to_the_bit(tmp_path):
    task = quarters()
    teacher = rebuild(teacher_candidate(task).torch_form, task)

    def trained(path, stop=lambda: False):
        torch.manual_seed(1)
        student = SmallNet(8)
        bound = (0.1 * task_loss() + 0.9 * ctkd(rise=0.2)).bind(task, LiveTeacher(task, teacher), student, seed=4)
        history = fit(student, bound, Training(epochs=3, batch_size=16, learning_rate=0.02), seed=0, checkpoint=FileCheckpoint(path, stop), log=QuietLog())
        return student.state_dict() | bound.module.state_dict(), history

    straight, history = trained(tmp_path / "a")
    asked = iter([False] * 8 + [True])
    with pytest.raises(Interrupted):
        trained(tmp_path / "b", stop=lambda: next(asked))
    resumed, again = trained(tmp_path / "b")
    assert all(torch.equal(v, straight[k]) for k, v in resumed.items()) and history == again
    shown = [row["temperature of ctkd"] for row in history]
    assert len({round(t, 3) for t in shown}) == 3 and all(1 <= t <= 21 for t in shown)
    assert straight["ctkd.tau"].item() != 1.0


def test_a_bad_option_is_refused():
    with pytest.raises(ConfigError, match=r"ctkd.rise must be in \[0, 1\], got 1.5"):
        ctkd(rise=1.5)
