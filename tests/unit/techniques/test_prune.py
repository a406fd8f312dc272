"""Channel pruning on every structure that it meets: what goes, what stays, and that the rest computes the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.candidate import Candidate, TorchForm
from limbeck.core.errors import ConfigError, StageError
from limbeck.core.facts import Fact
from limbeck.core.fields import parse
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.core.technique import card_of
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import arguments, batch_of, predict
from limbeck.techniques.prune.channels import Prune, prune

IMAGE = (3, 8, 8)


# ---- networks ----------------------------------------------------------------------------------------------------------


def conv_bn(inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs))


class Plain(nn.Module):
    """Convolutions with BatchNorm, flattened into two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 16), nn.ReLU(), conv_bn(16, 24, stride=2), nn.ReLU(), nn.MaxPool2d(2))
        self.hidden = nn.Linear(24 * 4, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.features(x).flatten(1))))


class Block(nn.Module):
    """Basic residual block; the shortcut is a projection (option B) or padding (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, pad: bool):
        super().__init__()
        self.first, self.second = conv_bn(inputs, outputs, stride=stride), conv_bn(outputs, outputs)
        self.stride, self.extra = stride, outputs - inputs if pad else 0
        self.shortcut = nn.Identity() if pad or inputs == outputs else conv_bn(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(F.relu(self.first(x)))
        if self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return F.relu(out + self.shortcut(x))


class Residual(nn.Module):
    def __init__(self, *, pad: bool):
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.blocks = nn.Sequential(*(Block(i, o, s, pad=pad) for i, o, s in ((16, 16, 1), (16, 32, 2), (32, 32, 1))))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


class Inverted(nn.Module):
    """MobileNet-v2's block: expand, depthwise, project, add."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        wide = inputs * 4
        self.expand, self.depthwise, self.project = conv_bn(inputs, wide, 1), conv_bn(wide, wide, stride=stride, groups=wide), conv_bn(wide, outputs, 1)
        self.add = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))
        return out + x if self.add else out


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.blocks = nn.Sequential(Inverted(16, 16, 1), Inverted(16, 24, 2), Inverted(24, 24, 1))
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu6(self.stem(x))).mean((2, 3)))


class Dense(nn.Module):
    """DenseNet's way: BatchNorm, ReLU, convolution, and everything before is concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16 + 8 * i) for i in range(3))
        self.layers = nn.ModuleList(nn.Conv2d(16 + 8 * i, 8, 3, padding=1, bias=False) for i in range(3))
        self.last = nn.BatchNorm2d(40)
        self.head = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat([x, layer(F.relu(norm(x)))], 1)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Squeeze(nn.Module):
    """Squeeze-and-excite: the channels gate themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = conv_bn(3, 32), nn.Conv2d(32, 16, 1), nn.Conv2d(16, 32, 1)
        self.next, self.head = conv_bn(32, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x))
        x = x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.head(F.relu(self.next(x)).mean((2, 3)))


class Grouped(nn.Module):
    """ResNeXt's middle: a convolution in 4 groups, then a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.grouped, self.expand = conv_bn(3, 32, 1), conv_bn(32, 32, groups=4), conv_bn(32, 16, 1)
        self.up, self.head = nn.ConvTranspose2d(16, 24, 2, 2), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.expand(F.relu(self.grouped(F.relu(self.reduce(x))))))
        return self.head(F.relu(self.up(x)).mean((2, 3)))


class Vision(nn.Module):
    """A ViT block: fused qkv, LayerNorm, an MLP, a class token and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token, self.place = nn.Conv2d(3, 32, 4, 4), nn.Parameter(torch.randn(1, 1, 32)), nn.Parameter(torch.randn(1, 5, 32))
        self.norm1, self.norm2, self.qkv, self.out = nn.LayerNorm(32), nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        q, k, v = self.qkv(self.norm1(x)).reshape(len(x), 5, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), 5, 32))
        return self.head((x + self.mlp(self.norm2(x)))[:, 0])


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 16}
        self.bert = BertModel(BertConfig(**sizes), add_pooling_layer=False)
        self.head = nn.Linear(32, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])


