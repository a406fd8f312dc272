"""Train all heads of a model that has more of them in training than it has outputs when deployed: a distillation token's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from limbeck.core.task import Task
from limbeck.mechanics.data import batch_of, predict
from limbeck.mechanics.depths import evaluated
from limbeck.mechanics.objective import Objective
from limbeck.mechanics.terms.focus import focused
from limbeck.mechanics.terms.task_loss import main_name


def on_every_head(objective: Objective, task: Task, model: nn.Module) -> Objective:
    """The objective, each of its terms on each head, its weight shared among them; as it is for a model whose outputs are the same in both modes.

    For objectives that nobody wrote (a recovery, the control, defaults): a head that no term acts on would stay random, and be averaged in
    when deployed. Heads are the outputs that are there in train mode alone and have the main output's shape. A task with a loss of its own
    decides itself what each output is for.
    """
    if task.loss:
        return objective
    main, heads = heads_of(task, model)
    if not heads:
        return objective
    shares = [(weight / (1 + len(heads)), focused(term, output=name, teacher_output=main if term.teacher else "")) for weight, term in objective.terms for name in (main, *heads)]
    return replace(objective, terms=tuple(shares))


def heads_of(task: Task, model: nn.Module) -> tuple[str, tuple[str, ...]]:
    """The main output and the other heads' names; none where both modes give the same. Modes, buffers and randomness are left as they are."""
    batch, buffers = batch_of(task, "train", [0, 1]), {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluated(model):
        deployed = predict(task, model, batch)
        training = predict(task, model.train(), batch)
        for name, buffer in model.named_buffers():  # batch norms moved
            buffer.copy_(buffers[name])
    more = {name: value for name, value in training.items() if name not in deployed}
    main = main_name(task, deployed) if more else ""
    return main, tuple(name for name, value in more.items() if value.shape == deployed[main].shape)
