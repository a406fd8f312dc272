"""Slices: which samples belong to them, what each keeps, and verdicts that hold for all of them together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck.core.contract import Contract
from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.evidence import Evidence, Status
from limbeck.core.task import Task
from limbeck.evaluation import slices
from limbeck.evaluation.behaviour import Behaviour
from limbeck.evaluation.gates import Examined, contract_verdicts
from limbeck.intake import metrics
from limbeck.stats.paired import Counts, ratio_lower

SAMPLES = [(torch.tensor([float(i)]), i % 3) for i in range(150)]


def task(**kinds) -> Task:
    return Task(metric=metrics.accuracy(), splits={"test": SAMPLES}, slices=kinds)


def rows(correct) -> dict[str, np.ndarray]:
    return {"correct": np.asarray(correct, dtype=np.int8)}


def right(n, wrong=()):
    column = np.ones(n, dtype=np.int8)
    column[list(wrong)] = 0
    return rows(column)


def verdict_of(contract: Contract, candidate, baseline, masks, metric=None):
    metric = metric or metrics.accuracy()
    behaviour = Behaviour(metric=metric, candidate=candidate, baseline=baseline, masks=masks, split="test", confidence=contract.confidence)
    evidence = Evidence(artifact="a", runtime="onnxruntime", threads=1, size_bytes=1, download_bytes=1)
    return {v.gate: v for v in contract_verdicts(contract, metric, candidate=Examined(evidence=evidence, behaviour=behaviour), baseline=None)}


def masks_of(n, **ranges):
    found = {}
    for name, (start, end) in ranges.items():
        found[name] = np.zeros(n, dtype=bool)
        found[name][start:end] = True
    return found


def test_masks_follow_the_order_of_the_samples():
    found = slices.masks_of(task(second=lambda b: b[1] == 1, large=lambda b: (b[0][:, 0] >= 100).numpy(), none=lambda b: [False] * len(b[1])), "test", batch_size=64)
    assert np.array_equal(found["second"], np.arange(150) % 3 == 1) and np.array_equal(np.flatnonzero(found["large"]), np.arange(100, 150))
    assert not found["none"].any() and slices.masks_of(task(), "test") == {}


def broken(batch):
    raise KeyError("night")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (broken, r"slice 'x' of task 'task': .*test_slices.py:\d+: .*raised KeyError"),
        (lambda b: b[1][:-1] == 1, r"slice 'x' .* must give one bool a sample, got bool of shape \[63\] for 64 samples"),
        (lambda b: b[1], r"must give one bool a sample, got int64"),
        (lambda b: True, r"of shape \[\] for 64"),
        (lambda b: None, r"got object"),
    ],
)
def test_a_slice_that_gives_something_else_says_what(function, says):
    with pytest.raises(TaskError, match=says):
        slices.masks_of(task(x=function), "test")


def test_a_contract_names_slices_that_there_are():
    own = task(night=broken, day=broken)
    slices.check_named(own, Contract(slice_retention={"night": 0.9}, worst_slice_drop=0.1))
    slices.check_named(None, Contract(worst_slice_retention=0.9))
    with pytest.raises(ConfigError, match=r"contract.slice_retention.nigth limits a slice that task 'task' doesn't have. Did you mean 'night'\?"):
        slices.check_named(own, Contract(slice_retention={"nigth": 0.9}))
    with pytest.raises(ConfigError, match="limits every slice, and task 'task' has none"):
        slices.check_named(task(), Contract(worst_slice_retention=0.9))


def test_each_slice_has_a_verdict_and_the_bounds_hold_together():
    masks = masks_of(1200, night=(0, 200), day=(200, 1200))
    found = verdict_of(Contract(slice_retention={"night": 0.93, "day": 0.93}), right(1200, [0, 1, 2, 300]), right(1200), masks)
    assert [v.status for v in found.values()] == [Status.PASS, Status.PASS]
    day = Counts(n11=999, n10=0, n01=1, n00=0)
    assert found["slice_retention.day"].low == pytest.approx(ratio_lower(day, 0.975))  # two open
    night = Counts(n11=197, n10=0, n01=3, n00=0)
    assert found["slice_retention.night"].measured == 0.985 and found["slice_retention.night"].low == pytest.approx(ratio_lower(night, 0.975))
    tight = verdict_of(Contract(slice_retention={"night": 0.958, "day": 0.93}), right(1200, [0, 1, 2, 300]), right(1200), masks)
    assert ratio_lower(night, 0.975) < 0.958 < ratio_lower(night, 0.95)  # day is claimed first; then night stands alone
    assert tight["slice_retention.night"].status is Status.PASS and tight["slice_retention.night"].low == pytest.approx(ratio_lower(night, 0.95))


def test_one_slice_can_fail_what_the_whole_keeps():
    masks = masks_of(2000, night=(0, 100), day=(100, 2000))
    contract = Contract(worst_slice_retention=0.9, slice_retention={"day": 0.97})
    found = verdict_of(contract, right(2000, range(20)), right(2000), masks)
    assert found["worst_slice_retention"].status is Status.FAIL and "'night': retention 0.8000" in found["worst_slice_retention"].reason
    assert found["slice_retention.day"].status is Status.PASS
    assert list(found) == ["slice_retention.day", "worst_slice_retention"]


def test_between_estimate_and_bound_it_says_how_many_samples_would_settle_it():
    found = verdict_of(Contract(worst_slice_retention=0.97), right(100, [3]), right(100), masks_of(100, all=(0, 100)))["worst_slice_retention"]
    assert found.status is Status.INCONCLUSIVE and found.samples_needed > 100 and "of its samples would settle it" in found.reason


@pytest.mark.parametrize("count", [0, 1, 3, slices.LEAST - 1])
@pytest.mark.parametrize("metric", [metrics.accuracy(), metrics.macro_f1(), metrics.mae()])
def test_a_slice_that_is_too_small_is_never_a_pass(count, metric):
    """Rows that don't differ at all would pass any bootstrap."""
    same = {"correct": np.ones(300, dtype=np.int8), "predicted": np.arange(300) % 3, "target": np.arange(300) % 3, "error": np.zeros(300)}
    masks = masks_of(300, small=(0, count), large=(0, 300))
    ratio = Contract(slice_retention={"small": 0.1}, worst_slice_retention=0.1)
    drop = Contract(slice_drop={"small": 9.0}, worst_slice_drop=9.0)
    for verdict in verdict_of(drop if metric.name == "mae" else ratio, same, same, masks, metric).values():
        assert verdict.status is Status.INCONCLUSIVE and ("no sample" in verdict.reason if count == 0 else f"has {count} sample" in verdict.reason)


