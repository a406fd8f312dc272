"""Gates on synthetic evidence: each of the five verdicts, and what a stage owes."""

from dataclasses import replace

import numpy as np
import pytest

from limbeck.core.contract import Contract
from limbeck.core.evidence import Evidence, Latency, Retention, Status, worst
from limbeck.core.plan import Gate
from limbeck.evaluation.gates import Examined, Floor, contract_verdicts, intervals, percentile_at_most, quality, stage_verdicts, violation
from limbeck.intake.metrics import accuracy, mse
from limbeck.pipeline.run import stage_floor
from limbeck.pipeline.stage import Standing


def latency(ms: float, *, blocks: int = 40, spread: float = 0.02) -> Latency:
    return Latency(blocks=tuple(tuple(ms * (1 + spread * ((7 * i + j) % 5 - 2) / 2) for j in range(5)) for i in range(blocks)))


def retained(value: float, low: float, kind: str = "ratio") -> Retention:
    return Retention(value=value, low=low, confidence=0.95, method="m", split="test", samples=100, kind=kind)


def examined(*, size: int = 1000, ms: float | None = 1.0, retention: Retention | None = None, drop: Retention | None = None, memory: int | None = None) -> Examined:
    evidence = Evidence(artifact="a", runtime="onnxruntime", threads=1, size_bytes=size, download_bytes=size, peak_memory_bytes=memory, metric_value=0.9, metric_name="accuracy")
    return Examined(evidence=evidence, latency=latency(ms) if ms else None, retention=retention, drop=drop, metric_interval=(0.88, 0.92))


def only(contract: Contract, candidate: Examined, baseline: Examined | None = None, metric=None):
    (verdict,) = contract_verdicts(contract, metric or accuracy(), candidate=candidate, baseline=baseline)
    return verdict


@pytest.mark.parametrize(
    ("retention", "status"),
    [
        (retained(0.99, 0.98), Status.PASS),
        (retained(0.99, 0.96), Status.INCONCLUSIVE),
        (retained(0.96, 0.94), Status.FAIL),
        (retained(1.09, 1.06), Status.ANOMALOUS),
        (None, Status.UNVERIFIED),
    ],
)
def test_all_five_verdicts_on_quality(retention, status):
    assert quality(retention, 0.97, gate="retention").status is status


@pytest.mark.parametrize(
    ("drop", "status"), [(retained(0.1, 0.2, "drop"), Status.PASS), (retained(0.1, 0.4, "drop"), Status.INCONCLUSIVE), (retained(0.35, 0.4, "drop"), Status.FAIL)]
)
def test_a_drop_is_bounded_from_above(drop, status):
    assert quality(drop, 0.3, gate="max_drop").status is status


def test_a_ratio_is_refused_where_it_means_nothing():
    verdict = only(Contract(retention=0.9), examined(retention=retained(0.0, 0.1, "drop")), metric=mse())
    assert verdict.status is Status.UNVERIFIED and "max_drop" in verdict.reason


def test_a_drop_can_be_limited_where_a_ratio_could_too():
    both = examined(retention=retained(0.95, 0.93), drop=retained(0.045, 0.06, "drop"))
    assert only(Contract(max_drop=0.07), both).status is Status.PASS
    assert only(Contract(max_drop=0.05), both).status is Status.INCONCLUSIVE


def test_what_is_too_good_as_a_ratio_is_so_as_a_drop():
    both = examined(retention=retained(1.6, 1.3), drop=retained(-0.3, -0.2, "drop"))
    for contract in (Contract(retention=0.97), Contract(max_drop=0.02)):
        verdict = only(contract, both)
        assert verdict.status is Status.ANOMALOUS and "bound 1.3000" in verdict.reason and "broken baseline" in verdict.reason
    assert only(Contract(max_drop=0.02), examined(retention=retained(1.06, 1.04), drop=retained(-0.05, -0.03, "drop"))).status is Status.PASS
    errors = examined(retention=retained(-3.0, -2.0, "drop"), drop=retained(-3.0, -2.0, "drop"))
    assert only(Contract(max_drop=0.02), errors, metric=mse()).status is Status.PASS, "an error that falls has no such measure"


