"""How long is timed: until the limits on percentiles are settled, while what it takes is within reach. For the process that measures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limbeck.stats.percentiles import Claim, claim

PATIENCE = 5.0  # times the time that was asked for, at most, while the samples that a limit takes are within reach
MOST_BLOCKS = 1000  # rounds: more settle nothing that these don't, and fill disks
EARLIEST = 0.25  # of the time that was asked for, before it may end: the phases of a machine last longer than a hundred short inferences
AGAIN = 1.1  # times as many rounds as at the last look, before the next


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Limits on percentiles of one of the runs that take turns, in milliseconds by fraction (0.9 for the 90th).

    `early`: whether it may end once all are settled, from a quarter of the time on.
    """

    limits: Mapping[float, float]
    judged: int
    early: bool

    def claims(self, blocks: Sequence[Sequence[Sequence[float]]]) -> list[Claim]:
        """What is shown of each limit so far."""
        return [claim(blocks[self.judged], limit, percentile=q, anytime=True) for q, limit in self.limits.items()]


class Rounds:
    """Says before each round whether there is one more."""

    def __init__(self, *, seconds: float, runs: int, min_blocks: int, goal: Goal | None) -> None:
        self._budget_ns, self._min, self._goal = seconds * 1e9 * runs, min_blocks, goal
        self._look_at = min_blocks

    def more(self, blocks: Sequence[Sequence[Sequence[float]]], spent_ns: int) -> bool:
        """Whether another round is due, so many being done in this time."""
        done, over = len(blocks[0]), spent_ns >= self._budget_ns
        if done < self._min:
            return True
        if done >= MOST_BLOCKS or (over and (self._goal is None or spent_ns >= PATIENCE * self._budget_ns)):
            return False
        if self._goal is None or done < self._look_at or not (over or (self._goal.early and spent_ns >= EARLIEST * self._budget_ns)):
            return True
        self._look_at = max(done + 1, math.ceil(AGAIN * done))
        open_ = [c for c in self._goal.claims(blocks) if c.answer == "undecided"]
        return bool(open_) and (not over or self._within_reach(open_, done, spent_ns))

    def _within_reach(self, unsettled: Sequence[Claim], done: int, spent_ns: int) -> bool:
        """Whether what is left of the patience gives each of them the samples that it takes."""
        times = min(PATIENCE * self._budget_ns / spent_ns, MOST_BLOCKS / done)
        return all(c.needed is not None and c.needed <= times * c.samples for c in unsettled)
