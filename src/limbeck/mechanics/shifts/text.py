"""What befalls text before it is tokenized: typos, words left out, words in another order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.mechanics.shifts.corruption import Corruption, Place, touched

LEVELS = {
    "typos": (0.05, 0.1, 0.2, 0.3, 0.4),  # share of the words
    "drops": (0.05, 0.1, 0.15, 0.2, 0.3),
    "swaps": (0.05, 0.1, 0.2, 0.3, 0.4),  # share of the words that change places with the next
}
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # of a keyboard: what lies beside a key is what is hit instead


def text_shifts(*, input: Place = None) -> dict[str, Corruption]:
    """Three kinds for text as strings, which the task tokenizes later, by name: typos, drops, swaps.

    A typo is one of four in a word: two letters exchanged, one left out, one twice, a neighbour on the keyboard (QWERTY). Words are
    what spaces part. A strength touches a share of them, at least one: 5, 10, 20, 30, 40 % (drops: 5, 10, 15, 20, 30 %); one word
    always stays. The strengths are limbeck's own, within the range that Wei & Zou 2019 (arXiv:1901.11196) try.

    Args:
        input: Where in a sample the text stands: a key or a position; None: the first of a tuple, the only one of a dict.
    """
    return {name: Corruption(partial(_changed, name, change), "text, words parted by spaces", input) for name, change in CHANGES.items()}


def _changed(name: str, change: Callable[..., list[str]], text: Any, strength: int, rng: np.random.Generator) -> str:
    if not isinstance(text, str):
        raise ConfigError(f"text_shifts must get text, got {type(text).__name__}. For token ids take token_shifts.")
    return " ".join(change(text.split(" "), LEVELS[name][strength - 1], rng))


def _typos(words: list[str], share: float, rng: np.random.Generator) -> list[str]:
    able = [i for i, word in enumerate(words) if len(word) > 1]
    chosen = set(rng.permutation(able)[: touched(len(able), share)].tolist()) if able else set()
    return [_mistyped(word, rng) if i in chosen else word for i, word in enumerate(words)]


def _mistyped(word: str, rng: np.random.Generator) -> str:
    kind, at = int(rng.integers(4)), int(rng.integers(len(word) - 1))
    if kind == 0 and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    beside = _beside(word[at])
    return word[:at] + beside[int(rng.integers(len(beside)))] + word[at + 1 :] if kind == 2 and beside else word[: at + 1] + word[at:]


def _beside(letter: str) -> str:
    """The keys left and right of a letter, in its case."""
    row = next((row for row in ROWS if letter.lower() in row), "")
    at = row.find(letter.lower())
    found = row[max(0, at - 1) : at] + row[at + 1 : at + 2] if row else ""
    return found.upper() if letter.isupper() else found


def _drops(words: list[str], share: float, rng: np.random.Generator) -> list[str]:
    gone = set(rng.permutation(len(words))[: min(touched(len(words), share), len(words) - 1)].tolist())
    return [word for i, word in enumerate(words) if i not in gone]


def _swaps(words: list[str], share: float, rng: np.random.Generator) -> list[str]:
    found = list(words)
    for i in rng.permutation(len(words) - 1)[: touched(len(words) - 1, share)].tolist() if len(words) > 1 else ():
        found[i], found[i + 1] = found[i + 1], found[i]
    return found


CHANGES = {"typos": _typos, "drops": _drops, "swaps": _swaps}
