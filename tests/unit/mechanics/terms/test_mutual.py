"""mutual: peers that train beside the student (deep mutual learning)."""

import numpy as np
import pytest
import torch
from said import quarters, seen, some_tokens
from taps_said import sentences
from torch import nn
from torch.nn import functional as F

from limbeck import Views
from limbeck.core.errors import ConfigError, Interrupted, TaskError
from limbeck.core.plan import Training
from limbeck.core.task import Task
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.terms import ALL, mutual, task_loss
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.terms.fresh import fresh
from limbeck.mechanics.terms.mutual import mutual_loss
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, check_term

IDS = np.arange(8)


def kl(p, q):
    return F.kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="batchmean", log_target=True)


def bound_and_batch(term, *, task=None, student=None):
    task, student = task or quarters(), student or SmallNet(8)
    return (1.0 * term).bind(task, None, student, seed=3), batch_of(task, "train", IDS), student.eval()


def test_it_keeps_the_contract_and_needs_no_teacher():
    check_term(mutual(), task=quarters())
    check_term(mutual(peers=2, temperature=2), task=quarters())
    check_term(mutual(peer="teacher"), task=quarters())
    check_term(mutual(peer="limbeck:encoder", options={"vocabulary": 20, "width": 8, "heads": 2}), task=sentences())
    assert not mutual().teacher and mutual().labels and not mutual().relational


@pytest.mark.parametrize("peers", [1, 3])
def test_it_is_the_papers_loss_of_k_networks_written_out(peers):
    """Each peer's task loss, and of each network the mean of the divergences of all others from it."""
    bound, batch, student = bound_and_batch(mutual(peers=peers))
    value = bound(student, batch, IDS)[0].item()
    said = [student(batch[0]), *(p.eval()(batch[0]) for p in bound.module["mutual"])]
    expected = sum(F.cross_entropy(z, batch[1]) for z in said[1:])
    for k, mine in enumerate(said):
        expected = expected + sum(kl(other, mine) for j, other in enumerate(said) if j != k) / peers
    assert value == pytest.approx(expected.item(), rel=1e-5)


def test_each_network_descends_its_own_loss_and_no_other():
    bound, batch, student = bound_and_batch(mutual(peers=2))
    peers = list(bound.module["mutual"])
    bound(student, batch, IDS)[0].backward()
    said = [m.eval()(batch[0]) for m in (student, *peers)]
    for k, model in enumerate((student, *peers)):
        own = sum(kl(z.detach(), said[k]) for j, z in enumerate(said) if j != k) / 2 + (F.cross_entropy(said[k], batch[1]) if k else 0.0)
        for p, gradient in zip(model.parameters(), torch.autograd.grad(own, list(model.parameters())), strict=True):
            assert torch.allclose(p.grad, gradient, atol=1e-6), k


