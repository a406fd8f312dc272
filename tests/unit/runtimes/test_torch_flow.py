"""A program as torch runs it, against counts by hand and against ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.analysis.flow import Flow, live_bytes
from limbeck.analysis.profile import profile
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import arguments, batch_of, example, feed
from limbeck.runtimes import runtime
from limbeck.runtimes.torch_flow import flow_of
from limbeck.testing import small_task


@pytest.fixture(scope="module")
def flows(tmp_path_factory) -> dict[str, Flow]:
    """The small task's teacher in both runtimes, two samples."""
    task = small_task()
    model = rebuild(teacher_candidate(task).torch_form, task)
    fed = feed(task, batch_of(task, "test", [0, 1]))
    found = {}
    for name in ("onnxruntime", "torch"):
        card = runtime(name)
        artifact = card.export(example(task, model), Path(tmp_path_factory.mktemp(name)))
        assert card.flow
        found[name] = card.flow(artifact, fed, 1)
    return found


def test_multiply_adds_are_those_of_the_profile(flows: dict[str, Flow]):
    task = small_task()
    counted = profile(rebuild(teacher_candidate(task).torch_form, task), *arguments(task, batch_of(task, "test", [0, 1])))
    assert {name: sum(s.macs or 0 for s in one.steps) for name, one in flows.items()} == {"onnxruntime": counted.macs, "torch": counted.macs}


def test_a_residual_or_a_chain_holds_as_much_in_both(flows: dict[str, Flow]):
    """ReLU and batch norm are fused away in ONNX Runtime; the widest place is the same pair of convolutions' outputs."""
    assert max(live_bytes(flows["torch"])) == max(live_bytes(flows["onnxruntime"])) == 2 * 2 * 32 * 8 * 8 * 4


def test_a_view_keeps_what_it_shows_and_has_no_bytes_of_its_own():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(64, 64)

        def forward(self, x):
            return self.inner(x).view(-1, 8, 8).transpose(1, 2).sum(1)

    module = torch.export.export(Views().eval(), (torch.ones(2, 64),)).module()
    found = flow_of(module, {"x": np.ones((2, 64), np.float32)}, multiplies=("linear",))
    assert {step.operator: bool(step.shows) for step in found.steps} == {"linear": False, "view": True, "transpose": True, "sum": False}
    assert live_bytes(found) == [2 * 512, 512, 512, 512 + 64] and sum(s.macs or 0 for s in found.steps) == 2 * 64 * 64


def test_what_is_not_counted_is_not_counted_as_nothing():
    class Sums(nn.Module):
        def forward(self, x):
            return torch.einsum("bi,bj->bij", x, x)

    module = torch.export.export(Sums(), (torch.ones(2, 3),)).module()
    steps = flow_of(module, {"x": np.ones((2, 3), np.float32)}, multiplies=("einsum",)).steps
    assert [s.macs for s in steps if s.operator == "einsum"] == [None]


def test_torch_plans_nothing_and_computes_in_float(flows: dict[str, Flow]):
    assert flows["torch"].arena is None and {s.precision for s in flows["torch"].steps} == {"float32"}
    assert sum(flows["torch"].inputs.values()) == 2 * 64 * 4 and len(flows["torch"].outputs) == 1
