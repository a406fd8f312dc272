"""Rows of an artifact over a split, and what they say of retention."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.core.contract import Contract
from limbeck.core.errors import ArtifactError, ConfigError, NotANumber, TaskError
from limbeck.core.evidence import Evidence, Status
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.evaluation import gates, quality
from limbeck.evaluation.behaviour import Behaviour
from limbeck.intake import metrics
from limbeck.stats import paired


class Samples:
    """150 points in two dimensions and three classes, noisy."""

    def __init__(self, count=150):
        rng = np.random.default_rng(0)
        self.y = rng.integers(0, 3, count)
        self.x = (np.array([[0, 2], [2, 0], [-2, -2]])[self.y] + rng.normal(size=(count, 2))).astype(np.float32)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], int(self.y[i])


class Net(nn.Module):
    """Logits by distance from class centres; a dropout that must be off when it is judged."""

    def __init__(self):
        super().__init__()
        self.linear, self.drop = nn.Linear(2, 3), nn.Dropout(0.9)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[0.0, 2], [2, 0], [-2, -2]]))
            self.linear.bias.copy_(torch.tensor([-2.0, -2, -4]))

    def forward(self, x):
        return self.linear(self.drop(x))


@pytest.fixture
def task():
    return Task(metric=metrics.accuracy(), splits={"test": Samples(), "empty": []})


def session_of(net):
    """A runtime's session, without the runtime: arrays by position in, arrays by name out."""

    def session(feed):
        with torch.no_grad():
            return {"logits": net.eval()(torch.from_numpy(feed["0"])).numpy()}

    return session


def test_rows_are_those_of_every_sample_in_order(task):
    data, net = task.split("test"), Net()
    expected = net.eval()(torch.from_numpy(data.x)).argmax(1).numpy() == data.y
    assert 0.7 < expected.mean() < 1
    for size in (1, 64, 1000):
        assert np.array_equal(quality.rows_of(session_of(net), task, "test", batch_size=size)["correct"], expected)
    some = [7, 3, 149]
    assert np.array_equal(quality.rows_of(session_of(net), task, "test", ids=some)["correct"], expected[some])


def test_a_module_gives_the_same_rows_and_keeps_its_modes(task):
    net = Net().train()
    net.linear.eval()
    rows = quality.rows_of_module(net, task, "test")
    assert (net.training, net.drop.training, net.linear.training) == (True, True, False)
    assert np.array_equal(rows["correct"], quality.rows_of(session_of(net), task, "test")["correct"])
    assert quality.value(task.metric, rows) == rows["correct"].mean()
    half = Task(metric=task.metric, splits=task.splits, inputs=lambda b: ((b[0].bfloat16(),), {}))
    assert np.mean(quality.rows_of_module(net.bfloat16(), half, "test")["correct"] == rows["correct"]) > 0.95


def test_nan_is_refused_with_the_sample_and_the_output(task):
    def broken(feed):
        logits = session_of(Net())(feed)["logits"]
        logits[np.flatnonzero(feed["0"][:, 0] == task.split("test").x[77, 0]), 1] = np.nan
        return {"other": np.zeros(len(logits)), "logits": logits}

    with pytest.raises(ArtifactError, match=r"output 'logits' is NaN for sample 77 of split 'test'"):
        quality.rows_of(broken, task, "test", batch_size=32)
    with pytest.raises(ArtifactError, match="NaN for sample 77"):
        quality.rows_of(broken, task, "test", ids=[5, 77])
    with pytest.raises(ArtifactError, match="output 'loss' is NaN for samples 0 to 63"):
        quality.rows_of(lambda feed: {"loss": np.float32("nan")}, task, "test")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda o, b: {"a": np.zeros(3), "b": np.zeros(2)}, "all of one length, got a float64.3., b float64.2."),
        (lambda o, b: {"a": np.float64(1)}, "columns of numbers or text"),
        (lambda o, b: {"a": np.array([{}, {}], dtype=object)}, "got a object"),
        (lambda o, b: [1, 2], "a dict of columns, got list"),
        (lambda o, b: {}, "Return at least one"),
        (lambda o, b: {f"c{len(b[0])}": np.zeros(2)}, "'c64'.* for another"),
    ],
)
def test_rows_that_are_no_columns_are_refused(task, rows, message):
    odd = Task(metric=Metric(name="odd", rows=rows, reduce=lambda r: 0.0), splits=task.splits)
    with pytest.raises(TaskError, match=message):
        quality.rows_of(session_of(Net()), odd, "test")


