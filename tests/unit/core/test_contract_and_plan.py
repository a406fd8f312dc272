"""Contracts, verdicts, and the legality of an order."""

import json
from dataclasses import dataclass

import pytest

from limbeck.core.candidate import Blueprint
from limbeck.core.contract import Contract, flat
from limbeck.core.errors import ConfigError
from limbeck.core.evidence import Status, Verdict, exit_code, worst
from limbeck.core.facts import Fact
from limbeck.core.fields import parse, to_dict
from limbeck.core.plan import Plan, Recovery, Stage, illegal
from limbeck.core.technique import Candidate, Context, Outcome, card_of, technique
from limbeck.techniques import cards


def verdict(status: Status) -> Verdict:
    return Verdict(gate="g", status=status, reason="r")


def test_a_contract_limits_something():
    with pytest.raises(ConfigError, match="must limit something"):
        Contract()
    assert Contract(retention=0.97).limits() == {"retention": 0.97}


def test_a_limit_on_a_slice_goes_by_its_name_and_survives_the_way_to_disk():
    contract = parse(Contract, {"slice_retention": {"night": "95 %", "a.b = c": 1}, "slice_drop": {"night": 0.1}, "max_flips": "2 %"}, where="contract")
    assert contract.limits() == {"slice_retention.night": 0.95, "slice_retention.a.b = c": 1.0, "slice_drop.night": 0.1, "max_flips": 0.02}
    assert parse(Contract, json.loads(json.dumps(to_dict(contract))), where="contract") == contract
    assert flat(to_dict(contract)) == contract.limits() | {"confidence": 0.95}
    with pytest.raises(ConfigError, match="must limit something"):
        Contract(slice_retention={})


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        ("latency_p50_ms", "latency_p90_ms", "No median lies above the 90th"),
        ("latency_p90_ms", "latency_p99_ms", "No 90th percentile lies above the 99th"),
        ("latency_p50_ms", "latency_p99_ms", "No median"),
    ],
)
def test_percentiles_that_contradict_each_other_are_refused(low, high, says):
    with pytest.raises(ConfigError, match=f"contract.{low} must be at most {high}.*{says}"):
        Contract(**{low: 3.0, high: 2.0})
    Contract(**{low: 2.0, high: 2.0})


@pytest.mark.parametrize(("name", "value"), [("retention", -0.1), ("size_bytes", 0), ("speedup_p50", 0.0), ("confidence", 1.0), ("size_bytes", 1.5)])
def test_a_limit_out_of_range_is_refused_with_its_name(name, value):
    with pytest.raises(ConfigError, match=f"contract.{name} must be"):
        Contract(**({"retention": 0.9} | {name: value}))


def test_the_worst_verdict_decides_and_none_is_no_pass():
    assert worst([verdict(Status.PASS), verdict(Status.INCONCLUSIVE), verdict(Status.FAIL)]) is Status.FAIL
    assert worst([verdict(Status.PASS), verdict(Status.UNVERIFIED)]) is Status.UNVERIFIED
    assert worst([]) is Status.UNVERIFIED
    assert [exit_code(s) for s in (Status.PASS, Status.FAIL, Status.INCONCLUSIVE, Status.ANOMALOUS, Status.UNVERIFIED)] == [0, 3, 4, 4, 4]


def plan(*names: str, **options) -> Plan:
    return Plan(stages=tuple(Stage(technique=n, **options) for n in names))


def test_the_usual_order_is_legal():
    assert illegal(plan("distill", "prune", "quantize"), cards()) is None
    assert illegal(plan("distill", "vocabulary", "blocks", "quantize"), cards()) is None
    assert illegal(plan("vocabulary", "blocks", recovery=Recovery()), cards()) is None


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("quantize", "prune"), ("stage 2 (prune)", "float-weights", "stage 1 (quantize) took away", "Put stage 2 (prune) before stage 1 (quantize)")),
        (("quantize", "quantize"), ("float-weights", "took away")),
        (("quantize", "vocabulary"), ("stage 2 (vocabulary)", "float-weights", "took away")),
        (("blocks", "distill"), ("would undo 'narrower'", "stage 1 (blocks) gave")),
        (("prune", "distill"), ("stage 2 (distill) would undo 'narrower'", "stage 1 (prune) gave", "Put stage 2 (distill) before stage 1 (prune)")),
    ],
)
def test_an_illegal_order_is_refused_with_its_reason(names, words):
    refusal = illegal(plan(*names), cards())
    assert refusal is not None
    for word in words:
        assert word in str(refusal)


def test_a_recovery_where_nothing_can_be_trained_is_refused():
    refusal = illegal(plan("quantize", recovery=Recovery()), cards())
    assert refusal is not None and "no weight can be trained" in refusal.reason


def test_order_follows_from_facts_alone():
    @dataclass(frozen=True, kw_only=True)
    class Nothing:
        pass

    @technique(version=1, needs={Fact.QUANTIZED}, paper="none")
    def after_quantization(candidate: Candidate, config: Nothing, context: Context) -> Outcome:
        """Needs integers."""
        return Outcome(candidate)

    known = cards() | {"after_quantization": card_of(after_quantization)}
    assert illegal(plan("quantize", "after_quantization"), known) is None
    refusal = illegal(plan("prune", "after_quantization"), known)
    assert refusal is not None and "nothing before it gives" in refusal.reason


def test_blueprints_round_trip_and_refuse_what_they_are_not():
    blueprint = Blueprint("limbeck:mlp", {"widths": [3]}, ({"edit": "reshape", "module": "a", "attributes": {}, "tensors": {}},))
    assert Blueprint.from_json(blueprint.to_json()) == blueprint
    for text in ("", "[]", "{}", '{"version": 9, "base": {"factory": "x", "kwargs": {}}, "edits": []}', '{"version": 1, "base": {"factory": 1, "kwargs": {}}, "edits": []}'):
        with pytest.raises(ConfigError, match="blueprint"):
            Blueprint.from_json(text)


def test_a_confidence_that_no_resampling_reaches_is_refused():
    """20 draws beyond the bound: at 99.9999 % a bootstrap would take 20 million, for hours."""
    assert Contract(retention=0.9, confidence=0.9999).at_each_look == 0.9999
    assert Contract(retention=0.9, confidence=0.9995, looks=3).at_each_look < 0.9999
    for options, said in (({"confidence": 0.999999}, "at most 0.9999 at each look, got 0.999999"), ({"confidence": 0.9999, "looks": 2}, "over 2 looks that is 0.99995 at each")):
        with pytest.raises(ConfigError, match=said) as caught:
            Contract(retention=0.9, **options)
        assert caught.value.path == ("contract", "confidence")
