"""Where each of the teacher's channels is most active, as a distribution over places."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.fields import Range
from limbeck.mechanics.objective import Seen, Term, Wiring
from limbeck.mechanics.terms.features import Pair, features_of, projector, taps_of, width_of


def channel_wise(
    *,
    student: Annotated[str, "module path in the student: a map of class scores, or features"],
    teacher: Annotated[str, "module path in the teacher; `auto` takes the one that answers by name, resolution and depth"] = "auto",
    temperature: Annotated[float, Range(0, None, closed="neither"), "softening of the softmax over places"] = 4.0,
) -> Term:
    """Channel-wise distillation: a softmax over places for each channel; see `channel_wise_loss`.

    Where widths differ, the student's features go through a 1×1 convolution that trains with it; else as they are.

    Raises: ConfigError for a temperature ≤ 0; TaskError, in a step, if a layer has one place only.
    """
    if not temperature > 0:
        raise ConfigError(f"channel_wise.temperature must be > 0, got {temperature!r}. The paper has 4.")
    pair = Pair(student=student, teacher=teacher)

    def builds(wiring: Wiring) -> nn.Module:
        own, theirs = wiring.shape("student", pair.student), wiring.shape("teacher", pair.answer)
        return projector(wiring, pair) if width_of(own) != width_of(theirs) else nn.Identity()

    def term(seen: Seen) -> Tensor:
        features = features_of(seen, "channel_wise", pair)
        if features.student.shape[1] < 2:
            raise TaskError(f"channel_wise compares places, and '{pair.student}' with '{pair.answer}' has one only. Tap layers before the pooling.")
        return channel_wise_loss(seen.own(features.student), features.teacher, features.weight, temperature=temperature)

    return Term("channel_wise", term, teacher=True, builds=builds, **taps_of([pair]))


def channel_wise_loss(
    student: Float[Tensor, "batch places width"], teacher: Float[Tensor, "batch places width"], weight: Float[Tensor, "batch places"] | None = None, *, temperature: float = 4.0
) -> Float[Tensor, ""]:
    """T² · KL(softmax(teacher/T) ‖ softmax(student/T)) over places, averaged over channels and samples.

    Args:
        weight: Places of weight 0 (padding) are left out.
    Returns: Loss in nats, ≥ 0; adding a number to a channel's map changes nothing.
    Source: Shu et al. 2020, arXiv:2011.13256, eq. 2 to 4.
    """
    hidden = torch.zeros(student.shape[:2], dtype=torch.bool, device=student.device) if weight is None else weight <= 0
    own, theirs = ((side / temperature).masked_fill(hidden[:, :, None], torch.finfo(side.dtype).min / 2).log_softmax(1) for side in (student, teacher))
    losses = F.kl_div(own, theirs, reduction="none", log_target=True).sum(1).mean(1)
    return temperature**2 * losses.mean()
