"""A run whose contract limits a percentile: timed until it is settled, kept with how, and not timed again."""

from __future__ import annotations

import json
from typing import Any

import limbeck
from limbeck import Contract, Gate, Plan, Stage
from limbeck.core.proof import Proof
from limbeck.testing import small_task

STAGES = (Stage(technique="quantize", config={"samples": 64}, gate=Gate(pays="bytes", shrink=1.05, retention=0.0)),)


def kept(folder: Any) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The key and the data of every timing of a run."""
    found = []
    for path in sorted((folder / "measurements").glob("latency-*.json")):
        record = json.loads(path.read_text())
        found.append((record["key"], json.loads((folder / "objects" / record["object"][:2] / record["object"]).read_bytes())))
    return found


def test_a_limit_on_a_percentile_decides_how_long_is_timed_and_is_kept(tmp_path):
    def run(contract: Contract) -> dict[str, Any]:
        return limbeck.compress(small_task(), contract, Plan(stages=STAGES, control=False), name="run", root=tmp_path, timing_seconds=0.05, proof=Proof(studies="none")).summary

    contract = Contract(size_ratio=1.5, latency_p90_ms=500.0)
    summary = run(contract)
    verdict = next(v for v in summary["contract"] if v["gate"] == "latency_p90_ms")
    assert verdict["status"] == "PASS" and "took longer than 500 ms" in verdict["reason"]
    for model in ("baseline", "final"):
        (low, high), value = summary[model]["latency_interval_ms"]["p50"], summary[model]["latency_ms"]["p50"]
        assert low <= value <= high
        assert summary[model]["latency_note"] is None or isinstance(summary[model]["latency_note"], str)
    timed = kept(tmp_path / "run")
    assert [key["goal"] for key, data in timed if len(data) == 2 and "goal" in key] == [{"limits": {"0.9": 500.0}, "judged": 1, "early": True}]
    assert all(one["anytime"] == ("goal" in key) and one["warm_up"]["inferences"] >= 3 for key, data in timed for one in data)
    assert run(contract)["final"] == summary["final"] and kept(tmp_path / "run") == timed
