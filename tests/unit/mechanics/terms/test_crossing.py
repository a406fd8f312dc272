"""Between a convolutional network and a vision transformer: which terms meet a map with tokens, and whether that teaches."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from limbeck import LiveTeacher
from limbeck.core.errors import LimbeckError
from limbeck.core.plan import Training
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.families.convnet import convnet
from limbeck.mechanics.families.vit import vit
from limbeck.mechanics.terms import cka, dist, fsp, hint, kd, rkd, similarity_preserving, task_loss
from limbeck.mechanics.terms.features import as_map
from limbeck.mechanics.terms.fsp import Flow
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, small_task

BENCHMARK = Path(__file__).parents[4] / "benchmarks" / "cross_architecture.py"


def a_vit(**change) -> nn.Module:
    torch.manual_seed(0)
    return vit(**{"channels": 1, "classes": 4, "image": [8, 8], "patch": 2, "width": 16, "depth": 2, "heads": 2} | change)


def on(student: str, teacher: str):
    return {
        "hint": hint(student=student, teacher=teacher),
        "similarity_preserving": similarity_preserving(student=student, teacher=teacher),
        "rkd": rkd(student=student, teacher=teacher),
        "cka": cka(student=student, teacher=teacher),
        "kd": kd(),
        "dist": dist(),
    }


@pytest.mark.parametrize("name", on("a", "b"))
@pytest.mark.parametrize("distilled", [False, True])
def test_a_term_pulls_a_transformer_towards_a_convolutional_teacher_and_back(name, distilled):
    task = small_task()
    teacher, tokens = rebuild(teacher_candidate(task).torch_form, task), a_vit(distilled=distilled)
    for student, own, other, theirs in ((tokens, "layers.1", teacher, "features"), (SmallNet(8), "features", a_vit(distilled=distilled), "layers.1")):
        bound = (1.0 * on(own, theirs)[name]).bind(task, LiveTeacher(task, other), student)
        images, labels = (t[:16] for t in task.split("train").tensors)
        optimizer = torch.optim.SGD([*student.parameters(), *bound.parameters()], lr=0.005)
        values = []
        for _ in range(8):
            loss, _ = bound(student.train(), (images, labels), np.arange(16))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 5.0)
            optimizer.step()
            values.append(loss.item())
        assert values[-1] < values[0] and not any(p.grad is not None for p in other.parameters()), (name, own, values)


def test_a_grid_of_tokens_lies_as_the_map_does():
    """Patch for patch: what a token at row i and column j holds meets the map's place there."""
    model, image = a_vit(distilled=True).eval(), torch.randn(2, 1, 8, 8)
    patches = model.patches(image)
    tokens = torch.cat([torch.zeros(2, 2, 16), patches.flatten(2).transpose(1, 2)], 1)
    assert torch.equal(as_map(tokens, "x", "y"), patches) and torch.equal(as_map(tokens[:, 1:], "x", "y"), patches)


def test_what_asks_for_more_than_features_is_refused_with_a_way_out():
    task, tokens = small_task(), a_vit()
    flow = Flow(student_from="layers.0", student_to="layers.1", teacher_from="features.2", teacher_to="features.5")
    bound = (1.0 * fsp(flows=(flow,))).bind(task, LiveTeacher(task, SmallNet()), tokens)
    with pytest.raises(LimbeckError, match="as many channels on both sides.*use hint or similarity_preserving"):
        bound(tokens, tuple(t[:8] for t in task.split("train").tensors), np.arange(8))
    with pytest.raises(LimbeckError, match="no layer of the teacher answers.*Name the teacher's layer"):
        (1.0 * hint(student="layers.1")).bind(task, LiveTeacher(task, SmallNet()), tokens)


def test_cka_finds_a_map_for_tokens_and_the_term_takes_it(tmp_path):
    task, student = small_task(), a_vit()
    teacher = rebuild(teacher_candidate(task).torch_form, task)
    bound = (1.0 * task_loss() + 1.0 * hint(student="layers.1", teacher="auto:cka")).bind(task, LiveTeacher(task, teacher), student)
    assert len(bound.matches[0].student.shape) == 3 and bound.matches[0].cka is not None
    history = fit(student, bound, Training(epochs=2, batch_size=32), seed=0, checkpoint=FileCheckpoint(tmp_path / "c"), log=QuietLog())
    assert history[-1]["hint"] < history[0]["hint"]


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["CNN → ViT", "ViT → CNN"])
def test_features_of_another_architecture_teach_without_labels(direction, tmp_path):
    """A student that sees nothing but the teacher's features, and a linear layer on them by labels afterwards, beats one with untrained features."""
    task = small_task()
    teacher = rebuild(teacher_candidate(task).torch_form, task)
    if direction == "ViT → CNN":
        teacher = a_vit()
        fit(teacher, (1.0 * task_loss()).bind(task), Training(epochs=40, batch_size=16), seed=0, checkpoint=FileCheckpoint(tmp_path / "t"), log=QuietLog())
    make = (lambda: a_vit()) if direction == "CNN → ViT" else (lambda: convnet(channels=1, classes=4, width=8, depth=2, size=8))
    ends = ("in:head", "in:head")
    right = {}
    for taught in (False, True):
        torch.manual_seed(1)
        student = make()
        if taught:
            bound = (
                100 * hint(student=ends[0], teacher=ends[1])
                + 1.0 * cka(student="layers.1" if direction == "CNN → ViT" else "stages", teacher="features" if direction == "CNN → ViT" else "layers.1")
            ).bind(task, LiveTeacher(task, teacher), student)
            fit(student, bound, Training(epochs=40, batch_size=16), seed=0, checkpoint=FileCheckpoint(tmp_path / "s"), log=QuietLog())
        right[taught] = probed(student.eval(), task)
    assert right[True] > right[False] + 0.1, right


def probed(model: nn.Module, task) -> float:
    """Accuracy on test of ridge regression on what goes into the head."""
    seen = []
    handle = model.head.register_forward_hook(lambda module, args, output: seen.append(args[0].detach()))
    with torch.no_grad():
        for split in ("train", "test"):
            model(task.split(split).tensors[0])
    handle.remove()
    (x, test), y = (torch.cat([s, torch.ones(len(s), 1)], 1).double() for s in seen), torch.eye(4).double()[task.split("train").tensors[1]]
    weights = torch.linalg.solve(x.T @ x + 1e-2 * torch.eye(x.shape[1]), x.T @ y)
    return float(((test @ weights).argmax(1) == task.split("test").tensors[1]).double().mean())


@pytest.mark.slow
def test_the_record_tells_which_terms_meet():
    """The table in the documentation; `python benchmarks/cross_architecture.py terms` writes it anew."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed; it comes with limbeck[demo]")
    spec = importlib.util.spec_from_file_location("cross_architecture", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules["cross_architecture"] = benchmark
    spec.loader.exec_module(benchmark)
    held = json.loads(benchmark.RECORD.read_text())["terms"]
    found = benchmark.terms(benchmark.digits())
    outcome = lambda told: {name: {way: row[way] == "" for way in benchmark.DIRECTIONS} for name, row in told.items() if row["reads"] == "features"}  # noqa: E731
    assert outcome(found) == outcome(held), "run `python benchmarks/cross_architecture.py terms`"
    for row in (row for row in found.values() if row["reads"] == "features"):
        assert all(row[way] == "" or len(row[way]) > 40 for way in benchmark.DIRECTIONS), row