class Decoder(nn.Module):
    """Llama's blocks: rotary embeddings, four query heads on two key heads, a gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaModel

        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        self.llama = LlamaModel(LlamaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=64, use_cache=False, pad_token_id=0, **heads))
        self.head = nn.Linear(32, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.llama(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, -1])


class Twice(nn.Module):
    """One module used twice, and two that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again, self.leave = nn.Linear(6, 32), nn.Linear(32, 32), nn.Linear(32, 16)
        self.left, self.right = nn.Linear(16, 16), nn.Linear(16, 16)
        self.right.weight = self.left.weight
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.leave(F.relu(self.again(F.relu(self.again(F.relu(self.enter(x))))))))
        return self.head(F.relu(self.right(F.relu(self.left(x)))))


class Recurrent(nn.Module):
    """A convolution, a GRU and attention: only what stands clear of them can go."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.conv, self.gru = nn.Conv1d(3, 16, 3, padding=1), nn.Conv1d(16, 16, 3, padding=1), nn.GRU(16, 16, batch_first=True)
        self.attend, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.relu(self.inner(x.flatten(2)))).transpose(1, 2)
        x, _ = self.gru(x)
        return self.head(self.attend(x, x, x, need_weights=False)[0].mean(1))


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "option_a": lambda: Residual(pad=True),
    "option_b": lambda: Residual(pad=False),
    "mobile": Mobile,
    "dense": Dense,
    "squeeze": Squeeze,
    "grouped": Grouped,
    "vision": Vision,
    "bert": Bert,
    "decoder": Decoder,
    "twice": Twice,
    "recurrent": Recurrent,
}
# What must have been narrowed, at ratio 0.5 and multiples of 4: root → [kept, of]. All else that prunes would be a surprise.
KEPT = {
    "plain": {"features.0.0": [8, 16], "features.2.0": [12, 24], "hidden": [16, 32]},
    "option_a": {f"blocks.{i}.first.0": [w // 2, w] for i, w in enumerate((16, 32, 32))},
    "option_b": {"stem.0": [8, 16], "blocks.1.second.0": [16, 32]} | {f"blocks.{i}.first.0": [w // 2, w] for i, w in enumerate((16, 32, 32))},
    "mobile": {"stem.0": [8, 16], "blocks.1.project.0": [12, 24]} | {f"blocks.{i}.expand.0": [w // 2, w] for i, w in enumerate((64, 64, 96))},
    "dense": {"stem": [8, 16]} | {f"layers.{i}": [4, 8] for i in range(3)},
    "squeeze": {"conv.0": [16, 32], "down": [8, 16], "next.0": [8, 16]},
    "grouped": {"reduce.0": [16, 32], "grouped.0": [16, 32], "expand.0": [8, 16], "up": [12, 24]},
    "vision": {"mlp.0": [32, 64]},
    "bert": {f"bert.encoder.layer.{i}.intermediate.dense": [32, 64] for i in range(2)},
    "decoder": {f"llama.layers.{i}.mlp.gate_proj": [32, 64] for i in range(2)},
    "twice": {"enter": [16, 32]},
    "recurrent": {"inner": [8, 16]},
}


# ---- what a technique is given -----------------------------------------------------------------------------------------


def accuracy(outputs: dict[str, np.ndarray], batch: Any) -> dict[str, np.ndarray]:
    return {"right": (outputs["logits"].argmax(-1) == np.asarray(batch["labels"])).astype(float)}


def samples(name: str, number: int = 6) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    if name in ("bert", "decoder"):
        return [
            {"input_ids": torch.randint(0, 64, (12,), generator=draw), "attention_mask": (torch.arange(12) < 8 + i % 3).long(), "labels": torch.tensor(i % 2)}
            for i in range(number)
        ]
    shape = (6,) if name == "twice" else IMAGE
    return [{"x": torch.randn(shape, generator=draw), "labels": torch.tensor(i % 3)} for i in range(number)]


def task_of(name: str, seed: int = 0) -> Task:
    """A task whose factory draws other weights each time, so that nothing but the blueprint and the weights can rebuild it."""

    def factory() -> nn.Module:
        return NETS[name]()

    torch.manual_seed(seed)
    metric = Metric(name="accuracy", rows=accuracy, reduce=lambda rows: float(rows["right"].mean()), target="class")
    return Task(metric=metric, splits={"train": samples(name)}, models={"teacher": factory})


@dataclass
class Log:
    events: list[tuple[str, dict]] = field(default_factory=list)

    def event(self, event: str, **data: Any) -> None:
        self.events.append((event, data))

    def progress(self, done: float, total: float, note: str) -> None:
        pass


def context_of(task: Task, round_to: int = 4) -> Any:
    rng = SimpleNamespace(seed=0, numpy=np.random.default_rng(0), torch=torch.Generator().manual_seed(0))
    return SimpleNamespace(task=task, rng=rng, round_to=round_to, log=Log())


def shaken(task: Task) -> Candidate:
    """The teacher with BatchNorm statistics, scales and biases that aren't 0 and 1."""
    candidate = teacher_candidate(task)
    draw = torch.Generator().manual_seed(2)
    weights = {k: v + 0.2 * torch.rand(v.shape, generator=draw) if v.is_floating_point() and v.dim() == 1 else v for k, v in candidate.torch_form.weights.items()}
    model = rebuild(TorchForm(candidate.torch_form.blueprint, weights), task)  # tied weights are equal already; biases are not tied
    return Candidate(TorchForm(candidate.torch_form.blueprint, model.state_dict()))


