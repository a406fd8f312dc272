"""How the teacher solves the problem between two layers: the products of what goes in and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.core.errors import ConfigError, TaskError
from limbeck.mechanics.objective import Seen, Term
from limbeck.mechanics.terms.features import Pair, as_map, both_of, mask_of, resized


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Two layers of the student, and the two of the teacher that they are matched with."""

    student_from: Annotated[str, "module path in the student, where the flow begins"]
    student_to: Annotated[str, "module path in the student, where it ends"]
    teacher_from: Annotated[str, "module path in the teacher, or `auto`"] = "auto"
    teacher_to: Annotated[str, "module path in the teacher, or `auto`"] = "auto"

    @property
    def ends(self) -> tuple[Pair, Pair]:
        return Pair(student=self.student_from, teacher=self.teacher_from), Pair(student=self.student_to, teacher=self.teacher_to)


def fsp(*, flows: Annotated[tuple[Flow, ...], "pairs of layers to match, as a rule the first and last of a stage; their values are added"]) -> Term:
    """The flow of solution procedure: channel products of two layers, averaged over places; see `fsp_loss`.

    Both sides need as many channels at both ends. Where the ends differ in resolution, the finer is averaged down.

    Raises: ConfigError without flows; TaskError, in a step, if channels differ.
    """
    if not flows:
        raise ConfigError("fsp.flows must name at least one pair of layers, got none. Give flows = [{ student_from = 'layer1.0', student_to = 'layer1' }].")
    ends = [flow.ends for flow in flows]

    def term(seen: Seen) -> Tensor:
        losses = []
        for first, last in ends:
            begin, end = both_of(seen, "fsp", first), both_of(seen, "fsp", last)
            own, theirs = (_flow(seen, begin[side], end[side], first.student, last.student) for side in (0, 1))
            if own.shape != theirs.shape:
                raise TaskError(
                    f"fsp needs as many channels on both sides, got student {list(own.shape[1:])} and teacher {list(theirs.shape[1:])} from '{first.student}' to '{last.student}'. "
                    "For other widths use hint or similarity_preserving."
                )
            losses.append(fsp_loss(own, theirs))
        return sum(losses[1:], start=losses[0])

    taps = [pair for both in ends for pair in both]
    return Term("fsp", term, teacher=True, student_taps=tuple(p.student for p in taps), teacher_taps=tuple(p.answer for p in taps))


def fsp_loss(student: Float[Tensor, "batch first last"], teacher: Float[Tensor, "batch first last"]) -> Float[Tensor, ""]:
    """(G_T − G_S)², averaged over the entries of the matrices and the samples; ≥ 0, 0 at equal matrices.

    Source: Yim et al. 2017, *A Gift from Knowledge Distillation* (CVPR), eq. 1 and 2. Differs: the mean over entries instead of the sum,
    to which the weight 50 belongs; resolutions meet by averaging instead of max pooling.
    """
    return (student - teacher).square().mean()


def flow_matrix(first: Float[Tensor, "batch places begin"], last: Float[Tensor, "batch places end"], weight: Float[Tensor, "batch places"]) -> Float[Tensor, "batch begin end"]:
    """Σ over places of weight · first_i · last_j; the weights of a sample add up to 1."""
    return (first * weight[:, :, None]).transpose(1, 2) @ last


def _flow(seen: Seen, first: Tensor, last: Tensor, begin: str, end: str) -> Float[Tensor, "batch begin end"]:
    if first.dim() == last.dim() == 3 and first.shape[1] == last.shape[1]:
        mask = mask_of(seen, first)
        kept = torch.ones(first.shape[:2], dtype=first.dtype, device=first.device) if mask is None else mask.to(first.dtype)
        return flow_matrix(first, last, kept / kept.sum(1, keepdim=True).clamp(min=1))
    maps = as_map(first, "fsp", begin), as_map(last, "fsp", end)
    size = [min(m.shape[axis] for m in maps) for axis in (2, 3)]
    rows = [resized(m, size).flatten(2).transpose(1, 2) for m in maps]
    return flow_matrix(rows[0], rows[1], torch.full(rows[0].shape[:2], 1 / rows[0].shape[1], dtype=first.dtype, device=first.device))
