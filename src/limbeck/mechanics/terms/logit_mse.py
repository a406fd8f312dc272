"""What the teacher's outputs say, as numbers: for regression, and for logits that should be matched as they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from limbeck.core.errors import TaskError
from limbeck.core.task import Task
from limbeck.mechanics.objective import Outputs, Term
from limbeck.mechanics.terms.task_loss import main_output


def logit_mse() -> Term:
    """Squared difference of the main output from the teacher's, averaged over a sample's values and the batch.

    Source: Ba & Caruana 2014, arXiv:1312.6184, eq. 1 (there without the ½ it is summed; here averaged over values).
    """

    def term(task: Task, student: Outputs, teacher: Outputs, batch: Any) -> Tensor:
        s, t = main_output(task, student), main_output(task, teacher)
        if s.shape != t.shape:
            raise TaskError(f"logit_mse needs outputs of one shape, got student {tuple(s.shape)} and teacher {tuple(t.shape)}. Give the student the teacher's outputs.")
        return (s - t.detach().to(s.dtype)).square().mean()

    return Term("logit_mse", term, teacher=True)
