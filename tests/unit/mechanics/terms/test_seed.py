"""seed: whom a sample is like, in the teacher's features, without labels."""

import numpy as np
import pytest
import torch
from said import quarters
from taps_said import built, features, gave, rotation, sentences
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from limbeck.core.errors import ConfigError, Interrupted, TaskError
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import ALL, seed
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.seed import Queue, seed_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, check_term


def unit(number: int, *shape: int) -> torch.Tensor:
    return F.normalize(features(number, *shape), dim=-1)


def test_it_keeps_the_contract():
    check_term(seed(queue=16), task=quarters())
    check_term(seed(student="features.8", teacher="in:head", queue=16), task=quarters())
    check_term(seed(queue=16), task=sentences())
    assert seed().teacher and not seed().labels and not seed().relational


def test_it_is_the_papers_cross_entropy_written_out():
    s, t, past, hot, cold = unit(0, 3, 4), unit(1, 3, 4), unit(2, 5, 4), 0.3, 0.1
    expected = 0.0
    for i in range(3):
        among = torch.cat([past, t[i : i + 1]])
        p, q = (among @ t[i] / cold).softmax(0), (among @ s[i] / hot).softmax(0)
        expected -= (p * q.log()).sum().item() / 3
    assert seed_loss(s, t, past, student_temperature=hot, teacher_temperature=cold).item() == pytest.approx(expected, rel=1e-10)


def test_it_is_least_where_the_student_sees_as_the_teacher_does():
    """At equal temperatures the student's own distribution is the teacher's, so the loss is that one's entropy and its gradient 0."""
    t, past = unit(1, 3, 4), unit(2, 5, 4)
    s = t.clone().requires_grad_()
    loss = seed_loss(s, t, past, student_temperature=0.2, teacher_temperature=0.2)
    p = (torch.cat([t @ past.T, torch.ones(3, 1, dtype=t.dtype)], 1) / 0.2).softmax(1)
    assert loss.item() == pytest.approx(-(p * p.log()).sum(1).mean().item(), rel=1e-10)
    loss.backward()
    assert s.grad.abs().max() < 1e-12
    assert seed_loss(unit(3, 3, 4), t, past, student_temperature=0.2, teacher_temperature=0.2) > loss


def test_a_rotation_of_all_changes_nothing():
    s, t, past, turn = unit(0, 3, 4), unit(1, 3, 4), unit(2, 5, 4), rotation(7, 4)
    assert seed_loss(s @ turn, t @ turn, past @ turn).item() == pytest.approx(seed_loss(s, t, past).item(), rel=1e-9)


def test_gradient_reaches_the_student_alone():
    t, past = unit(1, 3, 4).requires_grad_(), unit(2, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: seed_loss(z, t.detach(), past.detach()), features(0, 3, 4).requires_grad_())
    s = unit(0, 3, 4).requires_grad_()
    seed_loss(s, t, past.detach()).backward()
    assert t.grad is None and s.grad.abs().max() > 0


def test_no_sample_depends_on_who_shares_its_batch():
    """Oracle 8: a batch joins the queue after its own step."""
    term = seed(student="s", teacher="t", queue=6)
    s, t = features(0, 4, 3), features(1, 4, 5)
    own = built(term, gave(s, t))
    start = {k: v.clone() for k, v in own.state_dict().items()}
    whole = term.function(gave(s, t, own=own)).item()
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        own.load_state_dict(start)
        halves.append(term.function(gave(s[part], t[part], own=own)).item())
    assert whole == pytest.approx(sum(halves) / 2, rel=1e-10)


