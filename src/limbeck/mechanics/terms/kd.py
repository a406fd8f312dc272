"""What the teacher's softened probabilities say."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.sparse import kd_top_rows
from limbeck.mechanics.terms.logits import logits_of, softened_of


def kd(
    *,
    temperature: Annotated[float, Range(0, None, closed="neither"), "softening of both softmaxes"] = 4.0,
    temperature_end: Annotated[float | None, Range(0, None, closed="neither"), "temperature at the end of the training; none: it stays"] = None,
    schedule: Annotated[Literal["linear", "cosine"], "how the temperature goes to its end: evenly, or slowly at first and at last"] = "linear",
    standardize: Annotated[bool, "z-score each sample's logits on both sides first, so that only their pattern is matched"] = False,
) -> Term:
    """Knowledge distillation by temperature, on the output called "logits" (or the only one); see `kd_loss`.

    With `standardize`, Sun et al. (2024, arXiv:2403.01427) take temperature 2 and weight 9 beside 0.1 of the labels' loss. With
    `temperature_end`, each step has its own temperature, which a sparse cache can't serve.

    Raises: ConfigError if a temperature ≤ 0.
    """
    for name, value in (("temperature", temperature), ("temperature_end", temperature_end)):
        if value is not None and not value > 0:
            raise ConfigError(f"kd.{name} must be > 0, got {value!r}. 4 is usual; 1 leaves the probabilities as they are.")
    end = temperature if temperature_end is None else temperature_end

    def now(seen: Seen) -> float:
        share = seen.done if schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * seen.done)
        return temperature + share * (end - temperature)

    def term(seen: Seen) -> Tensor:
        if top := softened_of(seen, "kd", temperature):
            return top.mean(kd_top_rows(top.student, top.ids, top.teacher, temperature=temperature))
        logits = logits_of(seen, "kd", standardize=standardize)
        return logits.mean(kd_rows(logits.student, logits.teacher, temperature=now(seen)))

    if temperature_end is None:
        return Term("kd", term, teacher=True, reads="outputs" if standardize else temperature)
    return Term("kd", term, teacher=True, reads="outputs", tells=lambda seen: {"temperature": now(seen)})


def kd_loss(student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"], *, temperature: float = 4.0) -> Float[Tensor, ""]:
    """Pull the student's softened class probabilities towards the teacher's.

    T² · KL(softmax(teacher/T) ‖ softmax(student/T)), averaged over the batch.

    Args:
        student: Logits; the only input that receives gradient.
        temperature: Softening T > 0, dimensionless; higher gives small classes more weight.
    Returns: Loss in nats, ≥ 0; 0 when both softmaxes agree.
    Source: Hinton et al. 2015, arXiv:1503.02531, §2. Differs: the hard-label term is the caller's.
    """
    return kd_rows(student, teacher, temperature=temperature).mean()


def kd_rows(student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"], *, temperature: float | Tensor) -> Float[Tensor, " rows"]:
    """`kd_loss` of each row; a temperature that is a tensor gets a gradient too."""
    expected = F.log_softmax(teacher.detach().to(student.dtype) / temperature, dim=-1)
    got = F.log_softmax(student / temperature, dim=-1)
    return F.kl_div(got, expected, reduction="none", log_target=True).sum(-1) * temperature**2
