"""A student that begins with its teacher's weights: the right layers, the rest by name, and what didn't fit with both shapes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from limbeck.core.errors import ConfigError, StageError
from limbeck.mechanics.edits import replay
from limbeck.mechanics.families.encoder import encoder
from limbeck.mechanics.inherit import inherit_
from limbeck.mechanics.stacks import drop_edit

SIZES = {"vocabulary": 30, "classes": 3, "width": 16, "heads": 2, "length": 8}
IDS = torch.randint(0, 30, (5, 8), generator=torch.Generator().manual_seed(1))


def text(layers: int, *, seed: int, **sizes: int) -> nn.Module:
    torch.manual_seed(seed)
    return encoder(layers=layers, **{**SIZES, **sizes}).eval()


@pytest.mark.parametrize(("layers", "taken"), [("even", (0, 2, 4)), ([1, 3, 5], (1, 3, 5)), ([5, 5, 0], (5, 5, 0))])
def test_every_second_layer_or_the_chosen_ones(layers, taken):
    teacher, student = text(6, seed=0), text(3, seed=1)
    report = inherit_(student, teacher, layers=layers)
    assert report.layers == {"layers": taken}
    assert report.unfit == () and report.share == 1.0 and len(report.taken) == len(student.state_dict())
    for own, source in enumerate(taken):
        for name, value in teacher.layers[source].state_dict().items():
            assert torch.equal(student.layers[own].state_dict()[name], value)


def test_the_student_is_the_teacher_without_the_other_layers():
    teacher, student = text(6, seed=0), text(3, seed=1)
    inherit_(student, teacher)
    with torch.no_grad():
        assert torch.equal(student(IDS), replay(teacher, [drop_edit("layers", [0, 2, 4])])(IDS))


def test_nothing_of_the_teacher_is_shared():
    teacher, student = text(2, seed=0), text(2, seed=1)
    inherit_(student, teacher)
    with torch.no_grad():
        student.head.weight += 1
    assert not torch.equal(student.head.weight, teacher.head.weight)


def test_what_does_not_fit_keeps_its_start_and_is_listed_with_both_shapes():
    teacher, student = text(4, seed=0, vocabulary=50), text(2, seed=1, classes=5)
    student.extra = nn.Linear(3, 2)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    report = inherit_(student, teacher)
    shapes = {u.name: (u.shape, u.source_shape) for u in report.unfit}
    assert shapes["tokens.weight"] == ((31, 16), (51, 16)) and shapes["head.bias"] == ((5,), (3,)) and shapes["extra.weight"] == ((2, 3), None)
    assert set(shapes) == {"tokens.weight", "head.weight", "head.bias", "extra.weight", "extra.bias"}
    assert all(torch.equal(student.state_dict()[name], before[name]) for name in shapes)
    kept = sum(p.numel() for n, p in student.named_parameters() if n not in shapes)
    assert report.share == pytest.approx(kept / sum(p.numel() for p in student.parameters()))
    claims = json.loads(json.dumps(report.claims()))
    assert claims["layers"] == {"layers": [0, 2]} and claims["tensors"] == len(report.taken)
    assert {"name": "head.bias", "shape": [5], "teacher": "head.bias", "teacher_shape": [3]} in claims["unfit"]


def test_blocks_between_a_stem_and_a_head_and_their_running_statistics():
    def net(depth: int) -> nn.Module:
        return nn.ModuleDict({"body": nn.Sequential(nn.Linear(4, 8), *(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)) for _ in range(depth)), nn.Linear(8, 2))})

    teacher, student = net(4), net(2)
    teacher["body"][3][1].running_mean += 7
    report = inherit_(student, teacher)
    assert report.layers == {"body": (1, 3)} and report.unfit == ()
    assert torch.equal(student["body"][2][1].running_mean, teacher["body"][3][1].running_mean)
    assert report.taken["body.3.weight"] == "body.5.weight" and torch.equal(student["body"][3].weight, teacher["body"][5].weight)


def test_stacks_of_stacks_are_mapped_at_both_levels():
    def net(blocks: int) -> nn.Module:
        block = lambda: nn.Sequential(nn.Linear(4, 4))  # noqa: E731
        return nn.ModuleDict({"stages": nn.ModuleList(nn.ModuleList(block() for _ in range(blocks)) for _ in range(2))})

    report = inherit_(net(2), net(6))
    assert report.layers == {"stages": (0, 1), "stages.0": (0, 3), "stages.1": (0, 3)}
    assert report.taken["stages.1.1.0.weight"] == "stages.1.3.0.weight"


def test_a_bert_of_hugging_face():
    transformers = pytest.importorskip("transformers")

    def bert(layers: int, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        sizes = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16}
        return transformers.BertForSequenceClassification(transformers.BertConfig(num_hidden_layers=layers, **sizes)).eval()

    teacher, student = bert(4, 0), bert(2, 1)
    report = inherit_(student, teacher)
    assert report.layers == {"bert.encoder.layer": (0, 2)} and report.unfit == ()
    with torch.no_grad():
        assert torch.equal(student(IDS).logits, replay(teacher, [drop_edit("bert.encoder.layer", [0, 2])])(IDS).logits)


def test_refuses_when_nothing_fits():
    with pytest.raises(StageError, match=r"'tokens\.weight' is \[31, 24\], the teacher's is \[31, 16\]"):
        inherit_(text(2, seed=0, width=24, length=9, classes=4), text(4, seed=1))


@pytest.mark.parametrize(
    ("layers", "depth", "words"),
    [
        ([0, 9], 2, "teacher has 0, 1, 2, 3"),
        ([0], 2, "each of the student's 2"),
        ("odd", 2, "'even'"),
        ([0, 1, 2, 3], 4, "applies to nothing"),
    ],
)
def test_layers_that_can_not_be_are_refused(layers, depth, words):
    with pytest.raises(ConfigError, match=words):
        inherit_(text(depth, seed=0), text(4, seed=1), layers=layers)
