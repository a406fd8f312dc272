"""Three columns: what is compared with what, and that the figures are those of the models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from quarters import constant, made, of_fixed_batch, with_file

from limbeck.core.candidate import Artifact
from limbeck.core.errors import Interrupted
from limbeck.core.metric import Metric
from limbeck.evaluation.quality import rows_of_module
from limbeck.evaluation.studies import MISSING, taken
from limbeck.evaluation.studies.columns import COLUMNS
from limbeck.intake.metrics import macro_f1


def columns(setting) -> dict:
    return taken(setting, (COLUMNS,))["columns"]


def test_each_column_is_its_models_own_metric():
    setting = made()
    found = columns(setting)
    values = {c["name"]: c["metric"] for c in found["columns"]}
    task = setting.task
    sides = {"fp32": setting.baseline, "simulated": setting.candidate}
    for name, side in sides.items():
        assert values[name] == task.metric.value(rows_of_module(side.module(), task, "test"))
    assert values["deployed"] == task.metric.value(setting.candidate.rows) and values["fp32_deployed"] == task.metric.value(setting.baseline.rows)
    assert found["samples"] == 96 and found["whole"]
    assert [d["what"] for d in found["differences"]] == ["compression", "deployment of the baseline", "deployment"]
    assert found["layers"]["first"] is None and len(found["layers"]["rows"]) == 6


def test_a_damaged_file_shows_in_deployment_and_in_its_layer(tmp_path: Path):
    """The head's weights turned round: the simulation keeps its answers, the artifact gives others."""
    bad = with_file(made(), tmp_path / "bad.onnx", lambda m: constant(m, "model.head.weight_quantizer.integers", lambda v: -v))
    found = columns(bad)
    steps = {d["what"]: d for d in found["differences"]}
    assert steps["compression"]["drop"] < 0.1 < 0.5 < steps["deployment"]["drop"] and steps["deployment"]["low"] > 0.4
    assert steps["deployment"]["agreement"] < 0.3 < 0.9 < steps["compression"]["agreement"]
    assert found["layers"]["first"]["module"] == "head" and found["layers"]["first"]["stage"] == "file"


def test_fewer_samples_are_those_of_the_setting_and_rows_of_the_verdict_are_taken_from_them():
    found = columns(replace(made(), samples=32))
    assert found["samples"] == 32 and not found["whole"] and found["outputs_samples"] == 32


def test_samples_that_dont_fill_a_fixed_batch_are_judged(tmp_path: Path):
    setting = replace(made(), samples=20)
    blind = replace(setting, candidate=replace(setting.candidate, rows=None))
    found, free = columns(of_fixed_batch(blind, tmp_path / "eight.onnx", 8)), columns(blind)
    assert found["columns"] == free["columns"] and found["outputs_samples"] == 20 and found["layers"]["first"] is None
    last = found["differences"][-1]
    assert last["what"] == "deployment" and last["max_abs"] == pytest.approx(free["differences"][-1]["max_abs"], abs=1e-5)
    few = columns(replace(of_fixed_batch(blind, tmp_path / "five.onnx", 8), samples=5))
    assert few["samples"] == 5 and few["differences"][-1]["max_abs"] is not None


def test_answers_that_the_rows_dont_tell_are_not_guessed_from_outputs():
    """A map of numbers has a largest in each row, too: that is no answer."""
    cost = Metric(name="cost", rows=lambda outputs, batch: {"cost": outputs["logits"][:, 0]}, reduce=lambda rows: float(rows["cost"].mean()), ratio=False)
    setting = made()
    own = replace(setting.task, metric=cost)
    found = columns(replace(setting, task=own, candidate=replace(setting.candidate, rows=None), baseline=replace(setting.baseline, rows=None)))
    assert [d["agreement"] for d in found["differences"]] == [None] * 3 and all(d["max_abs"] is not None for d in found["differences"])


def test_a_large_network_is_judged_on_fewer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("limbeck.evaluation.studies.columns.LEAST", 20)
    setting = made()
    heavy = replace(setting, candidate=replace(setting.candidate, macs=10**8), seconds=0.3)
    assert columns(heavy)["samples"] == 30  # 0.3 s at 10 GMAC a second
    assert columns(replace(heavy, seconds=0.01))["samples"] == 20


def test_a_metric_that_is_no_share_is_bounded_by_the_bootstrap():
    setting = made()
    metric = macro_f1()
    task = replace(setting.task, metric=metric)
    sides = [replace(s, rows=None) for s in (setting.baseline, setting.candidate)]
    found = columns(replace(setting, task=task, baseline=sides[0], candidate=sides[1]))
    step = found["differences"][0]
    assert "BCa" in step["method"] and step["low"] <= step["drop"] <= step["high"]


def test_without_a_baseline_there_are_two_columns():
    found = columns(replace(made(), baseline=None))
    assert [c["name"] for c in found["columns"]] == ["simulated", "deployed"] and len(found["differences"]) == 1


def test_a_file_that_nobody_here_exported_simulates_itself():
    """Oracle 21: unoptimized, the file is its simulation, so that the column is the same."""
    setting = made()
    found = columns(replace(setting, baseline=replace(setting.baseline, module=None), candidate=replace(setting.candidate, module=None)))
    known = {c["name"]: c for c in columns(setting)["columns"]}
    assert {c["name"]: c["metric"] for c in found["columns"]} == {
        "fp32_deployed": known["fp32_deployed"]["metric"],
        "unoptimized": known["simulated"]["metric"],
        "deployed": known["deployed"]["metric"],
    }
    assert [(d["before"], d["after"]) for d in found["differences"]] == [("fp32_deployed", "unoptimized"), ("unoptimized", "deployed")]
    assert "no torch module" in found["layers"][MISSING]


def test_without_a_task_or_any_simulation_it_says_why():
    setting = made()
    assert "--task" in columns(replace(setting, task=None))[MISSING]
    other = replace(setting.candidate, module=None, artifact=Artifact(setting.candidate.artifact.path, "torch"))
    assert "torch module" in columns(replace(setting, candidate=other))[MISSING]


def test_a_stop_is_heard():
    with pytest.raises(Interrupted):
        columns(replace(made(), stop=lambda: True))
