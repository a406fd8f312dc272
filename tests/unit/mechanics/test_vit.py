"""limbeck:vit: its sizes, what its tokens see, the distillation token, and how it is deployed, pruned and quantized."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import limbeck
from limbeck import LiveTeacher, Task
from limbeck.core.candidate import Blueprint, Candidate, TorchForm
from limbeck.core.errors import ConfigError
from limbeck.core.plan import Training
from limbeck.mechanics.build import build, captured, rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.families.fit import fitted
from limbeck.mechanics.families.vit import vit
from limbeck.mechanics.terms import ALL
from limbeck.mechanics.terms.entry import Entry, objective_of
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.runtimes.onnxruntime import ONNXRUNTIME
from limbeck.techniques.distill.offline import Distill, distill
from limbeck.techniques.prune.channels import Prune, prune
from limbeck.techniques.quantize.static_int8 import Quantize, quantize
from limbeck.testing import check_runtime, context, small_task

SMALL = {"channels": 1, "classes": 4, "image": [8, 8], "patch": 2, "width": 16, "depth": 2, "heads": 2}
DISTILLED = [{"name": "task_loss", "weight": 0.5, "output": "logits"}, {"name": "hard_label", "weight": 0.5, "output": "distilled"}]


def candidate(task: Task, **change) -> Candidate:
    blueprint = Blueprint("limbeck:vit", SMALL | change)
    torch.manual_seed(0)
    return Candidate(TorchForm(blueprint, captured(build(blueprint, task))))


def test_parameters_are_those_of_the_formula():
    model = vit(channels=3, classes=10, image=[32, 32], patch=4, width=64, depth=4, heads=4)
    layer = 2 * 2 * 64 + 4 * (64 * 64 + 64) + (64 * 256 + 256) + (256 * 64 + 64)
    by_hand = (3 * 16 * 64 + 64) + 64 + 65 * 64 + 4 * layer + 2 * 64 + (64 * 10 + 10)
    assert sum(p.numel() for p in model.parameters()) == by_hand
    second = vit(channels=3, classes=10, image=[32, 32], patch=4, width=64, depth=4, heads=4, distilled=True)
    assert sum(p.numel() for p in second.parameters()) == by_hand + 2 * 64 + (64 * 10 + 10)


def test_patches_follow_the_image_and_their_order_matters():
    torch.manual_seed(0)
    model, image = vit(**SMALL).eval(), torch.randn(3, 1, 8, 8)
    tokens = model.patches(image).flatten(2).transpose(1, 2)
    by_hand = image[:, :, 2:4, 4:6].flatten(1) @ model.patches.weight.flatten(1).T + model.patches.bias
    torch.testing.assert_close(tokens[:, 4 * 1 + 2], by_hand)
    assert not torch.allclose(model(image), model(image.flip(3)), atol=1e-4), "positions are learned"


@pytest.mark.parametrize(("sides", "patch"), [((8, 8), 2), ((28, 28), 4), ((32, 32), 4), ((32, 16), 4), ((224, 224), 28), ((7, 7), 7), ((6, 9), 3), ((5, 7), 1)])
def test_the_data_give_channels_image_and_a_patch(sides, patch):
    found = fitted("vit", {"width": 16}, {"x": torch.zeros(2, 3, *sides)}, {"logits": torch.zeros(2, 5)})
    assert found == {"channels": 3, "classes": 5, "image": list(sides), "patch": patch, "width": 16}
    assert vit(**found)(torch.zeros(2, 3, *sides)).shape == (2, 5)
    assert fitted("vit", {"patch": 1}, {"x": torch.zeros(2, 3, *sides)}, {"logits": torch.zeros(2, 5)})["patch"] == 1, "what is given stands"


def test_in_train_mode_each_head_answers_and_in_eval_mode_their_mean():
    torch.manual_seed(0)
    model, image = vit(**SMALL, distilled=True), torch.randn(3, 1, 8, 8)
    both, one = model.train()(image), model.eval()(image)
    assert both.keys() == {"logits", "distilled"} and one.keys() == {"logits"}
    torch.testing.assert_close(one["logits"], (both["logits"] + both["distilled"]) / 2)
    assert not torch.allclose(both["logits"], both["distilled"], atol=1e-3)


def test_each_head_learns_from_its_own_target_alone():
    task = small_task()
    teacher = rebuild(teacher_candidate(task).torch_form, task)
    model = build(Blueprint("limbeck:vit", SMALL | {"distilled": True}), task)
    ids = np.arange(8)
    for kept, silent in (("logits", "distillation_head"), ("distilled", "head")):
        entries = [Entry(**entry) for entry in DISTILLED if entry["output"] == kept]
        bound = objective_of(entries, ALL).bind(task, LiveTeacher(task, teacher), model)
        model.zero_grad()
        bound(model.train(), batch_of(task, "train", ids), ids)[0].backward()
        assert getattr(model, silent).weight.grad is None, f"{kept} moves {silent}"
    batch = batch_of(task, "train", ids)
    with torch.no_grad():
        own, theirs = model.train()(batch[0]), teacher(batch[0])
    bound = objective_of([Entry(**e) for e in DISTILLED], ALL).bind(task, LiveTeacher(task, teacher), model)
    by_hand = 0.5 * F.cross_entropy(own["logits"], batch[1]) + 0.5 * F.cross_entropy(own["distilled"], theirs.argmax(1))
    torch.testing.assert_close(bound(model, batch, ids)[0].detach(), by_hand)


def test_it_learns_and_resumes_with_the_same_bits(tmp_path):
    task = small_task()
    signals, training = LiveTeacher(task, rebuild(teacher_candidate(task).torch_form, task)), Training(epochs=2, batch_size=32, checkpoint_steps=2)

    def trained(name: str, stops: tuple[bool, ...] = ()):
        asked = iter([*stops, *[False] * 99])
        torch.manual_seed(0)
        model = build(Blueprint("limbeck:vit", SMALL | {"distilled": True}), task)
        bound = objective_of([Entry(**e) for e in DISTILLED], ALL).bind(task, signals, model)
        return fit(model, bound, training, seed=5, checkpoint=FileCheckpoint(tmp_path / name, lambda: next(asked)), log=QuietLog()), captured(model)

    history, weights = trained("whole")
    with pytest.raises(limbeck.LimbeckError, match="a checkpoint is on disk"):
        trained("stopped", (False, False, False, True))
    again, same = trained("stopped")
    assert again == history and all(torch.equal(weights[k], same[k]) for k in weights)
    assert history[-1]["loss"] < history[0]["loss"]


def test_it_is_deployed_with_one_output_and_a_free_batch(tmp_path):
    check_runtime(ONNXRUNTIME, tmp_path, task=small_task(), candidate=candidate(small_task(), distilled=True))


def test_a_student_of_this_family_learns_by_both_heads(tmp_path):
    config = Distill(
        student="limbeck:vit",
        options={"width": 16, "depth": 1, "heads": 2, "patch": 4, "distilled": True},
        terms=tuple(Entry(**e) for e in DISTILLED),
        training=Training(epochs=15, batch_size=32, learning_rate=1e-2),
    )
    task = small_task(samples=300)
    claims = distill(teacher_candidate(task), config, context(task, tmp_path)).claims
    assert claims["student"]["kwargs"]["image"] == [8, 8] and claims["history"][0].keys() >= {"task_loss", "hard_label"}
    assert claims["history"][-1]["validation"] > 0.45, claims["history"][-1]


def test_pruning_narrows_the_inner_layers_alone(tmp_path):
    """What stands under a LayerNorm or is split into heads keeps its width."""
    task = small_task()
    form = prune(candidate(task), Prune(ratio=0.5, round_to=2), context(task, tmp_path)).candidate.torch_form
    assert {e["module"] for e in form.blueprint.edits} == {f"layers.{i}.{name}" for i in range(2) for name in ("up", "down")}
    assert form.weights["layers.0.up.weight"].shape == (32, 16) and rebuild(form, task)(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


@pytest.mark.slow
def test_it_is_quantized(tmp_path):
    task = small_task()
    small = quantize(candidate(task, distilled=True), Quantize(samples=48), context(task, tmp_path)).candidate
    check_runtime(ONNXRUNTIME, tmp_path, task=task, candidate=small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 3}, "vit.patch must divide both sides of the images, got 3 for 8 × 8. Take one of 1, 2, 4, 8"),
        ({"heads": 3}, "vit.heads must divide vit.width, got 3 and 16. Take a width of 18"),
        ({"image": [8]}, "vit.image must be height and width"),
        ({"depth": 0}, "vit.depth must be a whole number"),
        ({"distilled": "yes"}, "vit.distilled must be true or false"),
    ],
)
def test_bad_sizes_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        vit(**SMALL | change)


def test_images_of_another_size_are_refused_by_their_data():
    with pytest.raises(ConfigError, match=r"vit.image must be \[8, 16\], as the data have it"):
        fitted("vit", {"image": [8, 8]}, {"x": torch.zeros(2, 1, 8, 16)}, {"logits": torch.zeros(2, 4)})
