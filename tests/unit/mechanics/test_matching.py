"""teacher = "auto": which layer answers to which, and what a term makes of it."""

import pytest
import torch
from torch import nn

import limbeck
from limbeck import Contract, Gate, Plan, Stage
from limbeck.core.errors import ConfigError
from limbeck.core.plan import Training
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import arguments, batch_of
from limbeck.mechanics.families.encoder import encoder
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.matching import layers, match, resolved, table
from limbeck.mechanics.signals import CachedTeacher, LiveTeacher
from limbeck.mechanics.terms import attention_transfer, hint, similarity_preserving
from limbeck.mechanics.terms.features import Pair
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, small_task


class Deep(nn.Module):
    """Twice the layers of SmallNet in three resolutions."""

    def __init__(self):
        super().__init__()
        block = lambda a, b, stride: nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU())  # noqa: E731
        self.stem, self.middle, self.top, self.head = block(1, 4, 1), block(4, 6, 2), block(6, 8, 2), nn.Linear(8, 4)

    def forward(self, image):
        return self.head(self.top(self.middle(self.stem(image))).mean((2, 3)))


IMAGES = (torch.zeros(2, 1, 8, 8),)
IDS = (torch.ones(2, 7, dtype=torch.long),)


def test_layers_tell_shape_and_depth_and_leave_modes_and_hooks_alone():
    model = Deep().train()
    model.stem.eval()
    found = {layer.path: layer for layer in layers(model, IMAGES, {})}
    assert found["middle"].shape == (2, 6, 4, 4) and found["in:middle"].shape == (2, 4, 8, 8) and found["head"].shape == (2, 4)
    assert [found[p].depth for p in ("stem", "in:middle", "middle", "top", "head")] == pytest.approx([2 / 7, 2 / 7, 4 / 7, 6 / 7, 1])
    assert found["stem.1"].kind == "ReLU" and model.training and not model.stem.training and model.middle.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(("path", "answer"), [("stem", "stem"), ("middle", "middle"), ("in:head", "in:head"), ("top.3", "top.3"), ("top.2", "top.2")])
def test_a_copy_answers_with_the_same_layer(path, answer):
    both = layers(Deep(), IMAGES, {})
    assert match(path, both, both).teacher.path == answer


def test_resolution_comes_before_depth():
    student, teacher = layers(Deep(), IMAGES, {}), layers(SmallNet(), IMAGES, {})
    assert match("features.8", teacher, student).teacher.path == "stem" or match("features.8", teacher, student).teacher.shape[2:] == (4, 4)
    assert match("features.2", teacher, student).teacher.shape[2:] == (8, 8), "8 × 8 has no other at that depth"
    assert match("stem.3", student, teacher).teacher.path == "features.2", "a ReLU a third of the way"


def test_a_query_answers_to_a_query_of_the_nearest_depth():
    student, teacher = (layers(encoder(vocabulary=9, classes=2, width=8, layers=n, heads=2, length=7), IDS, {}) for n in (2, 6))
    found = [match(f"layers.{i}.attention.{part}", student, teacher).teacher.path for i in (0, 1) for part in ("query", "key")]
    assert [p.rsplit(".")[-1] for p in found] == ["query", "key", "query", "key"]
    assert match("layers.1", student, teacher).teacher.path == "layers.5"
    five = layers(encoder(vocabulary=9, classes=2, width=8, layers=5, heads=2, length=7), IDS, {})
    assert match("layers.0.attention.key", student, five).teacher.path.endswith(".key"), "a value of the next layer would be nearer in depth"
    assert match("layers.0", student, teacher).teacher.path == "layers.2", "half way"
    matches, paths = resolved(["auto:layers.1.attention>query", "auto:layers.1.attention>key"], student, teacher)
    assert paths == {"auto:layers.1.attention>query": "layers.5.attention.query", "auto:layers.1.attention>key": "layers.5.attention.key"} and len(matches) == 1


