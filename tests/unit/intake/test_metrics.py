"""Built-in metrics against scikit-learn and torch, and what they refuse."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from limbeck.core.errors import ConfigError, TaskError
from limbeck.intake import metrics

RNG = np.random.default_rng(0)


def measured(metric, outputs, truth, *, size=7):
    """The metric over all samples, its rows gathered batch by batch."""
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    parts = []
    for start in range(0, len(truth), size):
        part = slice(start, start + size)
        parts.append(metric.rows({k: v[part] for k, v in outputs.items()}, (torch.zeros(len(truth[part])), torch.as_tensor(truth[part]))))
    rows = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    assert {len(v) for v in rows.values()} == {len(truth)}
    return metric.reduce(rows)


@pytest.fixture
def classified():
    """Coarse logits, so that there are ties, and one class that is never the answer."""
    truth = RNG.integers(0, 5, 203)
    logits = np.round(RNG.normal(size=(203, 5)) + 1.5 * np.eye(5)[truth], 0).astype(np.float32)
    logits[:, 4] = -9
    return logits, truth


def test_accuracy_and_macro_f1_are_scikit_learns(classified):
    logits, truth = classified
    answer = logits.argmax(1)
    assert 0.3 < sk.accuracy_score(truth, answer) < 0.95
    assert measured(metrics.accuracy(), logits, truth) == pytest.approx(sk.accuracy_score(truth, answer))
    assert measured(metrics.macro_f1(), logits, truth) == pytest.approx(sk.f1_score(truth, answer, average="macro"))
    outer = np.isin(truth, (0, 3)) & np.isin(answer, (0, 3))  # classes between that never occur
    assert measured(metrics.macro_f1(), logits[outer], truth[outer]) == pytest.approx(sk.f1_score(truth[outer], answer[outer], average="macro"))
    few = truth < 3  # classes that are only answered, never true
    assert measured(metrics.macro_f1(), logits[few], truth[few]) == pytest.approx(sk.f1_score(truth[few], answer[few], average="macro"))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_top_k_is_scikit_learns_without_ties(k):
    truth = RNG.integers(0, 5, 90)
    logits = RNG.normal(size=(90, 5))
    assert measured(metrics.top_k(k), logits, truth) == pytest.approx(sk.top_k_accuracy_score(truth, logits, k=k, labels=range(5)))


def test_top_1_is_accuracy_with_ties_too(classified):
    assert measured(metrics.top_k(1), *classified) == measured(metrics.accuracy(), *classified)
    assert measured(metrics.top_k(2), np.zeros((3, 4)), np.array([0, 1, 2])) == pytest.approx(2 / 3)


def test_roc_auc_is_scikit_learns_with_ties():
    truth = RNG.integers(0, 2, 150)
    score = np.round(RNG.normal(size=150) + truth, 0)
    expected = sk.roc_auc_score(truth, score)
    assert 0.6 < expected < 0.95
    two = np.stack([0.25 * score, 1.25 * score], axis=1)
    for logits in (score, score[:, None], two):
        assert measured(metrics.roc_auc(), logits, truth) == pytest.approx(expected)
    assert np.isnan(measured(metrics.roc_auc(), score, np.zeros(150, dtype=int)))


def test_one_logit_tells_two_classes_apart():
    logits, truth = np.array([[1.5], [-2.0], [0.0], [3.0]]), np.array([[1], [0], [1], [0]])
    assert measured(metrics.accuracy(), logits, truth) == 0.5
    assert measured(metrics.macro_f1(), logits[:, 0], truth[:, 0]) == 0.5


@pytest.mark.parametrize("shape", [(60,), (60, 1), (60, 3), (60, 2, 2)])
def test_errors_and_r2_are_scikit_learns(shape):
    truth = RNG.normal(size=shape)
    predicted = (0.7 * truth + 0.3 * RNG.normal(size=shape)).astype(np.float32)
    flat = (truth.reshape(60, -1), predicted.reshape(60, -1))
    assert measured(metrics.mse(), predicted, truth) == pytest.approx(sk.mean_squared_error(*flat))
    assert measured(metrics.mae(), predicted, truth) == pytest.approx(sk.mean_absolute_error(*flat))
    assert measured(metrics.r2(), predicted, truth) == pytest.approx(sk.r2_score(*flat))
    cosines = np.diag(sk.pairwise.cosine_similarity(*flat))
    assert measured(metrics.cosine(), predicted, truth) == pytest.approx(cosines.mean())


def test_a_column_of_targets_is_never_broadcast():
    truth, predicted = RNG.normal(size=30), RNG.normal(size=(30, 1))
    assert measured(metrics.mse(), predicted, truth) == pytest.approx(((predicted[:, 0] - truth) ** 2).mean())


def test_undefined_is_nan_and_not_a_number_that_looks_fine():
    assert np.isnan(measured(metrics.r2(), RNG.normal(size=9), np.ones(9)))
    assert metrics.r2().reduce({"predicted": np.zeros((3, 1)), "target": np.array([[0.0], [1.0], [5.0]])}) < 0
    assert measured(metrics.cosine(), np.zeros((4, 3)), np.ones((4, 3))) == 0


@pytest.mark.parametrize("shift", [False, True])
def test_perplexity_is_torchs_cross_entropy(shift):
    logits = 3 * RNG.normal(size=(11, 6, 20)).astype(np.float32)
    truth = RNG.integers(0, 20, (11, 6))
    truth[RNG.uniform(size=truth.shape) < 0.3] = -100
    truth[4] = -100  # a sequence without a judged token
    seen, labels = (logits[:, :-1], truth[:, 1:]) if shift else (logits, truth)
    expected = torch.nn.functional.cross_entropy(torch.tensor(seen).flatten(0, 1), torch.tensor(labels).flatten()).exp()
    assert measured(metrics.perplexity(shift=shift), logits, truth) == pytest.approx(float(expected), rel=1e-5)


def test_perplexity_of_a_ruined_model_is_huge_but_finite():
    logits = np.zeros((1, 2, 3), dtype=np.float32)
    logits[:, :, 0] = 1e6
    assert 1e300 < measured(metrics.perplexity(), logits, np.array([[1, 2]])) < np.inf
    assert np.isnan(measured(metrics.perplexity(), logits, np.array([[-100, -100]])))


def test_what_is_declared():
    all_of_them = [metrics.accuracy(), metrics.top_k(3), metrics.macro_f1(), metrics.roc_auc(), metrics.mse(), metrics.mae(), metrics.r2(), metrics.perplexity(), metrics.cosine()]
    facts = {m.name: (m.direction, m.ratio, m.proportion, m.target, m.chance) for m in all_of_them}
    assert facts == {
        "accuracy": ("higher", True, "correct", "class", None),
        "top_3": ("higher", True, "correct", "class", None),
        "macro_f1": ("higher", True, None, "class", None),
        "roc_auc": ("higher", True, None, "class", 0.5),
        "mse": ("lower", False, None, "value", None),
        "mae": ("lower", False, None, "value", None),
        "r2": ("higher", False, None, "value", 0.0),
        "perplexity": ("lower", False, None, "token", None),
        "cosine": ("higher", True, None, "value", None),
    }


def test_output_and_target_are_found_or_named():
    logits, truth = np.eye(3), torch.tensor([0, 1, 0])
    batch = {"pixels": torch.zeros(3), "labels": truth, "other": torch.tensor([0, 1, 2])}
    by = lambda metric, outputs, b=batch: metric.reduce(metric.rows(outputs, b))  # noqa: E731
    assert by(metrics.accuracy(), {"logits": logits, "pooled": np.zeros((3, 9))}) == pytest.approx(2 / 3)
    assert by(metrics.accuracy(), {"scores": logits}) == pytest.approx(2 / 3)
    assert by(metrics.accuracy(output="b", target="other"), {"a": -logits, "b": logits}) == 1
    assert by(metrics.accuracy(target=1), {"logits": logits}, (torch.zeros(3), truth, torch.ones(3))) == pytest.approx(2 / 3)
    assert by(metrics.accuracy(target=0), {"logits": logits}, (truth, torch.zeros(3))) == pytest.approx(2 / 3)
    assert by(metrics.accuracy(), {"logits": logits}, (torch.zeros(3), [0, 1, 0])) == pytest.approx(2 / 3)


X, Y = torch.zeros(3), torch.tensor([0, 1, 2])
NAN = np.array([[0.0, 1, 0], [0, np.nan, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("metric", "outputs", "batch", "message"),
    [
        (metrics.accuracy(), {"b": np.eye(3), "a": np.eye(3)}, (X, Y), r"can't tell which output to read: there is a, b\. Name one"),
        (metrics.accuracy(output="logit"), {"logits": np.eye(3)}, (X, Y), r"'logit', which the model doesn't give\. Did you mean 'logits'\?"),
        (metrics.accuracy(), {"logits": np.eye(3)}, X, "finds no labels in a batch of type Tensor"),
        (metrics.accuracy(), {"logits": np.eye(3)}, {"pixels": X}, "finds no labels"),
        (metrics.accuracy(target="lables"), {"logits": np.eye(3)}, {"pixels": X, "labels": Y}, "labels at 'lables', but the batch has pixels, labels"),
        (metrics.accuracy(target=5), {"logits": np.eye(3)}, (X, Y), "labels at 5, but the batch has positions 0 to 1"),
        (metrics.accuracy(target="labels"), {"logits": np.eye(3)}, (X, Y), "labels at 'labels', but the batch has positions"),
        (metrics.accuracy(), {"logits": np.eye(3)}, (X, Y[:2]), r"got \(3, 3\) and \(2,\)"),
        (metrics.accuracy(), {"logits": np.zeros((3, 2, 3))}, (X, Y), r"needs logits \[batch, classes\]"),
        (metrics.accuracy(), {"logits": np.float32(1.0)}, (X, Y), "single number"),
        (metrics.accuracy(), {"logits": NAN}, (X, Y), "output 'logits' holds NaN at sample 1 of the batch"),
        (metrics.mse(), {"y": X.numpy()}, (X, torch.tensor([0, 0, torch.nan])), "the target holds NaN at sample 2"),
        (metrics.accuracy(), {"logits": np.eye(3)}, (X, Y + 1), r"labels must be in \[0, 3\), got 3 at sample 2"),
        (metrics.accuracy(), {"logits": np.eye(3)}, (X, Y - 1), r"got -1 at sample 0"),
        (metrics.accuracy(), {"logits": np.eye(3)[:, :1]}, (X, Y), r"labels must be in \[0, 2\), got 2"),
        (metrics.accuracy(), {"logits": np.eye(3)}, (X, Y.float()), "whole numbers, got float32"),
        (metrics.accuracy(), {"logits": np.eye(3)}, (X, torch.eye(3).long()), r"got \(3, 3\) and \(3, 3\)"),
        (metrics.accuracy(), {"logits": np.eye(3)}, (X, [[1], [2, 3]]), "don't make an array"),
        (metrics.top_k(3), {"logits": np.eye(3)}, (X, Y), "always 1: there are 3 classes"),
        (metrics.roc_auc(), {"logits": np.eye(3)}, (X, Y), "two classes, got 3 logits"),
        (metrics.mse(), {"y": np.zeros((3, 2))}, (X, torch.zeros(3)), r"one shape, got \(3, 2\) and \(3,\)"),
        (metrics.mse(), {"y": np.zeros(3)}, (X, torch.tensor(1.0)), r"got \(3,\) and \(\)"),
        (metrics.perplexity(), {"y": np.zeros((3, 4))}, (X, Y), r"logits \[batch, time, vocabulary\]"),
        (metrics.perplexity(), {"y": np.zeros((3, 2, 4))}, (X, torch.tensor([[0, 1], [3, -100], [0, 4]])), r"in \[0, 4\), got 4 at sample 2"),
    ],
)
def test_refusals(metric, outputs, batch, message):
    with pytest.raises(TaskError, match=message):
        metric.rows(outputs, batch)


def test_top_k_needs_a_guess():
    with pytest.raises(ConfigError, match=r"top_k\.k must be ≥ 1, got 0"):
        metrics.top_k(0)


def test_importing_metrics_loads_neither_torch_nor_scipy():
    code = "import sys, limbeck.intake.metrics, limbeck.stats.paired, limbeck.stats.bootstrap, limbeck.stats.latency; print([m for m in ('torch', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
