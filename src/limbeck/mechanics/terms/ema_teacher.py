"""The student's own moving average as its teacher."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.core.task import Task
from limbeck.mechanics.data import named_outputs
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.kd import kd_rows
from limbeck.mechanics.terms.logits import paired
from limbeck.mechanics.terms.task_loss import main_output

EARLY = 0.99  # the decay at most while the weight rises: the student gets better fast, and what it was should be forgotten fast


def ema_teacher(
    *,
    decay: Annotated[float, Range(0, 1, closed="left"), "share of the average that a step keeps, once its weight has risen"] = 0.999,
    measure: Annotated[Literal["mse", "kl"], "what is compared: probabilities as numbers, or as distributions"] = "mse",
    view: Annotated[
        Literal["auto", "other", "same"],
        "which view of a sample the average sees: another than the student's, or the same; `auto`: another where there are several that don't mix samples, and one answer a sample",
    ] = "auto",
    ramp: Annotated[float, Range(0, 1), "share of the training over which the weight rises from 0.007 to 1"] = 0.25,
) -> Term:
    """Mean teacher: the student's answers should be those of the exponential moving average of its weights. No teacher and no labels are needed.

    Step t makes the average α · average + (1 − α) · weights, with α = min(1 − 1/(t + 1), decay): the plain mean until that is slower; at
    most 0.99 while the weight rises. The term's value is multiplied by exp(−5 · (1 − x)²), x = done / ramp, at most 1. "mse" is
    the squared difference of softmaxes, averaged over classes; "kl" is KL(average ‖ student). Tokens labelled −100 are left out.

    The average is in eval mode, without dropout; the statistics of its batch norms are averages too. It is taken at the first call after
    the student's weights changed: once a step, however many batches a step accumulates.

    Source: Tarvainen & Valpola 2017, arXiv:1703.01780, §2 and §3. Differs: the teacher has no dropout of its own and isn't in train mode.
    Raises: ConfigError for a decay outside [0, 1), or another view of a task without views.
    """
    if not (0 <= decay < 1 and 0 <= ramp <= 1):
        raise ConfigError(f"ema_teacher needs decay in [0, 1) and ramp in [0, 1], got {decay!r} and {ramp!r}. 0.999 and 0.25 are usual.")

    def builds(wiring: Wiring) -> nn.Module:
        if view == "other" and not _varies(wiring.task):
            raise ConfigError('ema_teacher.view = "other" needs a task with at least 2 views of a sample that don\'t mix samples. Give Task(views=…), or take "same".')
        return Average(wiring.student)

    def term(seen: Seen) -> Tensor:
        average, rising = cast(Average, seen.own), seen.done < ramp
        if torch.is_grad_enabled():
            average.follow(seen.model, min(decay, EARLY) if rising else decay)
        with torch.no_grad():
            told = named_outputs(seen.task, _asked(average.model, seen, other=view == "other" or (view == "auto" and _apart(seen))))
        logits = paired(seen, "ema_teacher", main_output(seen.task, seen.student), main_output(seen.task, told))
        if measure == "kl":
            rows = kd_rows(logits.student, logits.teacher, temperature=1.0)
        else:
            rows = (logits.student.softmax(-1) - logits.teacher.softmax(-1)).square().mean(-1)
        return logits.mean(rows) * risen(seen.done, ramp)

    return Term("ema_teacher", term, builds=builds, tells=lambda seen: {"ramp": risen(seen.done, ramp)})


def risen(done: float, ramp: float) -> float:
    """exp(−5 · (1 − x)²), x = done / ramp, at most 1: from 0.0067 to 1. Tarvainen & Valpola 2017, arXiv:1703.01780, appendix B."""
    return math.exp(-5 * (1 - min(done / ramp, 1.0)) ** 2) if ramp else 1.0


def _varies(task: Task) -> bool:
    """Whether a sample has several views that are of it alone."""
    return task.views is not None and task.views.versions > 1 and not task.views.mixes


def _apart(seen: Seen) -> bool:
    """Whether another view of a sample has the same answer: a token or a pixel may stand elsewhere in it."""
    return _varies(seen.task) and main_output(seen.task, seen.student).dim() == 2


def _asked(model: nn.Module, seen: Seen, *, other: bool) -> object:
    """The average's answer to the student's view, or to the next one."""
    if not other:
        return model(*seen.args, **seen.inputs)
    args, inputs = seen.task.views.apply_to(seen.task, seen.batch, seen.ids, np.full(len(seen.ids), seen.view + 1))
    return model(*args, **inputs)


class Average(nn.Module):
    """A copy of a model that follows its weights; it stays in eval mode whatever it is put in, and never gets a gradient.

    steps: how many steps it has followed; −1 before the first, which it begins with. mark: what tells that the weights have changed.
    """

    steps: Tensor
    mark: Tensor

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.register_buffer("steps", torch.tensor(-1))
        self.register_buffer("mark", torch.zeros((), dtype=torch.float64))

    def train(self, mode: bool = True) -> Average:
        return super().train(False)

    @torch.no_grad()
    def follow(self, model: nn.Module, decay: float) -> None:
        """Move towards the model, if its weights have changed since the last time."""
        mark = torch.stack([p.detach().double().square().sum() for p in model.parameters()]).sum()
        if int(self.steps) >= 0 and bool(mark == self.mark):
            return
        self.mark.copy_(mark)
        self.steps += 1
        kept = min(1 - 1 / (int(self.steps) + 1), decay)
        for mean, now in (*zip(self.model.parameters(), model.parameters(), strict=True), *zip(self.model.buffers(), model.buffers(), strict=True)):
            if mean.is_floating_point():
                mean.copy_(kept * mean + (1 - kept) * now)
            else:
                mean.copy_(now)