def test_nothing_to_evaluate(task):
    with pytest.raises(TaskError, match="'empty' has no samples"):
        quality.rows_of(session_of(Net()), task, "empty")
    with pytest.raises(ConfigError, match="batch_size must be ≥ 1"):
        quality.rows_of(session_of(Net()), task, "test", batch_size=0)
    one_class = {"score": np.array([0.1, 0.2]), "target": np.array([1, 1])}
    with pytest.raises(TaskError, match=r"'roc_auc' is undefined \(NaN\) on these 2 rows"):
        quality.value(metrics.roc_auc(), one_class)


def right(*counts):
    """Candidate and baseline columns from (n11, n10, n01, n00)."""
    return ({"correct": np.repeat(bits, counts).astype(np.int8)} for bits in ([1, 1, 0, 0], [1, 0, 1, 0]))


def test_a_proportion_is_judged_by_the_score_test():
    c, b = right(300, 8, 12, 40)
    counts = paired.Counts(300, 8, 12, 40)
    found = quality.retention(metrics.accuracy(), c, b, split="test")
    assert (found.kind, found.split, found.samples, found.confidence) == ("ratio", "test", 360, 0.95)
    assert found.value == pytest.approx(308 / 312) and found.low == paired.ratio_lower(counts)
    assert found.method == "score ratio of paired proportions (Nam-Blackwelder)"
    stricter = quality.retention(metrics.accuracy(), c, b, split="test", confidence=0.99)
    assert stricter.confidence == 0.99 and stricter.low == paired.ratio_lower(counts, 0.99) < found.low


def test_a_proportion_without_a_ratio_is_judged_by_tangos_test():
    c, b = right(300, 8, 12, 40)
    counts = paired.Counts(300, 8, 12, 40)
    share = {"rows": lambda o, x: {}, "reduce": lambda r: r["correct"].mean(), "proportion": "correct", "ratio": False}
    gain = quality.retention(Metric(name="share", **share), c, b, split="test")
    assert gain == quality.retention(metrics.accuracy(), c, b, split="test", as_drop=True)
    assert gain.kind == "drop" and gain.value == pytest.approx(4 / 360) and gain.low == -paired.difference_lower(counts)
    loss = quality.retention(Metric(name="share", direction="lower", **share), c, b, split="test")
    assert loss.kind == "drop" and loss.value == pytest.approx(-4 / 360) and loss.low == paired.difference_upper(counts)
    assert gain.value < gain.low and loss.value < loss.low and "Tango" in gain.method


def test_a_ratio_of_something_that_is_better_when_lower_is_never_taken():
    metric = Metric(name="errors", rows=lambda o, x: {}, reduce=lambda r: r["correct"].mean(), direction="lower")
    assert quality.retention(metric, *right(300, 8, 12, 40), split="test").kind == "drop"


def test_a_baseline_at_zero_leaves_only_the_drop():
    c, b = right(0, 4, 0, 36)
    found = quality.retention(metrics.accuracy(), c, b, split="test")
    assert (found.kind, found.value) == ("drop", -0.1) and -0.1 < found.low < 0


def test_other_metrics_take_the_bootstrap():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 300)
    b = {"score": truth + rng.normal(size=300), "target": truth}
    c = {"score": b["score"] + 0.5 * rng.normal(size=300), "target": truth}
    metric = metrics.roc_auc()
    found = quality.retention(metric, c, b, split="test")
    assert found.kind == "ratio" and found.method == "BCa bootstrap of the ratio over rows" and found.samples == 300
    assert found.value == metric.reduce(c) / metric.reduce(b) and 0.85 < found.low < found.value < 1
    assert found == quality.retention(metric, c, b, split="test")
    error = quality.retention(metrics.mse(), {"error": b["score"] ** 2 + 0.1}, {"error": b["score"] ** 2}, split="test")
    assert error.kind == "drop" and error.value == pytest.approx(0.1) and error.low == pytest.approx(0.1)
    negative = quality.retention(metrics.cosine(), {"cosine": b["score"] - 9}, {"cosine": c["score"] - 9}, split="test")
    assert negative.kind == "drop" and negative.value < negative.low


