"""Where the student's weights stood when training began, those the most that its answers depend on."""

from __future__ import annotations

from typing import Annotated, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.fields import Range
from limbeck.core.task import Task
from limbeck.mechanics.data import batch_of, predict
from limbeck.mechanics.objective import Outputs, Seen, Term, Wiring
from limbeck.mechanics.terms.anchors import Anchors, trainable
from limbeck.mechanics.terms.task_loss import main_output


def ewc(*, samples: Annotated[int, Range(1, None), "training samples from which a weight's importance is measured, before training"] = 512) -> Term:
    """½ Σ F · (w − w⁰)², F the diagonal of the Fisher information at the start: elastic weight consolidation.

    F is the mean square of each weight's gradient of log p(y), y drawn from the student's own answer, one sample at a time, evenly
    chosen over the training split, in eval mode (class and token logits: their softmax; one logit: Bernoulli; values: unit
    variance around the output). 0 at the start. So it protects what the student knew of *these* samples: give data like those it
    learned from.

    Cost: one forward and backward pass a sample, once, and two copies of the weights.
    Source: Kirkpatrick et al. 2017, arXiv:1612.00796, eq. 3; its λ is the term's weight.
    """

    def builds(wiring: Wiring) -> nn.Module:
        return Anchors(wiring.student, fisher(wiring.task, wiring.student, samples=samples))

    def term(seen: Seen) -> Tensor:
        return cast(Anchors, seen.own).distance("ewc", seen.model)

    return Term("ewc", term, builds=builds)


def fisher(task: Task, model: nn.Module, *, samples: int) -> list[Tensor]:
    """The diagonal of the Fisher information, a tensor a weight that learns; drawn from torch's generator. The model is left in its modes."""
    weights = [p for _, p in trainable(model)]
    found = [torch.zeros_like(p) for p in weights]
    count = len(task.split("train"))
    ids = np.linspace(0, count - 1, min(samples, count)).round().astype(int)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for i in ids:
            score = _log_likelihood(task, predict(task, model, batch_of(task, "train", [int(i)])))
            for total, slope in zip(found, torch.autograd.grad(score, weights, allow_unused=True), strict=True):
                if slope is not None:
                    total += slope.square() / len(ids)
    finally:
        for module, training in modes.items():
            module.training = training
    return found


def _log_likelihood(task: Task, outputs: Outputs) -> Tensor:
    """log p of an answer that is drawn from the model's own, up to a constant."""
    scores = main_output(task, outputs)
    if task.metric.target not in ("class", "token"):
        return -0.5 * (scores - torch.normal(scores.detach(), 1.0)).square().sum()
    if scores.dim() == 1 or scores.shape[-1] == 1:
        return -F.binary_cross_entropy_with_logits(scores, torch.bernoulli(scores.detach().sigmoid()), reduction="sum")
    rows = scores.flatten(0, -2)
    drawn = torch.multinomial(rows.detach().softmax(-1), 1).squeeze(-1)
    return -F.cross_entropy(rows, drawn, reduction="sum")
