"""An objective: a weighted sum of terms, each of which sees the student, the teacher and the batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.core.task import Task
from limbeck.core.technique import Reads, Selective, Signals
from limbeck.mechanics.data import Reader, arguments, batch_of, named_outputs
from limbeck.mechanics.matching import AUTO, Match, layers, resolved
from limbeck.mechanics.taps import PREFIX, tapped, with_taps

Outputs = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]
PREPARING = 64  # samples in one batch of a pass that a term makes before training


@dataclass(frozen=True)
class Seen:
    """What a term may look at in one step: outputs by name, and what it tapped as "tap:<module path>"."""

    task: Task
    model: nn.Module  # the student itself
    student: Outputs
    teacher: Outputs  # without gradient; empty if no term reads it
    batch: Any
    ids: np.ndarray  # the samples' numbers in the training split
    done: float = 0.0  # share of the training that lies behind, in [0, 1]
    own: Any = None  # the module that this term built: what it trains besides the student, or keeps from step to step
    args: tuple = ()  # the positional arguments that both models were called with: the view, not the sample as it is
    inputs: Mapping[str, Any] = field(default_factory=dict)  # and the keyword arguments
    matched: Mapping[str, str] = field(default_factory=dict)  # "auto:<student's path>" → the teacher's path

    def tap(self, side: Literal["student", "teacher"], path: str) -> Tensor:
        """What the module at this path gave; "auto:<path>" is the teacher's that answers to the student's."""
        return (self.student if side == "student" else self.teacher)[PREFIX + self.matched.get(path, path)]


@dataclass(frozen=True)
class Wiring:
    """What a term knows when it builds its own module, once, before training: shapes of a batch, and the data to pass over."""

    task: Task
    student: nn.Module
    student_shapes: Shapes  # of outputs and taps, as in Seen
    teacher_shapes: Shapes
    batches: Callable[[], Iterator[Seen]]  # one pass over the training samples as they are, in order; the student in eval mode
    matched: Mapping[str, str] = field(default_factory=dict)

    def shape(self, side: Literal["student", "teacher"], path: str) -> tuple[int, ...]:
        """The shape that a tap gives, batch first."""
        return (self.student_shapes if side == "student" else self.teacher_shapes)[PREFIX + self.matched.get(path, path)]


@dataclass(frozen=True)
class Term:
    """One pull on the student: `function(seen) → loss`, a scalar averaged over the batch.

    teacher: whether it reads the teacher's outputs. labels: whether it reads the batch's labels.
    relational: whether samples of a batch are compared with each other, so that it depends on who shares one.
    student_taps, teacher_taps: module paths whose outputs it reads; "in:<path>" taps what goes into a module;
        "auto:<student's path>" the teacher's layer that answers to one of the student's.
    builds: makes its own module (projectors, memories) from the wiring; what is trainable in it trains with the student, under
        the same schedule and clipping, and never becomes part of it.
    agrees: whether it is 0 where student and teacher agree.
    reads: what of the teacher's answers: "outputs", "taps" or "both"; empty: its taps if it has some, else outputs. A temperature T says
        that softmax(logits / T) is all, as in forward KL: then a sparse cache can serve it.
    """

    name: str
    function: Callable[[Seen], Tensor]
    teacher: bool = False
    labels: bool = False
    relational: bool = False
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    builds: Callable[[Wiring], nn.Module] | None = None
    agrees: bool = True
    reads: Literal["", "outputs", "taps", "both"] | float = ""

    def __rmul__(self, weight: float) -> Objective:
        return Objective(((float(weight), self),))

    def __add__(self, other: Term | Objective) -> Objective:
        return 1.0 * self + other


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms. A term of weight zero is never computed."""

    terms: tuple[tuple[float, Term], ...]

    def __post_init__(self) -> None:
        for weight, term in self.terms:
            if not weight >= 0:
                raise ConfigError(f"the weight of '{term.name}' must be ≥ 0, got {weight!r}. Leave the term out to switch it off.")

    def __add__(self, other: Term | Objective) -> Objective:
        return Objective((*self.terms, *(other.terms if isinstance(other, Objective) else ((1.0, other),))))

    def __rmul__(self, weight: float) -> Objective:
        return Objective(tuple((weight * w, t) for w, t in self.terms))

    @property
    def active(self) -> tuple[tuple[str, float, Term], ...]:
        """Label, weight and term of those above zero; two of one name are told apart by a number."""
        found = [(w, t) for w, t in self.terms if w > 0]
        names = [t.name for _, t in found]
        return tuple((t.name if names.count(t.name) == 1 else f"{t.name}_{names[: i + 1].count(t.name)}", w, t) for i, (w, t) in enumerate(found))

    @property
    def needs_teacher(self) -> bool:
        return any(t.teacher for _, _, t in self.active)

    def taps(self, side: Literal["student_taps", "teacher_taps"]) -> tuple[str, ...]:
        """The module paths that the terms tap on one side, each once."""
        return tuple(dict.fromkeys(path for _, _, term in self.active for path in (term.student_taps if side == "student_taps" else term.teacher_taps)))

    def bind(self, task: Task, signals: Signals | None = None, student: nn.Module | None = None, *, seed: int = 0) -> BoundObjective:
        """For a loop, yours or ours: `loss, parts = bound(student, batch, ids)`, and `bound.parameters()` beside the student's in the optimizer.

        Args:
            student: The model that will be trained; needed where a term trains something of its own, whose sizes are read off it, or where
                the teacher's layer is "auto".
            seed: Of the first weights of what terms train.
        Raises: ConfigError if no term is active, a teacher is needed and none is given, or a tap doesn't exist.
        """
        if not self.active:
            raise ConfigError("an objective needs a term with a weight above zero, got none. Give one, as in 1.0 * task_loss().")
        if self.needs_teacher and signals is None:
            names = [label for label, _, t in self.active if t.teacher]
            raise ConfigError(f"{', '.join(names)} needs a teacher's outputs, got no signals. Give LiveTeacher(task, model) or a cache of one.")
        matches, matched = self._matched(task, signals, student)
        wanted = tuple(dict.fromkeys(matched.get(path, path) for path in self.taps("teacher_taps")))
        bound = BoundObjective(self, task, self._served(signals, wanted), nn.ModuleDict(), matches, matched)
        building = [(label, t.builds) for label, _, t in self.active if t.builds]
        if not building:
            return bound
        if student is None:
            raise ConfigError(f"{', '.join(label for label, _ in building)} trains something of its own, sized by the student. Give it: objective.bind(task, signals, student).")
        wiring = bound.wiring(student)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for label, builds in building:
                bound.module[label] = builds(wiring)
        return bound

    def _served(self, signals: Signals | None, taps: tuple[str, ...]) -> Signals | None:
        """The source of what the terms read of the teacher."""
        if signals is None or not self.needs_teacher:
            return signals
        if not isinstance(signals, Selective):
            return signals.tapped(taps) if taps else signals
        softened = {label: float(t.reads) for label, _, t in self.active if isinstance(t.reads, (int, float))}
        whole = tuple(label for label, _, t in self.active if t.teacher and (t.reads in ("outputs", "both") or (t.reads == "" and not t.teacher_taps)))
        return signals.serving(Reads(whole, softened, taps))

    def _matched(self, task: Task, signals: Signals | None, student: nn.Module | None) -> tuple[tuple[Match, ...], dict[str, str]]:
        """What the teacher's taps that say "auto" stand for: the layers that were matched, and each tap's path."""
        asked = [path for path in self.taps("teacher_taps") if path.startswith(AUTO)]
        if not asked or not signals:
            return (), {}
        if student is None:
            raise ConfigError('teacher = "auto" needs the student, whose layers are matched. Give it: objective.bind(task, signals, student).')
        return resolved(asked, layers(student, *arguments(task, batch_of(task, "train", [0, 1]))), signals.layers())


