"""Which teacher, joined how, in which order: what `Teaching` stands for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from limbeck import Views
from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.build import runnable, teacher_candidate
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.live import LiveTeacher
from limbeck.mechanics.order import Curriculum
from limbeck.mechanics.teaching import Teaching, order_of, ranks, source_of, teacher_of
from limbeck.testing import SmallNet, context, small_task


def answers(task):
    model = runnable(teacher_candidate(task).form, task)
    with torch.no_grad():
        return model, model(batch_of(task, "train", range(len(task.split("train"))))[0])


def test_confidence_ranks_by_entropy_and_difficulty_by_the_label():
    task = small_task()
    model, logits = answers(task)
    labels = task.splits["train"].tensors[1]
    source = LiveTeacher(task, model)
    probabilities = logits.softmax(-1)
    np.testing.assert_allclose(ranks(task, source, "confidence"), -(probabilities * probabilities.log()).sum(-1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ranks(task, source, "difficulty"), F.cross_entropy(logits, labels, reduction="none"), rtol=1e-4, atol=1e-6)


def test_unlabelled_samples_are_the_hardest():
    task = small_task()
    images, labels = task.splits["train"].tensors
    few = labels.clone()
    few[::2] = -100
    task = replace(task, splits={**task.splits, "train": TensorDataset(images, few)})
    hard = ranks(task, LiveTeacher(task, answers(task)[0]), "difficulty")
    assert np.isinf(hard[::2]).all() and np.isfinite(hard[1::2]).all()


def test_the_order_begins_with_what_the_teacher_is_surest_of():
    task = small_task()
    source = LiveTeacher(task, answers(task)[0])
    order = order_of(Teaching(curriculum=Curriculum(by="confidence", first=0.25)), task, source, seed=0)
    easiest = set(np.argsort(ranks(task, source, "confidence"), kind="stable")[: order.open(0)])
    assert set(order.epoch(0)) == easiest


@pytest.mark.parametrize(
    ("views", "curriculum", "source", "message"),
    [
        (Views(mixup=0.5), Curriculum(by="difficulty"), True, "a mixed view has two"),
        (None, Curriculum(by="confidence"), False, "asks the teacher, and there is none"),
    ],
)
def test_a_curriculum_that_cannot_be(views, curriculum, source, message):
    task = replace(small_task(), views=views)
    with pytest.raises(ConfigError, match=message):
        order_of(Teaching(curriculum=curriculum), task, LiveTeacher(task, answers(task)[0]) if source else None, seed=0)


def test_who_teaches(tmp_path):
    task = small_task()
    torch.manual_seed(7)
    task = replace(task, models={**task.models, "aunt": SmallNet}, weights={**task.weights, "aunt": SmallNet().state_dict()})
    here, candidate = context(task, tmp_path), teacher_candidate(task, "aunt")
    of = lambda name: teacher_of(Teaching(teacher=name), candidate, here).torch_form.weights["head.bias"]  # noqa: E731
    assert torch.equal(of(""), teacher_candidate(task).torch_form.weights["head.bias"])
    assert torch.equal(of("aunt"), of("input")) and not torch.equal(of("aunt"), of(""))
    assert source_of(Teaching(), candidate, here) is here.signals
    with pytest.raises(TaskError, match="no model 'ant'.*aunt"):
        of("ant")
    with pytest.raises(ConfigError, match="'small' has no trained weights"):
        of("small")
    with pytest.raises(ConfigError, match="several teachers; this one is a single SmallNet"):
        source_of(Teaching(join="learned"), candidate, here)


def test_terms_stand_for_the_whole_objective():
    usual = Teaching(temperature=2.0, teacher_weight=0.7)
    assert [(round(w, 2), t.name) for w, t in usual.objective.terms] == [(0.3, "task_loss"), (0.7, "kd")]
    assert Teaching(balance="uncertainty").objective.balance == "uncertainty"