def test_the_queue_holds_the_teachers_last_directions_and_no_trace_of_looking():
    own = Queue(3, 4, 5)
    assert torch.allclose(own.past.norm(dim=1), torch.ones(5)) and not own.past.requires_grad
    first = own.past.clone()
    a, b, many = (unit(i, n, 4).float() for i, n in ((0, 3), (1, 3), (2, 9)))
    own.push(a)
    assert torch.equal(own.past, torch.cat([a, first[3:]])) and own.at.item() == 3
    own.push(b)
    assert torch.equal(own.past, torch.cat([b[2:], a[1:], b[:2]])) and own.at.item() == 1
    own.push(many)
    assert sorted(own.past[:, 0].tolist()) == sorted(many[-5:, 0].tolist())
    term, kept = seed(student="s", teacher="t", queue=5), own.past.clone()
    with torch.no_grad():
        term.function(gave(features(0, 2, 3).float(), features(1, 2, 4).float(), own=own))
    assert torch.equal(own.past, kept)
    term.function(gave(features(0, 2, 3).float(), features(1, 2, 4).half(), own=own)).backward()
    assert not torch.equal(own.past, kept) and own.project[0].weight.grad.abs().max() > 0, "a teacher in half precision is taken at the student's"


def test_one_sample_is_a_batch_and_labels_are_not_asked_for():
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    task = Task(**{**vars(quarters()), "splits": {**quarters().splits, "train": [(x,) for x in images]}})
    teacher, student = SmallNet(16).eval(), SmallNet(8)
    bound = (1.0 * seed(queue=8)).bind(task, LiveTeacher(task, teacher), student)
    loss, _ = bound(student.eval(), batch_of(task, "train", [0]), np.arange(1))
    loss.backward()
    assert torch.isfinite(student.features[0].weight.grad).all() and student.features[0].weight.grad.abs().max() > 0
    assert student.head.weight.grad is None, "features alone"


def test_other_widths_are_projected_and_other_shapes_refused():
    term = seed(student="s", teacher="t", queue=4)
    step = gave(features(0, 2, 6, 3, 3), features(1, 2, 7, 5))
    assert torch.isfinite(term.function(gave(features(0, 2, 6, 3, 3), features(1, 2, 7, 5), own=built(term, step))))
    with pytest.raises(TaskError, match="seed takes features of shape"):
        bad = gave(features(0, 2, 3, 4, 5, 6), features(1, 2, 3))
        term.function(gave(features(0, 2, 3, 4, 5, 6), features(1, 2, 3), own=built(term, bad)))


def neighbours(z: torch.Tensor) -> torch.Tensor:
    z = F.normalize(z, dim=1)
    return (z @ z.T - 2 * torch.eye(len(z))).argmax(1)


def test_a_student_learns_whom_the_teacher_holds_to_be_alike_without_a_label(tmp_path):
    task = quarters()
    teacher = rebuild(teacher_candidate(task).torch_form, task)
    images = torch.stack([task.splits["validation"][i][0] for i in range(96)])
    target = torch.tensor([int(task.splits["validation"][i][1]) for i in range(96)])
    bare = Task(**{**vars(task), "splits": {**task.splits, "train": TensorDataset(task.splits["train"].tensors[0])}})

    def trained(path, *, epochs, stop=lambda: False):
        torch.manual_seed(1)
        student = SmallNet(8)
        bound = (1.0 * seed(queue=64)).bind(bare, LiveTeacher(bare, teacher), student, seed=4)
        fit(student, bound, Training(epochs=epochs, batch_size=16, learning_rate=0.01), seed=0, checkpoint=FileCheckpoint(path, stop), log=QuietLog())
        with torch.no_grad():
            vectors = student.features(images).mean((2, 3))
        return (target[neighbours(vectors)] == target).float().mean().item(), student.state_dict() | bound.module.state_dict()

    before, _ = trained(tmp_path / "0", epochs=0)
    after, straight = trained(tmp_path / "a", epochs=12)
    assert 1 - after < 0.5 * (1 - before), (before, after)
    asked = iter([False] * 8 + [True])
    with pytest.raises(Interrupted):
        trained(tmp_path / "b", epochs=12, stop=lambda: next(asked))
    _, resumed = trained(tmp_path / "b", epochs=12)
    assert all(torch.equal(v, straight[k]) for k, v in resumed.items())


def test_bad_options_are_refused():
    for options, message in (({"queue": 0}, "queue must be ≥ 1"), ({"student_temperature": 0}, "student_temperature must be > 0")):
        with pytest.raises(ConfigError, match=message):
            objective_of([Entry(name="seed", options=options)], ALL)
    with pytest.raises(ConfigError, match="seed needs queue ≥ 1 and both temperatures > 0, got 0"):
        seed(queue=0)
