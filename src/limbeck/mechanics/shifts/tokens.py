"""What befalls text that is token ids already: tokens left out, tokens in another order. Special ones and padding keep their places."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.mechanics.data import LABELS
from limbeck.mechanics.shifts.corruption import STRENGTHS, Place, entry, like, place_of, plain, replaced, touched
from limbeck.mechanics.shifts.text import LEVELS

MASK = "attention_mask"


@dataclass(frozen=True)
class TokenShift:
    """A kind on token ids, which changes beside the ids what has an entry for each of them. Called as any `Shift`."""

    kind: str
    pad_id: int | None
    keep_ids: tuple[int, ...]
    mask: Place
    input: Place
    assumes: str

    def __call__(self, sample: Any, strength: int, rng: np.random.Generator) -> Any:
        if strength not in (0, *STRENGTHS):
            raise ConfigError(f"shifts: a strength must be a whole number from 0 (nothing) to 5, got {strength!r}. Take one of 1 to 5.")
        at = place_of(sample, self.input)
        ids = plain(entry(sample, at))
        if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iu":
            got = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, np.ndarray) else type(ids).__name__
            raise ConfigError(f"token_shifts must get token ids, whole numbers [tokens], got {got}. Name the input; for text take text_shifts.")
        at_mask = self._at_mask(sample)
        attended = np.ones(len(ids), bool) if at_mask is None else plain(entry(sample, at_mask)) != 0
        attended &= ids != self.pad_id if self.pad_id is not None else True
        free = np.flatnonzero(attended & ~np.isin(ids, self.keep_ids))
        if not strength or len(free) < 2:
            return sample
        share = LEVELS[self.kind][strength - 1]
        order = _swapped(free, share, rng, len(ids)) if self.kind == "swaps" else _dropped(free, attended, share, rng, closed=self.pad_id is not None)
        return self._ordered(sample, order, at=at, at_mask=at_mask, ids=ids)

    def _at_mask(self, sample: Any) -> Place:
        if self.mask is not None:
            return place_of(sample, self.mask)
        return MASK if isinstance(sample, Mapping) and MASK in sample else None

    def _ordered(self, sample: Any, order: np.ndarray, *, at: Place, at_mask: Place, ids: np.ndarray) -> Any:
        """All that has an entry for each token, in the new order; −1 stands for a place that is padding now."""
        gone, taken = order < 0, np.where(order < 0, np.arange(len(order)), order)
        new = {at: like(entry(sample, at), np.where(gone, self.pad_id if self.pad_id is not None else 0, ids[taken]))}
        if at_mask is not None:
            new[at_mask] = like(entry(sample, at_mask), np.where(gone, 0, plain(entry(sample, at_mask))[taken]))
        if isinstance(sample, Mapping):
            others = {key: value for key, value in sample.items() if key not in (at, at_mask, *LABELS) and not isinstance(value, (str, int, float))}
            along = {key: plain(value) for key, value in others.items()}
            new |= {key: like(sample[key], value[taken]) for key, value in along.items() if isinstance(value, np.ndarray) and value.shape == ids.shape}
        return replaced(sample, new)


def token_shifts(*, pad_id: int | None = None, keep_ids: Collection[int] = (), mask: Place = None, input: Place = None) -> dict[str, TokenShift]:
    """Two kinds for text that is token ids, by name: drops and swaps. A sample keeps its length.

    What is dropped is closed up, and padding stands at the end (at the front, where the sample is padded there); without a `pad_id`
    the last token that may be touched is repeated instead. Swaps exchange a token and the next one. A strength touches 5, 10, 15,
    20, 30 % of the tokens for drops, 5, 10, 20, 30, 40 % for swaps, at least one.

    Args:
        pad_id: The token that pads; never touched.
        keep_ids: Special tokens, which keep their places, as the tokenizer's all_special_ids.
        mask: Where in a sample the attention mask stands (1: a token that counts); None: a dict's `attention_mask`, if there is one.
        input: Where the ids stand: a key or a position; None: a dict's `input_ids` or only entry, the first of a tuple.
    """
    kept = tuple(sorted(int(i) for i in keep_ids))
    assumes = f"token ids, padding {'unknown' if pad_id is None else pad_id}, kept in place: {', '.join(map(str, kept)) or 'none'}"
    return {kind: TokenShift(kind, pad_id, kept, mask, input, assumes) for kind in ("drops", "swaps")}


def _swapped(free: np.ndarray, share: float, rng: np.random.Generator, length: int) -> np.ndarray:
    order = np.arange(length)
    for i in rng.permutation(len(free) - 1)[: touched(len(free) - 1, share)].tolist():
        one, other = free[i], free[i + 1]
        order[one], order[other] = order[other], order[one]
    return order


def _dropped(free: np.ndarray, attended: np.ndarray, share: float, rng: np.random.Generator, *, closed: bool) -> np.ndarray:
    """From where each place takes its token; −1: from nowhere."""
    gone = rng.permutation(free)[: min(touched(len(free), share), len(free) - 1)]
    order = np.arange(len(attended))
    if not closed:
        kept = np.setdiff1d(free, gone)
        order[free] = np.concatenate([kept, np.full(len(gone), kept[-1])])
        return order
    places = np.flatnonzero(attended)
    kept, nothing = np.setdiff1d(places, gone), np.full(len(gone), -1)
    order[places] = np.concatenate([kept, nothing] if attended[0] else [nothing, kept])
    return order