def test_where_the_baseline_has_nothing_the_drop_is_taken_and_a_ratio_is_unverified():
    baseline, candidate = right(200, range(100)), right(200, range(90))
    masks = masks_of(200, lost=(0, 100), kept=(100, 200))
    found = verdict_of(Contract(slice_retention={"lost": 0.5, "kept": 0.5}, slice_drop={"lost": 0.1}), candidate, baseline, masks)
    assert found["slice_retention.lost"].status is Status.UNVERIFIED and "limit slice_drop instead" in found["slice_retention.lost"].reason
    assert found["slice_retention.kept"].status is Status.PASS and found["slice_drop.lost"].status is Status.PASS
    parts = Behaviour(metric=metrics.accuracy(), candidate=candidate, baseline=baseline, masks=masks, split="test", confidence=0.95).parts
    (lost,) = (s for s in slices.shown(parts) if s.name == "lost")
    assert (lost.baseline, lost.candidate, lost.retention.kind, lost.retention.value) == (0.0, 0.1, "drop", pytest.approx(-0.1))


def test_a_metric_without_a_ratio_is_limited_by_its_drop():
    rng = np.random.default_rng(0)
    first = {"error": rng.random(400)}
    second = {"error": first["error"] + np.r_[np.full(200, 0.5), np.full(200, 0.01)] + 0.01 * rng.random(400)}
    masks = masks_of(400, far=(0, 200), near=(200, 400))
    found = verdict_of(Contract(slice_drop={"near": 0.1}, worst_slice_drop=0.1, worst_slice_retention=0.9), second, first, masks, metrics.mae())
    assert found["slice_drop.near"].status is Status.PASS and found["worst_slice_drop"].status is Status.FAIL and "'far'" in found["worst_slice_drop"].reason
    assert found["worst_slice_retention"].status is Status.UNVERIFIED


def test_a_metric_that_is_undefined_in_a_slice_leaves_the_others_alone():
    rng = np.random.default_rng(0)
    own = {"score": rng.normal(size=300) + np.arange(300) % 2, "target": np.arange(300) % 2}
    masks = {"one class": own["target"] == 1, "both": np.ones(300, dtype=bool)}
    found = verdict_of(Contract(slice_retention={"one class": 0.5, "both": 0.5}), own, own, masks, metrics.roc_auc())
    assert found["slice_retention.one class"].status is Status.UNVERIFIED and "can't be bounded" in found["slice_retention.one class"].reason
    assert found["slice_retention.both"].status is Status.PASS


def test_rows_that_are_no_samples_are_not_sliced():
    found = verdict_of(Contract(worst_slice_retention=0.5, slice_retention={"a": 0.5}), right(70), right(70), masks_of(35, a=(0, 35)))
    assert {v.status for v in found.values()} == {Status.UNVERIFIED} and all("70 rows for 35 samples" in v.reason for v in found.values())


def test_what_is_shown_is_bounded_for_all_slices_together():
    masks = masks_of(400, a=(0, 100), b=(100, 400), tiny=(0, 3))
    parts = Behaviour(metric=metrics.accuracy(), candidate=right(400, [0]), baseline=right(400), masks=masks, split="test", confidence=0.95).parts
    found = slices.shown(parts)
    assert [s.name for s in found] == ["b", "a", "tiny"] and found[1].retention.low == pytest.approx(ratio_lower(Counts(99, 0, 1, 0), 0.975))
    assert found[2].retention is None and "prove nothing" in found[2].note and found[2].candidate == pytest.approx(2 / 3)
