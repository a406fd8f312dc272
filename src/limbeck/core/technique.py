"""What a technique is: a frozen config, a function, a card. The decorator attaches the card and does nothing else."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from limbeck.core.candidate import Candidate
from limbeck.core.facts import Data, Fact
from limbeck.core.metric import Rows
from limbeck.core.task import Task

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """A new candidate, and what the technique claims of it (plain data; `parameters` and `macs` are checked)."""

    candidate: Candidate
    claims: Mapping[str, Any] = field(default_factory=dict)


class Signals(Protocol):
    """Where teachers' outputs come from; a term can't tell a live teacher from a cache."""

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Outputs by name for these samples under this view, without gradient. The arguments are already viewed."""
        ...

    def tapped(self, paths: tuple[str, ...]) -> Signals:
        """A source that also gives the outputs of these modules of the teacher, as "tap:<path>"."""
        ...

    def layers(self) -> Sequence[Any]:
        """Every place of the teacher that can be tapped, with shape and depth, for "auto"."""
        ...


@dataclass(frozen=True)
class Reads:
    """What an objective reads of the teacher's answers.

    outputs: the labels of the terms that read whole outputs. softened: for each other, the temperature of the softmax that is all it reads.
    taps: the teacher's module paths.
    live: whether it is asked about other samples than the training split's, which no cache can know.
    """

    outputs: tuple[str, ...] = ()
    softened: Mapping[str, float] = field(default_factory=dict)
    taps: tuple[str, ...] = ()
    live: bool = False


class Selective(ABC):
    """Signals that don't give everything, or not from the same place: asked once, when an objective is bound."""

    @abstractmethod
    def serving(self, reads: Reads) -> Signals:
        """A source of what is read. Raises ConfigError with the term, the reason and the way out, if there is none."""


class Rng(Protocol):
    """The only randomness that a technique draws, derived from the run's seed and the stage."""

    @property
    def seed(self) -> int: ...
    @property
    def numpy(self) -> np.random.Generator: ...
    @property
    def torch(self) -> torch.Generator: ...


class Checkpoint(Protocol):
    """Where long work leaves its state: tensors and plain data, replaced in one move."""

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None: ...
    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None: ...
    def stop_requested(self) -> bool:
        """Whether Ctrl-C or SIGTERM arrived: save, then raise Interrupted."""
        ...


class Log(Protocol):
    def event(self, event: str, **data: Any) -> None:
        """A structured line, shown at level info."""
        ...

    def progress(self, done: float, total: float, note: str) -> None:
        """How far the present work has come; drawn, not kept. A total of 0: it is under way, and nobody knows how far."""
        ...


@dataclass(frozen=True)
class Budget:
    """What a technique may spend. `train = False` asks for the structure alone: shapes final, weights untrained."""

    train: bool = True


class Context(Protocol):
    """All that reaches upward from a technique: nothing else does."""

    @property
    def task(self) -> Task:
        """The task itself: its data is read through `limbeck.mechanics.data`."""
        ...

    @property
    def signals(self) -> Signals:
        """The task's teacher's answers."""
        ...

    def answers(self, candidate: Candidate, *, apart: bool = False) -> Signals:
        """Another model's answers, kept as the teacher's are; `apart`: those of an ensemble's members, each for itself."""
        ...

    @property
    def rng(self) -> Rng: ...
    @property
    def checkpoint(self) -> Checkpoint: ...
    @property
    def budget(self) -> Budget: ...
    @property
    def log(self) -> Log: ...
    @property
    def round_to(self) -> int:
        """The multiple that the target likes channel counts to be of."""
        ...

    @property
    def scratch(self) -> Path:
        """A folder for this stage's own files; gone when the stage is done."""
        ...

    def score(self, candidate: Candidate) -> float:
        """The metric on validation, in torch."""
        ...

    def rows(self, candidate: Candidate | None = None) -> Rows:
        """What `score` is reduced from: the metric's rows on validation, in torch; without a candidate, the teacher's."""
        ...

    def time(self, candidate: Candidate) -> float:
        """Median latency in ms of the exported candidate on the target."""
        ...


Function = Callable[[Candidate, Any, Context], Outcome]


@dataclass(frozen=True)
class Card:
    """What a technique declares: facts from which order follows, what it reads, where it comes from."""

    name: str
    family: str
    summary: str
    config: type
    function: Function
    version: int
    needs: frozenset[Fact]
    gives: frozenset[Fact]
    breaks: frozenset[Fact]
    data: Data
    paper: str
    recovers: bool  # whether weights can be recovered by training after it
    pays: bool  # whether its stage must pay in bytes or latency against its own input
    gentler: Callable[[Any], Any] | None  # a milder config for on_fail = "refine", or None at the end
    zero: Callable[[], Any] | None  # the config of zero strength, under which it is the identity
    example: Callable[[], Any]  # a small config with which the contract checks run it
    exempt: Mapping[str, str]  # contract check → the reason why it doesn't apply
    checked_on: Literal["images", "tokens"]  # what the contract checks' small task is made of


def technique(
    *,
    version: int,
    needs: Iterable[Fact],
    gives: Iterable[Fact] = (),
    breaks: Iterable[Fact] = (),
    data: Data = Data.NONE,
    paper: str,
    recovers: bool = False,
    pays: bool = False,
    gentler: Callable[[Any], Any] | None = None,
    zero: Callable[[], Any] | None = None,
    example: Callable[[], Any] | None = None,
    exempt: Mapping[str, str] | None = None,
    checked_on: Literal["images", "tokens"] = "images",
) -> Callable[[Function], Function]:
    """Attach a `Card` to a technique's function as `function.card`. The config is the type of its second parameter."""

    def attach(function: Function) -> Function:
        parameters = [k for k in typing.get_type_hints(function) if k != "return"]
        config = typing.get_type_hints(function)[parameters[1]]
        module = function.__module__.split(".")
        card = Card(
            name=function.__name__,
            family=module[-2] if len(module) > 1 else function.__name__,
            summary=(function.__doc__ or "").strip().split("\n")[0],
            config=config,
            function=function,
            version=version,
            needs=frozenset(needs),
            gives=frozenset(gives),
            breaks=frozenset(breaks),
            data=data,
            paper=paper,
            recovers=recovers,
            pays=pays,
            gentler=gentler,
            zero=zero,
            example=example or config,
            exempt=dict(exempt or {}),
            checked_on=checked_on,
        )
        function.card = card
        return function

    return attach


def card_of(function: Function) -> Card:
    """The card that `technique` attached."""
    return function.card  # type: ignore[attr-defined]
