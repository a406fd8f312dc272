"""Small nets of the shapes that users bring: one tensor in, a dict in with free axes, several outputs, and a quantized one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import limbeck.runtimes as runtimes
from limbeck.core.candidate import Artifact
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.mechanics.data import Example, example
from limbeck.mechanics.quantizers import quantize_edits

METRIC = Metric(name="none", rows=lambda outputs, batch: {}, reduce=lambda rows: 0.0)


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Linear(16, 10)
        self.unused = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


class Text(nn.Module):
    """A dict in, five outputs: one of them twice, one an input passed through."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        tokens = self.embed(ids) * mask[..., None]
        vector = tokens.sum(1) / mask.sum(1, keepdim=True)
        logits = self.head(vector)
        return {"logits": logits, "again": logits, "vector": vector, "passed": mask, "tokens": tokens}


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.relu, self.b = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.relu(self.a(x)))


def quantized() -> nn.Module:
    """An MLP with quantizers at its weights and activations; a step of its output is 0.05."""
    model = Mlp().eval()
    sites = [("a", "in"), ("a", "weight"), ("relu", "out"), ("b", "weight"), ("b", "out")]
    quantize_edits(model, [{"edit": "quantize", "module": module, "port": port, "bits": 8, "axis": 0} for module, port in sites])
    for name, (scale, zero) in {"a.in_quantizer": (0.03, 0), "relu.out_quantizer": (0.02, -128), "b.out_quantizer": (0.05, 0)}.items():
        model.get_buffer(f"{name}.scale").fill_(scale)
        model.get_buffer(f"{name}.zero_point").fill_(zero)
    for name in ("a", "b"):
        model.get_buffer(f"{name}.weight_quantizer.scale").fill_(0.004)
    return model


def _cut(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Longer texts in larger batches, so that the length shows as a free axis."""
    return {key: torch.stack([s[key][: 4 + len(samples)] for s in samples]) for key in samples[0]}


@pytest.fixture(scope="session")
def cases() -> dict[str, tuple[Task, nn.Module]]:
    """By name: a task with 20 samples, and an untrained net."""
    torch.manual_seed(0)
    images = [(torch.randn(3, 12, 12), i % 10) for i in range(20)]
    texts = [{"ids": torch.randint(0, 50, (30,)), "mask": torch.ones(30, dtype=torch.int64)} for _ in range(20)]
    rows = [(torch.randn(8), i % 4) for i in range(20)]
    return {
        "conv": (Task(metric=METRIC, splits={"train": images}), Conv().eval()),
        "text": (Task(metric=METRIC, splits={"train": texts}, collate=_cut), Text().eval()),
        "quantized": (Task(metric=METRIC, splits={"train": rows}), quantized()),
    }


@pytest.fixture(scope="session")
def examples(cases) -> dict[str, Example]:
    return {name: example(task, model) for name, (task, model) in cases.items()}


@pytest.fixture(scope="session")
def exported(examples, tmp_path_factory) -> Callable[[str, str], Artifact]:
    """(net, runtime) → its artifact, exported once a session."""
    made: dict[tuple[str, str], Artifact] = {}

    def get(net: str, runtime: str) -> Artifact:
        if (net, runtime) not in made:
            folder: Path = tmp_path_factory.mktemp(f"{net}-{runtime}")
            made[net, runtime] = runtimes.export(runtime, examples[net], folder)
        return made[net, runtime]

    return get
