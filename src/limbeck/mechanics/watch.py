"""What a training shows of itself, once an epoch: each term's share of the gradient, and on validation more than one number.

Nothing here changes the training: gradients are taken off the graph of a step that is made anyway, no forward pass is added to it,
and what validation draws from the global generator is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.candidate import Candidate
from limbeck.core.errors import ConfigError
from limbeck.core.metric import Metric, Rows
from limbeck.core.technique import Context
from limbeck.stats import answers, calibration, paired

SHARE = "share of "  # how the columns of `shares` begin in a training's rows
CLASSES = "classes"  # the column that holds the classes
AHEAD = "ahead_of_teacher"
KEPT = "kept"  # marks the row of the epoch whose weights the training ended with
RIGHT, LABELS, LEARNED = "right", "labels", "learned"  # what a watcher remembers


@dataclass(frozen=True)
class Watch:
    """Where a training's figures on validation come from.

    rows: a model in training → the metric's rows on validation. teacher: the teacher's rows there, asked for once.
    """

    rows: Callable[[nn.Module], Rows]
    teacher: Callable[[], Rows] | None = None


def watching(context: Context, made: Callable[[nn.Module], Candidate]) -> Watch:
    """A watch through a technique's context; `made` says what candidate a module in training stands for."""
    return Watch(lambda model: context.rows(made(model)), context.rows)


def shares(pulls: Mapping[str, Tensor], model: nn.Module) -> dict[str, float]:
    """Each term's share of the pull on the model: the norm of the gradient of weight · term over the sum of all terms' norms.

    Args:
        pulls: By label, weight · term, still with its graph; it is kept, so that the step can go on from it.
        model: With respect to whose trainable parameters; what terms train besides isn't counted.
    Returns: Fractions that add up to 1 (all 0 if nothing pulls); empty where a norm isn't finite.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    norms: dict[str, float] = {}
    for label, pull in pulls.items():
        grads = torch.autograd.grad(pull, trained, retain_graph=True, allow_unused=True) if pull.requires_grad and trained else ()
        found = [g.norm() for g in grads if g is not None]
        norms[label] = float(torch.stack(found).norm()) if found else 0.0
    total = sum(norms.values())
    if not np.isfinite(total):
        return {}
    return {label: norm / total if total > 0 else 0.0 for label, norm in norms.items()}


class Watcher:
    """What is known of a training on validation from epoch to epoch: the best so far, what was right then, and the teacher's answers."""

    def __init__(self, monitor: Watch | Callable[[nn.Module], float], metric: Metric):
        self.monitor, self.metric = monitor, metric
        self.best: float | None = None
        self.memory: dict[str, np.ndarray] = {}  # of the best epoch: which samples were right; the labels of classes, and how many of each
        self.rows: Rows = {}  # of the last look
        self._teacher: Rows | None = None

    def look(self, model: nn.Module) -> tuple[dict[str, Any], bool]:
        """This epoch's figures on validation, and whether it is the best so far (the first of equally good ones is).

        validation, teacher: the metric of student and teacher. agreement: the share of samples that both answer alike.
        calibration_error: of the student. forgotten: of the samples that were right after the best epoch before this one, the share that
        is wrong now. missed: of those that the teacher has right, the share that the student has wrong. ahead_of_teacher: by how
        much the student is better than its teacher at least (95 %), where it is. classes: [label, samples, the teacher's right ones,
        the student's]. worst_class, worst_class_kept: the class of which the student has the smallest part of the teacher's recall.
        What the metric's rows don't tell is left out.
        """
        if not isinstance(self.monitor, Watch):
            with torch.random.fork_rng(devices=[]):
                score = float(self.monitor(model))
            return {"validation": score}, self._is_best(score)
        with torch.random.fork_rng(devices=[]):
            self.rows = rows = self.monitor.rows(model)
            if self._teacher is None and self.monitor.teacher:
                self._teacher = self.monitor.teacher()
        score = self.metric.value(rows)
        found = {"validation": score} | self._beside_teacher(rows, score) | self._remembered(rows)
        if (sure := answers.trust(rows)) is not None:
            found["calibration_error"] = calibration.error(*sure)
        best = self._is_best(score)
        if best:
            self._remember(rows)
        return found, best

    def _is_best(self, score: float) -> bool:
        found = self.best is None or self.metric.better(score, self.best)
        self.best = score if found else self.best
        return found

    def _beside_teacher(self, rows: Rows, score: float) -> dict[str, Any]:
        if self._teacher is None:
            return {}
        teacher = self.metric.value(self._teacher)
        found: dict[str, Any] = {"teacher": teacher}
        if (alike := answers.agreement(rows, self._teacher)) is not None:
            found["agreement"] = alike
        own, theirs = answers.right(rows), answers.right(self._teacher)
        if own is None or theirs is None or len(own) != len(theirs):
            return found | ({AHEAD: self.metric.drop(teacher, score)} if self.metric.better(score, teacher) else {})
        if theirs.any():
            found["missed"] = float((~own)[theirs].mean())
        if self.metric.better(score, teacher):
            sure = paired.difference_lower(paired.counts(own.astype(int), theirs.astype(int)))
            found |= {AHEAD: sure} if sure > 0 else {}
        return found | _classes(rows, theirs)

    def _remembered(self, rows: Rows) -> dict[str, float]:
        own, before = answers.right(rows), self.memory.get(RIGHT)
        if own is None or before is None or len(own) != len(before) or not before.any():
            return {}
        return {"forgotten": float((~own)[before].mean())}

    def _remember(self, rows: Rows) -> None:
        own = answers.right(rows)
        if own is None:
            return
        found = answers.recalls(rows, own)
        self.memory = {RIGHT: own, LABELS: np.array([c.label for c in found], dtype=np.int64), LEARNED: np.array([c.right for c in found], dtype=np.int64)}

    def tensors(self) -> dict[str, Tensor]:
        """What must survive a stop."""
        found = {name: torch.from_numpy(value.copy()) for name, value in self.memory.items()}
        return found | ({} if self.best is None else {"best": torch.tensor(self.best, dtype=torch.float64)})

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """To what `tensors` gave."""
        self.best = tensors["best"].item() if "best" in tensors else None
        self.memory = {name: value.numpy().copy() for name, value in tensors.items() if name != "best"}