def test_gradient_of_the_pull_and_zero_where_all_agree():
    z = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert mutual_loss(seen(z), [z, z.clone(), z.clone()]).item() == pytest.approx(0, abs=1e-12)
    others = [torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    pull = lambda s: sum(kl(o, s) for o in others) / 2  # noqa: E731
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    mutual_loss(seen(z), [a, *others]).backward()
    pull(b).backward()
    assert torch.allclose(a.grad, b.grad, atol=1e-12)
    c = z.clone().requires_grad_()
    kl(torch.stack([o.softmax(1) for o in others]).mean(0).log(), c).backward()
    assert torch.allclose(a.grad, c.grad, atol=1e-12), "oracle 4: for the student, the mean of the divergences pulls as the mean of the probabilities does"
    hot, T = mutual_loss(seen(z), [z, others[0]], temperature=3.0), 3.0
    assert hot.item() == pytest.approx(T**2 * (kl(others[0] / T, z / T) + kl(z / T, others[0] / T)).item(), rel=1e-9)


def test_tokens_without_a_label_are_left_out_and_other_classes_are_told():
    s, t, label = some_tokens()
    other = torch.where((label == -100)[..., None], t + 3, t)
    assert mutual_loss(seen(s, label=label), [s, t]).item() == pytest.approx(mutual_loss(seen(s, label=label), [s, other]).item(), rel=1e-12)
    with pytest.raises(TaskError, match=r"mutual needs class logits of one shape, got student \(8, 5\) and teacher \(8, 7\)"):
        mutual_loss(seen(torch.zeros(8, 5)), [torch.zeros(8, 5), torch.zeros(8, 7)])


def test_a_peer_begins_elsewhere_than_a_student_of_the_same_seed_and_peers_differ():
    """Both are drawn from a generator that starts at the seed: drawn alike, they would be one network."""
    for peer in ("", "small"):
        torch.manual_seed(3)
        student = SmallNet(8)
        bound, _, _ = bound_and_batch(mutual(peers=2, peer=peer), student=student)
        first, second = bound.module["mutual"]
        for a, b in ((first, student), (second, student), (first, second)):
            assert not torch.equal(a.head.weight, b.head.weight) and not torch.equal(a.features[0].weight, b.features[0].weight)


def test_peers_see_the_students_view_in_its_mode_and_stay_out_of_it():
    task = Task(**{**vars(quarters()), "views": Views(flip=True, crop=2)})
    bound, batch, student = bound_and_batch(mutual(), task=task)
    (peer,) = bound.module["mutual"]
    got = []
    peer.register_forward_pre_hook(lambda module, args: got.append((args[0], module.training)))
    for train in (True, False):
        bound(student.train(train), batch, IDS, 5)
        assert got[-1][1] is train and torch.equal(got[-1][0], task.views.apply(batch[0], IDS, 5))
    assert set(student.state_dict()) == set(SmallNet(8).state_dict())
    assert {id(p) for p in bound.parameters()} == {id(p) for p in peer.parameters()}


def test_of_samples_that_are_mixed_peers_learn_both_labels():
    task = Task(**{**vars(quarters()), "views": Views(mixup=0.4)})
    bound, batch, student = bound_and_batch(mutual(), task=task)
    seen = bound.see(student, batch, IDS, 1)
    (peer,) = bound.module["mutual"]
    a, b = student(seen.args[0]), peer.eval()(seen.args[0])
    losses = seen.mixed.blend(F.cross_entropy(b, batch[1], reduction="none"), F.cross_entropy(b, seen.mixed.batch[1], reduction="none"))
    assert bound(student, batch, IDS, 1)[0].item() == pytest.approx((losses.mean() + kl(a, b) + kl(b, a)).item(), rel=1e-4)


def test_a_batch_of_one_and_a_sample_without_a_label():
    bound, _, student = bound_and_batch(mutual())
    one = batch_of(quarters(), "train", [0])
    bound(student, one, np.arange(1))[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters())
    value = bound(student, [one[0], torch.tensor([-100])], np.arange(1))[0]
    (peer,) = bound.module["mutual"]
    a, b = student(one[0]), peer(one[0])
    assert value.item() == pytest.approx((kl(a, b) + kl(b, a)).item(), rel=1e-4), "no label: peers still pull each other"


def test_a_training_that_is_stopped_and_resumed_ends_with_the_same_bits(tmp_path):
    task = quarters()

    def trained(path, stop=lambda: False):
        torch.manual_seed(1)
        student = SmallNet(8)
        bound = (1.0 * task_loss() + 1.0 * mutual(peers=2)).bind(task, None, student, seed=1)
        history = fit(student, bound, Training(epochs=2, batch_size=32), seed=0, checkpoint=FileCheckpoint(path, stop), log=QuietLog())
        return student.state_dict() | bound.module.state_dict(), history

    straight, history = trained(tmp_path / "a")
    asked = iter([False] * 3 + [True])
    with pytest.raises(Interrupted):
        trained(tmp_path / "b", stop=lambda: next(asked))
    resumed, again = trained(tmp_path / "b")
    assert all(torch.equal(v, straight[k]) for k, v in resumed.items()) and again == history
    assert history[-1]["mutual"] < history[0]["mutual"]


def test_the_same_architecture_begins_anew_or_says_which_module_cannot():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.MultiheadAttention(4, 2), nn.Embedding(3, 4), nn.BatchNorm1d(4))
    model.requires_grad_(False)
    model[4].running_mean += 5
    twin = fresh(model, "mutual")
    assert not any(torch.equal(twin[i].weight, model[i].weight) for i in (0, 3)) and not torch.equal(twin[2].in_proj_weight, model[2].in_proj_weight)
    assert all(p.requires_grad for p in twin.parameters()) and twin[4].running_mean.abs().max() == 0 and model[4].running_mean.min() == 5

    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls = nn.Parameter(torch.zeros(4))

    with pytest.raises(ConfigError, match=r"mutual: '1' \(Token\) has weights of its own and no reset_parameters\(\).*or name a model in mutual.peer"):
        fresh(nn.Sequential(nn.Linear(4, 4), Token()), "mutual")


def test_what_cannot_be_a_peer_is_refused():
    for options, message in (
        ({"peers": 0}, "peers must be ≥ 1, got 0"),
        ({"peer": "smal"}, "has no model 'smal'. Did you mean 'small'"),
        ({"peer": "limbeck:convnt"}, "no family 'convnt'"),
        ({"options": {"width": 8}}, "mutual.options are for a peer that is named"),
    ):
        with pytest.raises((ConfigError, TaskError), match=message):
            bound_and_batch(objective_of([Entry(name="mutual", options=options)], ALL).terms[0][1])
    made = objective_of([Entry(name="mutual", options={"peer": "limbeck:convnet", "options": {"width": 4}})], ALL).terms[0][1]
    student = SmallNet(8).train()
    bound, _, _ = bound_and_batch(made, student=student)
    assert next(iter(bound.module["mutual"])).__class__.__name__ == "ConvNet"
