"""Blocks dropped out of stacks: what is left answers as the model that passes them over, in torch, in a fresh process and deployed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from limbeck.core.candidate import Candidate, TorchForm
from limbeck.core.errors import ConfigError, StageError
from limbeck.core.facts import Fact
from limbeck.core.fields import parse
from limbeck.core.task import Task
from limbeck.core.technique import card_of
from limbeck.intake.metrics import accuracy
from limbeck.mechanics.build import captured, rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of, predict
from limbeck.techniques.prune.blocks import Blocks, blocks
from limbeck.techniques.quantize.static_int8 import Quantize, quantize
from limbeck.testing import context, small_task, small_text_task


def task_of(model: type[nn.Module], *inputs: int) -> Task:
    data = TensorDataset(torch.randn(24, *inputs, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3)
    torch.manual_seed(1)
    weights = model().state_dict()
    return Task(models={"teacher": model}, weights={"teacher": weights}, splits=dict.fromkeys(("train", "validation", "test"), data), metric=accuracy())


def answers(task: Task, form: TorchForm) -> Tensor:
    with torch.no_grad():
        return predict(task, rebuild(form, task), batch_of(task, "test", range(8)))["logits"]


# ---- what is kept ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "kept"),
    [(Blocks(), [0, 2]), (Blocks(ratio=0.25), [0, 1, 2]), (Blocks(ratio=0.9), [0]), (Blocks(kept=(1, 3)), [1, 3]), (Blocks(kept=(3,), stack="layers"), [3])],
)
def test_layers_of_an_encoder(config, kept, tmp_path):
    task = small_text_task()
    teacher = teacher_candidate(task)
    outcome = blocks(teacher, config, context(task, tmp_path))
    weights = outcome.candidate.torch_form.weights
    assert outcome.claims["kept"] == {"layers": kept} and outcome.claims["of"] == {"layers": 4}
    assert Fact.NARROWER in outcome.candidate.facts
    for place, number in enumerate(kept):
        assert torch.equal(weights[f"layers.{place}.up.weight"], teacher.torch_form.weights[f"layers.{number}.up.weight"])
    assert not any(name.startswith(f"layers.{len(kept)}.") for name in weights)
    model = rebuild(teacher.torch_form, task)
    layer = sum(p.numel() for p in model.layers[0].parameters())
    assert outcome.claims["parameters"] == sum(p.numel() for p in model.parameters()) - (4 - len(kept)) * layer


def test_the_answers_are_those_of_the_model_that_passes_them_over(tmp_path):
    task = small_text_task()
    teacher = teacher_candidate(task)
    outcome = blocks(teacher, Blocks(kept=(0, 3)), context(task, tmp_path))
    model = rebuild(teacher.torch_form, task)
    for number in (1, 2):
        model.layers[number].forward = lambda x, bias: x
    with torch.no_grad():
        expected = predict(task, model, batch_of(task, "test", range(8)))["logits"]
    assert torch.equal(answers(task, outcome.candidate.torch_form), expected)
    assert not torch.equal(expected, answers(task, teacher.torch_form))


class Residual(nn.Module):
    """Two stages of residual blocks; the first block of each changes the shape, so it stays."""

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int = 1):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
            self.short = nn.Conv2d(before, after, 1, stride) if stride > 1 else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.norm(self.conv(x)) + self.short(x))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.stages = nn.Sequential(nn.Sequential(*(self.Block(4, 4) for _ in range(4))), nn.Sequential(self.Block(4, 8, 2), *(self.Block(8, 8) for _ in range(3))), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


def test_residual_stages_keep_the_block_that_changes_the_shape(tmp_path):
    task = task_of(Residual, 3, 8, 8)
    both = blocks(teacher_candidate(task), Blocks(stack="stages.1"), context(task, tmp_path))
    assert both.claims["kept"] == {"stages.1": [0, 1]} and "another shape" in both.claims["skipped"]["stages.1.0"]
    with pytest.raises(StageError, match=r"'stages\.1\.0': it gives another shape"):
        blocks(teacher_candidate(task), Blocks(stack="stages.1", kept=(1,)), context(task, tmp_path))


def test_what_is_stacked_inside_a_block_is_no_stack_of_its_own(tmp_path):
    part = lambda: nn.Sequential(nn.Linear(6, 6), nn.Tanh())  # noqa: E731
    kind = type("Deep", (nn.Sequential,), {"__init__": lambda self: nn.Sequential.__init__(self, *(nn.Sequential(part(), part()) for _ in range(4)), nn.Linear(6, 3))})
    task = task_of(kind, 6)
    assert blocks(teacher_candidate(task), Blocks(), context(task, tmp_path)).claims["kept"] == {"": [0, 2]}


def test_every_stack_loses_its_share_and_a_whole_stage_only_if_it_is_named(tmp_path):
    task = task_of(Residual, 3, 8, 8)
    outcome = blocks(teacher_candidate(task), Blocks(ratio=0.25), context(task, tmp_path))
    assert outcome.claims["kept"] == {"stages.0": [0, 1, 2], "stages.1": [0, 1, 2]}
    told = blocks(teacher_candidate(task), Blocks(stack="stages", kept=(1,)), context(task, tmp_path))
    assert told.claims["of"] == {"stages": 2} and "stages.0.3.conv.weight" in told.candidate.torch_form.weights
    assert "stages.1.0.conv.weight" not in told.candidate.torch_form.weights


class Pairs(nn.Module):
    """Layers that hand on a tuple, called by keyword."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(6, 6))

        def forward(self, *, hidden: Tensor, scale: float) -> tuple[Tensor, Tensor]:
            return hidden + scale * self.inner(hidden), hidden.mean()

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(self.Layer() for _ in range(3)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x, _ = layer(hidden=x, scale=0.5)
        return self.head(x)


def test_layers_that_give_tuples_and_take_keywords(tmp_path):
    task = task_of(Pairs, 6)
    assert blocks(teacher_candidate(task), Blocks(kept=(2,)), context(task, tmp_path)).claims["kept"] == {"layers": [2]}


def test_a_bert_of_hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16}
    text = small_text_task()
    make = lambda: transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=3, **sizes))  # noqa: E731
    torch.manual_seed(0)
    task = Task(models={"teacher": make}, weights={"teacher": make().state_dict()}, splits=text.splits, metric=accuracy(), outputs=lambda raw: {"logits": raw.logits})
    outcome = blocks(teacher_candidate(task), Blocks(), context(task, tmp_path))
    assert outcome.claims["kept"] == {"bert.encoder.layer": [0, 2]}