def test_clustered_samples_are_resampled_by_unit_even_if_they_are_right_or_wrong():
    rng = np.random.default_rng(4)
    metric = Metric(name="by_document", rows=lambda o, x: {}, reduce=lambda r: float(r["correct"].mean()), proportion="correct", unit="doc")
    base, doc = np.repeat(rng.uniform(size=40) < 0.9, 10).astype(int), np.repeat(np.arange(40), 10)
    lost = base * np.repeat(rng.uniform(size=40) < 0.9, 10)
    found = quality.retention(metric, {"correct": lost, "doc": doc}, {"correct": base, "doc": doc}, split="test")
    assert found.samples == 40 and found.method == "BCa bootstrap of the ratio over units of 'doc'"
    assert found.low < paired.ratio_lower(paired.counts(lost, base)) - 0.02  # which takes 400 dependent samples for independent ones
    with pytest.raises(ConfigError, match="unit 'doc' differs"):
        quality.retention(metric, {"correct": lost, "doc": doc}, {"correct": base, "doc": doc[::-1]}, split="test")
    with pytest.raises(TaskError, match="names unit 'doc', but its rows have correct"):
        quality.retention(metric, {"correct": lost}, {"correct": base}, split="test")


def test_intervals_of_one_model():
    c, _ = right(300, 8, 12, 40)
    exact = quality.interval(metrics.accuracy(), c)
    assert exact.value == pytest.approx(308 / 360) and (exact.low, exact.high) == paired.proportion_bounds(308, 360)
    errors = {"error": np.random.default_rng(0).exponential(size=100)}
    found = quality.interval(metrics.mse(), errors)
    assert found.low < found.value == errors["error"].mean() < found.high


def test_rows_of_different_samples_are_refused():
    c, b = right(30, 1, 1, 4)
    with pytest.raises(ConfigError, match=r"rows must be of the same samples, got 35 of .*36"):
        quality.retention(metrics.accuracy(), {"correct": c["correct"][1:]}, b, split="test")
    with pytest.raises(ConfigError, match="same samples"):
        quality.retention(metrics.accuracy(), c, b | {"more": b["correct"]}, split="test")


def test_a_proportion_that_is_not_the_metric_is_refused():
    c, b = right(30, 1, 1, 4)
    percent = Metric(name="percent", rows=lambda o, x: {}, reduce=lambda r: 100 * float(r["correct"].mean()), proportion="correct")
    with pytest.raises(TaskError, match="'percent' must be the mean of its proportion 'correct'"):
        quality.retention(percent, c, b, split="test")
    missing = Metric(name="percent", rows=lambda o, x: {}, reduce=lambda r: 1.0, proportion="right")
    with pytest.raises(TaskError, match="names proportion 'right', but its rows have correct"):
        quality.retention(missing, c, b, split="test")


def test_a_bootstrap_of_few_units_proves_nothing_and_says_how_many_would_do():
    metric, rows = metrics.macro_f1(), {"predicted": np.arange(40) % 3, "target": np.arange(40) % 3}
    found = quality.retention(metric, rows, rows, split="test")
    verdict = gates.quality(found, 0.5, gate="retention")
    assert found.value == 1 and found.low == pytest.approx(40 / (40 + 2.7055), abs=1e-3), "all alike and all right: as a score test has it"
    assert verdict.status is Status.INCONCLUSIVE and verdict.samples_needed == 50 and "fewer than 50" in verdict.reason
    many = {k: np.tile(v, 2) for k, v in rows.items()}
    assert gates.quality(quality.retention(metric, many, many, split="test"), 0.5, gate="retention").status is Status.PASS
    three = quality.retention(metrics.accuracy(), {"correct": np.ones(3)}, {"correct": np.ones(3)}, split="test")
    assert gates.quality(three, 0.5, gate="retention").status is Status.PASS, "3 / (3 + 2.71): a score test holds at any number"
    assert gates.quality(three, 0.6, gate="retention").samples_needed == 5


def test_one_sample_bounds_nothing_and_breaks_nothing():
    f1, mse, one = metrics.macro_f1(), metrics.mse(), {"predicted": np.array([1]), "target": np.array([1])}
    for metric, rows, limit in ((f1, one, 0.1), (mse, {"error": np.array([0.5])}, 0.1)):
        found = quality.retention(metric, rows, rows, split="test")
        verdict = gates.quality(found, limit, gate="retention")
        assert verdict.status is Status.INCONCLUSIVE and verdict.samples_needed == 50
        assert quality.interval(metric, rows).low == quality.interval(metric, rows).value


