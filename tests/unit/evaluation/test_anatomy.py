"""What is counted and what is measured, joined: every byte, multiply-add and millisecond stands in one row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from limbeck.analysis.profile import Layer
from limbeck.core.contract import Target
from limbeck.core.task import Task
from limbeck.evaluation.account import account, operators_account
from limbeck.evaluation.anatomy import BETWEEN, Anatomy, Part, anatomy, sensible_depth
from limbeck.evaluation.roofline import Peak, measured_peak
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.runtimes.card import OperatorTime
from limbeck.runtimes.onnxruntime import describe
from limbeck.testing import context, small_task

PEAK = Peak(flops=1e11, bytes=1e10, threads=1)


class Odd(nn.Module):
    """Names that aren't identifiers, a residual and an activation without modules, one module under two names, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("0-ü x", nn.Conv2d(1, 8, 3, padding=1))
        self.block = Residual()
        self.again = self.block
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.again(self.block(self.get_submodule("0-ü x")(image)))
        return self.head(self.second(self.first(x.mean((2, 3)).softmax(-1))))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.conv(x))


@pytest.fixture(scope="module")
def task() -> Task:
    return small_task()


def rows(found: Anatomy) -> dict[str, Part]:
    return {p.layer.path: p for p in found.parts}


def test_on_onnxruntime_every_byte_and_millisecond_has_its_row(task: Task, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Odd()
    found = anatomy(task, model, Target(), folder=tmp_path, seconds=0.05)
    by = rows(found)
    assert found.parameters == sum(p.layer.parameters for p in found.parts) == sum(p.numel() for p in model.parameters())
    assert (by["first"].layer.parameters, by["second"].layer.parameters) == (64, 0)
    assert by["block.conv"].layer.macs == 2 * 64 * 8 * 72 and by["second"].layer.macs == 64  # called under both of its names
    assert by["0-ü x"].layer.activation_bytes == 4 * 8 * 64 and by["block.conv"].layer.activation_bytes == 2 * 4 * 8 * 64
    assert by["block.conv"].operators.get("Conv", 0) + by["block.conv"].operators.get("FusedConv", 0) == 2
    assert "again" not in by and "Softmax" in by[""].operators and "ReduceMean" in by[""].operators  # functional code of the model itself
    own = sum(p.held_bytes or 0 for p in found.parts)
    assert own == describe(replace_artifact(tmp_path))["initializer_bytes"]
    data = account(found, PEAK)
    assert sum(r["share"] for r in data["layers"]) + sum(r["share"] for r in data["elsewhere"]) == pytest.approx(1)
    assert sum(b["share"] for b in data["blocks"]) == pytest.approx(sum(r["share"] for r in data["layers"]))
    assert all(r["ms"] >= 0 for r in data["elsewhere"]) and len(data["findings"]) <= 3


def replace_artifact(folder: Path):
    from limbeck.core.candidate import Artifact

    return Artifact(folder / "model.onnx", "onnxruntime")


def test_a_quantized_model_is_told_by_the_layers_that_it_had(task: Task, tmp_path: Path) -> None:
    from limbeck.techniques.quantize.static_int8 import Quantize, quantize

    candidate = quantize(teacher_candidate(task), Quantize(samples=16), context(task, tmp_path)).candidate
    found = anatomy(task, rebuild(candidate.torch_form, task), Target(), folder=tmp_path, seconds=0.05)
    by = rows(found)
    assert not [path for path in by if "quantizer" in path]
    for path, channels in (("features.0", 16), ("features.3", 32), ("features.6", 32)):
        assert by[path].operators["QLinearConv"] == 1 and by[path].layer.macs > 0
        weights = by[path].layer.parameters - channels
        assert weights <= (by[path].held_bytes or 0) < 1.5 * weights + 12 * channels  # a byte a weight, and the scales
        assert by[path].layer.activation_bytes == 4 * channels * 64
    assert by["head"].operators["QGemm"] == 1 and by["head"].layer.activation_bytes == 16
    assert sum(p.ms for p in found.parts) + sum(found.elsewhere.values()) == found.total_ms


def test_in_torch_each_module_is_timed_and_tables_are_read_by_row(tmp_path: Path) -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(1000, 8), nn.Linear(8, 4)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(ids).mean(1))

    data = TensorDataset(torch.randint(0, 1000, (8, 5)), torch.zeros(8, dtype=torch.long))
    base = small_task()
    found = anatomy(replace(base, splits={"train": data}), Text(), Target(runtime="torch", batch=2), folder=tmp_path, seconds=0.02)
    by = rows(found)
    assert by["embed"].moved_bytes == 2 * 5 * 8 + 2 * (4 * 2 * 5 * 8)  # ids, rows read and rows written
    assert by["head"].moved_bytes == 4 * 36 + 4 * 2 * 8 + 4 * 2 * 4 and by["head"].intensity == 2 * 64 / by["head"].moved_bytes
    assert found.elsewhere == {} and {p.layer.path for p in found.parts} == {"", "embed", "head"} and found.size_bytes is None


