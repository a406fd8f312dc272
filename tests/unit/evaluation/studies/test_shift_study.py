"""Retention under corruption: on the same samples, with bounds that know how few they are, and what it says to a contract."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from edge_models import linear, setting_of

import limbeck
from limbeck.core.contract import Contract
from limbeck.core.errors import Interrupted, TaskError
from limbeck.core.evidence import Status
from limbeck.core.proof import Proof
from limbeck.evaluation import studies
from limbeck.evaluation.quality import retention
from limbeck.evaluation.shifted import POINT, SAMPLE, Point, kept_at, kept_over
from limbeck.evaluation.studies.shift import SHIFT, shared, verdict
from limbeck.intake.metrics import accuracy, macro_f1, mse

WEIGHTS = np.eye(4, 3, dtype=np.float32)


def add(sample, strength, rng):
    """Noise that grows with the strength."""
    return sample[0] + strength * torch.from_numpy(rng.normal(size=4).astype(np.float32)), sample[1]


def task(count: int = 60, **more):
    """Which of three numbers is the largest: the linear models answer it without an error."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(count, 4, generator=generator)
    splits = {"test": [(x, int(x[:3].argmax())) for x in inputs]}
    return limbeck.Task(**{"splits": splits, "metric": accuracy(), "shifts": {"add": add, "still": lambda sample, strength, rng: sample}} | more)


def told(setting) -> dict:
    found = SHIFT.take(setting)
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture
def models(tmp_path):
    """A baseline that is right, and a candidate that can't see beyond 3."""
    return linear(tmp_path / "clip.onnx", "Clip", weights=WEIGHTS), linear(tmp_path / "plain.onnx", weights=WEIGHTS)


def test_both_models_see_the_same_corrupted_samples(models):
    found = told(setting_of(*models, task=task(), samples=600))
    kinds = {k["name"]: k for k in found["kinds"]}
    assert (found["samples"], found["distinct"], found["derived"], found["assumed"]) == (60, 60, False, "the task's own functions")
    assert [p["baseline"] for p in kinds["still"]["points"]] == [p["candidate"] for p in kinds["still"]["points"]] == [1.0] * 5
    assert kinds["still"]["retention"]["value"] == 1.0 and kinds["still"]["retention"]["low"] == pytest.approx(60 / (60 + 1.6448536**2), abs=1e-6)
    worse = [p["candidate"] for p in kinds["add"]["points"]]
    assert worse[-1] < worse[0] <= 1 and [p["strength"] for p in kinds["add"]["points"]] == [1, 2, 3, 4, 5]
    same = told(setting_of(models[1], models[1], task=task(), samples=600))
    assert same["overall"]["value"] == 1.0 and all(p["baseline"] == p["candidate"] for k in same["kinds"] for p in k["points"])
    assert told(setting_of(*models, task=task(), samples=600)) == found


def test_a_kind_and_all_of_them_are_ratios_of_sums(models):
    found = told(setting_of(*models, task=task(), samples=600))
    ratios = [sum(p["candidate"] for p in k["points"]) / sum(p["baseline"] for p in k["points"]) for k in found["kinds"]]
    assert [k["retention"]["value"] for k in found["kinds"]] == pytest.approx(ratios)
    own, first = (sum(p[name] for k in found["kinds"] for p in k["points"]) for name in ("candidate", "baseline"))
    assert found["overall"]["value"] == pytest.approx(own / first) and found["overall"]["low"] < found["overall"]["value"] and found["overall"]["kind"] == "ratio"
    for kind in found["kinds"]:
        for p in kind["points"]:
            assert p["retention"]["low"] <= p["retention"]["value"] and p["intervals"]["candidate"][0] <= p["candidate"] <= p["intervals"]["candidate"][1]


def test_a_kind_at_which_the_baseline_collapses_carries_nothing():
    """It keeps 1 of 10 there and the candidate 4: four times as much, and no reason to forgive that elsewhere 6 of 10 are kept."""

    def rows(right: int) -> dict:
        return {"correct": (np.arange(10) < right).astype(np.int8)}

    points = [Point(kind, s, np.arange(10), {"candidate": rows(c), "baseline": rows(b)}) for kind, c, b in (("glare", 4, 1), ("noise", 6, 10)) for s in range(1, 6)]
    found = kept_over(points, accuracy(), 0.95)[0]
    assert found and found["value"] == pytest.approx(10 / 11)


