"""What the student itself said before this training: for teaching it something new without losing that."""

from __future__ import annotations

import copy
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError, near
from limbeck.mechanics.data import named_outputs
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.taps import PREFIX
from limbeck.mechanics.terms.kd import kd_rows
from limbeck.mechanics.terms.logits import Standardize, Temperature, paired
from limbeck.mechanics.terms.task_loss import main_name


def retain(
    *,
    output: Annotated[str, "which output is kept, by name (an old task's head); empty: the main one"] = "",
    temperature: Temperature = 2.0,
    standardize: Standardize = False,
) -> Term:
    """Keep the answers that the student gave when training began, on the samples that it is trained on (LwF).

    kd, with a frozen copy of the student's own start in eval mode as its teacher: no other teacher is needed. The copy sees the same
    view. For a student from scratch it means nothing: its start knows nothing.

    Source: Li & Hoiem 2016, arXiv:1606.09282, eq. 2 and 3 (T = 2). Differs: the divergence instead of the cross-entropy, which has the
    same gradient; T² as kd has it; the start is asked again for each view instead of recorded once.
    """

    def term(seen: Seen) -> Tensor:
        start = cast(Start, seen.own)
        with torch.no_grad():
            before = named_outputs(seen.task, start.model(*seen.args, **seen.inputs))
        name = _output(output, before) if output else main_name(seen.task, before)
        logits = paired(seen, "retain", seen.student[name], before[name], standardize=standardize)
        return logits.mean(kd_rows(logits.student, logits.teacher, temperature=temperature))

    def builds(wiring: Wiring) -> nn.Module:
        if output:
            _output(output, wiring.student_shapes)
        return Start(wiring.student)

    return Term("retain", term, builds=builds)


class Start(nn.Module):
    """A frozen copy of a model, which stays in eval mode whatever it is put in."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Start:
        return super().train(False)


def _output(name: str, outputs: object) -> str:
    known = [key for key in cast(dict, outputs) if not key.startswith(PREFIX)]
    if name not in known:
        raise ConfigError(f"retain.output: the student has no output '{name}'. {near(name, known)}")
    return name
