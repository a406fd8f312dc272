"""Layers that an objective finds by itself: the head's input, and some evenly spaced."""

import pytest
import torch
from torch import nn

from limbeck import Task, accuracy
from limbeck.core.errors import ConfigError
from limbeck.mechanics.depths import HEAD, at, evaluated, placed
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.objective import Term
from limbeck.mechanics.signals import LiveTeacher
from limbeck.mechanics.terms import task_loss
from limbeck.testing import SmallNet, small_task


def test_the_head_is_what_gives_the_answer_and_places_lie_evenly_before_it():
    task = small_task()
    assert placed([HEAD, at(1, 1)], task, SmallNet(8)) == {HEAD: "in:head", at(1, 1): "features.3"}
    assert placed([at(1, 2), at(2, 2)], task, resnet(channels=1, classes=4)) == {at(1, 2): "stages.0", at(2, 2): "stages.1"}, "outermost modules first"
    found = placed([at(i, 3) for i in (1, 2, 3)], task, resnet(channels=1, classes=4))
    assert len(set(found.values())) == 3, "no layer stands for two places"


class Late(nn.Module):
    """Whose last layer to run isn't its head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.other = nn.Linear(64, 6), nn.Linear(6, 4), nn.Linear(6, 3)

    def forward(self, x):
        features = self.body(x.flatten(1)).relu()
        return {"logits": self.head(features), "other": self.other(features)}


def test_of_several_outputs_the_head_gives_the_main_one():
    assert placed([HEAD], small_task(), Late()) == {HEAD: "in:head"}


def test_what_cannot_be_found_is_refused():
    class Bare(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4]

    with pytest.raises(ConfigError, match="no layer with weights of Bare gives its outputs"):
        placed([HEAD], small_task(), Bare())
    with pytest.raises(ConfigError, match="no layer stands at about 25% of the student's depth"):
        placed([at(1, 3)], small_task(), nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))


def test_no_layer_stands_for_two_places():
    few = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    assert placed([at(1, 2)], small_task(), few) == {at(1, 2): "1"} and placed([at(2, 2)], small_task(), few) == {at(2, 2): "1"}
    with pytest.raises(ConfigError, match="no layer stands at about 67% of the student's depth. Ask for fewer"):
        placed([at(1, 2), at(2, 2)], small_task(), few)


def test_modes_and_hooks_are_left_as_they_were():
    model = SmallNet(8).train()
    model.features[1].eval()
    placed([HEAD, at(1, 1)], small_task(), model)
    with evaluated(model):
        assert not any(m.training for m in model.modules())
    assert model.training and not model.features[1].training and model.features[4].training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_term_taps_what_was_found_on_both_sides_and_tells_figures():
    task = small_task()
    saw = {}

    def looks(seen):
        saw.update(own=seen.tap("student", HEAD).shape, theirs=seen.tap("teacher", "auto:" + HEAD).shape, view=seen.view)
        return seen.student["logits"].square().mean()

    term = Term("looks", looks, teacher=True, chosen=(HEAD,), teacher_taps=("auto:" + HEAD,), tells=lambda seen: {"batch": float(len(seen.ids))})
    teacher, student = SmallNet(16), SmallNet(8)
    bound = (task_loss() + 1.0 * term).bind(task, LiveTeacher(task, teacher), student)
    assert [(m.student.path, m.teacher.path) for m in bound.matches] == [("in:head", "in:head")]
    batch = [torch.stack([task.splits["train"][i][0] for i in range(3)]), torch.tensor([0, 1, 2])]
    _, parts = bound(student, batch, torch.arange(3).numpy(), 5)
    assert saw == {"own": (3, 16), "theirs": (3, 32), "view": 5}
    assert parts["batch of looks"].item() == 3 and set(parts) == {"task_loss", "looks", "batch of looks"}
    with pytest.raises(ConfigError, match="a layer that is left to be found needs the student"):
        (1.0 * term).bind(task, LiveTeacher(task, teacher))


def test_a_task_without_a_student_is_not_looked_at():
    task = Task(metric=accuracy(), splits={})
    assert (1.0 * task_loss()).bind(task).matched == {}
