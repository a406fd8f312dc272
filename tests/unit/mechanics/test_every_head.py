"""Objectives that nobody wrote train every head of a model that has a distillation token."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from limbeck import LiveTeacher
from limbeck.core.plan import Recovery, Training
from limbeck.mechanics.build import rebuild, teacher_candidate, torch_form
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.every_head import heads_of, on_every_head
from limbeck.mechanics.families.vit import vit
from limbeck.mechanics.recover import recover
from limbeck.mechanics.terms import kd, task_loss
from limbeck.techniques.distill.offline import Distill, distill
from limbeck.testing import SmallNet, context, small_task

OPTIONS = {"patch": 4, "width": 8, "depth": 1, "heads": 2, "distilled": True}


def a_vit(**change):
    torch.manual_seed(0)
    return vit(**{"channels": 1, "classes": 4, "image": [8, 8]} | OPTIONS | change)


def test_heads_are_those_of_train_mode_and_asking_leaves_the_model_alone():
    task, two, one = small_task(), a_vit(), a_vit(distilled=False)
    model = SmallNet().train()
    model.features[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    assert heads_of(task, model) == ("", ()) and heads_of(task, two) == ("logits", ("distilled",)) and heads_of(task, one) == ("", ())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and torch.equal(state, torch.get_rng_state())
    assert model.training and not model.features[1].training and model.features[4].training


def test_each_head_gets_its_share_of_every_term():
    task, model = small_task(), a_vit()
    teacher = rebuild(teacher_candidate(task).torch_form, task)
    batch, ids = batch_of(task, "train", range(8)), np.arange(8)
    bound = on_every_head(0.2 * task_loss() + 0.8 * kd(temperature=2), task, model).bind(task, LiveTeacher(task, teacher), model)
    with torch.no_grad():
        own, theirs = model.train()(batch[0]), teacher(batch[0])
    soft = lambda z: 4 * F.kl_div((z / 2).log_softmax(1), (theirs / 2).log_softmax(1), log_target=True, reduction="batchmean")  # noqa: E731
    by_hand = sum(0.1 * F.cross_entropy(own[name], batch[1]) + 0.4 * soft(own[name]) for name in ("logits", "distilled"))
    torch.testing.assert_close(bound(model, batch, ids)[0].detach(), by_hand)


def test_another_model_and_a_loss_of_the_tasks_own_keep_the_objective():
    task, objective = small_task(), 1.0 * task_loss()
    assert on_every_head(objective, task, SmallNet()) is objective
    assert on_every_head(objective, replace(task, loss=lambda outputs, batch: outputs["logits"].sum(1)), a_vit()) is objective


@pytest.mark.parametrize("what", ["distill", "recover"])
def test_both_heads_move(what, tmp_path):
    task, training = small_task(), Training(epochs=1, batch_size=32)
    config = Distill(student="limbeck:vit", options=OPTIONS, training=replace(training, epochs=0 if what == "recover" else 1))
    first = distill(teacher_candidate(task), config, context(task, tmp_path)).candidate
    start = distill(teacher_candidate(task), replace(config, training=replace(training, epochs=0)), context(task, tmp_path / "0")).candidate
    after = recover(first, Recovery(training=training), context(task, tmp_path, seed=1))[0] if what == "recover" else first
    before, now = start.torch_form.weights, after.torch_form.weights
    assert not torch.equal(before["head.weight"], now["head.weight"]) and not torch.equal(before["distillation_head.weight"], now["distillation_head.weight"])
    assert torch_form(rebuild(after.torch_form, task), after.torch_form.blueprint, task, batch_of(task, "train", [0, 1])).blueprint == after.torch_form.blueprint