@pytest.fixture(scope="module")
def pruned() -> dict[str, tuple[Task, Candidate, Any]]:
    """Each network at half its channels: (task, the candidate before, the outcome)."""
    made = {}
    for name in NETS:
        task = task_of(name)
        candidate = shaken(task)
        made[name] = (task, candidate, prune(candidate, Prune(ratio=0.5), context_of(task)))
    return made


def parameters(form: TorchForm, task: Task) -> int:
    return sum(p.numel() for p in rebuild(form, task).parameters())


# ---- structures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_narrows_exactly_what_can_be_proved(name, pruned):
    _, _, outcome = pruned[name]
    assert outcome.claims["kept"] == KEPT[name]


@pytest.mark.parametrize("name", NETS)
def test_the_head_keeps_its_outputs_and_says_so(name, pruned):
    claims = pruned[name][2].claims
    assert "output of the model" in claims["skipped"]["head"]
    assert not set(claims["skipped"]) & set(claims["kept"])


@pytest.mark.parametrize(
    ("name", "module", "reason"),
    [
        ("option_a", "stem.0", "don't go together"),  # 8 + 8 + 8 padded channels meet 24: it runs, and is wrong
        ("bert", "bert.encoder.layer.0.attention.self.query", "don't go together"),  # heads would be mixed: it runs, and is wrong
        ("vision", "qkv", "hang on each other"),
        ("vision", "out", "LayerNorm"),
        ("twice", "left", "shares its weight"),
        ("decoder", "llama.layers.0.self_attn.k_proj", "run in circles"),  # torch-pruning's own walk never ends here
        ("recurrent", "gru", "GRU is left whole"),
        ("recurrent", "attend", "MultiheadAttention is left whole"),
    ],
)
def test_says_why_a_layer_stays_whole(name, module, reason, pruned):
    assert reason in pruned[name][2].claims["skipped"][module]


@pytest.mark.parametrize("name", NETS)
def test_claims_equal_a_fresh_count(name, pruned):
    from limbeck.analysis.profile import profile

    task, candidate, outcome = pruned[name]
    fresh = rebuild(outcome.candidate.torch_form, task)
    args, kwargs = arguments(task, batch_of(task, "train", [2]))
    assert outcome.claims["parameters"] == parameters(outcome.candidate.torch_form, task) < parameters(candidate.torch_form, task)
    assert outcome.claims["macs"] == profile(fresh, args, kwargs).macs < profile(rebuild(candidate.torch_form, task), args, kwargs).macs


