"""In which order a training sees its samples: all of them, the easy ones first, or so many with labels in each batch.

An order is a pure function of (seed, epoch), so that a run that is stopped and started again sees what one that wasn't sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Range


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Which samples a training sees when. As it is, all of them in each epoch."""

    by: Annotated[
        Literal["none", "confidence", "difficulty"],
        "what makes a sample easy: how sure the teacher is of its own answer, or how small the teacher's loss on the label is",
    ] = "none"
    first: Annotated[float, Range(0, 1, closed="right"), "share of the samples, the easiest, that the first epoch draws from"] = 0.3
    full: Annotated[float, Range(0, 1, closed="right"), "share of the training after which all samples are seen; until then ever more are, linearly"] = 0.5
    labelled_share: Annotated[float | None, Range(0, 1, closed="neither"), "share of each batch that has labels, where some samples are labelled −100; none: as they come"] = None


@dataclass(frozen=True)
class Order:
    """The order of each epoch.

    count: samples in the split. epochs: of the whole training.
    ranking: their numbers, the easiest first; None: all are seen from the start.
    labelled: one bool a sample; with a share, each batch holds as many labelled ones as the share says, at least one, in turns that
        begin anew when all have been seen.
    """

    seed: int
    count: int
    size: int  # of a batch
    epochs: int
    curriculum: Curriculum = Curriculum()
    ranking: np.ndarray | None = None
    labelled: np.ndarray | None = None

    def __post_init__(self) -> None:
        share = self.curriculum.labelled_share
        if share is not None and self.labelled is not None and not (0 < self.labelled.sum() < self.count):
            found = "all" if self.labelled.all() else "none"
            raise ConfigError(f"curriculum.labelled_share is for a split in which some samples have labels; here {found} of {self.count} have. Leave it out.")

    def epoch(self, epoch: int) -> np.ndarray:
        """The ids in the order in which this epoch sees them, `count` in all (of the easy ones several times, while few are seen)."""
        rng = np.random.default_rng([self.seed, epoch])
        seen = np.arange(self.count) if self.ranking is None else np.sort(self.ranking[: self.open(epoch)])
        if self.curriculum.labelled_share is None or self.labelled is None:
            return rng.permutation(self.count) if len(seen) == self.count else _drawn(rng, seen, self.count)
        return self._interleaved(rng, seen)

    def open(self, epoch: int) -> int:
        """How many of the easiest samples this epoch draws from (Hacohen & Weinshall 2019, arXiv:1904.03626, §2; here linear pacing)."""
        done = min(epoch / max(self.curriculum.full * self.epochs, 1), 1.0)
        share = self.curriculum.first + (1 - self.curriculum.first) * done
        return min(max(round(share * self.count), min(self.size, self.count)), self.count)

    def _interleaved(self, rng: np.random.Generator, seen: np.ndarray) -> np.ndarray:
        if self.labelled is None or self.curriculum.labelled_share is None:
            return seen
        told = min(max(round(self.curriculum.labelled_share * self.size), 1), self.size - 1)
        batches = self.count // self.size
        with_labels, without = (seen[self.labelled[seen] == wanted] for wanted in (True, False))
        with_labels = with_labels if len(with_labels) else np.flatnonzero(self.labelled)
        without = without if len(without) else np.flatnonzero(~self.labelled)
        first = _drawn(rng, with_labels, batches * told).reshape(batches, told)
        second = _drawn(rng, without, batches * (self.size - told)).reshape(batches, self.size - told)
        return np.concatenate([first, second], 1).ravel()


def _drawn(rng: np.random.Generator, ids: np.ndarray, count: int) -> np.ndarray:
    """`count` of these ids: shuffled, and shuffled again whenever all have been seen."""
    rounds = -(-count // len(ids))
    return np.concatenate([rng.permutation(ids) for _ in range(rounds)])[:count]