# ---- what can be done with it ----------------------------------------------------------------------------------------------


FRESH = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file
from limbeck.core.candidate import Blueprint, TorchForm
from limbeck.mechanics.build import rebuild
from limbeck.mechanics.data import batch_of, predict
from limbeck.testing import small_text_task
torch.set_num_threads(1)
folder, task = Path(sys.argv[1]), small_text_task()
model = rebuild(TorchForm(Blueprint.from_json((folder / "blueprint.json").read_text()), load_file(folder / "weights.safetensors")), task)
with torch.no_grad():
    torch.save(predict(task, model, batch_of(task, "test", range(8)))["logits"], folder / "logits.pt")
"""


def replayed(form: TorchForm, folder: Path) -> Tensor:
    """The form's answers in a process of its own."""
    (folder / "blueprint.json").write_text(form.blueprint.to_json())
    save_file(dict(form.weights), folder / "weights.safetensors")
    subprocess.run([sys.executable, "-c", FRESH, str(folder)], check=True)
    return torch.load(folder / "logits.pt", weights_only=True)


def test_quantized_afterwards_and_rebuilt_in_a_fresh_process(tmp_path):
    task = small_text_task()
    shorter = blocks(teacher_candidate(task), Blocks(), context(task, tmp_path)).candidate
    rounded = quantize(shorter, Quantize(samples=32), context(task, tmp_path)).candidate
    assert json.loads(rounded.torch_form.blueprint.to_json())["edits"][0] == {"edit": "drop", "stack": "layers", "kept": [0, 2]}
    assert torch.equal(replayed(rounded.torch_form, tmp_path), answers(task, rounded.torch_form))