@pytest.mark.parametrize("name", NETS)
def test_runs_at_other_batch_sizes_and_trains(name, pruned):
    task, _, outcome = pruned[name]
    model = rebuild(outcome.candidate.torch_form, task)
    whole = predict(task, model, batch_of(task, "train", range(5)))["logits"]
    single = predict(task, model, batch_of(task, "train", [3]))["logits"]
    torch.testing.assert_close(whole[3:4], single, rtol=1e-4, atol=1e-5)
    predict(task, model.train(), batch_of(task, "train", range(4)))["logits"].sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "shared" not in n)


@pytest.mark.parametrize("name", NETS)
def test_leaves_the_candidate_it_was_given_alone(name, pruned):
    _, candidate, _ = pruned[name]
    again = shaken(task_of(name))
    assert candidate.torch_form.blueprint == again.torch_form.blueprint
    assert all(torch.equal(v, again.torch_form.weights[k]) for k, v in candidate.torch_form.weights.items())


@pytest.mark.parametrize("name", NETS)
def test_gives_the_fact_and_narrower_modules(name, pruned):
    task, _, outcome = pruned[name]
    assert Fact.NARROWER in outcome.candidate.facts
    model = rebuild(outcome.candidate.torch_form, task)
    for root, (kept, _) in outcome.claims["kept"].items():
        module = model.get_submodule(root)
        assert kept == (module.out_features if isinstance(module, nn.Linear) else module.out_channels)


REBUILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import test_prune as t
from limbeck.core.candidate import Blueprint
from pathlib import Path
folder = Path(sys.argv[2])
for number, name in enumerate(json.loads(sys.argv[3])):
    task = t.task_of(name, seed=100 + number)  # fresh weights: all that counts is in the two files
    form = t.TorchForm(Blueprint.from_json((folder / f"{name}.json").read_text()), t.load_file(folder / f"{name}.safetensors"))
    with t.torch.no_grad():
        t.save_file(t.predict(task, t.rebuild(form, task), t.batch_of(task, "train", range(5))), folder / f"{name}.out")
