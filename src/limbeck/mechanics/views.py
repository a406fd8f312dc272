"""Augmentation that can be replayed: what happens to a sample follows from (seed, sample id, view id) and from nothing else.

So teacher and student see the same picture, and a teacher's answers can be cached by (sample id, view id). The draws come
from a counter hash (splitmix64's finalizer: Steele et al. 2014, doi:10.1145/2660193.2660195) in integers; crop, flip and shift
move pixels unchanged, so the bytes are the same on any machine, in any order and any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Hint, Range, to_dict, validate
from limbeck.core.task import Task
from limbeck.mechanics.data import arguments

RECIPE_VERSION = 1  # grows whenever the same fields would give other pixels: it is part of every cache's key
WORD = np.uint64
STEP = WORD(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio, odd: consecutive counters land far apart
GEOMETRY_WORDS = 5  # draws before the noise: crop's row and column, shift's row and column, flip


@dataclass(frozen=True, kw_only=True)
class Views:
    """A recipe of augmentation. Crop, then shift, then flip, then noise; what is left at its default does nothing.

    No view is the sample itself: every view id is one draw, the same in each epoch in which it comes up.
    """

    crop: Annotated[int, Range(0, None), "pixels by which the image is extended on each side, mirrored at its edge; a window of its own size is cut out at random"] = 0
    flip: Annotated[bool, "mirror left and right, in half of the views"] = False
    shift: Annotated[int, Range(0, None), "pixels by which the image is moved at most, along each axis; zeros fill the gap"] = 0
    noise: Annotated[float, Range(0, None), "standard deviation of the noise that is added, in the input's own unit"] = 0.0
    versions: Annotated[int, Range(1, None), Hint("A view is chosen by epoch mod versions."), "how many different views of a sample there are"] = 8
    seed: Annotated[int, Range(0, 2**63 - 1), "chooses all draws"] = 0
    input: Annotated[int | str, Range(0, None), "which of the model's inputs is augmented: its position (positional ones first), or its keyword"] = 0

    def __post_init__(self) -> None:
        validate(self, where="views")

    def recipe(self) -> dict[str, Any]:
        """All that decides the pixels, as plain data: for cache keys."""
        return {"version": RECIPE_VERSION, **to_dict(self)}

    def apply(self, samples: Tensor, ids: np.ndarray, view: np.ndarray | int) -> Tensor:
        """These views of these samples, in their own dtype and on their own device.

        Args:
            samples: [batch, channels, height, width]; with noise alone, any shape with the batch first.
            ids: One sample id for each row; the id, not the place in the batch, decides.
            view: View id, one for all or one for each; taken mod `versions`.
        Raises: ConfigError if the shape or the dtype can't take what the recipe asks for.
        """
        self._check(samples, ids)
        state = _state(self.seed, ids, np.asarray(view) % self.versions)
        if self.crop or self.shift or self.flip:
            samples = self._moved(samples, _words(state, 0, GEOMETRY_WORDS))
        if self.noise:
            normal = _normal(_words(state, GEOMETRY_WORDS, samples[0].numel())).reshape(samples.shape)
            samples = samples + (torch.from_numpy(normal) * self.noise).to(samples.device, samples.dtype)
        return samples

    def apply_to(self, task: Task, batch: Any, ids: np.ndarray, view: np.ndarray | int) -> tuple[tuple, dict[str, Any]]:
        """The model's arguments for this batch, with the chosen input under these views. Raises ConfigError if there is no such input."""
        args, kwargs = arguments(task, batch)
        places: list[int | str] = [*range(len(args)), *kwargs]
        if isinstance(self.input, str):
            found = self.input if self.input in kwargs else None
        else:
            found = places[self.input] if self.input < len(places) else None
        if found is None:
            raise ConfigError(f"views.input must be one of the model's inputs {places}, got {self.input!r}. Give a position or a keyword.")
        value = kwargs[found] if isinstance(found, str) else args[found]
        if not isinstance(value, Tensor):
            raise ConfigError(f"views.input must be a tensor; input {found!r} is {type(value).__name__}. Choose another, or change Task.inputs.")
        seen = self.apply(value, ids, view)
        if isinstance(found, str):
            return args, {**kwargs, found: seen}
        return (*args[:found], seen, *args[found + 1 :]), kwargs

    def _check(self, samples: Tensor, ids: np.ndarray) -> None:
        shape = list(samples.shape)
        if len(ids) != len(samples):
            raise ConfigError(f"views.apply must get one id for each sample, got {len(ids)} ids for {len(samples)} samples. Pass the ids of this batch.")
        if (self.crop or self.shift or self.flip) and samples.dim() != 4:
            raise ConfigError(f"views.crop, shift and flip must get images [batch, channels, height, width], got {shape}. Point views.input at the images, or use noise alone.")
        for name, pixels in (("crop", self.crop), ("shift", self.shift)):
            if pixels and pixels >= min(shape[2:]):
                raise ConfigError(
                    f"views.{name} must be smaller than the image's sides {shape[2:]}, got {pixels}. A mirror can't reach further, and nothing would be left. Take fewer pixels."
                )
        if self.noise and not samples.is_floating_point():
            raise ConfigError(f"views.noise must get floating-point numbers, got {samples.dtype}. Point views.input at floats, or set noise to 0.")

    def _moved(self, samples: Tensor, words: np.ndarray) -> Tensor:
        height, width = samples.shape[2:]
        rows = self._sources(height, words[:, 0], words[:, 2])
        columns = self._sources(width, words[:, 1], words[:, 3])
        if self.flip:
            mirrored = (words[:, 4] >> WORD(63)).astype(bool)
            columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
        gap = (rows < 0)[:, :, None] | (columns < 0)[:, None, :]
        places = torch.from_numpy(np.maximum(rows, 0)[:, :, None] * width + np.maximum(columns, 0)[:, None, :]).to(samples.device)
        moved = samples.flatten(2).gather(2, places.flatten(1)[:, None].expand(-1, samples.shape[1], -1)).view(samples.shape)
        return moved.masked_fill_(torch.from_numpy(gap)[:, None].to(samples.device), 0) if gap.any() else moved

    def _sources(self, size: int, crop: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Along one axis: for each sample and each new place, the old place, or −1 where a zero goes."""
        shifted = np.arange(size) + (_below(shift, 2 * self.shift + 1) - self.shift)[:, None]
        moved = shifted + (_below(crop, 2 * self.crop + 1) - self.crop)[:, None]
        mirrored = (size - 1) - np.abs((size - 1) - np.abs(moved))
        return np.where((shifted >= 0) & (shifted < size), mirrored, -1)


def _mix(word: np.ndarray) -> np.ndarray:
    word = (word ^ (word >> WORD(30))) * WORD(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> WORD(27))) * WORD(0x94D049BB133111EB)
    return word ^ (word >> WORD(31))


def _state(seed: int, ids: np.ndarray, view: np.ndarray) -> np.ndarray:
    """One word for each sample, absorbed in turn from seed, id and view."""
    state = np.full(len(ids), seed, WORD)
    for part in (np.asarray(ids), np.broadcast_to(view, (len(ids),))):
        state = _mix(state + STEP) ^ _mix((part.astype(np.int64).astype(WORD) + WORD(1)) * STEP)
    return state


def _words(state: np.ndarray, start: int, count: int) -> np.ndarray:
    """Draws number `start` to `start + count` of each sample: [batch, count]."""
    return _mix(_mix(state)[:, None] + np.arange(start + 1, start + count + 1, dtype=WORD) * STEP)


def _below(word: np.ndarray, limit: int) -> np.ndarray:
    """Whole numbers in [0, limit), from the upper half of each word; the bias is below limit / 2³²."""
    return ((word >> WORD(32)) * WORD(limit) >> WORD(32)).astype(np.int64)


def _normal(word: np.ndarray) -> np.ndarray:
    """Close to standard normal, without a function that differs between machines: a word's eight bytes, summed.

    Mean 0, variance 1, excess kurtosis −0.15, never beyond 4.9.
    """
    low = WORD(0x00FF00FF00FF00FF)
    pairs = (word & low) + ((word >> WORD(8)) & low)  # four sums of two bytes, 16 bits each
    total = (pairs * WORD(0x0001000100010001)) >> WORD(48)  # the top 16 bits hold the sum of all four
    return (total.astype(np.float32) - np.float32(8 * 127.5)) * np.float32((8 * (256**2 - 1) / 12) ** -0.5)