@dataclass(frozen=True)
class BoundObjective:
    """An objective with the task and the source of the teacher's answers: student and teacher see the same view.

    module: what terms train besides the student, by their label. It is never part of the student.
    matches: the teacher's layers that were chosen for those of the student; `matching.table` prints them.
    """

    objective: Objective
    task: Task
    signals: Signals | None
    module: nn.ModuleDict
    matches: tuple[Match, ...] = ()
    matched: Mapping[str, str] = field(default_factory=dict)  # "auto:<student's path>" → the teacher's path

    def __call__(self, student: nn.Module, batch: Any, ids: np.ndarray, view: int = 0, *, done: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and each term's own value, unweighted and detached."""
        seen = self.see(student, batch, ids, view, done=done)
        own = dict(self.module.items())
        values = [(label, weight, term.function(replace(seen, own=own.get(label)))) for label, weight, term in self.objective.active]
        loss = values[0][1] * values[0][2]
        for _, weight, value in values[1:]:
            loss = loss + weight * value
        return loss, {label: value.detach() for label, _, value in values}

    def see(self, student: nn.Module, batch: Any, ids: np.ndarray, view: int = 0, *, done: float = 0.0) -> Seen:
        """One step's outputs of student and teacher, with what is tapped."""
        views = np.full(len(ids), view)
        args, kwargs = self.task.views.apply_to(self.task, batch, ids, views) if self.task.views else arguments(self.task, batch)
        teacher = self.signals.teacher(ids, view, args, kwargs) if self.signals and self.objective.needs_teacher else {}
        with tapped(student, self.objective.taps("student_taps")) as seen:
            outputs = named_outputs(self.task, student(*args, **kwargs))
        return Seen(self.task, student, with_taps(outputs, seen), teacher, batch, ids, done, args=args, inputs=kwargs, matched=self.matched)

    def parameters(self) -> list[nn.Parameter]:
        """What terms train besides the student: into the optimizer and the clipping with it."""
        return [p for p in self.module.parameters() if p.requires_grad]

    def wiring(self, student: nn.Module) -> Wiring:
        """Shapes of the first two samples' outputs, and a way to pass over the training split; the student's modes stay as they are."""
        with torch.no_grad(), closing(self._pass(student, size=2)) as batches:
            first = next(batches)
        shapes = [{name: tuple(value.shape) for name, value in side.items()} for side in (first.student, first.teacher)]
        return Wiring(self.task, student, *shapes, batches=lambda: self._pass(student, size=PREPARING), matched=self.matched)

    def _pass(self, student: nn.Module, *, size: int) -> Generator[Seen, None, None]:
        reader, count = Reader(self.task, "train"), len(self.task.split("train"))
        modes = {module: module.training for module in student.modules()}
        student.eval()
        try:
            for start in range(0, count, size):
                ids = np.arange(start, min(count, start + size))
                yield self.see(student, reader.batch(ids), ids)
        finally:
            for module, training in modes.items():
                module.training = training
