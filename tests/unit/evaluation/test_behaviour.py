"""Flips, calibration and agreement: counted by hand, judged by bounds, never a pass where they can't be told."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binom

from limbeck.core.contract import Contract
from limbeck.core.evidence import Evidence, Status
from limbeck.core.metric import Metric
from limbeck.core.plan import Gate
from limbeck.evaluation import behaviour
from limbeck.evaluation.behaviour import Behaviour
from limbeck.evaluation.gates import Examined, contract_verdicts, stage_verdicts
from limbeck.intake import metrics
from limbeck.pipeline.shape import BEHAVIOUR, _check
from limbeck.stats.paired import proportion_bounds, share_samples_needed


def answers(correct, confidence=None, classes=5) -> dict[str, np.ndarray]:
    correct = np.asarray(correct, dtype=bool)
    target = np.arange(len(correct)) % classes
    made = {"correct": correct.astype(np.int8), "predicted": np.where(correct, target, (target + 1) % classes), "target": target}
    return made | ({} if confidence is None else {"confidence": np.asarray(confidence, dtype=np.float64)})


def of(candidate, baseline, metric=None, masks=None) -> Behaviour:
    return Behaviour(metric=metric or metrics.accuracy(), candidate=candidate, baseline=baseline, masks=masks or {}, split="test", confidence=0.95)


def only(contract, found: Behaviour | None):
    evidence = Evidence(artifact="a", runtime="onnxruntime", threads=1, size_bytes=1, download_bytes=1)
    (verdict,) = contract_verdicts(contract, metrics.accuracy(), candidate=Examined(evidence=evidence, behaviour=found), baseline=None)
    return verdict


def lost(n, count, won=0):
    """A baseline that has all but `won` right, and a candidate that loses `count` of them."""
    before = np.ones(n, dtype=bool)
    before[n - won :] = False
    after = before.copy()
    after[:count] = False
    after[n - won :] = True
    return answers(after), answers(before)


@pytest.mark.parametrize(("count", "status"), [(10, Status.PASS), (18, Status.INCONCLUSIVE), (21, Status.FAIL)])
def test_flips_are_judged_by_their_exact_upper_bound(count, status):
    verdict = only(Contract(max_flips=0.02), of(*lost(1000, count, won=500)))  # what is won doesn't pay for what is lost
    assert verdict.status is status and verdict.measured == count / 1000
    assert verdict.high == pytest.approx(proportion_bounds(count, 1000, 0.95)[1])
    assert (verdict.samples_needed is not None) is (status is Status.INCONCLUSIVE)


def test_what_is_lost_is_lost_too_where_a_share_of_errors_is_to_be_small():
    """The column then says which samples are wrong: of 200 that are wrong now, none was won."""
    errors = Metric(name="errors", rows=lambda o, b: {}, reduce=lambda r: float(r["wrong"].mean()), direction="lower", ratio=False, proportion="wrong")
    before, after = {"wrong": np.arange(1000) >= 990}, {"wrong": np.arange(1000) < 200}
    verdict = only(Contract(max_flips=0.05), of(after, before, metric=errors))
    assert verdict.status is Status.FAIL and verdict.measured == 0.2 and "200 of 1000 samples of test were right and are wrong now" in verdict.reason
    assert {"lost": 200, "won": 10}.items() <= behaviour.summary(of(after, before, metric=errors))["flips"].items()
    assert only(Contract(max_flips=0.05), of(before, after, metric=errors)).status is Status.PASS


def test_no_flip_at_all_on_few_samples_proves_little():
    assert only(Contract(max_flips=0.02), of(*lost(100, 0))).status is Status.INCONCLUSIVE
    assert only(Contract(max_flips=0.02), of(*lost(149, 0))).status is Status.PASS  # 0.98^149 < 5 %


def test_samples_that_would_settle_a_share():
    needed = share_samples_needed(10, 1000, 0.015)
    assert proportion_bounds(math.ceil(0.01 * needed), needed)[1] <= 0.015 < proportion_bounds(10, 1000)[1]
    assert share_samples_needed(20, 1000, 0.02) is None and share_samples_needed(0, 10, 0.02) == 149


@pytest.mark.parametrize("n", [149, 360, 872, 10_000])
@pytest.mark.parametrize("limit", [0.005, 0.02, 0.1])
def test_flips_at_the_limit_pass_in_at_most_one_of_twenty(n, limit):
    """Summed exactly over every count that can occur."""
    counts = [k for k in range(math.ceil(limit * n) + 1) if proportion_bounds(k, n, 0.95)[1] <= limit]
    chance = float(binom.pmf(counts, n, limit).sum()) if counts else 0.0
    assert chance <= 0.05 and (chance > 0.005 or limit * n < 5)


def test_flips_need_a_share_of_independent_samples_and_a_baseline():
    columns = answers(np.ones(200))
    assert only(Contract(max_flips=0.02), of(columns, columns, metrics.macro_f1())).status is Status.UNVERIFIED
    assert "no" in only(Contract(max_flips=0.02), of(columns, None)).reason
    assert only(Contract(max_flips=0.02), None).status is Status.UNVERIFIED


def test_agreement_counts_equal_answers_right_or_wrong():
    first, second = answers([1, 1, 0, 0, 1]), answers([1, 0, 0, 0, 1])
    assert of(second, first).agreement == 0.8
    assert of({"error": np.ones(3)}, {"error": np.ones(3)}, metrics.mae()).agreement is None


def calibrated(n, over, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.6, 0.95, n)
    return answers(rng.random(n) < confidence - over, confidence)


@pytest.mark.parametrize(("limit", "status"), [(0.15, Status.PASS), (0.102, Status.INCONCLUSIVE), (0.05, Status.FAIL)])
def test_the_calibration_error_is_judged_by_its_upper_bound(limit, status):
    verdict = only(Contract(max_ece=limit), of(calibrated(3000, 0.1), calibrated(3000, 0.0)))
    assert verdict.status is status and verdict.measured < verdict.high, verdict


def test_a_limit_on_the_error_itself_needs_no_baseline():
    assert only(Contract(max_ece=0.15), of(calibrated(3000, 0.1), None)).status is Status.PASS
    assert only(Contract(max_ece=0.05), of(calibrated(3000, 0.1), None)).status is Status.FAIL
    assert only(Contract(max_ece=0.5), of(calibrated(30, 0.0), None)).status is Status.INCONCLUSIVE


@pytest.mark.parametrize(("n", "limit"), [(360, 0.03), (1000, 0.02)])
def test_what_chance_adds_to_a_calibrated_model_fails_no_limit(n, limit):
    """Its error looks twice the limit on so few samples. As the same of both models it looks like an increase or not, by chance alone."""
    verdict = only(Contract(max_ece=limit), of(calibrated(n, 0.0), None))
    assert verdict.measured > limit and verdict.status is Status.INCONCLUSIVE, verdict
    assert n < verdict.samples_needed < 30 * n and "without what chance adds" in verdict.reason
    evidence = Evidence(artifact="a", runtime="onnxruntime", threads=1, size_bytes=1, download_bytes=1)
    examined = Examined(evidence=evidence, behaviour=of(calibrated(n, 0.0), calibrated(n, 0.0, seed=1)))
    for contract in (Contract(max_ece=limit), Contract(max_ece_increase=limit)):
        assert stage_verdicts(Gate(pays="nothing"), floor=None, candidate=examined, before=examined, pays=True, contract=contract) == ()


def test_without_confidences_calibration_is_unverified():
    assert only(Contract(max_ece=0.9), of(answers(np.ones(200)), calibrated(200, 0.0))).status is Status.UNVERIFIED
    assert only(Contract(max_ece=0.9), None).status is Status.UNVERIFIED


def test_the_summary_has_all_of_it_and_is_readable():
    masks = {"odd": np.arange(400) % 2 == 1, "none": np.zeros(400, dtype=bool)}
    data = behaviour.summary(of(calibrated(400, 0.1), calibrated(400, 0.0), masks=masks))
    _check(json.loads(json.dumps(data, allow_nan=False)), BEHAVIOUR, "behaviour")
    assert [s["name"] for s in data["slices"]] == ["odd", "none"] and data["flips"]["samples"] == 400
    assert sum(b["count"] for b in data["calibration"]["candidate"]["bins"]) == 400 and len(data["calibration"]["baseline"]["bins"]) == 15
    right = int(calibrated(400, 0.1)["correct"].sum())
    assert {k: sum(v) for k, v in data["calibration"]["candidate"]["histogram"].items()} == {"right": right, "wrong": 400 - right}
    bare = behaviour.summary(of({"error": np.ones(3)}, None, metrics.mae()))
    assert (bare["flips"], bare["calibration"], bare["agreement"], bare["slices"], bare["slices_note"]) == (None, None, None, [], "the task has no slices")
    _check(bare, BEHAVIOUR, "behaviour")


def test_one_model_alone_shows_its_metric_by_slice():
    columns = answers(np.arange(100) >= 10)
    data = behaviour.summary(of(columns, None, masks={"first": np.arange(100) < 20, "none": np.zeros(100, dtype=bool)}))
    assert [(s["name"], s["samples"], s["candidate"], s["retention"]) for s in data["slices"]] == [("first", 20, 0.5, None), ("none", 0, None, None)]
    assert "against a baseline" in data["slices_note"]


def test_confidence_is_the_probability_of_the_predicted_class():
    rows = metrics.accuracy().rows({"logits": np.log([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]])}, (None, np.array([1, 1])))
    assert rows["confidence"] == pytest.approx([0.7, 0.5])
    single = metrics.macro_f1().rows({"logits": np.log([3.0, 1 / 4])}, (None, np.array([1, 1])))
    assert single["confidence"] == pytest.approx([0.75, 0.8])
    odd = metrics.accuracy().rows({"logits": np.array([[np.inf, 0.0], [-np.inf, 0.0], [1e4, -1e4]])}, (None, np.array([0, 1, 0])))
    assert odd["confidence"] == pytest.approx([1, 1, 1])


def test_the_99th_percentile_takes_459_samples():
    from limbeck.core.evidence import Latency

    evidence = Evidence(artifact="a", runtime="onnxruntime", threads=1, size_bytes=1, download_bytes=1)
    for count, status in ((458, Status.INCONCLUSIVE), (459, Status.PASS)):
        examined = Examined(evidence=evidence, latency=Latency(blocks=((1.0,) * count,)))
        (verdict,) = contract_verdicts(Contract(latency_p99_ms=2.0), None, candidate=examined, baseline=None)
        assert verdict.status is status and (verdict.samples_needed == 459 or status is Status.PASS)


def test_a_stage_is_held_to_the_limits_that_have_no_shares():
    candidate, baseline = lost(1000, 100)
    masks = {"first": np.arange(1000) < 100, "rest": np.arange(1000) >= 100}
    evidence = Evidence(artifact="a", runtime="onnxruntime", threads=1, size_bytes=1, download_bytes=1)
    after = Examined(evidence=evidence, behaviour=of(candidate, baseline, masks=masks))

    def owed(**limits) -> list[str]:
        found = stage_verdicts(Gate(pays="nothing"), floor=None, candidate=after, before=after, pays=True, contract=Contract(**limits))
        return [v.gate for v in found if v.status is Status.FAIL] or [v.gate for v in found]

    assert owed(worst_slice_retention=0.9) == ["worst_slice_retention"]
    assert owed(slice_retention={"rest": 0.9, "first": 0.9}) == ["slice_retention.first"]
    assert owed(max_flips=0.05) == ["max_flips"]
    assert owed(max_flips=0.11) == []  # unproved is not broken
    assert owed(size_bytes=1, metric=0.99) == []  # due at the end


def too_sure(n, over, seed=0):
    rng = np.random.default_rng([n, seed])
    sure, chance = rng.uniform(0.55, 0.95, n), rng.random(n)
    return [answers(chance < sure - by, sure) for by in (over, 0.05)]


@pytest.mark.parametrize(("n", "over", "limit", "status"), [(5000, 0.05, 0.02, Status.PASS), (872, 0.08, 0.03, Status.INCONCLUSIVE), (5000, 0.2, 0.02, Status.FAIL)])
def test_an_increase_of_the_calibration_error_is_judged_by_its_bound(n, over, limit, status):
    found = of(*too_sure(n, over))
    verdict = only(Contract(max_ece_increase=limit), found)
    assert verdict.status is status and verdict.high > verdict.measured and (verdict.samples_needed is not None) is (status is Status.INCONCLUSIVE)
    shown = behaviour.summary(found)["calibration"]["increase"]
    assert shown == {"value": verdict.measured, "high": verdict.high} and json.dumps(shown)
    if status is Status.INCONCLUSIVE:
        assert verdict.samples_needed > n and f"about {verdict.samples_needed:,} samples" in verdict.reason


def test_an_increase_needs_a_baseline_and_confidences_and_some_samples():
    own, before = too_sure(600, 0.05)
    bare = {k: v for k, v in own.items() if k != "confidence"}
    unverified = {"no baseline": of(own, None), "no confidence": of(bare, before), "nothing": None, "baseline without": of(own, bare)}
    assert {only(Contract(max_ece_increase=0.9), found).status for found in unverified.values()} == {Status.UNVERIFIED}
    assert behaviour.summary(unverified["no baseline"])["calibration"]["increase"] is None
    few = only(Contract(max_ece_increase=0.9), of(*({k: v[:20] for k, v in rows.items()} for rows in (own, before))))
    assert few.status is Status.INCONCLUSIVE and few.samples_needed == 50


def test_a_calibration_error_near_its_limit_says_how_many_samples_would_do():
    verdict = only(Contract(max_ece=0.1), of(too_sure(600, 0.08)[0], None))
    assert verdict.status is Status.INCONCLUSIVE and verdict.samples_needed > 600 and f"{verdict.samples_needed:,} samples" in verdict.reason


def test_a_stage_is_held_to_what_calibration_may_lose():
    right = np.arange(1000) % 10 > 0
    baseline, candidate = answers(right, confidence=np.full(1000, 0.9)), answers(right, confidence=np.full(1000, 0.99))
    evidence = Evidence(artifact="a", runtime="onnxruntime", threads=1, size_bytes=1, download_bytes=1)
    after = Examined(evidence=evidence, behaviour=of(candidate, baseline))

    def owed(limit: float) -> list[str]:
        found = stage_verdicts(Gate(pays="nothing"), floor=None, candidate=after, before=after, pays=True, contract=Contract(max_ece_increase=limit))
        return [v.gate for v in found]

    assert owed(0.05) == ["max_ece_increase"]  # 0.09 worse
    assert owed(0.091) == []
