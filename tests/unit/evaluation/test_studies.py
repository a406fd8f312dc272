"""Which studies are made, what becomes of one that can't be, and what they say to a contract."""

from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.core.candidate import Artifact
from limbeck.core.contract import Contract, Target
from limbeck.core.errors import ArtifactError, ConfigError, Interrupted
from limbeck.core.evidence import Status, Verdict
from limbeck.core.proof import Proof
from limbeck.evaluation import studies
from limbeck.evaluation.studies import MISSING, Setting, Side, Study
from limbeck.evaluation.studies.study import needs_baseline, needs_task

COUNT = Study(
    name="count",
    summary="how often",
    take=lambda setting: {"times": 3},
    limits={"size_bytes": lambda found, limit: Verdict(gate="size_bytes", status=Status.PASS if found["times"] <= limit else Status.FAIL, reason="counted", limit=limit)},
)
BROKEN = Study(name="broken", summary="never", take=lambda setting: (_ for _ in ()).throw(ArtifactError("it fell over. Stand it up.")))
FAR = Study(name="far", summary="of a machine", take=lambda setting: {"x": 1}, here=True)


def setting(tmp_path: Path) -> Setting:
    return Setting(candidate=Side(artifact=Artifact(tmp_path, "torch")), baseline=None, task=None, split="test", target=Target(), feed={})


def test_what_is_asked_for_and_what_the_contract_limits_are_made():
    family, small = (COUNT, BROKEN), Contract(size_bytes=5)
    assert [s.name for s in studies.chosen(Proof(), None, family)] == ["count", "broken"]
    assert studies.chosen(Proof(studies="none"), None, family) == ()
    assert [s.name for s in studies.chosen(Proof(studies="none"), small, family)] == ["count"]
    assert [s.name for s in studies.chosen(Proof(studies="broken"), small, family)] == ["count", "broken"]


@pytest.mark.parametrize("words", ["cuont", "none, count", "count, all"])
def test_a_study_that_there_is_not_is_refused(words: str):
    with pytest.raises(ConfigError, match="there is no study"):
        studies.chosen(Proof(studies=words), None, (COUNT,))


def test_a_study_that_fails_says_why_and_the_others_are_made(tmp_path: Path):
    found = studies.taken(setting(tmp_path), (BROKEN, COUNT))
    assert found == {"broken": {MISSING: "it fell over. Stand it up."}, "count": {"times": 3}}


def test_a_stop_is_no_missing_study(tmp_path: Path):
    def stopped(_: Setting) -> dict:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        studies.taken(setting(tmp_path), (replace(COUNT, take=stopped),))


def test_figures_of_this_machine_are_not_taken_for_another(tmp_path: Path):
    assert MISSING in studies.taken(setting(tmp_path), (FAR,), here=False)["far"]
    assert studies.taken(setting(tmp_path), (FAR,))["far"] == {"x": 1}


def test_figures_are_kept_as_they_will_be_read_again(tmp_path: Path):
    odd = replace(COUNT, take=lambda setting: {"pairs": [(1, 2.5)], "by": {3: "x"}})
    assert studies.taken(setting(tmp_path), (odd,))["count"] == {"pairs": [[1, 2.5]], "by": {"3": "x"}}
    with pytest.raises(ValueError, match="JSON"):
        studies.taken(setting(tmp_path), (replace(COUNT, take=lambda setting: {"x": float("nan")}),))


def test_what_keeps_figures_is_asked_first(tmp_path: Path):
    assert studies.taken(setting(tmp_path), (COUNT,), keep=lambda study, take: {"kept": study.name})["count"] == {"kept": "count"}


def test_a_limit_without_its_study_is_unverified():
    assert studies.answering("size_bytes", (COUNT,)) is COUNT
    assert studies.answering("retention", (COUNT,)) is None
    assert studies.verdict(COUNT, "size_bytes", 5, None).status is Status.UNVERIFIED
    assert studies.verdict(COUNT, "size_bytes", 5, {MISSING: "no battery"}).reason == "no battery"
    assert studies.verdict(COUNT, "size_bytes", 5, {"times": 3}).status is Status.PASS
    assert studies.verdict(COUNT, "size_bytes", 2, {"times": 3}).status is Status.FAIL


def test_what_a_study_needs(tmp_path: Path):
    assert "--task" in needs_task(setting(tmp_path))
    assert "--task" in needs_baseline(setting(tmp_path))