def test_twice(tmp_path):
    task = small_text_task()
    once = blocks(teacher_candidate(task), Blocks(), context(task, tmp_path)).candidate
    twice = blocks(once, Blocks(kept=(1,)), context(task, tmp_path))
    assert torch.equal(twice.candidate.torch_form.weights["layers.0.up.bias"], teacher_candidate(task).torch_form.weights["layers.2.up.bias"])


# ---- refusals --------------------------------------------------------------------------------------------------------------


class Counting(nn.Module):
    """A stack that its forward walks in a way of its own."""

    way = ""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 4
        self.layers, self.head = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(4)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "by number":
            for number in range(self.depth):
                x = self.layers[number](x)
        elif self.way == "by share":
            for layer in self.layers:
                x = x + layer(x) / len(self.layers)
        elif self.way == "by place":
            for number, layer in enumerate(self.layers):
                x = layer(x) * (1 + number)
        else:
            x = self.layers[0](self.layers[0](x))
        return self.head(x)


@pytest.mark.parametrize(("way", "words"), [("by number", "counts its blocks"), ("by share", "counts its blocks"), ("by place", "counts its blocks"), ("twice", "called 2 times")])
def test_a_forward_that_counts_its_blocks_is_refused(way, words, tmp_path):
    kind = type("Counted", (Counting,), {"way": way})
    task = task_of(kind, 6)
    with pytest.raises(StageError, match=words):
        blocks(teacher_candidate(task), Blocks(), context(task, tmp_path))


def test_refuses_a_model_without_a_stack(tmp_path):
    task = small_task()
    with pytest.raises(StageError, match="no ModuleList or Sequential of blocks"):
        blocks(teacher_candidate(task), Blocks(), context(task, tmp_path))


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (Blocks(stack="layer"), ConfigError, r"blocks\.stack must name a stack .* 'layers'"),
        (Blocks(kept=(0, 7)), ConfigError, r"blocks\.kept must name blocks of 'layers', got 7\. There is 0, 1, 2, 3"),
        (Blocks(kept=(0, 1, 2, 3)), StageError, "names every block"),
        (Blocks(ratio=0.1), StageError, "can't drop any at ratio 0.1"),
    ],
)
def test_what_is_asked_must_be_there(config, error, words, tmp_path):
    task = small_text_task()
    with pytest.raises(error, match=words):
        blocks(teacher_candidate(task), config, context(task, tmp_path))


def test_kept_needs_a_stack_where_there_are_several(tmp_path):
    task = task_of(Residual, 3, 8, 8)
    with pytest.raises(ConfigError, match=r"needs blocks\.stack: the model has 2 stacks"):
        blocks(teacher_candidate(task), Blocks(kept=(0,)), context(task, tmp_path))


def test_a_percentage_is_explained():
    with pytest.raises(ConfigError, match=r"blocks\.ratio .*for every second write 0\.5"):
        parse(Blocks, {"ratio": 50}, where="blocks")


def test_gentler_until_it_is_hardly_anything():
    gentler, config, ratios = card_of(blocks).gentler, Blocks(ratio=0.5), []
    while config is not None:
        ratios.append(round(config.ratio, 3))
        config = gentler(config)
    assert ratios == [0.5, 0.333, 0.222, 0.148, 0.099, 0.066]
    assert gentler(Blocks(kept=(1,))) is None


def test_no_hook_stays_and_the_input_candidate_is_untouched(tmp_path):
    task = small_text_task()
    teacher = teacher_candidate(task)
    before = {k: v.clone() for k, v in teacher.torch_form.weights.items()}
    outcome = blocks(Candidate(TorchForm(teacher.torch_form.blueprint, captured(rebuild(teacher.torch_form, task)))), Blocks(), context(task, tmp_path))
    assert not any(m._forward_hooks for m in rebuild(outcome.candidate.torch_form, task).modules())
    assert all(torch.equal(before[k], v) for k, v in teacher.torch_form.weights.items())
