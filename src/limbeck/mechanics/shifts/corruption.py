"""One kind of corruption, the draws that belong to a sample, and where in a sample the input stands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import ConfigError
from limbeck.core.foreign import users_code
from limbeck.mechanics.data import LABELS
from limbeck.mechanics.views.draws import state_of

STRENGTHS = (1, 2, 3, 4, 5)
Shift = Callable[[Any, int, np.random.Generator], Any]  # sample, strength from 1 to 5, draws of its own → sample
Place = str | int | None


@dataclass(frozen=True)
class Corruption:
    """A kind that limbeck brings: it changes one input of a sample, and keeps its type, dtype and shape. Strength 0 changes nothing.

    change: the input's array (or text) at a strength in 1 to 5.
    assumes: what it takes the input to be, for people.
    input: where in the sample that stands: a key, a position; None where that is plain.
    needs: the distribution that must be installed for it.
    """

    change: Shift
    assumes: str
    input: Place = None
    needs: str | None = None

    def __call__(self, sample: Any, strength: int, rng: np.random.Generator) -> Any:
        if strength not in (0, *STRENGTHS):
            raise ConfigError(f"shifts: a strength must be a whole number from 0 (nothing) to 5, got {strength!r}. Take one of 1 to 5.")
        if not strength:
            return sample
        at = place_of(sample, self.input)
        value = entry(sample, at)
        return replaced(sample, {at: like(value, self.change(plain(value), strength, rng))})


def corrupted(name: str, kind: Shift, sample: Any, *, number: int, strength: int) -> Any:
    """A sample under a kind: `number` is its place in the split, from which and the kind's name and strength its draws follow.

    Raises: TaskError with their own line for what a user's function raises.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
    key = int(state_of(seed, np.array([number]), np.array([strength]))[0])
    with users_code(f"Task.shifts['{name}']"):
        return kind(sample, strength, np.random.Generator(np.random.Philox(key=key)))


def place_of(sample: Any, input: Place) -> Place:
    """Where the input stands: as it was named; else a sample that is the input itself (None), the first of a tuple, the only entry of a dict.

    Raises: ConfigError if there is no such entry, or several that it may be.
    """
    if isinstance(sample, Mapping):
        inputs = [key for key, value in sample.items() if key not in LABELS and isinstance(value, (Tensor, np.ndarray, str))]
        if input is not None and input in sample:
            return input
        if input is None and "input_ids" in inputs:
            return "input_ids"
        if input is None and len(inputs) == 1:
            return inputs[0]
        raise ConfigError(f"shifts.input must be one of the sample's entries {inputs}, got {input!r}. Name the one that is corrupted.")
    if isinstance(sample, (tuple, list)):
        at = 0 if input is None else input
        if isinstance(at, int) and 0 <= at < len(sample):
            return at
        raise ConfigError(f"shifts.input must be a position below {len(sample)}, the entries of a sample, got {input!r}. Name the one that is corrupted.")
    if input is not None:
        raise ConfigError(f"shifts.input must be left out where a sample is the input itself, got {input!r} for a {type(sample).__name__}.")
    return None


def entry(sample: Any, at: Place) -> Any:
    return sample if at is None else sample[at]


def replaced(sample: Any, new: Mapping[Any, Any]) -> Any:
    """The sample with these entries put in their places; a copy."""
    if None in new:
        return new[None]
    if isinstance(sample, Mapping):
        return {**sample, **new}
    return tuple(new.get(i, value) for i, value in enumerate(sample))


def plain(value: Any) -> Any:
    """Tensors as arrays, text as it is. Raises ConfigError for what is neither numbers nor text."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, (np.ndarray, str)):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) for v in value):
        return np.asarray(value)
    raise ConfigError(f"shifts: the input must be a tensor, an array, a list of numbers or text, got {type(value).__name__}. Name another entry as `input`, or write a function.")


def like(value: Any, changed: Any) -> Any:
    """What was changed, as the type and dtype that it had."""
    if isinstance(value, Tensor):
        return torch.from_numpy(np.ascontiguousarray(changed)).to(value.device, value.dtype)
    if isinstance(value, np.ndarray):
        return np.asarray(changed).astype(value.dtype)
    return type(value)(np.asarray(changed).tolist()) if isinstance(value, (list, tuple)) else changed


def in_dtype(changed: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers rounded to the nearest that the dtype holds."""
    if dtype.kind not in "iu":
        return changed.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(changed), limits.min, limits.max).astype(dtype)


def touched(count: int, share: float) -> int:
    """How many of `count` words or tokens a strength touches: their share, at least one."""
    return min(count, max(1, int(np.ceil(count * share))))
