"""Several teachers joined into one: by a mean, by how sure each is, by weights learned on validation, or class by class.

A join of probabilities is exact at the temperature that is asked for: where every term softens with the same T, the joined logits z have
softmax(z / T) = Σ wᵢ · softmax(zᵢ / T); else T is 1. By the linearity of forward KL in its target, Σ wᵢ · KL(pᵢ ‖ q) and KL(Σ wᵢpᵢ ‖ q)
pull a student alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.task import Task
from limbeck.core.technique import Reads, Selective, Signals
from limbeck.mechanics.build import Ensemble
from limbeck.mechanics.data import Reader, batches, labels, predict
from limbeck.mechanics.live import members_of
from limbeck.mechanics.taps import PREFIX
from limbeck.mechanics.terms.task_loss import IGNORED, main_name

Join = Literal["task", "outputs", "probabilities", "confidence", "learned", "specialists"]
ROUNDS = 200  # of expectation maximization: each raises the likelihood, and the last ones by nothing that shows
SCORED = 256  # validation samples in one batch


@dataclass(frozen=True)
class Committee(Selective):
    """An ensemble's members, asked one by one and joined.

    source: gives each member's outputs by its own name (`LiveTeacher(…, apart=True)`, or a cache of one).
    join: "outputs": the mean. "probabilities": their mean, of the classes. "confidence": a mean of probabilities in which each sample is
        told most by the members that are surest of its label. "learned": by one weight a member, those most likely on validation.
        "specialists": class by class, by how often a member that answers it on validation is right.
    """

    task: Task
    ensemble: Ensemble
    source: Signals
    join: Join
    temperature: float = 1.0
    live: bool = False  # whether it is asked about other samples than the training split's, whose labels nobody has

    def serving(self, reads: Reads) -> Signals:
        softened = set(reads.softened.values())
        own = softened.pop() if len(softened) == 1 and not reads.outputs else 1.0
        whole, live = (*reads.outputs, *reads.softened), reads.live or self.live
        if not isinstance(self.source, Selective):
            return replace(self, source=self.source.tapped(reads.taps) if reads.taps else self.source, temperature=own, live=live)
        return replace(self, source=self.source.serving(Reads(whole, taps=reads.taps, live=reads.live)), temperature=own, live=reads.live)

    def tapped(self, paths: tuple[str, ...]) -> Signals:
        return replace(self, source=self.source.tapped(paths))

    def layers(self) -> Sequence[Any]:
        return self.source.layers()

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> Mapping[str, Tensor]:
        found = self.source.teacher(ids, view, args, kwargs)
        members, taps = members_of(found), {k: v for k, v in found.items() if k.startswith(PREFIX)}
        if not members:
            return taps
        main = main_name(self.task, members[0])
        joined = {name: torch.stack([m[name] for m in members]).mean(0) for name in members[0] if name != main and all(name in m for m in members)}
        return {**joined, main: self._joined(torch.stack([m[main] for m in members]), ids), **taps}

    def _joined(self, logits: Tensor, ids: np.ndarray) -> Tensor:
        """[members, batch, …, classes] → [batch, …, classes]."""
        if self.join == "outputs":
            return logits.mean(0)
        if logits.dim() < 3 or logits.shape[-1] < 2:
            raise ConfigError(f"join = '{self.join}' is of class probabilities; the members' main output is {list(logits.shape[1:])}. Take 'outputs', their mean.")
        weights: Tensor | float = 1.0 / len(logits)
        if self.join == "confidence":
            weights = confidence(logits, self._labels(ids, logits.shape[1:-1]))[..., None]
        elif self.join == "learned":
            weights = self._learned.to(logits)[(...,) + (None,) * (logits.dim() - 1)]
        elif self.join == "specialists":
            weights = self._specialists.to(logits)[(slice(None),) + (None,) * (logits.dim() - 2)]
        return mixed(logits, weights, temperature=self.temperature)

    def _labels(self, ids: np.ndarray, shape: Sequence[int]) -> Tensor | None:
        if self.live or (self.task.views and self.task.views.mixes):
            return None  # what was just written has none, and a mixed view has two labels: each member's own entropy stands for both
        found = labels(self._reader.batch(ids))
        if found is None:
            return None
        target = torch.as_tensor(found)
        return target.long() if tuple(target.shape) == tuple(shape) and not target.is_floating_point() else None

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.task, "train")

    @cached_property
    def _validation(self) -> tuple[Tensor, Tensor]:
        """Each member's class probabilities on validation [members, rows, classes], and the labels [rows]."""
        return on_validation(self.task, list(self.ensemble.members))

    @cached_property
    def _learned(self) -> Tensor:
        return likeliest(*self._validation)

    @cached_property
    def _specialists(self) -> Tensor:
        return expertise(*self._validation)


