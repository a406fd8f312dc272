"""A model continues token sequences: any module that gives the logits of each next token, drawn from words that are given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Answer = Callable[[Tensor, Tensor], Tensor]  # (ids [batch, time], lengths [batch]) → logits [batch, time, vocabulary]
STREAM = 0x6F70  # keeps these draws apart from those of the order of samples


def uniforms(seed: int, step: int, ids: np.ndarray, count: int) -> Float[Tensor, "batch count"]:
    """Numbers in [0, 1) that follow from (seed, step, a sample's id) alone: not from who shares its batch."""
    return torch.from_numpy(np.stack([np.random.default_rng([STREAM, seed, step, int(i) + 1]).random(count) for i in ids]))


def chosen(seed: int, step: int, share: float) -> bool:
    """Whether this step is one of the `share` of all."""
    return bool(np.random.default_rng([STREAM, seed, step]).random() < share)  # numpy reads a missing word as 0: samples count from 1


def sampled(logits: Float[Tensor, "batch vocabulary"], uniform: Float[Tensor, " batch"], *, temperature: float) -> Int[Tensor, " batch"]:
    """One token a row from softmax(logits / temperature), by the inverse of its distribution function; at temperature 0 the likeliest."""
    if temperature == 0:
        return logits.argmax(-1)
    below = (logits.double() / temperature).softmax(-1).cumsum(-1)
    return (below <= uniform.to(below)[:, None] * below[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def continued(
    answer: Answer, ids: Int[Tensor, "batch time"], lengths: Int[Tensor, " batch"], *, room: Int[Tensor, " batch"], uniform: Tensor, temperature: float, end: int | None
) -> tuple[Int[Tensor, "batch width"], Int[Tensor, " batch"]]:
    """The sequences' first `lengths` tokens, and up to `room` new ones each; and the lengths that came of it.

    Args:
        room: New tokens at most, of each; one may have none.
        uniform: [batch, the most new tokens], numbers in [0, 1) that decide the draws.
        end: The token after which a sequence is finished; it is kept.
    Returns: What stands beyond a sequence's length is `end`, or 0.
    """
    rows, width = torch.arange(len(ids), device=ids.device), int((lengths + room).max())
    out = ids.new_full((len(ids), width), 0 if end is None else end)
    shared = min(width, ids.shape[1])
    real = torch.arange(shared, device=ids.device) < lengths[:, None]
    out[:, :shared] = torch.where(real, ids[:, :shared], out[:, :shared])
    now, open_ = lengths.clone(), room > 0
    for step in range(int(room.max())):
        upto = int(now[open_].max())
        logits = answer(out[:, :upto], now.clamp(max=upto))
        token = sampled(logits[rows, (now - 1).clamp(max=upto - 1)], uniform[:, step], temperature=temperature).to(out.dtype)
        out[rows[open_], now[open_]] = token[open_]
        now = now + open_
        open_ = open_ & (step + 1 < room) & (token != end if end is not None else True)
        if not open_.any():
            break
    return out[:, : int(now.max())], now