def test_a_bound_is_never_below_nothing():
    """Two samples, of which both models lose one beyond the first strength: rare units widen the bound beyond what there is to keep."""
    rows = [{"correct": np.array([1, int(s == 1)], np.int8)} for s in range(1, 6)]
    points = [Point("a", s, np.arange(2), {"baseline": rows[s - 1], "candidate": rows[s - 1]}) for s in range(1, 6)]
    found = kept_over(points, accuracy(), 0.95)[0]
    assert found and found["value"] == 1.0 and found["low"] == 0.0
    candidate, baseline = ({"predicted": np.array(p), "target": np.array([2, 0, 2, 1, 0, 1])} for p in ([0, 0, 1, 1, 0, 2], [2, 0, 1, 0, 0, 2]))
    assert kept_at(macro_f1(), candidate, baseline, 0.95)["low"] == 0.0 == retention(macro_f1(), candidate, baseline, split="test").low


def test_one_sample_has_no_bound_and_says_so_in_words(models):
    found = told(setting_of(*models, task=task(count=1), samples=600))
    assert found["overall"] is None and "one sample has no spread" in found["note"] and verdict(found, 0.5).status is Status.UNVERIFIED


def test_an_artifact_of_a_fixed_batch_is_judged_on_points_that_dont_fill_it(tmp_path, models):
    """33 samples, eight at once: the last is repeated, and what is kept is that of a free batch."""
    fixed = [linear(tmp_path / f"{name}.onnx", before, weights=WEIGHTS, batch=8) for name, before in (("c", "Clip"), ("b", "Identity"))]
    asked = {"task": task(count=33), "samples": 330}
    found, free = told(setting_of(*fixed, **asked)), told(setting_of(*models, **asked))
    assert found["overall"] is not None and found["overall"] == free["overall"] and found["kinds"] == free["kinds"]


def test_samples_are_shared_out():
    parts = shared(1000, 300, 30)
    assert [len(p) for p in parts] == [10] * 30 and len(np.unique(np.concatenate(parts))) == 300
    assert any(np.diff(p).min() < 0 for p in parts), "in no order: a split may be sorted by class"
    small = shared(7, 300, 30)
    assert all(sorted(p.tolist()) == list(range(7)) for p in small)
    uneven = shared(50, 300, 30)
    assert all(len(np.unique(p)) == 10 for p in uneven) and len(np.unique(np.concatenate(uneven))) == 50
    assert [len(p) for p in shared(100, 1, 30)] == [2] * 30


def test_any_metric_is_resampled_whole(models):
    f1 = told(setting_of(*models, task=task(metric=macro_f1()), samples=200))
    assert f1["overall"]["kind"] == "ratio" and f1["overall"]["low"] < f1["overall"]["value"] < 1
    error = task(metric=mse(), splits={"test": [(x, x[:3]) for x, _ in task().split("test")]})
    drop = told(setting_of(*models, task=error, samples=200))
    assert drop["overall"]["kind"] == "drop" and drop["overall"]["low"] > drop["overall"]["value"] != 0
    assert verdict(drop, 0.9).status is Status.UNVERIFIED and "ratio means nothing" in verdict(drop, 0.9).reason


def test_units_are_drawn_whole():
    """Five points on the same samples are no five times as many samples."""
    rng = np.random.default_rng(0)
    ids, right, kept = np.arange(40), np.ones(40, np.int8), (rng.random(40) < 0.9).astype(np.int8)
    rows = {"baseline": {"correct": right}, "candidate": {"correct": kept}}
    once = kept_over([Point("a", s, ids, rows) for s in range(1, 6)], accuracy(), 0.95)[0]
    apart = kept_over([Point("a", s, ids + 100 * s, rows) for s in range(1, 6)], accuracy(), 0.95)[0]
    assert once and apart and once["value"] == apart["value"] and (once["units"], apart["units"]) == (40, 200)
    assert once["value"] - once["low"] > 1.5 * (apart["value"] - apart["low"])


