"""What the teacher's softened probabilities say."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.task import Task
from limbeck.mechanics.objective import Outputs, Term
from limbeck.mechanics.terms.task_loss import main_output


def kd(*, temperature: float = 4.0) -> Term:
    """Knowledge distillation by temperature, on the output called "logits" (or the only one). See `kd_loss`.

    Raises: ConfigError if temperature ≤ 0.
    """
    if not temperature > 0:
        raise ConfigError(f"kd.temperature must be > 0, got {temperature!r}. 4 is usual; 1 leaves the probabilities as they are.")

    def term(task: Task, student: Outputs, teacher: Outputs, batch: Any) -> Tensor:
        s, t = main_output(task, student), main_output(task, teacher)
        if s.shape != t.shape or s.dim() < 2 or s.shape[-1] < 2:
            got = f"student {tuple(s.shape)} and teacher {tuple(t.shape)}"
            raise TaskError(f"kd needs class logits of one shape, got {got}. For regression use logit_mse; classes must agree in number and order.")
        return kd_loss(s.flatten(0, -2), t.flatten(0, -2), temperature=temperature)

    return Term("kd", term, teacher=True)


def kd_loss(student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"], *, temperature: float = 4.0) -> Float[Tensor, ""]:
    """Pull the student's softened class probabilities towards the teacher's.

    T² · KL(softmax(teacher/T) ‖ softmax(student/T)), averaged over the batch.

    Args:
        student: Logits; the only input that receives gradient.
        temperature: Softening T > 0, dimensionless; higher gives small classes more weight.
    Returns: Loss in nats, ≥ 0; 0 when both softmaxes agree.
    Source: Hinton et al. 2015, arXiv:1503.02531, §2. Differs: the hard-label term is the caller's.
    """
    expected = F.log_softmax(teacher.detach().to(student.dtype) / temperature, dim=-1)
    got = F.log_softmax(student / temperature, dim=-1)
    return F.kl_div(got, expected, reduction="batchmean", log_target=True) * temperature**2
