"""Energy: counted on a made-up machine whose counter ticks, and modelled by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from device_models import broken, setting

from limbeck.analysis.flow import Flow, Step
from limbeck.core.errors import Interrupted
from limbeck.core.evidence import Status
from limbeck.evaluation import device
from limbeck.evaluation.studies import MISSING, Side, taken
from limbeck.evaluation.studies.energy import energy_at_most, modelled, study

WATTS, RANGE = 50.0, 4_000_000  # the counter begins again every 80 ms


@pytest.fixture
def ticking(tmp_path: Path) -> Iterator[Path]:
    """A package whose counter rises at 50 W, whatever runs."""
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
    stop, start = threading.Event(), time.perf_counter()

    def tick() -> None:
        while not stop.is_set():
            (zone / "next").write_text(f"{int((time.perf_counter() - start) * WATTS * 1e6) % (RANGE + 1)}\n")
            (zone / "next").replace(zone / "energy_uj")
            time.sleep(0.001)

    (zone / "energy_uj").write_text("0\n")
    thread = threading.Thread(target=tick)
    thread.start()
    yield zone.parent
    stop.set()
    thread.join()


def test_a_counter_is_read_in_the_measured_process(ticking: Path, tmp_path: Path):
    """Windows are 50 ms, in most of which this counter begins again; forgetting that makes power negative."""
    found = taken(setting(tmp_path, seconds=0.1), (study(ticking),))["energy"]
    assert (found["how"], found["counters"], found["rounds"]) == ("counted", ["package-0 (intel-rapl:0)"], 8)
    assert 0.3 * WATTS < found["idle_watts"] < 3 * WATTS
    assert all(m["with_idle_mj"] > 0 and m["low_mj"] <= m["mj"] <= m["high_mj"] for m in found["models"].values())


def test_idle_is_taken_off_in_each_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Idle at 10 W; the candidate takes 2 mJ an inference above it, the baseline 10."""

    def window(mj: float, inferences: int, idle_watts: float) -> dict:
        return {"uj": inferences * mj * 1e3 + idle_watts * 1e6 * 0.1, "seconds": 0.1, "inferences": inferences}

    rounds = [{"idle": {"uj": watts * 1e6 * 0.2, "seconds": 0.2}, "models": [window(10, 20, watts), window(2, 100, watts)]} for watts in (8, 9, 9.5, 10, 10, 10.5, 11, 12)]
    monkeypatch.setattr(device, "asked", lambda *_, **__: {"zones": ["package-0"], "rounds": rounds, "window_s": 0.1, "others": 0.2})
    counted = device.energy([], {}, threads=1, seconds=1)
    assert isinstance(counted, device.Energy)
    assert counted.idle_watts == pytest.approx((8, 9, 9.5, 10, 10, 10.5, 11, 12)) and counted.disturbed
    assert counted.net_mj[0] == pytest.approx([10] * 8) and counted.net_mj[1] == pytest.approx([2] * 8)
    assert counted.gross_mj[1][0] == pytest.approx(2 + 8 * 0.1 / 100 * 1e3)


def test_without_a_counter_it_is_modelled_and_says_so(tmp_path: Path):
    found = taken(setting(tmp_path, batch=4), (study(tmp_path / "nowhere"),))["energy"]
    assert found["how"] == "modelled" and "no RAPL" in found["why"] and "Horowitz" in found["source"] and found["left_out"]
    one, other = found["models"]["candidate"], found["models"]["baseline"]
    macs, weights, moved = 65 * 200, 65 * 200 * 4, (64 + 200 + 200 + 1) * 4 * 4  # of a sample; of all; of four samples
    assert one["macs"] == {"float32": macs} and one["weight_bytes"] == weights / 4 and one["activation_bytes"] == moved / 4
    assert one["mj"] == pytest.approx((macs * 4.6 + weights / 4 * 162.5 + moved / 4 * 12.5) / 1e9)
    assert one["low_mj"] < one["mj"] < one["high_mj"] and one["mj"] < other["mj"]


def test_eight_bits_cost_less_than_thirty_two():
    step = {"name": "s", "operator": "Conv", "reads": ("x",), "makes": {"y": 100}, "shows": {}, "macs": 1000}
    float32 = modelled(Flow((Step(**step, weight_bytes=400),), {"x": 400}, ("y",), 400), 1)
    int8 = modelled(Flow((Step(**step, weight_bytes=100, precision="int8"),), {"x": 100}, ("y",), 100), 1)
    assert float32["parts_mj"] == pytest.approx({"multiply_adds": 4600e-9, "weights": 400 * 162.5e-9, "activations": 500 * 12.5e-9})
    assert int8["parts_mj"] == pytest.approx({"multiply_adds": 300e-9, "weights": 100 * 162.5e-9, "activations": 200 * 12.5e-9})
    assert modelled(Flow((Step(**step | {"macs": None}),), {"x": 4}, ("y",), 0), 1)["uncounted"] == ["Conv"]


def counted(low: float, value: float, high: float, *, disturbed: bool = False) -> dict:
    return {"how": "counted", "counters": ["package-0"], "disturbed": disturbed, "models": {"candidate": {"mj": value, "low_mj": low, "high_mj": high}}}


def test_a_counter_passes_and_fails_by_its_interval():
    assert energy_at_most(counted(1, 2, 3), 3).status is Status.PASS
    assert energy_at_most(counted(1, 2, 3), 2.5).status is Status.INCONCLUSIVE
    assert energy_at_most(counted(1, 2, 3), 0.9).status is Status.FAIL
    noisy = energy_at_most(counted(1, 2, 3, disturbed=True), 3)
    assert noisy.status is Status.INCONCLUSIVE and "other processes" in noisy.reason


@pytest.mark.parametrize("limit", [1e-9, 1e9])
def test_a_modelled_figure_is_never_a_verdict(limit: float):
    figures = {"how": "modelled", "why": "no counter", "models": {"candidate": {"mj": 0.5}}}
    verdict = energy_at_most(figures, limit)
    assert verdict.status is Status.UNVERIFIED and verdict.measured is None and "0.5 mJ" in verdict.reason
    assert energy_at_most({"how": "modelled", "why": "no counter", "models": {"candidate": {"mj": None, "why": "mute"}}}, limit).status is Status.UNVERIFIED


def test_what_does_not_load_and_a_stop(tmp_path: Path, ticking: Path):
    given = setting(tmp_path, baseline=False)
    for where in (tmp_path / "nowhere", ticking):
        assert "can't be loaded" in taken(replace(given, candidate=Side(artifact=broken(tmp_path / "broken"))), (study(where),))["energy"][MISSING]
    with pytest.raises(Interrupted):
        taken(replace(given, stop=lambda: True), (study(ticking),))
