"""What CPUs without VNNI would answer: predicted on the same samples, with the remedy beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quarters import constant, made, of_fixed_batch, with_file

from limbeck.core.candidate import Artifact
from limbeck.core.errors import Interrupted
from limbeck.evaluation.machine import Machine
from limbeck.evaluation.studies import MISSING, taken
from limbeck.evaluation.studies import saturation as module
from limbeck.evaluation.studies.saturation import SATURATION


def saturation(setting) -> dict:
    return taken(setting, (SATURATION,))["saturation"]


def run(found: dict, mode: str) -> dict:
    return next(r for r in found["runs"] if r["mode"] == mode)


def test_sums_that_are_cut_off_are_counted_layer_by_layer():
    setting = made()
    found = saturation(setting)
    assert [la["module"] for la in found["layers"]] == ["features.0", "features.3", "features.6", "head"]
    assert sum(la["neighbours"]["saturated"] for la in found["layers"]) > 100 and found["risky"] and found["not_emulated"] == []
    first, head = found["layers"][0], found["layers"][-1]
    assert first["neighbours"]["sums"] == found["samples"] * 64 * 16 * 5 and first["pairs"] == 16 * 5  # 9 weights a channel: 5 pairs
    assert head["neighbours"]["sums"] == found["samples"] * 4 * 16
    assert found["measured"] == setting.task.metric.value({k: v[: found["samples"]] for k, v in setting.candidate.rows.items()})
    assert found["agreement_here"]["exact"] == 1 or found["cpu"]["saturates"]


def test_seven_bits_keep_what_saturation_loses(tmp_path: Path):
    """All weights of the first layer at ±127, as a scale that is too small would leave them: neighbours of one sign saturate."""
    bad = with_file(made(), tmp_path / "hard.onnx", lambda m: constant(m, "model.features.0.weight_quantizer.integers", lambda v: np.where(v > 0, 127, -127).astype(np.int8)))
    found = saturation(bad)
    predicted, seven = run(found, "neighbours"), run(found, "seven")
    assert predicted["agreement"] < 0.9 and seven["agreement"] > 0.95 and found["warning"] == (predicted["drop"] > 0)
    assert predicted["low"] <= predicted["drop"] <= predicted["high"] and "7-bit" in found["finding"]
    assert f"accuracy of {found['samples']} samples {predicted['metric']:.4f} there" in found["finding"], "another number of samples than the verdict's"


def test_weights_of_seven_bits_have_nothing_to_lose():
    found = saturation(made(reduce_range=True))
    assert not found["risky"] and not found["warning"] and found["runs"] == [] and len(found["layers"]) == 4
    assert all(la[mode]["risky_pairs"] == 0 for la in found["layers"] for mode in ("neighbours", "sorted"))


def test_a_float_file_has_nothing_to_cut_off():
    setting = made()
    found = saturation(replace(setting, candidate=setting.baseline))
    assert found["products"] == 0 and found["layers"] == [] and "nothing" in found["finding"]


def test_without_a_task_outputs_are_compared():
    setting = made()
    found = saturation(replace(setting, task=None, candidate=replace(setting.candidate, module=None, rows=None)))
    assert found["metric"] is None and found["samples"] == 1
    assert run(found, "neighbours")["metric"] is None and run(found, "seven")["max_rel"] is not None and 0 <= run(found, "seven")["agreement"] <= 1


def test_samples_that_dont_fill_a_fixed_batch_are_emulated(tmp_path: Path):
    setting = replace(made(), samples=20)
    found, free = saturation(of_fixed_batch(setting, tmp_path / "eight.onnx", 8)), saturation(setting)
    assert found["samples"] == 20 and [r["metric"] for r in found["runs"]] == [r["metric"] for r in free["runs"]] and found["measured"] == free["measured"]


@pytest.mark.slow
def test_text_is_emulated_too():
    found = saturation(made("words"))
    assert found["products"] == 25 and found["not_emulated"] == [] and run(found, "seven")["agreement"] >= run(found, "neighbours")["agreement"]


def test_time_bounds_the_samples(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MACS_A_SECOND", 1e3)
    assert saturation(made())["samples"] == module.LEAST


@pytest.mark.parametrize(("instructions", "expected"), [(("AVX2", "AVX-VNNI"), False), (("AVX2", "AVX-512"), True), (("AVX2", "AVX-512", "AVX-512 VNNI"), False), ((), None)])
def test_what_this_machine_does(monkeypatch: pytest.MonkeyPatch, instructions: tuple[str, ...], expected: bool | None):
    monkeypatch.setattr(module, "read_machine", lambda path: Machine(instructions=instructions, processor="X"))
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    assert module._cpu()["saturates"] is expected


def test_an_arm_is_no_such_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.platform, "machine", lambda: "aarch64")
    assert module._cpu()["saturates"] is None and module._cpu()["vnni"] is None


def test_other_runtimes_and_a_stop(tmp_path: Path):
    setting = made()
    other = replace(setting, candidate=replace(setting.candidate, artifact=Artifact(tmp_path / "m.pt2", "torch")))
    assert "isn't known" in saturation(other)[MISSING]
    with pytest.raises(Interrupted):
        saturation(replace(setting, stop=lambda: True))
