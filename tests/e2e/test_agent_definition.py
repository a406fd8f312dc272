"""The agent definition can't go stale: its commands parse and its main sequence runs, its fields and exit codes are the real ones."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import pages
from project import PLAN, write_project

from limbeck.core import errors
from limbeck.core.contract import Contract, Target
from limbeck.core.evidence import Status, exit_code
from limbeck.core.fields import fields_of
from limbeck.core.plan import Training
from limbeck.mechanics.terms import ALL
from limbeck.mechanics.views import Views
from limbeck.techniques import cards

PATH = pages.ROOT / "agents" / "knowledge-distillation-expert.md"
TEXT = PATH.read_text()
FRONT, BODY = re.fullmatch(r"---\n(.*?)\n---\n(.*)", TEXT, re.DOTALL).groups()  # type: ignore[union-attr]
# quick, but with a stage of each kind that the definition names: something trained, so that there is a control
PROJECT = PLAN.replace("epochs = 3", "epochs = 1").replace("epochs = 2", "epochs = 1")

CHILD = """
import json, sys
from typer.testing import CliRunner
from limbeck.cli.main import app
done = [(words, CliRunner().invoke(app, words, input="")) for words in json.load(sys.stdin)]
sys.stdout.write(json.dumps([(words, d.exit_code, d.stdout, d.stderr) for words, d in done]))
"""


def sequence() -> list[list[str]]:
    (block,) = [b for b in pages.blocks(BODY) if "sequence" in b.marks]
    return [words[1:] for words in pages.shell_lines(block)]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> dict[str, list[Any]]:
    """What each command of the main sequence printed, by its name."""
    folder = write_project(tmp_path_factory.mktemp("agent"), plan=PROJECT)
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(sequence()), cwd=folder, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert child.returncode == 0, child.stderr
    found: dict[str, list[Any]] = {}
    for words, code, out, error in json.loads(child.stdout):
        assert code == 0 and "Traceback" not in error, (words, code, error)
        found.setdefault(words[0], []).append(json.loads(out))
    return found


def sections() -> list[tuple[list[str], list[str]]]:
    """The commands that a section is about, and the fields that its table names."""
    found = []
    for part in re.split(r"^### ", BODY, flags=re.MULTILINE)[1:]:
        title, _, rest = part.partition("\n")
        commands = re.findall(r"`limbeck (\w+)[^`]*--json`", title)
        if commands:
            table = [line for line in rest.split("\n## ")[0].split("\n") if line.startswith("| `")]
            found.append((commands, [f for line in table for f in re.findall(r"`([^`]+)`", line.split("|")[1])]))
    return found


def there(data: Any, path: str) -> bool:
    """Whether a dotted path leads somewhere; of a list, in one of its entries at least. A value may be null."""
    for i, key in enumerate(parts := path.split(".")):
        name, listed = key.removesuffix("[]"), key.endswith("[]")
        if not isinstance(data, dict) or name not in data or (listed and not isinstance(data[name], list)):
            return False
        data = data[name]
        if listed:
            rest = ".".join(parts[i + 1 :])
            return not rest or any(there(entry, rest) for entry in data)
    return True


def test_the_front_matter():
    data = yaml.safe_load(FRONT)
    assert data.keys() == {"name", "description", "tools"}, "the model is left to the host"
    assert data["name"] == PATH.stem and re.fullmatch(r"[a-z-]+", data["name"])
    assert "Use this agent" in data["description"] and "Examples" in data["description"] and len(data["description"]) < 1500
    assert "Bash" in data["tools"].split(", ")


def test_it_goes_from_constraints_to_iteration():
    titles = re.findall(r"^## (.+)$", BODY, re.MULTILINE)
    assert [t.split(". ")[-1] for t in titles] == ["Constraints first", "Analysis", "Options", "Recommendation", "Run", "Evidence", "Iterate", "Never"]


def test_its_commands_are_those_of_the_command_line():
    for words in pages.commands_of(BODY):
        if "--help" not in words:
            pages.command(words)
    wrong = [bad for span in pages.spans_of(BODY) if span.startswith("limbeck ") and (bad := pages.unknown_span(span))]
    assert not wrong


def test_the_sequence_is_the_whole_way():
    assert [words[0] for words in sequence()] == ["analyze", "run", "status", "report", "package", "verify", "verify", "evaluate", "compare"]
    assert all("--json" in words for words in sequence())


def test_every_field_that_it_names_is_in_the_real_output(outputs):
    named = 0
    for commands, fields in sections():
        assert fields, commands
        for command in commands:
            for field in fields:
                assert all(there(data, field) for data in outputs[command]), f"limbeck {command} --json has no {field}"
                named += 1
    assert named > 50
    assert {c for commands, _ in sections() for c in commands} == {words[0] for words in sequence()}
    second = {"run", "status", "evaluate", "compare"}  # those that show studies
    assert all(data["schema"] == (2 if command in second else 1) for command, found in outputs.items() for data in found)


def test_a_field_that_is_not_there_is_seen():
    data = {"a": {"b": None}, "c": [{"d": 1}, {"e": 2}]}
    assert there(data, "a.b") and there(data, "c[].e") and there(data, "c[]")
    assert not there(data, "a.x") and not there(data, "c[].x") and not there(data, "a[]") and not there(data, "c.d")


def test_its_exit_codes_are_the_real_ones():
    block = BODY.split("<!-- exit codes -->")[1].split("\n\n")[0]
    said = {int(code): what for code, what in re.findall(r"^\| (\d+) \| (.+) \|$", block, re.MULTILINE)}
    kinds = {k.exit_code for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.LimbeckError)}
    assert said.keys() == kinds | {exit_code(s) for s in Status}
    for status in Status:
        assert str(status) in said[exit_code(status)]
    assert "REFUSED" in said[errors.RefusedError.exit_code] and "usage" in said[errors.ConfigError.exit_code] and "interrupted" in said[errors.Interrupted.exit_code]


def test_its_playbook_has_a_line_for_every_verdict_but_pass():
    iterate = BODY.split("## 7. Iterate")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([A-Z]{4,}) \|", iterate, re.MULTILINE)
    assert set(rows) == {str(s) for s in Status} - {"PASS"} | {"REFUSED"}


def test_limits_and_options_that_it_names_exist():
    limits = {f.name for f in fields_of(Contract)} | {f.name for f in fields_of(Target)}
    constraints = BODY.split("## 1. ")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+_(?:ms|bytes|ratio|p50))`", constraints)) | {"retention", "max_drop"}
    assert len(named) > 6 and named <= limits
    recommended = re.findall(r"^\| `([\w.]+)`", BODY.split("## 4. ")[1].split("\n## ")[0], re.MULTILINE)
    known = {f"training.{f.name}" for f in fields_of(Training)} | {f.name for f in fields_of(cards()["distill"].config)}
    known |= {f"{name}.{f.name}" for name, card in cards().items() for f in fields_of(card.config)} | {"views"}
    assert recommended and set(recommended) <= known
    assert {"crop", "flip"} <= {f.name for f in fields_of(Views)}


def test_techniques_and_terms_that_it_weighs_exist():
    part = BODY.split("### When a technique")[1].split("\n### ")[0]
    weighed = {name for line in part.split("\n") if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    known = {term.__name__: set(inspect.signature(term).parameters) for term in ALL}
    assert {"distill", "kd", "prune", "quantize"} <= weighed <= known.keys() | cards().keys() | known["kd"]


def test_what_it_reads_off_the_published_table():
    table = BODY.split("### What the field publishes")[1].split("\n\nSources")[0]
    rows = [line.strip("| ").split(" | ") for line in table.split("\n") if line.startswith("| ") and "→" in line and "student alone" not in line]
    student, kd, fitnet, both = ([float(row[i]) for row in rows] for i in (1, 2, 3, 8))
    gains, more = ([round(b - a, 2) for a, b in zip(x, y, strict=True)] for x, y in ((student, kd), (kd, both)))
    said = re.findall(r"adds? (\d\.\d) to (\d\.\d) points", BODY)
    assert said == [(f"{min(g):.1f}", f"{max(g):.1f}") for g in (gains, more)] and len(rows) == 4
    assert all(best == max(map(float, row[1:])) for best, row in zip(both, rows, strict=True)) and fitnet[3] < student[3]


def test_files_that_it_names_are_there():
    assert not pages.missing_files(BODY)
