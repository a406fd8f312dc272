"""What holds of every study that is listed: it can be made or says why, gives plain figures, and both the report and the terminal show them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from torch import nn

from limbeck.cli import studies as terminal
from limbeck.cli.render import plain
from limbeck.core.contract import Contract, Target
from limbeck.core.evidence import Status
from limbeck.core.fields import fields_of
from limbeck.evaluation import measure, quality
from limbeck.evaluation.studies import ALL, MISSING, Setting, Side, Study, taken, verdict
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of, example, feed
from limbeck.report.markup import el, rendered
from limbeck.report.studies import TELL
from limbeck.runtimes import runtime
from limbeck.testing import small_task

DOCS = Path(__file__).parents[2] / "docs" / "studies"
CASES = [pytest.param(study, id=study.name) for study in ALL]


def side(task, module: nn.Module, folder: Path) -> Side:
    artifact = runtime("onnxruntime").export(example(task, module), folder)
    session = runtime("onnxruntime").load(artifact, 1)
    latency = measure.latency([artifact], feed(task, batch_of(task, "test", [0])), threads=1, seconds=0.1)[0]
    rows = quality.rows_of(session, task, "test")
    return Side(artifact=artifact, module=partial(rebuild, teacher_candidate(task).form, task), rows=rows, latency=latency, parameters=1000, macs=10000)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    task, folder = small_task(samples=160), tmp_path_factory.mktemp("studies")
    module = rebuild(teacher_candidate(task).torch_form, task)
    one = side(task, module, folder / "a")
    inputs = feed(task, batch_of(task, "test", [0]))
    return Setting(candidate=one, baseline=one, task=task, split="test", target=Target(), feed=inputs, samples=160, seconds=0.1)


def test_names_are_unique_and_limits_are_the_contract_s():
    names = [s.name for s in ALL]
    assert len(set(names)) == len(names) and names
    limits = [limit for s in ALL for limit in s.limits]
    assert len(set(limits)) == len(limits)
    assert set(limits) <= {f.name for f in fields_of(Contract)}


def _printed(study: Study, found: dict, *, brief: bool = False) -> str:
    out = io.StringIO()
    terminal.show(Console(file=out, width=100), plain({study.name: found}), brief=brief)
    return out.getvalue()


@pytest.mark.parametrize("study", CASES)
def test_a_study_is_made_and_shown(study: Study, setting: Setting):
    found = taken(setting, [study])[study.name]
    assert MISSING not in found, found
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    title, tell = TELL[study.name]
    assert title and rendered(el("section", None, tell(found)))
    assert "\n" not in _printed(study, found, brief=True).strip()
    assert len(_printed(study, found)) >= len(_printed(study, found, brief=True)) > 10


@pytest.mark.parametrize("study", CASES)
@pytest.mark.parametrize("less", ["no task", "no baseline", "no module", "an artifact alone"])
def test_a_study_that_can_not_be_made_says_why(study: Study, setting: Setting, less: str):
    bare = replace(setting.candidate, module=None)
    without = {
        "no task": replace(setting, task=None, candidate=replace(setting.candidate, rows=None), baseline=replace(setting.candidate, rows=None)),
        "no baseline": replace(setting, baseline=None),
        "no module": replace(setting, candidate=bare, baseline=bare),
        "an artifact alone": replace(setting, task=None, baseline=None, candidate=Side(artifact=setting.candidate.artifact)),
    }
    found = taken(without[less], [study])[study.name]
    if MISSING in found:
        assert len(found[MISSING]) > 10
        return
    assert rendered(el("section", None, TELL[study.name][1](found)))
    terminal.show(Console(file=io.StringIO(), width=80), plain({study.name: found}))


@pytest.mark.parametrize("study", CASES)
def test_a_limit_on_what_was_not_measured_is_no_pass(study: Study):
    for limit in study.limits:
        assert verdict(study, limit, 1.0, None).status is Status.UNVERIFIED
        assert verdict(study, limit, 1.0, {MISSING: "it could not be"}).status is Status.UNVERIFIED


@pytest.mark.parametrize("study", CASES)
def test_a_study_has_its_page(study: Study):
    assert (DOCS / f"{study.name}.md").exists()
