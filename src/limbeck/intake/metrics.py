"""Ready-made metrics: what most tasks are judged by. Each factory gives a `Metric`; any function of the same shape serves as well.

A ratio candidate / baseline is allowed where 0 is the worst that there is and the baseline stands well above it: accuracy,
top-k, F1, AUC, cosine. Errors, perplexity and R² have no such zero (R² may be negative): their limits are absolute drops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from limbeck.core.errors import ConfigError, TaskError, near
from limbeck.core.metric import Metric, Rows

Outputs = Mapping[str, np.ndarray]
IGNORE = -100  # a token label that isn't judged
LARGEST = 700.0  # nats; e to this is near the end of float64


def accuracy(output: str | None = None, target: str | int | None = None) -> Metric:
    """Share of samples whose greatest logit is the label's; a single logit says class 1 where it is > 0.

    Logits [batch, classes], labels [batch] whole numbers. Of equal logits the first counts, as in argmax.

    Args:
        output: Name of the output to read; default "logits", or the only one. (So for every metric.)
        target: Key or position of the labels in the batch; default: the last of a tuple, or the usual name in a dict.
    """

    def rows(outputs: Outputs, batch: Any) -> Rows:
        logits, truth = _logits_and_classes("accuracy", outputs, batch, output=output, target=target)
        predicted = _predicted(logits)
        return {"correct": (predicted == truth).astype(np.int8), "predicted": predicted, "target": truth, "confidence": _confidence(logits)}

    return Metric(name="accuracy", rows=rows, reduce=lambda r: _mean(r["correct"]), proportion="correct", target="class")


def top_k(k: int, output: str | None = None, target: str | int | None = None) -> Metric:
    """Share of samples whose label is among the k greatest logits; of equal logits the first count. `top_k(1)` is accuracy."""
    if k < 1:
        raise ConfigError(f"top_k.k must be ≥ 1, got {k!r}. It is how many guesses a sample has.")
    name = f"top_{k}"

    def rows(outputs: Outputs, batch: Any) -> Rows:
        logits, truth = _logits_and_classes(name, outputs, batch, output=output, target=target)
        if k >= logits.shape[1]:
            raise TaskError(f"metric '{name}' is always 1: there are {logits.shape[1]} classes. Choose k below that.")
        own = np.take_along_axis(logits, truth[:, None], axis=1)
        before = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < truth[:, None]))
        return {"correct": (before.sum(axis=1) < k).astype(np.int8), "predicted": _predicted(logits), "target": truth}

    return Metric(name=name, rows=rows, reduce=lambda r: _mean(r["correct"]), proportion="correct", target="class")


def macro_f1(output: str | None = None, target: str | int | None = None) -> Metric:
    """The mean over classes of F1 = 2·TP / (2·TP + FP + FN), over classes that occur as a label or as an answer."""

    def rows(outputs: Outputs, batch: Any) -> Rows:
        logits, truth = _logits_and_classes("macro_f1", outputs, batch, output=output, target=target)
        return {"predicted": _predicted(logits), "target": truth, "confidence": _confidence(logits)}

    def reduce(r: Rows) -> float:
        size = int(max(r["predicted"].max(initial=0), r["target"].max(initial=0))) + 1
        hits = np.bincount(r["target"][r["predicted"] == r["target"]], minlength=size)
        seen = np.bincount(r["predicted"], minlength=size) + np.bincount(r["target"], minlength=size)
        return _mean(2 * hits[seen > 0] / seen[seen > 0])

    return Metric(name="macro_f1", rows=rows, reduce=reduce, target="class")


def roc_auc(output: str | None = None, target: str | int | None = None) -> Metric:
    """The chance that a sample of class 1 scores higher than one of class 0, ties counted half; undefined without both.

    The score is logit 1 − logit 0 of two, or a single logit; guessing gets 0.5.
    """

    def rows(outputs: Outputs, batch: Any) -> Rows:
        logits, truth = _logits_and_classes("roc_auc", outputs, batch, output=output, target=target)
        if logits.shape[1] > 2:
            raise TaskError(f"metric 'roc_auc' is for two classes, got {logits.shape[1]} logits. Use macro_f1, or a metric of your own.")
        return {"score": logits[:, -1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0], "target": truth}

    def reduce(r: Rows) -> float:
        positive, negative = r["score"][r["target"] == 1], np.sort(r["score"][r["target"] == 0])
        if not positive.size or not negative.size:
            return float("nan")
        beaten = np.searchsorted(negative, positive, side="left") + np.searchsorted(negative, positive, side="right")
        return float(beaten.sum() / (2 * positive.size * negative.size))

    return Metric(name="roc_auc", rows=rows, reduce=reduce, chance=0.5, target="class")


def mse(output: str | None = None, target: str | int | None = None) -> Metric:
    """Mean squared error, in the squared unit of the target; of several values a sample, their mean."""

    def rows(outputs: Outputs, batch: Any) -> Rows:
        predicted, truth = _values("mse", outputs, batch, output=output, target=target)
        return {"error": ((predicted - truth) ** 2).mean(axis=1)}

    return Metric(name="mse", rows=rows, reduce=lambda r: _mean(r["error"]), direction="lower", ratio=False, target="value")


def mae(output: str | None = None, target: str | int | None = None) -> Metric:
    """Mean absolute error, in the unit of the target; of several values a sample, their mean."""

    def rows(outputs: Outputs, batch: Any) -> Rows:
        predicted, truth = _values("mae", outputs, batch, output=output, target=target)
        return {"error": np.abs(predicted - truth).mean(axis=1)}

    return Metric(name="mae", rows=rows, reduce=lambda r: _mean(r["error"]), direction="lower", ratio=False, target="value")


def r2(output: str | None = None, target: str | int | None = None) -> Metric:
    """1 − squared error / variance of the target, the mean over target dimensions; predicting the mean gets 0.

    Undefined where a target dimension doesn't vary.
    """

    def rows(outputs: Outputs, batch: Any) -> Rows:
        predicted, truth = _values("r2", outputs, batch, output=output, target=target)
        return {"predicted": predicted, "target": truth}

    def reduce(r: Rows) -> float:
        if not len(r["target"]):
            return float("nan")
        error = ((r["predicted"] - r["target"]) ** 2).sum(axis=0)
        spread = ((r["target"] - r["target"].mean(axis=0)) ** 2).sum(axis=0)
        return float("nan") if np.any(spread == 0) else float(np.mean(1 - error / spread))

    return Metric(name="r2", rows=rows, reduce=reduce, chance=0.0, ratio=False, target="value")


def cosine(output: str | None = None, target: str | int | None = None) -> Metric:
    """Mean cosine between an output embedding and the one given in the batch; a zero vector agrees with nothing (0)."""

    def rows(outputs: Outputs, batch: Any) -> Rows:
        predicted, truth = _values("cosine", outputs, batch, output=output, target=target)
        lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(truth, axis=1)
        return {"cosine": (predicted * truth).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)}

    return Metric(name="cosine", rows=rows, reduce=lambda r: _mean(r["cosine"]), target="value")


def perplexity(output: str | None = None, target: str | int | None = None, *, shift: bool = False) -> Metric:
    """e to the mean negative log-likelihood of a token, over all tokens whose label isn't −100. A row is a sequence.

    Logits [batch, time, vocabulary], labels [batch, time].

    Args:
        shift: Labels are the inputs themselves, so that the logits at t are judged by the label at t + 1.
    """

    def rows(outputs: Outputs, batch: Any) -> Rows:
        logits, truth = _output("perplexity", outputs, output), _whole("perplexity", _target("perplexity", batch, target))
        if logits.ndim != 3 or truth.shape != logits.shape[:2]:
            raise TaskError(f"metric 'perplexity' needs logits [batch, time, vocabulary] and labels [batch, time], got {logits.shape} and {truth.shape}.")
        if shift:
            logits, truth = logits[:, :-1], truth[:, 1:]
        judged = truth != IGNORE
        _in_range("perplexity", np.where(judged, truth, 0), logits.shape[2])
        nll = [_nll(of_one[keep], label[keep]) for of_one, label, keep in zip(logits, truth, judged, strict=True)]
        return {"nll": np.array(nll, dtype=np.float64), "tokens": judged.sum(axis=1)}

    def reduce(r: Rows) -> float:
        tokens = r["tokens"].sum()
        return float(np.exp(min(r["nll"].sum() / tokens, LARGEST))) if tokens else float("nan")

    return Metric(name="perplexity", rows=rows, reduce=reduce, direction="lower", ratio=False, target="token")


def _nll(logits: np.ndarray, truth: np.ndarray) -> float:
    """Summed −log softmax at the labels, of one sequence (so that float64 of a whole batch is never held)."""
    if not truth.size:
        return 0.0
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(truth.size), truth]).sum())


def _mean(column: np.ndarray) -> float:
    return float(column.mean()) if len(column) else float("nan")


def _predicted(logits: np.ndarray) -> np.ndarray:
    return (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(axis=1)


def _confidence(logits: np.ndarray) -> np.ndarray:
    """The probability of the predicted class, by softmax (by the sigmoid of a single logit). Of an infinite logit it is 1."""
    with np.errstate(invalid="ignore", over="ignore"):
        margins = -np.abs(logits) if logits.shape[1] == 1 else logits - logits.max(axis=1, keepdims=True)
        weight = np.exp(margins).sum(axis=1)
        sure = 1 / (1 + weight) if logits.shape[1] == 1 else 1 / weight
    return np.where(np.isnan(sure), 1.0, sure)


def _output(metric: str, outputs: Outputs, name: str | None) -> np.ndarray:
    """The output to judge, which holds no NaN."""
    if name is None and "logits" not in outputs and len(outputs) != 1:
        raise TaskError(f"metric '{metric}' can't tell which output to read: there is {', '.join(sorted(outputs))}. Name one as output.")
    name = name or ("logits" if "logits" in outputs else next(iter(outputs)))
    if name not in outputs:
        raise TaskError(f"metric '{metric}' reads output '{name}', which the model doesn't give. {near(name, outputs)}")
    values = np.asarray(outputs[name])
    if values.ndim == 0:
        raise TaskError(f"metric '{metric}': output '{name}' is a single number. It needs one entry a sample, batch first.")
    _no_nan(metric, f"output '{name}'", values)
    return values


def _target(metric: str, batch: Any, key: str | int | None) -> np.ndarray:
    """The labels of a batch as an array, which holds no NaN."""
    from limbeck.mechanics.data import labels

    try:
        found = labels(batch, None if key is None else str(key))
    except (KeyError, IndexError, ValueError) as error:
        there = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else f"positions 0 to {len(batch) - 1}"
        raise TaskError(f"metric '{metric}' looks for labels at {key!r}, but the batch has {there}. Name one of these as target.") from error
    if found is None:
        raise TaskError(f"metric '{metric}' finds no labels in a batch of type {type(batch).__name__}. Give samples as (input, label), or as a dict with 'labels'.")
    try:
        values = np.asarray(found)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(f"metric '{metric}': labels of type {type(found).__name__} don't make an array ({error}). Collate them to one tensor on the CPU.") from error
    _no_nan(metric, "the target", values)
    return values


def _no_nan(metric: str, what: str, values: np.ndarray) -> None:
    if values.dtype.kind == "f" and np.isnan(values).any():
        sample = int(np.argwhere(np.isnan(values))[0][0]) if values.ndim else 0
        raise TaskError(f"metric '{metric}': {what} holds NaN at sample {sample} of the batch. Find what makes it: a metric of NaN means nothing.")


def _whole(metric: str, truth: np.ndarray) -> np.ndarray:
    if truth.dtype.kind not in "iub":
        raise TaskError(f"metric '{metric}' needs labels that are whole numbers, got {truth.dtype}. Give the class's index, not its scores.")
    return truth.astype(np.int64)


def _in_range(metric: str, truth: np.ndarray, classes: int) -> None:
    wrong = np.argwhere((truth < 0) | (truth >= classes))
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        raise TaskError(f"metric '{metric}': labels must be in [0, {classes}), got {truth[at]} at sample {at[0]} of the batch. Check the labels, or the model's number of classes.")


def _logits_and_classes(metric: str, outputs: Outputs, batch: Any, *, output: str | None, target: str | int | None) -> tuple[np.ndarray, np.ndarray]:
    """Logits [batch, classes] and labels [batch]. A model with one logit tells two classes apart."""
    logits, truth = _output(metric, outputs, output), _whole(metric, _target(metric, batch, target))
    logits = logits[:, None] if logits.ndim == 1 else logits
    truth = truth[:, 0] if truth.ndim == 2 and truth.shape[1] == 1 else truth
    if logits.ndim != 2 or truth.shape != logits.shape[:1]:
        raise TaskError(f"metric '{metric}' needs logits [batch, classes] and labels [batch], got {logits.shape} and {truth.shape}. Name another output or target.")
    _in_range(metric, truth, max(2, logits.shape[1]))
    return logits.astype(np.float64), truth


def _values(metric: str, outputs: Outputs, batch: Any, *, output: str | None, target: str | int | None) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true values, both [batch, values] in float64; [batch] and [batch, 1] are the same, nothing is broadcast."""
    predicted, truth = _output(metric, outputs, output), _target(metric, batch, target)
    shapes = {tuple(v.shape[:1] if v.shape[1:] == (1,) else v.shape) for v in (predicted, truth)}
    if len(shapes) != 1 or truth.ndim == 0:
        raise TaskError(f"metric '{metric}' needs an output and a target of one shape, got {predicted.shape} and {truth.shape}. Name another output or target.")
    return predicted.astype(np.float64).reshape(len(predicted), -1), truth.astype(np.float64).reshape(len(truth), -1)
