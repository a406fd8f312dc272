"""Static int8 end to end: placed, calibrated, rebuilt in a fresh process, exported, and run by ONNX Runtime's int8 kernels."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.candidate import Candidate, TorchForm
from limbeck.core.errors import ConfigError, StageError
from limbeck.core.facts import Fact
from limbeck.core.fields import parse, to_dict
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.quantizers import ActivationQuantizer, deployed, quantizers_of
from limbeck.techniques.quantize.static_int8 import Quantize, quantize

CLASSES = 6


class Block(nn.Module):
    """Functional ReLU, a residual add, and a shortcut that slices and zero-pads where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.pads = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pads, self.pads)) if self.pads else x
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + short)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList([Block(8, 8, 1), Block(8, 16, 2)])
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x)), inplace=True), 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """MobileNet-v2's block: expand, depthwise, project; the residual is a linear bottleneck."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        wide = inputs * 4
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.body = nn.Sequential(Inverted(8, 12, 1), Inverted(12, 12, 1), Inverted(12, 16, 2))
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.body(self.stem(x)), 1).flatten(1))


class DenseLayer(nn.Module):
    """Norm before the conv: after a concat it can't be folded."""

    def __init__(self, inputs: int):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 6, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), DenseLayer(6), DenseLayer(12), nn.Conv2d(18, 10, 1), nn.AvgPool2d(2), nn.ReLU())
        self.head = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.features(x), (1, 1)), 1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Linear(48, 16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out, self.up, self.down = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.act, self.head = nn.GELU(), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.reshape(x.shape[0], 16, 48))
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out(torch.softmax(q @ k.transpose(1, 2) / 4, -1) @ v)
        x = x + self.down(self.act(self.up(self.norm2(x))))
        return self.head(x.mean(1))


NETS = {n.__name__: n for n in (Residual, Mobile, Dense, Attention)}
CONVS = {"Residual": 5, "Mobile": 10, "Dense": 4}


class Samples(torch.utils.data.Dataset):
    """Images of six patterns in noise."""

    def __init__(self, count: int, seed: int):
        rng = np.random.default_rng(seed)
        patterns = np.random.default_rng(0).standard_normal((CLASSES, 3, 16, 16))
        self.y = rng.integers(0, CLASSES, count)
        self.x = (patterns[self.y] + 0.7 * rng.standard_normal((count, 3, 16, 16))).astype(np.float32)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.x[index]), int(self.y[index])


METRIC = Metric(name="accuracy", rows=lambda outputs, batch: {"right": outputs["logits"].argmax(1) == batch[1].numpy()}, reduce=lambda rows: float(rows["right"].mean()))


def make_task(factory, weights) -> Task:
    return Task(metric=METRIC, splits={"train": Samples(160, 1), "test": Samples(600, 2)}, models={"teacher": factory}, weights={"teacher": weights})


