"""crd: contrast with a queue of fixed size."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from taps_said import built, features, gave
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, Interrupted
from limbeck.core.plan import Training
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import crd
from limbeck.mechanics.terms.crd import Contrast, crd_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import check_term, small_task


def unit(seed: int, *shape: int) -> torch.Tensor:
    return F.normalize(features(seed, *shape), dim=-1)


def test_it_keeps_the_contract():
    check_term(crd(student="in:head", queue=16, dim=8))
    check_term(crd(student="features.8", teacher="in:head", queue=16, dim=8))
    assert crd(student="s").relational


def test_it_is_the_paper_written_out():
    a, p, n = unit(0, 3, 4), unit(1, 3, 4), unit(2, 5, 4)
    allowed = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]]).bool()
    z, tau, expected = 2.5, 0.3, 0.0
    for i in range(3):
        count = int(allowed[i].sum())
        u = math.exp(a[i] @ p[i] / tau) / z
        expected -= math.log(u / (u + count))
        for k in range(5):
            if allowed[i, k]:
                v = math.exp(a[i] @ n[k] / tau) / z
                expected -= math.log(count / (v + count))
    found = crd_loss(a, p, n, allowed, temperature=tau, constant=torch.tensor(z, dtype=torch.float64))
    assert found.item() == pytest.approx(expected / 3, rel=1e-10)
    alone = crd_loss(a[2:], p[2:], n, allowed[2:], temperature=tau, constant=torch.tensor(z))
    assert alone.item() == 0, "no negatives, nothing to tell apart"


def test_gradient_is_that_of_the_loss_and_finite_without_negatives():
    p, n, one = unit(1, 3, 4), unit(2, 5, 4), torch.tensor(2.0, dtype=torch.float64)
    allowed = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 0, 0, 1]]).bool()
    assert torch.autograd.gradcheck(lambda z: crd_loss(z, p, n, allowed, temperature=0.5, constant=one), features(0, 3, 4).requires_grad_())
    z = features(0, 3, 4).requires_grad_()
    crd_loss(z, p, n, torch.zeros(3, 5, dtype=torch.bool), temperature=0.07, constant=torch.tensor(0.0)).backward()
    assert torch.isfinite(z.grad).all() and z.grad.abs().max() == 0


def test_negatives_are_other_samples_of_the_batch_and_of_the_queue():
    """Written out for the second step, whose queue holds the first; a sample's own past is left out."""
    torch.manual_seed(0)
    own = Contrast(3, 4, 2, 5).double()
    s, t = features(0, 2, 3), features(1, 2, 4)
    own(s, t, torch.tensor([7, 8]), 0.5)
    assert own.ids.tolist() == [7, 8, -1, -1, -1] and own.at.item() == 2
    before, constants = own.teachers.clone(), own.constants.clone()
    u, v = features(2, 2, 3), features(3, 2, 4)
    found = own(u, v, torch.tensor([8, 9]), 0.5)
    embed = lambda module, x: F.normalize(module(x), dim=1)  # noqa: E731
    a, b = embed(own.student, u), embed(own.teacher, v)
    olds, oldt = embed(own.student, s), embed(own.teacher, t)
    expected = 0.0
    for anchor, positive, now, past, z in ((a, b, b, oldt, constants[0]), (b, a, a, olds, constants[1])):
        negatives = [torch.stack([now[1], past[0]]), torch.stack([now[0], past[0], past[1]])]
        rows = [crd_loss(anchor[i : i + 1], positive[i : i + 1], negatives[i], torch.ones(1, len(negatives[i]), dtype=torch.bool), temperature=0.5, constant=z) for i in (0, 1)]
        expected += sum(r.item() for r in rows) / 2
    assert found.item() == pytest.approx(expected, rel=1e-10)
    assert torch.equal(constants, own.constants), "settled once"
    assert torch.equal(own.teachers[:2], before[:2]) and own.ids.tolist() == [7, 8, 8, 9, -1]


def test_the_queue_wraps_keeps_its_size_and_takes_no_gradient():
    own = Contrast(3, 4, 2, 5)
    for start in (0, 3, 6):
        ids = torch.arange(start, start + 3)
        own(features(start, 3, 3).float(), features(start + 1, 3, 4).float(), ids, 0.1).backward()
    assert own.ids.tolist() == [5, 6, 7, 8, 4] and own.at.item() == 4 and not own.teachers.requires_grad
    own(features(0, 9, 3).float(), features(1, 9, 4).float(), torch.arange(9), 0.1)
    assert sorted(own.ids.tolist()) == [4, 5, 6, 7, 8] and own.teachers.shape == (5, 2)
    with torch.no_grad():
        own(features(0, 2, 3).float(), features(1, 2, 4).float(), torch.tensor([50, 51]), 0.1)
    assert 50 not in own.ids.tolist(), "looking without training leaves no trace"


def test_the_constant_is_the_mean_score_of_the_first_negatives():
    own = Contrast(3, 4, 2, 5).double()
    s, t = features(0, 3, 3), features(1, 3, 4)
    own(s, t, torch.arange(3), 0.5)
    a, b = F.normalize(own.student(s), dim=1), F.normalize(own.teacher(t), dim=1)
    others = ~torch.eye(3, dtype=torch.bool)
    assert own.constants.tolist() == pytest.approx([(a @ b.T / 0.5)[others].exp().mean().item(), (b @ a.T / 0.5)[others].exp().mean().item()], rel=1e-6)


def test_a_batch_of_one_learns_from_the_queue():
    term = crd(student="s", teacher="t", queue=4, dim=2)
    own = built(term, gave(features(0, 1, 3), features(1, 1, 4)))
    first = term.function(gave(features(0, 1, 3), features(1, 1, 4), own=own))
    second = term.function(gave(features(2, 1, 3), features(3, 1, 4), own=own))
    assert first.item() == 0 and second.item() == 0, "ids are 0 both times: the same sample isn't its own negative"
    step = replace(gave(features(4, 1, 3), features(5, 1, 4), own=own), ids=np.array([1]))
    assert term.function(step).item() > 0


def test_the_queue_is_kept_across_a_stop(tmp_path):
    task = small_task()
    teacher = rebuild(teacher_candidate(task).torch_form, task)

    def trained(path, stop=lambda: False):
        torch.manual_seed(1)
        student = task.models["small"]()
        bound = (1.0 * crd(student="in:head", queue=40, dim=4)).bind(task, LiveTeacher(task, teacher), student, seed=4)
        fit(student, bound, Training(epochs=2, batch_size=32), seed=0, checkpoint=FileCheckpoint(path, stop), log=QuietLog())
        return student.state_dict() | bound.module.state_dict()

    straight, asked = trained(tmp_path / "a"), iter([False] * 3 + [True])
    with pytest.raises(Interrupted):
        trained(tmp_path / "b", stop=lambda: next(asked))
    resumed = trained(tmp_path / "b")
    assert all(torch.equal(v, straight[k]) for k, v in resumed.items()) and resumed["crd.ids"].min() >= 0


def test_its_options():
    with pytest.raises(ConfigError, match="crd needs queue ≥ 1, dim ≥ 1 and temperature > 0, got 4096, 128 and 0"):
        crd(student="s", temperature=0)
