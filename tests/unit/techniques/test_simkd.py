"""A student that answers through its teacher's classifier: what is found, kept, trained, claimed and refused."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import TensorDataset

import limbeck
from limbeck import Task
from limbeck.analysis.profile import profile
from limbeck.core.errors import ReplayError, StageError
from limbeck.core.plan import Training
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of, predict
from limbeck.mechanics.edits import replay
from limbeck.mechanics.families.convnet import convnet
from limbeck.mechanics.families.encoder import encoder
from limbeck.mechanics.families.mlp import mlp
from limbeck.mechanics.families.resnet import resnet
from limbeck.mechanics.families.vit import vit
from limbeck.mechanics.heads import find_head, whole_steps
from limbeck.runtimes.onnxruntime import ONNXRUNTIME
from limbeck.techniques.distill.simkd import SimKD, simkd
from limbeck.techniques.prune.channels import Prune, prune
from limbeck.techniques.quantize.static_int8 import Quantize, quantize
from limbeck.testing import SmallNet, check_runtime, context, small_task

SHORT = Training(epochs=2, batch_size=32)


def a_task(teacher, student=None, *, classes: int = 4) -> Task:
    """Random images of 8 × 8 and labels, with these models, their weights as they are made under seed 0."""
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(48, 1, 8, 8, generator=generator), torch.arange(48) % classes)
    torch.manual_seed(0)
    weights = teacher().state_dict()
    models = {"teacher": teacher} | ({"small": student} if student else {})
    return Task(models=models, weights={"teacher": weights}, splits=dict.fromkeys(("train", "validation", "test"), data), metric=accuracy())


def ran(task: Task, folder, **options):
    folder.mkdir(exist_ok=True)
    config = SimKD(**{"student": "limbeck:convnet", "options": {"width": 8}, "training": SHORT} | options)
    return simkd(teacher_candidate(task), config, context(task, folder))


@pytest.mark.parametrize(
    ("model", "path", "features", "shape"),
    [
        (SmallNet(8), "head", "features", (16, 8, 8)),
        (resnet(channels=1, classes=4, widths=(4, 8), blocks=(1, 1)), "head", "stages", (8, 4, 4)),
        (convnet(channels=1, classes=4, width=4, depth=2, size=8), "head", "stages", (8, 4, 4)),
        (mlp(features=64, classes=4, widths=(12,)), "3", "", (12,)),
        (vit(channels=1, classes=4, image=(8, 8), patch=2, width=8, depth=1, heads=2), "head", "", (8,)),
    ],
)
def test_the_classifier_and_the_map_that_it_pools_are_found(model, path, features, shape):
    task = a_task(SmallNet)
    model.train()
    found = find_head(model, task, "x")
    assert (found.path, found.features, found.shape, found.logits) == (path, features, shape, (4,))
    assert model.training and not any(m._forward_hooks for m in model.modules())


class Late(nn.Module):
    """Its ReLU is no module: the map is seen where it goes into the pooling."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.pool(torch.relu(self.conv(x))).flatten(1))


def test_a_map_that_no_module_gives_is_found_where_it_goes_in(tmp_path):
    found = find_head(Late(), a_task(SmallNet), "x")
    assert (found.features, found.shape, found.rectified) == ("in:pool", (6, 6, 6), True)
    outcome = ran(a_task(Late, Late), tmp_path, student="small", options={})
    assert outcome.claims["reused"]["student_features"] == "in:pool" and outcome.claims["parameters_at_inference"]["head"] == 6 * 4 + 4


def test_the_classifier_is_the_teachers_and_labels_are_never_read(tmp_path):
    task = small_task()
    outcome, images = ran(task, tmp_path / "a"), task.split("train").tensors[0]
    other = replace(task, splits={**task.splits, "train": TensorDataset(images, torch.zeros(len(images), dtype=torch.long))})
    blind = ran(other, tmp_path / "b")
    weights, teacher = outcome.candidate.torch_form.weights, teacher_candidate(task).torch_form.weights
    assert torch.equal(weights["head.weight"], teacher["head.weight"]) and torch.equal(weights["head.bias"], teacher["head.bias"])
    assert all(torch.equal(weights[k], blind.candidate.torch_form.weights[k]) for k in weights)


def test_it_learns_and_the_features_come_near(tmp_path):
    task = small_task()
    outcome = ran(task, tmp_path, training=Training(epochs=12, batch_size=16, learning_rate=5e-3))
    history = outcome.claims["history"]
    assert history[-1]["simkd"] < 0.5 * history[0]["simkd"] and history[-1]["validation"] > 0.9


