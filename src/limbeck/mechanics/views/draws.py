"""Draws from a counter hash: the same on any machine, in any order and any batch.

splitmix64's finalizer (Steele et al. 2014, doi:10.1145/2660193.2660195) in whole numbers; what becomes a fraction is divided by a
power of two, which is exact.
"""

from __future__ import annotations

from typing import Final

import numpy as np

WORD = np.uint64
STEP = WORD(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio, odd: consecutive counters land far apart
BRANCH = 0xD1B54A32D192ED03
ERASE, COLOUR, MIX, TIME, TOKENS = range(1, 6)  # streams: what is added to a recipe changes no other draw
CHUNK = 1 << 15  # words that are hashed at once: they stay in the processor's cache

SUM_OF_BYTES: Final = np.float32(8 * 127.5)
SCALE_OF_BYTES: Final = np.float32((8 * (256**2 - 1) / 12) ** -0.5)


def state_of(seed: int, ids: np.ndarray, view: np.ndarray) -> np.ndarray:
    """One word for each sample, absorbed in turn from seed, id and view."""
    state = np.full(len(ids), seed, WORD)
    for part in (np.asarray(ids), np.broadcast_to(view, (len(ids),))):
        state = _mix(state + STEP) ^ _mix((part.astype(np.int64).astype(WORD) + WORD(1)) * STEP)
    return state


def stream(state: np.ndarray, number: int) -> np.ndarray:
    """Another state for each sample, for draws of one kind."""
    return _mix(state ^ WORD(number * BRANCH % 2**64))


def words(state: np.ndarray, start: int, count: int) -> np.ndarray:
    """Draws number `start` to `start + count` of each sample: [batch, count]."""
    return _mix(_mix(state)[:, None] + np.arange(start + 1, start + count + 1, dtype=WORD) * STEP)


def below(word: np.ndarray, limit: int | np.ndarray) -> np.ndarray:
    """Whole numbers in [0, limit), from the upper half of each word; the bias is below limit / 2³²."""
    return ((word >> WORD(32)) * np.asarray(limit).astype(WORD) >> WORD(32)).astype(np.int64)


def fraction(word: np.ndarray) -> np.ndarray:
    """Evenly in [0, 1), as float64: multiples of 2⁻⁵³."""
    return (word >> WORD(11)).astype(np.float64) * 2.0**-53


def normal(state: np.ndarray, start: int, count: int) -> np.ndarray:
    """Close to standard normal, [batch, count], float32, without a function that differs between machines: a word's eight bytes, summed.

    Mean 0, variance 1, excess kurtosis −0.15, never beyond 4.9.
    """
    low, fold = WORD(0x00FF00FF00FF00FF), WORD(0x0001000100010001)
    found, first = np.empty((len(state), count), np.float32), _mix(state)[:, None]
    for at in range(0, count, CHUNK):
        steps = np.arange(start + at + 1, start + min(at + CHUNK, count) + 1, dtype=WORD) * STEP
        rows = max(1, CHUNK // len(steps))
        for top in range(0, len(state), rows):
            word = _mix_(first[top : top + rows] + steps)
            pairs = (word >> WORD(8)) & low
            word &= low
            word += pairs  # four sums of two bytes, 16 bits each
            word *= fold
            word >>= WORD(48)  # the top 16 bits hold the sum of all four
            found[top : top + rows, at : at + len(steps)] = word
    found -= SUM_OF_BYTES
    found *= SCALE_OF_BYTES
    return found


def _mix(word: np.ndarray) -> np.ndarray:
    return _mix_(word.copy())


def _mix_(word: np.ndarray) -> np.ndarray:
    """The finalizer, in place."""
    word ^= word >> WORD(30)
    word *= WORD(0xBF58476D1CE4E5B9)
    word ^= word >> WORD(27)
    word *= WORD(0x94D049BB133111EB)
    word ^= word >> WORD(31)
    return word