def test_an_inconclusive_quality_says_how_many_samples_would_settle_it():
    """The interval must shrink from 0.03 to 0.02: (3/2)² times the samples."""
    assert quality(retained(0.99, 0.96), 0.97, gate="retention").samples_needed == 225
    assert quality(retained(0.97, 0.96), 0.97, gate="retention").samples_needed is None


def test_a_missing_measurement_is_never_a_pass():
    contract = Contract(latency_p90_ms=5.0, speedup_p50=1.0, peak_memory_bytes=10, size_ratio=1.0, retention=0.5)
    verdicts = contract_verdicts(contract, accuracy(), candidate=examined(ms=None), baseline=None)
    assert {v.gate: v.status for v in verdicts} == dict.fromkeys(("latency_p90_ms", "speedup_p50", "peak_memory_bytes", "size_ratio", "retention"), Status.UNVERIFIED)


def test_percentiles_by_the_binomial_rule():
    assert only(Contract(latency_p90_ms=1.2), examined(ms=1.0)).status is Status.PASS
    assert only(Contract(latency_p90_ms=0.8), examined(ms=1.0)).status is Status.FAIL
    few = replace(examined(), latency=latency(1.0, blocks=8))  # 40 samples: too few for p90 at 99 %
    verdict = only(Contract(latency_p90_ms=1.2), few)
    assert verdict.status is Status.INCONCLUSIVE and verdict.samples_needed == 44


def test_speed_and_bytes_against_the_baseline():
    fast, slow = examined(size=100, ms=1.0), examined(size=1000, ms=4.0)
    assert only(Contract(speedup_p50=3), fast, slow).status is Status.PASS
    assert only(Contract(speedup_p50=5), fast, slow).status is Status.FAIL
    told = [only(Contract(speedup_p50=3), *pair).reason.split(",")[0] for pair in ((fast, slow), (slow, fast))]
    assert told == ["4.00× faster", "0.25× as fast"]
    uneven = replace(slow, latency=Latency(blocks=tuple((3.8 + 0.4 * (i % 2),) * 5 for i in range(40))))
    assert only(Contract(speedup_p50=4), fast, uneven).status is Status.INCONCLUSIVE
    assert only(Contract(size_ratio=10), fast, slow).status is Status.PASS
    assert only(Contract(size_bytes=99), fast).status is Status.FAIL


def test_the_metric_itself_is_bounded_on_its_bad_side():
    assert [only(Contract(metric=m), examined()).status for m in (0.87, 0.9, 0.95)] == [Status.PASS, Status.INCONCLUSIVE, Status.FAIL]
    lower = replace(examined(), metric_interval=(0.88, 0.92))
    assert [only(Contract(metric=m), lower, metric=mse()).status for m in (0.95, 0.9, 0.85)] == [Status.PASS, Status.INCONCLUSIVE, Status.FAIL]


def test_a_stage_must_pay_and_not_be_slower():
    before, kept = examined(size=1000, ms=1.0), retained(1.0, 0.99)
    check = lambda after, gate=Gate(): [v.status for v in stage_verdicts(gate, floor=Floor(0.97), candidate=after, before=before, pays=True)]  # noqa: E731, B008
    assert check(examined(size=400, ms=0.99, retention=kept)) == [Status.PASS] * 3  # bytes pay
    assert check(examined(size=900, ms=0.5, retention=kept)) == [Status.PASS] * 3  # speed pays
    assert check(examined(size=900, ms=0.95, retention=kept))[1] is Status.FAIL  # neither does
    assert check(examined(size=250, ms=1.3, retention=kept))[2] is Status.FAIL  # smaller, but slower
    assert check(examined(size=250, ms=None, retention=kept), Gate(pays="bytes")) == [Status.PASS] * 2
    assert check(examined(size=990, ms=None, retention=kept), Gate(pays="nothing")) == [Status.PASS]