@dataclasses.dataclass
class Context:
    task: Task
    seed: int = 0

    def __post_init__(self) -> None:
        self.rng = self

    @property
    def numpy(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    """Each net, trained until it tells the patterns apart."""
    made = {}
    with torch.random.fork_rng():
        for name, factory in NETS.items():
            torch.manual_seed(0)
            model, data = factory(), Samples(160, 1)
            x, y, optimizer = torch.from_numpy(data.x), torch.from_numpy(data.y), torch.optim.Adam(model.parameters(), 1e-2)
            for step in range(80):
                part = slice(step % 4 * 40, step % 4 * 40 + 40)
                optimizer.zero_grad()
                F.cross_entropy(model(x[part]), y[part]).backward()
                optimizer.step()
            made[name] = make_task(factory, model.state_dict())
    return made


@pytest.fixture(scope="module")
def outcomes(tasks):
    return {name: quantize(teacher_candidate(task), Quantize(samples=96), Context(task)) for name, task in tasks.items()}


def export(model: nn.Module, x: Tensor) -> bytes:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(deployed(model, activations="u8"), (x[:2],), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    return program.model_proto.SerializeToString()


def onnx_run(artifact: bytes, x: Tensor, optimized: Path | None = None) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL if optimized else onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(artifact, options)
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize("name", CONVS)
def test_every_conv_runs_in_int8_and_the_runtime_agrees(name, tasks, outcomes, tmp_path):
    task = tasks[name]
    x = torch.from_numpy(task.splits["test"].x)
    model = rebuild(outcomes[name].candidate.torch_form, task)
    with torch.no_grad():
        simulated, teacher = model(x), rebuild(teacher_candidate(task).torch_form, task)(x)
        assert torch.equal(deployed(model, activations="u8")(x), simulated)
    assert (simulated.argmax(1) == teacher.argmax(1)).float().mean() >= 0.98
    artifact, step = export(model, x), float(model.get_submodule("head" if name != "Mobile" else "head.1").out_quantizer.scale)
    plain, fast = onnx_run(artifact, x), onnx_run(artifact, x, tmp_path / "optimized.onnx")
    # Unoptimized, kernels sum floats in another order and divide by the scale: a rounding at a tie may fall elsewhere, seldom.
    assert (plain == simulated).float().mean() >= 0.99 and (plain - simulated).abs().max() <= 1.01 * step
    assert (fast - simulated).abs().max() <= 1.01 * step
    assert (fast.argmax(1) == simulated.argmax(1)).float().mean() >= 0.995
    kinds = Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == CONVS[name] and kinds["QGemm"] == 1
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm"} & kinds.keys()
    assert kinds["QLinearAdd"] == {"Residual": 2, "Mobile": 1, "Dense": 0}[name]


def test_claims_equal_what_is_there(tasks, outcomes):
    for name, outcome in outcomes.items():
        found = list(quantizers_of(rebuild(outcome.candidate.torch_form, tasks[name])).values())
        activations = sum(isinstance(q, ActivationQuantizer) for q in found)
        assert (outcome.claims["quantized_weights"], outcome.claims["quantized_activations"]) == (len(found) - activations, activations)
        assert outcome.claims["calibration"]["samples"] == 96
        assert outcome.candidate.facts == {Fact.TORCH, Fact.QUANTIZED}
    assert outcomes["Residual"].claims["left_float"] == outcomes["Mobile"].claims["left_float"] == []
    assert outcomes["Dense"].claims["left_float"] == ["features.1.norm", "features.2.norm"]


def test_attention_keeps_its_products_in_float_and_exports(tasks, outcomes):
    task, outcome = tasks["Attention"], outcomes["Attention"]
    assert outcome.claims["left_float"] == [":matmul"] and outcome.claims["quantized_weights"] == 6
    model, x = rebuild(outcome.candidate.torch_form, task), torch.from_numpy(task.splits["test"].x)
    with torch.no_grad():
        simulated = model(x)
    agrees = onnx_run(export(model, x), x).argmax(1) == simulated.argmax(1)
    assert agrees.float().mean() >= 0.99


FRESH = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from safetensors.torch import load_file
from limbeck.core.candidate import Blueprint, TorchForm
from limbeck.mechanics.build import rebuild
import test_quantize as t
folder = Path(sys.argv[1])
torch.manual_seed(99)
form = TorchForm(Blueprint.from_json((folder / "blueprint.json").read_text()), load_file(folder / "weights.safetensors"))
with torch.no_grad():
    torch.save(rebuild(form, t.make_task(t.Residual, None))(torch.from_numpy(t.Samples(50, 3).x)), folder / "outputs.pt")
"""


def test_rebuilt_in_a_fresh_process_from_json_and_safetensors_gives_the_same_bits(tasks, outcomes, tmp_path):
    form: TorchForm = outcomes["Residual"].candidate.torch_form
    (tmp_path / "blueprint.json").write_text(form.blueprint.to_json())
    save_file(dict(form.weights), tmp_path / "weights.safetensors")
    subprocess.run([sys.executable, "-c", FRESH, str(tmp_path), str(Path(__file__).parent)], check=True)
    with torch.no_grad():
        expected = rebuild(form, tasks["Residual"])(torch.from_numpy(Samples(50, 3).x))
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), expected)


def test_same_seed_same_bits_and_other_seed_other_samples(tasks, outcomes):
    task = tasks["Residual"]
    again = quantize(teacher_candidate(task), Quantize(samples=96), Context(task))
    form, first = again.candidate.torch_form, outcomes["Residual"].candidate.torch_form
    assert form.blueprint == first.blueprint and form.weights.keys() == first.weights.keys()
    assert all(torch.equal(v, first.weights[k]) for k, v in form.weights.items())
    other = quantize(teacher_candidate(task), Quantize(samples=96), Context(task, seed=1))
    assert other.claims["calibration"]["ids_sha256"] != again.claims["calibration"]["ids_sha256"]


@pytest.mark.parametrize("observer", ["percentile", "mse"])
def test_other_observers_clip_and_still_answer(observer, tasks, outcomes):
    task = tasks["Residual"]
    x = torch.from_numpy(task.splits["test"].x)
    narrow = quantize(teacher_candidate(task), Quantize(samples=96, observer=observer, percentile=0.999), Context(task)).candidate.torch_form
    wide = outcomes["Residual"].candidate.torch_form
    assert narrow.weights["stem.in_quantizer.scale"] < wide.weights["stem.in_quantizer.scale"]
    with torch.no_grad():
        agrees = rebuild(narrow, task)(x).argmax(1) == rebuild(wide, task)(x).argmax(1)
    assert agrees.float().mean() >= 0.97


def test_reduce_range_gives_seven_bit_weights(tasks):
    task = tasks["Residual"]
    form = quantize(teacher_candidate(task), Quantize(samples=32, reduce_range=True), Context(task)).candidate.torch_form
    ready = deployed(rebuild(form, task), activations="u8")
    integers = [m.integers for n, m in ready.named_modules() if n.endswith("weight_quantizer")]
    assert max(int(i.abs().max()) for i in integers) == 63


def test_keep_float_is_checked_and_kept(tasks):
    task = tasks["Residual"]
    outcome = quantize(teacher_candidate(task), Quantize(samples=32, keep_float=("blocks.1",)), Context(task))
    assert outcome.claims["left_float"] == ["blocks.1.conv1", "blocks.1.conv2"]
    with pytest.raises(ConfigError, match=r"keep_float.*'blocks.7'.*Did you mean"):
        quantize(teacher_candidate(task), Quantize(keep_float=("blocks.7",)), Context(task))
    with pytest.raises(StageError, match="no conv or linear"):
        quantize(teacher_candidate(task), Quantize(keep_float=("",)), Context(task))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))


def small(change) -> Task:
    torch.manual_seed(0)
    model = Small()
    with torch.no_grad():
        change(model)
    return make_task(Small, model.state_dict())


def test_nan_is_refused_with_the_name_of_its_site():
    task = small(lambda m: None)
    task.splits["train"].x[7, 0, 0, 0] = np.nan
    with pytest.raises(StageError, match="'conv:in' holds NaN or Inf"):
        quantize(teacher_candidate(task), Quantize(), Context(task))


def test_inf_that_arises_inside_is_refused_with_its_site():
    task = small(lambda m: m.norm.weight.fill_(3e38))
    with pytest.raises(StageError, match="':relu:0' holds NaN or Inf"):
        quantize(teacher_candidate(task), Quantize(), Context(task))


def test_all_zero_tensors_and_constants_stay_finite():
    for change in (lambda m: (m.norm.weight.zero_(), m.norm.bias.zero_()), lambda m: (m.norm.weight.zero_(), m.norm.bias.fill_(0.5)), lambda m: m.head.weight.zero_()):
        task = small(change)
        x = torch.from_numpy(task.splits["test"].x)
        model, teacher = rebuild(quantize(teacher_candidate(task), Quantize(), Context(task)).candidate.torch_form, task), rebuild(teacher_candidate(task).torch_form, task)
        with torch.no_grad():
            assert torch.allclose(model(x), teacher(x), atol=0.02)
            assert torch.allclose(onnx_run(export(model, x), x), model(x), atol=1e-6)


def test_nearly_dead_channel_with_a_large_bias_survives_int32(tmp_path):
    def change(m: Small) -> None:
        m.norm.weight[0], m.norm.bias[0] = 1e-9, 5.0

    task = small(change)
    x = torch.from_numpy(task.splits["test"].x)
    model = rebuild(quantize(teacher_candidate(task), Quantize(), Context(task)).candidate.torch_form, task)
    with torch.no_grad():
        simulated, teacher = model(x), rebuild(teacher_candidate(task).torch_form, task)(x)
    fast = onnx_run(export(model, x), x, tmp_path / "optimized.onnx")
    assert "QLinearConv" in {n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert (fast - simulated).abs().max() <= 1.01 * float(model.head.out_quantizer.scale)
    assert (simulated - teacher).abs().max() < 0.05 * teacher.abs().max()


def test_as_many_samples_as_there_are_means_each_once():
    class Counting(Samples):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            seen[index] += 1
            return super().__getitem__(index)

    seen: Counter[int] = Counter()
    task = dataclasses.replace(small(lambda m: None), splits={"train": Counting(40, 1)})
    outcome = quantize(teacher_candidate(task), Quantize(samples=5000), Context(task))
    assert outcome.claims["calibration"]["samples"] == len(seen) == 40


def test_config_round_trips_and_a_bad_value_says_the_way_out():
    config = Quantize(observer="mse", keep_float=("a",))
    assert parse(Quantize, to_dict(config), where="quantize") == config
    with pytest.raises(ConfigError, match=r"quantize.percentile must be in \[0.5, 1\], got 99.9.*0.999"):
        parse(Quantize, {"percentile": 99.9}, where="quantize")


def test_teacher_is_not_touched(tasks):
    candidate: Candidate = teacher_candidate(tasks["Residual"])
    before = {k: v.clone() for k, v in candidate.torch_form.weights.items()}
    quantize(candidate, Quantize(samples=16), Context(tasks["Residual"]))
    assert all(torch.equal(v, before[k]) for k, v in candidate.torch_form.weights.items())