"""


def test_rebuilds_bit_for_bit_in_a_fresh_process(pruned, tmp_path):
    for name, (_, _, outcome) in pruned.items():
        (tmp_path / f"{name}.json").write_text(outcome.candidate.torch_form.blueprint.to_json())
        save_file(dict(outcome.candidate.torch_form.weights), tmp_path / f"{name}.safetensors")
    done = subprocess.run([sys.executable, "-c", REBUILD, str(Path(__file__).parent), str(tmp_path), json.dumps(list(pruned))], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, (task, _, outcome) in pruned.items():
        with torch.no_grad():
            here = predict(task, rebuild(outcome.candidate.torch_form, task), batch_of(task, "train", range(5)))
        assert torch.equal(here["logits"], load_file(tmp_path / f"{name}.out")["logits"]), name


# ---- which channels go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_zero_ratio_is_the_identity(name, pruned):
    task, candidate, _ = pruned[name]
    assert prune(candidate, card_of(prune).zero(), context_of(task)).candidate is candidate


@pytest.mark.parametrize("config", [Prune(ratio=0.5), Prune(ratio=0.4, scope="global", criterion="l2")])
def test_same_candidate_and_config_give_the_same_bits(config, pruned):
    for name in ("option_a", "dense", "grouped"):
        task, candidate, _ = pruned[name]
        first, second = (prune(candidate, config, context_of(task)) for _ in range(2))
        assert first.claims == second.claims
        assert first.candidate.torch_form.blueprint.to_json() == second.candidate.torch_form.blueprint.to_json()
        assert all(torch.equal(v, second.candidate.torch_form.weights[k]) for k, v in first.candidate.torch_form.weights.items())


# Per network: producers (weight, bias) and norms whose channels can be dead, with the channels.
DEAD = {
    "plain": ["features.0", "features.2", "hidden"],
    "option_a": [f"blocks.{i}.first" for i in range(3)],
    "option_b": ["stem", "blocks.0.second", "blocks.0.first", "blocks.1.first"],
    "mobile": ["stem", "blocks.0.project", "blocks.0.expand", "blocks.0.depthwise"],
    "dense": ["layers.0", "layers.1", "layers.2"],
    "squeeze": ["down", "next"],
    "grouped": ["reduce", "grouped", "expand", "up"],
    "vision": ["mlp.0"],
    "twice": ["enter", "again"],
    "bert": ["bert.encoder.layer.1.intermediate.dense"],
    "decoder": ["llama.layers.0.mlp.gate_proj", "llama.layers.0.mlp.up_proj"],
}


@pytest.mark.parametrize("name", DEAD)
def test_dead_channels_go_first_and_outputs_stay(name, pruned):
    task, candidate, outcome = pruned[name]
    model = rebuild(candidate.torch_form, task)
    with torch.no_grad():
        for path in DEAD[name]:
            for module in model.get_submodule(path).modules():
                if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
                    transposed = isinstance(module, nn.ConvTranspose2d)
                    width = module.weight.shape[1 if transposed else 0]
                    dead = torch.arange(width) % 4 == 1  # a quarter, evenly over the groups of a grouped convolution
                    for tensor in (module.weight.transpose(0, 1) if transposed else module.weight, module.bias):
                        if tensor is not None:
                            tensor[dead] = 0
        if name == "dense":  # what follows is a BatchNorm with a shift of its own: a dead channel is dead after it too
            for norm in (*model.norms, model.last):
                dead = (torch.arange(len(norm.weight)) >= 16) & (torch.arange(len(norm.weight)) % 4 == 1)
                norm.weight[dead], norm.bias[dead] = 0, 0
    dying = Candidate(TorchForm(candidate.torch_form.blueprint, model.state_dict()))
    roots = {r for r in outcome.claims["kept"] if any(r == p or r.startswith(p + ".") for p in DEAD[name])}
    others = tuple(r for r in outcome.claims["kept"] if r not in roots)
    after = prune(dying, Prune(ratio=0.25, round_to=1, ignore=others), context_of(task))
    assert {r: n - k for r, (k, n) in after.claims["kept"].items()} == {r: outcome.claims["kept"][r][1] // 4 for r in roots}
    batch = batch_of(task, "train", range(4))
    with torch.no_grad():
        before, now = predict(task, model, batch)["logits"], predict(task, rebuild(after.candidate.torch_form, task), batch)["logits"]
    torch.testing.assert_close(now, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("criterion", ["l1", "l2", "batchnorm"])
def test_keeps_the_channels_that_the_criterion_ranks_highest(criterion, pruned):
    task, candidate, _ = pruned["plain"]
    after = prune(candidate, Prune(ratio=0.5, criterion=criterion, ignore=("features.2", "hidden")), context_of(task)).candidate.torch_form
    weight, scale = candidate.torch_form.weights["features.0.0.weight"], candidate.torch_form.weights["features.0.1.weight"]
    score = {"l1": weight.abs().sum((1, 2, 3)), "l2": weight.square().sum((1, 2, 3)), "batchnorm": scale.abs()}[criterion]
    best = score.topk(8).indices.sort().values
    assert torch.equal(after.weights["features.0.0.weight"], weight[best])
    assert torch.equal(after.weights["features.0.1.running_var"], candidate.torch_form.weights["features.0.1.running_var"][best])
    assert torch.equal(after.weights["features.2.0.weight"], candidate.torch_form.weights["features.2.0.weight"][:, best])


def test_a_group_is_judged_by_all_layers_that_make_its_channels(pruned):
    task, candidate, _ = pruned["option_b"]
    weights = dict(candidate.torch_form.weights)
    for path in ("stem.0", "blocks.0.second.0"):  # 3 and 5 are strong in one of the two, the other 14 are weak in both
        weights[f"{path}.weight"] = weights[f"{path}.weight"] * 1e-3
    weights["stem.0.weight"][3], weights["blocks.0.second.0.weight"][5] = 1.0, 1.0
    rest = tuple(r for r in KEPT["option_b"] if r != "stem.0")
    after = prune(Candidate(TorchForm(candidate.torch_form.blueprint, weights)), Prune(ratio=0.85, round_to=2, ignore=rest), context_of(task))
    assert after.claims["kept"]["stem.0"] == [4, 16]
    kept = after.candidate.torch_form.weights
    assert (kept["stem.0.weight"] == 1).all((1, 2, 3)).sum() == 1
    assert (kept["blocks.0.second.0.weight"] == 1).flatten(1).all(1).sum() == 1


def test_global_scope_takes_more_where_channels_matter_less(pruned):
    task, candidate, _ = pruned["plain"]
    weights = dict(candidate.torch_form.weights)
    weights["hidden.weight"] = weights["hidden.weight"].clone()
    weights["hidden.weight"][:24] *= 1e-4  # three quarters of this layer hardly count
    kept = prune(Candidate(TorchForm(candidate.torch_form.blueprint, weights)), Prune(ratio=0.334, scope="global", round_to=1), context_of(task)).claims["kept"]
    assert kept["hidden"] == [8, 32]
    assert sum(k for k, _ in kept.values()) == 72 - int(0.334 * 72)  # 16 + 24 + 32 channels in all


def test_prunes_twice(pruned):
    task, _, once = pruned["mobile"]
    twice = prune(once.candidate, Prune(ratio=0.5), context_of(task))
    assert twice.claims["parameters"] < once.claims["parameters"]
    assert twice.claims["kept"]["blocks.2.expand.0"] == [24, 48]


def test_rounds_to_what_the_target_likes_unless_told(pruned):
    task, candidate, _ = pruned["plain"]
    liked = prune(candidate, Prune(ratio=0.3), context_of(task, round_to=8)).claims["kept"]
    told = prune(candidate, Prune(ratio=0.3, round_to=5), context_of(task, round_to=8)).claims["kept"]
    assert liked == {"features.0.0": [16, 16], "features.2.0": [24, 24], "hidden": [24, 32]}  # 12, 17 and 23, rounded up
    assert told == {"features.0.0": [15, 16], "features.2.0": [20, 24], "hidden": [25, 32]}


def test_what_is_kept_is_never_less_than_the_multiple(pruned):
    task, candidate, _ = pruned["plain"]
    kept = prune(candidate, Prune(ratio=0.99), context_of(task, round_to=8)).claims["kept"]
    assert kept == {"features.0.0": [8, 16], "features.2.0": [8, 24], "hidden": [8, 32]}


def test_grouped_convolutions_lose_equally_much_in_each_group(pruned):
    task, candidate, outcome = pruned["grouped"]
    model = rebuild(outcome.candidate.torch_form, task)
    assert (model.grouped[0].groups, model.grouped[0].weight.shape) == (4, (16, 4, 3, 3))
    both = prune(candidate, Prune(ratio=0.5, round_to=3), context_of(task)).claims["kept"]
    assert both["grouped.0"] == both["reduce.0"] == [24, 32]  # the least multiple of 3 and of 4 groups
    narrow = prune(candidate, Prune(ratio=0.1, round_to=1), context_of(task)).claims["kept"]
    assert narrow["grouped.0"] == [32, 32] and narrow["expand.0"] == [15, 16]  # 3 of 32 isn't 1 in each of 4 groups


# ---- refusals ----------------------------------------------------------------------------------------------------------


def test_ignored_modules_keep_their_outputs(pruned):
    task, candidate, _ = pruned["option_b"]
    outcome = prune(candidate, Prune(ratio=0.5, ignore=("blocks.0", "blocks.2.first.0")), context_of(task))
    assert set(outcome.claims["kept"]) == {"blocks.1.first.0", "blocks.1.second.0"}  # the stem hangs on blocks.0.second
    assert "prune.ignore" in outcome.claims["skipped"]["stem.0"]


def test_an_ignored_path_must_exist(pruned):
    task, candidate, _ = pruned["option_b"]
    with pytest.raises(ConfigError, match=r"prune\.ignore .* 'blocks\.0\.fist'.*blocks\.0\.first"):
        prune(candidate, Prune(ratio=0.5, ignore=("blocks.0.fist",)), context_of(task))


def test_refuses_when_nothing_can_go(pruned):
    task, candidate, _ = pruned["plain"]
    with pytest.raises(StageError, match=r"multiples of 32 .* 32 channels"):
        prune(candidate, Prune(ratio=0.5), context_of(task, round_to=32))
    task, candidate, _ = pruned["vision"]
    with pytest.raises(StageError, match=r"ratio 0\.5: 'patch'"):
        prune(candidate, Prune(ratio=0.5, ignore=("mlp",)), context_of(task))


def test_a_criterion_without_anything_to_read_leaves_layers_whole(pruned):
    task, candidate, _ = pruned["plain"]
    outcome = prune(candidate, Prune(ratio=0.5, criterion="batchnorm"), context_of(task))
    assert "hidden" not in outcome.claims["kept"] and "batchnorm" in outcome.claims["skipped"]["hidden"]


def test_works_where_gradients_are_off_and_weights_are_frozen(pruned):
    task, candidate, outcome = pruned["plain"]
    frozen = Task(metric=task.metric, splits=task.splits, models={"teacher": lambda: NETS["plain"]().requires_grad_(False)})
    with torch.no_grad():
        again = prune(candidate, Prune(ratio=0.5), context_of(frozen))
    assert again.claims == outcome.claims
    assert not any(p.requires_grad for p in rebuild(again.candidate.torch_form, frozen).parameters())


class Stubborn(nn.Module):
    """Makes float32 tensors of its own, has a zero-initialised branch, and a gated layer whose halves hang on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.gated, self.leave = nn.Linear(6, 16), nn.Linear(16, 32), nn.Linear(16, 16)
        self.branch, self.scale, self.head = nn.Sequential(nn.Linear(16, 4, bias=False), nn.Linear(4, 16)), nn.Parameter(torch.zeros(())), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.gated(F.relu(self.enter(x))).chunk(2, -1)
        x = F.relu(self.leave(value * torch.sigmoid(gate)))
        mixed = self.branch[0](x).flip(-1)  # wrong to cut: index i meets 3 - i
        return self.head((x + self.scale * self.branch[1](mixed)) @ torch.eye(16))


