"""Mathematics of channel pruning: how many go, which, and that names of channels don't matter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from limbeck.core.candidate import Blueprint, Candidate, TorchForm
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of, predict
from limbeck.mechanics.importance import CRITERIA, batchnorm, l1, l2, summed
from limbeck.techniques.prune.channels import Prune, prune

LAYERS = {
    "linear": lambda: nn.Linear(6, 8),
    "conv": lambda: nn.Conv2d(4, 8, 3),
    "grouped": lambda: nn.Conv2d(4, 8, 3, groups=2),
    "depthwise": lambda: nn.Conv1d(8, 8, 3, groups=8),
    "transposed": lambda: nn.ConvTranspose2d(4, 8, 3),
    "grouped transposed": lambda: nn.ConvTranspose1d(4, 8, 3, groups=2),
}
silent = SimpleNamespace(event=lambda *a, **k: None, progress=lambda *a: None)


def task_of(*widths: int) -> Task:
    """Linear layers with BatchNorm and ReLU between them, from 5 inputs to 3 outputs."""

    def factory() -> nn.Module:
        layers: list[nn.Module] = []
        for inputs, outputs in zip((5, *widths), widths, strict=False):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], 3))

    draw = torch.Generator().manual_seed(0)
    data = [(torch.randn(5, generator=draw), torch.tensor(i % 3)) for i in range(4)]
    metric = Metric(name="none", rows=lambda outputs, batch: {}, reduce=lambda rows: 0.0)
    return Task(metric=metric, splits={"train": data}, models={"teacher": factory})


def context_of(task: Task) -> Any:
    return SimpleNamespace(task=task, round_to=1, rng=SimpleNamespace(torch=torch.Generator().manual_seed(0)), log=silent)


def candidate_of(task: Task, seed: int) -> Candidate:
    torch.manual_seed(seed)
    return teacher_candidate(task)


widths = st.lists(st.integers(2, 40), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(widths, st.integers(1, 9), st.floats(0.05, 0.95), st.integers(0, 5))
def test_what_is_kept_is_the_least_multiple_that_the_ratio_allows(sizes, multiple, ratio, seed):
    removable = any(-(-(w - int(ratio * w + 1e-9)) // multiple) * multiple < w for w in sizes)
    if not removable:
        return
    task = task_of(*sizes)
    kept = prune(candidate_of(task, seed), Prune(ratio=ratio, round_to=multiple), context_of(task)).claims["kept"]
    for (left, of), width in zip(kept.values(), sizes, strict=True):
        assert of == width
        if left < width:
            assert left % multiple == 0 and left >= multiple
            assert width - left <= ratio * width + 1e-6 < width - left + multiple + 1
        else:
            assert width < multiple or ratio * width < multiple + 1


@settings(max_examples=25, deadline=None)
@given(widths, st.floats(0.1, 0.9), st.integers(0, 5))
def test_global_scope_removes_as_many_in_all_and_empties_no_layer(sizes, ratio, seed):
    task, total = task_of(*sizes), sum(sizes)
    if int(ratio * total + 1e-9) < len(sizes):
        return
    kept = prune(candidate_of(task, seed), Prune(ratio=ratio, scope="global"), context_of(task)).claims["kept"]
    assert all(left >= 1 for left, _ in kept.values())
    spared = sum(left == 1 for left, _ in kept.values())  # a layer that would have been emptied keeps one
    removed = sum(of - left for left, of in kept.values())
    assert int(ratio * total + 1e-9) - spared <= removed <= int(ratio * total + 1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 24), st.floats(0.3, 0.8), st.integers(0, 50), st.sampled_from(["l1", "l2", "batchnorm"]))
def test_names_of_channels_do_not_matter(width, ratio, seed, criterion):
    task, config = task_of(width), Prune(ratio=ratio, criterion=criterion)
    candidate = candidate_of(task, seed)
    weights = dict(candidate.torch_form.weights)
    weights["1.weight"] = torch.rand(width, generator=torch.Generator().manual_seed(seed)) + 0.5
    order = torch.from_numpy(np.random.default_rng(seed).permutation(width))
    shuffled = {k: v[order] if v.dim() and k.split(".")[0] in "01" else v for k, v in weights.items()} | {"3.weight": weights["3.weight"][:, order]}
    outputs = []
    for state in (weights, shuffled):
        form = prune(Candidate(TorchForm(Blueprint("task:teacher"), state)), config, context_of(task)).candidate.torch_form
        with torch.no_grad():
            outputs.append(predict(task, rebuild(form, task), batch_of(task, "train", range(4)))["logits"])
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 24), st.integers(0, 50), st.data())
def test_dead_channels_go_first_and_nothing_changes(width, seed, data):
    dead = data.draw(st.lists(st.integers(0, width - 1), unique=True, min_size=1, max_size=width - 1))
    task = task_of(width)
    candidate = candidate_of(task, seed)
    weights = {k: v.clone() for k, v in candidate.torch_form.weights.items()}
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        weights[name][dead] = 0
    before = TorchForm(Blueprint("task:teacher"), weights)
    after = prune(Candidate(before), Prune(ratio=len(dead) / width), context_of(task)).candidate.torch_form
    alive = torch.tensor([i for i in range(width) if i not in dead])
    assert torch.equal(after.weights["0.weight"], weights["0.weight"][alive])
    with torch.no_grad():
        outputs = [predict(task, rebuild(form, task), batch_of(task, "train", range(4)))["logits"] for form in (before, after)]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)


def test_ties_are_settled_by_index():
    task = task_of(6)
    weights = {k: torch.ones_like(v) for k, v in candidate_of(task, 0).torch_form.weights.items()}
    weights["0.bias"] = torch.arange(6.0)
    after = prune(Candidate(TorchForm(Blueprint("task:teacher"), weights)), Prune(ratio=0.5), context_of(task)).candidate.torch_form
    assert after.weights["0.bias"].tolist() == [3, 4, 5]


@pytest.mark.parametrize("kind", LAYERS)
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.floats(0.1, 10))
def test_norms_are_of_the_weights_that_make_each_output(kind, seed, scale):
    torch.manual_seed(seed)
    layer = LAYERS[kind]().double()
    with torch.no_grad():
        layer.bias.zero_()
    one, two = l1(layer), l2(layer)
    assert one.shape == two.shape == (8,)
    fan_in = layer.weight.numel() / 8
    assert (two <= one + 1e-12).all() and (one <= two * fan_in**0.5 + 1e-9).all()
    channel = int(one.argmin())
    with torch.no_grad():  # the norm of one channel is 0 exactly if nothing ever comes out of it
        weight = layer.weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1) if "transposed" in kind else layer.weight
        filters = weight.clone()
        filters[channel] = 0
        layer.weight.copy_(filters.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1) if "transposed" in kind else filters)
        shape = (2, 6) if kind == "linear" else (2, layer.in_channels, *[5] * (layer.weight.dim() - 2))
        outputs = layer(torch.randn(shape, dtype=torch.float64))
        assert outputs[:, channel].abs().max() == 0 and l1(layer)[channel] == l2(layer)[channel] == 0
        layer.weight.mul_(scale)
    others = torch.arange(8) != channel
    torch.testing.assert_close(l1(layer)[others], one[others] * scale)
    torch.testing.assert_close(l2(layer)[others], two[others] * scale)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 8), st.integers(1, 5), st.integers(0, 50))
def test_a_group_sums_over_the_layers_that_make_its_channels(width, offset, seed):
    torch.manual_seed(seed)
    alone, wide = nn.Linear(3, width), nn.Conv2d(2, width + offset, 1)  # the group is the last channels of the wide one, in reverse
    channels, owners = np.arange(offset, offset + width), np.arange(width)[::-1].copy()
    got = summed(l1, [(alone, np.arange(width), np.arange(width)), (wide, channels, owners), (nn.BatchNorm1d(width), owners, owners)], width)
    expected = [(alone.weight[i].abs().sum() + wide.weight[offset + width - 1 - i].abs().sum()).item() for i in range(width)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert summed(batchnorm, [(alone, owners, owners)], width) is None


def test_criteria_say_nothing_of_modules_that_are_not_theirs():
    assert batchnorm(nn.Linear(2, 2)) is None and batchnorm(nn.BatchNorm1d(2, affine=False)) is None
    assert all(criterion(nn.LayerNorm(4)) is None for criterion in CRITERIA.values())
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([-2.0, 0.0, 1.0]))
    assert batchnorm(norm).tolist() == [2.0, 0.0, 1.0] and l1(norm) is None