@pytest.mark.slow
def test_the_bound_holds_as_often_as_it_says():
    """Truth 0.9 in each of two kinds, 200 different samples: at most 5 % of bounds lie above it, and three standard errors."""
    rng, above, tries = np.random.default_rng(5), 0, 250
    for _ in range(tries):
        points = []
        for number in range(10):
            first = (rng.random(20) < 0.9).astype(np.int8)
            own = first & (rng.random(20) < 0.9)
            points.append(Point("ab"[number % 2], number // 2 + 1, np.arange(20) + 20 * number, {"baseline": {"correct": first}, "candidate": {"correct": own}}))
        found = kept_over(points, accuracy(), 0.95)[0]
        assert found
        above += found["low"] > 0.9
    assert above / tries <= 0.05 + 3 * (0.05 * 0.95 / tries) ** 0.5


def test_columns_of_the_metric_are_not_touched():
    rows = {"baseline": {"correct": np.ones(4, np.int8)}, "candidate": {"correct": np.ones(4, np.int8)}}
    assert kept_at(accuracy(), rows["candidate"], rows["baseline"], 0.95)["value"] == 1.0
    kept_over([Point("a", 1, np.arange(4), rows)], accuracy(), 0.95)
    assert POINT not in rows["baseline"] and SAMPLE not in rows["baseline"]


def test_nan_under_corruption_is_a_finding_of_its_point(tmp_path, models):
    shifts = {"zeros": lambda sample, strength, rng: (sample[0] * (strength < 3), sample[1])}
    broken = linear(tmp_path / "log.onnx", "Log", weights=np.ones((4, 3), np.float32))
    ratio = linear(tmp_path / "zero.onnx", "Log", weights=np.zeros((4, 3), np.float32))  # log 0 · 0 is NaN
    found = told(setting_of(ratio, models[1], task=task(shifts=shifts), samples=100))
    points = found["kinds"][0]["points"]
    assert [p["candidate"] is None for p in points] == [False, False, True, True, True] and "NaN" in points[2]["note"]
    assert found["overall"] is None and "zeros at strength 3" in found["note"] and found["kinds"][0]["retention"] is None
    assert verdict(found, 0.5).status is Status.UNVERIFIED
    assert told(setting_of(broken, models[1], task=task(shifts=shifts), samples=100))["overall"] is not None, "an infinite logit isn't NaN"


def test_one_model_alone_has_curves_and_no_retention(models):
    found = told(setting_of(models[0], task=task(), samples=100))
    assert found["overall"] is None and "no baseline" in found["note"]
    assert all(p["candidate"] is not None and p["baseline"] is None and p["retention"] is None for k in found["kinds"] for p in k["points"])


def test_a_baseline_that_is_never_right(tmp_path, models):
    never = linear(tmp_path / "never.onnx", weights=-WEIGHTS)
    found = told(setting_of(models[1], never, task=task(shifts={"still": lambda s, n, rng: s}), samples=100))
    assert found["overall"] is None and "means nothing" in found["note"]


def figures(value: float, low: float) -> dict:
    overall = {"value": value, "low": low, "kind": "ratio", "units": 100}
    return {"overall": overall, "note": "", "confidence": 0.95, "split": "test", "metric": "accuracy", "kinds": [1, 2]}


def test_what_it_says_to_a_contract():
    assert verdict(figures(0.95, 0.92), 0.9).status is Status.PASS
    unsure = verdict(figures(0.95, 0.85), 0.9)
    assert unsure.status is Status.INCONCLUSIVE and unsure.samples_needed == 400 and "proof.samples" in unsure.reason
    assert verdict(figures(0.85, 0.8), 0.9).status is Status.FAIL
    assert verdict(figures(0.9, 0.8), 0.9).status is Status.INCONCLUSIVE
    assert verdict(figures(1.2, 1.1), 0.9).status is Status.ANOMALOUS
    one = verdict(figures(0.95, 0.92), 0.9)
    assert (one.gate, one.limit, one.measured, one.low) == ("corruption_retention", 0.9, 0.95, 0.92)
    assert [s.name for s in studies.chosen(Proof(studies="none"), Contract(corruption_retention=0.9))] == ["shift"]


def test_when_there_is_nothing_to_corrupt(models, tmp_path):
    assert "--task" in SHIFT.why_not(setting_of(*models))
    assert "image_shifts" in SHIFT.why_not(setting_of(*models, task=task(shifts=None)))
    assert SHIFT.why_not(setting_of(*models, task=task())) == ""
    with pytest.raises(TaskError):
        SHIFT.take(setting_of(*models))
    with pytest.raises(TaskError, match=r"shifts\['add'\]"):
        SHIFT.take(setting_of(*models, task=task(shifts={"add": lambda s, n, rng: s[5]})))
    with pytest.raises(Interrupted):
        SHIFT.take(setting_of(*models, task=task(), stop=lambda: True))


def test_what_is_clean_is_told_where_it_was_measured(models):
    setting = setting_of(*models, task=task(), samples=100)
    rows = {"correct": np.array([1, 0], np.int8)}
    known = replace(setting, candidate=replace(setting.candidate, rows=rows))
    assert told(known)["clean"] == {"baseline": None, "candidate": 0.5}
