"""What a run says while it runs: JSON lines for programs, plain lines where there is no terminal, Python's logging for library users."""

import json
import logging
import sys
from datetime import datetime
from pathlib import Path

import limbeck
from limbeck import Contract, Plan, Stage
from limbeck.testing import small_task

sys.path.insert(0, str(Path(__file__).parent))
from project import limbeck as command
from project import write_project


def test_log_json_is_json_lines_alone(tmp_path):
    done = command("run", "--log-json", cwd=write_project(tmp_path, contract="retention = 0.5"))
    assert done.returncode == 5 and "already honours the contract" in done.stdout
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"exporting", "evaluating"} <= {line["event"] for line in lines}
    assert all(line.keys() == {"time", "level", "event", "data"} and datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0 for line in lines)


def test_an_error_is_a_json_line_too(tmp_path):
    done = command("run", "nowhere.toml", "--log-json", cwd=tmp_path)
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 2 and done.stdout == ""
    assert (line["level"], line["event"], line["data"]["kind"], line["data"]["exit_code"]) == ("error", "error", "ConfigError", 2)
    assert "nowhere.toml can't be read" in line["data"]["message"]


def test_without_a_terminal_there_are_plain_lines(tmp_path):
    done = command("run", cwd=write_project(tmp_path, contract="retention = 0.5"))
    assert done.returncode == 5 and "exporting" in done.stderr and "\x1b" not in done.stderr and "\r" not in done.stderr


def test_a_library_user_hears_the_events_and_nothing_is_printed(tmp_path, caplog, capfd):
    with caplog.at_level(logging.INFO, logger="limbeck"):
        result = limbeck.compress(
            small_task(), Contract(retention=0.5), Plan(stages=(Stage(technique="quantize"),)), root=tmp_path, timing_seconds=0.1, proof=limbeck.Proof(studies="none")
        )
    assert result.verdict == "REFUSED"
    assert any(r.name == "limbeck.run" and r.getMessage().startswith("exporting candidate=the baseline") for r in caplog.records)
    assert capfd.readouterr() == ("", "")