@pytest.mark.parametrize("depthwise", [False, True])
def test_projector_and_head_are_counted(depthwise, tmp_path):
    task = small_task()
    outcome = ran(task, tmp_path, factor=4, depthwise=depthwise, training=Training(epochs=0))
    model = rebuild(outcome.candidate.torch_form, task)
    own, width, inner = 16, 32, 8  # a convnet of width 8 ends at 16 channels, SmallNet at 32
    by_hand = own * inner + (inner if depthwise else inner * inner) * 9 + inner * width + 2 * (inner + inner + width)
    assert outcome.claims["parameters_at_inference"] == {"projector": by_hand, "head": 32 * 4 + 4}
    assert outcome.claims["parameters"] == profile(model, *[(batch_of(task, "train", [0])[0],)]).parameters
    assert outcome.claims["reused"] == {"teacher_head": "head", "teacher_features": "features", "student_features": "stages"}


def test_a_finer_map_is_averaged_down_inside_and_a_coarser_one_by_the_loss_alone(tmp_path):
    task = a_task(lambda: resnet(channels=1, classes=4, widths=(4, 8), blocks=(1, 1)), SmallNet)
    finer = ran(task, tmp_path / "a", student="small", options={})
    assert finer.candidate.torch_form.blueprint.edits[0]["pool"] == [2, 2]
    task = a_task(SmallNet)
    coarser = ran(task, tmp_path / "b")
    assert coarser.candidate.torch_form.blueprint.edits[0]["pool"] == [1, 1]
    assert whole_steps((8, 8), (3, 3)) == (1, 1) and whole_steps((8, 6), (4, 2)) == (2, 3) and whole_steps((2, 8), (4, 4)) == (1, 1)


@pytest.mark.parametrize(
    "teacher",
    [lambda: mlp(features=64, classes=4, widths=(12,)), lambda: vit(channels=1, classes=4, image=(8, 8), patch=2, width=12, depth=1, heads=2)],
    ids=["mlp", "vit"],
)
def test_vectors_are_projected_by_a_linear_layer(teacher, tmp_path):
    outcome = ran(a_task(teacher), tmp_path)
    assert outcome.claims["parameters_at_inference"] == {"projector": 16 * 12 + 12, "head": 12 * 4 + 4}
    assert outcome.claims["reused"]["student_features"] == "in:head"


def test_tokens_of_text_are_read_through_their_mean(tmp_path):
    samples = [{"input_ids": torch.tensor([1 + i % 5, 2, 3, 0]), "attention_mask": torch.tensor([1, 1, 1, 0]), "labels": i % 2} for i in range(24)]
    teacher = lambda: encoder(vocabulary=9, classes=2, width=16, layers=1, heads=2, length=4)  # noqa: E731
    task = Task(models={"teacher": teacher}, splits=dict.fromkeys(("train", "validation", "test"), samples), metric=accuracy())
    options = {"vocabulary": 9, "width": 8, "layers": 1, "heads": 2}
    outcome = ran(task, tmp_path, student="limbeck:encoder", options=options)
    assert outcome.claims["parameters_at_inference"] == {"projector": 8 * 16 + 16, "head": 16 * 2 + 2}


def test_a_negative_feature_keeps_the_projector_from_ending_in_a_relu(tmp_path):
    class Signed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.conv(x).mean((2, 3)))

    layers = lambda task, folder: rebuild(ran(task, folder).candidate.torch_form, task).stages.projector  # noqa: E731
    assert isinstance(layers(a_task(Signed), tmp_path / "a")[-1], nn.BatchNorm2d)
    assert isinstance(layers(a_task(SmallNet), tmp_path / "b")[-1], nn.ReLU)


