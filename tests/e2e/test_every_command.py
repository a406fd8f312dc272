"""What holds of each command: `--help`, `--debug`, and a `--json` that prints one JSON value with its schema's number, or nothing but a message.

A new command fails here until it has its line in `GOOD` and `BAD`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
import pages
from project import PLAN, write_project

from limbeck.cli.main import app

TREE = pages.tree()
QUICK = PLAN[PLAN.index('[[stage]]\ntechnique = "quantize"') :] + '\n[target]\nhost = "imported"\n'
CONTRACT = "retention = 0.3\nsize_ratio = 1.5\nlatency_p90_ms = 60000.0"
ARTIFACT = "packages/run/model/model.onnx"
# in this order in one folder: a command may rest on what one above it wrote. None stands for the package's own measurement
GOOD: list[tuple[tuple[str, ...], list[str]] | None] = [
    (("init",), ["begun", "--data", "table.csv", "--label", "y", "--train-teacher", "--defaults"]),
    (("doctor",), []),
    (("techniques",), []),
    (("techniques",), ["prune"]),
    (("terms",), []),
    (("terms",), ["dkd"]),
    (("studies",), []),
    (("runtimes",), []),
    (("analyze",), ["limbeck.toml"]),
    (("run",), ["limbeck.toml"]),
    (("advise",), ["limbeck.toml", "--student", "small", "--epochs", "1", "-n", "1"]),
    (("repeat",), ["limbeck.toml", "-n", "1"]),
    (("status",), ["runs/run"]),
    (("runs",), ["runs"]),
    (("verify",), ["runs/run"]),
    (("report",), ["runs/run"]),
    (("package",), ["runs/run"]),
    (("verify",), ["packages/run.zip"]),
    None,
    (("evidence", "import"), ["runs/run", "evidence.json"]),
    (("evaluate",), ["task.py:task", "--split", "validation", "--studies", "none"]),
    (("compare",), ["task.py:task", ARTIFACT, "--limit", "retention=0.3", "--split", "validation", "--studies", "energy"]),
    (("diff",), ["runs/run@baseline", "runs/run@quantize"]),
    (("rollback",), ["runs/run", "--to", "quantize"]),
    (("gc",), ["runs/run"]),
    (("export",), ["runs/run", "run.zip"]),
    (("import",), ["run.zip", "--name", "again"]),
]
BAD: dict[tuple[str, ...], list[str] | None] = {
    ("demo",): None,  # takes nothing that could be wrong but a folder
    ("doctor",): None,
    ("studies",): None,
    ("runtimes",): None,
    ("init",): ["begun2", "--data", "nowhere.csv", "--defaults"],
    ("techniques",): ["prunne"],
    ("terms",): ["nothing"],
    ("analyze",): ["nowhere.toml"],
    ("run",): ["nowhere.toml"],
    ("advise",): ["nowhere.toml"],
    ("repeat",): ["nowhere.toml"],
    ("status",): ["nowhere"],
    ("runs",): ["nowhere"],
    ("verify",): ["nowhere"],
    ("report",): ["nowhere"],
    ("package",): ["nowhere"],
    ("evidence", "import"): ["nowhere", "nowhere.json"],
    ("evaluate",): ["nowhere.onnx"],
    ("compare",): ["nowhere.onnx", "nowhere.onnx"],
    ("diff",): ["nowhere", "nowhere"],
    ("rollback",): ["nowhere", "--to", "prune"],
    ("gc",): ["nowhere"],
    ("export",): ["nowhere", "x.zip"],
    ("import",): ["nowhere.zip"],
}


def shown(words: list[str]) -> str:
    return " ".join(words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A small project, as the place where all happens."""
    place = write_project(tmp_path_factory.mktemp("commands"), contract=CONTRACT, plan=QUICK, run="control = false\n")
    (place / "table.csv").write_text("a,b,y\n" + "".join(f"{i % 7},{i * 37 % 101},{'yes' if i % 7 > 3 else 'no'}\n" for i in range(400)))
    before = Path.cwd()
    os.chdir(place)
    try:
        yield place
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> list[tuple[list[str], Any]]:
    """What each line of `GOOD` came to, nothing on stdin."""
    found = []
    for case in GOOD:
        if case is None:
            measure = ["predict.py", "--measure", "--out", str(folder / "evidence.json"), "--seconds", "0.1"]
            subprocess.run([sys.executable, "-B", *measure], cwd=folder / "packages" / "run", check=True, capture_output=True, timeout=120)
        else:
            words = [*case[0], *case[1], "--json"]
            found.append((words, CliRunner().invoke(app, words, input="")))
    return found


def test_every_command_has_its_lines():
    assert {c[0] for c in GOOD if c} | {("demo",)} == TREE.keys() == BAD.keys()


@pytest.mark.parametrize("path", TREE, ids=shown)
def test_help_and_the_options_that_all_share(path):
    options = {o for p in TREE[path].params for o in p.opts}
    assert {"--json", "--debug"} <= options
    done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0 and "--json" in done.stdout and not done.stderr
    assert (TREE[path].help or "").strip().endswith("."), "its first sentence says what it does"
    assert all(p.help for p in TREE[path].params if p.name != "help"), "each option has a line of help"


def test_json_is_one_value_with_a_schema_and_the_exit_code_that_it_says(outcomes):
    for words, done in outcomes:
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception, done.stderr)
        data = json.loads(done.stdout)  # one value, and nothing else
        assert isinstance(data, dict) and isinstance(data["schema"], int) and data["schema"] >= 1, words
        said = 0 if words[0] == "status" else data.get("exit_code") or 0
        assert done.exit_code == said, (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_followed_run_is_json_lines_and_the_summary_is_the_last(folder, outcomes):
    done = CliRunner().invoke(app, ["status", "runs/run", "--follow", "--json"], input="")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["event"] == "summary" and lines[-1]["schema"] == 2 and all("event" in line for line in lines)


@pytest.mark.parametrize("path", [p for p, words in BAD.items() if words is not None], ids=shown)
def test_an_error_is_a_message_on_stderr_and_nothing_on_stdout(path, folder):
    words = [*path, *(BAD[path] or []), "--json"]
    done = CliRunner().invoke(app, words, input="")
    assert done.exit_code == 2, (done.exception, done.stderr)
    assert done.stdout == "" and "Traceback" not in done.stderr
    kind, _, message = done.stderr.partition(": ")
    assert kind.endswith("Error") and message.strip() and done.stderr.count("\n") <= 2
    told = CliRunner().invoke(app, [*words, "--debug"], input="").exception
    assert type(told).__name__ == kind, "with --debug the error itself comes through, for its traceback"


@pytest.mark.parametrize("path", TREE, ids=shown)
def test_an_unknown_option_is_usage(path):
    done = CliRunner().invoke(app, [*path, "--nonsense"], input="")
    assert done.exit_code == 2 and done.stdout == "" and "--nonsense" in done.stderr


def test_nobody_is_asked_without_a_terminal(folder):
    """With nothing on stdin a question would end in an abort; a message names the flag instead."""
    done = CliRunner().invoke(app, ["init", "asked"], input="")
    assert done.exit_code == 2 and "--" in done.stderr and not (folder / "asked" / "task.py").exists()


@pytest.mark.slow
def test_the_demo_prints_json(tmp_path):
    done = CliRunner().invoke(app, ["demo", "--quick", "--folder", str(tmp_path / "demo"), "--json"], input="")
    data = json.loads(done.stdout)
    assert data["schema"] == 2 and done.exit_code == data["exit_code"]
