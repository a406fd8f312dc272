"""An objective: a weighted sum of terms, each of which sees the student, the teacher and the batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.core.task import Task
from limbeck.core.technique import Reads, Selective, Signals
from limbeck.mechanics.alignment import calls
from limbeck.mechanics.data import Reader, arguments, batch_of, named_outputs
from limbeck.mechanics.depths import placed
from limbeck.mechanics.matching import AUTO, BY_CKA, Match, layers, resolved
from limbeck.mechanics.ranks import Ranks, current, inner
from limbeck.mechanics.seen import Outputs as Outputs
from limbeck.mechanics.seen import Seen as Seen
from limbeck.mechanics.seen import Wiring as Wiring
from limbeck.mechanics.taps import tapped, with_taps
from limbeck.mechanics.views import Viewer, refuse
from limbeck.mechanics.window import ALWAYS, Window

Balance = Literal["static", "uncertainty"]
BALANCE = "balance"  # where a bound objective keeps what balances its terms
PREPARING = 64  # samples in one batch of a pass that a term makes before training


@dataclass(frozen=True)
class Term:
    """One pull on the student: `function(seen) → loss`, a scalar averaged over the batch.

    teacher: whether it reads the teacher's outputs. labels: whether it reads the batch's labels; mixes: then, whether it knows what to do
        where samples are mixed (`Seen.mixed`). Else it is refused under such views.
    relational: whether samples of a batch are compared with each other, so that it depends on who shares one.
    student_taps, teacher_taps: module paths whose outputs it reads; "in:<path>" taps what goes into a module;
        "auto:<student's path>" the teacher's layer that answers to one of the student's.
    builds: makes its own module (projectors, memories) from the wiring; what is trainable in it trains with the student, under
        the same schedule and clipping, and never becomes part of it.
    agrees: whether it is 0 where student and teacher agree.
    reads: what of the teacher's answers: "outputs", "taps" or "both"; empty: its taps if it has some, else outputs. A temperature T says
        that softmax(logits / T) is all, as in forward KL: then a sparse cache can serve it.
    window: when it pulls; outside of it, it isn't computed.
    chosen: layers of the student that it taps besides, and that are found when it is bound (`depths.HEAD`, `depths.at`).
    tells: figures to show beside its value, by name: "temperature of ctkd".
    """

    name: str
    function: Callable[[Seen], Tensor]
    teacher: bool = False
    labels: bool = False
    mixes: bool = False
    relational: bool = False
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    builds: Callable[[Wiring], nn.Module] | None = None
    agrees: bool = True
    reads: Literal["", "outputs", "taps", "both"] | float = ""
    window: Window = ALWAYS
    chosen: tuple[str, ...] = ()
    tells: Callable[[Seen], Mapping[str, Tensor | float]] | None = None

    def __rmul__(self, weight: float) -> Objective:
        return Objective(((float(weight), self),))

    def __add__(self, other: Term | Objective) -> Objective:
        return 1.0 * self + other


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms. A term of weight zero is never computed.

    balance: "static" takes the weights as they are; "uncertainty" multiplies each by exp(−s) and adds s, a number of the term's own that
        trains with the student (Kendall et al. 2018, arXiv:1705.07115, §3.2): large and noisy losses weigh less.
    """

    terms: tuple[tuple[float, Term], ...]
    balance: Balance = "static"

    def __post_init__(self) -> None:
        for weight, term in self.terms:
            if not weight >= 0:
                raise ConfigError(f"the weight of '{term.name}' must be ≥ 0, got {weight!r}. Leave the term out to switch it off.")

    def __add__(self, other: Term | Objective) -> Objective:
        return replace(self, terms=(*self.terms, *(other.terms if isinstance(other, Objective) else ((1.0, other),))))

    def __rmul__(self, weight: float) -> Objective:
        return replace(self, terms=tuple((weight * w, t) for w, t in self.terms))

    def balanced(self, balance: Balance) -> Objective:
        """The same terms under another balance."""
        return replace(self, balance=balance)

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

    @property
    def chosen(self) -> tuple[str, ...]:
        """The student's layers that terms leave to be found, each once."""
        return tuple(dict.fromkeys(place for _, _, term in self.active for place in term.chosen))

    def bind(self, task: Task, signals: Signals | None = None, student: nn.Module | None = None, *, seed: int = 0) -> BoundObjective:
        """For a loop, yours or ours: `loss, parts = bound(student, batch, ids)`, and `bound.parameters()` beside the student's in the optimizer.

        Args:
            student: The model that will be trained; needed where a term trains something of its own, whose sizes are read off it, or where
                the teacher's layer is "auto".
            seed: Of the first weights of what terms train.
        Raises: ConfigError if no term is active, a teacher is needed and none is given, a tap doesn't exist, or a term can't do with the views.
        """
        if not self.active:
            raise ConfigError("an objective needs a term with a weight above zero, got none. Give one, as in 1.0 * task_loss().")
        if self.needs_teacher and signals is None:
            names = [label for label, _, t in self.active if t.teacher]
            raise ConfigError(f"{', '.join(names)} needs a teacher's outputs, got no signals. Give LiveTeacher(task, model) or a cache of one.")
        refuse(task, [label for label, _, t in self.active if t.labels and not t.mixes])
        own = self._own(task, student)
        matches, matched = self._matched(task, signals, student, own)
        wanted = tuple(dict.fromkeys(matched.get(path, path) for path in self.taps("teacher_taps")))
        bound = BoundObjective(self, task, self._served(signals, wanted), nn.ModuleDict(), matches, {**own, **matched}, current())
        if self.balance == "uncertainty":
            bound.module[BALANCE] = nn.ParameterDict({label: nn.Parameter(torch.zeros(())) for label, _, _ in self.active})
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

    def _own(self, task: Task, student: nn.Module | None) -> dict[str, str]:
        """The student's path that each chosen layer stands for."""
        if not self.chosen:
            return {}
        if student is None:
            raise ConfigError("a layer that is left to be found needs the student. Give it: objective.bind(task, signals, student), or name the layer.")
        return placed(self.chosen, task, student)

    def _matched(self, task: Task, signals: Signals | None, student: nn.Module | None, own: Mapping[str, str]) -> tuple[tuple[Match, ...], dict[str, str]]:
        """What the teacher's taps that say "auto" stand for: the layers that were matched, and each tap's path."""
        asked = [path for path in self.taps("teacher_taps") if path.startswith(AUTO)]
        if not asked or not signals:
            return (), {}
        if student is None:
            raise ConfigError('teacher = "auto" needs the student, whose layers are matched. Give it: objective.bind(task, signals, student).')
        stands = {}
        for tap in asked:
            prefix = BY_CKA if tap.startswith(BY_CKA) else AUTO
            stands[tap] = prefix + own.get(tap.removeprefix(prefix), tap.removeprefix(prefix))
        places = layers(student, *arguments(task, batch_of(task, "train", [0, 1])))
        matches, paths = resolved(list(dict.fromkeys(stands.values())), places, signals.layers(), lambda: calls(task))
        return matches, {path: paths[stood] for path, stood in stands.items()}