def test_a_fresh_process_rebuilds_the_same_bits_without_the_teacher(tmp_path):
    task = small_task()
    form = ran(task, tmp_path).candidate.torch_form
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = rebuild(form, task)(images)
    save_file({**{f"w.{k}": v for k, v in form.weights.items()}, "images": images, "expected": expected}, tmp_path / "all.safetensors")
    (tmp_path / "blueprint.json").write_text(form.blueprint.to_json())
    script = """
import sys, torch
from safetensors.torch import load_file
from limbeck import Task
from limbeck.core.candidate import Blueprint, TorchForm
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.build import rebuild
torch.set_num_threads(1)
held = load_file(sys.argv[1] + "/all.safetensors")
form = TorchForm(Blueprint.from_json(open(sys.argv[1] + "/blueprint.json").read()), {k[2:]: v for k, v in held.items() if k.startswith("w.")})
with torch.no_grad():
    got = rebuild(form, Task(metric=accuracy(), splits={}))(held["images"])
sys.exit(0 if torch.equal(got, held["expected"]) else 1)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_is_resumed_bit_for_bit(tmp_path):
    task, config = small_task(), SimKD(student="limbeck:convnet", options={"width": 8}, training=Training(epochs=2, batch_size=16, checkpoint_steps=2))
    whole = simkd(teacher_candidate(task), config, context(task, tmp_path / "a"))
    at = context(task, tmp_path / "b")
    asked = iter([False] * 5 + [True] + [False] * 99)
    stopping = replace(at, checkpoint=replace(at.checkpoint, stop=lambda: next(asked)))
    with pytest.raises(limbeck.LimbeckError, match="a checkpoint is on disk"):
        simkd(teacher_candidate(task), config, stopping)
    again = simkd(teacher_candidate(task), config, at)
    first, second = (o.candidate.torch_form.weights for o in (whole, again))
    assert all(torch.equal(first[k], second[k]) for k in first) and whole.claims["history"] == again.claims["history"]


def test_it_is_pruned_and_quantized_afterwards_and_runs(tmp_path):
    task = small_task()
    first = ran(task, tmp_path / "a").candidate
    thin = prune(first, Prune(ratio=0.25, round_to=2), context(task, tmp_path)).candidate
    small = quantize(thin, Quantize(samples=48), context(task, tmp_path)).candidate
    counts = [sum(p.numel() for p in rebuild(c.torch_form, task).parameters()) for c in (first, thin)]
    assert counts[1] < 0.8 * counts[0] and [e["edit"] for e in small.torch_form.blueprint.edits][:2] == ["reuse_head", "reshape"]
    check_runtime(ONNXRUNTIME, tmp_path, task=task, candidate=small)


# --- what is refused ------------------------------------------------------------------------------------------------------


class NoHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(1, 4, 8)

    def forward(self, x):
        return self.last(x).flatten(1)


class Scaled(nn.Module):
    """Its logits leave the model changed."""

    def __init__(self):
        super().__init__()
        self.inner = SmallNet()

    def forward(self, x):
        return 2 * self.inner(x)


class Busy(nn.Module):
    """Its features are used twice."""

    def __init__(self):
        super().__init__()
        self.features, self.gate, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        pooled = self.features(x).mean((2, 3))
        return self.head(pooled + 0 * self.gate(pooled))


@pytest.mark.parametrize(
    ("teacher", "student", "options", "message"),
    [
        (SmallNet, lambda: mlp(features=64, classes=7), {}, r"gives \[4\] a sample; the student's gives \[7\]. Give the student 4 classes"),
        (NoHead, SmallNet, {}, "simkd.teacher_head isn't found by itself"),
        (SmallNet, NoHead, {}, "simkd.student_head isn't found by itself"),
        (Scaled, SmallNet, {}, "Name the last one. There is 'inner.head'"),
        (SmallNet, SmallNet, {"teacher_head": "haed"}, "simkd.teacher_head must be a linear layer that runs, got 'haed'. Did you mean 'head'"),
        (SmallNet, SmallNet, {"student_head": "features.0"}, "must be a linear layer that runs, got 'features.0'"),
        (SmallNet, Busy, {}, "doesn't run with the teacher's classifier.*does more with its features than pool them"),
    ],
    ids=["classes", "teacher", "student", "changed", "near", "conv", "busy"],
)
def test_what_cannot_be_done_is_refused_with_a_way_out(teacher, student, options, message, tmp_path):
    with pytest.raises(StageError, match=message):
        ran(a_task(teacher, student), tmp_path, student="small", options={}, **options)


def test_a_head_that_is_named_is_taken(tmp_path):
    outcome = ran(a_task(Scaled, SmallNet), tmp_path, student="small", options={}, teacher_head="inner.head")
    assert outcome.claims["reused"]["teacher_head"] == "inner.head" and outcome.claims["reused"]["teacher_features"] == "inner.features"


def test_an_ensemble_has_no_one_classifier(tmp_path):
    task = replace(small_task(), models={"teacher": [SmallNet, SmallNet]}, weights={})
    with pytest.raises(StageError, match="the teacher is an ensemble of 2. Name one of them"):
        ran(task, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, r"reuse_head.width must be a whole number ≥ 1, got 0"),
        ({"classes": "x"}, "reuse_head.classes must be"),
        ({"pool": [1, 0]}, r"reuse_head.pool\[1\] must be"),
        ({"width": 1 << 40}, "asks for .* numbers"),
        ({"features": "festures"}, "Did you mean 'features'"),
        ({"head": "nowhere"}, "there is no module 'nowhere'"),
        ({"pool": []}, "malformed"),
    ],
)
def test_a_damaged_edit_is_refused(change, message, tmp_path):
    edit = ran(a_task(SmallNet, SmallNet), tmp_path, student="small", options={}, training=Training(epochs=0)).candidate.torch_form.blueprint.edits[0]
    with pytest.raises(ReplayError, match=message):
        replay(SmallNet(), [json.loads(json.dumps({**edit, **change}))])


def test_outputs_are_those_of_the_parts(tmp_path):
    """By hand: the student's map through the projector, its mean, the teacher's linear layer."""
    task = small_task()
    form = ran(task, tmp_path).candidate.torch_form
    model, teacher = rebuild(form, task), rebuild(teacher_candidate(task).torch_form, task)
    batch = batch_of(task, "test", range(6))
    with torch.no_grad():
        by_hand = teacher.head(model.stages.projector(model.stages.body(batch[0])).mean((2, 3)))
        torch.testing.assert_close(predict(task, model, batch)["logits"], by_hand, rtol=1e-5, atol=1e-6)
