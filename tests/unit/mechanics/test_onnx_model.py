"""An ONNX file as teacher: it answers as the network did, is never changed, and says what it can't do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from limbeck import Contract, Plan, Stage, Training, onnx_model
from limbeck.core.candidate import ArtifactForm
from limbeck.core.errors import ArtifactError, TaskError
from limbeck.core.plan import illegal
from limbeck.core.technique import card_of
from limbeck.mechanics.build import runnable, teacher_candidate
from limbeck.pipeline.folder import Request
from limbeck.pipeline.run import carry_out
from limbeck.techniques import ALL
from limbeck.testing import small_task

WEIGHT = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)


def written(path: Path, *, batch: str | int = "batch", outputs: tuple[str, ...] = ("scores",), outside: bool = False) -> Path:
    """x · W, as one output or as several of the same."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 12])
    nodes = [helper.make_node("MatMul", ["x", "w"], [name]) for name in outputs]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in outputs]
    graph = helper.make_graph(nodes, "g", [x], made, [numpy_helper.from_array(WEIGHT, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path, save_as_external_data=outside, location="w.bin", size_threshold=0) if outside else onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["batch", 1])
def test_it_answers_as_the_file_says_also_where_its_batch_is_one(tmp_path, batch):
    model, x = onnx_model(written(tmp_path / "m.onnx", batch=batch)), torch.randn(5, 12)
    assert torch.allclose(model(x), x @ torch.from_numpy(WEIGHT), atol=1e-5) and torch.equal(model(x=x), model(x))
    assert not list(model.parameters()) and not model(x.requires_grad_()).requires_grad


def test_several_outputs_keep_their_names(tmp_path):
    found = onnx_model(written(tmp_path / "m.onnx", outputs=("a", "b")))(torch.zeros(2, 12))
    assert list(found) == ["a", "b"] and found["b"].shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(2, 12, dtype=torch.long),), "'x' must be a tensor(float), got torch.int64"),
        ((torch.zeros(2, 12), torch.zeros(2)), "takes 1 inputs (x), got 2"),
        ((torch.zeros(2, 7),), "ONNX Runtime failed"),
    ],
)
def test_what_it_cant_take_is_said(tmp_path, arguments, words):
    with pytest.raises(TaskError) as error:
        onnx_model(written(tmp_path / "m.onnx"))(*arguments)
    assert words in str(error.value)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(TaskError, match="there is no ONNX file"):
        onnx_model(tmp_path / "nowhere.onnx")
    (tmp_path / "text.onnx").write_text("hello, world")
    with pytest.raises(TaskError, match="is not an ONNX file|can't be loaded"):
        onnx_model(tmp_path / "text.onnx")
    with pytest.raises(TaskError, match="keeps 1 weights in other files"):
        onnx_model(written(tmp_path / "m.onnx", outside=True))


def task_of(path: Path, **changes):
    return replace(small_task(), models={"teacher": lambda: onnx_model(path)}, weights={}, **changes)


def test_as_a_teacher_it_is_an_artifact_of_which_no_fact_is_known(tmp_path):
    path = written(tmp_path / "m.onnx")
    candidate = teacher_candidate(task_of(path))
    assert isinstance(candidate.form, ArtifactForm) and candidate.form.artifact.path == path and not candidate.facts
    assert torch.equal(runnable(candidate.form, task_of(path))(torch.ones(1, 12)), onnx_model(path)(torch.ones(1, 12)))
    with pytest.raises(TaskError, match="holds its own weights"):
        teacher_candidate(replace(task_of(path), weights={"teacher": {}}))
    with pytest.raises(TaskError, match="can't be one of an ensemble"):
        teacher_candidate(replace(task_of(path), models={"teacher": [lambda: onnx_model(path)] * 2}))


def test_what_needs_a_module_is_refused_until_a_student_is_there():
    cards = {card_of(f).name: card_of(f) for f in ALL}
    stages = {name: Stage(technique=name) for name in cards}
    nothing = frozenset()
    for first in ("prune", "quantize"):
        refusal = illegal(Plan(stages=(stages[first],)), cards, nothing)
        assert refusal is not None and "the teacher is a file that a runtime loads, not a module" in refusal.reason
    assert illegal(Plan(stages=(stages["distill"], stages["prune"], stages["quantize"])), cards, nothing) is None
    refusal = illegal(Plan(stages=(stages["distill"], stages["quantize"], stages["distill"])), cards, nothing)
    assert refusal is not None and "would undo 'quantized'" in refusal.reason


def exported(path: Path) -> Path:
    from limbeck.mechanics.data import example
    from limbeck.runtimes import runtime

    task = small_task()
    made = runtime("onnxruntime").export(example(task, runnable(teacher_candidate(task).form, task)), path.parent / "made")
    path.write_bytes(made.path.read_bytes())
    return path


def test_a_run_goes_from_the_file_to_a_student_and_says_when_there_is_none(tmp_path):
    path = exported(tmp_path / "net.onnx")
    config = {"student": "limbeck:resnet", "options": {"widths": [4, 8, 8]}, "training": Training(epochs=2, batch_size=16)}
    gate = {"pays": "bytes", "shrink": 1.05}
    from limbeck import Gate

    plan = Plan(stages=(Stage(technique="distill", config=config, gate=Gate(**gate, retention=0.1)), Stage(technique="quantize", gate=Gate(**gate, retention=0.1))), control=False)
    request = Request(task=task_of(path), contract=Contract(retention=0.1, size_ratio=1.5), plan=plan, root=tmp_path, timing_seconds=0.05)
    from limbeck.pipeline.context import QuietLog

    found = carry_out(request, log=QuietLog())
    assert (tmp_path / "run" / found["baseline"]["artifact"]).read_bytes() == path.read_bytes()
    assert [s["verdict"] for s in found["stages"]] == ["PASS", "PASS"] and found["ratios"]["size"] > 1.5
    again = carry_out(request, log=QuietLog())  # from its records
    assert all(again[key] == found[key] for key in ("baseline", "final", "stages", "contract", "verdict"))
    strict = replace(plan, stages=(replace(plan.stages[0], gate=Gate(**gate, retention=1.05)), plan.stages[1]))
    left = carry_out(replace(request, plan=strict, name="strict"), log=QuietLog())
    assert "the stage that was to give it didn't pass" in left["stages"][1]["error"] and left["chosen"]["stage"] == "distill"
    from limbeck import Target

    with pytest.raises(ArtifactError, match="Set target.runtime"):
        carry_out(replace(request, target=Target(runtime="torch"), name="torch"), log=QuietLog())