@dataclass(frozen=True)
class BoundObjective:
    """An objective with the task and the source of the teacher's answers: student and teacher see the same view.

    module: what terms train besides the student, by their label. It is never part of the student.
    matches: the teacher's layers that were chosen for those of the student; `matching.table` prints them.
    ranks: this process among those that train together, if there are several: terms that compare samples see those of all.
    """

    objective: Objective
    task: Task
    signals: Signals | None
    module: nn.ModuleDict
    matches: tuple[Match, ...] = ()
    matched: Mapping[str, str] = field(default_factory=dict)  # "auto:<student's path>" → the teacher's path; "own:<place>" → the student's
    ranks: Ranks | None = None
    viewer: Viewer = None  # pyright: ignore[reportAssignmentType] - the task's, made here unless it is given: what it keeps in memory is read once, and shared by copies

    def __post_init__(self) -> None:
        if self.viewer is None or self.viewer.task is not self.task:
            object.__setattr__(self, "viewer", Viewer(self.task))

    def __call__(
        self, student: nn.Module, batch: Any, ids: np.ndarray, view: int = 0, *, done: float = 0.0, pulls: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and each term's own value, unweighted and detached. `pulls`, if given, is filled with weight · term, its graph kept."""
        pulling = [(label, weight * term.window.share(done), term) for label, weight, term in self.objective.active if term.window.open(done)]
        if not pulling:
            names = ", ".join(label for label, _, _ in self.objective.active)
            raise ConfigError(f"no term pulls at {done:.0%} of the training: {names} pull before or after. Let their windows cover all of it.")
        seen = self.see(student, batch, ids, view, done=done, teacher=any(term.teacher for _, _, term in pulling))
        own, balance = dict(self.module.items()), self._balance()
        whole = self.ranks.gathered(seen) if self.ranks and any(term.relational for _, _, term in pulling) else seen
        steps = {label: replace(whole if term.relational else seen, own=own.get(label)) for label, _, term in pulling}
        values = [(label, weight, term.function(steps[label])) for label, weight, term in pulling]
        parts = {label: value.detach() for label, _, value in values}
        parts |= {f"{name} of {label}": torch.as_tensor(figure).detach() for label, _, term in pulling if term.tells for name, figure in term.tells(steps[label]).items()}
        losses = [weight * value if balance is None else weight * torch.exp(-balance[label]) * value + balance[label] for label, weight, value in values]
        if pulls is not None:
            pulls |= {label: loss for (label, _, _), loss in zip(values, losses, strict=True)}
        if balance is not None:
            parts |= {f"weight of {label}": (weight * torch.exp(-balance[label])).detach() for label, weight, _ in values}
        return sum(losses[1:], losses[0]), parts

    def _balance(self) -> nn.ParameterDict | None:
        """The terms' own numbers s, where their weights are learned."""
        found = dict(self.module.items()).get(BALANCE)
        return found if isinstance(found, nn.ParameterDict) else None

    def see(self, student: nn.Module, batch: Any, ids: np.ndarray, view: int = 0, *, done: float = 0.0, teacher: bool = True) -> Seen:
        """One step's outputs of student and teacher, with what is tapped; the teacher isn't asked where nothing that pulls reads it."""
        shown = self.viewer.see(batch, ids, view)
        args, kwargs = shown.args, shown.kwargs
        answers = self.signals.teacher(ids, view, args, kwargs) if teacher and self.signals and self.objective.needs_teacher else {}
        taps = dict.fromkeys((*self.objective.taps("student_taps"), *(self.matched[place] for place in self.objective.chosen)))
        with tapped(inner(student), tuple(taps)) as seen:
            outputs = named_outputs(self.task, student(*args, **kwargs))
        return Seen(self.task, inner(student), with_taps(outputs, seen), answers, batch, ids, done, args=args, inputs=kwargs, matched=self.matched, view=view, mixed=shown.mixed)

    def parameters(self) -> list[nn.Parameter]:
        """What terms train besides the student: into the optimizer and the clipping with it."""
        return [p for p in self.module.parameters() if p.requires_grad]

    def share_gradients(self) -> None:
        """After each backward pass of a loop of your own under DistributedDataParallel, which averages the student's gradients alone: those of
        what terms train are averaged too. Nothing in one process."""
        if self.ranks and self.parameters():
            self.ranks.add_gradients_(self.parameters(), 1 / self.ranks.count)

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