def mixed(logits: Tensor, weights: Tensor | float, *, temperature: float = 1.0) -> Tensor:
    """Logits z with softmax(z / T) = Σᵢ wᵢ · softmax(zᵢ / T), rescaled to a sum of 1; members stand on the first axis of both."""
    logs = (logits / temperature).log_softmax(-1)
    logs = torch.logsumexp(logs + (weights.log() if isinstance(weights, Tensor) else float(np.log(weights))), 0)
    return temperature * logs.log_softmax(-1)


def confidence(logits: Tensor, target: Tensor | None) -> Tensor:
    """Each member's weight for each row: wᵢ = (1 − exp(CEᵢ) / Σⱼ exp(CEⱼ)) / (K − 1), CE being its cross-entropy with the label.

    Where a row has no label, the entropy of the member's own answer, which is the cross-entropy that it expects.
    Args: logits: [members, …, classes]. target: [...], or None.
    Returns: [members, …], ≥ 0, adding up to 1 over members.
    Source: Zhang et al. 2022, arXiv:2201.00007, eq. 3–4. Differs: the entropy where labels are missing.
    """
    if len(logits) == 1:
        return torch.ones(logits.shape[:-1], dtype=logits.dtype, device=logits.device)
    logs = logits.log_softmax(-1)
    unsure = -(logs.exp() * logs).sum(-1)
    if target is not None:
        known = target != IGNORED
        losses = F.nll_loss(logs.flatten(0, -2), target.clamp(min=0).expand(logits.shape[:-1]).flatten(), reduction="none").view(unsure.shape)
        unsure = torch.where(known, losses, unsure)
    return (1 - unsure.softmax(0)) / (len(logits) - 1)


def likeliest(probabilities: Tensor, target: Tensor) -> Tensor:
    """The weights w ≥ 0, Σw = 1, under which the mixture Σᵢ wᵢpᵢ gives the labels the greatest likelihood: [members].

    By expectation maximization, whose steps never lower it; the problem is concave, so where it ends doesn't depend on where it began.
    Args: probabilities: [members, rows, classes]. target: [rows].
    """
    given = probabilities.double()[:, torch.arange(len(target)), target].clamp(min=1e-12)  # [members, rows]
    weights = torch.full((len(given),), 1 / len(given), dtype=torch.float64)
    for _ in range(ROUNDS):
        shares = weights[:, None] * given
        weights = (shares / shares.sum(0)).mean(1)
    return weights


def expertise(probabilities: Tensor, target: Tensor) -> Tensor:
    """Each member's weight for each class, adding up to 1 over members: [members, classes].

    In proportion to the share of its answers "class c" that are right, counted from one right answer in `classes`, so that a member that
    never answers c isn't trusted there more than chance.
    """
    answers, classes = probabilities.argmax(-1), probabilities.shape[-1]
    right = torch.stack([(F.one_hot(a, classes) * F.one_hot(target, classes)).sum(0) for a in answers]).double()
    given = torch.stack([F.one_hot(a, classes).sum(0) for a in answers]).double()
    precise = (right + 1) / (given + classes)
    return precise / precise.sum(0)


def on_validation(task: Task, members: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
    """Class probabilities [members, rows, classes] and labels [rows] of the validation split; rows labelled −100 are left out.

    Raises: TaskError if validation has no classes as labels.
    """
    told, answered = [], []
    for _, batch in batches(task, "validation", size=SCORED):
        found = labels(batch)
        with torch.no_grad():
            outputs = [predict(task, m.eval(), batch) for m in members]
        rows = torch.stack([o[main_name(task, o)] for o in outputs])
        target = torch.as_tensor(found) if found is not None else None
        if target is None or target.is_floating_point() or tuple(target.shape) != tuple(rows.shape[1:-1]):
            raise TaskError(
                f"task '{task.name}': weights of teachers are learned on validation, which needs a class for each row of the outputs {list(rows.shape[1:])}; "
                f"got labels of shape {list(target.shape) if target is not None else None}. Give labels, or join = 'probabilities'."
            )
        kept = target.flatten() != IGNORED
        told.append(target.flatten()[kept].long())
        answered.append(rows.flatten(1, -2)[:, kept].softmax(-1))
    return torch.cat(answered, 1), torch.cat(told)


def committee(task: Task, model: nn.Module, join: Join, source: Callable[[], Signals]) -> Committee:
    """The members of this ensemble, joined. Raises ConfigError if the model is none."""
    if not isinstance(model, Ensemble):
        raise ConfigError(f"join = '{join}' is for several teachers; this one is a single {type(model).__name__}. Give Task.models a list of factories, or leave join out.")
    return Committee(task, model, source(), join)
