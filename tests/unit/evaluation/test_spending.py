"""Error spent over looks: what a verdict may still say, and at what confidence it stands."""

from __future__ import annotations

import pytest

from limbeck.core.contract import Contract
from limbeck.core.errors import ConfigError
from limbeck.core.evidence import Status, Verdict
from limbeck.evaluation.spending import Look, error, note, spent, summary

QUALITY = [Verdict(gate=g, status=Status.PASS, reason="sure", limit=0.9) for g in ("retention", "slice_retention.night", "max_ece_increase")]
BYTES = Verdict(gate="size_bytes", status=Status.PASS, reason="counted", limit=5)
FAILED = Verdict(gate="metric", status=Status.FAIL, reason="beyond", limit=0.9)


def test_planned_looks_share_the_error():
    assert [round(Contract(retention=0.9, looks=n).at_each_look, 4) for n in (None, 1, 2, 3)] == [0.95, 0.95, 0.975, 0.9833]
    assert error(None) == error(Contract(retention=0.9)) == pytest.approx(0.05)
    assert Contract(retention=0.9, looks=2, confidence=0.9).limits() == {"retention": 0.9}


@pytest.mark.parametrize("looks", [0, 4, -1])
def test_more_than_three_looks_are_no_plan(looks):
    with pytest.raises(ConfigError, match=r"contract\.looks must be in"):
        Contract(retention=0.9, looks=looks)


@pytest.mark.parametrize(
    ("look", "status"),
    [
        (Look(1), Status.PASS),
        (Look(3, 0.1 / 3), Status.PASS),
        (Look(4, 0.05), Status.UNVERIFIED),
        (Look(2, 0.05), Status.UNVERIFIED),  # the first was judged at 95 %, so it spent all
    ],
)
def test_a_look_beyond_the_plan_passes_no_limit_on_quality(look, status):
    found = spent([*QUALITY, BYTES, FAILED], Contract(retention=0.9, looks=3), look)
    assert [v.status for v in found] == [status] * 3 + [Status.PASS, Status.FAIL]
    assert found[3:] == (BYTES, FAILED) and all(("error is spent" in v.reason) is (status is Status.UNVERIFIED) for v in found[:3])
    assert [v.limit for v in found[:3]] == [0.9] * 3


def test_a_spent_error_says_the_way_out():
    assert "look 4 at this test split, but 3 were planned" in note(Contract(retention=0.9, looks=3), Look(4, 0.05))
    late = note(Contract(retention=0.9, looks=3), Look(2, 0.05))
    assert "those before were judged at less than 98.3 %" in late and "fresh test samples, or plan more looks before the first" in late


def test_unplanned_looks_pass_and_say_what_they_add_up_to():
    contract = Contract(retention=0.9)
    assert spent(QUALITY, contract, Look(1)) == tuple(QUALITY) and note(contract, Look(1)) == note(None, Look(1)) == ""
    third = spent(QUALITY, contract, Look(3, 0.1))
    assert all(v.status is Status.PASS and v.reason == "sure; " + note(contract, Look(3, 0.1)) for v in third)
    assert "up to 15 % of cases" in note(contract, Look(3, 0.1)) and "up to 30 %" in note(Contract(retention=0.9, confidence=0.9), Look(3, 0.2))


def test_the_summary_tells_all_of_it():
    found = summary(Contract(retention=0.9, looks=2), Look(2, 0.025), 360)
    assert found == {"number": 2, "planned": 2, "confidence": pytest.approx(0.975), "error_before": 0.025, "samples": 360, "note": found["note"]}
    assert found["note"] == "look 2 of 2 planned, each judged at 97.5 %, so that all together hold at 95 %"
    assert summary(None, Look(1), None) | {"confidence": 0.95} == {"number": 1, "planned": None, "confidence": 0.95, "error_before": 0.0, "samples": None, "note": ""}
