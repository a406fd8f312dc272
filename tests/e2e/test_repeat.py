"""`limbeck repeat`: several seeds, each beside its student without a teacher, in one command that can be called again."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from limbeck import accuracy, api
from limbeck.cli.main import app
from limbeck.cli.repeat import repeated
from limbeck.core.errors import ConfigError, Interrupted
from limbeck.pipeline.repeats import side_by_side

sys.path.insert(0, str(Path(__file__).parent))
from project import write_project

PAST = Path(__file__).parents[1] / "golden" / "runs" / "0.1.0"
PLAN = """
[[stage]]
technique = "distill"
config = { student = "small", training = { epochs = 3, batch_size = 16, learning_rate = 0.03, keep = "best" } }
gate = { pays = "bytes", shrink = 1.05, retention = 0.1 }
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two seeds, from 7 on, of a run file that asks for no control."""
    folder = write_project(tmp_path_factory.mktemp("repeat"), plan=PLAN, contract="retention = 0.1\nsize_ratio = 1.5", run='name = "tried"\nseed = 7\ncontrol = false\n')
    return folder, api.repeat(folder / "limbeck.toml", seeds=2)


def test_each_seed_is_a_run_of_its_own_beside_its_control(project):
    folder, data = project
    assert [(one["run"], one["seed"]) for one in data["runs"]] == [("tried-seed7", 7), ("tried-seed8", 8)]
    assert sorted(p.name for p in (folder / "runs").iterdir() if p.is_dir()) == ["tried-seed7", "tried-seed8"]
    for one in data["runs"]:
        summary = api.status(folder / "runs" / one["run"])
        assert (one["final"], one["control"], one["verdict"]) == (summary["final"]["metric"]["value"], summary["control"]["metric"]["value"], summary["verdict"])
        history, beside = summary["stages"][0]["claims"]["history"], summary["control"]["claims"]["history"]
        for training, rows in zip(one["trainings"], (history, beside), strict=True):
            scores = [row["validation"] for row in rows]
            best = {"epoch": scores.index(max(scores)) + 1, "validation": max(scores)}
            assert training["last"] == {"epoch": 3, "validation": scores[-1]} and training["best"] == training["kept"] == best
    assert data["runs"][0]["final"] != data["runs"][1]["final"] or data["runs"][0]["control"] != data["runs"][1]["control"]


def test_the_difference_is_that_of_the_runs(project):
    _, data = project
    gaps = [one["final"] - one["control"] for one in data["runs"]]
    found = data["difference"]
    assert found["value"] == pytest.approx(np.mean(gaps)) and found["low"] < found["value"] < found["high"] and found["seeds"] == 2
    assert found["seeds_error"] == pytest.approx(np.std(gaps, ddof=1) / 2**0.5) and found["samples_error"] > 0
    assert data["final"]["mean"] == pytest.approx(np.mean([one["final"] for one in data["runs"]])) and data["final"]["spread"] is not None
    assert data["test_looks"] == 2, "each run looked once"


def test_called_again_it_goes_on(project):
    folder, data = project
    journals = {p: p.read_bytes() for p in (folder / "runs").glob("*/journal.jsonl")}
    with pytest.raises(Interrupted):
        api.repeat(folder / "limbeck.toml", seeds=3, stop=lambda: True)
    again = CliRunner().invoke(app, ["repeat", str(folder / "limbeck.toml"), "-n", "2", "--json"])
    assert again.exit_code == max(one["exit_code"] for one in data["runs"]) and json.loads(again.stdout) == data
    assert all(p.read_bytes() == before for p, before in journals.items())


def test_a_run_of_one_seed_says_what_it_does_not_know(project):
    folder, whole = project
    data = side_by_side([folder / "runs" / "tried-seed7"], accuracy())
    assert data["difference"]["value"] == pytest.approx(whole["runs"][0]["final"] - whole["runs"][0]["control"])
    assert data["difference"]["seeds_error"] is None and "says nothing of another seed" in data["difference_note"] and data["final"]["spread"] is None


def test_runs_without_a_control_say_why(tmp_path):
    folder = Path(shutil.copytree(PAST, tmp_path / "old"))
    data = side_by_side([folder], accuracy())
    note = json.loads((folder / "summary.json").read_text())["control_note"].rstrip(".")
    assert data["difference"] is None and data["control"] is None and data["difference_note"].endswith(f"so nothing can be compared: {note}.")


def test_the_table_shows_what_was_kept_and_where_0_lies(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    ends = {"last": {"epoch": 6, "validation": 0.9}, "best": {"epoch": 4, "validation": 0.95}, "kept": {"epoch": 6, "validation": 0.9}}
    one = {"run": "x-seed0", "seed": 0, "verdict": "PASS", "final": 0.8, "control": 0.7, "trainings": [{"stage": s, **ends} for s in ("distill", "control")], "note": None}
    found = {"value": 0.1, "low": 0.02, "high": 0.18, "confidence": 0.95, "seeds": 3}
    mean = {"mean": 0.8, "spread": 0.0123, "seeds": 3}
    data = {"metric": {"name": "accuracy"}, "runs": [one], "final": mean, "control": mean, "difference": found, "difference_note": None, "test_looks": 3}
    repeated(data)
    told = capsys.readouterr().out
    assert "0.9000*, 0.9500 (4)" in told and "0.8000 ± 0.0123" in told and "+0.1000, 95% interval +0.0200 to +0.1800 over samples and 3 seeds: above 0" in told
    repeated({**data, "difference": {**found, "low": -0.1}})
    assert "0 is within it" in capsys.readouterr().out
    repeated({**data, "difference": None, "difference_note": "nothing can be compared: it was refused."})
    assert "nothing can be compared: it was refused." in capsys.readouterr().out


def test_no_seed_is_refused(project):
    with pytest.raises(ConfigError, match=r"seeds must be ≥ 1, got 0"):
        api.repeat(project[0] / "limbeck.toml", seeds=0)
