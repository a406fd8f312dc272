"""Tokens left out or hidden: never special ones, never padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import ConfigError
from limbeck.mechanics.views.draws import fraction, words


@dataclass(frozen=True)
class Touch:
    """What may happen to a token. drop, mask: how likely; mask_id, pad_id: what comes in its place; keep_ids: those that stay."""

    drop: float
    mask: float
    mask_id: int | None
    pad_id: int | None
    pad_side: Literal["right", "left"]
    keep_ids: Sequence[int]

    def applied(self, ids: Tensor, attention: Tensor | None, along: Sequence[Tensor], state: np.ndarray) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Ids [batch, tokens], the attention mask and what stands beside each token, after masking and then dropping.

        A draw belongs to the n-th token that may be touched, wherever it stands: padding changes nothing. A sample keeps one of these at
        least. What is dropped is closed up: the sample becomes a shorter one with more padding (Wei & Zou 2019, arXiv:1901.11196).
        Raises: ConfigError for ids that aren't whole numbers [batch, tokens], or padding on the other side.
        """
        if ids.dim() != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
            raise ConfigError(
                f"views.token_drop and token_mask must get token ids, whole numbers [batch, tokens], got {ids.dtype} {list(ids.shape)}. Point views.input at the ids."
            )
        if attention is not None and attention.shape != ids.shape:
            raise ConfigError(f"views.attention must name a mask of the ids' shape {list(ids.shape)}, got {list(attention.shape)}. Name another input.")
        plain = ids.detach().cpu().numpy()
        padding = np.isin(plain, [] if self.pad_id is None else [self.pad_id])
        attended = ~padding if attention is None else (attention.detach() != 0).cpu().numpy()
        free = attended & ~padding & ~np.isin(plain, list(self.keep_ids))
        drawn = self._drawn(free, state)
        dropped = free & (drawn < self.drop)
        masked = free & ~dropped & (drawn < self.drop + self.mask)
        if self.mask and self.mask_id is not None:
            ids = ids.masked_fill(torch.from_numpy(masked).to(ids.device), self.mask_id)
        return self._closed(ids, attention, along, attended, dropped) if self.drop else (ids, attention, list(along))

    def _drawn(self, free: np.ndarray, state: np.ndarray) -> np.ndarray:
        """In [0, 1) for each place; 1 for the token that must stay where every other is dropped."""
        rank = np.maximum(free.cumsum(1) - 1, 0)
        drawn = np.take_along_axis(fraction(words(state, 0, free.shape[1])), rank, 1)
        last = np.where(free, drawn, -1.0).argmax(1)
        gone = ~(free & (drawn >= self.drop)).any(1)
        drawn[np.flatnonzero(gone), last[gone]] = 1.0
        return drawn

    def _closed(self, ids: Tensor, attention: Tensor | None, along: Sequence[Tensor], attended: np.ndarray, dropped: np.ndarray) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        outward = attended if self.pad_side == "right" else attended[:, ::-1]
        if (outward[:, 1:] & ~outward[:, :-1]).any():
            raise ConfigError(f"views.token_drop must get samples padded on the {self.pad_side}, got others. Set views.pad_side, or give the attention mask with views.attention.")
        kept = attended & ~dropped
        count, places, right = kept.sum(1)[:, None], np.arange(ids.shape[1]), self.pad_side == "right"
        order = torch.from_numpy(np.argsort(~kept if right else kept, axis=1, kind="stable")).to(ids.device)
        padding = torch.from_numpy(places >= count if right else places < ids.shape[1] - count).to(ids.device)

        def closed(values: Tensor, fill: int) -> Tensor:
            index = order.view(*order.shape, *[1] * (values.dim() - 2)).expand(-1, -1, *values.shape[2:])
            return values.gather(1, index).masked_fill(padding.view(*padding.shape, *[1] * (values.dim() - 2)), fill)

        return closed(ids, self.pad_id or 0), None if attention is None else closed(attention, 0), [closed(values, 0) for values in along]
