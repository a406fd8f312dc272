"""The k largest of a teacher's probabilities, with the mass of all others: what forward KL needs of a large vocabulary, in few bytes.

A row is one distribution (a sample's classes, or a token's vocabulary). Its bits, low first, padded to whole bytes:
k ids of ⌈log2 classes⌉ bits; k times −log p at temperature 1, a half-precision number without its sign: 15 bits; for each declared
temperature T, −log of the tail's mass at T, 15 bits. At temperature T the k are softmax(log p / T) · (1 − tail at T), so one set of
log p serves every temperature, and the k and the tail add up to 1. At k = 10 and one temperature that is 37 bytes for 8,192 classes,
44 for 262,144.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from limbeck.core.errors import ConfigError

TOP = "top:"  # what stands among the teacher's answers in the place of its outputs
TOP_IDS, TOP_CLASSES = TOP + "ids", TOP + "classes"
HALF = 15  # bits of a half-precision number that is never negative
HALF_MAX = 65504.0
HALF_LEAST = 2.0**-24
ID_BITS = 25  # a field is read from four bytes at any offset of bits


@dataclass(frozen=True)
class Layout:
    """How rows of `classes` are kept. Raises ConfigError for a k or a temperature that can't be."""

    classes: int
    k: int
    temperatures: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.k < self.classes:
            raise ConfigError(f"k must be in [1, {self.classes - 1}] for {self.classes} classes, got {self.k!r}. Take a smaller k, or a dense cache.")
        if not self.temperatures or any(not t > 0 for t in self.temperatures):
            raise ConfigError(f"temperatures must name at least one number > 0, got {self.temperatures!r}. Name those of the terms, as in (4.0,).")
        if self.classes > 1 << ID_BITS:
            raise ConfigError(f"a sparse cache holds up to {1 << ID_BITS} classes, got {self.classes}. Distill with the teacher live.")

    @cached_property
    def _widths(self) -> np.ndarray:
        return np.array([(self.classes - 1).bit_length()] * self.k + [HALF] * (self.k + len(self.temperatures)))

    @property
    def row_bytes(self) -> int:
        return (int(self._widths.sum()) + 7) // 8

    def packed(self, logits: Float[Tensor, "*rows classes"]) -> np.ndarray:
        """Bytes [*rows, row_bytes] of these logits."""
        flat = logits.detach().flatten(0, -2).float()
        ids, top = top_of(flat, self.k, temperature=1.0)
        tails = torch.stack([_tail(flat, ids, t) for t in self.temperatures], -1)
        halves = (-torch.cat([top[:, :-1], tails], -1)).clamp(HALF_LEAST, HALF_MAX).half()
        fields = np.concatenate([ids.numpy().astype(np.uint32), halves.numpy().view(np.uint16).astype(np.uint32)], 1)
        bits = [(fields[:, i, None] >> np.arange(width, dtype=np.uint32)) & 1 for i, width in enumerate(self._widths)]
        return np.packbits(np.concatenate(bits, 1).astype(np.uint8), axis=1, bitorder="little").reshape(*logits.shape[:-1], self.row_bytes)

    def answers(self, rows: np.ndarray) -> dict[str, Tensor]:
        """From bytes [*rows, row_bytes]: "top:ids" [*rows, k], the largest first; "top:<T>" [*rows, k + 1], log probabilities at each declared
        temperature, the tail's last; "top:classes", a number."""
        flat = np.pad(rows.reshape(-1, self.row_bytes), ((0, 0), (0, 3)))
        starts = np.concatenate([[0], np.cumsum(self._widths)[:-1]])
        words = np.ascontiguousarray(flat[:, starts[:, None] // 8 + np.arange(4)]).view("<u4")[..., 0]
        fields = (words >> (starts % 8).astype(np.uint32)) & ((1 << self._widths) - 1).astype(np.uint32)
        halves, shape = -torch.from_numpy(fields[:, self.k :].astype(np.uint16).view(np.float16)).float(), rows.shape[:-1]
        found = {TOP_IDS: torch.from_numpy(fields[:, : self.k].astype(np.int64)).view(*shape, self.k), TOP_CLASSES: torch.tensor(self.classes)}
        for number, temperature in enumerate(self.temperatures):
            tail = halves[:, self.k + number, None]
            top = F.log_softmax(halves[:, : self.k] / temperature, -1) + torch.log(-torch.expm1(tail))
            found[top_name(temperature)] = torch.cat([top, tail], -1).view(*shape, self.k + 1)
        return found


def top_name(temperature: float) -> str:
    """What the log probabilities at this temperature are called among the teacher's answers."""
    return f"{TOP}{float(temperature)!r}"


def top_of(logits: Float[Tensor, "rows classes"], k: int, *, temperature: float) -> tuple[Int[Tensor, "rows k"], Float[Tensor, "rows k+1"]]:
    """The ids of the k largest, and their log probabilities at this temperature with the tail's behind them."""
    ids = logits.topk(k, dim=-1).indices
    return ids, torch.cat([F.log_softmax(logits / temperature, -1).gather(-1, ids), _tail(logits, ids, temperature).unsqueeze(-1)], -1)


def _tail(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """log of the mass that the other classes share."""
    return F.log_softmax(logits / temperature, -1).scatter(-1, ids, -torch.inf).logsumexp(-1)


def kd_top_rows(student: Float[Tensor, "rows classes"], ids: Int[Tensor, "rows k"], teacher: Float[Tensor, "rows k+1"], *, temperature: float) -> Float[Tensor, " rows"]:
    """T² · KL of each row over k + 1 outcomes: the k classes, and all others as one.

    Args:
        student: Logits; the only input that receives gradient, once differentiable.
        ids, teacher: As `top_of` gives them.
    Returns: In nats, ≥ 0, never above the KL over all classes, and growing with k (the data-processing inequality). How the student
        spreads the tail's mass isn't seen.
    Source: Kullback & Leibler 1951, doi:10.1214/aoms/1177729694, theorem 4.1: grouping outcomes never adds information.
    """
    scaled = student if temperature == 1 else student / temperature
    return cast(Tensor, _TopKL.apply(scaled.float() if scaled.dtype in (torch.float16, torch.bfloat16) else scaled, ids, teacher.detach())) * temperature**2


class _TopKL(torch.autograd.Function):
    """One softmax forward and one product backward: a vocabulary is passed over as seldom as in a cross-entropy.

    With p the teacher's, q the student's and t the tail: ∂KL/∂u = q − p at the k, q · (1 − p_t / q_t) elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, ids: Tensor, teacher: Tensor) -> Tensor:
        q, p = F.softmax(student, -1), teacher.to(student.dtype)
        kept = q.gather(-1, ids)
        tail = q.scatter_(-1, ids, 0).sum(-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)  # summed, not 1 − the rest: a sure student's would be lost
        q.scatter_(-1, ids, kept)
        norm = student.amax(-1, keepdim=True) - q.amax(-1, keepdim=True).log()  # logsumexp, off the softmax that is there
        got = torch.cat([student.gather(-1, ids) - norm, tail.log()], -1)
        ctx.save_for_backward(q, ids, kept, p, tail)
        return F.kl_div(got, p, reduction="none", log_target=True).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, ids, kept, p, tail = ctx.saved_tensors
        up = given[0].unsqueeze(-1)
        return (q * (up * (1 - p[:, -1:].exp() / tail))).scatter_(-1, ids, up * (kept - p[:, :-1].exp())), None, None
