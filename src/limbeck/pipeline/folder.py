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
from limbeck.core.plan import CACHE_BYTES, Plan
from limbeck.core.task import Task
from limbeck.core.technique import Budget, Log, Signals
from limbeck.evaluation import quality
from limbeck.mechanics.build import rebuild, runnable
from limbeck.mechanics.live import LiveTeacher
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
    def signals(self) -> Signals:
        """The teacher's answers: cached where they fit, else live."""
        live = LiveTeacher(self.task, runnable(self.teacher.form, self.task))
        views = self.task.views.recipe() if self.task.views else None
        identity = {"teacher": self.teacher_object, "data": self.fingerprints["train"], "code": self.fingerprints["code"], "views": views}
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
            scorer=self.score,
            timer=self.time,
            budget=Budget(train=train),
        )

    def score(self, candidate: Candidate) -> float:
        """The metric on validation, in torch."""
        form = candidate.form
        if not isinstance(form, TorchForm):
            raise ConfigError("only a candidate that torch can rebuild is scored in torch; this one is an artifact.")
        return quality.value(self.task.metric, quality.rows_of_module(rebuild(form, self.task), self.task, "validation"))

    def time(self, candidate: Candidate) -> float:
        """Median milliseconds of the exported candidate on the target."""
        return float(np.median(self.examiner.latencies([self.examiner.keep(candidate, "a probe")])[0].samples))


@contextmanager
def held(root: Path, name: str) -> Iterator[Path]:
    """The folder of this run, locked while the block runs; what a killed process left half-written is removed.

    Raises: ConfigError for a name that could leave `root`; RunError if another process holds it, or it can't be written.
    """
    check_name(name)
    folder = root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"the run folder {folder} can't be written: {error.strerror}. Choose another with run.root.") from error
    with locked(folder):
        remove_temporaries(folder)
        yield folder
        remove_temporaries(folder)
