"""A run's folder: opened once, held against other processes, with all that stages need to work in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from limbeck.core.candidate import Candidate, TorchForm
from limbeck.core.contract import Contract, Target
from limbeck.core.errors import ConfigError, RunError
from limbeck.core.metric import Rows
from limbeck.core.plan import CACHE_BYTES, Plan
from limbeck.core.proof import Proof
from limbeck.core.task import Task
from limbeck.core.technique import Budget, Log, Signals
from limbeck.evaluation import quality
from limbeck.mechanics.build import rebuild, runnable, teacher_candidate
from limbeck.mechanics.live import LiveTeacher
from limbeck.mechanics.ranks import processes
from limbeck.pipeline.answers import Answers
from limbeck.pipeline.context import FileCheckpoint, RunContext, StageRng
from limbeck.pipeline.crash import Crashes
from limbeck.pipeline.examiner import Examiner
from limbeck.pipeline.journal import Journal
from limbeck.pipeline.lock import locked
from limbeck.pipeline.reading import check_name
from limbeck.pipeline.store import Store, digest, remove_temporaries
from limbeck.runtimes import runtime


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a run."""

    task: Task
    contract: Contract
    plan: Plan
    target: Target = field(default_factory=Target)
    name: str = "run"
    root: Path = Path("runs")
    seed: int = 0
    timing_seconds: float = 2.0  # for each artifact, each time that it is timed
    cache_bytes: int = CACHE_BYTES  # of disk for the teacher's answers
    proof: Proof = field(default_factory=Proof)  # what is shown beside the contract
    run_file: Path | None = None  # that asked for it, and `entry`, the task's in it: whoever reports finds the data again
    entry: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)  # of the environment, those that had an effect


@dataclass(frozen=True, kw_only=True)
class Run:
    """An open run folder: the request, the teacher, and the places where things are kept."""

    request: Request
    task: Task  # the request's, less what intake left out
    fingerprints: Mapping[str, str]
    folder: Path
    store: Store
    journal: Journal
    examiner: Examiner
    teacher: Candidate
    log: Log
    stop: Callable[[], bool]
    crashes: Crashes

    @cached_property
    def teacher_object(self) -> str:
        """The teacher as the run keeps it."""
        return self.store.put_candidate(self.teacher)

    @cached_property
    def other_objects(self) -> dict[str, str]:
        """The task's other trained models, by name: a technique may take one as its teacher."""
        trained = [name for name in sorted(self.task.models) if name != self.task.teacher and self.task.weights.get(name) is not None]
        return {name: self.store.put_candidate(teacher_candidate(self.task, name)) for name in trained}

    @cached_property
    def signals(self) -> Signals:
        """The teacher's answers: cached where they fit, else live."""
        return self.answers(self.teacher)

    def answers(self, candidate: Candidate, apart: bool = False) -> Signals:
        """The answers of any candidate as a teacher; `apart`: of an ensemble's members, each for itself."""
        live = LiveTeacher(self.task, runnable(candidate.form, self.task), apart=apart)
        views = self.task.views.recipe() if self.task.views else None
        known = self.teacher_object if candidate is self.teacher else self.store.put_candidate(candidate)
        identity = {"teacher": known, "data": self.fingerprints["train"], "code": self.fingerprints["code"], "views": views} | ({"apart": True} if apart else {})
        return Answers(live, self.folder / "cache", identity, self.request.cache_bytes, self.log, self.journal, self.stop)

    def checkpoint(self, key: str, scope: str) -> FileCheckpoint:
        """Where training under this key leaves its state."""
        return FileCheckpoint(self.folder / "checkpoints" / f"{key[:16]}-{scope}.safetensors", self.stop)

    def context(self, title: str, key: str, scope: str, *, train: bool = True) -> RunContext:
        """What a technique of this stage may see. The key names its checkpoint, `scope` keeps that apart from its recovery's.

        Randomness follows from the run's seed and the stage's title alone, so that two settings are compared under the same.
        """
        return RunContext(
            task=self.task,
            signals=self.signals,
            rng=StageRng.of(int(digest([self.request.seed, title, scope])[:12], 16)),
            checkpoint=self.checkpoint(key, scope),
            log=self.log,
            round_to=runtime(self.request.target.runtime).round_to,
            scratch=self.folder / "scratch" / key[:16],
            judge=self.rows,
            timer=self.time,
            answerer=self.answers,
            budget=Budget(train=train),
        )

    @cached_property
    def teacher_rows(self) -> Rows:
        """The teacher's rows on validation, in torch."""
        return quality.rows_of_module(runnable(self.teacher.form, self.task), self.task, "validation")

    def rows(self, candidate: Candidate | None) -> Rows:
        """The metric's rows of a candidate on validation, in torch; of the teacher, for None."""
        if candidate is None:
            return self.teacher_rows
        if not isinstance(candidate.form, TorchForm):
            raise ConfigError("only a candidate that torch can rebuild is judged in torch; this one is an artifact. Judge what its stage exports.")
        return quality.rows_of_module(rebuild(candidate.form, self.task), self.task, "validation")

    def time(self, candidate: Candidate) -> float:
        """Median milliseconds of the exported candidate on the target."""
        return float(np.median(self.examiner.latencies([self.examiner.keep(candidate, "a probe")])[0].samples))


@contextmanager
def held(root: Path, name: str) -> Iterator[Path]:
    """The folder of this run, locked while the block runs; what a killed process left half-written is removed.

    Raises: ConfigError for a name that could leave `root`; RunError if another process holds it, or it can't be written.
    """
    check_name(name)
    if (count := processes()) > 1:
        raise RunError(f"a run is one process's work, and {count} were launched. Start it without a launcher; a training of your own can be spread (docs: several processes).")
    folder = root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"the run folder {folder} can't be written: {error.strerror}. Choose another with run.root.") from error
    with locked(folder):
        remove_temporaries(folder)
        yield folder
        remove_temporaries(folder)