def test_closest_is_by_the_worst_normalized_violation():
    contract = Contract(size_ratio=10, speedup_p50=2)
    base = examined(size=1000, ms=1.0)
    near, far = (violation(contract_verdicts(contract, None, candidate=examined(size=s, ms=0.25), baseline=base)) for s in (110, 500))
    assert 0 < near < far == pytest.approx(0.8)
    assert violation(contract_verdicts(contract, None, candidate=examined(size=50, ms=0.25), baseline=base)) == 0
    assert worst([]) is Status.UNVERIFIED


def test_the_budget_of_quality_is_shared_over_the_stages_that_remain():
    standing = lambda r, d=None: Standing(candidate=None, kept=None, examined=examined(retention=r, drop=d), claims={})  # noqa: E731  # type: ignore[arg-type]
    contract = Contract(retention=0.95)
    start = standing(retained(1.0, 1.0))
    assert stage_floor(contract, None, start, remaining=1) == Floor(pytest.approx(0.95))
    assert stage_floor(contract, None, start, remaining=3) == Floor(pytest.approx(0.95 ** (1 / 3)))
    assert stage_floor(contract, None, standing(retained(0.96, 0.9)), remaining=1) == Floor(pytest.approx(0.95))
    assert stage_floor(contract, 0.9, start, remaining=3) == Floor(0.9)
    assert stage_floor(Contract(max_drop=0.3), None, standing(retained(0.9, 0.8), retained(0.1, 0.2, "drop")), remaining=2) == Floor(pytest.approx(0.2), "max_drop")
    assert stage_floor(Contract(size_ratio=2), None, start, remaining=2) is None


# ---- percentiles that were settled while they were timed ----


def test_a_timing_that_its_limit_ended_is_judged_by_the_rule_that_allows_for_it():
    """44 inferences with none over settle p90 for a fixed number, 49 where one looked after each."""
    fixed = Latency(blocks=((1.0,) * 4,) * 11)
    for taken, status in ((fixed, Status.PASS), (replace(fixed, anytime=True), Status.INCONCLUSIVE), (Latency(blocks=((1.0,) * 7,) * 7, anytime=True), Status.PASS)):
        verdict = percentile_at_most(taken, 2.0, q=0.9, gate="latency_p90_ms")
        assert verdict.status is status, verdict
    stopped = percentile_at_most(replace(fixed, anytime=True), 2.0, q=0.9, gate="latency_p90_ms")
    assert stopped.samples_needed == 49 and "about 49 would settle it" in stopped.reason


def test_inferences_in_phases_prove_less():
    """A hundred of them, none over the limit, of which the first half took one time and the second another."""
    phases = Latency(blocks=((1.0,) * 5,) * 10 + ((1.5,) * 5,) * 10)
    verdict = percentile_at_most(phases, 2.0, q=0.9, gate="latency_p90_ms")
    assert verdict.status is Status.INCONCLUSIVE and "count as one" in verdict.reason and (verdict.samples_needed or 0) > 100
    assert percentile_at_most(phases, 60_000.0, q=0.9, gate="latency_p90_ms").status is Status.PASS, "so far away that no phase comes near"


def test_the_verdict_and_the_bounds_say_the_same():
    taken = Latency(blocks=tuple(map(tuple, np.random.default_rng(0).lognormal(0, 0.1, (40, 5)).tolist())))
    low, high = (intervals(taken) or {})["p90"] or (None, None)
    assert low is not None and high is not None
    assert percentile_at_most(taken, high, q=0.9, gate="g").status is Status.PASS
    assert percentile_at_most(taken, low - 1e-9, q=0.9, gate="g").status is Status.FAIL
    assert percentile_at_most(taken, (low + high) / 2, q=0.9, gate="g").status is Status.INCONCLUSIVE


def test_a_percentile_that_is_not_shown_has_no_bounds():
    shown = intervals(Latency(blocks=((1.0, 1.1),) * 25)) or {}
    assert shown["p99"] is None and shown["p90"] is not None and intervals(None) is None
