"""Several teachers joined: what each join must hold exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.task import Task
from limbeck.mechanics.build import runnable, teacher_candidate
from limbeck.mechanics.committee import committee, confidence, expertise, likeliest, mixed
from limbeck.mechanics.data import arguments, batch_of
from limbeck.mechanics.live import LiveTeacher, member_name, members_of
from limbeck.mechanics.signals import CachedTeacher
from limbeck.mechanics.terms import kd, logit_mse
from limbeck.testing import SmallNet, small_task

IDS = np.arange(12)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ensemble_task(**changes) -> Task:
    """Three teachers: one that was trained, and two that know nothing."""
    task = small_task()
    fresh = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        fresh.append(SmallNet().state_dict())
    return replace(task, models={"teacher": [SmallNet] * 3, "small": lambda: SmallNet(8)}, weights={"teacher": [task.weights["teacher"], *fresh]}, **changes)


def joined(task: Task, join):
    model = runnable(teacher_candidate(task).form, task)
    return committee(task, model, join, lambda: LiveTeacher(task, model, apart=True))


def answer(source, task: Task) -> torch.Tensor:
    return source.teacher(IDS, 0, *arguments(task, batch_of(task, "train", IDS)))["logits"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10))
def test_mixed_logits_soften_to_the_mean_of_softened_probabilities(seed, temperature):
    logits, weights = drawn(seed, 3, 5, 4), drawn(seed + 1, 3, 5).softmax(0)[..., None]
    got = (mixed(logits, weights, temperature=temperature) / temperature).softmax(-1)
    assert torch.allclose(got, (weights * (logits / temperature).softmax(-1)).sum(0), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 10))
def test_the_mixture_and_the_sum_of_divergences_pull_alike(seed, temperature):
    """Oracle 4: Σ wᵢ·KL(pᵢ‖q) and KL(Σ wᵢpᵢ‖q) have the same gradient."""
    logits, weights = drawn(seed, 3, 5, 4), drawn(seed + 1, 3, 5).softmax(0)[..., None]
    student = drawn(seed + 2, 5, 4).requires_grad_()
    one = F.kl_div((student / temperature).log_softmax(-1), (mixed(logits, weights, temperature=temperature) / temperature).log_softmax(-1), log_target=True, reduction="sum")
    several = sum(
        (w * F.kl_div((student / temperature).log_softmax(-1), (z / temperature).log_softmax(-1), log_target=True, reduction="none")).sum()
        for w, z in zip(weights, logits, strict=True)
    )
    assert torch.allclose(torch.autograd.grad(one, student)[0], torch.autograd.grad(several, student)[0], atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), members=st.integers(1, 5))
def test_confidence_adds_up_and_prefers_who_is_right(seed, members):
    logits, target = drawn(seed, members, 6, 4), torch.arange(6) % 4
    weights = confidence(logits, target)
    assert torch.allclose(weights.sum(0), torch.ones(6, dtype=torch.float64)) and (weights >= 0).all()
    losses = torch.stack([F.cross_entropy(z, target, reduction="none") for z in logits])
    if members > 1:
        assert torch.equal(losses.argmin(0), weights.argmax(0))
        by_hand = (1 - losses.exp() / losses.exp().sum(0)) / (members - 1)
        assert torch.allclose(weights, by_hand, atol=1e-9)


def test_confidence_takes_the_entropy_where_there_is_no_label():
    logits = torch.stack([torch.tensor([[9.0, 0, 0], [0.0, 0, 0]]), torch.tensor([[0.0, 0, 0], [9.0, 0, 0]])])
    unlabelled = confidence(logits, torch.tensor([-100, -100]))
    assert torch.equal(unlabelled, confidence(logits, None))
    assert unlabelled[0, 0] > 0.7 and unlabelled[1, 1] > 0.7
    wrong = confidence(logits, torch.tensor([1, -100]))  # the sure one is wrong here
    assert wrong[0, 0] < 0.05 and torch.equal(wrong[:, 1], unlabelled[:, 1])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_learned_weights_are_the_likeliest(seed):
    probabilities, target = drawn(seed, 3, 40, 4).softmax(-1), torch.arange(40) % 4
    likelihood = lambda w: torch.log((w[:, None] * probabilities[:, torch.arange(40), target]).sum(0)).mean()  # noqa: E731
    best = likeliest(probabilities, target)
    assert abs(best.sum().item() - 1) < 1e-9
    others = torch.stack([drawn(seed + i, 3).softmax(0) for i in range(30)])
    assert all(likelihood(best) >= likelihood(w) - 1e-4 for w in others)


def test_a_teacher_that_is_always_right_gets_all_the_weight():
    target = torch.arange(60) % 3
    right, blind = F.one_hot(target, 3).double() * 0.9 + 1 / 30, torch.full((60, 3), 1 / 3, dtype=torch.float64)
    weights = likeliest(torch.stack([right, blind]), target)
    assert weights[0] > 0.99
    specialist = torch.where((target == 0)[:, None], right, blind.roll(1) + torch.tensor([0.0, 0.1, 0.0]))
    shares = expertise(torch.stack([right, specialist]), target)
    assert torch.allclose(shares.sum(0), torch.ones(3, dtype=torch.float64))
    assert shares[1, 0] == pytest.approx(0.5, abs=0.01)  # right whenever it says class 0, as the other is
    assert shares[1, 1] < 0.4 and shares[1, 2] < 0.3  # mostly wrong when it says 1; never says 2, which counts as chance


@pytest.mark.parametrize("join", ["confidence", "learned", "specialists"])
def test_joins_listen_to_who_knows(join):
    """Two of three teachers were never trained: a mean of them is worse than what a join makes of them."""
    task = ensemble_task()
    labels = batch_of(task, "train", IDS)[1]
    right = lambda z: F.cross_entropy(z, labels).item()  # noqa: E731
    plain, found = answer(joined(task, "probabilities"), task), answer(joined(task, join), task)
    assert right(found) < right(plain)


def test_plain_joins_equal_the_ensemble_itself():
    for join in ("outputs", "probabilities"):
        task = ensemble_task(ensemble=join)
        model = runnable(teacher_candidate(task).form, task)
        whole = LiveTeacher(task, model).teacher(IDS, 0, *arguments(task, batch_of(task, "train", IDS)))["logits"]
        apart = answer(joined(task, join), task)
        assert torch.allclose(whole.softmax(-1), apart.softmax(-1), atol=1e-6)


def test_a_join_is_exact_at_the_temperature_of_the_terms():
    task = ensemble_task()
    model = runnable(teacher_candidate(task).form, task)
    source = committee(task, model, "probabilities", lambda: LiveTeacher(task, model, apart=True))
    bound = (1.0 * kd(temperature=4.0)).bind(task, source)
    assert answer(bound.signals, task) is not None and bound.signals.temperature == 4.0
    members = members_of(LiveTeacher(task, model, apart=True).teacher(IDS, 0, *arguments(task, batch_of(task, "train", IDS))))
    mean = torch.stack([m["logits"] / 4 for m in members]).softmax(-1).mean(0)
    assert torch.allclose((answer(bound.signals, task) / 4).softmax(-1), mean, atol=1e-6)
    both = (1.0 * kd(temperature=4.0) + 1.0 * logit_mse()).bind(task, source)
    assert both.signals.temperature == 1.0


def test_cached_members_equal_live_ones(tmp_path):
    task = ensemble_task()
    model = runnable(teacher_candidate(task).form, task)
    live = LiveTeacher(task, model, apart=True)
    cached = committee(task, model, "confidence", lambda: CachedTeacher(tmp_path, live, {"teacher": "x"}, "float32"))
    assert torch.allclose(answer(cached, task), answer(joined(task, "confidence"), task), atol=1e-6)


def test_members_keep_their_names_apart():
    outputs = {member_name(i, name): torch.tensor(float(10 * i)) for i in range(12) for name in ("logits", "aux.1")}
    assert [m["aux.1"].item() for m in members_of(outputs)] == [10.0 * i for i in range(12)]


def test_one_teacher_is_no_committee():
    task = small_task()
    model = runnable(teacher_candidate(task).form, task)
    with pytest.raises(ConfigError, match="several teachers; this one is a single SmallNet"):
        committee(task, model, "learned", lambda: LiveTeacher(task, model))


def test_learned_weights_need_labels_on_validation():
    task = ensemble_task()
    without = replace(task, splits={**task.splits, "validation": [x for x, _ in task.splits["validation"]]})
    source = joined(without, "learned")
    with pytest.raises(TaskError, match="learned on validation, which needs a class"):
        answer(source, without)


def test_probabilities_are_of_classes():
    class Value(nn.Module):
        def forward(self, image):
            return {"logits": image.mean((2, 3))}

    task = replace(small_task(), models={"teacher": [Value, Value]}, weights={})
    source = joined(task, "confidence")
    with pytest.raises(ConfigError, match="Take 'outputs', their mean"):
        answer(source, task)


def test_a_union_gives_what_each_member_names():
    class Named(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name, self.linear = name, nn.Linear(64, 4)

        def forward(self, image):
            return {self.name: self.linear(image.flatten(1))}

    task = replace(small_task(), models={"teacher": [lambda: Named("logits"), lambda: Named("depth")]}, weights={}, ensemble="union")
    model = runnable(teacher_candidate(task).form, task)
    assert set(model(torch.zeros(2, 1, 8, 8))) == {"logits", "depth"}
    twice = replace(task, models={"teacher": [lambda: Named("logits"), lambda: Named("logits")]})
    with pytest.raises(ConfigError, match="'logits' is given by member 1"):
        runnable(teacher_candidate(twice).form, twice)(torch.zeros(2, 1, 8, 8))
