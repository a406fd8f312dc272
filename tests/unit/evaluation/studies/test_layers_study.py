"""Which layers moved: a damaged one is named, a narrower one isn't blamed, and a file says that it has none."""

import copy
import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck.core.candidate import Artifact
from limbeck.core.contract import Target
from limbeck.core.errors import Interrupted
from limbeck.evaluation.studies import MISSING, Setting, Side, taken
from limbeck.evaluation.studies.layers import LAYERS, MOST
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.families.encoder import encoder
from limbeck.testing import small_task, small_text_task

NONE = Artifact(Path("none"), "onnxruntime")


def setting(task, baseline: nn.Module, candidate: nn.Module, **options) -> Setting:
    sides = [Side(artifact=NONE, module=functools.partial(copy.deepcopy, m)) for m in (baseline, candidate)]
    return Setting(baseline=sides[0], candidate=sides[1], task=task, split="test", target=Target(), feed={}, **options)


def layers(one: Setting) -> dict:
    return taken(one, (LAYERS,))["layers"]


@pytest.fixture(scope="module")
def images():
    task = small_task()
    return task, rebuild(teacher_candidate(task).torch_form, task)


def test_the_layer_that_was_damaged_moved_most(images):
    task, teacher = images
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        other.features[3].weight.copy_(torch.randn(other.features[3].weight.shape, generator=torch.Generator().manual_seed(0)))
    told = layers(setting(task, teacher, other))
    by_path = {layer["path"]: layer for layer in told["layers"]}
    assert list(by_path) == ["features.0", "features.3", "features.6", "head"] and all(layer["by"] == "name" for layer in told["layers"])
    assert by_path["features.0"]["cka"] == 1 and by_path["features.3"]["cka"] < 0.95 and told["moved_most"] != "features.0"
    assert told["mean"] == pytest.approx(sum(layer["cka"] for layer in told["layers"]) / 4) and told["samples"] == 96


def test_the_same_model_holds_the_same_and_its_matrix_is_symmetric(images):
    task, teacher = images
    told = layers(setting(task, teacher, teacher))
    matrix = told["matrix"]["cka"]
    assert all(layer["cka"] == 1 == layer["most_like"]["cka"] for layer in told["layers"])
    assert told["moved_most"] is None and told["mean"] == 1, "what didn't move isn't named as what moved most"
    assert all(matrix[i][j] == pytest.approx(matrix[j][i], abs=1e-4) for i in range(4) for j in range(4)) and matrix[0][3] < 0.9


def test_channels_that_are_turned_and_scaled_are_no_change(images):
    task, teacher = images
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        other.features[6].weight.copy_(-3 * other.features[6].weight.flip(0))
    assert layers(setting(task, teacher, other))["layers"][2]["cka"] == 1


def test_models_of_other_depth_are_matched_by_place_and_thinned():
    task = small_text_task()
    make = functools.partial(encoder, vocabulary=60, classes=3, width=16, heads=2, length=8)
    told = layers(setting(task, make(layers=4).eval(), make(layers=2).eval()))
    assert len(told["layers"]) <= MOST and {layer["by"] for layer in told["layers"]} <= {"place", None}
    assert [layer["depth"] for layer in told["layers"]] == sorted(layer["depth"] for layer in told["layers"])
    assert next(layer for layer in told["layers"] if layer["path"] == "head")["baseline"] == "head"
    deep = layers(setting(task, make(layers=6).eval(), make(layers=6).eval()))
    assert len(deep["layers"]) <= MOST and all(layer["by"] == "name" for layer in deep["layers"])


def test_no_hook_stays_and_modes_are_not_the_modules_own_business(images):
    task, teacher = images
    kept = copy.deepcopy(teacher)
    side = Side(artifact=NONE, module=lambda: kept)
    layers(Setting(baseline=side, candidate=side, task=task, split="test", target=Target(), feed={}))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in kept.modules())


def test_when_it_can_not_be_made_it_says_why(images):
    task, teacher = images
    one = setting(task, teacher, teacher)
    assert "of the candidate there is only a file" in layers(replace(one, candidate=Side(artifact=NONE)))[MISSING]
    assert "of the baseline and the candidate" in layers(replace(one, baseline=Side(artifact=NONE), candidate=Side(artifact=NONE)))[MISSING]
    assert "--task" in layers(replace(one, task=None))[MISSING] and "baseline" in layers(replace(one, baseline=None))[MISSING]
    assert "10 samples say nothing" in layers(replace(one, samples=10))[MISSING]
    with pytest.raises(Interrupted):
        layers(replace(one, stop=lambda: True))


def test_models_without_layers_with_weights_say_so(images):
    task, _ = images
    bare = nn.Sequential(nn.Flatten(), nn.ReLU())
    assert "no layer with weights" in layers(setting(task, bare, bare))[MISSING]
