"""Peers that train beside the student: each learns from the labels and from all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limbeck.core.candidate import Blueprint
from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.core.task import Task
from limbeck.mechanics.build import base
from limbeck.mechanics.data import batch_of, example, named_outputs, predict
from limbeck.mechanics.depths import evaluated
from limbeck.mechanics.families.fit import fitted
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.fresh import fresh
from limbeck.mechanics.terms.kd import kd_rows
from limbeck.mechanics.terms.logits import Temperature, paired
from limbeck.mechanics.terms.task_loss import main_output, task_loss


def mutual(
    *,
    peers: Annotated[int, Range(1, None), "networks that train beside the student"] = 1,
    peer: Annotated[str, "their architecture: a model of Task.models, or `limbeck:<family>`; empty: the student's own, with other first weights"] = "",
    options: Annotated[Mapping[str, Any] | None, "arguments of the peers' factory; a family's channels and classes are read off the data"] = None,
    temperature: Temperature = 1.0,
) -> Term:
    """Deep mutual learning: student and peers train together and pull each other; no teacher is needed.

    Of K networks k, the student among them, each descends its own loss C_k + 1/(K−1) · Σ_{l≠k} T² · KL(p_l ‖ p_k), p_l as it stands; C_k
    is its `task_loss`. This term is the sum of all of it but the student's own C, which stands beside it as a `task_loss`. The gradients
    don't mix: a peer's loss moves that peer alone. Peers see the student's view, are in its mode, and share its optimizer, schedule and
    clipping. They are kept with the training and never become part of the student.

    Source: Zhang et al. 2017, arXiv:1706.00384, §2.4 (T = 1). Differs: all networks take their step at once, not in turn.
    Raises: ConfigError for fewer than one peer, or an architecture that can't begin anew; TaskError, in a step, for a peer of other classes.
    """
    if peers < 1:
        raise ConfigError(f"mutual.peers must be ≥ 1, got {peers!r}. One peer is the usual start.")
    if options and not peer:
        raise ConfigError(f"mutual.options are for a peer that is named, got {dict(options)!r} for the student's own architecture. Name one in mutual.peer.")

    def builds(wiring: Wiring) -> nn.Module:
        return nn.ModuleList(_peer(wiring, peer, options or {}) for _ in range(peers))

    def term(seen: Seen) -> Tensor:
        outputs = []
        for model in cast(nn.ModuleList, seen.own):
            model.train(seen.model.training)
            outputs.append(named_outputs(seen.task, model(*seen.args, **seen.inputs)))
        own = [task_loss().function(replace(seen, student=answers)) for answers in outputs]
        logits = [main_output(seen.task, answers) for answers in (seen.student, *outputs)]
        return sum(own, mutual_loss(seen, logits, temperature=temperature))

    return Term("mutual", term, labels=True, mixes=True, builds=builds)


def mutual_loss(seen: Seen, logits: list[Float[Tensor, "batch ... classes"]], *, temperature: float = 1.0) -> Float[Tensor, ""]:
    """Σ_k 1/(K−1) · Σ_{l≠k} T² · KL(p_l ‖ p_k), averaged over the batch; p_l gives no gradient.

    Args:
        seen: Whose labels of −100 leave tokens out.
        logits: Of each of the K networks.
    Returns: In nats, ≥ 0; 0 where all agree.
    Source: Zhang et al. 2017, arXiv:1706.00384, §2.4.
    """
    total = logits[0].new_zeros(())
    for k, learns in enumerate(logits):
        for tells in (*logits[:k], *logits[k + 1 :]):
            rows = paired(seen, "mutual", learns, tells)
            total = total + rows.mean(kd_rows(rows.student, rows.teacher, temperature=temperature)) / (len(logits) - 1)
    return total


def _peer(wiring: Wiring, name: str, options: Mapping[str, Any]) -> nn.Module:
    """One peer, its weights drawn from torch's generator."""
    torch.manual_seed(int(torch.randint(2**62, ())))  # whoever drew the student's weights may have begun at the same seed
    if not name:
        return fresh(wiring.student, "mutual")
    if name.startswith("limbeck:"):
        return base(Blueprint(name, _fitted(name.removeprefix("limbeck:"), options, wiring.task, wiring.student)), wiring.task)
    name = name.removeprefix("task:")
    wiring.task.model(name)
    return base(Blueprint(f"task:{name}", dict(options)), wiring.task)


def _fitted(family: str, options: Mapping[str, Any], task: Task, student: nn.Module) -> dict[str, Any]:
    """What a family must know to take the student's inputs and give its outputs."""
    with evaluated(student), torch.no_grad():
        return fitted(family, options, example(task, student).inputs, predict(task, student, batch_of(task, "train", [0, 1])))