def test_a_deeper_network_of_a_kind_answers_stage_by_stage():
    student, teacher = (layers(resnet(channels=1, classes=4, widths=(4, 6, 8), blocks=(n, n, n)), IMAGES, {}) for n in (1, 3))
    for layer in student:
        if len(layer.shape) == 4 and layer.depth > 0.2 and not layer.path.startswith("in:"):
            assert match(layer.path, student, teacher).teacher.shape[2:] == layer.shape[2:]


def test_what_cannot_be_matched_is_said():
    student, teacher = layers(SmallNet(), IMAGES, {}), layers(encoder(vocabulary=9, classes=2, width=8, layers=2, heads=2, length=7), IDS, {})
    with pytest.raises(ConfigError, match=r"no layer of the teacher answers to the student's 'features.2' .*none gives 4 dimensions. Name the teacher's layer"):
        match("features.2", student, teacher)
    with pytest.raises(ConfigError, match="the student has no layer 'featurs.2' that runs.*Did you mean 'features.2'"):
        match("featurs.2", student, teacher)
    with pytest.raises(ConfigError, match='teacher = "auto" needs the student'):
        (1.0 * similarity_preserving(student="features.2", teacher="auto:features.2")).bind(small_task(), LiveTeacher(small_task(), SmallNet()))


def test_the_match_is_used_told_and_shared_by_a_cache(tmp_path):
    task = small_task()
    teacher, student = rebuild(teacher_candidate(task).torch_form, task), task.models["small"]()
    objective = 1.0 * hint(student="features.5") + 1.0 * attention_transfer(pairs=(Pair(student="features.5"), Pair(student="features.8", teacher="features.6")))
    for signals in (LiveTeacher(task, teacher), CachedTeacher(tmp_path / "cache", LiveTeacher(task, teacher), {"weights": "x"})):
        bound = objective.bind(task, signals, student)
        assert [(m.student.path, m.teacher.path) for m in bound.matches] == [("features.5", "features.5")]
        seen = bound.see(student, batch_of(task, "train", range(4)), torch.arange(4).numpy())
        assert torch.equal(seen.tap("teacher", "auto:features.5"), seen.tap("teacher", "features.5")) and seen.tap("teacher", "features.6").shape[1] == 32
    assert "| `features.5` | [16, 8, 8] | 0.57 | `features.5` | [32, 8, 8] | 0.57 |" in table(bound.matches)
    log = QuietLog()
    fit(student, bound, Training(epochs=1, batch_size=32), seed=0, checkpoint=FileCheckpoint(tmp_path / "c"), log=log)
    assert log.events[0] == (
        "layers matched",
        {"note": "training", "student": "features.5 [16, 8, 8] at depth 0.57", "teacher": "features.5 [32, 8, 8] at depth 0.57"},
    )
    assert arguments(task, batch_of(task, "train", [0]))[1] == {}


def test_a_run_file_may_say_auto_and_pairs_and_the_claims_tell_what_was_matched(tmp_path):
    terms = [
        {"name": "task_loss", "weight": 0.5},
        {"name": "attention_transfer", "weight": 100, "options": {"pairs": [{"student": "features.5"}, {"student": "features.8", "teacher": "features.6"}]}},
        {"name": "crd", "weight": 0.1, "options": {"student": "in:head", "queue": 64, "dim": 8}},
    ]
    config = {"student": "small", "terms": terms, "training": {"epochs": 1, "batch_size": 32}}
    plan = Plan(stages=(Stage(technique="distill", config=config, gate=Gate(pays="bytes", shrink=1.0, retention=0.0)),), control=False)
    claims = limbeck.compress(small_task(), Contract(size_ratio=1.5), plan, root=tmp_path, timing_seconds=0.1, proof=limbeck.Proof(studies="none")).summary["stages"][0]["claims"]
    assert claims["matched"] == [{"student": "features.5", "teacher": "features.5"}, {"student": "in:head", "teacher": "in:head"}]
    assert claims["history"][0].keys() >= {"attention_transfer", "crd"}