def layer(path: str, macs: int, parameters: int = 0) -> Layer:
    return Layer(path, "Linear", parameters, macs, ())


def test_a_block_is_deep_enough_that_none_holds_most() -> None:
    deep = [layer(f"bert.encoder.{i}.{part}", 10) for i in range(4) for part in ("a", "b")]
    assert sensible_depth([*deep, layer("head", 1)]) == 3
    assert sensible_depth([layer("a.x", 5), layer("b.x", 5)]) == 1
    assert sensible_depth([layer("a.big", 9), layer("a.small", 1)]) == 2
    assert sensible_depth([layer("", 3)]) == sensible_depth([]) == 1
    assert sensible_depth([layer("a.x", 0, 5), layer("b.x", 0, 5)]) == 1


def made_up(*parts: Part, elsewhere: dict[str, float] | None = None) -> Anatomy:
    numbers = {"parameters": sum(p.layer.parameters for p in parts), "macs": sum(p.layer.macs for p in parts)}
    return Anatomy(parts=parts, elsewhere=elsewhere or {}, latency_ms=1.0, disturbed=False, method="made up", size_bytes=None, **numbers)


def part(path: str, ms: float, macs: int, *, parameters: int = 10, moved: int = 100) -> Part:
    return Part(layer=Layer(path, "Linear", parameters, macs, (), 4 * parameters), ms=ms, held_bytes=None, moved_bytes=moved)


def test_a_layer_is_bound_by_what_its_intensity_says() -> None:
    rows_ = {r["path"]: r for r in account(made_up(part("dense", 1, 10_000), part("thin", 1, 100), part("relu", 1, 0)), PEAK)["layers"]}
    assert PEAK.ridge == 10
    assert (rows_["dense"]["intensity"], rows_["dense"]["bound"]) == (200, "compute")
    assert (rows_["thin"]["intensity"], rows_["thin"]["bound"]) == (2, "memory")
    assert (rows_["relu"]["intensity"], rows_["relu"]["bound"]) == (None, "memory")
    assert rows_["dense"]["of_peak"] == pytest.approx(2e4 / 1e11 * 1e3) and rows_["thin"]["of_peak"] == pytest.approx(100 / 1e10 * 1e3)


def test_what_stands_out_follows_from_the_numbers() -> None:
    words = " ".join(account(made_up(part("slow", 8, 10), part("dense", 1, 990), part("large", 1, 10, parameters=1000), elsewhere={BETWEEN: 0.1}), PEAK)["findings"])
    assert "One layer takes most of the time: the slowest is slow (Linear) with 79%." in words
    assert "slow (Linear) takes 79% of the time for 1.0% of the multiply-adds" in words
    assert "large (Linear) holds 98% of the weights' bytes" in words
    other = " ".join(account(made_up(part("a", 1, 10), part("b", 1, 10), elsewhere={BETWEEN: 3.0}), PEAK)["findings"])
    assert "60% of the time is in no layer: calls" in other and "slow (" not in other


def test_an_artifact_alone_adds_up_by_operator_and_by_type() -> None:
    taken = [OperatorTime("a", "Conv", (1.0, 3.0, 2.0), 8, 8), OperatorTime("b", "Conv", (1.0, 1.0, 9.0), 4, 4), OperatorTime("c", "Cast", (1.0, 1.0, 1.0), 2, 2)]
    data = operators_account(taken, 5.0)
    assert [(r["name"], r["ms"]) for r in data["operators"]] == [("a", 2.0), ("b", 1.0), ("c", 1.0)]
    assert data["kinds"][0] == {"operator": "Conv", "count": 2, "ms": 3.0, "share": pytest.approx(0.6), "input_bytes": 12, "output_bytes": 12}
    assert sum(r["share"] for r in data["operators"]) + data["elsewhere"][0]["share"] == pytest.approx(1)
    assert "20% of the time goes into conversions" in " ".join(data["findings"])
    assert sum(r["share"] for r in operators_account(taken, 0.5)["operators"]) == pytest.approx(1)  # under the profiler it took longer than without


def test_a_peak_is_the_best_of_what_the_clock_says() -> None:
    ticks = iter([0.0, 0.0, 2.0, 2.1, 3.0, 4.0, 9.9, 10.0, 10.0, 10.5, 99.0])
    threads = torch.get_num_threads()
    found = measured_peak(1, seconds=5.0, clock=lambda: next(ticks))
    assert found.flops == pytest.approx(2 * 768**3 / 1.0) and found.bytes == pytest.approx(2 * (64 << 20) / 0.5)
    assert torch.get_num_threads() == threads
