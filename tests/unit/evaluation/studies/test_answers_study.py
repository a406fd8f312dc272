"""How far answers lie apart: of classes, tokens and numbers; with probabilities as outputs, one logit, a fixed batch."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

sys.path.insert(0, str(Path(__file__).parent))
from tables_of_answers import logits, setting, side, table

from limbeck.core.errors import Interrupted
from limbeck.core.metric import Metric
from limbeck.evaluation.studies import MISSING, taken
from limbeck.evaluation.studies.answers import ANSWERS
from limbeck.intake.metrics import mse
from limbeck.stats.paired import proportion_bounds


def answers(one) -> dict:
    return taken(one, (ANSWERS,))["answers"]


def two(seed: int = 0, count: int = 300, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.normal(0, 2, (count, classes)).astype(np.float32)
    return first, (first + rng.normal(0, 0.5, first.shape)).astype(np.float32), rng.integers(0, classes, count)


def test_divergence_agreement_and_margins_equal_what_is_worked_out_by_hand(tmp_path: Path):
    a, b, label = two()
    told = answers(setting(tmp_path, a, b, {"label": label}, classes=list("abcde")))
    p, q = softmax(a.astype(np.float64), axis=1), softmax(b.astype(np.float64), axis=1)
    kl = rel_entr(p, q).sum(axis=1)
    assert (told["kind"], told["samples"], told["classes"], told["output"]) == ("class", 300, 5, "logits")
    assert told["kl"]["mean"] == pytest.approx(kl.mean(), rel=1e-6) and told["kl"]["max"] == pytest.approx(kl.max(), rel=1e-6)
    same = int((a.argmax(1) == b.argmax(1)).sum())
    assert told["agreement"] == {"same": same, "share": same / 300, "low": proportion_bounds(same, 300, 0.95)[0]}
    top = np.sort(p, axis=1)
    own = q[np.arange(300), p.argmax(1)]
    others = np.where(np.arange(5) == p.argmax(1)[:, None], -1, q).max(axis=1)
    assert told["margin"]["baseline"] == pytest.approx((top[:, -1] - top[:, -2]).mean()) and told["margin"]["candidate"] == pytest.approx((own - others).mean())
    worst = int(kl.argmax())
    assert told["worst"][0]["id"] == worst and told["worst"][0]["candidate"] == {"answer": "abcde"[b[worst].argmax()], "sure": pytest.approx(q[worst].max())}


def test_histograms_hold_every_sample_right_and_wrong_apart(tmp_path: Path):
    a, b, label = two()
    told = answers(setting(tmp_path, a, b, {"label": label}))["histograms"]
    for name, rows in (("baseline", a), ("candidate", b)):
        right = int((rows.argmax(1) == label).sum())
        assert (sum(told[name]["right"]), sum(told[name]["wrong"])) == (right, 300 - right)
        sure, where = softmax(rows.astype(np.float64), axis=1).max(axis=1), np.linspace(0.2, 1, 21)
        assert [x + y for x, y in zip(told[name]["right"], told[name]["wrong"], strict=True)] == np.histogram(sure, where)[0].tolist()
    assert told["low"] == 0.2


def test_the_same_model_twice_has_no_distance(tmp_path: Path):
    a, _, label = two()
    told = answers(setting(tmp_path, a, a, {"label": label}))
    assert told["kl"]["max"] == 0 and told["agreement"]["share"] == 1 and told["worst"] == [] and told["margin"]["thinner"] == 0


def test_probabilities_are_not_taken_for_logits(tmp_path: Path):
    a, b, label = two()
    one = answers(setting(tmp_path / "logits", a, b, {"label": label}))
    other = answers(setting(tmp_path / "probabilities", softmax(a, axis=1), softmax(b, axis=1), {"label": label}))
    assert other["kl"]["mean"] == pytest.approx(one["kl"]["mean"], rel=1e-4)


def test_one_logit_is_two_classes(tmp_path: Path):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (100, 1))
    label = (z[:, 0] > 0).astype(int)
    single = answers(setting(tmp_path / "one", z, z * 0.5, {"label": label}))
    double = answers(setting(tmp_path / "two", np.concatenate([0 * z, z], 1), np.concatenate([0 * z, z * 0.5], 1), {"label": label}))
    assert single["classes"] == 2 and single["kl"]["mean"] == pytest.approx(double["kl"]["mean"], rel=1e-5) and single["agreement"]["share"] == 1


def test_only_as_many_samples_are_asked_as_are_allowed(tmp_path: Path):
    a, b, label = two()
    told = answers(setting(tmp_path, a, b, {"label": label}, samples=50))
    assert told["samples"] == 50 and {w["id"] for w in told["worst"]} <= set(range(0, 300, 6))


def test_a_fixed_batch_is_kept(tmp_path: Path):
    a, b, label = two(count=96)
    one = setting(tmp_path, a, b, {"label": label}, batch=32)
    assert answers(one)["samples"] == 96 and answers(replace(one, samples=50))["samples"] == 32
    assert "takes 32 samples at once" in answers(replace(one, samples=20))[MISSING]


def test_tokens_are_compared_where_they_are_judged(tmp_path: Path):
    rng = np.random.default_rng(0)
    a = rng.normal(0, 2, (40, 6, 7)).astype(np.float32)
    b = a.copy()
    b[:, 0] = rng.normal(0, 2, (40, 7))
    b[:, 5] = rng.normal(0, 2, (40, 7))
    label = rng.integers(0, 7, (40, 6))
    label[:, 5] = -100
    metric = Metric(name="nothing", rows=lambda o, batch: {"n": np.zeros(len(o["logits"]))}, reduce=lambda r: 0.0, target="token")
    told = answers(setting(tmp_path, a, b, {"labels": label}, metric=metric))
    kl = rel_entr(softmax(a[:, 0].astype(np.float64), 1), softmax(b[:, 0].astype(np.float64), 1)).sum(1)
    assert (told["kind"], told["tokens"], told["samples"]) == ("token", 200, 40)
    assert told["kl"]["mean"] == pytest.approx(kl.mean() / 5, rel=1e-5)
    moved = int((a[:, 0].argmax(1) != b[:, 0].argmax(1)).sum())
    assert told["agreement"]["same"] == 200 - moved and 0 < told["agreement"]["low"] < told["agreement"]["share"]
    assert told["worst"][0] == {"id": int(kl.argmax()), "kl": pytest.approx(kl.max() / 5, rel=1e-5), "tokens": 5, "same": told["worst"][0]["same"]}


def test_a_first_batch_without_a_judged_position_says_nothing_of_the_others(tmp_path: Path):
    """No row at all is no row of probabilities: taken for such, all logits below 0 would be one tiny probability."""
    rng = np.random.default_rng(0)
    a = rng.normal(0, 2, (24, 6, 7)).astype(np.float32)
    b = a + rng.normal(0, 1, a.shape).astype(np.float32)
    label = rng.integers(0, 7, (24, 6))
    label[:8] = -100
    metric = Metric(name="nothing", rows=lambda o, batch: {"n": np.zeros(len(o["logits"]))}, reduce=lambda r: 0.0, target="token")
    told = answers(setting(tmp_path, a, b, {"labels": label}, metric=metric))
    kl = rel_entr(softmax(a[8:].astype(np.float64), -1), softmax(b[8:].astype(np.float64), -1)).sum(-1)
    assert told["tokens"] == 16 * 6 and told["kl"]["mean"] == pytest.approx(kl.mean(), rel=1e-5)


def test_numbers_differ_by_bias_and_spread(tmp_path: Path):
    rng = np.random.default_rng(0)
    a = rng.normal(3, 2, (200, 1))
    b = a + 0.5
    b[17] += 4
    told = answers(setting(tmp_path, a, b, {"target": a.astype(np.float32)}, metric=mse()))
    assert told["kind"] == "value" and told["difference"]["p50"] == pytest.approx(0.5, abs=1e-5) and told["difference"]["largest"] == pytest.approx(4.5, abs=1e-5)
    assert told["worst"][0]["id"] == 17 and told["worst"][0]["distance"] == pytest.approx(4.5, abs=1e-5)
    assert sum(told["histogram"]["all"]) == 200 and told["correlation"] > 0.9 and told["cosine"] is None
    assert told["relative"] == pytest.approx(np.sqrt(((b - a) ** 2).mean()) / a.std(), rel=1e-5)


def test_numbers_that_never_vary_have_no_relative_distance(tmp_path: Path):
    told = answers(setting(tmp_path, np.ones((60, 2)), np.ones((60, 2)), {"target": np.ones((60, 2), np.float32)}, metric=mse()))
    assert told["relative"] is None and told["correlation"] is None and told["worst"] == [] and told["cosine"]["mean"] == pytest.approx(1)


def test_what_stands_in_its_way_is_said(tmp_path: Path):
    a, b, label = two()
    one = setting(tmp_path, a, b, {"label": label})
    assert "--task" in answers(replace(one, task=None))[MISSING] and "baseline" in answers(replace(one, baseline=None))[MISSING]
    bad = b.copy()
    bad[7] = np.nan
    assert "NaN" in answers(replace(one, candidate=replace(one.candidate, artifact=table(tmp_path / "nan", bad))))[MISSING]
    other = table(tmp_path / "wide", np.zeros((300, 9)))
    assert "the shape [64, 5]" in answers(replace(one, candidate=replace(one.candidate, artifact=other)))[MISSING]
    sizes = [replace(one.candidate, artifact=table(tmp_path / f"batch-{n}", a, batch=n)) for n in (4, 8)]
    assert "different sizes (4, 8)" in answers(replace(one, baseline=sizes[0], candidate=sizes[1]))[MISSING]
    with pytest.raises(Interrupted):
        answers(replace(one, stop=lambda: True))


def test_outputs_of_another_name_are_compared_all_the_same(tmp_path: Path):
    label = np.arange(90) % 3
    one = setting(tmp_path, logits(label, 3), logits(label, 3, 0.6), {"label": label})
    renamed = replace(one.candidate, artifact=table(tmp_path / "renamed", logits(label, 3, 0.6), name="scores"))
    assert answers(replace(one, candidate=renamed))["kl"] == answers(one)["kl"] and side
