"""Throughput: every point of a free batch, one of a fixed one, and the verdict at the target's own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from device_models import broken, net, setting

from limbeck.core.contract import Target
from limbeck.core.errors import Interrupted
from limbeck.core.evidence import Status
from limbeck.evaluation.studies import MISSING, Side, taken
from limbeck.evaluation.studies.throughput import BATCHES, THROUGHPUT, samples_per_second_at_least


def test_every_batch_is_measured_with_its_interval_or_left_out(tmp_path: Path):
    found = taken(setting(tmp_path, seconds=1.0), (THROUGHPUT,))["throughput"]
    own = {p["batch"]: p for p in found["points"] if p["threads"] == 1}
    assert own.keys() >= {1} and set(own) | {left["batch"] for left in found["left_out"] if left["threads"] == 1} == set(BATCHES)
    assert all(r["rounds"] >= 8 and r["low"] <= r["value"] <= r["high"] for p in own.values() for r in (p["baseline"], p["candidate"]))
    assert all(p["ratio"]["low"] <= p["ratio"]["value"] <= p["ratio"]["high"] for p in own.values())
    assert found["fixed_batch"] == {"baseline": None, "candidate": None} and found["target"] == {"threads": 1, "batch": 1}


def test_a_fixed_batch_without_a_baseline(tmp_path: Path):
    given = setting(tmp_path, baseline=False, seconds=0.2)
    fixed = replace(given, candidate=Side(artifact=net(tmp_path / "fixed", 100, batch=3)), target=Target(batch=3), feed={"x": np.ones((3, 64), np.float32)})
    found = taken(fixed, (THROUGHPUT,))["throughput"]
    assert {p["batch"] for p in found["points"]} == {3} and found["fixed_batch"] == {"candidate": 3}
    assert all(p["ratio"] is None and "baseline" not in p for p in found["points"])


def at(low: float | None, value: float, high: float | None, *, disturbed: bool = False) -> dict:
    point = {"threads": 2, "batch": 4, "candidate": {"value": value, "low": low, "high": high}}
    other = {"threads": 1, "batch": 4, "candidate": {"value": 9e9, "low": 9e9, "high": 9e9}}
    return {"target": {"threads": 2, "batch": 4}, "points": [other, point], "disturbed": disturbed}


@pytest.mark.parametrize(
    ("figures", "status"),
    [(at(1000, 1200, 1300), Status.PASS), (at(900, 1200, 1300), Status.INCONCLUSIVE), (at(700, 900, 999), Status.FAIL), (at(None, 1200, None), Status.INCONCLUSIVE)],
)
def test_the_lower_end_of_the_interval_keeps_the_limit(figures: dict, status: Status):
    assert samples_per_second_at_least(figures, 1000).status is status


def test_a_disturbed_measurement_says_so_and_a_missing_point_is_no_pass():
    slowed = samples_per_second_at_least(at(700, 900, 999, disturbed=True), 1000)
    assert slowed.status is Status.INCONCLUSIVE and "quiet machine" in slowed.reason
    assert samples_per_second_at_least(at(1000, 1200, 1300, disturbed=True), 1000).status is Status.PASS
    assert "other work" in samples_per_second_at_least(at(1000, 1200, 1300, disturbed=True), 1000).reason
    assert samples_per_second_at_least(at(1000, 1200, 1300) | {"target": {"threads": 2, "batch": 1}}, 1000).status is Status.UNVERIFIED


def test_what_does_not_load_and_a_stop(tmp_path: Path):
    given = setting(tmp_path, baseline=False)
    assert "can't be loaded" in taken(replace(given, candidate=Side(artifact=broken(tmp_path / "broken"))), (THROUGHPUT,))["throughput"][MISSING]
    with pytest.raises(Interrupted):
        taken(replace(given, stop=lambda: True), (THROUGHPUT,))
