"""Runs of the past open today: each that stands in tests/golden/runs is read, verified, compared, moved, brought back and resumed."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from limbeck import api
from limbeck.core.errors import LimbeckError, RunError

sys.path.insert(0, str(Path(__file__).parent))
from make_run import RUNS, carried_out

OLD = sorted(p.name for p in RUNS.iterdir())


@pytest.fixture(params=OLD)
def old(request, tmp_path) -> Path:
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


def test_there_is_one_and_it_is_small():
    assert OLD and all(sum(f.stat().st_size for f in (RUNS / name).rglob("*") if f.is_file()) < 1_000_000 for name in OLD)


def test_it_opens(old):
    summary = api.status(old)
    assert summary["verdict"] in ("PASS", "FAIL", "INCONCLUSIVE") and (old / summary["final"]["artifact"]).exists()
    found = api.verify(old)
    assert found["clean"] and found["checked"] > 40, found
    (listed,) = api.runs(old.parent)["runs"]
    assert listed["state"] == summary["verdict"] and listed["ratios"] == summary["ratios"] and listed["stages"] == len(summary["plan"]["stages"])
    assert next(api.follow(old))["event"] == "run"
    stages = api.diff(f"{old}@{summary['stages'][0]['name']}", f"{old}@{summary['stages'][-1]['name']}")
    assert stages["edits"]["kinds"] and {r["name"] for r in stages["evidence"]} >= {"size_bytes", "retention", "metric"}


def test_it_moves_and_rolls_back(old, tmp_path):
    first = api.status(old)["stages"][0]
    back = api.rollback(old, first["name"])
    assert back["artifact"] == first["artifact"] and api.verify(old)["clean"]
    api.export_run(old, tmp_path / "old.zip")
    assert api.verify(api.import_run(tmp_path / "old.zip", root=tmp_path / "new")["folder"])["clean"]


def test_it_is_resumed_or_refused_with_a_reason(old):
    """Under today's libraries its records may not apply, and stages run again; what it held is never lost."""
    before = (old / "journal.jsonl").read_bytes()
    try:
        result = carried_out(old.parent, old.name)
    except LimbeckError as error:
        assert "limbeck" in str(error) and len(str(error)) > 40
        return
    assert result.verdict == "PASS" and (old / "journal.jsonl").read_bytes().startswith(before)
    assert api.verify(old)["clean"] and api.gc(old)["deleted"] is False


LATER = {
    "journal.jsonl": (lambda text: text.replace('{"version":1,', '{"version":9,', 1), "journal.jsonl, line 1: version is 9; this limbeck reads up to 1"),
    "summary.json": (lambda text: json.dumps({**json.loads(text), "schema": 9, "sha256": None}), "summary.json.schema is 9; this limbeck reads up to 2"),
}


@pytest.mark.parametrize("file", LATER)
def test_a_run_of_a_later_limbeck_says_so(old, file):
    change, message = LATER[file]
    (old / file).write_text(change((old / file).read_text()))
    with pytest.raises(RunError) as raised:
        api.status(old)
    assert message in str(raised.value) and "upgrade with pip install -U limbeck" in str(raised.value)