def test_a_baseline_that_may_as_well_be_zero_takes_the_difference():
    """A correlation of about 0: its ratio is defined on all samples and means nothing in half of the resamples."""
    rng = np.random.default_rng(4)
    base = {"v": rng.standard_normal(200)}
    base["v"] += 0.01 - base["v"].mean()
    metric = Metric(name="score", rows=lambda o, b: {}, reduce=lambda r: float(r["v"].mean()))
    found = quality.retention(metric, {"v": base["v"] - 0.001}, base, split="test")
    assert found.kind == "drop" and found.value == pytest.approx(0.001)
    examined = gates.Examined(evidence=Evidence(artifact="a", runtime="r", threads=1, size_bytes=1, download_bytes=1), retention=found, drop=found)
    (verdict,) = gates.contract_verdicts(Contract(retention=0.9), metric, candidate=examined, baseline=None)
    assert verdict.status is Status.UNVERIFIED and "the drop is 0.001, at most 0.00" in verdict.reason


def test_all_samples_wrong_is_a_drop_of_nothing():
    wrong = {"correct": np.zeros(100)}
    found = quality.retention(metrics.accuracy(), wrong, wrong, split="test")
    assert found.kind == "drop" and found.value == 0 and 0 < found.low < 0.03
    assert gates.quality(found, 0.03, gate="max_drop").status is Status.PASS and gates.quality(found, 0.01, gate="max_drop").samples_needed is not None
    lost = quality.retention(metrics.accuracy(), wrong, {"correct": np.ones(100)}, split="test")
    assert (lost.value, lost.low) == (0, 0) and gates.quality(lost, 0.5, gate="retention").status is Status.FAIL


def test_a_metric_that_stands_near_its_limit_says_how_many_samples_would_do():
    rows = {"correct": np.arange(100) < 90}
    metric = metrics.accuracy()
    bounds = quality.interval(metric, rows)
    evidence = Evidence(artifact="a", runtime="r", threads=1, size_bytes=1, download_bytes=1, metric_value=0.9)
    behaviour = Behaviour(metric=metric, candidate=rows, baseline=None, masks={}, split="test", confidence=0.95)
    examined = gates.Examined(evidence=evidence, behaviour=behaviour, metric_interval=(bounds.low, bounds.high))
    for limit, needed in ((0.88, paired.share_samples_needed(10, 100, 1 - 0.88)), (0.92, math.ceil(100 * ((0.9 - bounds.high) / 0.02) ** 2 - 1e-6))):
        (verdict,) = gates.contract_verdicts(Contract(metric=limit), metric, candidate=examined, baseline=None)
        assert verdict.status is Status.INCONCLUSIVE and verdict.samples_needed == needed


ERRORS = Metric(name="errors", rows=lambda o, b: {}, reduce=lambda r: float(r["wrong"].mean()), direction="lower", ratio=False, proportion="wrong")


def judged(contract, *, both, won=0, lost=0, neither=0, errors=False):
    """The verdict on so many samples, by who is right, of an accuracy or of the share of errors."""
    counts = (both, won, lost, neither)
    candidate, baseline = (np.repeat(right, counts) for right in ([1, 1, 0, 0], [1, 0, 1, 0]))
    metric, rows = (ERRORS, [{"wrong": 1 - x} for x in (candidate, baseline)]) if errors else (metrics.accuracy(), [{"correct": x} for x in (candidate, baseline)])
    found = {name: quality.retention(metric, *rows, split="test", as_drop=name == "drop") for name in ("retention", "drop")}
    bounds = quality.interval(metric, rows[0])
    behaviour = Behaviour(metric=metric, candidate=rows[0], baseline=rows[1], masks={"all": candidate >= 0}, split="test", confidence=0.95)
    evidence = Evidence(artifact="a", runtime="r", threads=1, size_bytes=1, download_bytes=1, metric_value=bounds.value)
    examined = gates.Examined(evidence=evidence, behaviour=behaviour, metric_interval=(bounds.low, bounds.high), **found)
    (verdict,) = gates.contract_verdicts(contract, metric, candidate=examined, baseline=None)
    return verdict


