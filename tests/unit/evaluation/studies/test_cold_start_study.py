"""Cold starts: fresh processes, their parts, and what few of them prove."""

from dataclasses import replace
from pathlib import Path

import pytest
from device_models import broken, setting

from limbeck.core.errors import Interrupted
from limbeck.core.evidence import Latency, Status
from limbeck.evaluation import device
from limbeck.evaluation.studies import MISSING, Side, taken
from limbeck.evaluation.studies.cold_start import COLD_START, cold_start_at_most


def test_each_start_is_taken_apart(tmp_path: Path):
    given = setting(tmp_path, seconds=0.01)
    found = taken(replace(given, candidate=replace(given.candidate, latency=Latency(blocks=((1.0, 3.0, 2.0),)))), (COLD_START,))["cold_start"]
    one = found["models"]["candidate"]
    assert len(one["starts_ms"]) == len(found["models"]["baseline"]["starts_ms"]) == device.FEWEST  # little time: the least number
    assert all(ms > 0 for ms in one["parts_ms"].values()) and one["parts_ms"].keys() == set(device.PARTS)
    assert min(one["starts_ms"]) <= one["total_ms"] <= max(one["starts_ms"]) and sum(one["parts_ms"].values()) <= max(one["starts_ms"]) * 1.001 + 1e-6
    assert (one["low_ms"], one["high_ms"]) == (None, None) and one["steady_ms"] == 2.0 and found["models"]["baseline"]["steady_ms"] is None
    assert found["page_cache"] == "warm" and found["page_cache_note"]


def test_the_first_start_is_not_counted_and_models_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def answer(artifacts, feed, request, **_):
        asked.append(artifacts[0].path.parent.name)
        return {"process": 100.0 if len(asked) > 2 else 9000.0, "import": 20.0, "load": 5.0, "first": 1.0, "waited": 0.5 if len(asked) == 5 else 0.0}

    monkeypatch.setattr(device, "asked", answer)
    found = COLD_START.take(setting(tmp_path, seconds=2.0))
    assert asked == ["baseline", "candidate"] * 9  # one that isn't counted, and 8 that give an interval
    assert found["models"]["candidate"]["starts_ms"] == [126.0] * 8 and found["models"]["candidate"]["low_ms"] == 126.0
    given, before = setting(tmp_path, seconds=2.0, baseline=False), len(asked)
    COLD_START.take(replace(given, candidate=replace(given.candidate, latency=Latency(blocks=((1.0,),)))))
    assert len(asked) == before + 8  # it was timed before, so its files are cached
    assert (found["models"]["baseline"]["disturbed"], found["models"]["candidate"]["disturbed"]) == (1, 0)


def figures(*starts: float) -> dict:
    return {"models": {"candidate": {"starts_ms": list(starts), "total_ms": sorted(starts)[len(starts) // 2], "low_ms": None, "high_ms": None, "disturbed": 0}}}


def test_seven_starts_prove_a_median_and_six_do_not():
    assert cold_start_at_most(figures(*[100.0] * 7), 150).status is Status.PASS
    few = cold_start_at_most(figures(*[100.0] * 6), 150)
    assert few.status is Status.INCONCLUSIVE and few.samples_needed == 7 and "proof.seconds" in few.reason
    assert cold_start_at_most(figures(*[100.0] * 7), 50).status is Status.FAIL
    assert cold_start_at_most(figures(*[100.0] * 6), 50).status is Status.INCONCLUSIVE
    assert cold_start_at_most(figures(*[100.0] * 7, 200.0), 150).status is Status.INCONCLUSIVE


def test_starts_that_waited_pass_a_limit_and_fail_none():
    waited = figures(*[100.0] * 7)
    waited["models"]["candidate"]["disturbed"] = 1
    assert cold_start_at_most(waited, 150).status is Status.PASS
    slowed = cold_start_at_most(waited, 50)
    assert slowed.status is Status.INCONCLUSIVE and slowed.samples_needed is None and "1 waited" in slowed.reason


def test_an_artifact_that_does_not_load_and_a_stop(tmp_path: Path):
    given = setting(tmp_path, baseline=False)
    assert "can't be loaded" in taken(replace(given, candidate=Side(artifact=broken(tmp_path / "broken"))), (COLD_START,))["cold_start"][MISSING]
    with pytest.raises(Interrupted):
        taken(replace(given, stop=lambda: True), (COLD_START,))
