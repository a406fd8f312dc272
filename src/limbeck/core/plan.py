"""Stages in an order that facts allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from limbeck.core.contract import FRACTION, PERCENT, TOO_GOOD
from limbeck.core.errors import Refusal
from limbeck.core.facts import Fact
from limbeck.core.fields import Range
from limbeck.core.technique import Card


@dataclass(frozen=True, kw_only=True)
class Training:
    """One schedule of training: for a student, for recovery, for the control. One dial (epochs) sets the rest."""

    epochs: Annotated[int, Range(0, None), "passes over the training split"] = 10
    batch_size: Annotated[int, Range(1, None), "samples in one step"] = 64
    learning_rate: Annotated[float, Range(0, None, closed="neither"), "peak of the schedule"] = 2e-3
    weight_decay: Annotated[float, Range(0, None), "decoupled decay of matrices and kernels"] = 1e-2
    optimizer: Annotated[Literal["adamw", "sgd"], "sgd has Nesterov momentum 0.9"] = "adamw"
    warmup: Annotated[float, Range(0, 1), "fraction of steps in which the rate rises; then it falls as a cosine"] = 0.1
    clip_norm: Annotated[float, Range(0, None), "largest gradient norm over all that trains; 0 is off"] = 5.0
    keep: Annotated[Literal["last", "best"], "the weights of the last epoch, or of the one that was best on validation; never on test"] = "last"
    checkpoint_steps: Annotated[int, Range(1, None), "steps between checkpoints"] = 200
    forgetting: Annotated[
        Literal["off", "stop", "weight"],
        "what to do when validation samples that were right after the best epoch are wrong: nothing, end with the weights of that epoch, or draw their classes more often",
    ] = "off"
    forgetting_limit: Annotated[float, Range(0, 1), "share of those samples (under `weight`: of a class's) that may be lost before anything is done"] = 0.1


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Training after a technique, inside its stage: the original teacher's soft answers and the labels."""

    training: Annotated[Training, "how long and how fast"] = field(default_factory=lambda: Training(epochs=5, learning_rate=1e-3))
    temperature: Annotated[float, Range(0, None, closed="neither"), "softening of both softmaxes"] = 4.0
    teacher_weight: Annotated[float, Range(0, 1), "weight of the teacher's term; the labels get the rest"] = 0.9


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a stage must show on validation before the run goes on from it."""

    retention: Annotated[float | None, Range(0, TOO_GOOD), FRACTION, PERCENT, "lower bound against the baseline; none: an even share of what the contract leaves"] = None
    speedup: Annotated[float, Range(0, None), "how much faster (p50) than its input pays"] = 1.2
    shrink: Annotated[float, Range(0, None), "how much smaller than its input pays"] = 2.0
    pays: Annotated[Literal["either", "bytes", "nothing"], "whether speed or bytes must pay; `bytes` doesn't time"] = "either"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A technique by name, its config, its recovery, its gate, and what to do when the gate says no."""

    technique: Annotated[str, "name of the technique"]
    name: Annotated[str, "what the run calls this stage; empty: the technique's name"] = ""
    config: Annotated[dict[str, Any], "the technique's own options"] = field(default_factory=dict)
    recovery: Annotated[Recovery | None, "training after the technique"] = None
    gate: Annotated[Gate, "what must be shown"] = field(default_factory=Gate)
    on_fail: Annotated[Literal["skip", "refine", "stop"], "go on from the last that passed, try gentler, or end the run"] = "skip"
    refinements: Annotated[int, Range(0, 10), "gentler tries at most, under `refine`"] = 2

    @property
    def title(self) -> str:
        return self.name or self.technique


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of a run, in order."""

    stages: Annotated[tuple[Stage, ...], "in order"]
    control: Annotated[bool, "also train the final shape in FP32 without a teacher"] = True
    reasons: Annotated[tuple[str, ...], "why the plan is as it is"] = ()


CACHE_BYTES = 4_000_000_000  # of disk that a run's cache of its teacher's answers may take, unless it is told otherwise
START = frozenset({Fact.TORCH, Fact.FLOAT_WEIGHTS})
LACKS = dict.fromkeys(START, ", and the teacher is a file that a runtime loads, not a module")


def illegal(plan: Plan, cards: Mapping[str, Card], start: Iterable[Fact] = START) -> Refusal | None:
    """Why this order can't work, or None. Reads facts alone, never the names of other techniques."""
    start = frozenset(start)
    facts, broken, given = set(start), {}, {}
    for number, stage in enumerate(plan.stages, 1):
        card, place = cards[stage.technique], f"stage {number} ({stage.title})"
        for fact in sorted(card.needs - facts):
            why = f"which {broken[fact]} took away" if fact in broken else "which nothing before it gives" + ("" if fact in start else LACKS.get(fact, ""))
            way = f"Put {place} before {broken[fact]}, or leave one of them out." if fact in broken else "Add a stage that gives it, or leave this one out."
            return Refusal(f"{place} needs '{fact}', {why}.", way)
        for fact in sorted(card.breaks & given.keys()):
            return Refusal(f"{place} would undo '{fact}', which {given[fact]} gave: its work would be lost.", f"Put {place} before {given[fact]}.")
        if stage.recovery and not card.recovers:
            return Refusal(f"{place} has a recovery, but after {card.name} no weight can be trained.", "Leave its recovery out, or give it to an earlier stage.")
        facts = (facts - card.breaks) | card.gives
        broken |= dict.fromkeys(card.breaks, place)
        given |= dict.fromkeys(card.gives - START, place)  # what every module has from the start is no work that could be lost
    return None