@pytest.mark.parametrize(
    ("contract", "counts", "errors"),
    [
        (Contract(retention=0.97), {"both": 50}, False),
        (Contract(retention=0.995), {"both": 96, "neither": 4}, False),
        (Contract(retention=0.97), {"both": 180, "won": 2, "lost": 4, "neither": 14}, False),
        (Contract(worst_slice_retention=0.97), {"both": 60}, False),
        (Contract(max_drop=0.01), {"both": 100}, False),
        (Contract(max_drop=0.04), {"both": 90, "won": 1, "lost": 3, "neither": 6}, False),
        (Contract(max_drop=0.01), {"both": 100}, True),
        (Contract(metric=0.97), {"both": 50}, False),
        (Contract(metric=0.06), {"both": 98, "lost": 2}, True),
        (Contract(max_flips=0.04), {"both": 98, "lost": 2}, True),
    ],
)
def test_as_many_samples_as_it_says_settle_it_and_fewer_do_not(contract, counts, errors):
    """Of score and exact bounds no rule of thumb: where hardly any sample differs, a bound nears its limit faster than with the root of the samples."""
    few, total = judged(contract, **counts, errors=errors), sum(counts.values())
    assert few.status is Status.INCONCLUSIVE and few.samples_needed > total and f"{few.samples_needed:,}" in few.reason
    enough = math.ceil(few.samples_needed / total)
    for times, status in ((enough, Status.PASS), (enough - 1, Status.INCONCLUSIVE)):
        assert judged(contract, **{name: count * times for name, count in counts.items()}, errors=errors).status is status


def test_units_are_counted_as_units_and_not_as_samples():
    """51 rows of 17 documents: "17 samples" would be wrong, and 50 of them are there."""
    pages = Metric(name="pages", rows=lambda o, b: {}, reduce=lambda r: float(r["correct"].mean()), proportion="correct", unit="document")
    rows = {"correct": np.ones(51), "document": np.arange(51) // 3, "confidence": np.full(51, 0.9)}
    found = {name: quality.retention(pages, rows, rows, split="test", as_drop=name == "drop") for name in ("retention", "drop")}
    bounds = quality.interval(pages, rows)
    evidence = Evidence(artifact="a", runtime="r", threads=1, size_bytes=1, download_bytes=1, metric_value=1.0)
    behaviour = Behaviour(metric=pages, candidate=rows, baseline=rows, masks={"all": np.ones(51, bool)}, split="test", confidence=0.95)
    examined = gates.Examined(evidence=evidence, behaviour=behaviour, metric_interval=(bounds.low, bounds.high), **found)
    for limit in ({"retention": 0.5}, {"retention": 0.97}, {"max_drop": 0.5}, {"metric": 0.5}, {"max_ece": 0.9}, {"worst_slice_retention": 0.5}):
        (verdict,) = gates.contract_verdicts(Contract(**limit), pages, candidate=examined, baseline=None)
        assert verdict.status is Status.INCONCLUSIVE and "17 units of 'document'" in verdict.reason and "samples" not in verdict.reason, verdict


@pytest.mark.parametrize(("given", "shown"), [(None, "None"), (np.array([0.5, 0.6]), "array"), (1j, "1j"), ("high", "'high'")])
def test_a_metric_that_gives_no_number_is_named(given, shown):
    metric = Metric(name="own", rows=lambda o, b: {}, reduce=lambda r: given)
    with pytest.raises(TaskError, match=rf"metric 'own'.reduce must give one number, got .*{shown}.*Return a float"):
        quality.interval(metric, {"v": np.ones(60)})


def test_a_metric_that_is_true_or_false_is_one_or_zero():
    metric, rows = Metric(name="most", rows=lambda o, b: {}, reduce=lambda r: r["v"].mean() > 0.5), {"v": np.arange(60) % 3}
    assert quality.retention(metric, rows, rows, split="test", as_drop=True).value == 0.0 and quality.interval(metric, rows).value == 1.0


@pytest.mark.parametrize("of_candidate", [math.nan, math.inf, -math.inf])
def test_what_is_a_number_of_the_baseline_alone_is_the_candidates_fault(of_candidate):
    metric = Metric(name="own", rows=lambda o, b: {}, reduce=lambda r: float(r["v"].mean()))
    good, bad = {"v": np.ones(60)}, {"v": np.full(60, of_candidate)}
    quality.refuse_undefined(metric, good, good)
    with pytest.raises(NotANumber, match=f"'own' is {of_candidate} of these answers, and 1 of the baseline's to the same 60"):
        quality.refuse_undefined(metric, bad, good)
    with pytest.raises(TaskError, match="'own' is (undefined|infinite)"):
        quality.refuse_undefined(metric, bad, bad)
