"""A study: what is measured of a candidate beside its baseline, and the limits of a contract that it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.candidate import Artifact
from limbeck.core.contract import Target
from limbeck.core.errors import Interrupted
from limbeck.core.evidence import Latency, Verdict
from limbeck.core.metric import Rows
from limbeck.core.task import Task
from limbeck.intake.fingerprint import spread
from limbeck.runtimes.card import Feed

if TYPE_CHECKING:
    from torch import nn

Data = dict[str, Any]  # plain JSON, without NaN and infinities
BASELINE, CANDIDATE = "baseline", "candidate"
MISSING = "missing"  # the key under which a study, or a part of one, that wasn't made says why


@dataclass(frozen=True, kw_only=True)
class Side:
    """One model of a study: its artifact, what is known of it already, and where there is one the module that it was exported from.

    module: Makes that module afresh, in eval mode; None for a file that nobody here exported.
    rows: The metric's rows of the artifact over the setting's split; None without a task.
    latency: Of single inferences of the setting's feed; those of both sides were taken in turn. None where it wasn't timed here.
    """

    artifact: Artifact
    module: Callable[[], nn.Module] | None = None
    rows: Rows | None = None
    latency: Latency | None = None
    parameters: int | None = None
    macs: int | None = None
    kernels: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All that a study may use. `samples` and `seconds` bound its cost; `seconds` is for each artifact."""

    candidate: Side
    baseline: Side | None
    task: Task | None
    split: str
    target: Target
    feed: Feed
    confidence: float = 0.95
    samples: int = 1000
    seconds: float = 2.0
    stop: Callable[[], bool] = lambda: False
    progress: Callable[[float, float, str], None] = field(default=lambda done, total, note: None)

    @property
    def sides(self) -> dict[str, Side]:
        """Baseline first, where there is one."""
        return ({BASELINE: self.baseline} if self.baseline else {}) | {CANDIDATE: self.candidate}

    def ids(self, most: int | None = None) -> list[int]:
        """At most `samples` of the split, evenly spread by a fixed rule; of these at most so many, evenly spread again. None without a task."""
        found = spread(len(self.task.split(self.split)), self.samples) if self.task else []
        return found if most is None else [found[i] for i in spread(len(found), most)]

    def rows_at(self, side: Side, ids: Sequence[int]) -> Rows | None:
        """The rows of a side at these samples, as they were judged; None where a row isn't a sample, or there are none."""
        total = len(self.task.split(self.split)) if self.task else 0
        known = bool(side.rows) and all(len(column) == total for column in (side.rows or {}).values())
        return {name: column[np.asarray(ids)] for name, column in side.rows.items()} if known and side.rows else None

    def go_on(self) -> None:
        """Asked between two steps of a study. Raises Interrupted where it is to stop."""
        if self.stop():
            raise Interrupted("stopped in a study; it is made anew. Run the same command again to go on.")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A card: what it shows, when it can't be made, how it is taken, and what it says to a contract.

    name: A key of `summary.json`, and what a user asks for.
    summary: One line for people.
    version: Raised when the figures change their meaning: those that a run kept are then taken again.
    take: The figures. May raise any LimbeckError, which becomes the reason why there are none.
    why_not: Why it can't be made in this setting; empty where it can.
    here: Its figures are of this machine, and aren't taken where the target is another.
    limits: By name of a limit of the contract, what answers it: (figures, limit) → verdict.
    """

    name: str
    summary: str
    take: Callable[[Setting], Data]
    version: int = 1
    why_not: Callable[[Setting], str] = lambda setting: ""
    here: bool = False
    limits: Mapping[str, Callable[[Mapping[str, Any], float], Verdict]] = field(default_factory=dict)


def finite(value: float | None) -> float | None:
    """A number as JSON holds it: None for NaN, an infinity, and None."""
    return None if value is None or not math.isfinite(value) else float(value)


def needs_task(setting: Setting) -> str:
    """`why_not` of a study that asks for samples."""
    return "" if setting.task else "it needs the samples of a task: name it with --task"


def needs_baseline(setting: Setting) -> str:
    """`why_not` of a study that compares samples' answers."""
    return needs_task(setting) or ("" if setting.baseline else "it compares with a baseline, and there is none")