def _classes(rows: Rows, theirs: np.ndarray) -> dict[str, Any]:
    found = answers.recalls(rows, theirs)
    kept = [(c.kept, c.label) for c in found if c.kept is not None]
    worst = dict(zip(("worst_class_kept", "worst_class"), min(kept), strict=True)) if kept else {}
    return worst | ({CLASSES: [[c.label, c.samples, c.before, c.right] for c in found]} if found else {})


def behind(row: Mapping[str, Any], metric: str) -> str:
    """What is to be said of a teacher that its student has passed: the figures, and what would do."""
    return (
        f"the teacher is worse on validation than the student: {metric} {row['teacher']:.4g} against {row['validation']:.4g} after epoch {row['epoch']:.0f} "
        f"(better by at least {row[AHEAD]:.3g}). Its answers may hold the student back: let its terms end earlier or weigh less, or take a better teacher."
    )


def classes_needed(rows: list[dict[str, Any]], keep: int) -> None:
    """Leave the classes to the last row and to the one of the best epoch (its place): of many epochs they would be most of what is kept."""
    for place, row in enumerate(rows):
        if place not in (keep, len(rows) - 1):
            row.pop(CLASSES, None)


def refuse_blind(monitor: Any, forgetting: str) -> None:
    """Raises ConfigError if a guard is asked for and there is nothing to see."""
    if forgetting != "off" and not isinstance(monitor, Watch):
        raise ConfigError(f"training.forgetting = '{forgetting}' needs the rows of validation, and this training watches none. Give fit a Watch, or set it to 'off'.")