def test_float32_only_models_hidden_branches_and_coupled_halves():
    task = Task(metric=task_of("twice").metric, splits={"train": samples("twice")}, models={"teacher": Stubborn})
    torch.manual_seed(0)
    outcome = prune(teacher_candidate(task), Prune(ratio=0.5, round_to=2), context_of(task))
    assert set(outcome.claims["kept"]) == {"enter"}
    assert "hang on each other" in outcome.claims["skipped"]["gated"]
    assert "don't go together" in outcome.claims["skipped"]["branch.0"]


class Several(nn.Module):
    """Returns the class beside the logits and the features that they came from: those keep their width."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.features, self.head = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(F.relu(self.enter(x)))
        logits = self.head(F.relu(features))
        return {"logits": logits, "features": features, "class": logits.argmax(-1)}


def test_every_output_keeps_its_width():
    task = Task(metric=task_of("twice").metric, splits={"train": samples("twice")}, models={"teacher": Several})
    torch.manual_seed(0)
    outcome = prune(teacher_candidate(task), Prune(ratio=0.5), context_of(task))
    assert outcome.claims["kept"] == {"enter": [8, 16]}
    assert set(outcome.claims["skipped"]) == {"features", "head"}


def test_gentler_until_it_is_hardly_anything():
    ratios, config = [], Prune(ratio=0.3)
    while config is not None:
        ratios.append(round(config.ratio, 4))
        config = card_of(prune).gentler(config)
    assert ratios == [0.3, 0.2, 0.1333, 0.0889, 0.0593]


@pytest.mark.parametrize("bad", [{"ratio": 1.2}, {"ratio": 12}, {"ratio": -0.1}])
def test_a_percentage_is_explained(bad):
    with pytest.raises(ConfigError, match=r"prune\.ratio must be in \[0, 1\).*for 12 % write 0\.12"):
        parse(Prune, bad, where="prune")
