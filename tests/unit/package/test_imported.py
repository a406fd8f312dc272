"""Evidence from another device: what is refused, what it changes, and that the run's own command keeps it."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from limbeck import Contract, api
from limbeck.core.errors import ConfigError, RunError
from limbeck.core.seal import sealed
from limbeck.package.evidence import read_evidence

sys.path.insert(0, str(Path(__file__).parent))
from conftest import carried_out

DEVICE = ("latency_p90_ms", "speedup_p50", "peak_memory_bytes")


def evidence(package, *, fast=1.0, slow=3.0, baseline=True, **changes):
    """What a device would write: `fast` and `slow` are the milliseconds of the artifact and of the baseline."""
    timed = {"artifact": {"blocks": [[fast] * 5] * 20, "waited": 0.0, "disturbed": False}}
    timed |= {"baseline": {"blocks": [[slow] * 5] * 20, "waited": 0.0, "disturbed": False}} if baseline else {}
    return {
        "schema": 1,
        "kind": "limbeck-evidence",
        "artifact": package.manifest.artifact.sha256,
        "baseline": package.manifest.baseline.sha256 if baseline else None,
        "runtime": {"name": "onnxruntime", "version": "1.0"},
        "threads": 1,
        "batch": 1,
        "latency_ms": timed,
        "peak_memory_bytes": {"artifact": 1000, **({"baseline": 3000} if baseline else {})},
        "golden": {"samples": 8, "max_rel": 0.0, "holds": True},
        "machine": {"processor": "a small board", "cores": 4},
        "versions": {"onnxruntime": "1.0"},
        "time": "2026-01-01T00:00:00+00:00",
    } | changes


def written(path: Path, data) -> Path:
    path.write_bytes(sealed(data, allow_nan=True))
    return path


def statuses(run: Path) -> dict[str, str]:
    return {v["gate"]: v["status"] for v in api.status(run)["contract"]}


def test_it_is_unverified_until_evidence_comes_and_then_judged(run, package, tmp_path):
    assert api.status(run)["exit_code"] == 4 and [statuses(run)[g] for g in DEVICE] == ["UNVERIFIED"] * 3
    waiting = next(v for v in api.status(run)["contract"] if v["gate"] == "speedup_p50")
    assert "limbeck evidence import" in waiting["reason"]
    found = api.import_evidence(run, written(tmp_path / "e.json", evidence(package)))
    summary = api.status(run)
    assert found["verdict"] == summary["verdict"] == "PASS" and found["exit_code"] == summary["exit_code"] == 0 and found["used"] and found["notes"] == []
    assert summary["final"]["latency_ms"] == {"p50": 1.0, "p90": 1.0, "p99": None} and summary["baseline"]["peak_memory_bytes"] == 3000 and summary["ratios"]["latency_p50"] == 3.0
    assert summary["imported"][0]["machine"]["processor"] == "a small board" and summary["imported"][0]["used"]
    assert api.verify(run)["clean"] and api.gc(run)["files"] == [f for f in api.gc(run)["files"] if f["file"].startswith("cache/")]
    assert api.package(run, out=tmp_path / "after").manifest.verdict == "PASS"


def test_the_runs_own_command_keeps_it_to_the_byte(task, run, package, tmp_path):
    api.import_evidence(run, written(tmp_path / "e.json", evidence(package)))
    before, journal = api.status(run), (run / "journal.jsonl").read_bytes()
    assert carried_out(task, run.parent).verdict == "PASS"
    after = api.status(run)
    changes = {k for k in before if before[k] != after[k]} - {"sha256"}
    assert (run / "journal.jsonl").read_bytes() == journal and changes <= {"environment"}
    assert {k for k in before["environment"] if before["environment"][k] != after["environment"][k]} <= {"time"}


def test_a_device_that_is_too_slow_fails_the_contract(task, run, tmp_path):
    contract = Contract(retention=0.3, latency_p90_ms=5, speedup_p50=2)
    carried_out(task, run.parent, contract=contract)
    package = api.package(run, out=tmp_path / "p")
    found = api.import_evidence(run, written(tmp_path / "e.json", evidence(package, fast=9.0, slow=9.0)))
    assert found["verdict"] == "FAIL" and found["exit_code"] == 3 and statuses(run) == {"retention": "PASS", "latency_p90_ms": "FAIL", "speedup_p50": "FAIL"}
    better = api.import_evidence(run, written(tmp_path / "f.json", evidence(package, fast=1.0, slow=9.0)))
    assert better["verdict"] == "PASS" and len(api.status(run)["imported"]) == 2  # the last one counts, both are kept
    assert carried_out(task, run.parent, contract=contract).verdict == "PASS"


def test_without_a_baseline_speedup_stays_unverified_and_says_so(run, package, tmp_path):
    found = api.import_evidence(run, written(tmp_path / "e.json", evidence(package, baseline=False)))
    assert found["verdict"] == "UNVERIFIED" and found["exit_code"] == 4 and "no baseline" in found["notes"][0]
    assert [statuses(run)[g] for g in DEVICE] == ["PASS", "UNVERIFIED", "PASS"]
    assert "--with-baseline" in next(v for v in found["contract"] if v["gate"] == "speedup_p50")["reason"]


def test_on_a_local_run_it_is_shown_and_changes_no_verdict(task, run, tmp_path):
    carried_out(task, run.parent, host="local")
    before = api.status(run)
    found = api.import_evidence(run, written(tmp_path / "e.json", evidence(api.package(run, out=tmp_path / "p"), fast=1e6, slow=1e6)))
    after = api.status(run)
    assert not found["used"] and 'host = "local"' in found["notes"][0] and after["imported"][0]["latency_ms"]["p50"] == 1e6
    assert {k for k in before if before[k] != after[k]} == {"imported", "journal_head", "sha256"}
    assert carried_out(task, run.parent, host="local").summary["imported"] == after["imported"] and api.verify(run)["clean"]


def test_evidence_of_another_stage_is_kept_and_not_judged(run, package, tmp_path):
    teacher = api.package(run, out=tmp_path / "teacher", stage="baseline")
    found = api.import_evidence(run, written(tmp_path / "e.json", evidence(teacher, baseline=False)))
    assert not found["used"] and found["verdict"] == "UNVERIFIED" and "it is of stage 'baseline'" in found["notes"][0]


def test_an_import_that_was_killed_before_its_summary_is_finished_by_another(task, run, package, tmp_path):
    summary, file = (run / "summary.json").read_bytes(), written(tmp_path / "e.json", evidence(package))
    api.import_evidence(run, file)
    whole, journal = api.status(run), (run / "journal.jsonl").read_bytes()
    (run / "summary.json").write_bytes(summary)  # killed between journal and summary
    found = api.import_evidence(run, file)
    assert found["verdict"] == "PASS" and api.status(run) == whole and (run / "journal.jsonl").read_bytes() == journal
    assert "imported before" in found["notes"][-1]
    (run / "summary.json").write_bytes(summary)
    assert carried_out(task, run.parent).verdict == "PASS" and (run / "journal.jsonl").read_bytes() == journal


BLOCK = [[1.0] * 5] * 20
WRONG = [
    ({"kind": "something"}, "is no evidence"),
    ({"schema": 2}, "schema must be 1, got 2"),
    ({"artifact": "0" * 64}, "which is no artifact of"),
    ({"artifact": "../x"}, "must be a SHA-256 in hex"),
    ({"threads": 4}, "was measured with threads 4, and the run's target has 1"),
    ({"batch": 8}, "was measured with batch 8"),
    ({"runtime": {"name": "torch", "version": "2"}}, "was measured with runtime torch"),
    ({"threads": True}, "threads must be a whole number"),
    ({"latency_ms": {"artifact": {"blocks": [], "disturbed": False}}}, "blocks must be lists of milliseconds"),
    ({"latency_ms": {"artifact": {"blocks": [[1.0], [-1.0]], "disturbed": False}}}, "must hold milliseconds above 0 and up to 1e"),
    ({"latency_ms": {"artifact": {"blocks": [[0.0]], "disturbed": False}}}, "got 0.0"),
    ({"latency_ms": {"artifact": {"blocks": [["1"]], "disturbed": False}}}, "got '1'"),
    ({"latency_ms": {"artifact": {"blocks": [[float("nan")]], "disturbed": False}}}, "got nan"),
    ({"latency_ms": {"artifact": {"blocks": BLOCK, "disturbed": False}, "baseline": {"blocks": BLOCK[:3], "disturbed": False}}}, "equally often"),
    ({"latency_ms": {}}, "isn't as `predict.py --measure` writes it"),
    ({"peak_memory_bytes": {"artifact": -1, "baseline": 1}}, "must be a whole number from 0"),
    ({"golden": {"samples": 8, "max_rel": 0.5, "holds": False}}, "answered otherwise there"),
    ({"machine": 3}, "isn't as `predict.py --measure` writes it"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_cant_be_is_refused_and_leaves_the_run_as_it_was(run, package, tmp_path, change, message):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "lock"}
    with pytest.raises(ConfigError, match=message):
        api.import_evidence(run, written(tmp_path / "e.json", evidence(package, **change)))
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "lock"} == before


def test_changed_evidence_and_what_is_none_are_refused(run, package, tmp_path):
    file = written(tmp_path / "e.json", evidence(package))
    file.write_bytes(file.read_bytes().replace(b'"cores": 4', b'"cores": 8'))
    with pytest.raises(ConfigError, match="was changed since it was written"):
        read_evidence(file)
    for raw, message in ((b"no JSON", "is not JSON"), (b"[1]", "is no evidence"), (b"[" * 100_000, "is not JSON")):
        file.write_bytes(raw)
        with pytest.raises(ConfigError, match=message):
            api.import_evidence(run, file)
    with pytest.raises(ConfigError, match="can't be read"):
        api.import_evidence(run, tmp_path / "nowhere.json")


def test_a_run_without_a_verdict_takes_none(run, package, tmp_path):
    file = written(tmp_path / "e.json", evidence(package))
    other = Path(shutil.copytree(run, tmp_path / "other"))
    (other / "summary.json").unlink()
    with pytest.raises(RunError, match="has no verdict yet"):
        api.import_evidence(other, file)


def test_the_import_stands_in_the_journal_and_in_measurements(run, package, tmp_path):
    api.import_evidence(run, written(tmp_path / "e.json", evidence(package)))
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    assert [x["event"] for x in lines[-2:]] == ["evidence", "verdict"] and lines[-2]["data"]["used"] and lines[-1]["data"]["status"] == "PASS"
    (path,) = (run / "measurements").glob("imported-*.json")
    sha = json.loads(path.read_text())["object"]
    assert sha == lines[-2]["data"]["object"]
    (run / "objects" / sha[:2] / sha).unlink()
    assert not api.verify(run)["clean"]
